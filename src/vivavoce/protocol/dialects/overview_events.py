"""What a client may send in the vocabulary of the overview page: the schema of the overview dialect.

Every event of the page has a `data` envelope. Sessions, items and responses in it are beta's, the dialect of the
page's time; what the page has a word for is said with its word alone. `overview` translates what has passed here.
"""

from __future__ import annotations

from typing import Any, Literal

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, Maybe, Strict

from . import beta_events as beta


class Sound(Strict, frozen=True, kw_only=True):
    """Samples in the session's input format."""

    audio: bytes


class Saying(Strict, frozen=True, kw_only=True):
    """What the user types."""

    text: str


class Function(Strict, frozen=True, kw_only=True):
    """A function of the client; the page leaves out its type. `parameters` is a JSON Schema object."""

    type: Maybe[Literal["function"]] = UNSET
    name: str
    description: Maybe[str | None] = UNSET
    parameters: Maybe[dict[str, Any] | None] = UNSET


class Functions(Strict, frozen=True, kw_only=True):
    """All functions that may be called from now on."""

    functions: tuple[Function, ...]


class Outcome(Strict, frozen=True, kw_only=True):
    """How a call went. `content` is text, or any JSON in its place; absent where the function returned nothing."""

    type: Literal["success", "error"]
    content: Maybe[Any] = UNSET


class Answer(Strict, frozen=True, kw_only=True):
    """The outcome of the call with this id."""

    id: str
    response: Outcome


class Entry(Strict, frozen=True, kw_only=True):
    """An item and its place, as beta has them beside the type."""

    item: beta.Item
    previous_item_id: Maybe[str | None] = UNSET


class ConversationCreate(ev.ClientEvent, frozen=True, kw_only=True, tag="conversation.create"):
    """Begin: the given settings of the session."""

    data: Maybe[beta.Session] = UNSET


class AvailableFunctionsCreate(ev.ClientEvent, frozen=True, kw_only=True, tag="available_functions.create"):
    """Register functions."""

    data: Functions


class ConversationItemCreate(ev.ClientEvent, frozen=True, kw_only=True, tag="conversation.item.create"):
    """Put an item into the conversation: in `data`, or flat as in beta."""

    data: Maybe[Entry] = UNSET
    item: Maybe[beta.Item] = UNSET
    previous_item_id: Maybe[str | None] = UNSET


class Audio(ev.ClientEvent, frozen=True, kw_only=True, tag="audio"):
    """More of the user's audio."""

    data: bytes | Sound


class Text(ev.ClientEvent, frozen=True, kw_only=True, tag="text"):
    """The user writes, and waits for an answer."""

    data: str | Saying


class FunctionResponse(ev.ClientEvent, frozen=True, kw_only=True, tag="function.response"):
    """The answer to a `function.call`."""

    data: Answer


ClientEvent = (
    ConversationCreate
    | AvailableFunctionsCreate
    | ConversationItemCreate
    | Audio
    | Text
    | FunctionResponse
    | ev.InputAudioBufferCommit
    | ev.InputAudioBufferClear
    | ev.ConversationItemTruncate
    | ev.ConversationItemDelete
    | ev.ConversationItemRetrieve
    | beta.ResponseCreate
    | ev.ResponseCancel
    | ev.OutputAudioBufferClear
)
