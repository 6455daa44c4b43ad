"""What the application is told beside the server's events: the conversation, seen as items that grow and are finished.

These are the utility events that clients of this API have always wanted (reference client: `conversation.updated` and
its kin). Invariants: an item is appended before it is updated and completed, each once; a `Delta` has one field set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from vivavoce.protocol import events as ev

if TYPE_CHECKING:
    from .memory import ItemView
    from .messages import Heard


@dataclass(frozen=True, slots=True)
class Delta:
    """What was added to an item; exactly one field is not None. `audio` is raw samples in the session's format."""

    text: str | None = None
    audio: bytes | None = None
    transcript: str | None = None
    arguments: str | None = None


@dataclass(frozen=True, slots=True)
class ItemAppended:
    """An item has entered the conversation, in progress or completed."""

    type: ClassVar[str] = "conversation.item.appended"
    item: ItemView


@dataclass(frozen=True, slots=True)
class ConversationUpdated:
    """Something about an item has changed; `delta` says what was added, None for any other change."""

    type: ClassVar[str] = "conversation.updated"
    item: ItemView
    delta: Delta | None = None


@dataclass(frozen=True, slots=True)
class ItemCompleted:
    """An item is final: nothing is added to it any more, a late transcript of the user's speech aside."""

    type: ClassVar[str] = "conversation.item.completed"
    item: ItemView


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The user has begun to speak, or the application has cut in; `heard` says what of the answer had been played."""

    type: ClassVar[str] = "conversation.interrupted"
    heard: tuple[Heard, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """Something went wrong that no call of the application is waiting for."""

    type: ClassVar[str] = "error"
    error: ev.ErrorDetail


@dataclass(frozen=True, slots=True)
class ResponseLost:
    """A response was under way when its session was lost; what of it had come stays in the conversation."""

    type: ClassVar[str] = "response.lost"
    response_id: str
    is_asked_again: bool
    """Whether nothing of it had come, so that it was asked for again."""


@dataclass(frozen=True, slots=True)
class ResponseReplaced:
    """A response that was asked for again has begun."""

    type: ClassVar[str] = "response.replaced"
    lost_id: str
    response_id: str


Update: TypeAlias = (
    ItemAppended | ConversationUpdated | ItemCompleted | Interrupted | Failed | ResponseLost | ResponseReplaced
)
