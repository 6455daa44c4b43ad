"""Stored prompts as a folder has them: names and versions, and what is refused by file and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from vivavoce.core.prompts import Prompts
from vivavoce.errors import SettingsError
from vivavoce.server import prompts
from vivavoce.server.prompts import load_prompts


def folder(path: Path, **files: str) -> Prompts:
    """The prompts of a folder with these files; `__` stands for a slash."""
    for name, text in files.items():
        file = path / f"{name.replace('__', '/')}.toml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return load_prompts(str(path))


def test_versions_are_in_natural_order_and_a_single_file_is_version_1(tmp_path: Path) -> None:
    found = folder(tmp_path, shop__9="", shop__10="", shop__2="", desk="instructions = 'Be brief.'")
    assert {name: list(versions) for name, versions in found.items()} == {"desk": ["1"], "shop": ["2", "9", "10"]}
    assert found["desk"]["1"].instructions == "Be brief."


def test_digits_that_are_no_numbers_are_part_of_a_name(tmp_path: Path) -> None:
    assert list(folder(tmp_path, **{"1²2": ""})) == ["1²2"]


def test_without_a_folder_there_are_none() -> None:
    assert load_prompts(None) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("instructions", r"a\.toml: is not TOML"),
        ("tools = " + "[" * 5_000, r"a\.toml: is nested too deeply"),
        ("instructions = '" + "x" * 2_000 + "'", r"a\.toml: has 2017 bytes, at most 1000 are read"),
        ("model = 'm'", r"a\.toml: model: a prompt can set audio, instructions"),
        ("audio.output.speed = 9", r"a\.toml: audio\.output\.speed: Expected"),
    ],
)
def test_what_cannot_be_used_is_refused_by_file_and_field(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "PROMPT_BYTES_MAX", 1_000 if "x" in text else 10_000)
    with pytest.raises(SettingsError, match=f"^prompts: .*{said}"):
        folder(tmp_path, a=text)


def test_one_version_has_one_file_and_a_prompt_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="two files for version '1' of 'a'"):
        folder(tmp_path, a="", a__1="")
    (tmp_path / "a.toml").unlink()
    (tmp_path / "b.toml").mkdir()
    with pytest.raises(SettingsError, match=r"b\.toml: cannot be read"):
        load_prompts(str(tmp_path))
