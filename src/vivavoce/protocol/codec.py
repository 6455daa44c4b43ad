"""Bytes to events and back, once per direction: the only place where base64, JSON and dialects meet the program.

The server's end is strict: what is no client event becomes the `ErrorDetail` that answers it, and nothing raises. The
client's end is liberal: what it does not know it keeps, in `raw`, `Unknown`, `UnknownItem` and `UnknownPart`. Between
the codecs and the rest of the program there are only GA events, whatever the dialect.
"""

from __future__ import annotations

import re
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
from .shapes import tag
from .vetting import GA_PARTS_OF_ROLE, misfit
from .violations import AUDIO_BYTES_MAX, FRAME_BYTES_MAX, Vocabulary, not_json, refusal
from .walk import Json, with_items, with_parts
from .wire import GA_READER, Reader, decoder, parse, read, unknown, write

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


class ServerCodec:
    """The server's end of the wire; one per connection.

    `playback` says that the server plays what it sends (WebRTC, SIP): `output_audio_buffer.clear` is legal there.
    """

    def __init__(self, dialect: Dialect = "ga", *, playback: bool = False) -> None:
        self._end = _BetaServer(playback) if dialect == "beta" else _GaServer(playback)

    def decode(self, frame: str | bytes) -> AnyClientEvent | ErrorDetail:
        """The client event in a message (`bytes` stands for a binary message), or why it is none. Never raises."""
        return self._end.decode(frame)

    def encode(self, event: AnyServerEvent) -> bytes | None:
        """The message for an event; None where this dialect has no such event."""
        return self._end.encode(event)


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
_PART_TYPE: Final = re.compile(r"\.content\[\d+\]\.type")


class _GaServer:
    def __init__(self, playback: bool) -> None:
        self._vocabulary = _GA[playback]
        self._decoder = _GA_DECODERS[playback]

    def decode(self, frame: str | bytes) -> AnyClientEvent | ErrorDetail:
        event: AnyClientEvent | ErrorDetail = read(frame, self._decoder, self._vocabulary)
        if isinstance(event, ErrorDetail) and isinstance(frame, str) and _is_about_a_part(event):
            event = self._read_with_output_text(frame)
        if isinstance(event, (ev.ConversationItemCreate, ev.ResponseCreate)):
            return misfit(event, self._vocabulary, GA_PARTS_OF_ROLE) or event
        return event

    def _read_with_output_text(self, frame: str) -> AnyClientEvent | ErrorDetail:
        try:
            renamed = _with_output_text(frame)
        except (msgspec.DecodeError, RecursionError):
            return not_json()
        event: AnyClientEvent | ErrorDetail = read(renamed, self._decoder, self._vocabulary)
        return event

    def encode(self, event: AnyServerEvent) -> bytes | None:
        if isinstance(event, (ev.ConversationCreated, ev.ConversationItemCreated)):
            return None
        return write(event)


def _is_about_a_part(error: ErrorDetail) -> bool:
    return error.code == "invalid_value" and _PART_TYPE.search(error.param or "") is not None


def _with_output_text(frame: str) -> str:
    """The same event with the `text` parts of assistant messages called `output_text`, as GA has it (§2.7)."""

    def rename_part(part: Json) -> Json:
        return {**part, "type": "output_text"} if part.get("type") == "text" else part

    def rename(item: Json) -> Json:
        return with_parts(item, rename_part) if item.get("role") == "assistant" else item

    return msgspec.json.encode(with_items(msgspec.json.decode(frame), rename)).decode()


# --- beta -------------------------------------------------------------------------------------------------------------

_SERVER_STRUCTS: Final = {str(tag(struct)): struct for struct in get_args(AnyServerEvent)}
_BETA_EVENTS: Final = get_args(beta_events.ClientEvent)
_BETA: Final = _with_playback(
    _BETA_EVENTS, tuple(str(tag(event)) for event in _BETA_EVENTS if event is not ev.OutputAudioBufferClear)
)
_BETA_DECODERS: Final = {playback: decoder(vocabulary.events) for playback, vocabulary in _BETA.items()}
_TRANSLATED: Final = get_args(beta_events.Translated)


def _opening(name: str) -> bytes:
    return f'{{"type":"{name}"'.encode()


class _BetaServer:
    _absent: Final = frozenset(_SERVER_STRUCTS[name] for name in beta.GA_ONLY)
    _translated: Final = frozenset(_SERVER_STRUCTS[name] for name in beta.TRANSLATED_BY_FIELDS)
    # Events that differ by their name alone: how GA's message begins, and how beta's does.
    _renamed: Final = {
        _SERVER_STRUCTS[ga]: (len(_opening(ga)), _opening(name)) for ga, name in beta.EVENT_NAMES.items()
    }

    def __init__(self, playback: bool) -> None:
        self._vocabulary = _BETA[playback]
        self._decoder = _BETA_DECODERS[playback]
        self._temperatures = Temperatures()

    def decode(self, frame: str | bytes) -> AnyClientEvent | ErrorDetail:
        event: Any = read(frame, self._decoder, self._vocabulary)
        if isinstance(event, _TRANSLATED):
            return self._translate(event)
        plain: AnyClientEvent | ErrorDetail = event
        return plain

    def _translate(self, event: beta_events.Translated) -> AnyClientEvent | ErrorDetail:
        if isinstance(event, (beta_events.ConversationItemCreate, beta_events.ResponseCreate)):
            error = misfit(event, self._vocabulary, beta_events.PARTS_OF_ROLE)
            if error is not None:
                return error
        try:
            fields = beta.client_event_to_ga(event)
        except Untranslatable as error:
            return refusal("invalid_value", error.message, error.name, event.event_id or None)
        self._temperatures.hear(event)
        translated: AnyClientEvent | ErrorDetail = read(
            msgspec.json.encode(fields).decode(), _GA_DECODERS[True], _GA[True]
        )
        return translated

    def encode(self, event: AnyServerEvent) -> bytes | None:
        struct = type(event)
        if struct in self._absent:
            return None
        frame = write(event)
        if struct in self._renamed:
            size, opening = self._renamed[struct]
            return opening + frame[size:]
        if struct in self._translated:
            fields = beta.server_event_from_ga(msgspec.json.decode(frame), self._temperatures.of(event))
            return msgspec.json.encode(fields)
        return frame


def _write_beta(event: AnyClientEvent) -> bytes:
    frame = write(event)
    if not isinstance(event, (ev.SessionUpdate, ev.ConversationItemCreate, ev.ResponseCreate)):
        return frame
    frame = msgspec.json.encode(beta.client_event_from_ga(msgspec.json.decode(frame)))
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
