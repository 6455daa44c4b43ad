"""Judges server events by the types of an `openai` package, strictly, where the package itself takes what it gets.

The types are not the service: what it sends beyond them is named here, and nothing else passes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


@dataclass(frozen=True)
class Allowance:
    """What the service sends although the types do not have it."""

    fields: frozenset[str] = frozenset()
    """Fields, by their path within the event."""
    any_field: bool = False
    """For a package that is older than the last version of the dialect: fields that it does not know."""
    events: frozenset[str] = frozenset()
    """Likewise, events."""
    values: frozenset[tuple[str, Any]] = frozenset()
    """Values of fields that the types forbid, each with its place as `event/path`."""
    absent: frozenset[str] = frozenset()
    """What it leaves out although the types demand it: places of fields as `event/path`."""


GA = Allowance(fields=frozenset({"session.id", "session.object", "session.expires_at"}))
BETA = Allowance(
    fields=frozenset(
        {
            "session.object",
            "session.expires_at",
            "session.include",
            "session.prompt",
            "session.truncation",
            "session.turn_detection.idle_timeout_ms",
            "response.usage.input_token_details.cached_tokens_details",
        }
    ),
    events=frozenset({"transcription_session.created"}),
    absent=frozenset({"transcription_session.updated/session.client_secret"}),
)
BETA_1_60 = Allowance(
    any_field=True,
    events=frozenset({"conversation.item.input_audio_transcription.delta", "vivavoce.warning"}),
    values=frozenset(
        {
            ("conversation.item.created/previous_item_id", None),
            ("input_audio_buffer.committed/previous_item_id", None),
            ("conversation.item.created/item.status", "in_progress"),
            ("response.created/response.status", "in_progress"),
            ("response.output_item.added/item.status", "in_progress"),
            ("response.output_item.done/item.content.0.type", "audio"),
            ("response.done/response.output.0.content.0.type", "audio"),
        }
    ),
)


class Judge:
    """Knows every event of one union of server events."""

    def __init__(self, union: Any, allowed: Allowance) -> None:
        members = get_args(get_args(union)[0])
        self._models: dict[str, type[BaseModel]] = {
            name: model for model in members for name in get_args(model.model_fields["type"].annotation)
        }
        self._allowed = allowed

    def check_all(self, wire: Iterable[str]) -> None:
        """Check every event."""
        for frame in wire:
            self.check(frame)

    def check(self, frame: str) -> None:
        """One event: a known type, every field as typed, no field that the types do not know.

        Raises `ValueError`, pydantic's own where a field is wrong.
        """
        name = json.loads(frame)["type"]
        if name in self._allowed.events:
            return
        if name not in self._models:
            raise ValueError(f"no such server event in the types: {name}")
        try:
            event = self._models[name].model_validate_json(frame, strict=True)
        except ValidationError as error:
            if not all(self._is_allowed(name, wrong) for wrong in error.errors()):
                raise
            return
        unknown = set() if self._allowed.any_field else set(_unknown_fields(event)) - self._allowed.fields
        if unknown:
            raise ValueError(f"{name} has fields that the types do not know: {', '.join(sorted(unknown))}")

    def _is_allowed(self, name: str, wrong: Any) -> bool:
        place = f"{name}/{'.'.join(str(part) for part in wrong['loc'])}"
        if wrong["type"] == "missing":
            return place in self._allowed.absent
        return any(place == allowed and wrong["input"] == value for allowed, value in self._allowed.values)


def _unknown_fields(value: object, path: str = "") -> Iterator[str]:
    """Paths of the fields that were kept without a type, at any depth."""
    if isinstance(value, BaseModel):
        yield from (path + name for name in value.model_extra or ())
        for name in type(value).model_fields:
            yield from _unknown_fields(getattr(value, name), f"{path}{name}.")
    elif isinstance(value, list):
        for element in value:
            yield from _unknown_fields(element, path)
