"""The two ends of a relayed session, each one connection: a picows socket, or any `Transport` such as ASGI's.

A leg hands every message to what it was joined to, at once and in the caller's stack, and sends without waiting; when
more waits to be sent than may, it says so, and the other leg is not read until that has gone. So nothing is queued here
but what one read of a socket brings. Invariants: order is kept, `over` comes once and last, and a leg that was closed
has let its socket go after `CLOSE_S_MAX`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol

from picows import WSCloseCode, WSError, WSFrame, WSListener, WSMsgType, WSTransport

from vivavoce.errors import ConnectionClosed
from vivavoce.transports import Transport

CLOSE_S_MAX = 5.0
"""Time for the closing handshake, and for what was sent before it to leave. Then the connection is dropped."""
WRITE_BUFFER_BYTES_MAX = 256 * 1024
"""What may wait to be sent; beyond it the other leg is not read until a quarter is left."""
EARLY_MESSAGES_MAX = 1_024
"""What may come before a leg is joined. Beyond it the connection ends with 1008."""
REASON_BYTES_MAX = 123

NO_CODE, LOST = 1005, 1006

Message = memoryview | bytes
"""Text as UTF-8; good only during the call."""

_TEXT, _BINARY, _CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION
_CLOSE, _PING, _PONG = WSMsgType.CLOSE, WSMsgType.PING, WSMsgType.PONG


class Ear(NamedTuple):
    """What a leg tells."""

    take: Callable[[Message], None]
    """A text message has come."""
    over: Callable[[int, str], None]
    """The other end has closed, with this code and reason; 1005 is none, 1006 is a lost connection."""
    full: Callable[[bool], None]
    """More waits to be sent than may; or no longer."""


class Leg(Protocol):
    """One connection of a relayed session."""

    def send(self, message: memoryview | bytes) -> None:
        """Send text, UTF-8, at once. After the end it does nothing."""
        ...

    def hold(self, is_held: bool) -> None:
        """Stop reading, or go on."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Say goodbye after everything that was sent. Only the first time counts."""
        ...


class SocketLeg(WSListener):
    """A leg over picows, of either side. Not read until it is joined."""

    def __init__(self, message_bytes_max: int) -> None:
        self.has_heard = False
        self._message_bytes_max = message_bytes_max
        self._ear: Ear | None = None
        self._early: deque[bytes] = deque()
        self._end: tuple[int, str] | None = None
        self._fragments = bytearray()
        self._is_gathering = False
        self._is_held = True
        self._is_full = False
        self._is_closing = False
        self._drop: asyncio.TimerHandle | None = None
        self._settling: asyncio.Task[None] | None = None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the socket is gone."""

    @property
    def is_held_back(self) -> bool:
        """Whether the peer is not read."""
        return self._is_held

    def join(self, ear: Ear) -> None:
        """Tell this one from now on; what came before, at once."""
        self._ear = ear
        while self._early and self._ear is not None:
            ear.take(self._early.popleft())
        if self._is_full:
            ear.full(True)
        if self._end is not None:
            ear.over(*self._end)
        else:
            self.hold(False)

    # --- what the relay does ------------------------------------------------------------------------------------------

    def send(self, message: memoryview | bytes) -> None:
        """See `Leg`."""
        if not self._is_closing:
            self._transport.send(_TEXT, message)

    def hold(self, is_held: bool) -> None:
        """See `Leg`. While it is held nobody can tell whether the peer lives."""
        if is_held == self._is_held or self._is_closing or self._end is not None:
            return
        self._is_held = is_held
        if is_held:
            self._transport.underlying_transport.pause_reading()
            self._transport.notify_user_specific_pong_received()
        else:
            self._transport.underlying_transport.resume_reading()

    def close(self, code: int, reason: str) -> None:
        """See `Leg`. 1005 is carried as a close without code."""
        if self._is_closing:
            return
        self._is_closing = True
        self._ear, self._end = None, self._end or (code, reason)
        if self._is_held:
            self._transport.underlying_transport.resume_reading()
        self._say_goodbye(code, reason)
        self._drop = asyncio.get_running_loop().call_later(CLOSE_S_MAX, self._let_go)

    def give_up(self, code: int, reason: str) -> None:
        """Close at once: nobody answers there, or the server stops. To whom it is joined the connection is lost."""
        self._over(LOST, "")
        self.close(code, reason)
        self._let_go()

    # --- called by picows; nothing here may raise ---------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done."""
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        transport.underlying_transport.pause_reading()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Messages to whom they are for; fragments are joined before."""
        kind, self.has_heard = frame.msg_type, True
        is_plain = not (frame.rsv1 or frame.rsv2 or frame.rsv3)
        if kind is _TEXT and frame.fin and is_plain and not self._is_gathering and self._ear is not None:
            self._ear.take(frame.get_payload_as_memoryview())  # which nearly all of them are
        elif kind is _CLOSE:
            self._goodbye(frame)
        elif kind is _PONG or self._end is not None:
            return
        elif kind is _PING:
            self._answer(frame)
        elif not is_plain:
            self._give_up(1002, "frame uses an extension that was not agreed upon")
        elif kind is _BINARY or (kind is _CONTINUATION) != self._is_gathering:
            self._give_up(1003 if kind is _BINARY else 1002, "the Realtime API speaks text, in whole messages")
        else:
            self._gather(frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The socket is gone."""
        if self._drop is not None:
            self._drop.cancel()
        sent = transport.close_handshake.sent if transport.close_handshake else None
        if sent is not None and sent.code is WSCloseCode.MESSAGE_TOO_BIG:
            self._over(1009, f"message exceeds {self._message_bytes_max} bytes")
        self._over(LOST, "")
        self._is_closing = True
        if transport.is_client_side:
            # picows keeps the error that made it disconnect for whoever waits; unfetched, asyncio would complain.
            self._settling = asyncio.get_running_loop().create_task(_settle(transport))
        if not self.gone.done():
            self.gone.set_result(None)

    def send_user_specific_ping(self, transport: WSTransport) -> None:
        """Ping, unless we do not listen: then silence says nothing about the peer."""
        if self._is_held:
            asyncio.get_running_loop().call_soon(transport.notify_user_specific_pong_received)
        else:
            transport.send_ping()

    def pause_writing(self) -> None:
        """More waits than may."""
        self._tell_full(True)

    def resume_writing(self) -> None:
        """It has gone."""
        self._tell_full(False)

    # --- leaves -------------------------------------------------------------------------------------------------------

    def _tell_full(self, is_full: bool) -> None:
        self._is_full = is_full
        if self._ear is not None:
            self._ear.full(is_full)

    def _gather(self, frame: WSFrame) -> None:
        self._fragments += frame.get_payload_as_memoryview()
        self._is_gathering = not frame.fin
        if len(self._fragments) > self._message_bytes_max:
            self._give_up(1009, f"message exceeds {self._message_bytes_max} bytes")
        elif frame.fin:
            message = bytes(self._fragments)
            self._fragments.clear()
            if self._ear is not None:
                self._ear.take(message)
            elif len(self._early) < EARLY_MESSAGES_MAX:
                self._early.append(message)
            else:
                self._give_up(1008, "too many messages before the session began")

    def _answer(self, ping: WSFrame) -> None:
        """The pong, where picows leaves it to us: none for a peer that does not read what it has been sent already."""
        if not self._is_full:
            self._transport.send_pong(ping.get_payload_as_bytes())

    def _goodbye(self, frame: WSFrame) -> None:
        """The peer closes, or answers our close."""
        code = frame.get_close_code()
        number = NO_CODE if code is WSCloseCode.NO_INFO else code.value
        if not self._is_closing:
            self._is_closing = True
            self._say_goodbye(number, "")
            self._drop = asyncio.get_running_loop().call_later(CLOSE_S_MAX, self._let_go)
            self._over(number, frame.get_close_reason() or "")
        self._transport.disconnect()

    def _give_up(self, code: int, reason: str) -> None:
        """The peer broke the rules."""
        ear = self._ear
        self.close(code, reason)
        if ear is not None:
            ear.over(code, reason)

    def _over(self, code: int, reason: str) -> None:
        """Only the first end counts."""
        if self._end is None:
            self._end, ear, self._ear = (code, reason), self._ear, None
            if ear is not None:
                ear.over(code, reason)

    def _say_goodbye(self, code: int, reason: str) -> None:
        if code == NO_CODE:
            self._transport.send(_CLOSE, None)
        else:
            self._transport.send_close(WSCloseCode(code), cut(reason).encode())

    def _let_go(self) -> None:
        self._transport.disconnect(graceful=False)


class TransportLeg:
    """A leg over any transport, for servers that are not ours. `run` carries it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._ear: Ear | None = None
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._is_full = False
        self._close: tuple[int, str] | None = None
        self._is_over = False
        self._stirred = asyncio.Event()
        self._may_read = asyncio.Event()
        self._patience: asyncio.Timeout | None = None

    def join(self, ear: Ear) -> None:
        """Tell this one from now on."""
        self._ear = ear
        self._may_read.set()

    async def run(self) -> None:
        """Carry messages until the connection has ended."""
        reading = asyncio.create_task(self._read(), name="reading of a leg")
        try:
            async with asyncio.timeout(None) as self._patience:
                await self._write()
        except ConnectionClosed as closed:
            self._over(closed.code, closed.reason)
        except TimeoutError:  # it was closed, and takes nothing
            self._over(LOST, "")
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    def send(self, message: memoryview | bytes) -> None:
        """See `Leg`."""
        if self._close is not None or self._is_over:
            return
        self._waiting.append(bytes(message))
        self._bytes += len(message)
        self._stirred.set()
        if self._bytes > WRITE_BUFFER_BYTES_MAX:
            self._tell_full(True)

    def hold(self, is_held: bool) -> None:
        """See `Leg`."""
        if is_held:
            self._may_read.clear()
        else:
            self._may_read.set()

    def close(self, code: int, reason: str) -> None:
        """See `Leg`. What has no code, or one that cannot be sent, is 1000."""
        if self._close is None:
            self._close = (1000 if code == NO_CODE else code, cut(reason))
            self._ear = None
            self._stirred.set()
            self._hurry()

    async def _read(self) -> None:
        try:
            while True:
                await self._may_read.wait()
                message = await self._transport.receive()
                if self._ear is None:
                    continue
                if isinstance(message, bytes):
                    self._refuse_binary()
                else:
                    self._ear.take(message.encode(errors="surrogatepass"))
        except ConnectionClosed as closed:
            self._over(closed.code, closed.reason)

    def _refuse_binary(self) -> None:
        ear, reason = self._ear, "the Realtime API speaks text, in whole messages"
        self.close(1003, reason)
        if ear is not None:
            ear.over(1003, reason)

    async def _write(self) -> None:
        while not self._is_over:
            while self._waiting:
                message = self._waiting.popleft()
                self._bytes -= len(message)
                await self._transport.send(message)
                if self._is_full and self._bytes <= WRITE_BUFFER_BYTES_MAX // 4:
                    self._tell_full(False)
            if self._close is not None:
                await self._transport.close(*self._close)
                return
            self._stirred.clear()
            await self._stirred.wait()

    def _tell_full(self, is_full: bool) -> None:
        if self._is_full != is_full:
            self._is_full = is_full
            if self._ear is not None:
                self._ear.full(is_full)

    def _over(self, code: int, reason: str) -> None:
        if not self._is_over:
            self._is_over, ear, self._ear = True, self._ear, None
            self._stirred.set()
            self._hurry()
            if ear is not None:
                ear.over(code, reason)

    def _hurry(self) -> None:
        if self._patience is not None and self._patience.when() is None:
            self._patience.reschedule(asyncio.get_running_loop().time() + CLOSE_S_MAX)


def cut(reason: str) -> str:
    """The longest beginning of a reason that fits into a close frame (RFC 6455 section 5.5)."""
    return reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore")


async def _settle(transport: WSTransport) -> None:
    with suppress(WSError, OSError):
        await transport.wait_disconnected()
