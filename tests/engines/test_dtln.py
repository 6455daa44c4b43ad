"""The embedded noise reduction: in time with its input, however that is cut; less noise, the same voice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vivavoce.engines import NoiseField, NoiseReductionStream
from vivavoce.engines.dtln import HOP_BYTES, RATE_HZ, Dtln, create
from vivavoce.errors import EngineError, SettingsError

Samples = NDArray[np.float64]

LAG_SAMPLES_MAX = 512
SECONDS = 4
TIMES = np.arange(SECONDS * RATE_HZ) / RATE_HZ
FIELDS: tuple[NoiseField, ...] = ("near_field", "far_field")


def as_pcm(samples: Samples) -> bytes:
    return np.rint(samples * 32_767).clip(-32_768, 32_767).astype("<i2").tobytes()


def as_samples(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2") / 32_767


def noise(level: float = 0.02, seed: int = 3) -> Samples:
    return np.random.default_rng(seed).standard_normal(len(TIMES)) * level


def vowels() -> Samples:
    """Syllables of a gliding voice: harmonics below 3 kHz, three a second."""
    pitch_hz = 120 + 25 * np.sin(2 * np.pi * 0.7 * TIMES)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
    voice: Samples = sum(np.sin(k * phase) / k for k in range(1, 22)) * np.clip(np.sin(2 * np.pi * 3 * TIMES), 0, 1)
    return voice * 0.1


def level_db(samples: Samples) -> float:
    """Root mean square below full scale, when the stream has settled."""
    return float(20 * np.log10(np.sqrt(np.mean(samples[RATE_HZ:] ** 2))))


def reduced(reducer: Dtln, samples: Samples, field: NoiseField = "near_field", strength: float = 1.0) -> Samples:
    return as_samples(reducer.open(field, strength).push(as_pcm(samples)))


@pytest.fixture(scope="module")
def reducer() -> Iterator[Dtln]:
    made = create({})
    asyncio.run(made.warm_up())
    yield made
    asyncio.run(made.close())


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(SettingsError, match="floor"):
        create({"floor": -9})


@pytest.mark.parametrize("decibel", [3, -61, "much"])
def test_an_option_out_of_range_is_named(decibel: object) -> None:
    with pytest.raises(SettingsError, match="near_field_db"):
        create({"near_field_db": decibel})


def test_a_model_that_is_not_there_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"nothing at .*none\.onnx"):
        create({"model": "/none.onnx"})


def test_no_stream_before_warm_up() -> None:
    with pytest.raises(EngineError, match="not warmed up") as caught:
        create({}).open("near_field", 1.0)
    assert caught.value.code == "engine_not_ready"


@pytest.mark.models
def test_no_stream_after_close() -> None:
    made = create({})
    asyncio.run(made.warm_up())
    asyncio.run(made.close())
    with pytest.raises(EngineError, match="not warmed up"):
        made.open("near_field", 1.0)


@pytest.mark.models
def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(EngineError, match=r"model\.onnx cannot be used") as caught:
        asyncio.run(create({"model": str(path)}).warm_up())
    assert caught.value.code == "engine_load_failed"


@pytest.mark.models
@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(reducer: Dtln, strength: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        reducer.open("near_field", strength)


@pytest.mark.models
def test_strength_0_is_the_audio_itself(reducer: Dtln) -> None:
    audio = as_pcm(noise())
    stream = reducer.open("far_field", 0.0)
    assert b"".join(stream.push(audio[at : at + 77]) for at in range(0, len(audio), 77)) == audio


@pytest.mark.models
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("at", [5_000, 5_127, 40_001])
def test_a_click_comes_out_where_it_went_in(reducer: Dtln, field: NoiseField, at: int) -> None:
    click = np.zeros(len(TIMES))
    click[at] = 0.5
    assert int(np.argmax(np.abs(reduced(reducer, click, field)))) == at


@pytest.mark.models
@pytest.mark.parametrize("field", FIELDS)
def test_a_voice_correlates_best_without_a_shift(reducer: Dtln, field: NoiseField) -> None:
    voice = vowels()
    heard = reduced(reducer, voice + noise(), field)
    shifts = range(-40, 41)
    inner = slice(RATE_HZ, len(heard) - 100)
    likeness = [float(np.dot(voice[inner], np.roll(heard, shift)[inner])) for shift in shifts]
    assert shifts[int(np.argmax(likeness))] == 0


@pytest.mark.models
def test_any_cut_gives_the_same_samples(reducer: Dtln) -> None:
    audio = as_pcm(vowels() + noise())[: 2 * RATE_HZ]
    whole = reducer.open("near_field", 0.8).push(audio)
    for seed, longest in enumerate((3, 64, 700, 5_000)):
        rng = np.random.default_rng(seed)
        stream, parts, at = reducer.open("near_field", 0.8), [], 0
        while at < len(audio):
            size = int(rng.integers(0, longest + 1))
            parts.append(stream.push(audio[at : at + size]))
            at += size
        assert b"".join(parts) == whole


@pytest.mark.models
@pytest.mark.parametrize("field", FIELDS)
def test_it_lags_by_at_most_32_ms(reducer: Dtln, field: NoiseField) -> None:
    audio = as_pcm(noise())
    stream, given = reducer.open(field, 1.0), 0
    for taken in range(0, 8_192, 2):
        out = stream.push(audio[taken : taken + 2])
        assert len(out) % HOP_BYTES == 0
        given += len(out)
        assert 0 <= taken + 2 - given < LAG_SAMPLES_MAX * 2


@pytest.mark.models
@pytest.mark.parametrize("level", [0.002, 0.02, 0.2])
def test_noise_goes_down_and_more_so_in_the_far_field(reducer: Dtln, level: float) -> None:
    hiss = noise(level)
    near, far = (level_db(reduced(reducer, hiss, field)) - level_db(hiss) for field in FIELDS)
    assert -10 < near < -7
    assert -13 < far < -10.5


@pytest.mark.models
def test_strength_is_how_much(reducer: Dtln) -> None:
    hiss = noise()
    levels = [level_db(reduced(reducer, hiss, "far_field", strength)) for strength in (0.0, 0.3, 0.6, 1.0)]
    assert levels[0] == pytest.approx(level_db(hiss))
    assert all(after < before - 1.5 for before, after in pairwise(levels))


@pytest.mark.models
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("loudness", [0.1, 1.0, 4.0])
def test_a_voice_keeps_its_level(reducer: Dtln, field: NoiseField, loudness: float) -> None:
    voice = vowels() * loudness
    change_db = level_db(reduced(reducer, voice + noise(0.001 * loudness), field)) - level_db(voice)
    assert abs(change_db) < (2 if field == "near_field" else 4)


@pytest.mark.models
def test_loud_clicks_do_not_silence_a_soft_voice(reducer: Dtln) -> None:
    voice = vowels() * 0.1
    clicks, between = np.zeros(len(TIMES)), np.ones(len(TIMES), bool)
    for at in range(3_000, len(TIMES), 5_000):
        clicks[at : at + 80] = np.random.default_rng(at).uniform(-0.9, 0.9, 80)
        between[at - 600 : at + 680] = False
    heard = reduced(reducer, voice + clicks + noise(0.0001))
    kept = between[: len(heard)]
    assert abs(level_db(heard[kept]) - level_db(voice[: len(heard)][kept])) < 3


@pytest.mark.models
def test_the_floors_are_options() -> None:
    made = create({"near_field_db": 0.0, "far_field_db": -40.0})
    asyncio.run(made.warm_up())
    hiss = noise()
    near, far = (level_db(reduced(made, hiss, field)) - level_db(hiss) for field in FIELDS)
    asyncio.run(made.close())
    assert near == pytest.approx(0, abs=0.01)
    assert far < -15


@pytest.mark.models
def test_silence_stays_silence(reducer: Dtln) -> None:
    assert not np.any(reduced(reducer, np.zeros(len(TIMES))))


@pytest.mark.models
def test_full_scale_does_not_wrap(reducer: Dtln) -> None:
    shouting = (vowels() * 20).clip(-1, 1)
    heard = reduced(reducer, shouting)
    strong = np.abs(heard) > 0.5
    assert strong.mean() > 0.1
    assert np.mean(np.sign(heard[strong]) == np.sign(shouting[: len(heard)][strong])) > 0.99


@pytest.mark.models
def test_streams_do_not_hear_each_other(reducer: Dtln) -> None:
    inputs = [as_pcm(vowels()), as_pcm(noise(0.1)), as_pcm(vowels() * 0.2 + noise(0.05, seed=9))]
    alone = [reducer.open("far_field", 1.0).push(audio) for audio in inputs]
    streams: list[NoiseReductionStream] = [reducer.open("far_field", 1.0) for _ in inputs]
    together = [b""] * len(inputs)
    for at in range(0, len(inputs[0]), 1_000):
        for n, (stream, audio) in enumerate(zip(streams, inputs, strict=True)):
            together[n] += stream.push(audio[at : at + 1_000])
    assert together == alone
