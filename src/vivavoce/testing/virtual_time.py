"""An asyncio event loop whose clock moves only when there is nothing to do: hours pass in no time, always alike.

`run(coroutine)` stands where `asyncio.run` would. Timers, timeouts, queues and task groups work as ever, because only
the loop's clock and its waiting are replaced; `time` is not touched. Everything must happen inside the process: nothing
here waits for a peer behind a socket. Work for threads is done at once, in place, since a thread brings its own time.
Invariant: either something is ready, or the clock jumps to the next timer, or the program hangs and is told so.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from types import CodeType, FrameType
from typing import Any, TypeVar

__all__ = ["Hang", "VirtualTimeLoop", "run"]

STEPS_MAX = 1_000_000
"""Turns of the event loop in one `run`; more is taken for a program that spins."""

T = TypeVar("T")


class Hang(AssertionError):
    """The program waits for what cannot come, or never stops; the message lists the tasks and where they stand."""


class _Selector(selectors.BaseSelector):
    """Looks at what is ready, and where nothing is, moves the clock instead of waiting."""

    def __init__(self, steps_max: int) -> None:
        self._real = selectors.DefaultSelector()
        self._steps_left = steps_max
        self._steps_max = steps_max
        self.now_s = 0.0
        self.describe: Callable[[], str] = str

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._steps_left -= 1
        if self._steps_left < 0:
            self._steps_left = self._steps_max  # so that the loop can still cancel its tasks and close
            raise Hang(f"no end after {self._steps_max} steps, at {self.now_s:.3f} s; pending:\n{self.describe()}")
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None:
            raise Hang(f"nothing is ready and nothing is scheduled at {self.now_s:.3f} s; pending:\n{self.describe()}")
        self.now_s += timeout
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop that `run` uses. `time()` begins at 0.0 and is in seconds."""

    def __init__(self, *, steps_max: int = STEPS_MAX) -> None:
        self._virtual = _Selector(steps_max)
        super().__init__(self._virtual)
        self._virtual.describe = self._describe_tasks

    def time(self) -> float:
        """Seconds since the loop was made, as its timers count them."""
        return self._virtual.now_s

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Call `func` now, on this thread; `asyncio.to_thread` comes through here too."""
        outcome: asyncio.Future[T] = self.create_future()
        try:
            outcome.set_result(func(*args))
        except Exception as error:
            outcome.set_exception(error)
        return outcome

    def _describe_tasks(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        return "\n".join(f"  {task.get_name()}: {_where(task)}" for task in tasks) or "  no task"


def _where(task: asyncio.Task[Any]) -> str:
    """The innermost coroutine or generator that the task is suspended in: function, file and line."""
    awaited: Any = task.get_coro()
    place = repr(awaited)
    while awaited is not None:
        frame = _first(awaited, "cr_frame", "gi_frame", "ag_frame")
        code = _first(awaited, "cr_code", "gi_code", "ag_code")
        if isinstance(code, CodeType):
            line = frame.f_lineno if isinstance(frame, FrameType) else code.co_firstlineno
            place = f"{code.co_qualname} ({code.co_filename}:{line})"
        awaited = _first(awaited, "cr_await", "gi_yieldfrom", "ag_await")
    return place


def _first(thing: object, *names: str) -> object:
    return next((getattr(thing, name) for name in names if hasattr(thing, name)), None)


def run(main: Coroutine[Any, Any, T], *, steps_max: int = STEPS_MAX) -> T:
    """Run `main` to its end on virtual time and give its result.

    Raises `Hang` where nothing can happen any more, or after `steps_max` turns of the loop.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(steps_max=steps_max)) as runner:
        return runner.run(main)
