"""Loudspeaker and microphone against a double of the sound library, whose thread the tests play."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sound_double import Sound, Stream, description

from vivavoce.audio import g711
from vivavoce.audio.formats import PCM16_24K, ULAW_8K
from vivavoce.client.devices import Device, devices
from vivavoce.client.echo import EchoCanceller
from vivavoce.client.loudspeaker import BLOCK_MS, Loudspeaker, play
from vivavoce.client.microphone import QUEUED_MS_MAX, Microphone, record, record_as_stream
from vivavoce.client.player import Heard, Player, VirtualPlayer
from vivavoce.errors import EngineError, EngineMissing, SettingsError
from vivavoce.testing.virtual_time import run

BLOCK = PCM16_24K.samples(BLOCK_MS)
BLOCK_S = BLOCK_MS / 1000


def sound(ms: int, seed: int = 1) -> bytes:
    return bytes(np.random.default_rng(seed).integers(-9_000, 9_000, PCM16_24K.samples(ms)).astype("<i2").tobytes())


def tone(ms: int, hz: int, rate_hz: int = 24_000) -> bytes:
    at = np.arange(ms * rate_hz // 1000) / rate_hz
    return bytes(np.rint(np.sin(2 * np.pi * hz * at) * 8_000).astype("<i2").tobytes())


def pitch_hz(pcm16: bytes, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(np.frombuffer(pcm16, "<i2").astype(float)))
    return float(spectrum.argmax() * rate_hz / (len(pcm16) // 2))


# --- which devices ----------------------------------------------------------------------------------------------------


def test_devices_are_listed_by_direction() -> None:
    library = Sound()
    assert [device.index for device in devices(sound=library)] == [0, 1, 2]
    assert [device.index for device in devices("output", sound=library)] == [1, 2]
    assert devices("input", sound=library)[1] == Device(2, "USB Headset", inputs=1, outputs=2, rate_hz=44_100)


@pytest.mark.parametrize(("wanted", "index"), [(None, 1), (2, 2), ("headset", 2), ("Built-in", 1)])
def test_a_device_is_chosen_by_index_or_by_a_part_of_its_name(wanted: int | str | None, index: int) -> None:
    library = Sound()
    with Loudspeaker(wanted, sound=library):
        assert library.stream.settings["device"] == index


@pytest.mark.parametrize("wanted", ["Bluetooth", 0, 7])
def test_a_device_that_there_is_not_gets_the_list_of_those_that_there_are(wanted: int | str) -> None:
    with pytest.raises(SettingsError, match=r"(?s)is none of the output devices.*1: Built-in Output; 2: USB Headset"):
        Loudspeaker(wanted, sound=Sound()).open()


def test_a_name_that_fits_several_is_not_guessed() -> None:
    two = [description(0, "Monitor left", outputs=2), description(1, "Monitor right", outputs=2)]
    with pytest.raises(SettingsError, match="could be 0 or 1"):
        Loudspeaker("monitor", sound=Sound(two)).open()


def test_one_device_behind_several_interfaces_of_the_system_is_one() -> None:
    same = [description(0, "Headset", outputs=2), description(1, "Headset", outputs=2, host=1)]
    library = Sound(same)
    Loudspeaker("headset", sound=library).open()
    assert library.stream.settings["device"] == 0


def test_a_machine_without_devices_says_so() -> None:
    with pytest.raises(SettingsError, match=r"names no output device.*no output device that PortAudio can see"):
        Loudspeaker(sound=Sound([], defaults={})).open()


def test_a_device_that_cannot_be_opened_says_which_and_why() -> None:
    with pytest.raises(EngineError, match=r"1 \(Built-in Output\) cannot be opened: Invalid sample rate"):
        Loudspeaker(sound=Sound(rates_hz=[])).open()


@pytest.mark.parametrize("package", ["sounddevice", "numpy", "soxr"])
def test_without_the_extra_it_says_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    library = None if package == "sounddevice" else Sound()
    for make in (Loudspeaker, Microphone):
        with pytest.raises(EngineMissing, match=rf'{package}.*pip install "vivavoce\[mic\]"'):
            make(sound=library)


def test_without_portaudio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineMissing, match="libportaudio2"):
        Loudspeaker()


def test_nothing_heavy_is_loaded_before_it_is_used() -> None:
    program = (
        "import sys; from vivavoce.client import devices, echo, loudspeaker, microphone, player, sources;"
        "print({'numpy', 'soxr', 'av', 'sounddevice', 'pywebrtc_audio'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


# --- the loudspeaker --------------------------------------------------------------------------------------------------


@pytest.fixture
def library() -> Sound:
    return Sound()


@pytest.fixture
def loudspeaker(library: Sound) -> Iterator[Loudspeaker]:
    with Loudspeaker(sound=library) as loudspeaker:
        yield loudspeaker


def test_it_plays_what_it_is_given_and_else_silence(library: Sound, loudspeaker: Loudspeaker) -> None:
    assert library.stream.ask() == bytes(2 * BLOCK)
    loudspeaker.play("item_1", sound(25), PCM16_24K)
    played = b"".join(library.stream.ask() for _ in range(4))
    assert played == sound(25) + bytes(2 * PCM16_24K.samples(15))


def test_b7_heard_is_what_the_device_has_played_and_not_what_it_was_given(
    library: Sound, loudspeaker: Loudspeaker
) -> None:
    stream = library.stream
    loudspeaker.play("item_1", sound(200), PCM16_24K)
    for _ in range(6):  # 60 ms were given, and a latency of 50 ms is not heard yet
        stream.ask()
    assert loudspeaker.heard("item_1") == PCM16_24K.samples(10)
    stream.time += 7 / 24_000
    player: Player = loudspeaker
    assert player.stop() == (Heard("item_1", PCM16_24K.samples(10) + 7),)
    assert stream.ask() == bytes(2 * BLOCK)


def test_what_is_given_but_not_heard_is_still_being_played(library: Sound, loudspeaker: Loudspeaker) -> None:
    stream = library.stream
    loudspeaker.play("item_1", sound(10), PCM16_24K)
    loudspeaker.play("item_2", sound(10), PCM16_24K)
    for _ in range(6):
        stream.ask()
    assert loudspeaker.is_playing
    assert loudspeaker.remaining_s == pytest.approx(0.01)
    assert loudspeaker.stop() == (Heard("item_2", 0),)
    assert not loudspeaker.is_playing
    loudspeaker.play("item_2", sound(10), PCM16_24K)  # late
    assert stream.ask() == bytes(2 * BLOCK)


def test_a_device_that_stands_still_hears_nothing_more(library: Sound, loudspeaker: Loudspeaker) -> None:
    loudspeaker.play("item_1", sound(100), PCM16_24K)
    library.stream.ask()
    library.stream.time += 5  # what it was not given it cannot have played
    assert loudspeaker.heard("item_1") == BLOCK


def test_items_are_heard_one_after_the_other(library: Sound, loudspeaker: Loudspeaker) -> None:
    for item_id in ("item_1", "item_2", "item_3"):
        loudspeaker.play(item_id, sound(15), PCM16_24K)
    for _ in range(7):
        library.stream.ask()
    assert loudspeaker.stop() == (Heard("item_2", PCM16_24K.samples(5)), Heard("item_3", 0))
    assert loudspeaker.heard("item_1") == PCM16_24K.samples(15)


def test_a_gap_is_not_heard(library: Sound, loudspeaker: Loudspeaker) -> None:
    loudspeaker.play("item_1", sound(5), PCM16_24K)
    for _ in range(10):
        library.stream.ask()
    loudspeaker.play("item_1", sound(20), PCM16_24K)
    for _ in range(6):
        library.stream.ask()
    assert loudspeaker.stop() == (Heard("item_1", PCM16_24K.samples(15)),)


def test_a_library_that_tells_no_times_is_measured_by_its_latency(library: Sound, loudspeaker: Loudspeaker) -> None:
    library.stream.states_times = False
    loudspeaker.play("item_1", sound(200), PCM16_24K)
    for _ in range(6):
        library.stream.ask()
    assert loudspeaker.heard("item_1") == PCM16_24K.samples(10)


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
def test_a_device_with_a_rate_of_its_own_gets_it_and_is_counted_in_the_items_samples(rate_hz: int) -> None:
    library = Sound([description(0, "Output", outputs=2, rate_hz=rate_hz)], rates_hz=[rate_hz], defaults={"output": 0})
    with Loudspeaker(sound=library) as loudspeaker:
        stream = library.stream
        loudspeaker.play("item_1", tone(400, 1_000), PCM16_24K)
        played = b"".join(stream.ask() for _ in range(30))
        assert stream.rate_hz == rate_hz
        assert pitch_hz(played[rate_hz // 10 * 2 :], rate_hz) == pytest.approx(1_000, abs=10)
        assert loudspeaker.heard("item_1") == pytest.approx(PCM16_24K.samples(250), abs=1)
        for _ in range(30):
            stream.ask()
        assert not loudspeaker.is_playing
        assert loudspeaker.heard("item_1") == PCM16_24K.samples(400)


def test_b7_stop_is_silent_within_a_block_also_where_audio_is_converted() -> None:
    library = Sound(rates_hz=[48_000])
    with Loudspeaker(sound=library) as loudspeaker:
        loudspeaker.play("item_1", sound(400), PCM16_24K)
        assert any(b"".join(library.stream.ask() for _ in range(10)))
        loudspeaker.stop()
        assert not any(b"".join(library.stream.ask() for _ in range(30)))
        loudspeaker.play("item_2", sound(100), PCM16_24K)
        for _ in range(25):
            library.stream.ask()
        assert loudspeaker.heard("item_2") == PCM16_24K.samples(100)


def test_a_device_without_mono_gets_the_same_on_both_sides() -> None:
    library = Sound(channels=[2])
    with Loudspeaker(sound=library) as loudspeaker:
        loudspeaker.play("item_1", sound(10), PCM16_24K)
        left, right = np.frombuffer(library.stream.ask(), "<i2").reshape(-1, 2).T
    assert left.tobytes() == right.tobytes() == sound(10)


def test_g711_is_decoded_and_counted_in_its_own_samples(library: Sound, loudspeaker: Loudspeaker) -> None:
    ulaw = g711.encode(tone(300, 500, 8_000), "ulaw")
    loudspeaker.play("item_1", ulaw, ULAW_8K)
    played = b"".join(library.stream.ask() for _ in range(25))
    assert pitch_hz(played, 24_000) == pytest.approx(500, abs=10)
    assert loudspeaker.stop() == (Heard("item_1", pytest.approx(ULAW_8K.samples(200), abs=1)),)


def test_items_of_two_formats_follow_one_another(library: Sound, loudspeaker: Loudspeaker) -> None:
    loudspeaker.play("item_1", g711.encode(tone(100, 500, 8_000), "ulaw"), ULAW_8K)
    loudspeaker.play("item_2", sound(100), PCM16_24K)
    loudspeaker.play("item_3", g711.encode(tone(100, 500, 8_000), "ulaw"), ULAW_8K)
    played = b"".join(library.stream.ask() for _ in range(25))
    assert played.index(sound(100)) == pytest.approx(2 * 2_400, abs=4)
    library.stream.time += 0.5
    assert loudspeaker.heard("item_1") == 800
    assert loudspeaker.heard("item_2") == 2_400
    assert loudspeaker.stop()[0].item_id == "item_3"


def test_an_item_after_one_of_another_format_is_counted_from_where_it_began(
    library: Sound, loudspeaker: Loudspeaker
) -> None:
    loudspeaker.play("item_1", g711.encode(tone(100, 500, 8_000), "ulaw"), ULAW_8K)
    loudspeaker.play("item_2", sound(100), PCM16_24K)
    for _ in range(19):  # 190 ms, of which 50 are not heard yet
        library.stream.ask()
    assert loudspeaker.stop() == (Heard("item_2", pytest.approx(PCM16_24K.samples(40), abs=2)),)


def test_the_level_is_that_of_the_last_block(library: Sound, loudspeaker: Loudspeaker) -> None:
    assert loudspeaker.level == -120
    loudspeaker.play("item_1", (16_384).to_bytes(2, "little") * BLOCK, PCM16_24K)
    library.stream.ask()
    assert loudspeaker.level == pytest.approx(-6.02, abs=0.01)
    library.stream.ask()
    assert loudspeaker.level == -120


def test_the_echo_canceller_is_told_what_is_played() -> None:
    library = Sound(rates_hz=[48_000])
    told: list[bytes] = []

    class Listening(EchoCanceller):
        def push_far(self, pcm16: bytes) -> None:
            told.append(pcm16)

    with Loudspeaker(sound=library, echo=Listening()) as loudspeaker:
        loudspeaker.play("item_1", tone(500, 700), PCM16_24K)
        for _ in range(40):
            library.stream.ask()
    assert sum(map(len, told)) == pytest.approx(2 * 40 * BLOCK, abs=100)
    assert pitch_hz(b"".join(told)[12_000:], 24_000) == pytest.approx(700, abs=10)


def test_it_opens_at_the_first_play_and_again_after_it_was_closed_or_the_device_was_lost(library: Sound) -> None:
    loudspeaker = Loudspeaker(sound=library)
    assert not loudspeaker.is_playing
    assert loudspeaker.stop() == ()
    loudspeaker.play("item_1", sound(100), PCM16_24K)
    assert library.stream.calls == ["start"]
    loudspeaker.close()
    assert library.stream.calls == ["start", "abort", "close"]
    loudspeaker.play("item_2", sound(100), PCM16_24K)
    for _ in range(10):
        library.stream.ask()
    library.stream.end()  # the plug was pulled
    assert not loudspeaker.is_playing
    loudspeaker.play("item_2", sound(20), PCM16_24K)
    assert len(library.streams) == 3
    assert library.stream.ask() == sound(100)[10 * 2 * BLOCK :] + sound(20)[: 2 * BLOCK]
    loudspeaker.close()


def test_c5_play_plays_anything_to_its_end(library: Sound) -> None:
    async def listen() -> None:
        player = VirtualPlayer(keep_s_max=60)
        before_s = asyncio.get_running_loop().time()
        await play(sound(12_000), player=player)
        assert asyncio.get_running_loop().time() - before_s == pytest.approx(12, abs=0.05)
        assert b"".join(player.played.values()) == sound(12_000)

    run(listen())


def test_play_ends_at_once_when_it_is_cancelled() -> None:
    async def listen() -> None:
        player = VirtualPlayer(keep_s_max=60)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await play(sound(3_000), player=player)
        await asyncio.sleep(5)
        assert b"".join(player.played.values()) == sound(3_000)[:48_000]

    run(listen())


def test_play_does_not_wait_for_a_device_that_plays_nothing(library: Sound) -> None:
    async def listen() -> None:
        with pytest.raises(EngineError, match="does not play any more"):
            await play(sound(1_000), player=Loudspeaker(sound=library))

    run(listen())


# --- the microphone ---------------------------------------------------------------------------------------------------


def test_chunks_come_as_they_were_recorded(library: Sound) -> None:
    async def listen() -> list[bytes]:
        async with Microphone(sound=library, chunk_ms=40) as microphone:
            library.stream.hear(sound(100))
            heard = [await anext(microphone), await anext(microphone)]
            waiting = asyncio.ensure_future(anext(microphone))
            await asyncio.sleep(0)
            library.stream.hear(sound(20, seed=2))
            return [*heard, await waiting]

    first, second, third = run(listen())
    assert first + second + third == sound(100) + sound(20, seed=2)
    assert len(first) == PCM16_24K.bytes_of(40)
    assert library.stream.calls == ["start", "abort", "close"]


@pytest.mark.parametrize(("rate_hz", "channels"), [(48_000, 1), (44_100, 2)])
def test_a_microphone_with_a_rate_of_its_own_is_converted(rate_hz: int, channels: int) -> None:
    there = [description(0, "Microphone", inputs=2, rate_hz=rate_hz)]
    library = Sound(there, rates_hz=[rate_hz], channels=[channels])
    recorded = np.frombuffer(tone(500, 900, rate_hz), "<i2").repeat(channels).astype("<i2")
    recorded[channels - 1 :: channels] = recorded[::channels]

    async def listen() -> bytes:
        async with Microphone(sound=library) as microphone:
            library.stream.hear(bytes(recorded.tobytes()))
            return b"".join([await anext(microphone) for _ in range(20)])

    assert pitch_hz(run(listen())[4_800:], 24_000) == pytest.approx(900, abs=10)


def test_a_reader_that_is_too_slow_loses_the_oldest(library: Sound) -> None:
    async def listen() -> None:
        async with Microphone(sound=library, chunk_ms=100) as microphone:
            for at in range(30):
                library.stream.hear(sound(100, seed=at))
            assert microphone.dropped_chunks == 30 - QUEUED_MS_MAX // 100
            assert await anext(microphone) == sound(100, seed=10)

    run(listen())


def test_a_gate_is_silence_while_the_player_plays_and_a_while_longer(library: Sound) -> None:
    async def listen() -> None:
        player = VirtualPlayer()
        async with Microphone(sound=library, gate=player, gate_tail_ms=60) as microphone:
            stream = library.stream

            async def heard() -> bytes:
                stream.hear(sound(20))
                await asyncio.sleep(0.02)
                return await anext(microphone)

            assert await heard() == sound(20)
            player.play("item_1", sound(30), PCM16_24K)
            silent = [await heard() for _ in range(5)]
            assert silent == [bytes(PCM16_24K.bytes_of(20))] * 5
            assert await heard() == sound(20)

    run(listen())


def test_with_an_echo_canceller_the_loudspeaker_is_not_heard() -> None:
    library, echo = Sound(), EchoCanceller()

    async def listen() -> bytes:
        out = b""
        far = np.frombuffer(sound(4_000), "<i2") // 3
        async with Loudspeaker(sound=library, echo=echo) as loudspeaker:
            outgoing = library.stream
            async with Microphone(sound=library, echo=echo) as microphone:
                loudspeaker.play("item_1", bytes(far.astype("<i2").tobytes()), PCM16_24K)
                line = bytes(PCM16_24K.bytes_of(30))  # the way through the air
                for _ in range(200):
                    line += outgoing.ask() + outgoing.ask()
                    library.stream.hear(line[: 4 * BLOCK])
                    line = line[4 * BLOCK :]
                    out += await anext(microphone)
        return out

    late = np.frombuffer(run(listen())[-48_000:], "<i2").astype(float)
    assert 20 * np.log10(3_000 / np.sqrt((late**2).mean())) > 20


def test_the_level_of_a_microphone_is_that_of_its_last_chunk(library: Sound) -> None:
    async def listen() -> None:
        async with Microphone(sound=library) as microphone:
            assert microphone.level == -120
            library.stream.hear((16_384).to_bytes(2, "little") * PCM16_24K.samples(20))
            assert microphone.level == pytest.approx(-6.02, abs=0.01)

    run(listen())


def test_a_microphone_that_is_closed_ends_and_one_that_is_lost_says_so(library: Sound) -> None:
    async def listen() -> None:
        microphone = Microphone(sound=library)
        with pytest.raises(EngineError, match="open the microphone first"):
            await anext(microphone)
        async with microphone:
            library.stream.hear(sound(20))
            with pytest.raises(EngineError, match="open already"):
                await microphone.__aenter__()
        assert [chunk async for chunk in microphone] == [sound(20)]
        async with microphone:
            waiting = asyncio.ensure_future(anext(microphone))
            await asyncio.sleep(0)
            library.stream.end()
            with pytest.raises(EngineError, match="is it still there"):
                await waiting

    run(listen())


def test_blocks_after_the_event_loop_has_gone_are_nobodys(library: Sound) -> None:
    async def listen() -> Microphone:
        return await Microphone(sound=library).__aenter__()

    microphone = run(listen())
    library.stream.hear(sound(20))
    assert microphone.dropped_chunks == 0


def test_what_a_microphone_cannot_do_is_refused_by_name(library: Sound) -> None:
    for chunk_ms in (19, 101):
        with pytest.raises(ValueError, match="chunk_ms"):
            Microphone(sound=library, chunk_ms=chunk_ms)
    with pytest.raises(ValueError, match="16000"):
        Microphone(sound=library, echo=EchoCanceller(16_000))


def test_c5_record_takes_so_many_seconds_and_gives_the_device_back(library: Sound) -> None:
    async def listen() -> bytes:
        recording = asyncio.ensure_future(record(0.05, sound=library))
        await asyncio.sleep(1)
        library.stream.hear(sound(200))
        return await recording

    assert run(listen()) == sound(200)[: PCM16_24K.bytes_of(50)]
    assert library.stream.calls == ["start", "abort", "close"]
    with pytest.raises(ValueError, match="seconds"):
        run(record(0, sound=library))


def test_c5_record_as_stream_gives_the_device_back_when_it_is_closed(library: Sound) -> None:
    async def listen() -> None:
        stream = record_as_stream(sound=library, chunk_ms=100)
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(1)
        library.stream.hear(sound(100))
        assert await first == sound(100)
        await stream.aclose()
        assert library.stream.calls[-1] == "close"

    run(listen())


def test_a_microphone_is_opened_again_on_another_event_loop(library: Sound) -> None:
    microphone = Microphone(sound=library)

    async def first_chunk() -> bytes:
        async with microphone:
            waiting = asyncio.ensure_future(anext(microphone))
            await asyncio.sleep(0)
            library.stream.hear(sound(20))
            return await waiting

    assert run(first_chunk()) == run(first_chunk()) == sound(20)


def test_a_device_that_opens_and_does_not_start_is_given_back_and_may_be_tried_again(
    library: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(stream: Stream) -> None:
        raise library.PortAudioError("the host does not like it")

    microphone, loudspeaker = Microphone(sound=library), Loudspeaker(sound=library)

    async def opening() -> None:
        async with microphone:
            pass

    with monkeypatch.context() as broken:
        broken.setattr(Stream, "start", fail)
        with pytest.raises(EngineError, match="cannot be opened: the host does not like it"):
            loudspeaker.open()
        with pytest.raises(EngineError, match="cannot be opened: the host does not like it"):
            run(opening())
    assert [stream.calls for stream in library.streams] == [["close"], ["close"]]
    run(opening())
    loudspeaker.open()
    loudspeaker.close()


def test_b7_what_was_heard_on_a_device_that_was_lost_was_heard(library: Sound) -> None:
    loudspeaker = Loudspeaker(sound=library)
    loudspeaker.play("item_1", sound(100), PCM16_24K)
    for _ in range(10):
        library.stream.ask()
    library.stream.time += library.stream.latency
    assert loudspeaker.heard("item_1") > 0
    heard = loudspeaker.heard("item_1")
    library.stream.end()  # the plug was pulled
    loudspeaker.play("item_1", sound(100, seed=2), PCM16_24K)
    library.stream.ask()
    assert loudspeaker.stop() == (Heard("item_1", heard),)
    loudspeaker.close()
