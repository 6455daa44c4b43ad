"""How loud audio is, in dB below full scale: for meters, and to listen by measurement."""

from __future__ import annotations

import math
import sys
from array import array

FLOOR_DB = -120.0
"""What silence measures."""


def peak_db(pcm: bytes) -> float:
    """Level of the loudest sample of PCM16 mono, in dBFS; `FLOOR_DB` for silence or nothing."""
    samples = _samples(pcm)
    return _db(max(max(samples), -min(samples))) if samples else FLOOR_DB


def rms_db(pcm: bytes) -> float:
    """Root mean square level of PCM16 mono, in dBFS; `FLOOR_DB` for silence or nothing."""
    samples = _samples(pcm)
    return _db(math.sqrt(sum(sample * sample for sample in samples) / len(samples))) if samples else FLOOR_DB


def _samples(pcm: bytes) -> array[int]:
    samples = array("h", pcm[: len(pcm) // 2 * 2])
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def _db(amplitude: float) -> float:
    return max(20 * math.log10(amplitude / 32768), FLOOR_DB) if amplitude else FLOOR_DB
