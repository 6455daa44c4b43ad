"""Sounds that can be made again from their descriptions."""

from __future__ import annotations

import pytest

from vivavoce.testing.sounds import describe, silence, sound, tone


def test_a_sound_lasts_as_long_as_it_says() -> None:
    assert len(tone(130)) == 130 * 48
    assert len(silence(20)) == 20 * 48
    assert set(silence(20)) == {0}


@pytest.mark.parametrize(
    "description", ["tone 1 ms", "silence 7 ms", "tone 200 ms + silence 500 ms + tone 30 ms", "tone 5 ms + tone 5 ms"]
)
def test_a_sound_is_made_again_from_its_description(description: str) -> None:
    assert describe(sound(description)) == description


def test_other_audio_has_no_description() -> None:
    assert describe(b"\x01\x00" * 240) is None
    assert describe(tone(10)[:-2]) is None
    assert describe(silence(10)[:-2]) is None
    assert describe(b"") is None


@pytest.mark.parametrize("description", ["", "tone", "noise 20 ms", "tone 20 ms +", "tone 9999999999 ms"])
def test_what_describes_no_sound_is_refused(description: str) -> None:
    with pytest.raises(ValueError, match="describes no sound"):
        sound(description)
