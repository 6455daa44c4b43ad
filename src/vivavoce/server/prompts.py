"""Stored prompts from a folder: TOML files, each a part of a session's configuration (reference §2.1, `prompt`).

`ID.toml` is a prompt of one version, `ID/VERSION.toml` one of several: a client that names none means the last of them
in natural order. A file says what a `session.update` could say, `instructions` with `{{variables}}` first of all. Read
once, at the start; what cannot be used is refused there, by file and field.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from vivavoce.core.prompts import Prompts
from vivavoce.errors import SettingsError
from vivavoce.protocol.config import RealtimeSession

from .sources import read_toml

ONLY_VERSION = "1"
PROMPTS_MAX = 10_000
"""Files in the folder. More of them are not prompts."""
PROMPT_BYTES_MAX = 1024 * 1024
"""Size of one file. A larger one is not a prompt."""
FIELDS = frozenset(
    {"instructions", "tools", "tool_choice", "output_modalities", "max_output_tokens", "audio", "truncation"}
)
"""What a prompt may set."""


def load_prompts(folder: str | None) -> Prompts:
    """The prompts of the folder, by id and version; none without a folder. Raises `SettingsError`."""
    if folder is None:
        return {}
    root = Path(folder)
    if not root.is_dir():
        raise SettingsError(f"prompts: {folder!r} is not a folder")
    files = sorted((*root.glob("*.toml"), *root.glob("*/*.toml")), key=_natural)
    if len(files) > PROMPTS_MAX:
        raise SettingsError(f"prompts: {folder!r} holds {len(files)} prompts, at most {PROMPTS_MAX} are read")
    prompts: dict[str, dict[str, RealtimeSession]] = {}
    for file in files:
        is_single = file.parent == root
        name, version = (file.stem, ONLY_VERSION) if is_single else (file.parent.name, file.stem)
        if version in prompts.setdefault(name, {}):
            raise SettingsError(f"prompts: there are two files for version {version!r} of {name!r}")
        prompts[name][version] = _read(file)
    return prompts


def _natural(file: Path) -> list[tuple[int, str]]:
    """Version 10 comes behind version 9."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", file.as_posix())]


def _read(file: Path) -> RealtimeSession:
    try:
        values = read_toml(file, bytes_max=PROMPT_BYTES_MAX)
    except SettingsError as error:
        raise SettingsError(f"prompts: {error}") from None
    for name in values:
        if name not in FIELDS:
            raise SettingsError(f"prompts: {file}: {name}: a prompt can set {', '.join(sorted(FIELDS))}")
    try:
        return msgspec.convert({"type": "realtime", **values}, RealtimeSession)
    except msgspec.ValidationError as error:
        said, _, where = str(error).partition(" - at `$.")
        raise SettingsError(f"prompts: {file}: {where.rstrip('`')}: {said}") from None
