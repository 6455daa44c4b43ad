"""What a tape is made of: messages, and notes of what no message says."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from vivavoce.protocol.base import UNSET, Maybe, UnsetType
from vivavoce.transports.redaction import Direction

Json = dict[str, Any]


class _Typed(msgspec.Struct):
    type: Maybe[str] = UNSET


_typed = msgspec.json.Decoder(_Typed)


@dataclass(frozen=True)
class Message:
    """What one side sent, in line `line` of the file. `frame` is `str` for text and `bytes` for a binary message."""

    line: int
    t_ms: float
    dir: Direction
    frame: str | bytes = field(repr=False)

    @cached_property
    def type(self) -> str:
        """The event's type; "" for what is no event."""
        try:
            kind = _typed.decode(self.frame).type if isinstance(self.frame, str) else UNSET
        except (msgspec.MsgspecError, RecursionError):
            return ""
        return "" if isinstance(kind, UnsetType) else kind

    @property
    def event(self) -> Json:
        """The message parsed anew; {} for what is no event."""
        event: Json = msgspec.json.decode(self.frame) if self.type else {}
        return event


@dataclass(frozen=True)
class Note:
    """What no message says: `kind`, and the fields that came with it."""

    line: int
    t_ms: float
    kind: str
    fields: Json


Entry = Message | Note
