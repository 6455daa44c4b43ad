"""Stored prompts: a part of a configuration by id, its variables filled in (reference §2.1, `prompt`).

The server reads them from a folder; here they are values. Fields that a client sets itself win over those of a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import structs

from vivavoce.protocol.base import UnsetType, given
from vivavoce.protocol.config import Prompt, RealtimeSession

from .refused import Refused, invalid

Prompts = Mapping[str, Mapping[str, RealtimeSession]]
"""By id, then by version; the last version of an id is the one that is meant where none is named."""

_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


def filled(prompts: Prompts, prompt: Prompt, where: str) -> RealtimeSession:
    """What the prompt sets. Raises `Refused` where it is not known or a variable is missing; `where` is its param."""
    versions = prompts.get(prompt.id)
    if not versions:
        raise invalid(f"{where}.id", f"There is no prompt with the id '{prompt.id}'.")
    version = given(prompt.version, None) or list(versions)[-1]
    stored = versions.get(version)
    if stored is None:
        known = ", ".join(f"'{name}'" for name in versions)
        raise invalid(f"{where}.version", f"The prompt '{prompt.id}' has no version '{version}'; it has {known}.")
    if isinstance(stored.instructions, UnsetType):
        return stored
    values = given(prompt.variables, None) or {}
    return structs.replace(stored, instructions=_fill(stored.instructions, values, f"{where}.variables"))


def _fill(text: str, values: Mapping[str, Any], where: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            raise Refused(
                "missing_required_parameter", f"Missing required parameter: '{where}.{name}'.", f"{where}.{name}"
            )
        return _text(values[name], f"{where}.{name}")

    return _VARIABLE.sub(value, text)


def _text(value: Any, where: str) -> str:
    """A variable's value: text, or a part of type `input_text`."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.get("type") == "input_text" and isinstance(value.get("text"), str):
        return str(value["text"])
    raise invalid(where, "A variable of a prompt has to be text, or an object of type 'input_text'.")
