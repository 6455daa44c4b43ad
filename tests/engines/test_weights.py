"""Packaged weights: found without importing their package, and used only if they are the ones expected."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from vivavoce.engines.weights import PackagedFile, existing, library, verified
from vivavoce.errors import EngineError, EngineMissing, SettingsError

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with weights that cannot be imported, on the path."""
    name = f"carrier_{tmp_path.name.replace('-', '_')}"
    (tmp_path / name / "data").mkdir(parents=True)
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (tmp_path / name / "data" / "model.bin").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_a_file_is_found_without_importing_its_package(package: str, tmp_path: Path) -> None:
    file = PackagedFile(package, "data/model.bin", "carrier==1", DIGEST)
    assert verified(file) == tmp_path / package / "data" / "model.bin"
    assert package not in sys.modules


def test_a_file_is_read_once_in_a_process(package: str, tmp_path: Path) -> None:
    file = PackagedFile(package, "data/model.bin", "carrier==1", DIGEST)
    path = verified(file)
    path.write_bytes(b"changed behind our back")
    assert verified(file) == path


def test_a_file_that_differs_is_refused_with_both_digests(package: str) -> None:
    expected = "0" * 64
    with pytest.raises(EngineError, match="carrier==1") as caught:
        verified(PackagedFile(package, "data/model.bin", "carrier==1", expected))
    assert caught.value.code == "weights_differ"
    assert expected in caught.value.message
    assert DIGEST in caught.value.message
    assert "model.bin" in caught.value.message


def test_every_file_of_a_folder_is_compared(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "data" / "config.json").write_text("{}")
    with pytest.raises(EngineError, match=r"config\.json"):
        verified(
            PackagedFile(package, "data/model.bin", "carrier==1", DIGEST),
            PackagedFile(package, "data/config.json", "carrier==1", DIGEST),
        )


def test_what_to_install_is_said(package: str) -> None:
    with pytest.raises(EngineMissing, match=r'pip install "vivavoce\[local\]"'):
        verified(PackagedFile("no_such_package_here", "model.bin", "carrier==1", DIGEST))
    with pytest.raises(EngineMissing, match=r"other\.bin is not in the installed package"):
        verified(PackagedFile(package, "other.bin", "carrier==1", DIGEST))
    with pytest.raises(EngineMissing, match="no_such_library_here"):
        library("no_such_library_here")


def test_a_path_of_the_users_own_has_to_exist(tmp_path: Path) -> None:
    assert existing(str(tmp_path), "whisper", "model") == tmp_path
    with pytest.raises(SettingsError, match=r"'whisper': option 'model': nothing at .*none"):
        existing(str(tmp_path / "none"), "whisper", "model")
