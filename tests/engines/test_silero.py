"""The embedded voice activity detector on a voice, on silence and on noise."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from vivavoce.audio.resample import resample
from vivavoce.engines.hibari import Hibari
from vivavoce.engines.silero import FRAME_BYTES, RATE_HZ, Silero, create
from vivavoce.errors import EngineError, SettingsError

SILENCE = bytes(RATE_HZ * 2)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(SettingsError, match="treshold"):
        create({"treshold": 0.5})


def test_a_model_that_is_not_there_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"nothing at .*none\.onnx"):
        create({"model": "/none.onnx"})


def test_no_stream_before_warm_up() -> None:
    with pytest.raises(EngineError, match="not warmed up"):
        create({}).open()


@pytest.mark.models
def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(EngineError, match=r"model\.onnx cannot be used") as caught:
        asyncio.run(create({"model": str(path)}).warm_up())
    assert caught.value.code == "engine_load_failed"


@pytest.mark.models
def test_it_tells_a_voice_from_everything_else() -> None:
    async def listen() -> None:
        vad = create({})
        await vad.warm_up()
        voice = await _voice()
        noise = (np.random.default_rng(3).standard_normal(2 * RATE_HZ) * 1_000).astype("<i2").tobytes()
        try:
            found = vad.open().push(SILENCE + voice + SILENCE)
            second = RATE_HZ * 2 // FRAME_BYTES
            assert max(found[: second - 3]) < 0.3
            assert np.median(found[second : len(found) - second]) > 0.9
            assert max(found[-second // 2 :]) < 0.2
            assert max(vad.open().push(noise)) < 0.4
            _hears_the_same_in_parts(vad, voice)
            _keeps_streams_apart(vad, voice)
            await _hears_the_same_in_company(vad, voice)
        finally:
            await vad.close()
        with pytest.raises(EngineError):
            vad.open()

    asyncio.run(listen())


def _hears_the_same_in_parts(vad: Silero, voice: bytes) -> None:
    """Whatever the parts, even of odd length, and with one frame at the end incomplete."""
    whole = vad.open().push(voice)
    assert len(whole) == len(voice) // FRAME_BYTES
    stream = vad.open()
    parts: list[float] = []
    for start in range(0, len(voice), 701):
        parts += stream.push(voice[start : start + 701])
    assert parts == whole


def _keeps_streams_apart(vad: Silero, voice: bytes) -> None:
    alone = vad.open().push(voice)
    speaking, silent = vad.open(), vad.open()
    together: list[float] = []
    for start in range(0, len(voice), FRAME_BYTES):
        together += speaking.push(voice[start : start + FRAME_BYTES])
        heard: Sequence[float] = silent.push(bytes(FRAME_BYTES))
        assert max(heard) < 0.3
    assert together == pytest.approx(alone[: len(together)])


async def _hears_the_same_in_company(vad: Silero, voice: bytes) -> None:
    """To the bit, whoever else is in the batch; so turns cannot depend on it."""
    noise = (np.random.default_rng(4).standard_normal(RATE_HZ) * 2_000).astype("<i2").tobytes()
    said = [voice, noise + voice, voice[701:], SILENCE + voice, bytes(len(voice))]
    streams = [vad.open() for _ in said]
    found: list[list[float]] = [[] for _ in said]

    async def hear(number: int, step: int) -> None:
        audio = said[number]
        for start in range(0, len(audio), step):
            found[number] += await streams[number].score(audio[start : start + step])

    batch = streams[0]._batch
    runs, frames = batch.runs, batch.frames
    await asyncio.gather(*(hear(number, 640 + 701 * number) for number in range(len(said))))
    assert batch.frames - frames > 2 * (batch.runs - runs), "they were scored together"
    assert found == [list(vad.open().push(audio)) for audio in said]


async def _voice() -> bytes:
    voice = Hibari()
    await voice.warm_up()
    try:
        text = "The quick brown fox jumps over the lazy dog."
        audio = b"".join([piece async for piece in voice.speak(text, "heart", 1.0)])
        return resample(audio, voice.rate_hz, RATE_HZ)
    finally:
        await voice.close()
