"""What the application is told beside the server's events: the conversation, seen as items that grow and are finished.

These are the utility events that clients of this API have always wanted (reference client: `conversation.updated` and
its kin). Invariants: an item is appended before it is updated and completed, each once; a `Delta` has one field set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeAlias

import msgspec

from vivavoce.protocol import events as ev

if TYPE_CHECKING:
    from .memory import ItemView
    from .messages import Heard


class Delta(msgspec.Struct, frozen=True):
    """What was added to an item; exactly one field is not None. `audio` is raw samples in the session's format."""

    text: str | None = None
    audio: bytes | None = None
    transcript: str | None = None
    arguments: str | None = None


class ItemAppended(msgspec.Struct, frozen=True):
    """An item has entered the conversation, in progress or completed."""

    type: ClassVar[str] = "conversation.item.appended"
    item: ItemView


class ConversationUpdated(msgspec.Struct, frozen=True):
    """Something about an item has changed; `delta` says what was added, None for any other change."""

    type: ClassVar[str] = "conversation.updated"
    item: ItemView
    delta: Delta | None = None


class ItemCompleted(msgspec.Struct, frozen=True):
    """An item is final: nothing is added to it any more, a late transcript of the user's speech aside."""

    type: ClassVar[str] = "conversation.item.completed"
    item: ItemView


class Interrupted(msgspec.Struct, frozen=True):
    """The user has begun to speak, or the application has cut in; `heard` says what of the answer had been played."""

    type: ClassVar[str] = "conversation.interrupted"
    heard: tuple[Heard, ...] = ()


class Failed(msgspec.Struct, frozen=True):
    """Something went wrong that no call of the application is waiting for."""

    type: ClassVar[str] = "error"
    error: ev.ErrorDetail


class ResponseLost(msgspec.Struct, frozen=True):
    """A response was under way when its session was lost; what of it had come stays in the conversation."""

    type: ClassVar[str] = "response.lost"
    response_id: str
    is_asked_again: bool
    """Whether nothing of it had come, so that it was asked for again."""


class ResponseReplaced(msgspec.Struct, frozen=True):
    """A response that was asked for again has begun."""

    type: ClassVar[str] = "response.replaced"
    lost_id: str
    response_id: str


Update: TypeAlias = (
    ItemAppended | ConversationUpdated | ItemCompleted | Interrupted | Failed | ResponseLost | ResponseReplaced
)
