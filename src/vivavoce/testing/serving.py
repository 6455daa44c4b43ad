"""A server in a process of its own for the length of a measurement, ended by its process id, whatever happens.

The process says its address in a line of its output; what else it says is kept for the error message, should it fail.
Invariant: when the block ends, so has the process.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from vivavoce.errors import VivavoceError

__all__ = ["Serving", "serving"]

START_SECONDS_MAX = 180
"""Models are loaded in it."""
STOP_SECONDS_MAX = 15
LINES_KEPT_MAX = 200

_URL = re.compile(r"ws://127\.0\.0\.1:\d+")
_READY = re.compile(r"vivavoce\.server\.serve: ready$")


class Serving:
    """A running server: where it is, and a line-by-line conversation with its process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.url = ""
        self.is_ready = False
        """Whether `vivavoce serve` has said that its models are loaded: it listens before."""
        self._said: deque[str] = deque(maxlen=LINES_KEPT_MAX)
        self._answers: deque[str] = deque(maxlen=LINES_KEPT_MAX)
        self._changed = threading.Condition()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._said.append(line)
                if not self.url and (found := _URL.search(line)):
                    self.url = found[0]
                elif line.startswith("{"):
                    self._answers.append(line)
                self.is_ready = self.is_ready or _READY.search(line) is not None
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for_url(self, seconds_max: float) -> None:
        """Wait until the server has said its address. Raises `VivavoceError` with its output where it does not."""
        self._wait(lambda: bool(self.url), seconds_max, "said no address")

    def wait_until_ready(self, seconds_max: float = START_SECONDS_MAX) -> None:
        """Wait until the models of a `vivavoce serve` are loaded. Raises `VivavoceError` with its output."""
        self._wait(lambda: self.is_ready, seconds_max, "did not become ready")

    def ask(self, question: str, seconds_max: float = 10) -> str:
        """Write a line to the process; give the line of JSON that it answers."""
        assert self.process.stdin is not None
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        self._wait(lambda: bool(self._answers), seconds_max, f"did not answer {question!r}")
        with self._changed:
            return self._answers.popleft()

    def _wait(self, holds: Callable[[], bool], seconds_max: float, failure: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: holds() or not self._reading.is_alive(), seconds_max)
            if not holds():
                code = self.process.poll()
                raise VivavoceError(f"the server {failure} (exit code {code}):\n{''.join(self._said)}")


@contextmanager
def serving(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Serving]:
    """Run `python ARGUMENTS…` until the block is left, with these variables, or else those of this process."""
    environment = {**(os.environ if environment is None else environment), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, *arguments]
    with subprocess.Popen(  # noqa: S603 - our own interpreter, and arguments that are no shell's
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            server = Serving(process)
            server.wait_for_url(START_SECONDS_MAX)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
