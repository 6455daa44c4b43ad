"""Who waits for an answer: from events that were sent to the server's word about each (reference §3, §4).

An `error` names the event that it is about. A success does not: it is told by its type, by the item that it names, and
by the order, for the server takes events in the order in which they were sent. Invariant: every ticket is settled once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.items import Item

from .messages import Acknowledge, CallerEffect, Refuse

NO_ANSWER = "no_answer"

ANSWERS: dict[type[ev.ClientEvent], tuple[type[ev.ServerEvent], ...]] = {
    ev.SessionUpdate: (ev.SessionUpdated,),
    ev.InputAudioBufferCommit: (ev.InputAudioBufferCommitted,),
    ev.InputAudioBufferClear: (ev.InputAudioBufferCleared,),
    ev.OutputAudioBufferClear: (ev.OutputAudioBufferCleared,),
    ev.ConversationItemCreate: (ev.ConversationItemAdded, ev.ConversationItemCreated),
    ev.ConversationItemDelete: (ev.ConversationItemDeleted,),
    ev.ConversationItemRetrieve: (ev.ConversationItemRetrieved,),
    ev.ConversationItemTruncate: (ev.ConversationItemTruncated,),
    ev.ResponseCancel: (ev.ResponseDone,),
}
"""What answers what; `response.create` is answered in `requests.py`, an append not at all."""

OVERTAKEN_MAX = 64
"""Cancellations that came too late of which is remembered that nobody need hear of it."""

_ANSWERING = {answer: asked for asked, answers in ANSWERS.items() for answer in answers}


@dataclass(slots=True)
class Pending:
    """An event on its way, and who waits for its answer."""

    event: ev.AnyClientEvent
    ticket: int
    due_ms: int


class Answers:
    """The events that were sent and not yet answered, in order."""

    def __init__(self, ask: Callable[[CallerEffect], None], answer_ms_max: int) -> None:
        self._ask = ask
        self._answer_ms_max = answer_ms_max
        self._pending: dict[str, Pending] = {}
        self._is_held = False
        self._overtaken: deque[str] = deque(maxlen=OVERTAKEN_MAX)

    def __len__(self) -> int:
        return len(self._pending)

    def expect(self, event: ev.AnyClientEvent, ticket: int, now_ms: int) -> None:
        """The event is being sent. Those that no server answers are answered now.

        Raises `LocalProtocolError` where another event of the same id waits: errors about them could not be told apart.
        """
        if type(event) not in ANSWERS:
            if ticket:
                self._ask(Acknowledge(ticket))
            return
        event_id = given(event.event_id, "")
        if event_id in self._pending:
            raise LocalProtocolError(f"an event with event_id {event_id!r} is on its way; each needs an id of its own")
        self._pending[event_id] = Pending(event, ticket, now_ms + self._answer_ms_max)

    def take(self, event: ev.AnyServerEvent) -> None:
        """An event that may be the answer that somebody waits for."""
        if not self._pending:
            return
        asked = _ANSWERING.get(type(event))
        if asked is None:
            return
        for event_id, pending in self._pending.items():
            if type(pending.event) is asked and _is_about(pending.event, event):
                del self._pending[event_id]
                if asked is ev.ResponseCancel:
                    self._overtaken.append(event_id)
                if pending.ticket:
                    self._ask(Acknowledge(pending.ticket, event))
                return

    def refused(self, error: ev.ErrorDetail) -> Pending | None:
        """The event that this error is about, if one waits for an answer; its ticket is settled."""
        pending = self._pending.pop(given(error.event_id, None) or "", None)
        if pending is not None and pending.ticket:
            self._ask(Refuse(pending.ticket, error))
        return pending

    def was_overtaken(self, event_id: str) -> bool:
        """Whether this is a cancellation whose response was over by itself: what it wants is so already."""
        return event_id in self._overtaken

    def waiting(self) -> list[ev.AnyClientEvent]:
        """The events that wait for their answers, in order."""
        return [pending.event for pending in self._pending.values()]

    def deadline(self) -> int | None:
        """When the first of them has waited long enough; None where there is nobody who could answer."""
        if self._is_held:
            return None
        return min((pending.due_ms for pending in self._pending.values()), default=None)

    def wake_up(self, now_ms: int) -> list[Pending]:
        """Give up those that are due, and say which."""
        if self._is_held:
            return []
        due = [pending for pending in self._pending.values() if pending.due_ms <= now_ms]
        for pending in due:
            del self._pending[given(pending.event.event_id, "")]
            if pending.ticket:
                self._ask(Refuse(pending.ticket, no_answer(pending.event)))
        return due

    def hold(self) -> None:
        """The connection is gone: the server cannot answer, and the time does not count."""
        self._is_held = True

    def go_on(self, now_ms: int) -> None:
        """The connection is back, the time counts anew."""
        self._is_held = False
        for pending in self._pending.values():
            pending.due_ms = now_ms + self._answer_ms_max

    def take_all(self) -> list[Pending]:
        """Those that were never answered by a session that is lost, in order; they are not expected any more."""
        pending, self._pending = list(self._pending.values()), {}
        self._is_held = False
        return pending


def _is_about(asked: ev.ClientEvent, event: ev.AnyServerEvent) -> bool:
    match asked, event:
        case (
            ev.ConversationItemCreate(),
            ev.ConversationItemAdded() | ev.ConversationItemCreated(),
        ):
            return _id_of(asked.item) == _id_of(event.item)
        case ev.ConversationItemRetrieve(), ev.ConversationItemRetrieved():
            return asked.item_id == _id_of(event.item)
        case (
            ev.ConversationItemDelete() | ev.ConversationItemTruncate(),
            ev.ConversationItemDeleted() | ev.ConversationItemTruncated(),
        ):
            return asked.item_id == event.item_id
        case ev.ResponseCancel(), ev.ResponseDone():
            return given(asked.response_id, event.response.id) == event.response.id
        case _:
            return True


def _id_of(item: Item) -> str | None:
    return given(item.id, None)


def no_answer(event: ev.ClientEvent) -> ev.ErrorDetail:
    """The error of an event that the server never answered."""
    return ev.ErrorDetail(
        type="vivavoce",
        code=NO_ANSWER,
        message=f"The server did not answer {event.type} in time.",
        event_id=given(event.event_id, None),
    )
