"""The temperature of beta sessions and responses, which GA does not have: remembered here, and stated again.

What a client asks for counts from the moment that its event is accepted. One object per connection.
"""

from __future__ import annotations

from typing import Final

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET

from .beta_events import ResponseCreate, SessionUpdate, Translated

TEMPERATURE_DEFAULT: Final = 0.8
RESPONSES_MAX: Final = 64  # responses with a temperature of their own that may be under way


class Temperatures:
    """What the client set, what it asked for, and what runs with a temperature of its own."""

    def __init__(self) -> None:
        self._session = TEMPERATURE_DEFAULT
        self._asked: tuple[float, str | None] | None = None  # by a session.update that has not been answered yet
        self._wanted: tuple[float, str | None] | None = None  # by a response.create that has not been answered yet
        self._responses: dict[str, float] = {}

    def hear(self, event: Translated) -> None:
        """Take note of what the client asks for."""
        if isinstance(event, SessionUpdate) and event.session.temperature is not UNSET:
            self._asked = event.session.temperature, event.event_id or None
        elif isinstance(event, ResponseCreate) and event.response and event.response.temperature is not UNSET:
            self._wanted = event.response.temperature, event.event_id or None

    def of(self, event: ev.AnyServerEvent) -> float:
        """The temperature that a server event states; to be asked once for every event, in order."""
        if isinstance(event, ev.ErrorEvent):
            self._forget(event.error)
        elif isinstance(event, ev.SessionUpdated) and self._asked:
            self._session, self._asked = self._asked[0], None
        elif isinstance(event, ev.ResponseCreated):
            return self._begin(event.response.id)
        elif isinstance(event, ev.ResponseDone):
            return self._responses.pop(event.response.id, self._session)
        return self._session

    def _begin(self, response_id: str) -> float:
        if self._wanted is None:
            return self._session
        while len(self._responses) >= RESPONSES_MAX:
            del self._responses[next(iter(self._responses))]
        self._responses[response_id], self._wanted = self._wanted[0], None
        return self._responses[response_id]

    def _forget(self, error: ev.ErrorDetail) -> None:
        if self._asked and _blames(error, self._asked[1], "session", "cannot_update_voice"):
            self._asked = None
        if self._wanted and _blames(error, self._wanted[1], "response", "conversation_already_has_active_response"):
            self._wanted = None


def _blames(error: ev.ErrorDetail, event_id: str | None, root: str, code: str) -> bool:
    """Whether an error answers the event with this id, or, where neither has one, is about its kind of event."""
    if error.event_id or event_id:
        return error.event_id == event_id
    return error.code == code or (error.param or "").split(".")[0] == root
