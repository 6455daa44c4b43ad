"""What type of event a message is, without reading the rest of it.

Nearly every message begins with its type, or with its `event_id` and then its type; what does not is read as JSON. Of a
client's message that somebody has to judge more is asked: that no parser could take it for another one.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

Json = dict[str, Any]

_HEAD = re.compile(rb'\s*\{\s*(?:"event_id"\s*:\s*"[^"\\]*"\s*,\s*)?"type"\s*:\s*"([^"\\]*)"')


class _Typed(msgspec.Struct):
    type: str


_read = msgspec.json.Decoder(_Typed).decode


class Ambiguous(Exception):
    """A message that is no JSON object with one type, or says something twice; the message says which."""


def type_of(message: bytes | memoryview) -> bytes:
    """The type of an event; empty where it is none."""
    found = _HEAD.match(message)
    if found is not None:
        return found[1]
    try:
        return _read(message).type.encode()
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return b""


def renamed(message: bytes, name: str) -> bytes:
    """The event with another type, every other byte of it as it was; whole only where the type stands in front."""
    found = _HEAD.match(message)
    if found is None:
        return msgspec.json.encode(msgspec.json.decode(message) | {"type": name})
    return b"%b%b%b" % (message[: found.start(1)], name.encode(), message[found.end(1) :])


def judged_type_of(message: bytes) -> bytes:
    """The type of a client's event, as every parser sees it. Raises `Ambiguous`."""
    found = _HEAD.match(message)
    if found is not None and message.count(b'"type"') == 1 and b"\\" not in message:
        return found[1]
    return str(judged(message)["type"]).encode()


def judged(message: bytes) -> Json:
    """A client's event. Raises `Ambiguous`, also where a name stands twice in an object."""
    try:
        event = json.loads(message, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise Ambiguous("The message is not JSON.") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise Ambiguous("The message is no JSON object with a string 'type'.")
    return event


def _once(pairs: list[tuple[str, Any]]) -> Json:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Ambiguous("The message has the same name twice in one object.")
    return fields
