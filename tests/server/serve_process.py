"""`vivavoce serve` as a process of its own, for what only a process shows: what it logs, and how it dies."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from served import SERVED

START_S_MAX = 30.0
LISTENS = re.compile(r"listening on (ws://([0-9.]+):(\d+)/v1/realtime)")


@dataclass(frozen=True)
class ServeProcess:
    """One that listens."""

    process: subprocess.Popen[bytes]
    url: str
    host: str
    port: int
    log: Path

    def lines(self) -> list[str]:
        """What it has logged so far."""
        return self.log.read_text(encoding="utf-8").splitlines()


@contextmanager
def serve_process(folder: Path, *options: str, port: int = 0, **variables: str) -> Iterator[ServeProcess]:
    """It serves with the scripted engines until the block ends; what it logs is in a file of the folder."""
    log = folder / f"log-{len(list(folder.iterdir()))}.txt"
    command = (sys.executable, "-m", "vivavoce", "serve", "--model", "scripted", "--port", str(port), *options)
    with log.open("wb") as out:
        process = subprocess.Popen(
            (*command, "--websocket", SERVED["websocket"]), stdout=out, stderr=out, env={**_environment(), **variables}
        )
    try:
        found = _listening(process, log)
        yield ServeProcess(process, found[1], found[2], int(found[3]), log)
    finally:
        process.kill()
        process.wait()


def _listening(process: subprocess.Popen[bytes], log: Path) -> re.Match[str]:
    until = time.monotonic() + START_S_MAX
    while (found := LISTENS.search(log.read_text(encoding="utf-8"))) is None:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < until, "it does not listen"
    return found


def _environment() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("VIVAVOCE_")}
