"""What makes a voice another one, on a voice whose pitch and resonance are known."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from vivavoce.engines.voices import DEFAULT, HOP_SAMPLES, RATE_HZ, VOICES, Shape, coloured, reshaped, shape_of

NAMES = [
    "alloy",
    "ash",
    "ballad",
    "cedar",
    "coral",
    "echo",
    "fable",
    "marin",
    "nova",
    "onyx",
    "sage",
    "shimmer",
    "verse",
]
F0_HZ, RESONANCE_HZ = 200.0, 1_500.0
COLUMNS = 120

Floats = NDArray[np.float32]


def sung(f0: Floats) -> Floats:
    """Harmonics of `f0`, loudest around the resonance; silence where `f0` is 0."""
    hz = np.interp((np.arange(len(f0) * HOP_SAMPLES) + 0.5) / HOP_SAMPLES - 0.5, np.arange(len(f0)), f0)
    phase = 2 * np.pi * np.cumsum(np.maximum(hz, 40.0)) / RATE_HZ
    tones = (np.exp(-(((h * F0_HZ - RESONANCE_HZ) / 400) ** 2)) * np.cos(h * phase) for h in range(1, 40))
    return np.asarray(0.1 * sum(tones) * (hz > 40), np.float32)


def steady() -> Floats:
    return np.full(COLUMNS, F0_HZ, np.float32)


def inside(audio: Floats) -> Floats:
    return audio[len(audio) // 4 : -len(audio) // 4]


def pitch_hz(audio: Floats) -> float:
    """By the lag at which the middle of it is most like itself, a short one rather than a long."""
    middle = inside(audio)[:2_400]
    lags = np.arange(RATE_HZ // 450, RATE_HZ // 70)
    likeness = [np.corrcoef(middle[lag:], middle[:-lag])[0, 1] for lag in lags] - 1e-3 * lags
    return float(RATE_HZ / lags[int(np.argmax(likeness))])


def resonance_hz(audio: Floats) -> float:
    """Where the middle of the power is."""
    power = np.abs(np.fft.rfft(inside(audio))) ** 2
    return float(power @ np.fft.rfftfreq(len(inside(audio)), 1 / RATE_HZ) / power.sum())


def test_every_voice_of_the_api_is_there() -> None:
    assert sorted(VOICES) == NAMES


def test_no_two_voices_are_meant_to_be_alike() -> None:
    for (first, a), (second, b) in combinations(VOICES.items(), 2):
        apart = [max(x / y, y / x) for x, y in ((a.pitch, b.pitch), (a.formants, b.formants))]
        assert apart[0] >= 1.08 or apart[1] >= 1.06, (first, second)


def test_an_unknown_voice_is_the_default_and_that_is_left_as_it_is() -> None:
    assert shape_of("nobody") is shape_of(DEFAULT)
    audio, spectrum = sung(steady()), tuple(np.ones((601, 2), np.float32) for _ in range(6))
    assert np.array_equal(reshaped(audio, steady(), shape_of("nobody")), audio)
    assert all(a is b for a, b in zip(coloured(spectrum, shape_of("nobody")), spectrum, strict=True))


@pytest.mark.parametrize("pitch", [0.45, 0.7, 1.3])
@pytest.mark.parametrize("formants", [0.8, 1.0, 1.1])
def test_pitch_and_formants_move_each_by_itself(pitch: float, formants: float) -> None:
    new = reshaped(sung(steady()), steady(), Shape(pitch=pitch, formants=formants))
    assert len(new) == pytest.approx(COLUMNS * HOP_SAMPLES, abs=2)
    assert pitch_hz(new) == pytest.approx(pitch * F0_HZ, rel=0.02)
    assert resonance_hz(new) == pytest.approx(formants * RESONANCE_HZ, rel=0.04)


@pytest.mark.parametrize("stretch", [0.5, 0.8, 1.3, 4.0])
def test_what_is_stretched_keeps_its_pitch_and_its_loudness(stretch: float) -> None:
    audio = sung(steady())
    new = reshaped(audio, steady(), Shape(), stretch)
    assert len(new) == round(len(audio) * stretch)
    assert pitch_hz(new) == pytest.approx(F0_HZ, rel=0.01)
    assert np.std(inside(new)) == pytest.approx(np.std(inside(audio)), rel=0.05)


def test_melody_moves_f0_about_its_middle() -> None:
    f0 = np.geomspace(160, 250, COLUMNS).astype(np.float32)
    audio = sung(f0)
    flat = reshaped(audio, f0, Shape(melody=0.0))
    assert [pitch_hz(part) for part in np.array_split(flat, 3)] == pytest.approx([F0_HZ] * 3, rel=0.02)
    usual = [pitch_hz(part) for part in np.array_split(audio, 3)]
    lively = [pitch_hz(part) for part in np.array_split(reshaped(audio, f0, Shape(melody=1.5)), 3)]
    assert lively == pytest.approx([F0_HZ * (hz / F0_HZ) ** 1.5 for hz in usual], rel=0.03)


def test_gain_is_in_decibels() -> None:
    audio = sung(steady())
    assert np.std(reshaped(audio, steady(), Shape(gain_db=6.0206))) == pytest.approx(2 * np.std(audio), rel=1e-3)


def test_noise_stays_noise() -> None:
    """No pitch is put where there is none, and pieces that are used twice are as loud as what they come from."""
    audio = np.random.default_rng(1).normal(0, 0.1, COLUMNS * HOP_SAMPLES).astype(np.float32)
    new = reshaped(audio, np.zeros(COLUMNS, np.float32), Shape(pitch=0.5), 1.2)
    assert 0.07 < np.std(inside(new)) < 0.11
    likeness = np.correlate(inside(new), inside(new), "full")[len(inside(new)) - 1 :]
    assert likeness[30:].max() < 0.35 * likeness[0]


@pytest.mark.parametrize("columns", [0, 1, 2])
@pytest.mark.parametrize("f0", [0.0, 41.0, 200.0])
def test_very_short_speech_is_no_trouble(columns: int, f0: float) -> None:
    audio = np.ones(columns * HOP_SAMPLES, np.float32)
    new = reshaped(audio, np.full(columns, f0, np.float32), VOICES["onyx"])
    assert len(new) == pytest.approx(len(audio), abs=2)
    assert np.isfinite(new).all()


def test_breath_is_added_above_a_kilohertz_and_tilt_leans_on_it() -> None:
    spectrum = tuple(np.full((601, 3), level, np.float32) for level in (0.0, 0.0, -9.0, -3.0, 0.0, 200.0))
    _, _, breath, *_ = coloured(spectrum, Shape(breath_db=6.0))
    assert np.all(breath[:50] < -8.9)
    assert breath[200:] == pytest.approx(-3.0 + 0.69, abs=0.01)
    pulses, _, noise, residue, *rest = coloured(spectrum, Shape(tilt_db=-6.0206))
    for before, after in zip((0.0, -9.0, -3.0), (pulses, noise, residue), strict=True):
        assert after[50] == pytest.approx(before, abs=1e-3)
        assert after[200] == pytest.approx(before - np.log(4), abs=1e-3)
    assert all(a is b for a, b in zip(rest, spectrum[4:], strict=True))
