"""The way out of a session: frames in order, one task that sends them, and a clock on the peer that does not read.

Bounded in bytes; who puts a frame into a full outbox waits, and with it the session and its engines. Invariant: a peer
that takes nothing for `stall_s` is given up, and nobody waits for a connection that has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from vivavoce.core.messages import Close
from vivavoce.errors import ConnectionClosed
from vivavoce.transports import Transport

from .channel import Channel

STALLED = Close(1008, "The client has stopped reading.")

EARLY_S = 0.001
"""A timer may ring a moment before its time, by rounding; it is not set anew for that."""


class Outbox:
    """Frames on their way to a transport. `run` sends them, in a task of its own; `lost` is told of a broken end."""

    def __init__(
        self,
        transport: Transport,
        lost: Callable[[ConnectionClosed], None],
        *,
        bytes_max: int,
        frames_max: int,
        stall_s: float,
        close_s: float,
    ) -> None:
        self._transport = transport
        self._at_once: Callable[[bytes], bool] | None = getattr(transport, "offer", None)
        self._lost = lost
        self._frames: Channel[bytes | Close] = Channel(bytes_max=bytes_max, messages_max=frames_max)
        self._stall_s = stall_s
        self._close_s = close_s
        self._sending_since: float | None = None
        self._watch: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._frames)

    def offer(self, frame: bytes) -> bool:
        """Send the frame if there is room for it; say whether. Raises `ConnectionClosed`.

        Where nothing is on its way and the transport takes it at once, that saves a turn of the event loop.
        """
        is_free = self._sending_since is None and not self._frames.bytes
        if self._at_once is not None and is_free and self._at_once(frame):
            return True
        return self._frames.offer(frame, len(frame))

    async def put(self, frame: bytes) -> None:
        """Send the frame as soon as there is room. Raises `ConnectionClosed`."""
        await self._frames.put(frame, len(frame))

    def close(self, close: Close) -> None:
        """Close the connection after everything that was put; what comes later is not sent."""
        self._at_once = None
        self._frames.push(close)

    def end(self, reason: ConnectionClosed) -> None:
        """Drop everything; nobody can be reached any more."""
        self._at_once = None
        self._frames.end(reason)

    async def run(self) -> None:
        """Send until the connection is closed, from here or by the peer."""
        try:
            close = await self._send_all()
        except ConnectionClosed as closed:
            self._lost(closed)
            return
        except TimeoutError:
            close = STALLED
            self._lost(ConnectionClosed(close.code, close.reason))
        finally:
            if self._watch is not None:
                self._watch.cancel()
        self.end(ConnectionClosed(close.code, close.reason))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._close_s):
                await self._transport.close(close.code, close.reason)

    async def _send_all(self) -> Close:
        """Everything up to a `Close`. Raises `TimeoutError` where the peer takes nothing."""
        clock = asyncio.get_running_loop().time
        async with asyncio.timeout(None) as patience:
            while not isinstance(frame := await self._frames.get(), Close):
                self._sending_since = clock()
                if self._watch is None:
                    self._watch_from(self._sending_since, patience)
                await self._transport.send(frame)
                self._sending_since = None
                del frame  # which may be long, and so may the wait for the next one
        return frame

    def _watch_from(self, since_s: float, patience: asyncio.Timeout) -> None:
        """One timer for many frames: when it rings, it looks at the frame that is being sent, and sets itself anew."""
        loop = asyncio.get_running_loop()

        def ring() -> None:
            self._watch = None
            if self._sending_since is None:
                return
            if loop.time() + EARLY_S < self._sending_since + self._stall_s:
                self._watch_from(self._sending_since, patience)
            else:
                patience.reschedule(loop.time())

        self._watch = loop.call_at(since_s + self._stall_s, ring)
