"""Bytes to events and back, once per direction: the only place where base64, JSON and dialects meet the program.

The server's end is strict: what is no client event becomes the `ErrorDetail` that answers it, and nothing raises. The
client's end is liberal: what it does not know it keeps, in `raw`, `Unknown`, `UnknownItem` and `UnknownPart`. Between
the codecs and the rest of the program there are only GA events, whatever the dialect.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Literal, get_args

import msgspec
from msgspec.structs import force_setattr

from vivavoce.errors import LocalProtocolError

from . import events as ev
from . import translation as tr
from .dialects import beta, beta_events
from .dialects.table import Untranslatable
from .dialects.temperatures import Temperatures
from .events import AnyClientEvent, AnyServerEvent, ErrorDetail, Unknown
from .shapes import fields as fields_of
from .shapes import tag
from .vetting import GA_PARTS_OF_ROLE, misfit
from .violations import AUDIO_BYTES_MAX, FRAME_BYTES_MAX, Vocabulary, not_json, refusal
from .walk import Json, with_items, with_parts
from .wire import GA_READER, Reader, decoder, encode, parse, read, unknown, write

__all__ = [
    "AUDIO_BYTES_MAX",
    "FRAME_BYTES_MAX",
    "ClientCodec",
    "Dialect",
    "ServerCodec",
    "TranslationClientCodec",
    "TranslationServerCodec",
]

Dialect = Literal["ga", "beta"]
# How a dialect writes an event that it does not write as it is.
Ways = dict[type[msgspec.Struct], Callable[[Any], bytes | None]]


class ServerCodec:
    """The server's end of the wire; one per connection.

    `playback` says that the server plays what it sends (WebRTC, SIP): `output_audio_buffer.clear` is legal there.
    """

    def __init__(self, dialect: Dialect = "ga", *, playback: bool = False) -> None:
        self._end = _BetaServer(playback) if dialect == "beta" else _GaServer(playback)
        self._vocabulary = self._end.vocabulary
        self._decoder = self._end.decoder
        self._ways = self._end.ways

    def decode(self, frame: str | bytes) -> AnyClientEvent | ErrorDetail:
        """The client event in a message (`bytes` stands for a binary message), or why it is none. Never raises."""
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
        self._beta = dialect == "beta"

    def encode(self, event: AnyClientEvent) -> bytes:
        """The message for an event. Raises `LocalProtocolError` for what the dialect cannot say."""
        return _write_beta(event) if self._beta else write(event)

    def decode(self, frame: str | bytes) -> AnyServerEvent | Unknown:
        """The event in a message; `raw` has the whole of it. Raises `RemoteProtocolError` if it is no JSON object."""
        event: AnyServerEvent | Unknown = _BETA_READER.read(frame) if self._beta else GA_READER.read(frame)
        force_setattr(event, "raw_frame", frame)
        return event


# --- GA ---------------------------------------------------------------------------------------------------------------

# The order of the list in which the service names them (§3.2); it names two of translation sessions, too.
_GA_NAMES: Final = (
    "session.update",
    "session.close",
    "input_audio_buffer.append",
    "session.input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "conversation.item.create",
    "conversation.item.truncate",
    "conversation.item.delete",
    "conversation.item.retrieve",
    "response.create",
    "response.cancel",
)


def _with_playback(events: tuple[Any, ...], names: tuple[str, ...]) -> dict[bool, Vocabulary]:
    """The vocabulary where the server plays what it sends, and where it does not."""
    without = tuple(event for event in events if event is not ev.OutputAudioBufferClear)
    return {True: Vocabulary(events, (*names, "output_audio_buffer.clear")), False: Vocabulary(without, names)}


_GA: Final = _with_playback(get_args(AnyClientEvent), _GA_NAMES)
_GA_DECODERS: Final = {playback: decoder(vocabulary.events) for playback, vocabulary in _GA.items()}
_SERVER_STRUCTS: Final = {str(tag(struct)): struct for struct in get_args(AnyServerEvent)}
# What may hold items or parts that stand for the unknown.
_WITH_ITEMS: Final = tuple(
    struct for struct in _SERVER_STRUCTS.values() if fields_of(struct).keys() & {"item", "response"}
)
_PART_TYPE: Final = re.compile(r"\.content\[\d+\]\.type")


def _no_such_event(event: Any) -> None:
    return None


class _GaServer:
    """What GA does with an event beyond reading and writing it."""

    ways: Final[Ways] = dict.fromkeys(_WITH_ITEMS, write) | {
        ev.ConversationCreated: _no_such_event,
        ev.ConversationItemCreated: _no_such_event,
    }

    def __init__(self, playback: bool) -> None:
        self.vocabulary = _GA[playback]
        self.decoder = _GA_DECODERS[playback]

    def settle(self, event: Any, frame: str | bytes) -> AnyClientEvent | ErrorDetail:
        if isinstance(event, ErrorDetail) and isinstance(frame, str) and _is_about_a_part(event):
            event = self._read_with_output_text(frame)
        if isinstance(event, (ev.ConversationItemCreate, ev.ResponseCreate)):
            return misfit(event, self.vocabulary, GA_PARTS_OF_ROLE) or event
        settled: AnyClientEvent | ErrorDetail = event
        return settled

    def _read_with_output_text(self, frame: str) -> Any:
        try:
            renamed = _with_output_text(frame)
        except (msgspec.DecodeError, RecursionError):
            return not_json()
        return read(renamed, self.decoder, self.vocabulary)


def _is_about_a_part(error: ErrorDetail) -> bool:
    return error.code == "invalid_value" and _PART_TYPE.search(error.param or "") is not None


def _with_output_text(frame: str) -> str:
    """The same event with the `text` parts of assistant messages called `output_text`, as GA has it (§2.7)."""

    def rename_part(part: Json) -> Json:
        return {**part, "type": "output_text"} if part.get("type") == "text" else part

    def rename(item: Json) -> Json:
        return with_parts(item, rename_part) if item.get("role") == "assistant" else item

    return encode(with_items(msgspec.json.decode(frame), rename)).decode()


# --- beta -------------------------------------------------------------------------------------------------------------

_BETA_EVENTS: Final = get_args(beta_events.ClientEvent)
_BETA: Final = _with_playback(
    _BETA_EVENTS, tuple(str(tag(event)) for event in _BETA_EVENTS if event is not ev.OutputAudioBufferClear)
)
_BETA_DECODERS: Final = {playback: decoder(vocabulary.events) for playback, vocabulary in _BETA.items()}
_TRANSLATED: Final = get_args(beta_events.Translated)


class _BetaServer:
    """What beta does with an event beyond reading and writing it."""

    def __init__(self, playback: bool) -> None:
        self.vocabulary = _BETA[playback]
        self.decoder = _BETA_DECODERS[playback]
        self.ways: Ways = _BETA_WAYS | {_SERVER_STRUCTS[name]: self._say for name in beta.TRANSLATED_BY_FIELDS}
        self._temperatures = Temperatures()

    def settle(self, event: Any, frame: str | bytes) -> AnyClientEvent | ErrorDetail:
        if isinstance(event, (beta_events.ConversationItemCreate, beta_events.ResponseCreate)):
            event = misfit(event, self.vocabulary, beta_events.PARTS_OF_ROLE) or event
        if isinstance(event, _TRANSLATED):
            return self._understand(event)
        settled: AnyClientEvent | ErrorDetail = event
        return settled

    def _understand(self, event: beta_events.Translated) -> AnyClientEvent | ErrorDetail:
        try:
            fields = beta.client_event_to_ga(event)
        except Untranslatable as error:
            return refusal("invalid_value", error.message, error.name, event.event_id or None)
        self._temperatures.hear(event)
        understood: AnyClientEvent | ErrorDetail = read(encode(fields).decode(), _GA_DECODERS[True], _GA[True])
        return understood

    def _say(self, event: Any) -> bytes:
        fields = beta.server_event_from_ga(msgspec.json.decode(write(event)), self._temperatures.of(event))
        return encode(fields)


def _renaming(ga: str, name: str) -> Callable[[Any], bytes]:
    """A way to write an event whose name alone is different; a message begins with its name."""
    opening, size = f'{{"type":"{name}"'.encode(), len(f'{{"type":"{ga}"')
    return lambda event: opening + encode(event)[size:]


_BETA_WAYS: Final[Ways] = dict.fromkeys((_SERVER_STRUCTS[name] for name in beta.GA_ONLY), _no_such_event) | {
    _SERVER_STRUCTS[ga]: _renaming(ga, name) for ga, name in beta.EVENT_NAMES.items()
}


def _write_beta(event: AnyClientEvent) -> bytes:
    frame = write(event)
    if not isinstance(event, (ev.SessionUpdate, ev.ConversationItemCreate, ev.ResponseCreate)):
        return frame
    frame = encode(beta.client_event_from_ga(msgspec.json.decode(frame)))
    said: Any = read(frame.decode(), _BETA_DECODERS[True], _BETA[True])
    if isinstance(said, ErrorDetail):
        raise LocalProtocolError(f"the beta dialect cannot say this {event.type}: {said.message}")
    return frame


def _under_another_name(struct: Any, name: str) -> type[msgspec.Struct]:
    return msgspec.defstruct(
        struct.__name__, [], bases=(struct,), tag_field="type", tag=name, frozen=True, kw_only=True
    )


class _BetaReader:
    def __init__(self) -> None:
        changed = beta.GA_ONLY | beta.TRANSLATED_BY_FIELDS - {"error", "response.function_call_arguments.done"}
        same = [struct for name, struct in _SERVER_STRUCTS.items() if name not in changed | set(beta.EVENT_NAMES)]
        self._renamed = {
            _under_another_name(_SERVER_STRUCTS[ga], name): _SERVER_STRUCTS[ga] for ga, name in beta.EVENT_NAMES.items()
        }
        self._decoder = decoder((*same, *self._renamed))

    def read(self, frame: str | bytes) -> Any:
        try:
            event = self._decoder.decode(frame)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            fields = parse(frame)
            return GA_READER.fit(beta.server_event_to_ga(fields)) or unknown(fields, frame)
        struct = self._renamed.get(type(event))
        return event if struct is None else struct(**msgspec.structs.asdict(event))


_BETA_READER: Final = _BetaReader()

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
