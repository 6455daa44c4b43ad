"""The machine's cores, lent to engines: who computes next when more wants to than can.

Engines compute in threads of their own. Before a thread begins it needs a place, and there are as many places as cores,
so that what somebody waits for in silence never shares a core with what could wait. Within an urgency, first come,
first served. Invariants: no more places are lent than there are; a place comes back when its thread has ended, not when
nobody waits for it any more; whoever waits is passed over a bounded number of times.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from enum import IntEnum
from typing import Protocol, TypeVar, runtime_checkable

from vivavoce.errors import EngineError

__all__ = ["URGENCY", "Cores", "SharesCores", "ThreadShare", "Urgency", "core_count"]

WAITING_MAX = 256
"""Calls that wait for a place; more are refused."""

T = TypeVar("T")


class Urgency(IntEnum):
    """How soon a result is missed."""

    NOW = 0
    """Somebody waits in silence: the text of a turn that has ended, the first phrase of an answer."""
    SOON = 1
    """What an answer that is being heard goes on with."""
    SPARE = 2
    """What is done ahead and may be in vain: drafts of a turn that is still spoken, a prompt that is being prepared."""


PASSED_MAX = {Urgency.SOON: 4, Urgency.SPARE: 16}
"""After more urgent work has been preferred so often, the first of the less urgent is next."""

URGENCY: ContextVar[Urgency] = ContextVar("urgency", default=Urgency.NOW)
"""How urgent what the current task asks of an engine is, where the engine itself cannot know."""


def core_count() -> int:
    """Cores that this process may use, and at least two: on a single one, speech and text have to take turns."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        usable = os.cpu_count() or 1
    return max(usable, 2)


@runtime_checkable
class SharesCores(Protocol):
    """An engine that computes in this process, and does it on cores that others use too."""

    def share(self, cores: Cores) -> None:
        """Use these cores. Called before `warm_up`."""
        ...


class _Place:
    """One place, waited for or lent. Touched under the lock of its `Cores` only."""

    def __init__(self, share: ThreadShare, urgency: Urgency) -> None:
        self.share = share
        self.urgency = urgency
        self.loop = asyncio.get_running_loop()
        self.granted: asyncio.Future[None] = self.loop.create_future()
        self.is_lent = False
        self.has_begun = False
        self.is_over = False


class Cores:
    """So many places. Waited for on event loops; threads give them back. Work ahead leaves one place to the rest."""

    def __init__(self, count: int | None = None) -> None:
        self.count = core_count() if count is None else count
        if self.count < 1:
            raise ValueError(f"count: at least one core, not {count}")
        self._free = self.count
        self._ahead = 0
        """Places that are lent to work ahead."""
        self._waiting: dict[Urgency, deque[_Place]] = {urgency: deque() for urgency in Urgency}
        self._passed = dict.fromkeys(Urgency, 0)
        self._lock = threading.Lock()

    def share(self, name: str, most: int, *, is_one: bool = False) -> ThreadShare:
        """For an engine that computes `most` things at once; `is_one`: all of them together on one core."""
        return ThreadShare(self, name, most, is_one=is_one)

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return sum(map(len, self._waiting.values()))

    async def take(self, share: ThreadShare, urgency: Urgency) -> _Place:
        """Wait for a place. Raises `EngineError` (`engine_busy`) where too many wait."""
        place = _Place(share, urgency)
        with self._lock:
            if self.waiting >= WAITING_MAX:
                raise EngineError(f"{share.name}: {WAITING_MAX} calls are waiting for a core", code="engine_busy")
            self._waiting[urgency].append(place)
            self._lend()
        if not place.is_lent:
            try:
                await place.granted
            except asyncio.CancelledError:
                self.give_back(place)
                raise
        return place

    def begin(self, place: _Place) -> bool:
        """In the thread: whether anybody still wants it. From now on the thread gives the place back."""
        with self._lock:
            place.has_begun = not place.is_over
            return place.has_begun

    def give_back(self, place: _Place, *, unless_begun: bool = False) -> None:
        """From any thread; harmless if done twice, or for a place that is still waited for."""
        with self._lock:
            if place.is_over or (unless_begun and place.has_begun):
                return
            place.is_over = True
            if place.is_lent:
                self._free_up(place)
            else:
                self._waiting[place.urgency].remove(place)
            self._lend()

    # --- under the lock -----------------------------------------------------------------------------------------------

    def _lend(self) -> None:
        """Lend what is free, to whom it is due."""
        while (place := self._next()) is not None:
            self._waiting[place.urgency].remove(place)
            self._free -= place.share.cost
            self._ahead += place.urgency is Urgency.SPARE
            place.share.running += 1
            place.is_lent = True
            try:
                place.loop.call_soon_threadsafe(_wake, place.granted)
            except RuntimeError:  # its event loop is closed, so nobody is left to use it
                place.is_over = True
                self._free_up(place)

    def _free_up(self, place: _Place) -> None:
        self._ahead -= place.urgency is Urgency.SPARE
        place.share.running -= 1
        self._free += place.share.cost

    def _next(self) -> _Place | None:
        """The first of the most urgent that fits, or of those that were passed over often enough."""
        fitting = [first for waiting in self._waiting.values() if (first := self._first(waiting)) is not None]
        if not fitting:
            return None
        overdue = [place for place in fitting[1:] if self._passed[place.urgency] >= PASSED_MAX[place.urgency]]
        chosen = overdue[-1] if overdue else fitting[0]
        self._passed[chosen.urgency] = 0
        for place in fitting:
            self._passed[place.urgency] += place.urgency > chosen.urgency
        return chosen

    def _first(self, waiting: deque[_Place]) -> _Place | None:
        for place in waiting:
            share, is_ahead = place.share, place.urgency is Urgency.SPARE
            if is_ahead and self._ahead >= max(1, self.count - 1):
                return None
            if share.running < share.most and share.cost <= self._free:
                return place
        return None


class ThreadShare:
    """One engine's threads: `most` of them, each of which runs only while it has a place.

    `is_one`: they wait for something that computes for all of them together on one core, and have one place together.
    """

    def __init__(self, cores: Cores, name: str, most: int, *, is_one: bool = False) -> None:
        self.name, self.most, self.is_one = name, most, is_one
        self.running = 0
        """Places lent to it; kept by the `Cores`."""
        self._cores = cores
        self._threads = ThreadPoolExecutor(most, thread_name_prefix=name)

    @property
    def cost(self) -> int:
        """Places that one more takes, or that one fewer frees."""
        return 0 if self.is_one and self.running else 1

    async def run(self, urgency: Urgency, function: Callable[..., T], *arguments: object) -> T:
        """What the function gives, called in a thread once there is a place.

        A cancelled call that waits leaves the queue; one that runs goes on to its end, and so long keeps its place.
        Raises what the function raises, and `EngineError` where too many wait (`engine_busy`) or after `close`.
        """
        place = await self._cores.take(self, urgency)

        def call() -> T:
            if not self._cores.begin(place):
                raise asyncio.CancelledError
            try:
                return function(*arguments)
            finally:
                self._cores.give_back(place)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except RuntimeError as error:
            if place.has_begun:
                raise
            raise EngineError(f"{self.name}: closed", code="engine_not_ready") from error
        finally:
            self._cores.give_back(place, unless_begun=True)

    async def close(self) -> None:
        """Wait for the threads; what is still waiting for a place fails."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)


def _wake(granted: asyncio.Future[None]) -> None:
    if not granted.done():
        granted.set_result(None)
