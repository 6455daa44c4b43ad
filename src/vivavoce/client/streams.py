"""Events on their way to a task that iterates: a queue in which what was put without a reader is bounded.

One side puts, synchronously; the other awaits. Invariant: events leave in the order they came, and the end after them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Stream(Generic[T]):
    """Events in order. `put` never waits; `is_full` says that whoever puts should hold back, where it can.

    As long as nobody reads, the oldest are dropped beyond `events_max`; `dropped` counts them.
    """

    def __init__(self, events_max: int, on_wait: Callable[[], None] = lambda: None) -> None:
        self._events_max = events_max
        self._on_wait = on_wait
        self._events: deque[T] = deque()
        self._end: BaseException | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._room: asyncio.Future[None] | None = None
        self.is_read = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def is_full(self) -> bool:
        """Whether a reader is behind by all that the stream should hold."""
        return self.is_read and len(self._events) >= self._events_max

    def put(self, event: T) -> None:
        """Add an event."""
        self._events.append(event)
        if self._waiters:
            self._wake()
        elif not self.is_read and len(self._events) > self._events_max:
            self._events.popleft()
            self.dropped += 1

    def end(self, error: BaseException) -> None:
        """Nothing comes any more; after the last event readers get `error`."""
        self._end = self._end or error
        self._wake()

    @property
    def oldest(self) -> T | None:
        """The next event to be taken, which is the same until somebody reads."""
        return self._events[0] if self._events else None

    def leave(self) -> None:
        """Nobody reads any more, until somebody calls `get` again."""
        self.is_read = False
        self.release()
        while len(self._events) > self._events_max:
            self._events.popleft()
            self.dropped += 1

    def get_nowait(self) -> T | None:
        """The next event, where one is there and nobody waits for room; None does not mean that there is none."""
        return self._events.popleft() if self._events and self._room is None and self.is_read else None

    async def get(self) -> T:
        """The next event; waits for it. Raises what `end` was given, after the last one."""
        self.is_read = True
        while not self._events:
            if self._end is not None:
                raise self._end
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            self._on_wait()
            try:
                await waiter
            finally:
                if waiter in self._waiters:  # it was cancelled
                    self._waiters.remove(waiter)
        event = self._events.popleft()
        if self._room is not None and len(self._events) <= self._events_max // 2:
            self.release()
        return event

    @property
    def is_waited_for(self) -> bool:
        """Whether a reader waits for the next event."""
        return any(not waiter.done() for waiter in self._waiters)

    async def room(self) -> None:
        """Wait until the reader has caught up by half."""
        if self._room is None:
            self._room = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._room)

    def release(self) -> None:
        """Let whoever waits for room go on, room or not."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
