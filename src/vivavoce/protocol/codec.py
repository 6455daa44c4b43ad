"""Bytes to events and back, once per direction: the only place where base64, JSON and dialects meet the program.

The server's end is strict: what is no client event becomes the `ErrorDetail` that answers it, and nothing raises. The
client's end, which is liberal, stands in `client_codec`. Between the codecs and the rest of the program there are only
GA events, whatever the dialect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import msgspec

from . import events as ev
from . import translation as tr
from .client_codec import ClientCodec, Dialect, TranslationClientCodec
from .events import AnyClientEvent, AnyServerEvent, ErrorDetail
from .ga import GaServer, Ways, no_such_event
from .leniency import LENIENCIES_OF_TRANSLATION, reread
from .shapes import tag
from .violations import AUDIO_BYTES_MAX, FRAME_BYTES_MAX, LARGE_CHARS, Vocabulary, read
from .wire import decoder, encode, write

if TYPE_CHECKING:
    from .dialects.beta_codec import BetaServer
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
        self._decode = self._decoder.decode
        self._ways: Ways = self._end.ways
        if playback:
            self._ways = self._ways | {ev.ResponseOutputAudioDelta: no_such_event}

    def decode(self, frame: str | bytes) -> AnyClientEvent | ErrorDetail | tuple[AnyClientEvent, ...]:
        """The client event in a message (`bytes` stands for a binary message), or why it is none. Never raises.

        In the overview dialect one message may mean several events: a tuple, in order.
        """
        event: Any
        try:  # nearly all that comes is a small message, and an append; what is wrong with others, `read` finds out
            event = self._decode(frame) if type(frame) is str and len(frame) <= LARGE_CHARS else None
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            event = None
        if type(event) is ev.InputAudioBufferAppend:
            return event
        if event is None:
            event = read(frame, self._decoder, self._vocabulary)
        return self._end.settle(event, frame)

    def encode(self, event: AnyServerEvent) -> bytes | None:
        """The message for an event; None where this dialect has no such event."""
        way = self._ways.get(type(event))
        return encode(event) if way is None else way(event)


# --- translation sessions ---------------------------------------------------------------------------------------------

_TRANSLATION_EVENTS: Final = get_args(tr.TranslationClientEvent)
_TRANSLATION: Final = Vocabulary(_TRANSLATION_EVENTS, tuple(str(tag(event)) for event in _TRANSLATION_EVENTS))
_TRANSLATION_DECODER: Final = decoder(_TRANSLATION.events)


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
