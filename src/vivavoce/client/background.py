"""The event loop of those who have none: a thread of its own, shared by all sessions of the process.

It is held as long as a session stays open or a call is waited for, and ends with the last hold. Invariants: its thread
never keeps the program from ending; what nobody waits for any more, after Ctrl-C, is cancelled.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from vivavoce.errors import LocalProtocolError

__all__ = ["Background", "Stay", "held", "wait"]

T = TypeVar("T")

END_S_MAX = 2.0
"""How long is waited for the thread to end. Then it is left to itself."""


class Background:
    """A running event loop, made by the first hold."""

    def __init__(self) -> None:
        self.holders = 0
        self.stays: set[Stay] = set()
        self._started: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name="vivavoce sessions", daemon=True)
        self._thread.start()
        self._loop = self._started.result()

    def _run(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        self._over = asyncio.Event()
        self._started.set_result(asyncio.get_running_loop())
        await self._over.wait()

    def release(self) -> None:
        """Hold it no longer."""
        global _current
        with _lock:
            self.holders -= 1
            if self.holders:
                return
            if _current is self:
                _current = None
        self._loop.call_soon_threadsafe(self._over.set)

    def join(self) -> None:
        """Wait until the thread has ended, which it soon will have."""
        if self._thread is not threading.current_thread():
            self._thread.join(END_S_MAX)

    def begin(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run it; whoever wants may wait."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it and wait for its end. Raises `LocalProtocolError` on the loop's own thread."""
        if self._thread is threading.current_thread():
            work.close()
            raise LocalProtocolError(
                "a blocking call on the event loop would wait for itself; handlers and tools that are plain functions "
                "have threads of their own and may block, coroutine functions may not"
            )
        future = self.begin(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


_lock = threading.Lock()
_current: Background | None = None


@contextmanager
def held() -> Iterator[Background]:
    """The loop, running as long as the block."""
    background = _hold()
    try:
        yield background
    finally:
        background.release()


def wait(work: Coroutine[Any, Any, T]) -> T:
    """Run it on the loop and wait for its end."""
    with held() as background:
        return background.wait(work)


def _hold() -> Background:
    global _current
    with _lock:
        if _current is None:
            _current = Background()
        _current.holders += 1
        return _current


class Stay:
    """Something that is open on the loop, and holds it until `end` has been run there."""

    def __init__(self, end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._end = end
        self._process = os.getpid()
        self.background = _hold()
        self.background.stays.add(self)

    @property
    def is_here(self) -> bool:
        """Whether this is the process in which it was opened: a child process has no thread that runs the loop."""
        return self._process == os.getpid()

    def begin_end(self) -> concurrent.futures.Future[None] | None:
        """Have it ended; None where that is not for this process to do. Safe wherever garbage is collected."""
        return self.background.begin(self._run()) if self.is_here else None

    def end(self) -> None:
        """End it and wait for that. Whoever is interrupted leaves it to the loop."""
        future = self.begin_end()
        if future is not None:
            future.result()
            if not self.background.holders:
                self.background.join()

    async def _run(self) -> None:
        is_first = self in self.background.stays
        self.background.stays.discard(self)
        try:
            await self._end()
        finally:
            if is_first:
                self.background.release()


def _at_exit() -> None:
    """The program ends: whatever is open says goodbye."""
    background = _current
    if background is not None:
        for stay in tuple(background.stays):
            stay.begin_end()
        background.join()


def _after_fork() -> None:
    """In a child process: the thread has stayed with the parent."""
    global _current, _lock
    _current, _lock = None, threading.Lock()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
