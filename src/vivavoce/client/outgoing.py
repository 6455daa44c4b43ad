"""What a session sends: frames on their way to whatever connection there is, written by a task of their own.

`put` never waits; who has much to say waits for `room`. Invariants: frames leave in the order in which they were put;
after `end` nobody waits for anything.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from vivavoce.errors import ConnectionClosed, LocalProtocolError
from vivavoce.transports import Transport

OUTGOING_BYTES_MAX = 4 * 1024 * 1024
"""Bytes on their way out beyond which `append_audio` waits, where it is awaited."""
OUTGOING_BYTES_LIMIT = 64 * 1024 * 1024
"""Bytes on their way out beyond which nothing more is taken."""

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
"""Begins a task that ends with the session at the latest."""


class Outgoing:
    """The frames of one session. `raw` sees each of them as it leaves."""

    def __init__(self, spawn: Spawn, raw: Callable[[str, str | bytes], None] | None) -> None:
        self._spawn = spawn
        self._raw = raw
        self._transport: Transport | None = None
        self._writing: asyncio.Task[None] | None = None
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._said = asyncio.Event()
        self._said.set()
        self._is_paced = False
        """Whether what is said is played, so that it is taken no faster than it is heard."""
        self._pace: Callable[[], Awaitable[None]] | None = None
        self._paced = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection to write to."""
        return self._transport is not None

    @property
    def bytes_waiting(self) -> int:
        """Bytes that are not handed to a connection yet."""
        return self._bytes

    def put(self, frame: bytes) -> None:
        """Send a message as it is."""
        self._frames.append(frame)
        self._bytes += len(frame)
        self._said.clear()
        self._more.set()

    def check(self) -> None:
        """Raises `LocalProtocolError` where far too much is on its way out."""
        if self._bytes > OUTGOING_BYTES_LIMIT:
            raise LocalProtocolError("the server does not take what is sent; await the calls before making more")

    async def room(self) -> None:
        """Wait while too much is on its way out."""
        if self._bytes > OUTGOING_BYTES_MAX:
            self._room.clear()
            await self._room.wait()
        if self._is_paced:
            await self._until_heard()

    async def _until_heard(self) -> None:
        """Wait until what is on its way has been handed over, to whatever connection, and most of it has been heard."""
        while self._pace is None and self._is_paced:
            self._paced.clear()
            await self._paced.wait()
        await self._said.wait()
        if self._pace is not None:
            await self._pace()

    async def said(self) -> None:
        """Wait until nothing is on its way out."""
        await self._said.wait()

    # --- connections --------------------------------------------------------------------------------------------------

    def use(self, transport: Transport, pace: Callable[[], Awaitable[None]] | None = None) -> None:
        """Write to this connection from now on. What waits was meant for the one before, and is dropped.

        `pace` waits until what was said is heard; None where the connection takes as much as it can carry.
        """
        self._drop()
        self._pace, self._is_paced = pace, pace is not None
        self._paced.set()
        self._transport = transport
        if self._writing is not None:
            self._writing.cancel()  # it may wait for a connection that takes nothing any more
        self._writing = self._spawn(self._write())

    def pause(self) -> None:
        """There is no connection; what is put waits."""
        self._transport = self._pace = None

    def end(self) -> None:
        """Nothing is sent any more."""
        self._transport = self._pace = None
        self._is_paced = False
        self._paced.set()
        self._drop()
        self._room.set()
        self._said.set()

    def _drop(self) -> None:
        self._frames.clear()
        self._bytes = 0

    async def _write(self) -> None:
        """Send what is on its way out, over the present connection."""
        while True:
            while self._frames and (transport := self._transport) is not None:
                frame = self._frames.popleft()
                self._bytes -= len(frame)
                if self._raw is not None:
                    self._raw("client", frame)
                # Lost with the connection: what was not answered is sent again.
                with suppress(ConnectionClosed):
                    await transport.send(frame)
                if self._bytes <= OUTGOING_BYTES_MAX // 2:
                    self._room.set()
            self._room.set()
            if not self._frames:
                self._said.set()
            self._more.clear()
            await self._more.wait()
