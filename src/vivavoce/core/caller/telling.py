"""What the application is told of items: that they have come, that they have changed, that they are final.

Between the machine, which knows what has happened, and the `Tell` effects. Invariants: an item is told of once as new
and once as final; nothing is told of what is in no conversation, but that it is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given

from .memory import ItemView, Memory
from .messages import CallerEffect, Tell
from .updates import ConversationUpdated, Delta, ItemAppended, ItemCompleted, Update

Growth: TypeAlias = (
    ev.ResponseOutputAudioDelta
    | ev.ResponseOutputTextDelta
    | ev.ResponseOutputAudioTranscriptDelta
    | ev.ResponseFunctionCallArgumentsDelta
    | ev.ConversationItemInputAudioTranscriptionDelta
)
"""Events by which an item grows."""


class Telling:
    """What is told in one session."""

    def __init__(self, memory: Memory, ask: Callable[[CallerEffect], None]) -> None:
        self._memory = memory
        self._ask = ask

    def tell(self, update: Update) -> None:
        """Anything."""
        self._ask(Tell(update))

    def added(self, event: ev.ConversationItemAdded | ev.ConversationItemCreated) -> None:
        """An item has entered the conversation; the fold holds it already."""
        view = self.appended(given(event.item.id, ""))
        is_only_word = isinstance(event, ev.ConversationItemCreated)  # beta does not say when it is complete
        if view is not None and (view.status == "completed" or (is_only_word and view.status is None)):
            self.complete(view.id)

    def appended(self, item_id: str) -> ItemView | None:
        """The item, where it is in the conversation; it is told of, if it is new."""
        view = self._present(item_id)
        if view is not None and self._memory.append(item_id):
            self.tell(ItemAppended(view))
        return view

    def complete(self, item_id: str, *, is_restored: bool = False) -> None:
        """Nothing is added to it any more."""
        view = self.appended(item_id)
        if view is None:
            return
        is_cut_off = view.status == "incomplete"
        if self._memory.complete(item_id, is_whole=not (is_cut_off or is_restored)):
            self.tell(ConversationUpdated(view) if is_cut_off else ItemCompleted(view))

    def updated(self, item_id: str, delta: Delta | None = None) -> None:
        """Something about it has changed."""
        if (view := self._present(item_id)) is not None:
            self.tell(ConversationUpdated(view, delta))

    def grown(self, event: Growth) -> None:
        """More of it has come; for those who want to know of every piece."""
        self.updated(event.item_id, _delta(event))

    def gone(self, view: ItemView) -> None:
        """It is in the conversation no more."""
        self._memory.forget(view.id)
        self.tell(ConversationUpdated(view))

    def moved(self, before: tuple[ItemView, ...]) -> None:
        """Items end with their session: in the new one they are complete, as far as they came, or they are not."""
        for view in before:
            if view.id not in self._memory.conversation:
                self.gone(view)
        for view in self._memory.views():
            if self._memory.is_told(view.id):
                self.complete(view.id, is_restored=True)

    def _present(self, item_id: str) -> ItemView | None:
        return self._memory.view(item_id) if item_id in self._memory.conversation else None


def _delta(event: Growth) -> Delta:
    match event:
        case ev.ResponseOutputAudioDelta():
            return Delta(audio=event.delta)
        case ev.ResponseOutputTextDelta():
            return Delta(text=event.delta)
        case ev.ResponseFunctionCallArgumentsDelta():
            return Delta(arguments=event.delta)
        case ev.ResponseOutputAudioTranscriptDelta():
            return Delta(transcript=event.delta)
        case ev.ConversationItemInputAudioTranscriptionDelta():
            return Delta(transcript=given(event.delta, ""))
