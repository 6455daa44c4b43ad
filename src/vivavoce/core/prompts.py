"""Stored prompts: a part of a configuration by id, its variables filled in (reference §2.1, `prompt`).

The server reads them from a folder; here they are values. Fields that a client sets itself win over those of a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import Any, TypeVar

from msgspec import structs

from vivavoce.protocol.base import UnsetType, given
from vivavoce.protocol.config import AudioConfig, AudioInput, AudioOutput, Prompt, RealtimeSession

from .refused import Refused, invalid

Prompts = Mapping[str, Mapping[str, RealtimeSession]]
"""By id, then by version; the last version of an id is the one that is meant where none is named."""

S = TypeVar("S", AudioInput, AudioOutput, RealtimeSession)

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
    given_values = given(prompt.variables, None) or {}
    values = {name: _text(value, f"{where}.variables.{name}") for name, value in given_values.items()}
    if isinstance(stored.instructions, UnsetType):
        return stored
    return structs.replace(stored, instructions=_fill(stored.instructions, values, f"{where}.variables"))


def fields_of(config: RealtimeSession) -> set[str]:
    """The paths of all fields that it sets, such as `instructions` and `audio.output.voice`."""
    audio = given(config.audio, AudioConfig())
    return (
        _present(config) - {"audio"}
        | {f"audio.input.{name}" for name in _present(given(audio.input, AudioInput()))}
        | {f"audio.output.{name}" for name in _present(given(audio.output, AudioOutput()))}
    )


def beneath(update: RealtimeSession, stored: RealtimeSession, direct: Set[str]) -> RealtimeSession:
    """The update, with what the prompt says about fields that neither it nor an earlier one (`direct`) has set."""
    taken, theirs = direct | fields_of(update) | {"audio"}, given(stored.audio, None)
    update = _filled_up(update, stored, taken, "")
    if theirs is None:
        return update
    ours = given(update.audio, AudioConfig())
    into = _filled_up(given(ours.input, AudioInput()), given(theirs.input, AudioInput()), taken, "audio.input.")
    out = _filled_up(given(ours.output, AudioOutput()), given(theirs.output, AudioOutput()), taken, "audio.output.")
    return structs.replace(update, audio=AudioConfig(input=into, output=out))


def _present(config: RealtimeSession | AudioInput | AudioOutput) -> set[str]:
    return {name for name in config.__struct_fields__ if not isinstance(getattr(config, name), UnsetType)}


def _filled_up(ours: S, theirs: S, taken: Set[str], path: str) -> S:
    return structs.replace(
        ours, **{name: getattr(theirs, name) for name in _present(theirs) if f"{path}{name}" not in taken}
    )


def _fill(text: str, values: Mapping[str, str], where: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            raise Refused(
                "missing_required_parameter", f"Missing required parameter: '{where}.{name}'.", f"{where}.{name}"
            )
        return values[name]

    return _VARIABLE.sub(value, text)


def _text(value: Any, where: str) -> str:
    """A variable's value: text, or a part of type `input_text`."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.get("type") == "input_text" and isinstance(value.get("text"), str):
        return str(value["text"])
    raise invalid(where, "A variable of a prompt has to be text, or an object of type 'input_text'.")
