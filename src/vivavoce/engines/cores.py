"""The machine's cores, lent to engines: who computes next when more wants to than can.

Engines compute in threads of their own. Before a thread begins it needs a place, and there are as many places as cores,
so that what somebody waits for in silence never shares a core with what could wait. The earliest deadline is the first:
the moment at which what a listener hears next has to be begun, or so long after the asking as its urgency says. No
thread can be stopped, and some take a second: what a listener would miss does not wait for them any longer than that
moment, but shares the cores. Invariants: no more places are lent than there are, and `LATE_MAX` for what is late; a
place comes back when its thread has ended, not when nobody waits for it any more; whoever waits is passed only by what
is due before.
"""

from __future__ import annotations

import asyncio
import os
import threading
from bisect import insort
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from enum import IntEnum
from typing import Protocol, TypeVar, runtime_checkable

from vivavoce.errors import EngineError

__all__ = ["DUE", "URGENCY", "Cores", "SharesCores", "ThreadShare", "Urgency", "core_count"]

WAITING_MAX = 256
"""Calls that wait for a place; more are refused."""

LATE_MAX = 1
"""Places beyond the cores, for what would be missed in the midst of an answer."""

EARLY_S = 0.002
"""A timer may ring a moment before its time, by rounding; late enough is late."""

T = TypeVar("T")


class Urgency(IntEnum):
    """How soon a result is missed."""

    NOW = 0
    """Somebody waits in silence: the text of a turn that has ended, the first phrase of an answer."""
    SOON = 1
    """What an answer that is being heard goes on with."""
    SPARE = 2
    """What is done ahead and may be in vain: drafts of a turn that is still spoken, a prompt that is being prepared."""


WITHIN_S = {Urgency.NOW: 0.5, Urgency.SOON: 2.0, Urgency.SPARE: 30.0}
"""How long after it was asked for a result is due, where nobody knows better. Those who wait in silence wait so much
longer rather than that an answer which is being heard has a gap."""

URGENCY: ContextVar[Urgency] = ContextVar("urgency", default=Urgency.NOW)
"""How urgent what the current task asks of an engine is, where the engine itself cannot know."""

DUE: ContextVar[float | None] = ContextVar("due", default=None)
"""When what the current task asks of an engine has to be begun, or a listener runs out of sound; on the clock of the
event loop, in seconds. None: as its urgency says. Work ahead has no other deadline than that."""


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
        due = None if urgency is Urgency.SPARE else DUE.get()
        self.is_heard = due is not None
        """Whether a listener is in the midst of what it belongs to."""
        self.due = self.loop.time() + WITHIN_S[urgency] if due is None else due
        self.granted: asyncio.Future[None] = self.loop.create_future()
        self.is_lent = False
        self.has_begun = False
        self.is_over = False

    @property
    def beyond(self) -> int:
        """How many places beyond the cores it may take now."""
        return LATE_MAX if self.is_heard and self.loop.time() + EARLY_S >= self.due else 0


class Cores:
    """So many places. Waited for on event loops; threads give them back. Work ahead leaves one place to the rest."""

    def __init__(self, count: int | None = None) -> None:
        self.count = core_count() if count is None else count
        if self.count < 1:
            raise ValueError(f"count: at least one core, not {count}")
        self._free = self.count
        self._ahead = 0
        """Places that are lent to work ahead."""
        self._waiting: list[_Place] = []
        """By deadline."""
        self._lock = threading.Lock()

    def share(self, name: str, most: int, *, is_one: bool = False) -> ThreadShare:
        """For an engine that computes `most` things at once; `is_one`: all of them together on one core."""
        return ThreadShare(self, name, most, is_one=is_one)

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return len(self._waiting)

    @property
    def are_idle(self) -> bool:
        """Whether nobody computes, and so nobody waits."""
        return self._free == self.count

    async def take(self, share: ThreadShare, urgency: Urgency) -> _Place:
        """Wait for a place. Raises `EngineError` (`engine_busy`) where too many wait."""
        place = _Place(share, urgency)
        with self._lock:
            if self.waiting >= WAITING_MAX:
                raise EngineError(f"{share.name}: {WAITING_MAX} calls are waiting for a core", code="engine_busy")
            insort(self._waiting, place, key=_due)
            self._lend()
        if not place.is_lent:
            late = place.loop.call_at(place.due, self._look) if place.is_heard else None
            try:
                await place.granted
            except asyncio.CancelledError:
                self.give_back(place)
                raise
            finally:
                if late is not None:
                    late.cancel()
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
                self._waiting.remove(place)
            self._lend()

    def allow(self, share: ThreadShare, most: int) -> None:
        """From any thread: the engine computes `most` things at once from now on; what runs already goes on."""
        with self._lock:
            share.most = most
            self._lend()

    def _look(self) -> None:
        """Something is late."""
        with self._lock:
            self._lend()

    # --- under the lock -----------------------------------------------------------------------------------------------

    def _lend(self) -> None:
        """Lend what is free, to whom it is due."""
        while (place := self._next()) is not None:
            self._waiting.remove(place)
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
        """The first of those that fit."""
        leaves_one = self._ahead >= max(1, self.count - 1)
        for place in self._waiting:
            share = place.share
            if place.urgency is Urgency.SPARE and leaves_one:
                continue
            if share.running < share.most and share.cost <= self._free + place.beyond:
                return place
        return None


class ThreadShare:
    """One engine's threads: `most` of them at once, each of which runs only while it has a place.

    `is_one`: they wait for something that computes for all of them together on one core, and have one place together.
    """

    def __init__(self, cores: Cores, name: str, most: int, *, is_one: bool = False) -> None:
        self.name, self.most, self.is_one = name, most, is_one
        self._threads_max = most
        self.running = 0
        """Places lent to it; kept by the `Cores`."""
        self._cores = cores
        self._threads = ThreadPoolExecutor(most, thread_name_prefix=name)

    @property
    def cost(self) -> int:
        """Places that one more takes, or that one fewer frees."""
        return 0 if self.is_one and self.running else 1

    @property
    def cores_are_idle(self) -> bool:
        """Whether nobody computes on the cores, neither this engine nor another."""
        return self._cores.are_idle

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

    def allow(self, most: int) -> None:
        """From any thread: run so many at once from now on, at least one and no more than in the beginning."""
        most = min(max(most, 1), self._threads_max)
        if most != self.most:
            self._cores.allow(self, most)

    async def close(self) -> None:
        """Wait for the threads; what is still waiting for a place fails."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)


def _wake(granted: asyncio.Future[None]) -> None:
    if not granted.done():
        granted.set_result(None)


def _due(place: _Place) -> float:
    return place.due
