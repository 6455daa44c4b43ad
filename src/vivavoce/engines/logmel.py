"""Log-mel spectra as Whisper was trained on them: 16 kHz samples in, one column per 10 ms out.

Window 25 ms, step 10 ms, mel bands on Slaney's scale (even below 1 kHz, logarithmic above), each of unit area. The
transcriber computes them here with numpy alone, so that no audio toolkit comes along. Pure functions of their input.
"""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["HOP_SAMPLES", "compute_on_one_thread", "log_mel", "mel_bands"]

RATE_HZ = 16_000
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160

LINEAR_HZ_MAX = 1_000.0
"""Up to here a mel is a fixed number of Hz; above, a fixed ratio."""
HZ_PER_MEL = 200.0 / 3.0
LOG_STEP = math.log(6.4) / 27.0

POWER_MIN = 1e-10
RANGE_DECADES = 8.0
"""What lies further below the loudest point counts as this far below it."""


@lru_cache(maxsize=4)
def mel_bands(bands: int) -> NDArray[np.float32]:
    """Triangles that sum a power spectrum of 201 bins into `bands` mel bands: shape (bands, 201)."""
    edges_hz = _mel_to_hz(np.linspace(0.0, _hz_to_mel(RATE_HZ / 2), bands + 2))
    bins_hz = np.fft.rfftfreq(WINDOW_SAMPLES, 1.0 / RATE_HZ)
    widths_hz = np.diff(edges_hz)
    rising = (bins_hz - edges_hz[:-2, None]) / widths_hz[:-1, None]
    falling = (edges_hz[2:, None] - bins_hz) / widths_hz[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    unit_area = 2.0 / (edges_hz[2:] - edges_hz[:-2])
    return np.asarray(triangles * unit_area[:, None], np.float32)


def log_mel(samples: NDArray[np.float32], columns: int, bands: int = 80) -> NDArray[np.float32]:
    """Features of `samples` (-1 to 1) followed by silence: shape (bands, columns), 10 ms each.

    Samples beyond `columns` are left out. Values are Whisper's: roughly -1 to 1, relative to the loudest point.
    """
    length = columns * HOP_SAMPLES
    padded = np.zeros(length + WINDOW_SAMPLES, np.float32)
    half = WINDOW_SAMPLES // 2
    kept = samples[:length]
    padded[half : half + len(kept)] = kept
    padded[:half] = padded[half + 1 : 2 * half + 1][::-1]
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES][:columns]
    spectrum = np.fft.rfft(windows * _hann(), axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    decades = np.log10(np.maximum(mel_bands(bands) @ power.T, POWER_MIN))
    return np.asarray((np.maximum(decades, decades.max() - RANGE_DECADES) + 4.0) / 4.0, np.float32)


def compute_on_one_thread() -> None:
    """Tell numpy's BLAS, in this whole process, to use one thread: its own wait for one another by burning the cores.

    Where it is another BLAS than the one in numpy's wheels, its own settings hold.
    """
    for path in Path(np.__file__).parent.parent.glob("numpy.libs/*openblas*"):
        setter = getattr(ctypes.CDLL(str(path)), "scipy_openblas_set_num_threads64_", None)
        if setter is not None:
            setter(1)


@lru_cache(maxsize=1)
def _hann() -> NDArray[np.float32]:
    """Periodic Hann window."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES), np.float32)


def _hz_to_mel(hz: float) -> float:
    if hz < LINEAR_HZ_MAX:
        return hz / HZ_PER_MEL
    return LINEAR_HZ_MAX / HZ_PER_MEL + math.log(hz / LINEAR_HZ_MAX) / LOG_STEP


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    knee = LINEAR_HZ_MAX / HZ_PER_MEL
    curved = LINEAR_HZ_MAX * np.exp(LOG_STEP * (mel - knee))
    return np.where(mel < knee, mel * HZ_PER_MEL, curved)
