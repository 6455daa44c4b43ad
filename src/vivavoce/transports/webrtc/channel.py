"""The data channel of a WebRTC connection as a `Transport`: whole text messages, in order.

Messages that are sent before it opens wait for it. Back-pressure is that of SCTP: who sends waits while much is on its
way. What has arrived cannot be held back at the peer, so one that sends more than is read is let go at a named limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiortc import RTCDataChannel
from aiortc.exceptions import InvalidStateError

from vivavoce.errors import ConnectionClosed, LocalProtocolError
from vivavoce.transports.inbox import Inbox

UNREAD_MESSAGES_MAX = 2_048
"""Messages that have arrived and were not read. Beyond it the connection is closed with 1008."""

UNREAD_BYTES_MAX = 16 * 1024 * 1024
"""Likewise, in bytes."""

SENDING_BYTES_MAX = 256 * 1024
"""Bytes on their way, from which on `send` waits, until half of them are sent."""

GOODBYE_S_MAX = 1.0
"""Time for what is on its way when the connection is closed from here."""


class DataChannel:
    """One end. `hang_up` ends the connection that it is a part of."""

    def __init__(self, hang_up: Callable[[], Awaitable[None]]) -> None:
        self._hang_up = hang_up
        self._inbox = Inbox(UNREAD_MESSAGES_MAX, UNREAD_BYTES_MAX, on_room=lambda: None)
        self._line: RTCDataChannel | None = None
        self._changed = asyncio.Event()
        self.is_absent = False
        """Whether the peer offered none. Then what is sent goes nowhere, and nothing comes."""
        self.opened = asyncio.Event()
        """Set when it has opened, or never will."""

    def join(self, line: RTCDataChannel) -> None:
        """This is the channel; the first one counts, whatever its label."""
        if self._line is not None:
            return
        self._line = line
        line.bufferedAmountLowThreshold = SENDING_BYTES_MAX // 2
        line.on("message", self._arrived)
        line.on("open", self._open)
        line.on("bufferedamountlow", self._changed.set)
        line.on("close", lambda: self.end(1000, "The peer has closed the data channel."))
        if line.readyState == "open":
            self._open()

    def be_absent(self) -> None:
        """There is none in this connection."""
        self.is_absent = True
        self.opened.set()

    def end(self, code: int, reason: str) -> None:
        """The connection is over. Only the first end counts."""
        self._inbox.end(code, reason)
        self.opened.set()
        self._changed.set()

    def _open(self) -> None:
        self.opened.set()

    def _arrived(self, message: str | bytes) -> None:
        if self._inbox.full:
            self.end(1008, "The peer sends more than is read.")
            return
        self._inbox.put(message, len(message))

    async def send(self, message: bytes) -> None:
        """Send one text message, UTF-8. Waits until the channel is open, and while much is on its way.

        Raises `ConnectionClosed`, and `LocalProtocolError` where the message is longer than the peer takes.
        """
        await self.opened.wait()
        if self.is_absent and self._inbox.ended is None:
            return
        while self._inbox.ended is None and self._line is not None and self._line.bufferedAmount > SENDING_BYTES_MAX:
            self._changed.clear()
            await self._changed.wait()
        if self._inbox.ended is not None:
            raise self._inbox.ended
        assert self._line is not None
        try:
            self._line.send(message.decode())
        except InvalidStateError:
            raise ConnectionClosed(1006, "The data channel is closed.") from None
        except ValueError as error:
            raise LocalProtocolError(f"The peer does not take messages of {len(message)} bytes.") from error

    async def receive(self) -> str | bytes:
        """The next message. Raises `ConnectionClosed` at the end."""
        return await self._inbox.get()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the whole connection, after what was sent; doing it twice is harmless. The peer learns no code."""
        if self._inbox.ended is None and self._line is not None:
            await self._drain()
        self.end(code, reason)
        await self._hang_up()

    async def _drain(self) -> None:
        assert self._line is not None
        self._line.bufferedAmountLowThreshold = 0
        try:
            async with asyncio.timeout(GOODBYE_S_MAX):
                while self._line.bufferedAmount and self._line.readyState == "open" and self._inbox.ended is None:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return
