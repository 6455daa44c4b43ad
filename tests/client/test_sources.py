from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sound_double import Sound

from vivavoce.audio import g711, wav
from vivavoce.audio.formats import ALAW_8K, PCM16_24K, ULAW_8K, Format, pcm16
from vivavoce.client import sources
from vivavoce.client.microphone import Microphone
from vivavoce.client.sources import chunks
from vivavoce.errors import EngineMissing
from vivavoce.testing.virtual_time import run


def sound(ms: int, rate_hz: int = 24_000) -> bytes:
    return bytes(np.random.default_rng(1).integers(-9_000, 9_000, ms * rate_hz // 1000).astype("<i2").tobytes())


def tone(ms: int, rate_hz: int, hz: int = 600) -> bytes:
    at = np.arange(ms * rate_hz // 1000) / rate_hz
    return bytes(np.rint(np.sin(2 * np.pi * hz * at) * 8_000).astype("<i2").tobytes())


def pitch_hz(pcm: bytes, rate_hz: int = 24_000) -> float:
    spectrum = np.abs(np.fft.rfft(np.frombuffer(pcm, "<i2").astype(float)))
    return float(spectrum.argmax() * rate_hz / (len(pcm) // 2))


def encoded(container: str, codec: str, *, ms: int = 1_000, layout: str = "mono") -> bytes:
    """A tone as a file of this kind."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=48_000, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.frombuffer(tone(ms, 48_000), "<i2").reshape(1, -1), "s16", "mono")
        frame.sample_rate = 48_000
        into = av.AudioResampler(stream.codec_context.format, layout, 48_000, stream.codec_context.frame_size or None)
        for part in [*into.resample(frame), *into.resample(None), None]:
            out.mux(stream.encode(part))
    return file.getvalue()


def film(*, with_sound: bool) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        video: Any = out.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        audio: Any = out.add_stream("pcm_s16le", rate=48_000, layout="mono") if with_sound else None
        for _ in range(10):
            out.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
        out.mux(video.encode(None))
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(np.frombuffer(tone(1_000, 48_000), "<i2").reshape(1, -1), "s16", "mono")
            frame.sample_rate = 48_000
            out.mux(audio.encode(frame))
            out.mux(audio.encode(None))
    return file.getvalue()


class Pipe:
    """A file that gives what it has when it has it, and cannot go back."""

    def __init__(self, data: bytes, most: int = 777) -> None:
        self._file, self._most = io.BytesIO(data), most

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(self._most if size < 0 else min(size, self._most))


def taken(source: Any, **settings: Any) -> list[bytes]:
    async def take() -> list[bytes]:
        return [chunk async for chunk in chunks(source, **settings)]

    return run(take())


def all_of(source: Any, **settings: Any) -> bytes:
    return b"".join(taken(source, **settings))


# --- raw samples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_d2_bytes_come_in_chunks_of_equal_length(kind: Any) -> None:
    cut = taken(kind(sound(250)), chunk_ms=100)
    assert [len(chunk) for chunk in cut] == [4_800, 4_800, 2_400]
    assert b"".join(cut) == sound(250)


async def _later(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0.001)
        yield piece


@settings(max_examples=30)
@given(st.lists(st.integers(0, 1_000), max_size=8), st.booleans(), st.sampled_from([10, 20]))
def test_pieces_may_be_cut_anywhere(lengths: list[int], is_async: bool, chunk_ms: int) -> None:
    audio = os.urandom(sum(lengths))
    ends = np.cumsum([0, *lengths])
    pieces = [audio[begin:end] for begin, end in pairwise(ends)]
    cut = taken(_later(pieces) if is_async else iter(pieces), chunk_ms=chunk_ms)
    assert b"".join(cut) == audio[: len(audio) // 2 * 2]
    assert {len(chunk) for chunk in cut[:-1]} <= {PCM16_24K.bytes_of(chunk_ms)}
    assert all(cut)


def test_raw_samples_of_another_format_are_converted() -> None:
    assert pitch_hz(all_of(tone(500, 16_000), source_format=pcm16(16_000))) == pytest.approx(600, abs=5)
    ulaw = g711.encode(tone(500, 8_000), "ulaw")
    for pieces in (_later([ulaw]), iter([ulaw])):
        out = all_of(pieces, source_format=ULAW_8K)
        assert len(out) == 24_000
        assert pitch_hz(out) == pytest.approx(600, abs=5)


@pytest.mark.parametrize("format", [ULAW_8K, ALAW_8K])
def test_a_session_that_hears_g711_gets_it(format: Format, tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    wav.write(path, tone(500, 24_000), 24_000)
    for source in (path, io.BytesIO(encoded("ogg", "libopus", ms=500))):
        out = all_of(source, format=format, chunk_ms=20)
        assert len(out) == pytest.approx(4_000, abs=80)
        assert pitch_hz(g711.decode(out, format.encoding), 8_000) == pytest.approx(600, abs=5)
    assert all_of(b"\x55" * 480, format=format) == b"\x55" * 480


def test_files_of_raw_samples_are_read_when_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "audio.pcm"
    path.write_bytes(sound(300))
    assert all_of(path, source_format=PCM16_24K) == sound(300)
    assert all_of(Pipe(sound(300)), source_format=PCM16_24K) == sound(300)
    with pytest.raises(ValueError, match=r"audio\.pcm is damaged, or no audio.*given as bytes"):
        all_of(path)


def test_a_microphone_is_a_source() -> None:
    library = Sound()

    async def listen() -> list[bytes]:
        async with Microphone(sound=library) as microphone:
            library.stream.hear(sound(200))
            stream = chunks(microphone, chunk_ms=100)
            heard = [await anext(stream), await anext(stream)]
            await stream.aclose()
            library.stream.hear(sound(20))
            stream = chunks(microphone, chunk_ms=20, format=ULAW_8K)
            for _ in range(10):
                library.stream.hear(sound(20))
            heard.append(await anext(stream))
            return heard

    first, second, third = run(listen())
    assert first + second == sound(200)
    assert len(third) == ULAW_8K.bytes_of(20)


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_plain_wav_file_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plain.wav"
    wav.write(path, sound(300), 24_000)
    for package in ("av", "vivavoce.audio.wav", "vivavoce.audio.convert"):
        monkeypatch.setitem(sys.modules, package, None)
    whole = path.read_bytes()
    for source in (path, str(path), whole, io.BytesIO(whole), Pipe(whole)):
        assert all_of(source) == sound(300)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
def test_a_wav_file_of_another_rate_is_converted(rate_hz: int) -> None:
    out = all_of(wav.encoded(tone(500, rate_hz), rate_hz))
    assert len(out) == pytest.approx(24_000, abs=2)
    assert pitch_hz(out) == pytest.approx(600, abs=5)


@pytest.mark.parametrize("codec", ["pcm_s24le", "pcm_f32le", "pcm_u8", "pcm_s16le", "pcm_mulaw", "adpcm_ima_wav"])
def test_wav_files_of_every_kind_are_read(codec: str) -> None:
    file = encoded("wav", codec, ms=500, layout="stereo")
    for source in (file, Pipe(file, 5_000)):
        assert pitch_hz(all_of(source)) == pytest.approx(600, abs=5)


def test_a_wav_file_too_long_to_be_read_whole_is_decoded_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    file = encoded("wav", "pcm_s24le", ms=500)
    monkeypatch.setattr(sources, "WHOLE_BYTES_MAX", 10_000)
    assert pitch_hz(all_of(file)) == pytest.approx(600, abs=5)


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp3", "libmp3lame"),
        ("ogg", "libopus"),
        ("flac", "flac"),
        ("ipod", "aac"),
        ("mpegts", "aac"),
        ("webm", "libopus"),
    ],
)
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_c5_any_audio_file_is_a_source(container: str, codec: str, layout: str, tmp_path: Path) -> None:
    file = encoded(container, codec, layout=layout)
    path = tmp_path / "audio"
    path.write_bytes(file)
    for source in (path, io.BytesIO(file), Pipe(file, 3_000)):
        out = all_of(source)
        assert len(out) == pytest.approx(48_000, abs=0 if codec == "flac" else 3_500)  # others pad
        assert pitch_hz(out) == pytest.approx(600, abs=5)


def test_the_sound_of_a_film_is_a_source() -> None:
    assert pitch_hz(all_of(io.BytesIO(film(with_sound=True)))) == pytest.approx(600, abs=5)
    with pytest.raises(ValueError, match="the open file has no audio track"):
        all_of(io.BytesIO(film(with_sound=False)))


def test_a_url_is_opened_by_ffmpeg(tmp_path: Path) -> None:
    path = tmp_path / "audio.flac"
    path.write_bytes(encoded("flac", "flac"))
    assert pitch_hz(all_of(f"file://{path}")) == pytest.approx(600, abs=5)
    with pytest.raises(OSError, match=r"file:///nowhere\.flac cannot be read: No such file"):
        all_of("file:///nowhere.flac")


def test_a_playlist_in_a_file_does_not_open_other_files(tmp_path: Path) -> None:
    (tmp_path / "secret.ts").write_bytes(encoded("mpegts", "aac"))
    playlist = tmp_path / "audio.m3u8"
    playlist.write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/secret.ts\n#EXT-X-ENDLIST\n", "utf-8"
    )
    with pytest.raises(ValueError, match=r"audio\.m3u8|not followed"):
        all_of(playlist)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_a_file_that_there_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.wav"):
        all_of(tmp_path / "nothing.wav")


def test_a_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = tmp_path / "noise.mp3"
    path.write_bytes(bytes(20))  # chance makes a file of another kind of it, now and then
    with pytest.raises(ValueError, match=r"noise\.mp3 is damaged, or no audio"):
        all_of(path)
    path.write_bytes(b"RIFF\0\0\0\0WAVEjunk")
    with pytest.raises(ValueError, match=r"noise\.mp3 \(not a whole WAV file: it has no data\) is damaged"):
        all_of(path)


@pytest.mark.parametrize(
    ("missing", "source", "settings"),
    [
        ("av", encoded("flac", "flac"), {}),
        ("vivavoce.audio.wav", encoded("wav", "pcm_s24le"), {}),
        ("vivavoce.audio.convert", wav.encoded(sound(100), 16_000), {}),
        ("vivavoce.audio.g711", encoded("flac", "flac"), {"format": ULAW_8K}),
    ],
)
def test_what_needs_a_package_says_which(
    missing: str, source: bytes, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    import vivavoce.audio

    monkeypatch.delattr(vivavoce.audio, missing.rpartition(".")[2], raising=False)
    with pytest.raises(EngineMissing, match=r'pip install "vivavoce\[files\]"'):
        all_of(io.BytesIO(source), **settings)


def test_what_is_no_audio_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="not 17"):
        chunks(17)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bytes, not 1"):
        all_of([1, 2])
    with pytest.raises(TypeError, match="binary mode"):
        all_of(io.StringIO("text"))
    for chunk_ms in (9, 1_001):
        with pytest.raises(ValueError, match="chunk_ms"):
            chunks(b"", chunk_ms=chunk_ms)
    with pytest.raises(ValueError, match="pace"):
        chunks(b"", pace=0)


# --- time and threads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pace", "seconds"), [(1.0, 9.9), (2.0, 4.95)])
def test_with_a_pace_chunks_come_in_time_and_do_not_drift(pace: float, seconds: float) -> None:
    async def take() -> None:
        loop = asyncio.get_running_loop()
        times = []
        async for _ in chunks(bytes(48_000 * 10), pace=pace):
            times.append(loop.time())
            await asyncio.sleep(0.03)  # what the reader does with it takes time too
        assert times[-1] - times[0] == pytest.approx(seconds, abs=1e-6)
        assert max(np.diff(times)) == pytest.approx(0.1 / pace, abs=1e-6)

    run(take())


def test_without_a_pace_nothing_waits() -> None:
    async def take() -> float:
        async for _ in chunks(bytes(48_000 * 10)):
            pass
        return asyncio.get_running_loop().time()

    assert run(take()) == 0


def test_no_more_is_read_than_is_asked_for_and_what_was_opened_is_closed() -> None:
    given, ended = [], []

    def endless() -> Iterator[bytes]:
        try:
            while True:
                given.append(1)
                yield sound(100)
        finally:
            ended.append(1)

    async def take() -> None:
        stream = chunks(endless(), pace=1.0)
        for _ in range(3):
            await anext(stream)
        await stream.aclose()

    run(take())
    assert len(given) <= 4
    assert ended == [1]
