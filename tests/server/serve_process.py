"""`vivavoce serve` as a process of its own, for what only a process shows: what it logs, and how it dies."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from served import SERVED

START_S_MAX = 120.0
LISTENS = re.compile(r"listening on (ws://([0-9.]+):(\d+)/v1/realtime)")


@dataclass(slots=True)
class ServeProcess:
    """One that listens, and what it has logged so far."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    listens: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    host: str = ""
    port: int = 0

    def read(self) -> None:
        """Take every line that it logs, until it ends; in a thread of its own."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if (found := LISTENS.search(line)) is not None:
                self.url, self.host, self.port = found[1], found[2], int(found[3])
                self.listens.set()
        self.listens.set()


@contextmanager
def serve_process(*options: str, port: int = 0, **variables: str) -> Iterator[ServeProcess]:
    """It serves with the scripted engines until the block ends; then all that it has logged is in `lines`."""
    command = (sys.executable, "-m", "vivavoce", "serve", "--model", "scripted", "--port", str(port), *options)
    process = subprocess.Popen(
        (*command, "--websocket", SERVED["websocket"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env={**_environment(), **variables},
    )
    served = ServeProcess(process)
    reading = threading.Thread(target=served.read, daemon=True)
    reading.start()
    try:
        assert served.listens.wait(START_S_MAX), "it does not listen"
        assert served.port, served.lines
        yield served
    finally:
        process.kill()
        process.wait()
        reading.join()
        assert process.stdout is not None
        process.stdout.close()


def _environment() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("VIVAVOCE_")}
