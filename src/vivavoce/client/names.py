"""The names under which events are told, and the check of names that people type.

A name that no event has would wait for ever; it is refused, with the one that was probably meant. `server.` in front
says: I know that there is such an event, even if you do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, Literal, get_args

from vivavoce.core.caller import updates
from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import events as ev
from vivavoce.protocol.shapes import tag

CONNECTION = ("lost", "resumed", "restored", "renewed", "closed")
"""What happens to the connection, told as `connection.lost` and so on."""

_NAMES: dict[type, tuple[str, ...]] = {}
_OTHER_WORDS: Mapping[str, str] = {
    "close": "connection.closed",
    "disconnect": "connection.closed",
    "conversation.item.created": "conversation.item.added",
    "response.text.delta": "response.output_text.delta",
    "response.text.done": "response.output_text.done",
    "response.audio.delta": "response.output_audio.delta",
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
}
"""Beta's names: in either dialect events are told under those of today."""


@dataclass(frozen=True, slots=True)
class RealtimeEvent:
    """Any event, as it goes by (`realtime.event`). `time` is ISO 8601, UTC."""

    time: str
    source: Literal["server", "client"]
    event: Any

    @property
    def type(self) -> str:
        """The name under which it is told."""
        return "realtime.event"


@dataclass(frozen=True, slots=True)
class ConnectionChanged:
    """Something has happened to the connection; `details` has the close code and the reason where it was lost."""

    what: Literal["lost", "resumed", "restored", "renewed", "closed"]
    details: Mapping[str, Any]

    @property
    def type(self) -> str:
        """The name under which it is told."""
        return f"connection.{self.what}"


def realtime_event(event: Any, source: Literal["server", "client"]) -> RealtimeEvent:
    """An event, now."""
    return RealtimeEvent(datetime.now(UTC).isoformat(timespec="milliseconds"), source, event)


def names_of(event: ev.AnyServerEvent | ev.Unknown) -> tuple[str, ...]:
    """The names of an event of the server."""
    if isinstance(event, ev.Unknown):
        return (event.kind, f"server.{event.kind}")
    names = _NAMES.get(type(event))
    if names is None:
        names = _NAMES[type(event)] = (event.type, f"server.{event.type}")
    return names


def name_of(event: str | type[Any]) -> str:
    """The name for a type of event; a name or pattern stays what it is. Raises `LocalProtocolError`."""
    if isinstance(event, str):
        return event
    if event in _TYPES:
        return _TYPES[event]
    raise LocalProtocolError(
        f"{event!r} names no event; write a name like 'response.done', or a type of vivavoce.events that the server "
        "or the client sends"
    )


def known_names() -> set[str]:
    """All names that are told."""
    own = {update.type for update in get_args(updates.Update)} | {"realtime.event", "error"}
    server = {str(tag(event)) for event in get_args(ev.AnyServerEvent)}
    client = {f"client.{tag(event)}" for event in get_args(ev.AnyClientEvent)}
    return own | server | client | {f"connection.{what}" for what in CONNECTION}


def check_name(name: str) -> None:
    """Raises `LocalProtocolError` for a name that nothing is told under; patterns are taken as they are."""
    if name.startswith("server.") or any(sign in name for sign in "*?["):
        return
    known = known_names()
    if name in known and name not in _OTHER_WORDS:
        return
    meant = _OTHER_WORDS.get(name) or next(iter(get_close_matches(name, known, n=1, cutoff=0.5)), None)
    hint = f"; {meant!r} is probably meant" if meant else ""
    raise LocalProtocolError(
        f"there is no event {name!r}{hint}. For one that this version does not know write 'server.{name}'"
    )


_TYPES: Mapping[type, str] = {
    **{event: f"server.{tag(event)}" for event in get_args(ev.AnyServerEvent)},
    **{event: f"client.{tag(event)}" for event in get_args(ev.AnyClientEvent)},
    **{update: update.type for update in get_args(updates.Update) if update is not updates.Failed},
    RealtimeEvent: "realtime.event",
    ConnectionChanged: "connection.*",
}
"""Types that are names. `Failed` is none: others are told under `error` as well."""
