"""Bytes to events and back, once per direction: the only place where base64, JSON and dialects meet the program.

The server's end is strict: what is no client event becomes the `ErrorDetail` that answers it, and nothing raises. The
client's end is liberal: what it does not know it keeps, in `raw`, `Unknown`, `UnknownItem` and `UnknownPart`. Between
the codecs and the rest of the program there are only GA events, whatever the dialect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, get_args

from msgspec.structs import force_setattr

from . import events as ev
from . import translation as tr
from .events import AnyClientEvent, AnyServerEvent, ErrorDetail, Unknown
from .ga import GaServer, Ways, no_such_event, write_ga
from .leniency import LENIENCIES_OF_TRANSLATION, reread
from .shapes import tag
from .violations import AUDIO_BYTES_MAX, FRAME_BYTES_MAX, Vocabulary
from .wire import GA_READER, Reader, decoder, encode, read, write

if TYPE_CHECKING:
    from .dialects.beta_codec import BetaReader, BetaServer
    from .dialects.overview import OverviewServer

__all__ = [
    "AUDIO_BYTES_MAX",
    "FRAME_BYTES_MAX",
    "ClientCodec",
    "Dialect",
    "ServerCodec",
    "ServerDialect",
    "TranslationClientCodec",
    "TranslationServerCodec",
]

Dialect = Literal["ga", "beta"]
ServerDialect = Literal["ga", "beta", "overview"]


class ServerCodec:
    """The server's end of the wire; one per connection.

    `playback` says that the server plays what it sends (WebRTC, SIP): `output_audio_buffer.clear` is legal there, and
    audio deltas are not written, because the player has them.
    """

    def __init__(self, dialect: ServerDialect = "ga", *, playback: bool = False) -> None:
        self._end: GaServer | BetaServer | OverviewServer
        if dialect == "overview":
            from .dialects.overview import OverviewServer

            self._end = OverviewServer(playback)
        elif dialect == "beta":
            from .dialects.beta_codec import BetaServer  # late: its structs take 15 ms, which GA need not wait for

            self._end = BetaServer(playback)
        else:
            self._end = GaServer(playback)
        self._vocabulary = self._end.vocabulary
        self._decoder = self._end.decoder
        self._ways: Ways = dict(self._end.ways)
        if playback:
            self._ways[ev.ResponseOutputAudioDelta] = no_such_event

    def decode(self, frame: str | bytes) -> AnyClientEvent | ErrorDetail | tuple[AnyClientEvent, ...]:
        """The client event in a message (`bytes` stands for a binary message), or why it is none. Never raises.

        In the overview dialect one message may mean several events: a tuple, in order.
        """
        event = read(frame, self._decoder, self._vocabulary)
        if type(event) is ev.InputAudioBufferAppend:
            return event
        return self._end.settle(event, frame)

    def encode(self, event: AnyServerEvent) -> bytes | None:
        """The message for an event; None where this dialect has no such event."""
        way = self._ways.get(type(event))
        return encode(event) if way is None else way(event)


class ClientCodec:
    """The client's end of the wire."""

    def __init__(self, dialect: Dialect = "ga") -> None:
        self._write: Callable[[AnyClientEvent], bytes] = write_ga
        self._reader: Reader | BetaReader = GA_READER
        if dialect == "beta":
            from .dialects.beta_codec import BETA_READER, write_beta

            self._write, self._reader = write_beta, BETA_READER

    def encode(self, event: AnyClientEvent) -> bytes:
        """The message for an event. Raises `LocalProtocolError` for what the dialect cannot say."""
        return self._write(event)

    def decode(self, frame: str | bytes) -> AnyServerEvent | Unknown:
        """The event in a message; `raw` has the whole of it. Raises `RemoteProtocolError` if it is no JSON object."""
        event: AnyServerEvent | Unknown = self._reader.read(frame)
        force_setattr(event, "raw_frame", frame)
        return event


# --- translation sessions ---------------------------------------------------------------------------------------------

_TRANSLATION_EVENTS: Final = get_args(tr.TranslationClientEvent)
_TRANSLATION: Final = Vocabulary(_TRANSLATION_EVENTS, tuple(str(tag(event)) for event in _TRANSLATION_EVENTS))
_TRANSLATION_DECODER: Final = decoder(_TRANSLATION.events)
_TRANSLATION_READER: Final = Reader(get_args(tr.TranslationServerEvent))


class TranslationServerCodec:
    """The server's end of a translation session."""

    def decode(self, frame: str | bytes) -> tr.TranslationClientEvent | ErrorDetail:
        """The client event in a message, or why it is none. Never raises."""
        event: tr.TranslationClientEvent | ErrorDetail = read(frame, _TRANSLATION_DECODER, _TRANSLATION)
        if isinstance(event, ErrorDetail) and isinstance(frame, str):
            event = reread(event, frame, _TRANSLATION_DECODER, _TRANSLATION, LENIENCIES_OF_TRANSLATION)
        return event

    def encode(self, event: tr.TranslationServerEvent) -> bytes:
        """The message for an event."""
        return write(event)


class TranslationClientCodec:
    """The client's end of a translation session."""

    def encode(self, event: tr.TranslationClientEvent) -> bytes:
        """The message for an event."""
        return write(event)

    def decode(self, frame: str | bytes) -> tr.TranslationServerEvent | Unknown:
        """The event in a message; `raw` has the whole of it. Raises `RemoteProtocolError` if it is no JSON object."""
        event: tr.TranslationServerEvent | Unknown = _TRANSLATION_READER.read(frame)
        force_setattr(event, "raw_frame", frame)
        return event
