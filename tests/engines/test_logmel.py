"""Log-mel features against their definition, computed the long way, and against values of another implementation."""

from __future__ import annotations

import numpy as np
import pytest

from vivavoce.engines.logmel import HOP_SAMPLES, log_mel, mel_bands

NOISE = np.random.default_rng(7).standard_normal(16_000).astype(np.float32) * 0.1


@pytest.mark.parametrize(
    ("band", "bin_", "weight"),
    [(0, 1, 0.02486259), (10, 10, 0.01990822), (40, 44, 0.00651819), (79, 190, 0.00223205), (79, 199, 0.00044876)],
)
def test_the_bands_are_those_that_the_model_was_trained_with(band: int, bin_: int, weight: float) -> None:
    """The values come from another implementation of the same filter bank (16 kHz, 400 points, 80 bands)."""
    assert mel_bands(80)[band, bin_] == pytest.approx(weight, abs=1e-7)


@pytest.mark.parametrize("bands", [80, 128])
def test_every_band_has_unit_area_and_one_peak(bands: int) -> None:
    filters = mel_bands(bands)
    assert filters.shape == (bands, 201)
    assert filters.min() == 0
    assert np.all(np.diff(filters.argmax(axis=1)) >= 0)
    wide = filters[bands // 2 :].sum(axis=1) * 40.0  # Hz per bin; a narrow triangle meets too few bins to be measured
    assert wide == pytest.approx(1.0, abs=0.12)


def test_a_column_is_the_log_power_of_its_window() -> None:
    """One column by the definition: a windowed discrete Fourier transform written as a sum."""
    column = 50
    start = column * HOP_SAMPLES - 200
    n = np.arange(400)
    window = NOISE[start : start + 400] * (0.5 - 0.5 * np.cos(2 * np.pi * n / 400))
    power = np.array([abs(np.sum(window * np.exp(-2j * np.pi * k * n / 400))) ** 2 for k in range(201)])
    decades = np.log10(mel_bands(80) @ power)
    features = log_mel(NOISE, 100)
    # Features are relative to the loudest point only below 8 decades under it, which noise does not reach.
    assert features[:, column] == pytest.approx((decades + 4) / 4, abs=1e-4)


def test_silence_follows_the_samples_and_has_a_floor() -> None:
    features = log_mel(NOISE, 300)
    assert features.shape == (80, 300)
    assert features[:, 150:].max() == pytest.approx(features.max() - 2.0)
    assert np.isfinite(log_mel(np.zeros(10, np.float32), 10)).all()


def test_samples_beyond_the_columns_are_left_out() -> None:
    assert log_mel(NOISE, 40)[:, :38] == pytest.approx(log_mel(NOISE, 100)[:, :38], abs=1e-5)
