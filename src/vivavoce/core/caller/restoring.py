"""What another session must be told, so that the conversation goes on in it: configuration, tools and history.

Pure: from the conversation as it was to the events to send. History is told in the forms that every service takes: what
was said as text, calls with their outputs. Invariants: items keep their ids and their order; of an answer that was cut
off, only what was heard is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec
from msgspec import structs

from vivavoce.core.conversation import Conversation
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, given
from vivavoce.protocol.config import SessionConfig
from vivavoce.protocol.items import (
    Content,
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
)

from .memory import ItemView, Memory

S = TypeVar("S", bound=msgspec.Struct)


def merged(before: S, change: S) -> S:
    """A configuration after a change: fields that the change names replace those of before, at every depth."""
    if type(before) is not type(change):
        return change
    fields = {}
    for name in before.__struct_fields__:
        old, new = getattr(before, name), getattr(change, name)
        if new is UNSET:
            continue
        both = isinstance(old, msgspec.Struct) and isinstance(new, msgspec.Struct)
        fields[name] = merged(old, new) if both else new
    return structs.replace(before, **fields)


def restoration(
    memory: Memory, configured: SessionConfig | None, new_id: Callable[[str], str]
) -> Iterator[ev.SessionUpdate | ev.ConversationItemCreate]:
    """The events that bring a new session to where the old one was. Each is acknowledged by the server, or refused."""
    if configured is not None:
        yield ev.SessionUpdate(event_id=new_id("event"), session=configured)
    calls = set()
    for view in memory.views():
        item = restored(view, memory.speech(view.id), is_understood=memory.is_understood(view.id))
        if isinstance(item, FunctionCall):
            calls.add(item.call_id)
        if item is not None and (not isinstance(item, FunctionCallOutput) or item.call_id in calls):
            yield ev.ConversationItemCreate(event_id=new_id("event"), item=item)


def restored(view: ItemView, speech: bytes, *, is_understood: bool = True) -> Item | None:
    """An item as a client may create it; None for what cannot be told (MCP items, half a call, what says nothing).

    `speech` is the user's, and is told where its transcript is not there, or not `is_understood` to its end.
    """
    match view.item:
        case Message(role="assistant"):
            return Message(id=view.id, role="assistant", content=(OutputText(text=view.text),)) if view.text else None
        case Message() as message:
            told = (_told(part, speech, is_understood) for part in message.content)
            content = tuple(part for part in told if part is not None)
            return Message(id=view.id, role=message.role, content=content) if content else None
        case FunctionCall() as call:
            if call.status in ("in_progress", "incomplete") or given(call.call_id, None) is None:
                return None
            return FunctionCall(id=view.id, call_id=call.call_id, name=call.name, arguments=call.arguments)
        case FunctionCallOutput() as output:
            return FunctionCallOutput(id=view.id, call_id=output.call_id, output=output.output)
        case _:
            return None


def _told(part: Content, speech: bytes, is_understood: bool) -> Content | None:
    """Speech as what was understood of it; as sound, where nothing was, yet."""
    match part:
        case InputAudio():
            words = given(part.transcript, None)
            if words and (is_understood or not speech):
                return InputText(text=words)
            return InputAudio(audio=speech) if speech else None
        case InputText() | InputImage():
            return part
        case _:
            return None


class Leftovers:
    """What was meant for a session that is lost, and may have been done there or not: what of it another session is to
    be told, which has been told `conversation`."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._deleted: set[str] = set()

    def is_needed(self, event: ev.AnyClientEvent) -> bool:
        """Whether to send it; to be asked in the order in which they were sent first."""
        match event:
            case ev.ConversationItemTruncate() | ev.ResponseCancel() | ev.OutputAudioBufferClear():
                return False  # it was told only what was heard, and its responses are its own
            case ev.ConversationItemCreate():
                item_id = given(event.item.id, "")
                return item_id not in self._conversation or item_id in self._deleted
            case ev.ConversationItemDelete() if event.item_id in self._conversation:
                self._deleted.add(event.item_id)
                return True
            case ev.ConversationItemDelete():
                return False
            case _:
                return True
