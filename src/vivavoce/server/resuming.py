"""Sessions that outlive their connections: for how long they wait, and how a client finds its own again.

A client that asks for it gets a token with the first message. Its session talks through a `Lasting`, over one
connection after the other; without any it waits, then ends as if the client had gone. Invariants: a token is known only
while its session lives, leads to it only together with a key of the same id, and is in no log.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256

from vivavoce.errors import ConnectionClosed, RemoteProtocolError
from vivavoce.transports import Transport
from vivavoce.transports.inbox import Inbox
from vivavoce.transports.lasting import HEADER, Lasting, Resumption, Returning, returning

from .auth import REQUEST, Asked, Keys, Refusal

TOKEN_BYTES = 32

IN_MESSAGES_MAX = 64
"""Messages that have come over one connection and wait to be read. Beyond it the socket is not read."""
OUT_MESSAGES_MAX = 64
"""Messages that wait to be written to one connection. Beyond it the sender waits."""
WAITING_BYTES_MAX = 256 * 1024
"""Either, in bytes; one message may exceed it."""
CLOSE_S = 5.0
"""Time for the last messages and the goodbye of one connection."""

ENDED = 1012
"""Close code for a client that comes back in the moment in which its session ends."""

log = logging.getLogger(__name__)


class Lifelines:
    """All sessions of a server that outlive their connections, by token. They wait for a client for `wait_s`."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._by_digest: dict[bytes, Lifeline] = {}

    def __len__(self) -> int:
        return len(self._by_digest)

    @property
    def are_offered(self) -> bool:
        """Whether there are such sessions on this server."""
        return self._wait_s > 0

    def begin(self, key_id: str, session_id: str) -> Lifeline:
        """That of a session which is going to run."""
        return Lifeline(key_id, session_id, self._wait_s)

    @contextmanager
    def known(self, lifeline: Lifeline) -> Iterator[None]:
        """Its token leads to it, within the block."""
        digest = _digest(lifeline.token)
        self._by_digest[digest] = lifeline
        try:
            yield
        finally:
            del self._by_digest[digest]

    def find(self, asked: Asked, keys: Keys) -> Resumable | None:
        """The session that a client comes back to; None where it wants none, or that one is over.

        The key must be of the same id as that which began the session. A short-lived one that has expired since counts:
        it is for beginning sessions, and this one has begun. Raises `Refusal`.
        """
        header = asked.headers.get(HEADER)
        if header is None or not self.are_offered or (wanted := _wanted(header)) is None:
            return None
        # By digest, so that the time tells nothing about tokens.
        lifeline = self._by_digest.get(_digest(wanted.token))
        if lifeline is None or keys.check(asked, may_have_expired=True).key_id != lifeline.key_id:
            return None
        return Resumable(lifeline, wanted.received)


class Lifeline:
    """What one session hangs on: a stream that lasts, the token that leads to it, and a clock while it is detached."""

    def __init__(self, key_id: str, session_id: str, wait_s: float) -> None:
        self.key_id = key_id
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        self.lasting = Lasting(self._lost)
        self._session_id = session_id
        self._wait_s = wait_s
        self._lost_s = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    async def carry(self, transport: Transport, *, received: int | None = None) -> None:
        """Carry the session over an open connection, until that is over; the session may go on.

        `received` is what a client that comes back has; None for a new one. Raises `Refusal` where that cannot be.
        """
        connection = Interruptible(transport)
        greeting = Resumption(self.token, self.lasting.received, received is not None).encode()
        try:
            self.lasting.attach(connection, received=received or 0, greeting=greeting)
        except RemoteProtocolError as error:
            raise Refusal(REQUEST, "invalid_value", f"The session cannot be resumed: {error}.") from None
        except ConnectionClosed:
            await transport.close(ENDED, "The session has just ended.")
            return
        if received is not None:
            self._attached()
        await connection.carry()

    async def end(self, code: int, reason: str) -> None:
        """The session is over; a connection that is left is closed."""
        self._stop_waiting()
        await self.lasting.close(code, reason)

    def _attached(self) -> None:
        if self._alarm is None:
            log.info("%s: goes on over another connection", self._session_id)
            return
        away_s = asyncio.get_running_loop().time() - self._lost_s
        log.info("%s: resumed after %.1f s", self._session_id, away_s)
        self._stop_waiting()

    def _lost(self, closed: ConnectionClosed) -> None:
        loop = asyncio.get_running_loop()
        why = f"{closed.code} {closed.reason}".rstrip()
        log.info("%s: connection lost (%s), waits %g s for its client", self._session_id, why, self._wait_s)
        self._stop_waiting()
        self._lost_s = loop.time()
        self._alarm = loop.call_later(self._wait_s, self._give_up)

    def _give_up(self) -> None:
        self._alarm = None
        self.lasting.end(ConnectionClosed(1006, f"the client did not come back within {self._wait_s:g} s"))

    def _stop_waiting(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


@dataclass(frozen=True, slots=True)
class Resumable:
    """A session whose client comes back, having `received` so many of its messages."""

    lifeline: Lifeline
    received: int

    async def carry(self, transport: Transport) -> None:
        """Go on over this connection until it is over. Raises `Refusal`."""
        await self.lifeline.carry(transport, received=self.received)


class Interruptible:
    """A transport that is let go of at once: its `close` ends what waits in `send` and `receive`.

    Those of ASGI do not: a connection that is dead without anybody knowing would hold the session, while its client is
    back on another one. Between the two are queues, and two tasks that live as long as `carry`.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._into_room, self._out_room = asyncio.Event(), asyncio.Event()
        self._into = Inbox(IN_MESSAGES_MAX, WAITING_BYTES_MAX, on_room=self._into_room.set)
        self._out = Inbox(OUT_MESSAGES_MAX, WAITING_BYTES_MAX, on_room=self._out_room.set)
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    async def send(self, message: bytes) -> None:
        """Send one text message, UTF-8. Waits while the peer is slow. Raises `ConnectionClosed`."""
        while self._out.full and self._out.ended is None:
            self._out_room.clear()
            await self._out_room.wait()
        if self._out.ended is not None:
            raise self._out.ended
        self._out.put(message, len(message))

    async def receive(self) -> str | bytes:
        """The next message. Raises `ConnectionClosed` at the end, or at once where this end closed."""
        return await self._into.get()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the connection, after what was sent; doing it twice is harmless."""
        self._into.end(code, reason, discard=True)
        self._end_sending(code, reason)
        try:
            if self._tasks:
                _, writing = self._tasks
                await asyncio.wait((writing,), timeout=CLOSE_S)
        finally:
            self._let_go()

    async def carry(self) -> None:
        """Carry messages until the connection is over, from either end."""
        self._tasks = reading, writing = asyncio.create_task(self._read()), asyncio.create_task(self._write())
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            # The end may be noticed by writing first; how it came is told to who reads.
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
        finally:
            self._let_go()
            self._into.end(1006, "The connection is not carried any more.")
            self._end_sending(1006, "The connection is not carried any more.")
            await asyncio.gather(reading, writing, return_exceptions=True)

    def _let_go(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _read(self) -> None:
        """Messages of the peer, until it is gone."""
        try:
            while True:
                message = await self._transport.receive()
                self._into.put(message, len(message))
                while self._into.full:
                    self._into_room.clear()
                    await self._into_room.wait()
        except ConnectionClosed as closed:
            self._into.end(closed.code, closed.reason)
            self._end_sending(closed.code, closed.reason)

    async def _write(self) -> None:
        """Messages to the peer, and the goodbye after them."""
        with suppress(ConnectionClosed):
            while True:
                try:
                    message = await self._out.get()
                except ConnectionClosed as closed:
                    await self._transport.close(closed.code, closed.reason)
                    return
                assert isinstance(message, bytes), "what is sent is text, as UTF-8"
                await self._transport.send(message)

    def _end_sending(self, code: int, reason: str) -> None:
        self._out.end(code, reason)
        self._out_room.set()


def _wanted(header: str) -> Returning | None:
    try:
        return returning(header)
    except RemoteProtocolError as error:
        raise Refusal(REQUEST, "invalid_value", str(error)) from None


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()
