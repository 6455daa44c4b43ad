"""What is heard by WebRTC: in order, with time kept true, whatever the network does to the packets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from vivavoce.testing.sounds import silence, tone
from vivavoce.testing.virtual_time import run
from vivavoce.transports.webrtc import inlet as inlets
from vivavoce.transports.webrtc.inlet import (
    AHEAD_MS_MAX,
    BEHIND_MS,
    GAP_MS_MAX,
    PATIENCE_MS,
    QUIET_MS,
    QUIET_STEP_MS,
    WAITING_PACKETS_MAX,
    Arrived,
    Inlet,
)
from vivavoce.transports.webrtc.opus import PACKET_BYTES, OpusEncoder

HELD_MS = 21
"""What the resampler may still hold."""


def packets(pcm: bytes, *, number: int = 65_500, timestamp: int = 2**32 - 50_000, source: int = 7) -> list[Arrived]:
    """Audio as it travels. By default both counters wrap on the way."""
    encoder = OpusEncoder()
    return [
        Arrived(
            source,
            (number + n) & 0xFFFF,
            (timestamp + 960 * n) & 0xFFFF_FFFF,
            encoder.encode(pcm[at : at + PACKET_BYTES]),
        )
        for n, at in enumerate(range(0, len(pcm), PACKET_BYTES))
    ]


class Ear:
    """An inlet and what was heard through it."""

    def __init__(self) -> None:
        self.pcm = bytearray()
        self.at_ms: list[int] = []
        self.inlet = Inlet(self._hear)

    def _hear(self, pcm: bytes) -> None:
        self.pcm += pcm
        self.at_ms.append(round(asyncio.get_running_loop().time() * 1000))

    @property
    def ms(self) -> float:
        return len(self.pcm) / 48

    def sounding(self, from_ms: float = 0, to_ms: float | None = None) -> float:
        """Milliseconds in which there is sound."""
        samples = np.frombuffer(bytes(self.pcm), "<i2")[int(from_ms * 24) : None if to_ms is None else int(to_ms * 24)]
        blocks = samples[: len(samples) // 120 * 120].reshape(-1, 120).astype(float)
        return float((np.sqrt((blocks**2).mean(axis=1)) > 1_000).sum() * 5)

    def onset_ms(self, after_ms: float = 0) -> float:
        """Where sound begins."""
        samples = np.abs(np.frombuffer(bytes(self.pcm), "<i2")[int(after_ms * 24) :])
        return after_ms + int(np.argmax(samples > 2_000)) / 24


async def deliver(ear: Ear, arrivals: Iterable[tuple[float, Arrived]]) -> None:
    """Packets at their times, in ms."""
    clock = asyncio.get_running_loop().time
    for at_ms, packet in sorted(arrivals, key=lambda pair: pair[0]):
        await asyncio.sleep(max(at_ms / 1000 - clock(), 0))
        ear.inlet.take(packet)


def on_time(arrived: list[Arrived]) -> list[tuple[float, Arrived]]:
    return [(20.0 * n, packet) for n, packet in enumerate(arrived)]


def listening(main: Callable[[Ear], object]) -> Ear:
    """Run with an ear, and close it."""

    async def timed() -> Ear:
        ear = Ear()
        try:
            await main(ear)  # type: ignore[misc]
            await asyncio.sleep((PATIENCE_MS + 1) / 1000)
        finally:
            ear.inlet.close()
        return ear

    return run(timed())


def test_without_loss_and_jitter_everything_is_heard_at_once() -> None:
    async def main(ear: Ear) -> None:
        await deliver(ear, on_time(packets(tone(1_000) + silence(1_000))))

    ear = listening(main)
    assert 2_000 - HELD_MS <= ear.ms <= 2_000
    assert ear.at_ms[-1] == 1_980
    assert abs(ear.sounding() - 1_000) <= 15
    assert (ear.inlet.lost, ear.inlet.late) == (0, 0)


def test_jitter_of_50_ms_changes_nothing_of_what_is_heard() -> None:
    said = packets(tone(500) + silence(500) + tone(500) + silence(500))
    dice = random.Random(1)

    async def main(ear: Ear) -> None:
        await deliver(ear, [(at_ms + dice.uniform(0, 50), packet) for at_ms, packet in on_time(said)])

    async def plainly(ear: Ear) -> None:
        await deliver(ear, on_time(said))

    ear = listening(main)
    assert bytes(ear.pcm) == bytes(listening(plainly).pcm)
    assert (ear.inlet.lost, ear.inlet.late) == (0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_with_5_percent_lost_and_50_ms_of_jitter_time_stays_true(seed: int) -> None:
    said = packets((tone(1_500) + silence(500)) * 5)
    dice = random.Random(seed)
    kept = [
        (at_ms + (dice.uniform(0, 50) if n else 0), packet)
        for n, (at_ms, packet) in enumerate(on_time(said))
        if dice.random() >= 0.05 or n in (0, len(said) - 1)
    ]

    async def main(ear: Ear) -> None:
        await deliver(ear, kept)

    ear = listening(main)
    assert len(kept) < len(said)
    assert 10_000 - HELD_MS <= ear.ms <= 10_000
    assert ear.inlet.lost == len(said) - len(kept)
    assert max(ear.at_ms) <= 9_980 + 50 + PATIENCE_MS
    for n in range(5):
        onset_ms = ear.onset_ms(2_000 * n - 400 if n else 0)
        assert -10 <= onset_ms - 2_000 * n <= 70, "no turn has moved; its first packets may be lost"
        assert ear.sounding(2_000 * n + 30, 2_000 * n + 1_480) >= 1_400, "a loss is no pause"


def test_a_lost_packet_is_waited_for_and_then_no_longer() -> None:
    said = packets(tone(400))

    async def main(ear: Ear) -> None:
        await deliver(ear, [pair for n, pair in enumerate(on_time(said)) if n != 5])

    ear = listening(main)
    heard_after_100 = min(at for at in ear.at_ms if at > 80)
    assert heard_after_100 == 120 + PATIENCE_MS
    assert ear.inlet.lost == 1


def test_packets_that_come_twice_or_too_late_are_not_heard_again() -> None:
    said = packets(tone(1_000))

    async def main(ear: Ear) -> None:
        arrivals = on_time(said)
        arrivals += [(at_ms + 300, packet) for at_ms, packet in arrivals[5:10]]
        arrivals = [pair for n, pair in enumerate(arrivals) if n != 20]
        arrivals.append((20 * 20 + 400, said[20]))
        await deliver(ear, arrivals)

    ear = listening(main)
    assert 1_000 - HELD_MS <= ear.ms <= 1_000
    assert (ear.inlet.lost, ear.inlet.late) == (1, 6)


def test_a_peer_that_sends_nothing_is_heard_as_silence_so_that_its_turn_ends() -> None:
    """Discontinuous transmission: after the words there are no packets at all, and time goes on."""
    said = packets(tone(500) + silence(3_000) + tone(500))

    async def main(ear: Ear) -> None:
        arrivals = on_time(said)
        await deliver(ear, arrivals[:25])
        await asyncio.sleep(1.0)
        told.append(ear.ms)
        later = [
            (at_ms, Arrived(7, (packet.number - 150) & 0xFFFF, packet.timestamp, packet.payload))
            for at_ms, packet in arrivals[175:]
        ]
        await deliver(ear, later)

    told: list[float] = []
    ear = listening(main)
    assert told[0] >= 500 + 1_000 - BEHIND_MS - QUIET_STEP_MS - HELD_MS, "silence is heard while it lasts"
    assert 4_000 - HELD_MS <= ear.ms <= 4_000
    assert abs(ear.onset_ms(1_000) - 3_500) <= 30


def test_a_stall_of_the_network_loses_nothing_that_comes_in_time() -> None:
    said = packets(tone(1_000))

    async def main(ear: Ear) -> None:
        stalled = [
            (max(at_ms, 20.0 * n if n < 10 else QUIET_MS - 1 + 180), packet)
            for n, (at_ms, packet) in enumerate(on_time(said))
        ]
        await deliver(ear, stalled)

    ear = listening(main)
    assert (ear.inlet.lost, ear.inlet.late) == (0, 0)
    assert 1_000 - HELD_MS <= ear.ms <= 1_000


def test_what_comes_when_its_time_was_filled_with_silence_is_left_out() -> None:
    said = packets(tone(3_000))

    async def main(ear: Ear) -> None:
        arrivals = [
            (at_ms if n < 50 else max(at_ms, 2_000.0), packet) for n, (at_ms, packet) in enumerate(on_time(said))
        ]
        await deliver(ear, arrivals)

    ear = listening(main)
    assert 3_000 - HELD_MS <= ear.ms <= 3_000, "a second of silence has taken the place of a second of speech"
    assert ear.inlet.late > 0


def test_what_is_no_opus_is_a_loss_and_nothing_worse() -> None:
    said = packets(tone(1_000))
    said[10] = Arrived(7, said[10].number, said[10].timestamp, b"\xff" * 40)
    said[11] = Arrived(7, said[11].number, said[11].timestamp, b"")

    async def main(ear: Ear) -> None:
        await deliver(ear, on_time(said))

    ear = listening(main)
    assert 1_000 - HELD_MS <= ear.ms <= 1_000


def test_another_source_and_a_jump_of_numbers_begin_anew() -> None:
    first, second = packets(tone(200)), packets(tone(200), source=8, number=3, timestamp=5)
    third = packets(tone(200), source=8, number=30_000, timestamp=2_000_000_000)

    async def main(ear: Ear) -> None:
        await deliver(ear, on_time([*first, *second, *third]))

    ear = listening(main)
    assert 600 - HELD_MS <= ear.ms <= 600 + PATIENCE_MS
    assert ear.sounding() >= 540


def test_only_so_many_packets_wait_for_one_that_is_missing() -> None:
    said = packets(tone(2_000))

    async def main(ear: Ear) -> None:
        for n, packet in enumerate(said):
            if n != 1:
                ear.inlet.take(packet)  # all at one moment: patience never ends

    ear = listening(main)
    assert ear.inlet.lost == 1
    assert ear.ms >= 2_000 - 20 * WAITING_PACKETS_MAX


def test_after_the_end_nothing_is_heard() -> None:
    async def main(ear: Ear) -> None:
        await deliver(ear, on_time(packets(tone(100))))
        before.append(ear.ms)
        ear.inlet.close()
        await asyncio.sleep(5)
        after.append(ear.ms)

    before: list[float] = []
    after: list[float] = []
    listening(main)
    assert before == after


@pytest.mark.parametrize("jump_ms", [500, 9_000, 59_000])
def test_a_peer_cannot_make_more_time_than_there_is(jump_ms: int) -> None:
    """Each gap of timestamps is filled with silence; a minute of it in each packet would be 3,000 times real time."""
    said = packets(tone(1_000))
    jumping = [
        Arrived(7, packet.number, (packet.timestamp + jump_ms * 48 * n) & 0xFFFF_FFFF, packet.payload)
        for n, packet in enumerate(said)
    ]

    async def main(ear: Ear) -> None:
        await deliver(ear, on_time(jumping))

    ear = listening(main)
    assert ear.ms <= 1_000 + PATIENCE_MS + AHEAD_MS_MAX
    assert ear.sounding() >= 900, "what is said is heard all the same"


def test_a_gap_as_long_as_the_time_that_has_passed_is_filled() -> None:
    """Packets are lost for a while, and come again: where they would have been."""
    said = packets(tone(200) + silence(300) + tone(200))

    async def main(ear: Ear) -> None:
        arrivals = on_time(said)
        await deliver(ear, [*arrivals[:10], *arrivals[25:]])

    ear = listening(main)
    assert 700 - HELD_MS <= ear.ms <= 700
    assert abs(ear.onset_ms(300) - 500) <= 30


def test_a_process_that_was_stopped_for_an_hour_does_not_hear_an_hour_of_silence_at_once() -> None:
    async def main(ear: Ear) -> None:
        loop = asyncio.get_running_loop()
        await deliver(ear, on_time(packets(tone(200))))
        before, clock = ear.ms, loop.time
        monkeypatch.setattr(loop, "time", lambda: clock() + 3_600)
        ear.inlet._fall_silent()
        heard.append(ear.ms - before)
        again = packets(tone(200), number=(65_500 + 10) & 0xFFFF, timestamp=2**32 - 50_000 + 960 * 10 + 3_600 * 48_000)
        for packet in again:
            ear.inlet.take(packet)
        heard.append(ear.sounding(200))
        monkeypatch.undo()

    heard: list[float] = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        listening(main)
    assert heard[0] <= GAP_MS_MAX
    assert heard[1] >= 150, "and the peer is heard again"


def test_numbers_that_jump_cost_no_more_than_others(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    signed = inlets._signed

    def counted(difference: int, bits: int) -> int:
        compared.append((difference, bits))
        return signed(difference, bits)

    monkeypatch.setattr(inlets, "_signed", counted)

    async def main(ear: Ear) -> None:
        first, *others = packets(tone(400))
        ear.inlet.take(first)
        for n, packet in enumerate(others, 1):
            ear.inlet.take(Arrived(7, (first.number + n * 30_000) & 0xFFFF, packet.timestamp, packet.payload))

    ear = listening(main)
    assert ear.inlet.lost > 30_000, "so many are missing"
    assert len(compared) < 20 * WAITING_PACKETS_MAX, "and nobody counts them one by one"
