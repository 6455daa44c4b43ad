"""Threads for what blocks and is not ours: tools, and the handlers of sessions without a loop.

An executor beside those of the standard library, for `run_in_executor`. Invariant: no thread outlives its work, and
none keeps the program from ending.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class Threads(concurrent.futures.Executor):
    """Threads that live as long as there is work, and that the program does not wait for when it ends.

    Those of the standard library would keep a program from ending as long as one function hangs.
    """

    def __init__(self, threads_max: int, waiting_max: int, name: str = "vivavoce tool") -> None:
        self._name = name
        self._threads_max = threads_max
        self._waiting_max = waiting_max
        self._lock = threading.Lock()
        self._running = 0
        self._waiting: deque[tuple[concurrent.futures.Future[Any], Callable[[], Any]]] = deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Run `fn` as soon as a thread is free. `fn` must not raise.

        Raises `RuntimeError` where too many wait, or the system gives no thread; then `fn` is not run.
        """
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._lock:
            if len(self._waiting) >= self._waiting_max:
                self._waiting = deque(entry for entry in self._waiting if not entry[0].cancelled())
            if len(self._waiting) >= self._waiting_max:
                raise RuntimeError(f"{self._waiting_max} calls are waiting for a thread already")
            self._waiting.append((future, lambda: fn(*args, **kwargs)))
            is_new = self._running < self._threads_max
            self._running += is_new
        if is_new:
            try:
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
            except RuntimeError:
                with self._lock:
                    self._running -= 1
                if future.cancel():  # whoever finds it in line passes it over; another thread may run it already
                    raise
        return future

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                future, call = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                future.set_result(call())
