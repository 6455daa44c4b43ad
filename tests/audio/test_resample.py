import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.audio.resample import HELD_MS_MAX, Resampler, resample

RATES = [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000]


def tone(hz: float, rate_hz: int, ms: int, level: int = 10_000) -> bytes:
    time = np.arange(rate_hz * ms // 1000) / rate_hz
    return np.rint(level * np.sin(2 * np.pi * hz * time)).astype("<i2").tobytes()


def samples(pcm16: bytes) -> np.ndarray:
    return np.frombuffer(pcm16, "<i2").astype(float)


@settings(max_examples=60, deadline=None)
@given(
    from_hz=st.sampled_from(RATES),
    to_hz=st.sampled_from(RATES),
    cuts=st.lists(st.integers(0, 3_000), min_size=1, max_size=12),
)
def test_the_output_lasts_exactly_as_long_as_the_input_however_it_is_cut(from_hz, to_hz, cuts):
    audio = tone(300, from_hz, 200)
    whole = audio[: sum(cuts)]
    resampler, out, position = Resampler(from_hz, to_hz), [], 0
    for cut in cuts:  # odd cuts go through the middle of a sample
        out.append(resampler.push(whole[position : position + cut]))
        position += cut
    streamed = b"".join(out) + resampler.flush()
    assert all(len(piece) % 2 == 0 for piece in out)
    exact = len(whole) // 2 * to_hz / from_hz
    assert abs(len(streamed) // 2 - exact) <= 0.5
    assert np.abs(samples(streamed) - samples(resample(whole[: len(whole) & ~1], from_hz, to_hz))).max(initial=0) <= 1


@pytest.mark.parametrize(("from_hz", "to_hz"), [(24_000, 16_000), (16_000, 24_000), (8_000, 24_000), (48_000, 8_000)])
def test_a_tone_keeps_its_pitch_and_level(from_hz, to_hz):
    heard = samples(resample(tone(1_000, from_hz, 500), from_hz, to_hz))
    wanted = samples(tone(1_000, to_hz, 500))
    middle = slice(to_hz // 20, -to_hz // 20)
    assert np.abs(heard[middle] - wanted[middle]).max() < 30


def test_what_the_target_rate_cannot_hold_is_removed():
    heard = samples(resample(tone(7_000, 24_000, 500), 24_000, 8_000))
    assert np.abs(heard[400:-400]).max() < 30


def test_silence_stays_silence():
    assert resample(bytes(48_000), 24_000, 16_000) == bytes(32_000)


def test_loud_audio_is_clipped_and_does_not_wrap():
    square = (np.sign(np.sin(np.arange(24_000) / 10)) * 32_767).astype("<i2").tobytes()
    heard = samples(resample(square, 24_000, 48_000))
    assert heard.max() == 32_767
    assert heard.min() == -32_768


@pytest.mark.parametrize("quality", ["LQ", "MQ", "HQ"])
@pytest.mark.parametrize(
    ("from_hz", "to_hz"),
    [(24_000, 16_000), (16_000, 24_000), (8_000, 24_000), (24_000, 8_000), (8_000, 16_000), (8_000, 48_000)],
)
def test_a_stream_holds_back_no_more_than_it_says(quality, from_hz, to_hz):
    resampler, got = Resampler(from_hz, to_hz, quality), 0
    chunk = tone(300, from_hz, 1)
    for given_ms in range(1, 2_001):
        got += len(resampler.push(chunk)) // 2
        assert given_ms - got * 1000 / to_hz <= HELD_MS_MAX[quality]


def test_a_flushed_resampler_begins_a_new_stream():
    resampler = Resampler(24_000, 16_000)
    audio = tone(440, 24_000, 100)
    first = resampler.push(audio) + resampler.flush()
    second = resampler.push(audio) + resampler.flush()
    assert first == second


def test_equal_rates_pass_through_in_whole_samples():
    resampler = Resampler(16_000, 16_000)
    assert resampler.push(b"\x01\x02\x03") == b"\x01\x02"
    assert resampler.push(b"\x04\x05") == b"\x03\x04"
    assert resampler.flush() == b""  # half a sample is dropped
    assert resampler.push(b"\x06\x07") == b"\x06\x07"


@pytest.mark.parametrize(("from_hz", "to_hz"), [(0, 16_000), (16_000, -1)])
def test_a_rate_must_be_positive(from_hz, to_hz):
    with pytest.raises(ValueError, match="positive"):
        Resampler(from_hz, to_hz)
