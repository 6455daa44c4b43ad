"""A WebRTC connection without WebRTC: a double whose sound is played on the clock of the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from vivavoce.audio.formats import PCM16_24K
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair


class OutletDouble:
    """Plays what it is given, as fast as time passes."""

    def __init__(self) -> None:
        self.dry: Callable[[str], None] = lambda key: None
        self.said = bytearray()
        self.ended: list[str] = []
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._until_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def put(self, key: str, pcm24k: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.said += pcm24k
        self._until_s = max(self._until_s, loop.time()) + len(pcm24k) / 48_000
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._until_s, lambda: self.dry(key))

    def end(self, key: str) -> None:
        self.ended.append(key)

    def clear(self) -> None:
        del self.said[len(self.said) - PCM16_24K.bytes_of(self.waiting_ms) :]
        self._until_s = 0.0
        if self._timer is not None:
            self._timer.cancel()

    @property
    def waiting_ms(self) -> int:
        return max(round((self._until_s - asyncio.get_running_loop().time()) * 1000), 0)


class PeerDouble:
    """One end of a call; the other end is `server`, of which the data channel is a transport."""

    def __init__(self) -> None:
        self.outlet = OutletDouble()
        self.channel: Transport
        self.channel, self.server = pair()
        self.closings = 0

    async def close(self) -> None:
        self.closings += 1
        await self.channel.close()
