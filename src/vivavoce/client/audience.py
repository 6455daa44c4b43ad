"""Who is told of what: whoever iterates, listens, waits, or follows a response.

Between the life of a session, which puts events in, and the application, which takes them out at its own pace.
Invariants: all see the same events in the same order; what nobody wants costs a look-up and is not kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from fnmatch import fnmatchcase
from typing import Any, Generic, TypeVar, cast
from weakref import WeakSet, ref

from vivavoce.core.caller.updates import Failed, ResponseLost, Update
from vivavoce.errors import ConnectionClosed, ResponseFailed
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given

from .acks import Ack
from .line import NORMAL_CODES
from .listeners import Listeners
from .live import LiveResponse
from .names import ConnectionChanged, check_name, names_of, realtime_event
from .streams import Stream

E = TypeVar("E")

log = logging.getLogger(__name__)

EVENTS_MAX = 10_000
"""Events that wait for whoever iterates. Beyond it the server is not read; where nobody iterates, the oldest go."""
READER_S_MAX = 10.0
"""Who iterates and takes nothing for so long, while the server is not read for it, iterates no more. Servers close what
is not read after some 20 s."""

ServerMessage = ev.AnyServerEvent | ev.Unknown


class Feed(Generic[E]):
    """Something to iterate that ends with the session."""

    def __init__(self) -> None:
        self.stream: Stream[E] = Stream(EVENTS_MAX)

    def __aiter__(self) -> AsyncIterator[E]:
        return self

    async def __anext__(self) -> E:
        event = self.stream.get_nowait()
        if event is not None:
            return event
        try:
            return await self.stream.get()
        except ConnectionClosed as closed:
            if closed.code in NORMAL_CODES:
                raise StopAsyncIteration from None
            raise


class Audience:
    """Everybody who wants to know, for one life of a session.

    `is_waited_for()` says whether an answer is awaited, for which events must go on.
    """

    def __init__(self, listeners: Listeners) -> None:
        self.listeners = listeners
        self.events: Feed[ServerMessage] = Feed()
        self.is_waited_for: Callable[[], bool] = lambda: False
        self.give_turn: Callable[[], None] = lambda: None
        self.is_asked_again: Callable[[str], bool] = lambda response_id: False
        """Whether another response comes in the place of this one."""
        self.replaced_by: Callable[[str], str | None] = lambda response_id: None
        """In which one's place this response has come."""
        self._waiters: list[tuple[str, Callable[[Any], bool] | None, asyncio.Future[Any]]] = []
        self._acks: WeakSet[Ack[LiveResponse]] = WeakSet()
        self.server_plays = False
        """Whether speech comes as it is played, and goes on after its response."""
        self._live: dict[str, ref[LiveResponse]] = {}
        self._followers: WeakSet[Feed[LiveResponse]] = WeakSet()
        self._closed: ConnectionClosed | None = None
        self._released = asyncio.Event()
        self._oldest: object = None
        self._patience_s = READER_S_MAX
        """How long the server will still not be read for a reader that has not taken the oldest event."""

    # --- the application's side ---------------------------------------------------------------------------------------

    @property
    def wants_deltas(self) -> bool:
        """Whether anybody wants to know of every piece that an item grows by."""
        name = "conversation.updated"
        return self.listeners.wants(name) or any(fnmatchcase(name, pattern) for pattern, _, _ in self._waiters)

    def waiter(self, name: str, where: Callable[[Any], bool] | None) -> asyncio.Future[Any]:
        """The next event of this name or pattern, as a future. Raises `ConnectionClosed` after the end."""
        check_name(name)
        if self._closed is not None:
            raise ConnectionClosed(self._closed.code, self._closed.reason)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiters.append((name, where, future))
        future.add_done_callback(self._forget)
        return future

    def _forget(self, future: asyncio.Future[Any]) -> None:
        self._waiters = [waiter for waiter in self._waiters if waiter[2] is not future]

    def follow(self) -> Feed[LiveResponse]:
        """Every response from now on."""
        feed: Feed[LiveResponse] = Feed()
        self._followers.add(feed)
        if self._closed is not None:
            feed.stream.end(self._closed)
        return feed

    def expects(self, ack: Ack[LiveResponse]) -> None:
        """This answer will be a response, to be followed from its first event on."""
        self._acks.add(ack)

    def live(self, response_id: str) -> LiveResponse:
        """A response that is being followed."""
        live = self._followed(response_id)
        assert live is not None, "whoever asked for it holds it"
        return live

    def _followed(self, response_id: str) -> LiveResponse | None:
        found = self._live.get(response_id)
        return found() if found is not None else None

    def _hold(self, live: LiveResponse, response_id: str) -> None:
        """Feed it for as long as somebody else holds it."""
        self._live[response_id] = ref(live, lambda gone: self._live.pop(response_id, None) and None)

    # --- fed by the life of the session -------------------------------------------------------------------------------

    def heard(self, event: ServerMessage) -> None:
        """The server has said something."""
        if type(event) is ev.ResponseCreated:
            self._begin(event)
        if self._live:
            self._feed(event)
        self.events.stream.put(event)
        if self._waiters or self.listeners:
            self._tell(names_of(event), event)
            if self.listeners.wants("realtime.event"):
                self.listeners.hear(("realtime.event",), realtime_event(event, "server"))

    def _begin(self, event: ev.ResponseCreated) -> None:
        """Follow a response, where somebody has asked for it, or for all; or go on with the one that it replaces."""
        lost_id = self.replaced_by(event.response.id)
        if lost_id is not None and (lost := self._followed(lost_id)) is not None:
            lost._replace(event.response)
            self._hold(lost, lost.id)  # beside the old id, by which whoever asked will look for it
            return
        if not self._acks and not self._followers:
            return
        live = LiveResponse(event.response, self.release, is_played=self.server_plays)
        self._hold(live, live.id)
        for ack in self._acks:
            if not ack.done():  # an earlier one has its own
                ack.held = live
        for feed in self._followers:
            feed.stream.put(live)

    def _feed(self, event: ServerMessage) -> None:
        if isinstance(event, ev.ConversationItemTruncated) and self.server_plays:
            self._hush(event.item_id)
        if isinstance(event, ev.ResponseDone):
            response_id = event.response.id
            if event.response.status == "failed" and self.is_asked_again(response_id):
                return  # whoever waits for it gets the one that comes in its place
        else:
            response_id = getattr(event, "response_id", "")
        if response_id and (live := self._followed(response_id)) is not None and not isinstance(event, ev.Unknown):
            live._take(event)

    def _hush(self, item_id: str | None = None) -> None:
        """What was still to be played is not heard: that of a response with this item, or all."""
        for found in list(self._live.values()):
            if (live := found()) is not None and live.is_done and (item_id is None or item_id in live._known):
                live._hush()

    def _tell(self, names: tuple[str, ...], event: Any) -> None:
        self.listeners.hear(names, event)
        for name, where, future in self._waiters:
            if future.done() or not any(fnmatchcase(own, name) for own in names):
                continue
            try:
                is_wanted = where is None or where(event)
            except Exception as error:  # the application's own: it is told where it waits
                future.set_exception(error)
                continue
            if is_wanted:
                future.set_result(event)
                self.give_turn()

    def told(self, update: Update) -> None:
        """Something has changed."""
        match update:
            case ResponseLost() if not update.is_asked_again:
                self._fail(update.response_id, "the session was lost, and the response with it", "lost")
            case Failed():
                self._fail(given(update.error.param, None), update.error.message, given(update.error.code, None))
                if not self.listeners.wants("error"):
                    log.warning("%s: %s", update.error.code, update.error.message)
        self._tell((update.type,), update)

    def _fail(self, response_id: str | None, message: str, code: str | None) -> None:
        if (live := self._followed(response_id or "")) is not None:
            live._fail(ResponseFailed(message, code=code, response_id=response_id))

    def sent(self, event: ev.AnyClientEvent) -> None:
        """An event goes out."""
        if self.listeners or self._waiters:
            self._tell((f"client.{event.type}",), event)
            if self.listeners.wants("realtime.event"):
                self.listeners.hear(("realtime.event",), realtime_event(event, "client"))

    def changed(self, what: str, details: dict[str, Any]) -> None:
        """The connection: `lost`, `resumed`, `restored`, `renewed`, `closed`."""
        if what == "lost" and self.server_plays:
            self._hush()
        self._tell((f"connection.{what}",), ConnectionChanged(cast(Any, what), details))

    def end(self, closed: ConnectionClosed, reason: BaseException | None = None) -> None:
        """The session is over; `reason` is what iterating raises, where it is not that."""
        self._closed = closed
        self.events.stream.end(reason or closed)
        for feed in self._followers:
            feed.stream.end(closed)
        for found in list(self._live.values()):
            if (live := found()) is not None:
                live._fail(ResponseFailed(str(closed), code="closed", response_id=live.id))
        for _, _, future in self._waiters:
            if not future.done():
                future.set_exception(ConnectionClosed(closed.code, closed.reason))

    @property
    def is_behind(self) -> bool:
        """Whether the application is too far behind for more events, and waits for none of them."""
        stream = self.events.stream
        if len(stream._events) < EVENTS_MAX and not self.listeners.is_full:  # asked for every event
            return False
        is_full = stream.is_full or self.listeners.is_full
        if not is_full or self._waiters or self.is_waited_for():
            return False
        return not any((live := found()) is not None and live.is_waited_for for found in list(self._live.values()))

    async def hold(self) -> None:
        """Wait until it has caught up, or somebody waits for what only comes when the server is read."""
        self._released.clear()
        catching_up = self._caught_up() if self.events.stream.is_full else self.listeners.drained()
        waits = asyncio.ensure_future(self._released.wait()), asyncio.ensure_future(catching_up)
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            self.events.stream.release()

    async def _caught_up(self) -> None:
        """Wait until the reader is no longer behind, however slow, or is known to have gone."""
        stream, clock = self.events.stream, asyncio.get_running_loop().time
        while self._is_patient:
            began_s = clock()
            try:
                async with asyncio.timeout(self._patience_s):
                    await stream.room()
                return
            except TimeoutError:
                continue
            finally:  # who sends lets single events pass: that is no new beginning
                self._patience_s -= clock() - began_s
        stream.leave()
        log.warning(
            "whoever iterated the session has taken no event for %g s, while %d wait and the server was not read: it "
            "goes on without, and drops the oldest events until somebody iterates again; who listens misses nothing",
            READER_S_MAX,
            len(stream),
        )

    @property
    def _is_patient(self) -> bool:
        """Whether the reader may still take nothing for a while; the while begins with each event that it takes."""
        oldest = self.events.stream.oldest
        if oldest is not self._oldest:
            self._oldest, self._patience_s = oldest, READER_S_MAX
        return self._patience_s > 0

    def release(self) -> None:
        """Somebody is about to wait for an answer."""
        self._released.set()
