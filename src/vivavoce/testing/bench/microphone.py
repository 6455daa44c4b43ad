"""A microphone that hears what it is told to, 20 ms at a time, in real time, and near-silence in between.

It runs on one schedule from `begin` on: a chunk is sent at the moment at which its last sample has been heard, and one
that is late makes no later one late. The clock is the event loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from random import Random

from vivavoce.audio.formats import PCM16_24K

from .speech import Utterance

__all__ = ["CHUNK_MS", "Microphone"]

CHUNK_MS = 20
NOISE_PEAK = 12
"""What is heard between the turns, of 32,767: about -70 dB."""
NOISE_MS = 1_000


class Microphone:
    """`late_ms` says of every chunk how late it was. `send` takes PCM16 mono at 24 kHz."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self.late_ms: list[float] = []
        self._send = send
        self._clock = asyncio.get_running_loop().time
        self._noise = _noise()
        self._speech = b""
        self._chunks = 0
        self._began = self._clock()

    def begin(self) -> None:
        """Hear from now on; what came before is forgotten."""
        self._speech, self._chunks, self._began = b"", 0, self._clock()

    def say(self, said: Utterance) -> tuple[float, float]:
        """Speak, from the next chunk on; when speech will have begun and ended, in seconds of the clock."""
        self._speech = said.audio
        at = self._began + self._chunks * CHUNK_MS / 1000
        return at + said.begin_ms / 1000, at + said.end_ms / 1000

    async def hear(self, ms: int = CHUNK_MS) -> None:
        """The next chunk, or so many ms of them. Raises what `send` raises."""
        for _ in range(ms // CHUNK_MS):
            chunk = self._next()
            self._chunks += 1
            due = self._began + self._chunks * CHUNK_MS / 1000
            await asyncio.sleep(max(due - self._clock(), 0))
            self.late_ms.append((self._clock() - due) * 1000)
            await self._send(chunk)

    def _next(self) -> bytes:
        size = PCM16_24K.bytes_of(CHUNK_MS)
        at = self._chunks * size % len(self._noise)
        chunk, self._speech = self._speech[:size], self._speech[size:]
        return chunk + self._noise[at : at + size][len(chunk) :]


@cache
def _noise() -> bytes:
    random = Random(1)  # noqa: S311 - the same noise each time is what is wanted
    samples = (random.randint(-NOISE_PEAK, NOISE_PEAK) for _ in range(PCM16_24K.samples(NOISE_MS)))
    return b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples)
