"""What public clients really send where the reference leaves room, and what it is taken for. Everything else is strict.

A message that was refused is looked at again with what is forgiven put right, so that nobody else pays for it. The
whole list, of which the schemas of the dialects understand the part below the line by themselves:

| sent | where | taken for | dialects |
|---|---|---|---|
| `turn_detection: false` | sessions | null (§5.4) | all |
| a `text` part of an assistant | items | `output_text` (§2.7) | GA |
| `object`, `status` of any value | items that a client makes | absent (§3.8) | all |
| `instructions: null` | `response.create` | absent (a framework's way to say none) | all |
| `commit`, `cancel_previous` | `response.create` | absent (§7, an Azure sample) | beta, overview |
| `transcription.language` | translation sessions | absent (§8.14) | translation |
|---|---|---|---|
| an `output_text` or `output_audio` part of an assistant | items | `text`, `audio` (§2.7) | beta |
| `turn_detection: {"type": "none"}`, or without a type | sessions | null, `server_vad` (§7) | beta |
| `transcription: {}` | sessions | the server's own choice of a model | GA, beta |
| `tool_choice` with `function.name` or with `name` | sessions, responses | the function (§2.6) | beta |
| an object without `type` where there is one kind | truncation; beta's tools, tool choice | that kind | all |
| `max_output_tokens` | `response.create` | `max_response_output_tokens` (§8.49) | beta |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from .events import ErrorDetail
from .violations import Vocabulary, not_json, read
from .walk import Json, with_items, with_parts
from .wire import encode


class Leniency(NamedTuple):
    """One row: the error that the strict reading gives, and how the message is put right."""

    code: str
    param: re.Pattern[str]
    rewrite: Callable[[Json], Json]


def reread(
    error: ErrorDetail,
    frame: str,
    events: msgspec.json.Decoder[Any],
    vocabulary: Vocabulary,
    leniencies: Iterable[Leniency],
) -> Any:
    """The event in a message that was refused with this error, or the error that still stands. Never raises."""
    left = list(leniencies)
    found: Any = error
    while isinstance(found, ErrorDetail) and (row := _row_for(found, left)):
        left.remove(row)
        try:
            frame = encode(row.rewrite(msgspec.json.decode(frame))).decode()
        except (msgspec.DecodeError, RecursionError):
            return not_json()
        found = read(frame, events, vocabulary)
    return found


def _row_for(error: ErrorDetail, leniencies: list[Leniency]) -> Leniency | None:
    param = error.param or ""
    return next((row for row in leniencies if error.code == row.code and row.param.fullmatch(param)), None)


# --- the rows ---------------------------------------------------------------------------------------------------------


def _inside(path: tuple[str, ...], change: Callable[[Json], Json]) -> Callable[[Json], Json]:
    """The change, made to the object at the end of the path and to nothing else."""
    if not path:
        return change
    inner = _inside(path[1:], change)

    def rewrite(holder: Json) -> Json:
        value = holder.get(path[0])
        return holder | {path[0]: inner(value)} if isinstance(value, dict) else holder

    return rewrite


def _without(*names: str) -> Callable[[Json], Json]:
    return lambda holder: {name: value for name, value in holder.items() if name not in names}


def _off(holder: Json) -> Json:
    return holder | {"turn_detection": None} if holder.get("turn_detection") is False else holder


def _uninstructed(response: Json) -> Json:
    return _without("instructions")(response) if response.get("instructions", "") is None else response


def _with_output_text(event: Json) -> Json:
    def rename_part(part: Json) -> Json:
        return {**part, "type": "output_text"} if part.get("type") == "text" else part

    def rename(item: Json) -> Json:
        return with_parts(item, rename_part) if item.get("role") == "assistant" else item

    return with_items(event, rename)


def _items_without(name: str, *codes: str) -> tuple[Leniency, ...]:
    where = re.compile(rf"(?:item|response\.input\[\d+\])\.{name}")
    return tuple(Leniency(code, where, lambda event: with_items(event, _without(name))) for code in codes)


_NO_INSTRUCTIONS: Final = Leniency(
    "invalid_type", re.compile(r"response\.instructions"), _inside(("response",), _uninstructed)
)
_STATED_BY_SERVERS: Final = (
    *_items_without("object", "invalid_value", "invalid_type", "unknown_parameter"),
    *_items_without("status", "invalid_value", "invalid_type", "unknown_parameter"),
)


def _turn_detection_off(*path: str) -> Leniency:
    where = re.compile(re.escape(".".join((*path, "turn_detection"))))
    return Leniency("invalid_type", where, _inside(path, _off))


def _unheard(*path: str) -> Leniency:
    return Leniency("unknown_parameter", re.compile(re.escape(".".join(path))), _inside(path[:-1], _without(path[-1])))


def _in_data(row: Leniency) -> Leniency:
    return Leniency(row.code, re.compile(rf"data\.{row.param.pattern}"), _inside(("data",), row.rewrite))


LENIENCIES_OF_GA: Final = (
    Leniency("invalid_value", re.compile(r".*\.content\[\d+\]\.type"), _with_output_text),
    _turn_detection_off("session", "audio", "input"),
    _NO_INSTRUCTIONS,
    *_STATED_BY_SERVERS,
)
LENIENCIES_OF_BETA: Final = (
    _turn_detection_off("session"),
    _NO_INSTRUCTIONS,
    _unheard("response", "commit"),
    _unheard("response", "cancel_previous"),
    *_STATED_BY_SERVERS,
)
LENIENCIES_OF_OVERVIEW: Final = (
    *LENIENCIES_OF_BETA,
    _turn_detection_off("data"),
    *(_in_data(row) for row in _STATED_BY_SERVERS),
)
LENIENCIES_OF_TRANSLATION: Final = (_unheard("session", "audio", "input", "transcription", "language"),)
