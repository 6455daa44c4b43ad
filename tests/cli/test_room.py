"""The room without sound hardware, on virtual time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from vivavoce.audio.formats import PCM16_24K
from vivavoce.cli.room import TICK_MS, Loudspeaker, Microphone
from vivavoce.cli.talk import paced
from vivavoce.testing.virtual_time import run

TICK_BYTES = PCM16_24K.bytes_of(TICK_MS)


def sound(ms: int) -> bytes:
    return b"\x01\x10" * PCM16_24K.samples(ms)


async def pass_time(seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


def test_the_microphone_sends_in_real_time_and_never_stops() -> None:
    async def record() -> None:
        clock = asyncio.get_running_loop().time
        sent: list[tuple[float, bytes]] = []
        began = clock()

        async def send(chunk: bytes) -> None:
            sent.append((round(clock() - began, 3), chunk))

        microphone = Microphone(send)
        recording = asyncio.create_task(microphone.run())
        await asyncio.sleep(0)
        await microphone.say(sound(50))
        said_at = clock() - began
        await pass_time(0.1)
        recording.cancel()
        assert round(said_at, 3) == 0.06
        assert [at for at, _ in sent] == [round(0.02 * number, 3) for number in range(1, len(sent) + 1)]
        assert all(len(chunk) == TICK_BYTES for _, chunk in sent)
        assert b"".join(chunk for _, chunk in sent)[: len(sound(50))] == sound(50)
        assert max(abs(byte) for byte in memoryview(sent[-1][1]).cast("h")) < 10
        assert bytes(microphone.track.audio) == b"".join(chunk for _, chunk in sent)

    run(record())


def test_the_loudspeaker_knows_what_was_heard() -> None:
    async def play() -> None:
        speaker = Loudspeaker()
        speaker.play("a", sound(300))
        speaker.play("a", sound(200))
        speaker.play("b", sound(100))
        assert speaker.plays_until_ms == 600
        await pass_time(0.4)
        assert speaker.heard_ms("a") == 400
        assert speaker.heard_ms("b") == 0
        assert speaker.total_ms("a") == 500
        assert speaker.stop() == ["a", "b"]
        speaker.play("a", sound(900))
        await pass_time(1)
        assert speaker.heard_ms("a") == 400
        assert speaker.heard_ms("b") == 0
        assert speaker.stop() == []
        assert speaker.plays_until_ms == 400
        assert len(speaker.track().audio) == len(sound(400))

    run(play())


def test_late_audio_begins_when_it_comes() -> None:
    async def play() -> None:
        speaker = Loudspeaker()
        await pass_time(1)
        speaker.play("a", sound(100))
        track = speaker.track()
        assert len(track.audio) == len(sound(1100))
        assert not any(track.audio[: len(sound(1000))])

    run(play())


def test_paced_audio_comes_when_it_would_have_been_recorded() -> None:
    async def listen() -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        came = [(round(clock() - began, 3), len(chunk)) async for chunk in paced(sound(50))]
        assert came == [(0.02, TICK_BYTES), (0.04, TICK_BYTES), (0.06, TICK_BYTES // 2)]

    run(listen())
