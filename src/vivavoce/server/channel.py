"""A queue between tasks that is bounded in bytes: the inbox and the outbox of a session.

Whoever puts waits while the channel is full; that is how back-pressure travels from a slow peer to the engines. Several
tasks may put, one gets, or has a message handed to it in the moment in which it is put. Invariants: order is that of
the putting, one message at a time; what is held exceeds `bytes_max` by one message at most; nobody waits on a channel
that has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

from vivavoce.errors import ConnectionClosed

T = TypeVar("T")

Rest = Callable[[], Awaitable[None]]
"""What is left to be done about a message that was handed over."""

IN_A_ROW_MAX = 32
"""Messages that are handed over without a turn of the event loop. The next waits for one, so that nobody hogs it."""


class Channel(Generic[T]):
    """Messages in order: at most `messages_max`, and no more are let in once they weigh `bytes_max` together.

    With `at_once`, a message that is put or offered while somebody waits in `get`, with nothing before it, is given to
    that instead, by whoever brings it. A `Rest` that it returns is done in `get`, before whatever comes later; what it
    raises is raised there.
    """

    def __init__(self, *, bytes_max: int, messages_max: int, at_once: Callable[[T], Rest | None] | None = None) -> None:
        self.bytes_max = bytes_max
        self.messages_max = messages_max
        self.bytes = 0
        # Lists, since these are mostly empty, and an empty deque takes 600 bytes.
        self._messages: list[tuple[T, int]] = []
        self._waiting: list[tuple[asyncio.Future[bool], T, int]] = []
        self._getter: asyncio.Future[None] | None = None
        self._at_once = at_once
        self._handed_over = 0
        self._rest: Rest | None = None
        self._end: ConnectionClosed | None = None
        self.has_ended = False
        """Whether nothing is taken any more."""

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def is_full(self) -> bool:
        """Whether a message would have to wait."""
        return self.bytes >= self.bytes_max or len(self._messages) >= self.messages_max

    def offer(self, message: T, size: int) -> bool:
        """Put at once where there is room and nobody waits; say whether. Raises `ConnectionClosed` after the end."""
        if self._end is not None:
            raise self._end
        getter = self._getter
        if self._at_once is not None and getter is not None and not getter.done() and self._handed_over < IN_A_ROW_MAX:
            # Who waits has nothing else to get. While he looks at this one nobody waits: what comes is put behind it.
            self._getter = None
            self._handed_over += 1
            try:
                self._rest = self._at_once(message)
            except Exception as error:
                self._rest = partial(_raise, error)
            self._getter = getter
            if self._rest is not None or self._messages or self._end is not None:
                self._rouse()
            return True
        if self._waiting or self.is_full:
            return False
        self._add(message, size)
        return True

    async def put(self, message: T, size: int = 0) -> None:
        """Put when there is room. Raises `ConnectionClosed` after the end."""
        if self.offer(message, size):
            return
        admitted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((admitted, message, size))
        if not await admitted and self._end is not None:
            raise self._end

    def push(self, message: T, size: int = 0) -> None:
        """Put at once, room or not: for the few messages that the owner itself has to say.

        It is never handed over: who says it may be in the midst of something.
        """
        if self._end is None:
            self._add(message, size)

    async def get(self) -> T:
        """The next message. Raises `ConnectionClosed` after the end, also where messages are left."""
        while not self._messages and self._end is None:
            self._getter = asyncio.get_running_loop().create_future()
            try:
                await self._getter
            finally:
                self._getter = None
            self._handed_over = 0
            if (rest := self._rest) is not None:
                self._rest = None
                await rest()
        if self._end is not None:
            raise self._end
        message, size = self._messages.pop(0)
        self.bytes -= size
        if self._waiting:
            self._admit()
        return message

    def end(self, reason: ConnectionClosed) -> None:
        """Let go of everything; whoever waits or comes later gets `reason`. Doing it twice is harmless."""
        if self._end is not None:
            return
        self._end, self.has_ended = reason, True
        self._messages.clear()
        self.bytes = 0
        for admitted, _, _ in self._waiting:
            if not admitted.done():
                admitted.set_result(False)
        self._waiting.clear()
        self._rouse()

    def _admit(self) -> None:
        while self._waiting and not self.is_full:
            admitted, message, size = self._waiting.pop(0)
            if not admitted.done():
                self._add(message, size)
                admitted.set_result(True)

    def _add(self, message: T, size: int) -> None:
        self._messages.append((message, size))
        self.bytes += size
        self._rouse()

    def _rouse(self) -> None:
        if self._getter is not None and not self._getter.done():
            self._getter.set_result(None)


async def _raise(error: Exception) -> None:
    raise error
