"""Messages that have arrived and wait to be read: the bounded queue inside a transport.

The transport puts messages in as they come; `receive` takes them out. When the inbox is `full` the transport must hold
back its peer, and `on_room` tells it when to go on: at half the limits, not at every message.
Invariant: messages leave in the order they came, and the end comes after them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from vivavoce.errors import ConnectionClosed

__all__ = ["Inbox", "Sink"]

Sink = Callable[[str | bytes], bool]
"""Takes a message at once; says whether it wants another."""


class Inbox:
    """A queue of messages, full at `messages_max` messages or `bytes_max` bytes, whichever comes first.

    It takes what is put into it even when full: a message that has arrived cannot be sent back.
    """

    def __init__(self, messages_max: int, bytes_max: int, on_room: Callable[[], None]) -> None:
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._on_room = on_room
        self._messages: list[tuple[str | bytes, int]] = []  # mostly empty, and an empty deque takes 600 bytes
        self._bytes = 0
        self._end: tuple[int, str] | None = None
        self._changed: asyncio.Event | None = None
        """For who waits in `get`, once somebody has; an event takes 800 bytes."""
        self._sink: Sink | None = None
        self._forwarding: asyncio.Future[None] | None = None
        self.full = False

    def put(self, message: str | bytes, size_bytes: int) -> None:
        """Add a message; after the end it is dropped."""
        if self._end is not None:
            return
        if self._sink is not None:
            try:
                if self._sink(message):
                    return
            except Exception as error:  # whoever puts must not suffer from it
                self._stop_forwarding(error)
            else:
                self._stop_forwarding(None)
            return
        self._messages.append((message, size_bytes))
        self._bytes += size_bytes
        self.full = self.full or len(self._messages) >= self._messages_max or self._bytes >= self._bytes_max
        if self._changed is not None:
            self._changed.set()

    def end(self, code: int, reason: str, *, discard: bool = False) -> None:
        """No more messages. With `discard`, those not yet read are dropped too. Only the first end counts."""
        if self._end is None:
            self._end = (code, reason)
        if discard:
            self._messages.clear()
            self._bytes = 0
        if self._changed is not None:
            self._changed.set()
        if self._forwarding is not None and not self._forwarding.done():
            self._forwarding.set_result(None)

    @property
    def ended(self) -> ConnectionClosed | None:
        """A fresh exception that says how the connection ended; None while it has not."""
        return ConnectionClosed(*self._end) if self._end is not None else None

    async def forward(self, sink: Sink) -> None:
        """Hand every message to `sink`, those that come at once as they come, until it returns False.

        Saves a turn of the event loop for every message. Raises `ConnectionClosed` after the last one, and what `sink`
        raises.
        """
        while self._messages:
            if not sink(self._take()):
                return
        if self.ended is None:
            self._sink, self._forwarding = sink, asyncio.get_running_loop().create_future()
            try:
                await self._forwarding
            finally:
                self._sink = self._forwarding = None
        if self.ended is not None and not self._messages:
            raise self.ended

    def _stop_forwarding(self, error: Exception | None) -> None:
        """The sink has enough, or has failed."""
        self._sink = None
        if self._forwarding is not None and not self._forwarding.done():
            if error is None:
                self._forwarding.set_result(None)
            else:
                self._forwarding.set_exception(error)

    async def get(self) -> str | bytes:
        """The next message; waits for it. Raises `ConnectionClosed` after the last one."""
        while not self._messages:
            if self.ended is not None:
                raise self.ended
            self._changed = self._changed or asyncio.Event()
            self._changed.clear()
            await self._changed.wait()
        return self._take()

    def _take(self) -> str | bytes:
        message, size_bytes = self._messages.pop(0)
        self._bytes -= size_bytes
        if self.full and len(self._messages) <= self._messages_max // 2 and self._bytes <= self._bytes_max // 2:
            self.full = False
            self._on_room()
        return message
