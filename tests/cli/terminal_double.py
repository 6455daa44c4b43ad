"""A terminal for a command: what it shows is read, and waited for; keys are pressed. No test needs to know of ptys."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from types import TracebackType

WAIT_S = 20.0
SIZE = (30, 100)
WHERE, TOP = b"\x1b[6n", b"\x1b[1;1R"
"""A program asks where the cursor is, and is told: in the corner."""
CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[=>()][0-9A-B]?)|\r")


class Terminal:
    """`vivavoce` with these arguments, in a terminal of 30 lines of 100 characters."""

    def __init__(self, *argv: str, environment: Mapping[str, str] | None = None) -> None:
        self.raw = ""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
        plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
        self._program = subprocess.Popen(
            [sys.executable, "-m", "vivavoce", *argv],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**plain, "TERM": "xterm-256color", **(environment or {})},
            start_new_session=True,
        )
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._program.poll() is None:
            self._program.kill()
        self._program.wait()
        os.close(self._ours)

    @property
    def shown(self) -> str:
        """All that was written so far, without colours and movements of the cursor."""
        return CONTROL.sub("", self.raw)

    def type(self, keys: str) -> None:
        """Press keys; Enter is a carriage return."""
        os.write(self._ours, keys.encode())

    def interrupt(self) -> None:
        """Ctrl-C, for a program that leaves it to the terminal what that means."""
        self._program.send_signal(signal.SIGINT)

    def until(self, pattern: str, *, after: int = 0) -> re.Match[str]:
        """Wait until this has been shown, behind the first `after` characters."""
        deadline = time.monotonic() + WAIT_S
        while (found := re.compile(pattern, re.DOTALL).search(self.shown, after)) is None:
            if not self._read(deadline):
                raise AssertionError(f"{pattern!r} was not shown:\n{self.shown}")
        return found

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        deadline = time.monotonic() + WAIT_S
        while self._read(deadline):
            pass
        return self._program.wait(timeout=WAIT_S)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(deadline - time.monotonic(), 0.0))
        if not ready:
            raise AssertionError(f"nothing more was shown within {WAIT_S:g} s:\n{self.shown}")
        try:
            data = os.read(self._ours, 65_536)
        except OSError:  # Linux says so when the other end is closed
            return False
        if WHERE in data:
            os.write(self._ours, TOP)
        self.raw += data.decode(errors="replace")
        return bool(data)
