"""The life of a session: tasks, timers and connections around the caller, which decides.

connection → codec → `Caller.handle` → effects → connection, tools, player, application. One task reads and one writes;
a lost connection is mended or replaced here, and a session that nears its limit is renewed at a silence, the new one
ready before the old one is let go. Invariant: whatever happens, every ticket is settled and every task ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from vivavoce.core.caller import Caller
from vivavoce.core.caller.messages import (
    Acknowledge,
    Ask,
    CallerEffect,
    CallerInput,
    CancelTool,
    Connected,
    Heard,
    Lost,
    Play,
    PlaybackStopped,
    Refuse,
    Restored,
    RunTool,
    StopPlayback,
    Tell,
    Transmit,
    WakeUp,
)
from vivavoce.core.caller.restoring import restoration
from vivavoce.core.caller.updates import Failed, Update
from vivavoce.errors import ConnectionClosed, ConnectionFailed, LocalProtocolError, ServerError, VivavoceError
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.client_codec import ClientCodec
from vivavoce.protocol.config import RealtimeSessionResource
from vivavoce.transports import Transport
from vivavoce.transports.lasting import LEFT

from .line import Line, Opened, Reconnect
from .player import Player
from .restoring import restore, server_error

log = logging.getLogger(__name__)

OUTGOING_BYTES_MAX = 4 * 1024 * 1024
"""Bytes on their way out beyond which `append_audio` waits, where it is awaited."""
OUTGOING_BYTES_LIMIT = 64 * 1024 * 1024
"""Bytes on their way out beyond which nothing more is taken."""
GOODBYE_S = 5.0
"""Time for what was said before the end to be sent."""
RENEW_AGAIN_S = 15.0
"""Wait after a renewal that has failed."""
SILENCE_POLL_S = 0.25
"""How often is looked for a silence in which a session can be renewed."""
NOT_IN_DIALECT = "not_in_dialect"
"""The code of an error about an event that was never sent, because the dialect cannot say it."""
TURNS = 3
"""Turns of the event loop in which whoever got what they waited for can go on, through a task or two between."""
BATCH_MAX = 64
"""Events that are taken in one go, before other tasks have their turn."""

ServerMessage = ev.AnyServerEvent | ev.Unknown


class Owner(Protocol):
    """The session, as its life sees it. Nothing here may raise."""

    def heard(self, event: ServerMessage) -> None:
        """The server has said something that the application is to know."""
        ...

    @property
    def heard_speech(self) -> Callable[[ServerMessage], None]:
        """The short way for the pieces of speech, which are most of what is said."""
        ...

    def told(self, update: Update) -> None:
        """Something has changed."""
        ...

    def sent(self, event: ev.AnyClientEvent) -> None:
        """An event goes out."""
        ...

    def runs(self, effect: RunTool | CancelTool) -> None:
        """A tool is to be run, or to be ended."""
        ...

    def changed(self, what: str, **details: Any) -> None:
        """The connection: `lost`, `resumed`, `restored`, `renewed`."""
        ...

    def ended(self, closed: ConnectionClosed) -> None:
        """The session is over."""
        ...

    async def hold(self) -> None:
        """Wait while the application is too far behind."""
        ...

    @property
    def is_behind(self) -> bool:
        """Whether it is."""
        ...


@dataclass(slots=True)
class Surroundings:
    """What a life is given."""

    caller: Caller
    codec: ClientCodec
    policy: Reconnect
    new_id: Callable[[str], str]
    player: Player | None = None
    wrap: Callable[[Transport, str | bytes | None], Transport] = lambda transport, first: transport
    """Around every connection, with the message that was read of it already: a tape."""
    raw: Callable[[str, str | bytes], None] | None = None
    """Sees every frame: `client` or `server`, and the frame."""
    explained: Callable[[Any], Any] = lambda error: error
    wall_s: Callable[[], float] = time.time


class Life:
    """One session alive, from `open` to `close`; made for one of each."""

    def __init__(self, owner: Owner, given: Surroundings) -> None:
        self.owner = owner
        self.given = given
        self.line: Line
        self.ended: ConnectionClosed | None = None
        self.is_connected = False
        self._transport: Transport
        self._old: Opened | None = None
        self._outgoing: deque[bytes] = deque()
        self._outgoing_bytes = 0
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._said = asyncio.Event()
        """Nothing is on its way out."""
        self._said.set()
        self._tickets: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._clock = asyncio.get_running_loop().time
        self._began_s = self._clock()
        self._alarm: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._events = 0
        self._is_turn_given = False
        self._is_mute = False
        self._goodbye: ConnectionClosed | None = None
        self._closing: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None]
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
        self.is_connected = True
        self._take(first)
        self._handle(Connected())
        self._running = self._spawn(self._run())
        self._running.add_done_callback(lambda _: self._end(self._goodbye or ConnectionClosed(1006)))  # never begun
        self._writing = self._spawn(self._write())
        if self.given.policy.tries:
            self._spawn(self._renew())

    async def _first(self, opened: Opened) -> ServerMessage:
        """The first event, so that a refused connection is told here and not later (reference §1.5)."""
        event = self._decode(await self.line.first(opened))
        if isinstance(event, ev.ErrorEvent):
            raise server_error(event.error)
        return event

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End it; doing it twice is harmless."""
        if self._closing is None:
            self._goodbye = ConnectionClosed(code, reason)
            self._closing = asyncio.get_running_loop().create_task(self._close(self._goodbye))
        await asyncio.shield(self._closing)

    async def _close(self, goodbye: ConnectionClosed) -> None:
        """In a task of its own: whoever waits for the end may be cancelled, and it comes all the same."""
        if self.ended is None and self.given.caller.is_connected:
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self._said.wait()
        if self._running is not None:
            self._running.cancel()  # whatever it waits for: a message, the application, another connection
        await self.line.close(goodbye.code, goodbye.reason)
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
        self.is_connected = False
        if self._alarm is not None:
            self._alarm.cancel()
        for future in self._tickets.values():
            if not future.done():
                future.set_exception(ConnectionClosed(closed.code, closed.reason))
        self._tickets.clear()
        self._room.set()
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
        hear, tell, in_a_row = self.given.caller.hear, self.owner.heard_speech, 0

        def take(frame: str | bytes) -> bool:
            nonlocal in_a_row
            if transport is not self._transport:
                return False  # another has taken its place
            event = decode(frame)
            if type(event) is ev.ResponseOutputAudioDelta and in_a_row < BATCH_MAX and hear(event):
                in_a_row += 1
                self._events += 1
                tell(event)
                return True
            in_a_row = 0
            self._take(event)
            return not (self._is_turn_given or self.owner.is_behind)

        while transport is self._transport:
            await forward(take)
            if self._is_turn_given:
                self._is_turn_given = False
                for _ in range(TURNS):
                    await asyncio.sleep(0)
            if self.owner.is_behind:
                await self.owner.hold()

    def give_turn(self) -> None:
        """Somebody has got what they waited for: they go on before the next event, which may be what they want next."""
        self._is_turn_given = True

    def _decode(self, frame: str | bytes) -> ServerMessage:
        if self.given.raw is not None:
            self.given.raw("server", frame)
        return self.given.codec.decode(frame)

    def _take(self, event: ServerMessage) -> None:
        """An event of the server: first the caller, whose conversation then holds it, then the application."""
        self._events += 1
        effects = self.given.caller.handle(event, self._now_ms)
        if not effects:
            if type(event) is not ev.ErrorEvent:  # one that nobody is to care about
                self.owner.heard(event)
            if type(event) is not ev.ResponseOutputAudioDelta:  # which is never the reason for a deadline
                self._set_alarm()
            return
        if isinstance(event, ev.ErrorEvent):
            effects = [effect for effect in effects if not _repeats(effect, event)]
        settled = [effect for effect in effects if isinstance(effect, Acknowledge | Refuse)]
        self._do([effect for effect in effects if not isinstance(effect, Acknowledge | Refuse | Tell)])
        self.owner.heard(event)
        self._do([effect for effect in effects if isinstance(effect, Tell)])
        self._do(settled)
        self._set_alarm()

    # --- what the caller wants ----------------------------------------------------------------------------------------

    @property
    def _now_ms(self) -> int:
        return int((self._clock() - self._began_s) * 1000 + 0.5)

    def handle(self, input: CallerInput) -> None:
        """Hand an input to the caller and do what it asks for. Raises `LocalProtocolError` for an `Ask`."""
        self._do(self.given.caller.handle(input, self._now_ms))
        self._set_alarm()

    _handle = handle

    def ask(self, event: ev.AnyClientEvent) -> asyncio.Future[Any]:
        """Send an event; the future holds the server's answer. Raises `LocalProtocolError`, `ConnectionClosed`."""
        self.check_open()
        self._number += 1
        number = self._number
        future = self._tickets[number] = asyncio.get_running_loop().create_future()
        try:
            self.handle(Ask(event, number))
        except BaseException:
            self._tickets.pop(number, None)
            raise
        return future

    def check_open(self) -> None:
        """Raises `ConnectionClosed` after the end, and `LocalProtocolError` where far too much is on its way out."""
        if self.ended is not None:
            raise ConnectionClosed(self.ended.code, self.ended.reason)
        if self._outgoing_bytes > OUTGOING_BYTES_LIMIT:
            raise LocalProtocolError("the server does not take what is sent; await the calls before making more")

    @property
    def is_waited_for(self) -> bool:
        """Whether an answer is still to come, so that the server must be read."""
        return bool(self._tickets)

    async def room(self) -> None:
        """Wait while too much is on its way out."""
        if self._outgoing_bytes > OUTGOING_BYTES_MAX:
            self._room.clear()
            await self._room.wait()

    def _do(self, effects: Sequence[CallerEffect]) -> None:
        for effect in effects:
            match effect:
                case Play():
                    self._play(effect)
                case Transmit():
                    self._transmit(effect.event)
                case Acknowledge():
                    if (future := self._tickets.pop(effect.ticket, None)) is not None and not future.done():
                        future.set_result(effect.event)
                        self.give_turn()
                case Refuse():
                    if (future := self._tickets.pop(effect.ticket, None)) is not None and not future.done():
                        is_ours = effect.error.code == NOT_IN_DIALECT
                        future.set_exception(
                            LocalProtocolError(effect.error.message) if is_ours else server_error(effect.error)
                        )
                case StopPlayback():
                    self._do(self.given.caller.handle(PlaybackStopped(self._stop_playing()), self._now_ms))
                case Tell():
                    self.owner.told(effect.update)
                case RunTool() | CancelTool():
                    self.owner.runs(effect)

    def _play(self, effect: Play) -> None:
        """A player that fails is told of once; the session goes on without sound."""
        if self.given.player is None or self._is_mute:
            return
        try:
            self.given.player.play(effect.item_id, effect.audio, effect.format)
        except Exception as error:
            self._has_no_player(error)

    def _stop_playing(self) -> tuple[Heard, ...]:
        try:
            return self.given.player.stop() if self.given.player is not None else ()
        except Exception as error:
            self._has_no_player(error)
            return ()

    def _has_no_player(self, error: Exception) -> None:
        if self._is_mute:
            return
        self._is_mute = True
        log.error("the player has failed; the session goes on without it", exc_info=error)
        message = f"The player has failed: {error}"
        self.owner.told(Failed(ev.ErrorDetail(type="vivavoce", code="player_failed", message=message)))

    def _transmit(self, event: ev.AnyClientEvent) -> None:
        try:
            frame = self.given.codec.encode(event)
        except LocalProtocolError as error:  # the dialect cannot say it
            detail = ev.ErrorDetail(
                type="vivavoce", code=NOT_IN_DIALECT, message=str(error), event_id=given(event.event_id, None)
            )
            self._do(self.given.caller.handle(ev.ErrorEvent(error=detail), self._now_ms))
            return
        self.owner.sent(event)
        self.put(frame)

    def put(self, frame: bytes) -> None:
        """Send a message as it is."""
        self._outgoing.append(frame)
        self._outgoing_bytes += len(frame)
        self._said.clear()
        self._more.set()

    def _set_alarm(self) -> None:
        """One timer, for the earliest deadline; it rings in vain rather than being moved with every event."""
        due_ms = self.given.caller.deadline()
        if due_ms is None or self.ended is not None:
            return
        due_s = self._began_s + due_ms / 1000
        if self._alarm is not None:
            if self._alarm.when() <= due_s:
                return
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(due_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        due_ms = self.given.caller.deadline()
        if due_ms is not None and self._now_ms >= due_ms:
            self.handle(WakeUp())
        self._set_alarm()

    # --- out ----------------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        """Send what is on its way out, over whatever connection there is."""
        while True:
            while self._outgoing and self.is_connected:
                frame = self._outgoing.popleft()
                self._outgoing_bytes -= len(frame)
                if self.given.raw is not None:
                    self.given.raw("client", frame)
                # Lost with the connection: what was not answered is sent again.
                with suppress(ConnectionClosed):
                    await self._transport.send(frame)
                if self._outgoing_bytes <= OUTGOING_BYTES_MAX // 2:
                    self._room.set()
            self._room.set()
            if not self._outgoing:
                self._said.set()
            self._more.clear()
            await self._more.wait()

    # --- connections that come and go ---------------------------------------------------------------------------------

    def lost(self, closed: ConnectionClosed) -> None:
        """The connection is gone, and with luck the session is not: the line is looking for it."""
        self.handle(Lost())
        self.owner.changed("lost", code=closed.code, reason=closed.reason)

    def resumed(self) -> None:
        """The session goes on over another connection, and nothing was lost."""
        self.handle(Connected())
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
        self.is_connected = False
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
        self.is_connected = True
        self._writing.cancel()  # it may wait for a connection that takes nothing any more
        self._writing = self._spawn(self._write())
        self._outgoing.clear()
        self._outgoing_bytes = 0
        self._events += 1
        self.handle(Restored(fresh))
        self._more.set()
        return True

    async def _renew(self) -> None:
        """Before the server's limit on a session another one takes its place."""
        while True:
            expires_at = self._expires_at
            left_s = 0.0 if expires_at is None else expires_at - self.given.wall_s()
            if left_s <= 0:
                return  # the server does not say, or by another clock
            await asyncio.sleep(max(left_s - self.given.policy.renew_before_s, left_s / 2))
            while self._expires_at == expires_at:
                if not self._is_silent:
                    await asyncio.sleep(SILENCE_POLL_S)  # that the player is silent is no event
                    continue
                try:
                    await self._renew_now()
                except (VivavoceError, TimeoutError) as error:
                    log.warning("the session could not be renewed, and goes on: %s", error)
                    await asyncio.sleep(RENEW_AGAIN_S)

    async def _renew_now(self) -> None:
        """Make before break: the old session lives until the new one knows everything."""
        opened = await self.line.open()
        events = self._events

        def is_wanted() -> bool:
            return self._is_silent and self._events == events and self._goodbye is None

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

    @property
    def _is_silent(self) -> bool:
        is_playing = self.given.player is not None and self.given.player.is_playing
        caller = self.given.caller
        return self.is_connected and caller.is_connected and caller.is_idle and not is_playing

    @property
    def _expires_at(self) -> int | None:
        session = self.given.caller.conversation.session
        if not isinstance(session, RealtimeSessionResource):
            return None
        return given(session.expires_at, None) or None


async def _forward(transport: Transport, sink: Callable[[str | bytes], bool]) -> None:
    """For transports that are asked for each message."""
    taken = 0
    while sink(await transport.receive()):
        taken += 1
        if taken % BATCH_MAX == 0:
            await asyncio.sleep(0)


def _repeats(effect: CallerEffect, event: ev.ErrorEvent) -> bool:
    """The application gets the error itself; it need not be told of it again."""
    update = effect.update if isinstance(effect, Tell) else None
    return getattr(update, "error", None) is event.error
