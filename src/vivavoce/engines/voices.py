"""Thirteen voices out of one: what makes each of them, and how the one voice is made into it.

hibari gives a spectrum per 12.5 ms and the fundamental frequency F0. Breath and tilt are put into the spectrum before
it becomes sound (`coloured`). Pitch, formants, melody and pace are put into the sound after it (`reshaped`): it is cut
into pieces of two periods around the pulses of the voice, which lie where F0 says, and the pieces are laid out anew,
closer together or further apart. Pieces keep their shape, so the sound stays as clean as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

__all__ = ["DEFAULT", "VOICES", "Shape", "coloured", "middle_hz", "reshaped", "shape_of"]

RATE_HZ = 24_000
HOP_SAMPLES = 300
"""From one column of the spectrum to the next."""
BIN_HZ = 20.0
VOICED_HZ = 40.0
"""F0 below this means that there is no voice, and is how hibari says so."""
LOWEST_HZ = 80.0
"""F0 below this, which is there for an instant between voice and none, moves no further with the melody."""
NOISE_HZ = 200.0
"""Pieces per second where there is no voice."""
REACH_SAMPLES = 400
"""Longest half of a piece: a period at 60 Hz."""
TILT_ABOUT_HZ = 1_000.0
TILT_FROM_HZ = 200.0
BREATH_FROM_HZ, BREATH_FULL_HZ = 1_000.0, 3_000.0

Floats = NDArray[np.float32]
Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Shape:
    """How a voice differs from the one in the package.

    `pitch`: ratio of F0. `formants`: ratio of the frequencies of the resonances, as from a shorter (> 1) or longer
    throat. `melody`: how far F0 moves, in octaves, against the original. `pace`: ratio of speed. `breath_db`: level of
    additional breath against the noise that is in the voice, None for none. `tilt_db`: dB per octave. `gain_db`: brings
    the voice to the loudness of the others.
    """

    pitch: float = 1.0
    formants: float = 1.0
    melody: float = 1.0
    pace: float = 1.0
    breath_db: float | None = None
    tilt_db: float = 0.0
    gain_db: float = 0.0


DEFAULT = "alloy"
"""The voice in the package, untouched."""

# How the values were found: F0 in steps of 9 % or more from 88 to 260 Hz; formants along with it, as they go with F0
# among people; melody, pace, breath and tilt for character, within what does not cost a word in the round trip through
# the embedded ear; gain last, from the measured loudness. `benchmarks/voices.py` measures all of it.
VOICES: Mapping[str, Shape] = MappingProxyType(
    {
        "coral": Shape(pitch=1.30, formants=1.10, melody=1.1, gain_db=1.2),
        "nova": Shape(pitch=1.19, formants=1.06, melody=1.15, pace=1.04, gain_db=1.3),
        "shimmer": Shape(pitch=1.09, formants=1.04, melody=0.9, pace=0.96, breath_db=3.0, tilt_db=0.5, gain_db=-1.3),
        "alloy": Shape(),
        "marin": Shape(pitch=0.915, formants=1.03, melody=1.2, gain_db=1.6),
        "sage": Shape(pitch=0.845, formants=0.97, melody=0.8, tilt_db=-0.5, gain_db=2.2),
        "verse": Shape(pitch=0.755, formants=0.93, melody=1.25, pace=1.03, gain_db=2.2),
        "fable": Shape(pitch=0.695, formants=0.90, melody=1.35, pace=0.98, gain_db=2.2),
        "ballad": Shape(pitch=0.635, formants=0.92, melody=1.1, pace=0.95, breath_db=0.0, gain_db=0.7),
        "echo": Shape(pitch=0.58, formants=0.86, gain_db=2.2),
        "cedar": Shape(pitch=0.53, formants=0.84, melody=1.15, pace=0.98, tilt_db=-0.5, gain_db=2.2),
        "ash": Shape(pitch=0.485, formants=0.88, melody=1.1, tilt_db=0.5, gain_db=2.0),
        "onyx": Shape(pitch=0.44, formants=0.79, melody=0.95, pace=0.97, gain_db=2.5),
    }
)


def shape_of(voice: str) -> Shape:
    """The shape of a voice by its name; the default's for a name that is not known."""
    return VOICES.get(voice, VOICES[DEFAULT])


# --- before it is sound -----------------------------------------------------------------------------------------------


def coloured(spectrum: tuple[Any, ...], shape: Shape) -> tuple[Any, ...]:
    """hibari's outputs with the shape's breath and tilt.

    The outputs are, in natural logarithms, the levels of pulses, noise and residue (0, 2, 3), each of 601 bins by
    columns; what else there is stays.
    """
    pulses, phase, noise, residue, *rest = spectrum
    hz = np.arange(len(pulses), dtype=np.float32)[:, None] * BIN_HZ
    if shape.breath_db is not None:
        share = np.clip((hz - BREATH_FROM_HZ) / (BREATH_FULL_HZ - BREATH_FROM_HZ), 1e-3, 1.0)
        noise = np.maximum(noise, residue + (_nepers(shape.breath_db) + np.log(share)))
    if shape.tilt_db:
        slope = _nepers(shape.tilt_db) * np.log2(np.maximum(hz, TILT_FROM_HZ) / TILT_ABOUT_HZ)
        pulses, noise, residue = pulses + slope, noise + slope, residue + slope
    return (pulses, phase, noise, residue, *rest)


def _nepers(decibels: float) -> np.float32:
    return np.float32(decibels * np.log(10.0) / 20.0)


# --- after it is sound ------------------------------------------------------------------------------------------------


def middle_hz(f0: Floats) -> float:
    """The median of F0 where there is a voice; `NOISE_HZ` where there is none at all."""
    voiced = f0[f0 > LOWEST_HZ]
    return float(np.median(voiced)) if len(voiced) else NOISE_HZ


def reshaped(audio: Floats, f0: Floats, shape: Shape, stretch: float = 1.0, lift: float = 1.0) -> Floats:
    """`audio` in the shape's pitch, formants, melody and gain, lasting `stretch` times as long.

    `f0` in Hz is that of the original, a value per `HOP_SAMPLES`; `lift` is one more factor of pitch.
    """
    if (shape.pitch * lift, shape.formants, shape.melody, stretch) != (1.0, 1.0, 1.0, 1.0) and len(audio):
        melody = (np.maximum(f0, LOWEST_HZ) / middle_hz(f0)) ** (shape.melody - 1.0)
        factors = np.repeat(shape.pitch * lift / shape.formants * melody, HOP_SAMPLES)[: len(audio)]
        audio = _laid_out(audio, f0, factors, stretch * shape.formants)
        if shape.formants != 1.0:  # played faster or slower, which moves pitch and length as well: hence the factors
            audio = soxr.resample(audio, RATE_HZ * shape.formants, RATE_HZ)
    return audio * np.float32(10.0 ** (shape.gain_db / 20.0))


def _laid_out(audio: Floats, f0: Floats, factors: NDArray[np.float64], stretch: float) -> Floats:
    """The pieces of `audio` at the places where the pulses of the new voice are, whose F0 is that times `factors`.

    There is a factor per sample, and a value of F0 per `HOP_SAMPLES`.
    """
    sung_hz = np.interp((np.arange(len(audio)) + 0.5) / HOP_SAMPLES - 0.5, np.arange(len(f0)), f0)
    voiced = sung_hz > VOICED_HZ
    # The phase that hibari's own pulses have, so that the middle of a piece is where a pulse is.
    pulses = _crossings(np.maximum(sung_hz, VOICED_HZ))
    noises = _crossings(np.full(len(audio), NOISE_HZ))
    middles = np.unique(np.concatenate([[0], pulses[voiced[pulses]], noises[~voiced[noises]]]))

    source = np.minimum((np.arange(round(len(audio) * stretch)) / stretch).astype(np.intp), len(audio) - 1)
    places = _crossings(np.where(voiced, sung_hz * factors, NOISE_HZ)[source])
    chosen = _nearest(middles, source[places])
    # Pulses that are further apart are less loud together, which noise is not.
    loudness = np.where(voiced, factors, 1.0)[middles[chosen]] ** -0.5
    return _overlapped(audio, middles, chosen, places, loudness, len(source))


def _overlapped(
    audio: Floats, middles: Places, chosen: Places, places: Places, loudness: NDArray[np.float64], length: int
) -> Floats:
    """The sum of the `chosen` pieces, each around its place; a piece reaches, fading, to the middles beside its own."""
    gaps = np.clip(np.diff(middles, prepend=0, append=len(audio)), 1, REACH_SAMPLES)
    before, after = gaps[:-1][chosen], gaps[1:][chosen]
    lengths = before + after
    first = np.cumsum(lengths) - lengths
    piece = np.repeat(np.arange(len(chosen)), lengths)
    offset = np.arange(len(piece)) - (first + before)[piece]
    reach = np.where(offset < 0, before.astype(np.float32)[piece], after.astype(np.float32)[piece])
    fade = 0.5 + 0.5 * np.cos(np.float32(np.pi) * offset.astype(np.float32) / reach)
    padded = np.pad(audio, REACH_SAMPLES)
    sound = padded[(middles[chosen] + REACH_SAMPLES)[piece] + offset] * fade * loudness.astype(np.float32)[piece]
    total = np.bincount((places + REACH_SAMPLES)[piece] + offset, sound, length + 2 * REACH_SAMPLES)
    return total[REACH_SAMPLES : REACH_SAMPLES + length].astype(np.float32)


def _crossings(hz: NDArray[np.float64]) -> Places:
    """The samples at which something that swings with `hz`, a value per sample, begins anew."""
    return np.flatnonzero(np.diff(np.floor(np.cumsum(hz) / RATE_HZ), prepend=0.0) > 0)


def _nearest(sorted_places: Places, wanted: Places) -> Places:
    """For each of `wanted` the index of the nearest place."""
    right = np.minimum(np.searchsorted(sorted_places, wanted), len(sorted_places) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(wanted - sorted_places[left] < sorted_places[right] - wanted, left, right)
