"""Lines of standard input, without the event loop waiting for them.

A terminal, a pipe and a file are read alike, by a thread of its own: what blocks in it ends with the process, and never
holds up the end of a command. Invariant: no more than `AHEAD_MAX` lines are read before they are asked for.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TextIO

AHEAD_MAX = 64


async def lines(source: TextIO | None = None) -> AsyncGenerator[str, None]:
    """Each line without its end, until the input ends."""
    source = source or sys.stdin
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue()
    room = threading.Semaphore(AHEAD_MAX)

    def put(line: str | None) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody reads any more
            loop.call_soon_threadsafe(queue.put_nowait, line)

    def read() -> None:
        try:
            for line in source:
                put(line.rstrip("\r\n"))
                room.acquire()
        finally:
            put(None)

    threading.Thread(target=read, name="standard input", daemon=True).start()
    try:
        while (line := await queue.get()) is not None:
            yield line
            room.release()
    finally:
        for _ in range(AHEAD_MAX):
            room.release()
