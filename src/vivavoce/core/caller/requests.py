"""One response at a time: when a `response.create` may be sent, and whose the response is that comes of it.

A server answers a request while a response is running with an error (reference §3.12). Here requests wait instead; the
one race that is left, a response that the server has just begun by itself at the end of a turn, is found by that error
and waited out. Where it is the server's own answer that came second and was refused, it is asked for here. Invariants:
of the requests for the default conversation at most one is on its way; none is sent while a response is running that we
know of; tool outputs bring exactly one request, or none where a response saw them already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from msgspec import structs

from vivavoce.core.conversation import Conversation
from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, Maybe, UnsetType, given
from vivavoce.protocol.items import Response

from .answers import no_answer
from .limits import CallerLimits
from .messages import Acknowledge, CallerEffect, Refuse, Tell
from .tags import tag_of, tagged, untagged
from .turns import answers_turns
from .updates import Failed, ResponseLost, ResponseReplaced

BUSY = "conversation_already_has_active_response"
TIMEOUT = "response_timeout"
OWN = "own"
"""How ids of events begin that we send by ourselves, and that may lose a race without anybody caring."""

Why = Literal["asked", "needed", "text", "again"]
"""By the application, by tool outputs or a turn that nobody has answered, by speech that failed, by a lost session."""


@dataclass(slots=True, eq=False)
class Request:
    """A `response.create` that waits or is on its way."""

    event: ev.ResponseCreate
    ticket: int = 0
    why: Why = "asked"
    items: frozenset[str] = frozenset()
    """Of one that is needed: the items that a response is to see, tool outputs or what the user said."""
    replaces: str | None = None
    """The response that was lost with its session."""
    tries: int = 0
    is_tagged: bool = False
    is_seen: bool = False
    """A response that was not asked for by this request has seen the items."""

    @property
    def id(self) -> str:
        """The id of its event."""
        return given(self.event.event_id, "")

    @property
    def is_aside(self) -> bool:
        """Whether it is out-of-band: beside the conversation, and free to run beside other responses."""
        params = given(self.event.response, None)
        return params is not None and given(params.conversation, "auto") == "none"


@dataclass(slots=True)
class Running:
    """A response that is not done."""

    response_id: str
    is_aside: bool
    request: Request | None
    seen: list[Request] = field(default_factory=list)
    """Requests that this response has made needless, if it says anything."""
    has_come: bool = False
    """Whether anything of it has come."""
    is_unwanted: bool = False
    """Whether it is being cancelled; then it is not asked for again."""
    is_silenced: bool = False
    """Whether it is being cancelled because somebody has cut in; then nothing more of it is to be heard."""
    is_given_up: bool = False


class Requests:
    """The requests of one caller."""

    def __init__(
        self,
        conversation: Callable[[], Conversation],
        transmit: Callable[[ev.AnyClientEvent], None],
        ask: Callable[[CallerEffect], None],
        new_id: Callable[[str], str],
        limits: CallerLimits,
    ) -> None:
        self._conversation = conversation
        self._transmit = transmit
        self._ask = ask
        self._new_id = new_id
        self._limits = limits
        self._queue: deque[Request] = deque()
        self._in_flight: Request | None = None
        self._aside: dict[str, Request] = {}
        self._running: dict[str, Running] = {}
        self._is_connected = False
        self._user_speaks = False
        self._turn_due_ms: int | None = None
        self._unanswered: str | None = None
        """The user's turn that the server should have begun to answer."""
        self._tags_come_back = False
        self._busy_until_ms: int | None = None
        self._tool_rounds = 0
        self.life_ms = 0
        """When the server was last heard; set by the owner."""

    @property
    def is_idle(self) -> bool:
        """Whether no response is running, asked for, waiting to be, or due at the end of a turn."""
        is_due = self._turn_due_ms is not None
        return not (is_due or self._queue or self._in_flight or self._aside or self._running)

    @property
    def user_speaks(self) -> bool:
        """Whether the user is in the middle of a turn."""
        return self._user_speaks

    @property
    def active(self) -> tuple[str, ...]:
        """Responses of the default conversation that are running."""
        return tuple(running.response_id for running in self._running.values() if not running.is_aside)

    def is_aside(self, response_id: str) -> bool:
        """Whether this is a running response beside the conversation."""
        running = self._running.get(response_id)
        return running is not None and running.is_aside

    def is_silenced(self, response_id: str) -> bool:
        """Whether nothing more of this response is to be heard."""
        running = self._running.get(response_id)
        return running is not None and running.is_silenced

    def is_asked_again(self, response_id: str) -> bool:
        """Whether another response is on its way in the place of this one."""
        waiting = (*self._queue, *self._aside.values(), *([self._in_flight] if self._in_flight else []))
        return any(request.replaces == response_id for request in waiting)

    def replaced_by(self, response_id: str) -> str | None:
        """The response in whose place this one, which is running, was asked for."""
        running = self._running.get(response_id)
        return None if running is None or running.request is None else running.request.replaces

    # --- what is asked for --------------------------------------------------------------------------------------------

    def add(self, event: ev.ResponseCreate, ticket: int, now_ms: int) -> None:
        """The application asks for a response, while connected. Raises `LocalProtocolError` where too many wait."""
        request = Request(event, ticket)
        waiting = len(self._aside if request.is_aside else self._queue)
        if waiting >= self._limits.requests_max:
            raise LocalProtocolError(
                f"{waiting} requests for a response wait already; await one before asking for the next"
            )
        if request.is_aside:
            self._aside[request.id] = request
            self._send(request, now_ms)
            return
        self._tool_rounds = 0
        self._queue.append(request)
        self.proceed(now_ms)

    def params_of(self, response_id: str) -> Maybe[ev.ResponseParams]:
        """How a running response was asked for; UNSET where it does all as the session says."""
        running = self._running.get(response_id)
        return UNSET if running is None or running.request is None else running.request.event.response

    def follow_up(self, outputs: frozenset[str], params: Maybe[ev.ResponseParams], now_ms: int) -> None:
        """All calls of a response are answered: a response is to see these items, asked for as that one was."""
        self._tool_rounds += 1
        if self._tool_rounds > self._limits.tool_rounds_max:
            self._fail(
                "tool_rounds_exceeded",
                f"The model has called tools {self._limits.tool_rounds_max} times in a row; it is not asked any more.",
            )
            return
        self._need(outputs, followed(params))
        self.proceed(now_ms)

    def _need(self, items: frozenset[str], params: Maybe[ev.ResponseParams] = UNSET) -> None:
        event = ev.ResponseCreate(event_id=self._new_id("event"), response=params)
        self._queue.append(Request(event, why="needed", items=items))

    def proceed(self, now_ms: int) -> None:
        """Send the next request, if it may be sent now."""
        if not self._is_connected or self._in_flight is not None or not self._queue or self.active:
            return
        if self._busy_until_ms is not None and now_ms < self._busy_until_ms:
            return
        request = self._next()
        if request is not None:
            self._busy_until_ms = None
            self._queue.remove(request)
            self._in_flight = request
            self._send(request, now_ms)

    def _next(self) -> Request | None:
        """What is needed waits for the end of the user's turn, which brings a response by itself."""
        waits = (self._user_speaks and self._answers_turns) or self._turn_due_ms is not None
        return next((request for request in self._queue if request.why != "needed" or not waits), None)

    def _send(self, request: Request, now_ms: int) -> None:
        self.life_ms = now_ms
        self._transmit(self._tagged(request))

    def _tagged(self, request: Request) -> ev.ResponseCreate:
        """With a tag, where the server may begin responses by itself or several run side by side."""
        request.is_tagged = False
        if not (request.is_aside or self._answers_turns):
            return request.event
        event = tagged(request.event)
        request.is_tagged = event is not None
        return event or request.event

    @property
    def _answers_turns(self) -> bool:
        """Whether the server begins responses by itself, at the end of turns."""
        return answers_turns(self._conversation().session)

    # --- what the server says -----------------------------------------------------------------------------------------

    def created(self, response: Response) -> None:
        """A response has begun."""
        request = self._request_of(response)
        is_aside = request.is_aside if request is not None else response.conversation_id is None
        if request is not None and request is self._in_flight:
            self._in_flight = None
        elif request is not None:
            self._aside.pop(request.id, None)
        running = Running(response.id, is_aside, request)
        self._running[response.id] = running
        if not is_aside:
            self._turn_due_ms = self._unanswered = None
            self._note_seen(running)
        if request is not None and request.replaces is not None:
            self._ask(Tell(ResponseReplaced(request.replaces, response.id)))

    def acknowledge(self, event: ev.ResponseCreated) -> None:
        """Settle the ticket of the request that this response answers; after everything else knows of the response."""
        running = self._running.get(event.response.id)
        if running is not None and running.request is not None and running.request.ticket:
            self._ask(Acknowledge(running.request.ticket, untagged(event)))
            running.request.ticket = 0

    def _request_of(self, response: Response) -> Request | None:
        tag = tag_of(response)
        if tag is not None:
            self._tags_come_back = True
            if self._in_flight is not None and self._in_flight.id == tag:
                return self._in_flight
            return self._aside.get(tag)
        if response.conversation_id is None and self._aside:
            return next(iter(self._aside.values()))
        if self._unanswered is not None:
            return None
        if self._in_flight is not None and self._in_flight.is_tagged and self._tags_come_back:
            return None
        if self._in_flight is None and isinstance(response.conversation_id, UnsetType):
            return next(iter(self._aside.values()), None)
        return self._in_flight

    def _note_seen(self, running: Running) -> None:
        """Requests because of items that this response has seen are needless."""
        conversation = self._conversation()
        for request in [*self._queue, *([self._in_flight] if self._in_flight else [])]:
            if request.why == "needed" and all(item_id in conversation for item_id in request.items):
                request.is_seen = True
                if request is not self._in_flight:
                    self._queue.remove(request)
                    running.seen.append(request)

    def came(self, response_id: str) -> None:
        """Something of a response has come."""
        if (running := self._running.get(response_id)) is not None:
            running.has_come = True

    def cancelling(self, response_id: str | None) -> None:
        """A response, or any of the conversation, is being cancelled."""
        for running in self._running.values():
            if running.response_id == response_id or (response_id is None and not running.is_aside):
                running.is_unwanted = True

    def silence(self) -> list[str]:
        """Somebody has cut in: of the responses of the conversation nothing more is heard. Gives those not cancelled
        already."""
        talking = [running for running in self._running.values() if not running.is_aside]
        wanted = [running.response_id for running in talking if not running.is_unwanted]
        for running in talking:
            running.is_unwanted = running.is_silenced = True
        return wanted

    def done(self, response: Response, now_ms: int) -> None:
        """A response is over."""
        running = self._running.pop(response.id, None)
        if running is None:
            return
        if running.request is None and response.status == "completed" and not response.output:
            # The server has answered a noise with nothing: what this response saw is still to be talked about.
            for request in running.seen:
                request.is_seen = False
            self._queue.extendleft(reversed(running.seen))
        self.proceed(now_ms)

    def again_as_text(self, response: Response) -> None:
        """Where speech has failed, and nothing of it has come, ask once more, for text. Call it before `done`."""
        running = self._running.get(response.id)
        was_to_speak = "audio" in given(response.output_modalities, ("audio",))
        if response.status != "failed" or not was_to_speak or running is None or running.is_aside or running.has_come:
            return
        if running.request is not None and running.request.why == "text":
            return
        event = running.request.event if running.request is not None else ev.ResponseCreate()
        params = structs.replace(given(event.response, ev.ResponseParams()), output_modalities=("text",))
        event = ev.ResponseCreate(event_id=self._new_id("event"), response=params)
        self._queue.appendleft(Request(event, why="text", replaces=response.id))

    def refused(self, error: ev.ErrorDetail, now_ms: int) -> bool:
        """An error; says whether it was about a request."""
        event_id = given(error.event_id, None)
        if event_id is None:
            if error.code != BUSY:
                return False
            if self._unanswered is not None or self._in_flight is None or not self.active:
                self._turn_was_refused(now_ms)
                return True
            event_id = self._in_flight.id  # by a server that does not say which event it means
        request = self._in_flight if self._in_flight is not None and self._in_flight.id == event_id else None
        if request is None and (request := self._aside.pop(event_id, None)) is None:
            return False
        if request is self._in_flight:
            self._in_flight = None
            if error.code == BUSY and request.tries < self._limits.busy_tries_max:
                self._wait_for_the_other(request, now_ms)
                return True
        self._refuse(request, error)
        self.proceed(now_ms)
        return True

    def _refuse(self, request: Request, error: ev.ErrorDetail) -> None:
        """It comes to nothing; one that replaces a response takes that with it."""
        if request.ticket:
            self._ask(Refuse(request.ticket, error))
        else:
            self._ask(Tell(Failed(structs.replace(error, param=request.replaces) if request.replaces else error)))

    def _turn_was_refused(self, now_ms: int) -> None:
        """At the end of a turn the server would have answered by itself, and a response of ours was in its way."""
        turn, self._unanswered, self._turn_due_ms = self._unanswered, None, None
        if turn is not None:
            self._need(frozenset((turn,)))
            self._wait_a_little(now_ms)

    def _wait_for_the_other(self, request: Request, now_ms: int) -> None:
        """The server runs a response that it began by itself; it comes to an end, and then it is our turn."""
        other = next((running for running in self._running.values() if not running.is_aside), None)
        if other is not None and request.is_seen:
            other.seen.append(request)
            return
        request.is_seen = False
        self._queue.appendleft(request)
        if other is None:
            request.tries += 1
            self._wait_a_little(now_ms)

    def _wait_a_little(self, now_ms: int) -> None:
        self._busy_until_ms = now_ms + self._limits.busy_wait_ms

    def speech_started(self) -> None:
        """The user speaks."""
        self._user_speaks = True
        self._tool_rounds = 0

    def speech_stopped(self, now_ms: int) -> None:
        """The user has ended a turn."""
        self._user_speaks = False
        self._is_due(now_ms)
        self.proceed(now_ms)

    def committed(self, item_id: str, now_ms: int, *, by_server: bool) -> None:
        """A turn has become an item; one that the server found itself brings a response."""
        self._user_speaks = False
        if by_server and self._answers_turns:
            self._unanswered = item_id
            self._is_due(now_ms)

    def _is_due(self, now_ms: int) -> None:
        """The server is to begin a response, if it answers turns."""
        if self._answers_turns:
            self._turn_due_ms = now_ms + self._limits.turn_answer_ms_max

    def turn_dropped(self, now_ms: int) -> None:
        """The audio of the turn is no more, or nobody finds turns any more."""
        self._user_speaks = False
        self.proceed(now_ms)

    # --- time and connections -----------------------------------------------------------------------------------------

    def deadline(self) -> int | None:
        """When to be woken."""
        dues = [due for due in (self._turn_due_ms, self._busy_until_ms) if due is not None]
        if self._is_connected and (self._in_flight or self._running or self._aside):
            dues.append(self.life_ms + self._limits.response_silence_ms_max)
        return min(dues, default=None)

    def wake_up(self, now_ms: int) -> None:
        """Something may be due."""
        if self._turn_due_ms is not None and now_ms >= self._turn_due_ms:
            self._turn_due_ms = self._unanswered = None
        if self._busy_until_ms is not None and now_ms >= self._busy_until_ms:
            self._busy_until_ms = None
        if self._is_connected and now_ms >= self.life_ms + self._limits.response_silence_ms_max:
            self._give_up(now_ms)
        self.proceed(now_ms)

    def _give_up(self, now_ms: int) -> None:
        """Nothing has been heard for long: no request will be answered any more, no response will go on."""
        for request in [*([self._in_flight] if self._in_flight else []), *self._aside.values()]:
            self._refuse(request, structs.replace(no_answer(request.event), code=TIMEOUT))
        self._in_flight = None
        self._aside.clear()
        for running in list(self._running.values()):
            if running.is_given_up:  # not even the cancelling was answered
                del self._running[running.response_id]
                continue
            running.is_given_up = running.is_unwanted = True
            self._transmit(ev.ResponseCancel(event_id=self._new_id(OWN), response_id=running.response_id))
            self._fail(TIMEOUT, "The response has stopped without an end; it is cancelled.", running.response_id)
        self.life_ms = now_ms

    def _fail(self, code: str, message: str, param: str | None = None) -> None:
        self._ask(Tell(Failed(ev.ErrorDetail(type="vivavoce", code=code, message=message, param=param))))

    def lost(self) -> None:
        """There is no connection."""
        self._is_connected = False

    def connected(self, now_ms: int) -> None:
        """There is one, to the same session."""
        self._is_connected = True
        self.life_ms = now_ms
        self.proceed(now_ms)

    def moved(self, now_ms: int) -> None:
        """There is another session. Responses that ran are lost; those of which nothing had come, and that somebody
        still wants to hear, are asked for again. The owner calls `proceed` when everything before was sent."""
        again = []
        for running in self._running.values():
            is_again = not running.has_come and not running.is_unwanted
            self._ask(Tell(ResponseLost(running.response_id, is_again)))
            if is_again:
                event = running.request.event if running.request is not None else ev.ResponseCreate()
                event = structs.replace(event, event_id=self._new_id("event"))
                again.append(Request(event, why="again", replaces=running.response_id))
        if self._in_flight is not None:
            self._in_flight.is_seen = False
            again.append(self._in_flight)
        self._running.clear()
        self._in_flight = self._unanswered = self._turn_due_ms = self._busy_until_ms = None
        self._user_speaks = self._tags_come_back = False
        self._is_connected = True
        self._queue.extendleft(reversed([request for request in again if not request.is_aside]))
        self._aside.update((request.id, request) for request in again if request.is_aside)
        for request in self._aside.values():
            self._send(request, now_ms)


def followed(params: Maybe[ev.ResponseParams]) -> Maybe[ev.ResponseParams]:
    """How a response is asked for that is to talk about what tools have answered: as the one that called them, but not
    on that one's input, nor forced to call again."""
    if isinstance(params, UnsetType):
        return UNSET
    params = structs.replace(params, input=UNSET, tool_choice=UNSET)
    return UNSET if params == ev.ResponseParams() else params
