"""The client's end of the wire: events to messages, and messages to events.

It is liberal: what it does not know it keeps, in `raw`, `Unknown`, `UnknownItem` and `UnknownPart`. Apart from the
server's end (`codec`), so that a client starts without everything that a server knows about mistakes. Between the
codecs and the rest of the program there are only GA events, whatever the dialect.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from msgspec.structs import force_setattr

from vivavoce.errors import LocalProtocolError

from .base import UNSET
from .events import AnyClientEvent, AnyServerEvent, Unknown
from .wire import Reader, ga_reader, write

if TYPE_CHECKING:
    from . import translation as tr
    from .dialects.beta_codec import BetaReader

__all__ = ["ClientCodec", "Dialect", "TranslationClientCodec"]

Dialect = Literal["ga", "beta"]


class ClientCodec:
    """The client's end of a conversation or a transcription; one per connection."""

    def __init__(self, dialect: Dialect = "ga") -> None:
        self._write: Callable[[AnyClientEvent], bytes]
        self._reader: Reader | BetaReader
        if dialect == "beta":
            from .dialects.beta_codec import BETA_READER, write_beta  # late: its structs take 15 ms

            self._write, self._reader = write_beta, BETA_READER
        else:
            self._write, self._reader = _write_ga, ga_reader()
        self._read = self._reader.read

    def encode(self, event: AnyClientEvent) -> bytes:
        """The message for an event. Raises `LocalProtocolError` for what the dialect cannot say."""
        return self._write(event)

    def decode(self, frame: str | bytes) -> AnyServerEvent | Unknown:
        """The event in a message; `raw` has the whole of it. Raises `RemoteProtocolError` if it is no JSON object."""
        event: AnyServerEvent | Unknown = self._read(frame)
        force_setattr(event, "raw_frame", frame)
        return event


def has_temperature(event: Any) -> bool:
    """Whether a client's event says what only beta can."""
    configured = getattr(event, "session", None) or getattr(event, "response", None)
    return getattr(configured, "temperature", UNSET) is not UNSET


def _write_ga(event: AnyClientEvent) -> bytes:
    if has_temperature(event):
        raise LocalProtocolError(f"the GA dialect cannot say this {event.type}: it has no temperature, as beta has")
    return write(event)


class TranslationClientCodec:
    """The client's end of a translation session."""

    def encode(self, event: tr.TranslationClientEvent) -> bytes:
        """The message for an event."""
        return write(event)

    def decode(self, frame: str | bytes) -> tr.TranslationServerEvent | Unknown:
        """The event in a message; `raw` has the whole of it. Raises `RemoteProtocolError` if it is no JSON object."""
        event: tr.TranslationServerEvent | Unknown = _translation_reader().read(frame)
        force_setattr(event, "raw_frame", frame)
        return event


@cache
def _translation_reader() -> Reader:
    from .translation import TranslationServerEvent

    return Reader(get_args(TranslationServerEvent))
