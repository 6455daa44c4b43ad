"""The life of a session: its connections, one after the other, and the tasks around them.

connection → codec → `Hands.take` → the caller, which decides; what it decides goes out by `Outgoing`. A lost connection
is mended or replaced here, and a session that nears its limit is renewed at a silence, the new one ready before the old
one is let go. Invariant: whatever happens, every ticket is settled and every task ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from vivavoce.core.caller.messages import Connected, Lost, Restored
from vivavoce.core.caller.restoring import restoration
from vivavoce.errors import ConnectionClosed, ConnectionFailed, ServerError, VivavoceError
from vivavoce.protocol import events as ev
from vivavoce.transports import Transport
from vivavoce.transports.lasting import LEFT

from .hands import Hands
from .line import Line, Opened
from .outgoing import Outgoing
from .renewal import renew_in_time
from .restoring import restore, server_error
from .surroundings import Owner, ServerMessage, Surroundings

log = logging.getLogger(__name__)

GOODBYE_S = 5.0
"""Time for what was said before the end to be sent."""
ENDED_HERE = "the session was ended here; connect() opens it again"
TURNS = 3
"""Turns of the event loop in which whoever got what they waited for can go on, through a task or two between."""
BATCH_MAX = 64
"""Events that are taken in one go, before other tasks have their turn."""


class Life:
    """One session alive, from `open` to `close`; made for one of each."""

    def __init__(self, owner: Owner, given: Surroundings) -> None:
        self.owner = owner
        self.given = given
        self.line: Line
        self.ended: ConnectionClosed | None = None
        self.outgoing = Outgoing(self._spawn, given.raw)
        self.hands = Hands(owner, given, self.outgoing)
        self._transport: Transport
        self._old: Opened | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._goodbye: ConnectionClosed | None = None
        self._closing: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._left: ConnectionClosed | None = None
        """Why the present connection is not read any more, where it was given up."""

    # --- opening and closing ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open it. Raises `ConnectionFailed` or `ServerError`, with the likely cause; `ConnectionClosed` where it is
        closed meanwhile."""
        try:
            opened = await self.line.open()
            try:
                first = await self._first(opened)
                if self._goodbye is not None:
                    raise self._goodbye  # somebody has thought better of it meanwhile
            except BaseException:
                await opened.transport.close()
                raise
        except (ConnectionFailed, ServerError) as error:
            raise self.given.explained(error) from error.__cause__  # by which is judged whether it passes
        self.line.adopt(opened)
        self._transport = self.given.wrap(opened.transport, opened.first)
        self.outgoing.use(self._transport, getattr(opened.transport, "room", None))
        self.hands.take(first)
        self.hands.handle(Connected())
        self._running = self._spawn(self._run())
        self._running.add_done_callback(lambda _: self._end(self._goodbye or ConnectionClosed(1006)))  # never begun
        if self.given.policy.tries:
            self._spawn(renew_in_time(self.given, self._is_silent, self._renew))

    async def _first(self, opened: Opened) -> ServerMessage:
        """The first event, so that a refused connection is told here and not later (reference §1.5)."""
        event = self._decode(await self.line.first(opened))
        if isinstance(event, ev.ErrorEvent):
            raise server_error(event.error)
        return event

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End it; doing it twice is harmless."""
        if self._closing is None:
            self._goodbye = ConnectionClosed(code, reason or ENDED_HERE)
            self._closing = asyncio.get_running_loop().create_task(self._close(self._goodbye, reason))
        await asyncio.shield(self._closing)

    async def _close(self, goodbye: ConnectionClosed, reason: str) -> None:
        """In a task of its own: whoever waits for the end may be cancelled, and it comes all the same."""
        if self.ended is None and self.given.caller.is_connected:
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self.outgoing.said()
        if self._running is not None:
            self._running.cancel()  # whatever it waits for: a message, the application, another connection
        await self.line.close(goodbye.code, reason)
        if self._running is None or self._running.done():
            self._end(goodbye)
        await self._over
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, closed: ConnectionClosed) -> None:
        """Nothing comes any more."""
        if self._over.done():
            return
        self.ended = closed
        self.hands.end(closed)
        self.outgoing.end()
        self._over.set_result(None)
        self.owner.ended(closed)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- in -----------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Read until the session is over, whatever connections it takes."""
        closed = ConnectionClosed(1006)
        try:
            while True:
                ended = await self._read_to_the_end()
                if ended is not None:
                    closed = ended
                    await self._reopen(closed)
        except ConnectionClosed as error:
            closed = error
        except VivavoceError as error:
            closed = ConnectionClosed(1006, str(error))
            closed.__cause__ = error
        except Exception as error:
            log.exception("the session has failed")
            closed = ConnectionClosed(1006, f"{type(error).__name__}: {error}")
            closed.__cause__ = error
        finally:
            self._end(self._goodbye or closed)

    async def _read_to_the_end(self) -> ConnectionClosed | None:
        """Take what comes over the present connection; say how it ended. None: another has taken its place."""
        reading = self._reading = asyncio.get_running_loop().create_task(self._read(self._transport))
        try:
            await asyncio.wait((reading,))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        left, self._left = self._left, None
        if reading.cancelled():
            return left
        error = reading.exception()
        if error is None or isinstance(error, ConnectionClosed):
            return error
        raise error

    async def _read(self, transport: Transport) -> None:
        """Take what comes over one connection, to its end."""
        forward = getattr(transport, "forward", None) or partial(_forward, transport)

        decode = self.given.codec.decode if self.given.raw is None else self._decode
        hands, hear, tell, in_a_row = self.hands, self.given.caller.hear, self.owner.heard_speech, 0

        def take(frame: str | bytes) -> bool:
            nonlocal in_a_row
            if transport is not self._transport:
                return False  # another has taken its place
            event = decode(frame)
            if type(event) is ev.ResponseOutputAudioDelta and in_a_row < BATCH_MAX and hear(event):
                in_a_row += 1
                hands.events += 1
                tell(event)
                return True
            in_a_row = 0
            hands.take(event)
            return not (hands.is_turn_given or self.owner.is_behind)

        while transport is self._transport:
            await forward(take)
            if hands.is_turn_given:
                hands.is_turn_given = False
                for _ in range(TURNS):
                    await asyncio.sleep(0)
            if self.owner.is_behind:
                await self.owner.hold()

    def _decode(self, frame: str | bytes) -> ServerMessage:
        if self.given.raw is not None:
            self.given.raw("server", frame)
        return self.given.codec.decode(frame)

    # --- out ----------------------------------------------------------------------------------------------------------

    def ask(self, event: ev.AnyClientEvent) -> asyncio.Future[Any]:
        """Send an event; the future holds the server's answer. Raises `LocalProtocolError`, `ConnectionClosed`."""
        self.check_open()
        return self.hands.ask(event)

    def check_open(self) -> None:
        """Raises `ConnectionClosed` after the end, and `LocalProtocolError` where far too much is on its way out."""
        if self.ended is not None:
            raise ConnectionClosed(self.ended.code, self.ended.reason)
        self.outgoing.check()

    # --- connections that come and go ---------------------------------------------------------------------------------

    def lost(self, closed: ConnectionClosed) -> None:
        """The connection is gone, and with luck the session is not: the line is looking for it."""
        self.hands.handle(Lost())
        self.owner.changed("lost", code=closed.code, reason=closed.reason)

    def resumed(self) -> None:
        """The session goes on over another connection, and nothing was lost."""
        self.hands.handle(Connected())
        self.owner.changed("resumed")

    def leave(self) -> None:
        """Give the present connection up, dead or not, and look for another at once."""
        if self.line.leave() or self._reading is None or not self.given.caller.is_connected:
            return
        self._left = ConnectionClosed(LEFT, "the connection was given up")
        self._reading.cancel()
        self._spawn(self._transport.close(LEFT))

    async def _reopen(self, closed: ConnectionClosed) -> None:
        """A session in place of the one that has ended, told what was before. Raises `ConnectionClosed` and others."""
        self.outgoing.pause()
        if self.given.caller.is_connected and self.line.may_reopen(closed):
            self.lost(closed)
        while True:
            opened = await self.line.reopen(closed)
            try:
                await self._move(opened)
            except (ConnectionClosed, TimeoutError, ServerError) as error:
                await opened.transport.close()
                if isinstance(error, ServerError) and not self.line.is_passing(error):
                    raise
                closed = error if isinstance(error, ConnectionClosed) else ConnectionClosed(1006, str(error))
                continue
            except BaseException:
                await opened.transport.close()
                raise
            self.owner.changed("restored")
            return

    async def _move(self, opened: Opened, is_wanted: Callable[[], bool] = lambda: True) -> bool:
        """Tell a fresh session what was before, and go on in it, if that is still wanted when it is ready."""
        caller = self.given.caller
        transport = self.given.wrap(opened.transport, opened.first)
        events = restoration(caller.memory, caller.configured, self.given.new_id)
        try:
            fresh = await restore(transport, self.given.codec, events, opened.first)
        except ServerError as error:
            raise self.given.explained(error) from error.__cause__
        if not is_wanted():
            return False
        self._old = self.line.adopt(opened)
        self._transport = transport
        self.outgoing.use(transport, getattr(opened.transport, "room", None))
        self.hands.events += 1
        self.hands.handle(Restored(fresh))
        return True

    async def _renew(self) -> None:
        """Make before break: the old session lives until the new one knows everything."""
        opened = await self.line.open()
        events = self.hands.events

        def is_wanted() -> bool:
            return self._is_silent() and self.hands.events == events and self._goodbye is None

        try:
            is_moved = await self._move(opened, is_wanted)
        except BaseException:
            await opened.transport.close()
            raise
        if not is_moved:
            await opened.transport.close()
            return
        if self._reading is not None:
            self._reading.cancel()  # at once: saying goodbye may take its time
        self.owner.changed("renewed")
        if self._old is not None:
            await self._old.transport.close()

    def _is_silent(self) -> bool:
        is_playing = self.given.player is not None and self.given.player.is_playing
        caller = self.given.caller
        return self.outgoing.is_open and caller.is_connected and caller.is_idle and not is_playing


async def _forward(transport: Transport, sink: Callable[[str | bytes], bool]) -> None:
    """For transports that are asked for each message."""
    taken = 0
    while sink(await transport.receive()):
        taken += 1
        if taken % BATCH_MAX == 0:
            await asyncio.sleep(0)
