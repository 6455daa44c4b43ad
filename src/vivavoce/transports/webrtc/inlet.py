"""What one end of a WebRTC connection hears: RTP packets in, PCM16 at 24 kHz out, in order and with time kept true.

Packets that overtake each other are put in order; one that is missing is waited for, and then its time is filled.
Nothing is delayed where nothing is missing. Where a peer falls silent by sending nothing, silence is heard at the pace
of the clock, so that turns end. Invariant: the audio given so far is as long as the RTP timestamps say, to the sample,
whatever was lost, late, doubled or broken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from vivavoce.audio.formats import PCM16_24K
from vivavoce.audio.resample import Resampler

from .concealment import Concealment
from .opus import DECODED_HZ, OpusDecoder

PATIENCE_MS = 80
"""Time that a missing packet is waited for once a later one is there: jitter of 50 ms, and some."""

WAITING_PACKETS_MAX = 64
"""Packets that wait for one before them. Beyond it that one is given up."""

QUIET_MS = 400
"""Time without any packet after which silence is heard."""

BEHIND_MS = 200
"""How far such silence stays behind the clock, so that a packet which comes late still finds its place."""

QUIET_STEP_MS = 100
"""Length of the pieces of such silence."""

GAP_MS_MAX = 10_000
"""A jump of timestamps that is filled, and silence that is heard at once where this process has stood still. A longer
one is a peer that has begun to count anew."""

AHEAD_MS_MAX = 1_000
"""How far jumps of timestamps may bring what is heard before the clock: a few bytes of a peer must not become minutes
of silence, all of which somebody listens to."""

_TICKS_PER_MS = DECODED_HZ // 1000


@dataclass(frozen=True, slots=True)
class Arrived:
    """One packet of RTP. `timestamp` counts at 48 kHz and wraps at 2³², `number` wraps at 2¹⁶."""

    source: int
    number: int
    timestamp: int
    payload: bytes


class Inlet:
    """One stream that is heard. `hear` gets audio as it can be heard, from within the event loop."""

    def __init__(self, hear: Callable[[bytes], None]) -> None:
        self._hear = hear
        self._decoder = OpusDecoder()
        self._resampler = Resampler(DECODED_HZ, PCM16_24K.rate_hz, "LQ")
        self._concealment = Concealment(DECODED_HZ)
        self._source: int | None = None
        self._wanted = 0
        """The number of the packet that comes next."""
        self._heard_to = 0
        """The timestamp up to which everything has been heard."""
        self._waiting: dict[int, tuple[float, Arrived]] = {}
        """What has come before its turn, and when."""
        self._patience: asyncio.TimerHandle | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._arrived_s = 0.0
        self._began_s: float | None = None
        self._given = 0
        """All that was heard, in samples."""
        self._silence_ms = 0
        """Silence that was heard since the last packet."""
        self.lost = 0
        """Packets that were given up."""
        self.late = 0
        """Packets that came when their time had been filled, or twice."""

    def take(self, packet: Arrived) -> None:
        """A packet has arrived."""
        self._arrived_s, self._silence_ms = asyncio.get_running_loop().time(), 0
        if self._began_s is None:
            self._began_s = self._arrived_s
        if self._quiet is None:
            self._quiet = self._after(QUIET_MS, self._fall_silent)
        if packet.source != self._source:
            self._begin(packet)
        ahead = _signed(packet.number - self._wanted, 16)
        if ahead < 0:
            self.late += 1
            return
        if ahead >= WAITING_PACKETS_MAX:
            self._give_up_until(packet.number - WAITING_PACKETS_MAX + 1)
        self._waiting[packet.number] = self._arrived_s, packet
        self._release()

    def close(self) -> None:
        """Hear nothing any more."""
        for timer in (self._patience, self._quiet):
            if timer is not None:
                timer.cancel()
        self._waiting.clear()
        self._hear = lambda pcm: None

    # --- order --------------------------------------------------------------------------------------------------------

    def _begin(self, packet: Arrived) -> None:
        self._source, self._wanted, self._heard_to = packet.source, packet.number, packet.timestamp
        self._waiting.clear()

    def _release(self) -> None:
        """Hear what is next, as far as it is there; wait for what is missing."""
        while (found := self._waiting.pop(self._wanted, None)) is not None:
            self._wanted = (self._wanted + 1) & 0xFFFF
            self._sound(found[1])
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._waiting:
            since_s = min(arrived_s for arrived_s, _ in self._waiting.values())
            loop = asyncio.get_running_loop()
            self._patience = loop.call_at(since_s + PATIENCE_MS / 1000, self._lose_patience)

    def _lose_patience(self) -> None:
        self._patience = None
        self._give_up_until(min(self._waiting, key=lambda number: _signed(number - self._wanted, 16)))
        self._release()

    def _give_up_until(self, number: int) -> None:
        """What is missing before this number does not come any more."""
        until = _signed(number - self._wanted, 16)
        there = sorted((ahead, n) for n in self._waiting if (ahead := _signed(n - self._wanted, 16)) < until)
        self.lost += until - len(there)
        self._wanted = number & 0xFFFF
        for _, found in there:
            self._sound(self._waiting.pop(found)[1])

    # --- time ---------------------------------------------------------------------------------------------------------

    def _sound(self, packet: Arrived) -> None:
        gap = _signed(packet.timestamp - self._heard_to, 32)
        if abs(gap) > GAP_MS_MAX * _TICKS_PER_MS or gap > self._room_for_gap():
            self._heard_to, gap = packet.timestamp, 0
        try:
            audio = self._decoder.decode(packet.payload) if packet.payload else b""
        except ValueError:
            self.lost += 1
            return  # the gap that it leaves is filled before the next
        if not audio:
            return
        if gap > 0:
            self._give(self._concealment.fill(gap) if gap * 1000 <= QUIET_MS * DECODED_HZ else bytes(2 * gap))
        elif gap < 0:
            audio = audio[-2 * gap :]
            self.late += not audio
        if audio:
            self._give(self._concealment.join(audio))

    def _room_for_gap(self) -> float:
        """How many samples may be filled in now."""
        assert self._began_s is not None
        passed_ms = (asyncio.get_running_loop().time() - self._began_s) * 1000
        return max((passed_ms + AHEAD_MS_MAX) * _TICKS_PER_MS - self._given, 0)

    def _give(self, audio: bytes) -> None:
        self._heard_to = (self._heard_to + len(audio) // 2) & 0xFFFF_FFFF
        self._given += len(audio) // 2
        if pcm := self._resampler.push(audio):
            self._hear(pcm)

    def _fall_silent(self) -> None:
        """Look whether the peer still sends; where it does not, time goes on all the same."""
        quiet_ms = (asyncio.get_running_loop().time() - self._arrived_s) * 1000
        if quiet_ms + 1 < QUIET_MS:
            self._quiet = self._after(QUIET_MS - quiet_ms, self._fall_silent)
            return
        due_ms = round(quiet_ms) - BEHIND_MS - self._silence_ms
        self._silence_ms += due_ms
        self._given += max(due_ms - GAP_MS_MAX, 0) * _TICKS_PER_MS
        self._give(self._concealment.join(bytes(2 * min(due_ms, GAP_MS_MAX) * _TICKS_PER_MS)))
        self._quiet = self._after(QUIET_STEP_MS, self._fall_silent)

    def _after(self, ms: float, do: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(ms / 1000, do)


def _signed(difference: int, bits: int) -> int:
    """A difference of numbers that wrap: which of two is ahead."""
    half = 1 << (bits - 1)
    return ((difference + half) & ((1 << bits) - 1)) - half
