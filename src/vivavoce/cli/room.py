"""A room without sound hardware: a microphone that always runs and a loudspeaker that plays in real time.

Together they make a client behave as one with devices would: audio is sent as it is recorded, what has been heard at
any moment is known, and both tracks are kept. All audio is PCM16 mono at 24 kHz; the clock is the event loop's.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from vivavoce.audio.formats import PCM16_24K

TICK_MS = 20
NOISE_AMPLITUDE = 6
"""Between utterances a room is not silent: peak of the noise, of 32767."""
NOISE_SEED = 1
TRACK_MS_MAX = 10 * 60 * 1000
"""Longest recording; beyond it the tracks are not kept any more."""


def room_noise(ms: int) -> bytes:
    """Faint noise, the same in every run."""
    chance = random.Random(NOISE_SEED)  # noqa: S311 - sound, not a secret
    samples = PCM16_24K.samples(ms)
    return struct.pack(f"<{samples}h", *(chance.randint(-NOISE_AMPLITUDE, NOISE_AMPLITUDE) for _ in range(samples)))


class Track:
    """What was to be heard in one place, from the beginning of the recording on."""

    def __init__(self) -> None:
        self.audio = bytearray()

    def put(self, at_ms: int, audio: bytes) -> None:
        """Audio that began at `at_ms`."""
        if at_ms > TRACK_MS_MAX:
            return
        self.audio += bytes(max(PCM16_24K.bytes_of(at_ms) - len(self.audio), 0))
        self.audio += audio


class Microphone:
    """Sends a chunk every 20 ms: speech while there is some to say, room noise otherwise."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self.track = Track()
        self._send = send
        self._noise = room_noise(1000)
        self._speech = b""
        self._said = asyncio.Event()

    async def say(self, speech: bytes) -> None:
        """Say it; returns when the last of it has been sent."""
        self._said.clear()
        self._speech = speech
        await self._said.wait()

    async def run(self) -> None:
        """Record until cancelled."""
        clock = asyncio.get_running_loop().time
        began, ticks = clock(), 0
        while True:
            ticks += 1
            await asyncio.sleep(max(began + ticks * TICK_MS / 1000 - clock(), 0))
            chunk = self._next(ticks)
            self.track.put((ticks - 1) * TICK_MS, chunk)
            await self._send(chunk)

    def _next(self, ticks: int) -> bytes:
        size = PCM16_24K.bytes_of(TICK_MS)
        if not self._speech:
            start = ticks * size % (len(self._noise) - size)
            return self._noise[start - start % 2 :][:size]
        chunk, self._speech = self._speech[:size], self._speech[size:]
        if not self._speech:
            self._said.set()
        return chunk.ljust(size, b"\0")


@dataclass(slots=True)
class Played:
    """One item's audio and when its playback began, in ms of the room's clock."""

    began_ms: int
    audio: bytearray = field(default_factory=bytearray)
    stopped_ms: int | None = None

    @property
    def ends_ms(self) -> int:
        """When playback is over, or was cut."""
        ends = self.began_ms + PCM16_24K.duration_ms(self.audio)
        return ends if self.stopped_ms is None else min(ends, self.stopped_ms)


class Loudspeaker:
    """Plays what it is given, item after item, and knows how much of each has been heard."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._items: dict[str, Played] = {}

    @property
    def now_ms(self) -> int:
        """Time since the loudspeaker was switched on."""
        return round((self._clock() - self._began) * 1000)

    @property
    def plays_until_ms(self) -> int:
        """When everything so far will have been played."""
        return max((played.ends_ms for played in self._items.values()), default=0)

    def play(self, item_id: str, audio: bytes) -> None:
        """Queue audio behind what is playing; late audio of a stopped item is dropped."""
        played = self._items.setdefault(item_id, Played(max(self.now_ms, self.plays_until_ms)))
        if played.stopped_ms is None:
            played.audio += audio

    def heard_ms(self, item_id: str) -> int:
        """How much of an item has been heard by now."""
        played = self._items.get(item_id)
        return max(min(self.now_ms, played.ends_ms) - played.began_ms, 0) if played else 0

    def total_ms(self, item_id: str) -> int:
        """How long an item is."""
        played = self._items.get(item_id)
        return PCM16_24K.duration_ms(played.audio) if played else 0

    def stop(self) -> list[str]:
        """Be silent now; the items that were cut, which includes those that had not begun."""
        now = self.now_ms
        cut = [item_id for item_id, played in self._items.items() if played.ends_ms > now]
        for played in (self._items[item_id] for item_id in cut):
            played.began_ms = min(played.began_ms, now)
            played.stopped_ms = now
        return cut

    def track(self) -> Track:
        """Everything that was really played."""
        track = Track()
        heard = [played for played in self._items.values() if played.ends_ms > played.began_ms]
        for played in sorted(heard, key=lambda played: played.began_ms):
            track.put(played.began_ms, bytes(played.audio[: PCM16_24K.bytes_of(played.ends_ms - played.began_ms)]))
        return track
