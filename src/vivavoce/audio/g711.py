"""G.711 both ways: the 8-bit logarithmic codes of telephony, as tables computed from their definition.

A code is a sign, a three-bit segment and a four-bit step within it; steps double in width from segment to segment. A
code stands for the middle of its step, and is the code of every sample within. PCM is signed 16-bit little-endian at
any rate; one sample is one byte of G.711.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Law = Literal["ulaw", "alaw"]

_STEPS = np.arange(128)  # segment and step, the code without its sign
# Bits that are inverted on the line. After undoing that, the top bit set means negative for µ-law, positive for A-law.
_INVERTED = {"ulaw": 0xFF, "alaw": 0x55}
_TOP_BIT_NEGATIVE = {"ulaw": True, "alaw": False}


def _magnitudes(law: Law, half_steps: int) -> NDArray[np.int64]:
    """Where each step begins (`half_steps` 0) or has its middle (1), rising, on the scale of 16-bit samples."""
    segment, step = _STEPS >> 4, _STEPS & 15
    within = 2 * step + half_steps
    if law == "ulaw":
        return ((within + 32) << (segment + 2)) - 132
    return np.where(segment == 0, within << 3, (within + 32) << (segment.clip(1) + 2))


@cache
def _samples(law: Law) -> NDArray[np.int16]:
    """The sample that each of the 256 codes stands for."""
    plain = np.arange(256) ^ _INVERTED[law]
    magnitude = _magnitudes(law, 1)[plain & 0x7F]
    negative = (plain >= 0x80) == _TOP_BIT_NEGATIVE[law]
    samples: NDArray[np.int16] = np.where(negative, -magnitude, magnitude).astype("<i2")
    return samples


@cache
def _codes(law: Law) -> NDArray[np.uint8]:
    """The code of each of the 65,536 samples, by the sample's bits taken as unsigned.

    As in ITU-T G.191, the magnitude of a negative sample is its one's complement: zero counts as positive.
    """
    sample = np.arange(65_536).astype("<u2").view("<i2").astype(np.int64)
    magnitude = np.where(sample < 0, ~sample, sample)
    step = np.searchsorted(_magnitudes(law, 0), magnitude, side="right") - 1
    top = np.where((sample < 0) == _TOP_BIT_NEGATIVE[law], 0x80, 0)
    return ((step | top) ^ _INVERTED[law]).astype(np.uint8)


def decode(audio: bytes, law: Law) -> bytes:
    """G.711 as PCM16."""
    return bytes(_samples(law)[np.frombuffer(audio, np.uint8)].tobytes())


def encode(pcm16: bytes, law: Law) -> bytes:
    """PCM16 as G.711. Raises `ValueError` for a length that is not whole samples."""
    return bytes(_codes(law)[np.frombuffer(pcm16, "<u2")].tobytes())
