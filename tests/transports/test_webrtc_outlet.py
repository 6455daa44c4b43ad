"""What is said by WebRTC: paced by the clock, an item at a time, and known to the sample how far."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError

from vivavoce.audio.formats import PCM16_24K
from vivavoce.testing.sounds import silence, tone
from vivavoce.testing.virtual_time import run
from vivavoce.transports.webrtc import Outlet, Played
from vivavoce.transports.webrtc.opus import OpusDecoder

TICKS_OF_A_PACKET = 960


class Listener:
    """Takes packets as a sender does, and knows when each came, on the loop's clock."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.told: list[tuple[int, str, str]] = []
        self.packets: list[tuple[float, int, bytes]] = []
        self._decoder = OpusDecoder()
        outlet.begun = lambda key: self.told.append((self.ms, "begun", key))
        outlet.dry = lambda key: self.told.append((self.ms, "dry", key))

    @property
    def ms(self) -> int:
        return round(asyncio.get_running_loop().time() * 1000)

    async def listen(self, packets: int) -> None:
        for _ in range(packets):
            packet = await self.outlet.recv()
            assert packet.pts is not None
            self.packets.append((asyncio.get_running_loop().time(), packet.pts, bytes(packet)))

    def sounding(self) -> list[bool]:
        """Of each packet, whether there is sound in it."""
        pcm = [np.frombuffer(self._decoder.decode(payload), "<i2") for _, _, payload in self.packets]
        return [bool(np.sqrt(np.mean(samples.astype(float) ** 2)) > 3_000) for samples in pcm]


def test_packets_leave_every_20_ms_by_an_absolute_clock() -> None:
    async def main() -> None:
        listener = Listener(Outlet())
        await listener.listen(50)
        await asyncio.sleep(0.013)  # whoever sends was busy: the next ones make up for it
        await listener.listen(2_950)
        times = [round(at_s * 1000, 3) for at_s, _, _ in listener.packets]
        assert times[:50] == [20.0 * n for n in range(50)]
        assert times[-1] == 20.0 * 2_999, "a minute later there is no drift"
        assert [pts for _, pts, _ in listener.packets] == [TICKS_OF_A_PACKET * n for n in range(3_000)]

    run(main())


def test_after_a_stall_nothing_is_sent_in_a_burst_and_timestamps_are_those_of_the_clock() -> None:
    async def main() -> None:
        listener = Listener(Outlet())
        await listener.listen(10)
        await asyncio.sleep(1.0)
        await listener.listen(10)
        at_ms = [round(at_s * 1000) for at_s, _, _ in listener.packets[10:]]
        assert at_ms[0] == 1180
        assert len([ms for ms in at_ms if ms == 1180]) <= 2, "no burst"
        for at_s, pts, _ in listener.packets:
            assert abs(pts - at_s * 48_000) <= TICKS_OF_A_PACKET

    run(main())


def test_an_item_is_played_as_long_as_it_is_and_it_is_told_when() -> None:
    async def main() -> None:
        listener = Listener(Outlet())
        await listener.listen(5)
        listener.outlet.put("a", tone(200))
        listener.outlet.end("a")
        assert listener.outlet.unfinished() == (Played("a", 0),)
        await listener.listen(20)
        assert listener.told == [(100, "begun", "a"), (280, "dry", "a")]
        assert listener.sounding() == [False] * 5 + [True] * 10 + [False] * 10
        assert listener.outlet.unfinished() == ()

    run(main())


def test_what_is_not_played_yet_is_known_to_the_packet_and_can_be_cleared() -> None:
    async def main() -> None:
        listener = Listener(Outlet())
        listener.outlet.put("a", tone(300))
        listener.outlet.put("b", tone(100))
        await listener.listen(7)
        assert listener.outlet.unfinished() == (Played("a", 140), Played("b", 0))
        assert listener.outlet.waiting_ms == 260
        listener.outlet.clear()
        assert listener.outlet.unfinished() == ()
        await listener.listen(10)
        assert listener.sounding() == [True] * 7 + [False] * 10
        assert [name for _, name, _ in listener.told] == ["begun"], "what was cleared is not reported as played"

    run(main())


def test_items_follow_each_other_without_a_gap() -> None:
    async def main() -> None:
        listener = Listener(Outlet())
        listener.outlet.put("a", tone(130))
        listener.outlet.put("b", tone(130))
        listener.outlet.end("b")
        await listener.listen(20)
        assert listener.sounding() == [True] * 13 + [False] * 7
        assert listener.told == [(0, "begun", "a"), (120, "begun", "b"), (240, "dry", "b")]

    run(main())


def test_less_than_a_packet_waits_for_more_or_for_the_end() -> None:
    async def main() -> None:
        listener = Listener(Outlet())
        listener.outlet.put("a", tone(45))
        await listener.listen(10)
        assert listener.outlet.unfinished() == (Played("a", 40),)
        assert listener.told == [(0, "begun", "a")]
        listener.outlet.put("a", tone(15))
        await listener.listen(5)
        assert listener.told[-1] == (200, "dry", "a")
        listener.outlet.put("a", tone(5))
        listener.outlet.end("a")
        await listener.listen(5)
        assert listener.told[-2:] == [(300, "begun", "a"), (300, "dry", "a")]

    run(main())


def test_after_it_ran_dry_an_item_goes_on_where_it_was() -> None:
    async def main() -> None:
        listener = Listener(Outlet())
        listener.outlet.put("a", tone(100))
        await listener.listen(10)
        listener.outlet.put("a", tone(200))
        await listener.listen(3)
        assert listener.outlet.unfinished() == (Played("a", 160),)
        assert listener.told == [(0, "begun", "a"), (80, "dry", "a"), (200, "begun", "a")]

    run(main())


def test_who_says_more_than_may_wait_waits_until_some_of_it_is_played() -> None:
    async def main() -> None:
        outlet = Outlet(ahead_ms_max=1_000)
        listener = Listener(outlet)
        waited: list[int] = []

        async def speak() -> None:
            for _ in range(600):  # a minute, as fast as an engine gives it
                await outlet.room()
                outlet.put("a", tone(100))
                waited.append(outlet.waiting_ms)
            outlet.end("a")

        speaking = asyncio.create_task(speak())
        await listener.listen(3_100)
        await speaking
        assert 1_000 <= max(waited) <= 1_100, "the limit, and the piece that went over it"
        (begun_ms, *_), dry = listener.told
        assert dry == (begun_ms + 59_980, "dry", "a"), "it never ran dry in between"

    run(main())


def test_whoever_waits_for_room_is_let_go_at_the_end_and_there_are_no_more_packets() -> None:
    async def main() -> None:
        outlet = Outlet(ahead_ms_max=20)
        outlet.put("a", tone(100))
        waiting = asyncio.create_task(outlet.room())
        await asyncio.sleep(0)
        outlet.stop()
        await waiting
        with pytest.raises(MediaStreamError):
            await outlet.recv()

    run(main())


def test_what_arrives_is_what_was_said() -> None:
    """The sound survives Opus: the same pitch, the same level."""

    async def main() -> None:
        listener = Listener(Outlet())
        listener.outlet.put("a", tone(1_000) + silence(20))
        listener.outlet.end("a")
        await listener.listen(50)
        decoder = OpusDecoder()
        heard = np.frombuffer(b"".join(decoder.decode(payload) for _, _, payload in listener.packets), "<i2")
        said = np.frombuffer(tone(1_000), "<i2")
        middle = heard[12_000:36_000].astype(float)
        spectrum = np.abs(np.fft.rfft(middle))
        assert abs(np.argmax(spectrum) * 48_000 / len(middle) - 300) < 3
        assert 0.8 < np.std(middle) / np.std(said) < 1.2
        assert len(heard) == 48_000 * len(said) // PCM16_24K.rate_hz

    run(main())
