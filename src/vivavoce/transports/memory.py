"""Two ends of a connection inside one process: for tests, simulation, and a client beside its server.

It behaves as a WebSocket does, without the network: text arrives as `str`, a slow reader makes the sender wait, and a
close is seen by the other end after the messages before it, with its code and reason. No tasks, no timers.
"""

from __future__ import annotations

import asyncio

from vivavoce.transports import Transport
from vivavoce.transports.inbox import Inbox

__all__ = ["BYTES_MAX", "MESSAGES_MAX", "pair"]

MESSAGES_MAX = 256
"""Messages that wait in one direction before the sender has to."""

BYTES_MAX = 4 * 1024 * 1024
"""Bytes that wait in one direction before the sender has to; one message may exceed it."""


class _End:
    """One end. What it receives is in its own inbox; it sends by putting into the other end's."""

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        self._room = asyncio.Event()
        self._inbox = Inbox(messages_max, bytes_max, on_room=self._room.set)
        self._peer = self

    def _join(self, peer: _End) -> None:
        self._peer = peer

    async def send(self, message: bytes) -> None:
        """Send one text message, UTF-8. Waits while the peer's inbox is full. Raises `ConnectionClosed`."""
        peer = self._peer
        text = message.decode()
        while peer._inbox.full and peer._inbox.ended is None:
            peer._room.clear()
            await peer._room.wait()
        closed = self._inbox.ended or peer._inbox.ended
        if closed is not None:
            raise closed
        peer._inbox.put(text, len(message))

    async def receive(self) -> str | bytes:
        """The next message. Raises `ConnectionClosed`: after the last message, or at once where this end closed."""
        return await self._inbox.get()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End both directions; only the first close counts."""
        self._inbox.end(code, reason, discard=True)
        self._peer._inbox.end(code, reason)
        self._room.set()
        self._peer._room.set()


def pair(*, messages_max: int = MESSAGES_MAX, bytes_max: int = BYTES_MAX) -> tuple[Transport, Transport]:
    """Two transports that are the ends of one connection. Each direction has its own limits."""
    left, right = _End(messages_max, bytes_max), _End(messages_max, bytes_max)
    left._join(right)
    right._join(left)
    return left, right
