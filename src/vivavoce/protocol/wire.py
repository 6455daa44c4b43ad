"""Reading and writing one message, whatever the dialect: what the codecs are made of.

`Reader` is for what servers say and keeps what it does not know; `write` is for both ends. What clients say is read by
`violations`, which has an answer to what is wrong with it.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final, Union, get_args

import msgspec

from vivavoce.errors import RemoteProtocolError

from . import shapes
from .config import TEMPERATURE
from .events import AnyServerEvent, Unknown
from .fitting import fit
from .items import UnknownItem, UnknownPart
from .walk import Json, with_items, with_parts


def decoder(events: tuple[type[msgspec.Struct], ...]) -> msgspec.json.Decoder[Any]:
    """A decoder for any of these events, told apart by their `type`."""
    return msgspec.json.Decoder(Union[events])  # noqa: UP007


# --- what both write --------------------------------------------------------------------------------------------------

encode: Final = msgspec.json.Encoder().encode
_PRIVATE: Final = f'"{shapes.INTERNAL_TAG_PREFIX}'.encode()


def write(event: msgspec.Struct) -> bytes:
    """The event as JSON; stand-ins for the unknown are written as what they stand for, fields of our own not at all."""
    frame = encode(event)
    return encode(_public(_restored(msgspec.json.decode(frame)))) if _PRIVATE in frame else frame


def as_json(event: msgspec.Struct) -> Json:
    """The event for a dialect to translate: what `write` writes, and the fields of our own."""
    return _restored(msgspec.json.decode(encode(event)))


def _restored(event: Json) -> Json:
    def part_back(part: Json) -> Json:
        return dict(part["fields"]) if part.get("type") == shapes.tag(UnknownPart) else part

    def item_back(item: Json) -> Json:
        if item.get("type") == shapes.tag(UnknownItem):
            return dict(item["fields"])
        return with_parts(item, part_back)

    return with_items(event, item_back)


def _public(event: Json) -> Json:
    for root in ("session", "response"):
        if isinstance(holder := event.get(root), dict):
            holder.pop(TEMPERATURE, None)
    return event


# --- what servers say -------------------------------------------------------------------------------------------------


class Reader:
    """Reads what a server says, and makes the best of what does not fit."""

    def __init__(self, events: tuple[type[msgspec.Struct], ...]) -> None:
        self._decoder = decoder(events)
        self._structs = {str(shapes.tag(struct)): struct for struct in events}

    def read(self, frame: str | bytes) -> Any:
        """The event in a message, or `Unknown`. Raises `RemoteProtocolError` where it is no event at all."""
        try:
            return self._decoder.decode(frame)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            fields = parse(frame)
            return self.fit(fields) or unknown(fields, frame)

    def fit(self, fields: Json) -> Any:
        """The event that these fields make, None where there is none."""
        struct = self._structs.get(fields["type"])
        return None if struct is None else fit(fields, struct)


@cache
def ga_reader() -> Reader:
    """The reader of GA; made when it is first asked for, since a decoder takes some ms."""
    return Reader(get_args(AnyServerEvent))


def parse(frame: str | bytes) -> Json:
    """A server's message as JSON. Raises `RemoteProtocolError` where it is no object with a string `type`."""
    try:
        fields = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"the server sent a message that cannot be read as JSON: {error}") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        raise RemoteProtocolError("the server sent a message that is no JSON object with a string 'type'")
    return fields


def unknown(fields: Json, frame: str | bytes) -> Unknown:
    """A server's message as it came."""
    event_id = fields.get("event_id")
    return Unknown(
        kind=fields["type"],
        fields=fields,
        event_id=event_id if isinstance(event_id, str) else "",
        raw=frame if isinstance(frame, bytes) else frame.encode(errors="surrogatepass"),
    )
