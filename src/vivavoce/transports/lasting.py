"""One unbroken stream of messages over connections that break: the same class at both ends.

Stands between a transport and whoever talks through it. Counts what is sent and received, keeps what the peer has not
confirmed, and after `attach` resends what got lost. Invariant: every message that `send` took leaves `receive` at the
other end once and in order, or the stream ends there and no later one does. `docs/explanation/resume.md` has the wire.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from vivavoce.errors import ConnectionClosed, RemoteProtocolError
from vivavoce.transports import Transport

__all__ = ["HEADER", "LEFT", "LOST", "NEW", "Lasting", "Resumption", "Returning", "greet", "returning"]

HEADER = "vivavoce-resume"
"""The header of the handshake by which a client asks for a session that outlives its connection."""
NEW = "new"
"""Its value for a new session; `Lasting.resuming` makes the one for an old session."""

LOST = frozenset({1005, 1006, 1011, 1012, 1013, 1014, 1015})
"""Close codes after which the stream goes on over another connection. Every other one ends it: somebody meant it, or it
would happen again. 1005 is among them since servers say it of a socket that is gone without a goodbye."""
LEFT = 1012
"""Close code for a connection that is given up while its stream goes on; also for one that was never attached."""
REPLACED = 4001
"""Close code for a connection in whose place another has come."""
PROTOCOL_ERROR = 1002

KEPT_MESSAGES_MAX = 4_096
"""Messages that may be unconfirmed. Beyond it `send` waits."""
KEPT_BYTES_MAX = 4 * 1024 * 1024
"""Likewise, in bytes; one message may exceed it."""
CONFIRM_MESSAGES = 256
"""So many messages are confirmed at once,"""
CONFIRM_BYTES = 256 * 1024
"""or so many bytes,"""
CONFIRM_S = 1.0
"""or whatever came in so long."""
CLOSE_S = 5.0
"""Time for the goodbye to a connection that is given up."""

TOKEN_CHARS_MAX = 128
_RETURNING = re.compile(rf"token=([!-:<-~]{{1,{TOKEN_CHARS_MAX}}}); ?received=(\d{{1,15}})", re.ASCII)

_RESUME = '{"type":"vivavoce.resume"'
_RECEIVED = '{"type":"vivavoce.received"'
_RECEIVED_CHARS = len(_RECEIVED)


# --- the handshake ----------------------------------------------------------------------------------------------------


class Resumption(msgspec.Struct, frozen=True, tag="vivavoce.resume", tag_field="type"):
    """The first message of a server that offers to resume: `received` is how many messages of the client's it has."""

    token: str
    received: int
    resumed: bool

    def encode(self) -> bytes:
        """As a message."""
        return msgspec.json.encode(self)

    def __repr__(self) -> str:
        return f"Resumption(token=…, received={self.received}, resumed={self.resumed})"


class _Received(msgspec.Struct, frozen=True, tag="vivavoce.received", tag_field="type"):
    """How many messages have arrived, from the first one of the stream on."""

    count: int


@dataclass(frozen=True, slots=True)
class Returning:
    """A client that comes back: to which session, and how many messages of the server's it has."""

    token: str
    received: int

    def __repr__(self) -> str:
        return f"Returning(token=…, received={self.received})"


def returning(header: str) -> Returning | None:
    """What the value of the header says; None for a client that is new. Raises `RemoteProtocolError`."""
    if header.strip() == NEW:
        return None
    said = _RETURNING.fullmatch(header.strip())
    if said is None:
        raise RemoteProtocolError(f"the header '{HEADER}' takes '{NEW}' or 'token=TOKEN; received=COUNT'")
    return Returning(said[1], int(said[2]))


async def greet(transport: Transport) -> Resumption | str | bytes:
    """What a connection begins with that was dialled with `HEADER`; any other first message comes back untouched.

        lasting = Lasting(lost=self._reconnect_soon)
        transport = await dial(url, headers={HEADER: NEW})
        first = await greet(transport)
        if isinstance(first, Resumption):            # from now on talk through `lasting`; keep first.token
            lasting.attach(transport, received=first.received)
        else:                                        # not offered: `first` is the first event of `transport`
            ...

    and after `lost` was called, as often as it takes:

        transport = await dial(url, headers={HEADER: lasting.resuming(token)})
        first = await greet(transport)
        if isinstance(first, Resumption) and first.resumed:
            lasting.attach(transport, received=first.received)   # nothing was lost, nothing comes twice
        else:                                        # the session is gone, this is a fresh one: `lasting.end(…)`, and
            ...                                      # a new `Lasting` for first.token, or none

    Who gives the connection up before it is attached closes it with `LEFT`: 1000 would end the session.
    Raises `ConnectionClosed`, and `RemoteProtocolError` for a greeting that cannot be read.
    """
    first = await transport.receive()
    if first[: len(_RESUME)] != _RESUME:
        return first
    try:
        return msgspec.json.decode(first, type=Resumption)
    except msgspec.DecodeError as error:
        raise RemoteProtocolError(f"vivavoce.resume: {error}") from None


# --- the stream -------------------------------------------------------------------------------------------------------


class _Link:
    """One connection of the stream, and how far writing has come on it."""

    __slots__ = ("flushing", "greeting", "is_read", "is_writing", "receive", "send", "transport", "written")

    def __init__(self, transport: Transport, written: int, greeting: bytes | None) -> None:
        self.transport = transport
        self.send = transport.send
        self.receive = transport.receive
        self.written = written
        self.greeting = greeting
        self.is_read = False
        self.is_writing = False
        self.flushing: asyncio.Task[None] | None = None


def _nobody(closed: ConnectionClosed) -> None:
    """Is told of a loss."""


class Lasting:
    """A `Transport` over successive transports, which its owner brings with `attach`.

    `lost(closed)` is called when a connection is lost, and why; from then until the next `attach` the stream is
    detached: `receive` waits, and `send` keeps messages for later, and waits where it keeps too many. Where the peer
    ends the stream (a close code that is not in `LOST`), or breaks the rules of confirmations, `ConnectionClosed` is
    raised as by any transport.

    A `send` that is cancelled while it waits for room has sent nothing. One that is cancelled later has sent its
    message; the connection below is given up then, as nobody knows whether the message is out, and the next one tells.
    """

    def __init__(self, lost: Callable[[ConnectionClosed], None] = _nobody) -> None:
        self._lost = lost
        self._link: _Link | None = None
        self._end: tuple[int, str] | None = None
        self._changed = asyncio.Event()
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        # out
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._confirmed = 0
        # in
        self._ahead: deque[str | bytes] = deque()
        self._ahead_bytes = 0
        self._taken = 0
        self._told = 0
        self._confirm_at = CONFIRM_MESSAGES
        self._owed_bytes = 0
        self._owes = False
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def is_attached(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._link is not None

    @property
    def sent(self) -> int:
        """Messages that `send` has taken since the stream began."""
        return self._confirmed + len(self._kept)

    @property
    def received(self) -> int:
        """Messages that have arrived since the stream began."""
        return self._taken + len(self._ahead)

    @property
    def unconfirmed(self) -> int:
        """Messages that are kept, since the peer has not said that it has them."""
        return len(self._kept)

    # --- connections --------------------------------------------------------------------------------------------------

    def attach(self, transport: Transport, *, received: int, greeting: bytes | None = None) -> None:
        """Go on over this connection, in place of the one before. The peer has `received` of what was sent.

        `greeting` goes out first, uncounted. Raises `RemoteProtocolError` where `received` cannot be, and
        `ConnectionClosed` where the stream has ended; then nothing has changed, and the transport is the caller's.
        """
        if self._end is not None:
            raise ConnectionClosed(*self._end)
        if not self._confirmed <= received <= self.sent:
            raise RemoteProtocolError(
                f"the peer says that it has received {received} messages; it has confirmed {self._confirmed}, and was "
                f"sent {self.sent}"
            )
        before, self._link = self._link, _Link(transport, received, greeting)
        self._let_go(received)
        self._note_told()
        if before is not None:
            self._drop(before, REPLACED, "The session goes on over another connection.")
        if greeting is not None or self._kept:
            self._flush_soon(self._link)

    def resuming(self, token: str) -> str:
        """The value of `HEADER` for the next connection. Gives up the present one, whatever it still brings."""
        link, self._link = self._link, None
        if link is not None:
            self._drop(link, LEFT, "")
        return f"token={token}; received={self.received}"

    def end(self, reason: ConnectionClosed) -> None:
        """End the stream, as where no connection comes any more. What has arrived can still be received."""
        link, self._link = self._link, None
        self._finish(reason.code, reason.reason)
        if link is not None:
            self._drop(link, LEFT, reason.reason)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the stream and its connection, after what was sent; doing it twice is harmless."""
        try:
            if self._link is not None and self._link.flushing is not None:
                await asyncio.wait((self._link.flushing,), timeout=CLOSE_S)
        except asyncio.CancelledError:
            self.end(ConnectionClosed(code, reason))
            raise
        link, self._link = self._link, None
        self._finish(code, reason)
        self._ahead.clear()
        if link is not None:
            if link.flushing is not None:
                link.flushing.cancel()
            await link.transport.close(code, reason)
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _part(self, link: _Link, closed: ConnectionClosed) -> None:
        """The connection has ended; maybe the stream has."""
        if link is not self._link:
            return
        self._link = None
        self._drop(link, LEFT, "")
        if closed.code in LOST:
            self._lost(closed)
        else:
            self._finish(closed.code, closed.reason)

    def _finish(self, code: int, reason: str) -> None:
        """Only the first end counts."""
        if self._end is None:
            self._end = (code, reason)
        self._kept.clear()
        self._kept_bytes = 0
        if self._alarm is not None:
            self._alarm.cancel()
        self._changed.set()

    def _drop(self, link: _Link, code: int, reason: str) -> None:
        """Say goodbye to a connection that does not count any more, whoever still waits in it."""
        if link.flushing is not None:
            link.flushing.cancel()
        self._spawn(_say_goodbye(link.transport, code, reason))

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- out ----------------------------------------------------------------------------------------------------------

    async def send(self, message: bytes) -> None:
        """Send one text message, UTF-8, now or over a later connection. Waits while too much is unconfirmed, or the
        peer is slow. Raises `ConnectionClosed` where the stream has ended."""
        kept = self._kept
        if self._kept_bytes >= KEPT_BYTES_MAX or len(kept) >= KEPT_MESSAGES_MAX or self._end is not None:
            await self._wait_for_room()
        kept.append(message)
        self._kept_bytes += len(message)
        link = self._link
        if link is None or link.is_writing:
            return  # whoever writes, or attaches, sends it in its turn
        link.is_writing = True
        link.written += 1
        try:
            await link.send(message)
        except ConnectionClosed as closed:
            if self._end is not None or (link is self._link and closed.code not in LOST):
                raise  # what the peer said before it went can still be received
            self._part(link, closed)
        except asyncio.CancelledError:
            self._part(link, ConnectionClosed(1006, "Sending was cancelled."))
            raise
        finally:
            link.is_writing = False
        if self._owes or link.written < self._confirmed + len(kept):
            self._flush_soon(link)

    async def _wait_for_room(self) -> None:
        """Read ahead where nobody reads: the confirmation that makes room may come after messages."""
        while self._end is None and (self._kept_bytes >= KEPT_BYTES_MAX or len(self._kept) >= KEPT_MESSAGES_MAX):
            link = self._link
            if link is None or link.is_read or self._is_far_ahead:
                await self._change()
            else:
                await self._read_ahead(link)
        if self._end is not None:
            raise ConnectionClosed(*self._end)

    @property
    def _is_far_ahead(self) -> bool:
        """Whether more was read ahead than a peer sends that keeps the limits; what is ahead, it has to keep."""
        ahead = self._ahead
        return len(ahead) > KEPT_MESSAGES_MAX or (bool(ahead) and self._ahead_bytes - len(ahead[-1]) >= KEPT_BYTES_MAX)

    def _flush_soon(self, link: _Link) -> None:
        """Write what is due on a connection, in a task of its own."""
        if link is self._link and not link.is_writing:
            link.is_writing = True
            link.flushing = self._spawn(self._flush(link))

    async def _flush(self, link: _Link) -> None:
        """The greeting; then confirmations as they are owed, and messages from where writing stands."""
        try:
            greeting, link.greeting = link.greeting, None
            if greeting is not None:
                await link.send(greeting)
            while link is self._link:
                if self._owes:
                    self._note_told()
                    await link.send(msgspec.json.encode(_Received(self._told)))
                elif link.written < self.sent:
                    message = self._kept[link.written - self._confirmed]
                    link.written += 1
                    await link.send(message)
                else:
                    return
        except ConnectionClosed as closed:
            if closed.code in LOST:
                self._part(link, closed)
        finally:
            link.is_writing = False
            link.flushing = None

    def _note_told(self) -> None:
        """The peer is being told what has arrived."""
        self._owes, self._owed_bytes, self._told = False, 0, self._taken
        self._confirm_at = self._taken + CONFIRM_MESSAGES

    def _let_go(self, count: int) -> None:
        """The peer has so many messages: they need not be kept."""
        while self._confirmed < count:
            self._kept_bytes -= len(self._kept.popleft())
            self._confirmed += 1
        self._changed.set()

    # --- in -----------------------------------------------------------------------------------------------------------

    async def receive(self) -> str | bytes:
        """The next message, whatever connection it comes over. Raises `ConnectionClosed` where the stream has ended."""
        # The way of every message: what a call more would cost here is paid a thousand times a second.
        while True:
            link = self._link
            if link is None or link.is_read or self._ahead:
                message = await self._receive_elsewhere()
            else:
                link.is_read = True
                try:
                    message = await link.receive()
                except ConnectionClosed as closed:
                    self._part(link, closed)
                    continue
                finally:
                    link.is_read = False
                    if self._waiting:
                        self._changed.set()
                if link is not self._link:
                    continue  # it came too late: the peer has been told that it is not here
                if message[:_RECEIVED_CHARS] == _RECEIVED:
                    self._take_confirmation(link, message)
                    continue
            self._taken += 1
            self._owed_bytes += len(message)
            if self._taken >= self._confirm_at or self._owed_bytes >= CONFIRM_BYTES:
                self._confirm()
            elif self._alarm is None:
                self._alarm = asyncio.get_running_loop().call_later(CONFIRM_S, self._ring)
            return message

    async def _receive_elsewhere(self) -> str | bytes:
        """The next message where it was read ahead, or is being read, or there is no connection."""
        while not self._ahead:
            link = self._link
            if link is None and self._end is not None:
                raise ConnectionClosed(*self._end)
            if link is None or link.is_read:
                await self._change()
            else:
                await self._read_ahead(link)
        message = self._ahead.popleft()
        self._ahead_bytes -= len(message)
        return message

    async def _read_ahead(self, link: _Link) -> None:
        """Read one message, for whoever receives next."""
        link.is_read = True
        try:
            message = await link.receive()
        except ConnectionClosed as closed:
            self._part(link, closed)
            return
        finally:
            link.is_read = False
            self._changed.set()
        if link is not self._link:
            return
        if message[:_RECEIVED_CHARS] == _RECEIVED:
            self._take_confirmation(link, message)
            return
        self._ahead.append(message)
        self._ahead_bytes += len(message)

    async def _change(self) -> None:
        """Wait until anything is otherwise: a connection, its reader, what is kept, the end."""
        self._changed.clear()
        self._waiting += 1
        try:
            await self._changed.wait()
        finally:
            self._waiting -= 1

    def _take_confirmation(self, link: _Link, message: str | bytes) -> None:
        try:
            count = msgspec.json.decode(message, type=_Received).count
        except msgspec.DecodeError:
            count = -1
        if 0 <= count <= link.written:
            self._let_go(count)
            return
        self._link = None
        why = f"vivavoce.received: expected a count of at most {link.written}"
        self._finish(PROTOCOL_ERROR, why)
        self._drop(link, PROTOCOL_ERROR, why)

    def _ring(self) -> None:
        self._alarm = None
        if self._taken > self._told:
            self._confirm()

    def _confirm(self) -> None:
        """Tell the peer, as soon as nobody else writes, what it need not keep any more."""
        self._owes = True
        if self._link is not None:
            self._flush_soon(self._link)


async def _say_goodbye(transport: Transport, code: int, reason: str) -> None:
    with suppress(ConnectionClosed, TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await transport.close(code, reason)
