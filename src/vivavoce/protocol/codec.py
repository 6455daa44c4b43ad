"""Bytes to events and back, once per direction: the only place where base64, JSON and dialects exist.

The server's end is strict: what is no client event becomes the `ErrorDetail` that answers it, and nothing raises. The
client's end is liberal: what it does not know it keeps, in `raw`, `Unknown`, `UnknownItem` and `UnknownPart`. Between
the codecs and the rest of the program there are only GA events, whatever the dialect.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, Literal, TypeVar, Union, get_args

import msgspec
from msgspec.structs import force_setattr

from vivavoce.errors import LocalProtocolError, RemoteProtocolError

from . import shapes
from . import translation as tr
from .events import (
    AnyClientEvent,
    AnyServerEvent,
    ConversationCreated,
    ConversationItemCreate,
    ConversationItemCreated,
    ErrorDetail,
    OutputAudioBufferClear,
    ResponseCreate,
    ServerEvent,
    Unknown,
)
from .fitting import fit
from .items import (
    InputAudio,
    InputImage,
    InputItem,
    InputText,
    Message,
    OutputAudio,
    OutputText,
    UnknownItem,
    UnknownPart,
)
from .violations import (
    AUDIO_BYTES_MAX,
    FRAME_BYTES_MAX,
    LARGE_CHARS,
    Path,
    Vocabulary,
    dotted,
    not_json,
    not_supported,
    not_text,
    oversized,
    refusal,
    violation,
)
from .walk import Json, change_items, change_parts

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
T = TypeVar("T")

# --- what a client may say --------------------------------------------------------------------------------------------

# The order of the list in which the service names them (§3.2); the two of translation sessions are in it.
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
_GA_PLAYBACK: Final = Vocabulary(get_args(AnyClientEvent), (*_GA_NAMES, "output_audio_buffer.clear"))
_GA: Final = Vocabulary(tuple(e for e in _GA_PLAYBACK.events if e is not OutputAudioBufferClear), _GA_NAMES)
_TRANSLATION_EVENTS: Final = get_args(tr.TranslationClientEvent)
_TRANSLATION: Final = Vocabulary(_TRANSLATION_EVENTS, tuple(str(shapes.tag(e)) for e in _TRANSLATION_EVENTS))

_PARTS_OF_ROLE: Final[dict[str, tuple[type[msgspec.Struct], ...]]] = {
    "user": (InputText, InputAudio, InputImage),
    "system": (InputText,),
    "assistant": (OutputText, OutputAudio),
}
_PART_TYPE = re.compile(r"\.content\[\d+\]\.type")


def _decoder(events: tuple[type[msgspec.Struct], ...]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(Union[events])  # noqa: UP007


_GA_DECODER: Final = _decoder(_GA.events)
_GA_PLAYBACK_DECODER: Final = _decoder(_GA_PLAYBACK.events)
_TRANSLATION_DECODER: Final[msgspec.json.Decoder[tr.TranslationClientEvent]] = _decoder(_TRANSLATION.events)


def _read(frame: str | bytes, decoder: msgspec.json.Decoder[T], vocabulary: Vocabulary) -> T | ErrorDetail:
    if isinstance(frame, bytes):
        return not_text()
    if len(frame) > LARGE_CHARS and (error := oversized(frame)) is not None:
        return error
    try:
        return decoder.decode(frame)
    except msgspec.ValidationError as complaint:
        return violation(complaint, frame, vocabulary)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return not_json()


def _items(event: AnyClientEvent) -> tuple[tuple[Path, InputItem], ...]:
    if isinstance(event, ConversationItemCreate):
        return ((("item",), event.item),)
    if isinstance(event, ResponseCreate) and event.response and event.response.input:
        return tuple((("response", "input", index), item) for index, item in enumerate(event.response.input))
    return ()


def _misfit(event: AnyClientEvent, vocabulary: Vocabulary) -> ErrorDetail | None:
    """The error for an item that no client may send: a stand-in for the unknown, or a part that its role cannot say."""
    for path, item in _items(event):
        if isinstance(item, UnknownItem):
            return _not_among(event, (*path, "type"), item, shapes.allowed_values(vocabulary.events, (*path, "type")))
        if not isinstance(item, Message):
            continue
        for index, part in enumerate(item.content):
            parts = _PARTS_OF_ROLE[item.role]
            if not isinstance(part, parts):
                where = (*path, "content", index, "type")
                return _not_among(event, where, part, tuple(str(shapes.tag(kind)) for kind in parts))
    return None


def _not_among(event: AnyClientEvent, path: Path, found: msgspec.Struct, supported: tuple[str, ...]) -> ErrorDetail:
    said = not_supported(shapes.tag(type(found)), supported)
    return refusal("invalid_value", said, dotted(path), event.event_id or None)


def _with_output_text(frame: str) -> str:
    """The same event with the `text` parts of assistant messages called `output_text`, as GA has it (§2.7)."""

    def rename_part(part: Json) -> Json:
        return {**part, "type": "output_text"} if part.get("type") == "text" else part

    def rename(item: Json) -> Json:
        if item.get("role") == "assistant":
            change_parts(item, rename_part)
        return item

    event = msgspec.json.decode(frame)
    change_items(event, rename)
    return msgspec.json.encode(event).decode()


# --- writing ----------------------------------------------------------------------------------------------------------

_ENCODER: Final = msgspec.json.Encoder()
_STAND_IN: Final = f'"type":"{shapes.INTERNAL_TAG_PREFIX}unknown_'.encode()


def _write(event: msgspec.Struct) -> bytes:
    frame = _ENCODER.encode(event)
    return _restored(frame) if _STAND_IN in frame else frame


def _restored(frame: bytes) -> bytes:
    """The frame with stand-ins for the unknown replaced by what they stand for."""

    def part_back(part: Json) -> Json:
        return part["fields"] if part.get("type") == shapes.tag(UnknownPart) else part

    def item_back(item: Json) -> Json:
        if item.get("type") == shapes.tag(UnknownItem):
            return dict(item["fields"])
        change_parts(item, part_back)
        return item

    event = msgspec.json.decode(frame)
    change_items(event, item_back)
    return msgspec.json.encode(event)


# --- the server's end -------------------------------------------------------------------------------------------------


class ServerCodec:
    """The server's end of the wire.

    `playback` says that the server plays what it sends (WebRTC, SIP): `output_audio_buffer.clear` is legal there.
    """

    def __init__(self, dialect: Dialect = "ga", *, playback: bool = False) -> None:
        if dialect != "ga":
            raise LocalProtocolError(f"no such dialect: {dialect}")
        self._vocabulary = _GA_PLAYBACK if playback else _GA
        self._decoder = _GA_PLAYBACK_DECODER if playback else _GA_DECODER

    def decode(self, frame: str | bytes) -> AnyClientEvent | ErrorDetail:
        """The client event in a message (`bytes` stands for a binary message), or why it is none. Never raises."""
        event: AnyClientEvent | ErrorDetail = _read(frame, self._decoder, self._vocabulary)
        if isinstance(event, ErrorDetail):
            return self._read_again(frame, event)
        if isinstance(event, (ConversationItemCreate, ResponseCreate)):
            return _misfit(event, self._vocabulary) or event
        return event

    def _read_again(self, frame: str | bytes, error: ErrorDetail) -> AnyClientEvent | ErrorDetail:
        """Forgive `text` for an assistant's `output_text`."""
        if isinstance(frame, bytes) or error.code != "invalid_value" or not _PART_TYPE.search(error.param or ""):
            return error
        try:
            renamed = _with_output_text(frame)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return not_json()
        event: AnyClientEvent | ErrorDetail = _read(renamed, self._decoder, self._vocabulary)
        return event if isinstance(event, ErrorDetail) else _misfit(event, self._vocabulary) or event

    def encode(self, event: AnyServerEvent) -> bytes | None:
        """The message for an event; None where this dialect has no such event."""
        if isinstance(event, (ConversationCreated, ConversationItemCreated)):
            return None
        return _write(event)


class TranslationServerCodec:
    """The server's end of a translation session."""

    def decode(self, frame: str | bytes) -> tr.TranslationClientEvent | ErrorDetail:
        """The client event in a message, or why it is none. Never raises."""
        return _read(frame, _TRANSLATION_DECODER, _TRANSLATION)

    def encode(self, event: tr.TranslationServerEvent) -> bytes:
        """The message for an event."""
        return _write(event)


# --- the client's end -------------------------------------------------------------------------------------------------


class _Reader:
    """Reads what a server says, and makes the best of what it does not know."""

    def __init__(self, events: tuple[type[ServerEvent], ...]) -> None:
        self._decoder = _decoder(events)
        self._structs = {str(shapes.tag(struct)): struct for struct in events}

    def read(self, frame: str | bytes) -> Any:
        try:
            event = self._decoder.decode(frame)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            event = self.salvage(parse(frame), frame)
        force_setattr(event, "raw_frame", frame)
        return event

    def salvage(self, fields: Json, frame: str | bytes) -> Any:
        struct = self._structs.get(fields["type"])
        event = None if struct is None else fit(fields, struct)
        return unknown(fields, frame) if event is None else event


def parse(frame: str | bytes) -> Json:
    """The frame as JSON. Raises `RemoteProtocolError` where it is no object with a string `type`."""
    try:
        fields = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"the server sent a message that is not JSON: {error}") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        raise RemoteProtocolError("the server sent a message that is not a JSON object with a string 'type'")
    return fields


def unknown(fields: Json, frame: str | bytes) -> Unknown:
    """A server event as it came."""
    event_id = fields.get("event_id")
    return Unknown(
        kind=fields["type"],
        fields=fields,
        event_id=event_id if isinstance(event_id, str) else "",
        raw=frame if isinstance(frame, bytes) else frame.encode(errors="surrogatepass"),
    )


_GA_READER: Final = _Reader(get_args(AnyServerEvent))
_TRANSLATION_READER: Final = _Reader(get_args(tr.TranslationServerEvent))


class ClientCodec:
    """The client's end of the wire."""

    def __init__(self, dialect: Dialect = "ga") -> None:
        if dialect != "ga":
            raise LocalProtocolError(f"no such dialect: {dialect}")

    def encode(self, event: AnyClientEvent) -> bytes:
        """The message for an event."""
        return _write(event)

    def decode(self, frame: str | bytes) -> AnyServerEvent | Unknown:
        """The event in a message; `raw` has the whole of it. Raises `RemoteProtocolError` if it is no JSON object."""
        event: AnyServerEvent | Unknown = _GA_READER.read(frame)
        return event


class TranslationClientCodec:
    """The client's end of a translation session."""

    def encode(self, event: tr.TranslationClientEvent) -> bytes:
        """The message for an event."""
        return _write(event)

    def decode(self, frame: str | bytes) -> tr.TranslationServerEvent | Unknown:
        """The event in a message; `raw` has the whole of it. Raises `RemoteProtocolError` if it is no JSON object."""
        event: tr.TranslationServerEvent | Unknown = _TRANSLATION_READER.read(frame)
        return event
