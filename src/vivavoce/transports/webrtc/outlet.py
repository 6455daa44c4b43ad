"""What one end of a WebRTC connection says: audio played in real time, one Opus packet each 20 ms, silence between.

Audio comes in faster than it can be played and waits here. The playhead is what has left as RTP: an item was played as
far as its packets were sent. Paced by an absolute clock, so that nothing drifts. Invariants: packets that a stall has
delayed are never sent in a burst, their time is left out; timestamps are those of the clock, whatever happened.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.packet import Packet

from vivavoce.audio.formats import PCM16_24K

from .opus import PACKET_BYTES, PACKET_MS, PACKET_TICKS, TIME_BASE, OpusEncoder

AHEAD_MS_MAX = 30_000
"""Audio that waits to be played. Beyond it `room` waits; what is put all the same is taken."""

LATE_MS_MAX = 60
"""Delay that is made up for by sending at once. A longer one is left out."""

SETTLING_PACKETS = 5
"""Packets of silence that the encoder makes after sound; from then on the last of them is repeated."""

_SILENCE = bytes(PACKET_BYTES)
_PACKET_S = PACKET_MS / 1000


@dataclass(frozen=True, slots=True)
class Played:
    """How much of the audio under a key has been played."""

    key: str
    ms: int


@dataclass(slots=True, eq=False)
class _Stretch:
    key: str
    audio: bytearray = field(default_factory=bytearray)
    """What is still to be played."""
    played_bytes: int = 0
    is_ended: bool = False
    is_sounding: bool = False


class Outlet(MediaStreamTrack):
    """A track of aiortc. `begun(key)`: the first audio under a key leaves, or more of it after the outlet had run dry;
    `dry(key)`: everything has been played, and that was the last. Both are called from within the event loop."""

    kind = "audio"

    def __init__(
        self,
        *,
        begun: Callable[[str], None] = lambda key: None,
        dry: Callable[[str], None] = lambda key: None,
        ahead_ms_max: int = AHEAD_MS_MAX,
    ) -> None:
        super().__init__()
        self.begun = begun
        self.dry = dry
        self._ahead_bytes_max = PCM16_24K.bytes_of(ahead_ms_max)
        self._stretches: deque[_Stretch] = deque()
        self._last: _Stretch | None = None
        """The one that was put into last, also when it has been played."""
        self._has_room = asyncio.Event()
        self._encoder = OpusEncoder()
        self._silent_packet = b""
        self._silent_packets = 0
        self._origin_s: float | None = None
        self._slot = 0
        """Packets since the origin, those included that a stall has left out."""

    # --- what is to be said -------------------------------------------------------------------------------------------

    def put(self, key: str, pcm24k: bytes) -> None:
        """More to play: PCM16 mono at 24 kHz, whole samples. What comes under another key is played after it."""
        if not pcm24k:
            return
        stretch = self._last
        if stretch is None or stretch.key != key:
            if stretch is not None:
                stretch.is_ended = True
            stretch = self._last = _Stretch(key)
        stretch.audio += pcm24k
        if stretch not in self._stretches:
            self._stretches.append(stretch)

    def end(self, key: str) -> None:
        """There is no more under this key: its last samples, less than a packet, need not wait for others."""
        for stretch in self._stretches:
            if stretch.key == key:
                stretch.is_ended = True

    def unfinished(self) -> tuple[Played, ...]:
        """What is not played to its end, the one that is being played first."""
        return tuple(
            Played(stretch.key, PCM16_24K.ms(stretch.played_bytes // 2)) for stretch in self._stretches if stretch.audio
        )

    def clear(self) -> None:
        """Forget everything that is still to be played; `dry` is not called."""
        self._stretches.clear()
        self._last = None
        self._has_room.set()

    @property
    def waiting_ms(self) -> int:
        """How much waits to be played."""
        return PCM16_24K.ms(self._waiting_bytes // 2)

    @property
    def _waiting_bytes(self) -> int:
        return sum(len(stretch.audio) for stretch in self._stretches)

    async def room(self) -> None:
        """Wait while there is as much as may wait."""
        while self._waiting_bytes >= self._ahead_bytes_max and self.readyState == "live":
            self._has_room.clear()
            await self._has_room.wait()

    def stop(self) -> None:
        """Say nothing any more."""
        super().stop()
        self._has_room.set()

    # --- what leaves --------------------------------------------------------------------------------------------------

    async def recv(self) -> Packet[Any]:
        """The next packet, when its time has come. Raises `MediaStreamError` after the end."""
        if self.readyState != "live":
            raise MediaStreamError
        await self._wait_for_slot()
        packet = Packet(self._next())
        packet.pts = self._slot * PACKET_TICKS
        packet.time_base = TIME_BASE
        self._slot += 1
        return packet

    async def _wait_for_slot(self) -> None:
        clock = asyncio.get_running_loop().time
        now = clock()
        if self._origin_s is None:
            self._origin_s = now
        due = self._origin_s + self._slot * _PACKET_S
        if now < due:
            await asyncio.sleep(due - now)
            now = clock()
        late_s = now - due
        if late_s > LATE_MS_MAX / 1000:
            self._slot += int(late_s / _PACKET_S)

    def _next(self) -> bytes:
        """The next 20 ms, encoded."""
        audio = self._take()
        if audio:
            self._silent_packets = 0
            return self._encoder.encode(audio.ljust(PACKET_BYTES, b"\0"))
        if self._silent_packets < SETTLING_PACKETS:
            self._silent_packets += 1
            self._silent_packet = self._encoder.encode(_SILENCE)
        return self._silent_packet

    def _take(self) -> bytes:
        """Up to a packet of what waits. Less only where there is no more to come, or not yet."""
        taken, last = bytearray(), None
        while self._stretches and len(taken) < PACKET_BYTES:
            stretch = self._stretches[0]
            wanted = PACKET_BYTES - len(taken)
            if len(stretch.audio) < wanted and not stretch.is_ended:
                break  # the rest is on its way; half a packet would be a gap in the middle of a word
            piece = stretch.audio[:wanted]
            if piece:
                del stretch.audio[:wanted]
                stretch.played_bytes += len(piece)
                taken += piece
                last = stretch
                if not stretch.is_sounding:
                    stretch.is_sounding = True
                    self.begun(stretch.key)
            if not stretch.audio:
                self._stretches.popleft()
        if last is not None:
            self._has_room.set()
            if not self._stretches:
                last.is_sounding = False
                self.dry(last.key)
        return bytes(taken)
