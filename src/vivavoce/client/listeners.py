"""Callbacks of the application: by name or pattern, in the order of the events and of their registration.

A listener may be a function or a coroutine function, and may await what it likes: events come in on another task, and
wait here until the listeners of the one before are done. Invariant: a listener that fails stops neither its neighbours
nor the session; what it raised goes to the listeners of `error`, and into the log.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from vivavoce.errors import LocalProtocolError
from vivavoce.protocol.events import ErrorDetail

log = logging.getLogger(__name__)

Callback = Callable[[Any], object] | Callable[[Any], Awaitable[object]]

QUEUE_MAX = 100_000
"""Events that wait for listeners. Beyond it the session waits, and with it the server."""


@dataclass(frozen=True, slots=True)
class ListenerFailed:
    """A callback of the application has raised; told to listeners of `error`."""

    name: str
    exception: BaseException
    event: Any

    @property
    def type(self) -> str:
        """The name under which it is told."""
        return "error"

    @property
    def error(self) -> ErrorDetail:
        """The same in the form of any other error."""
        message = f"the listener {self.name} has raised {self.exception!r}"
        return ErrorDetail(type="vivavoce", code="listener_failed", message=message)


@dataclass(slots=True, eq=False)
class _Listener:
    pattern: str
    callback: Callback
    is_once: bool
    is_over: bool = False

    def matches(self, names: tuple[str, ...]) -> bool:
        return any(fnmatchcase(name, self.pattern) for name in names)


class Listeners:
    """Who is told of what. `hear(names, event)` puts an event into the queue of those who want it; `run` calls them."""

    def __init__(self) -> None:
        self._listeners: list[_Listener] = []
        self._found: dict[tuple[str, ...], tuple[_Listener, ...]] = {}
        self._queue: deque[tuple[tuple[_Listener, ...], Any]] = deque()
        self._more = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._is_over = False

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def on(self, pattern: str, callback: Callback, *, once: bool = False) -> None:
        """Call it for every event that the pattern matches: `response.done`, `response.*`, `server.*`, `*`."""
        if not callable(callback):
            raise LocalProtocolError(f"on({pattern!r}): the second argument must be callable, not {callback!r}")
        self._listeners.append(_Listener(pattern, callback, once))
        self._found.clear()

    def off(self, pattern: str, callback: Callback | None) -> None:
        """Do not call it any more; None is for all of this pattern. Raises `LocalProtocolError` for an unknown one."""
        found = [one for one in self._listeners if one.pattern == pattern and callback in (None, one.callback)]
        if not found:
            known = ", ".join(sorted({one.pattern for one in self._listeners})) or "none"
            raise LocalProtocolError(f"off({pattern!r}): no such listener is registered; there are: {known}")
        for listener in found:
            self._drop(listener)

    def clear(self) -> None:
        """Forget all of them."""
        for listener in list(self._listeners):
            self._drop(listener)

    def _drop(self, listener: _Listener) -> None:
        listener.is_over = True
        if listener in self._listeners:
            self._listeners.remove(listener)
        self._found.clear()

    def wants(self, *names: str) -> bool:
        """Whether anybody listens to an event of these names."""
        return bool(self._listeners and self._of(names))

    def hear(self, names: tuple[str, ...], event: Any) -> None:
        """An event of these names has happened."""
        if not self._listeners or not (found := self._of(names)):
            return
        for listener in found:
            if listener.is_once:
                self._drop_later(listener)
        self._queue.append((found, event))
        self._more.set()
        self._drained.clear()

    def _drop_later(self, listener: _Listener) -> None:
        """Once is once, also where the next event comes before the first was delivered."""
        self._listeners.remove(listener)
        self._found.clear()

    def _of(self, names: tuple[str, ...]) -> tuple[_Listener, ...]:
        found = self._found.get(names)
        if found is None:
            found = tuple(listener for listener in self._listeners if listener.matches(names))
            self._found[names] = found
        return found

    @property
    def is_full(self) -> bool:
        """Whether too many events wait."""
        return len(self._queue) >= QUEUE_MAX

    def end(self) -> None:
        """Let `run` return as soon as all is told."""
        self._is_over = True
        self._more.set()

    async def drained(self) -> None:
        """Wait until nothing waits any more."""
        await self._drained.wait()

    async def run(self) -> None:
        """Call the listeners, one after the other, until `end`, or until another task does it."""
        self._is_over = False
        more = self._more = asyncio.Event()  # the last event loop may be another
        self._drained = asyncio.Event()
        while True:
            while self._queue and self._more is more:
                found, event = self._queue.popleft()
                for listener in found:
                    if not listener.is_over:
                        await self._call(listener, event)
            if self._more is not more:
                return
            self._drained.set()
            if self._is_over:
                return
            more.clear()
            await more.wait()

    async def _call(self, listener: _Listener, event: Any) -> None:
        try:
            result = listener.callback(event)
            if inspect.isawaitable(result):
                await result
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise  # what it waited for was not cancelled, but we are
            name = getattr(listener.callback, "__qualname__", repr(listener.callback))
            log.exception("the listener %s of %r has failed", name, listener.pattern)
            if not isinstance(event, ListenerFailed):
                self.hear(("error",), ListenerFailed(name, error, event))


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
