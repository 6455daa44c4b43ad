"""What the sound of a turn says about whether it is over: its end in pitch and loudness against the rest of it.

A turn detector adds these cues up with its weights. Who is done falls to the bottom of the voice and says the last
syllable softly; who goes on stays up. Everything is relative to the same speaker in the same turn, so that voice,
microphone and loudness do not matter. Lengthening, pace and the fall of loudness into the pause were measured too and
left out: a speaker who hesitates shows them as much as one who is done.
Invariant: the same samples give the same cues, what cannot be measured is left out, and only the last seconds cost.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["CUES", "RATE_HZ", "cues"]

CUES = ("pitch", "syllable", "level")
"""`pitch`: the last 300 ms of voice against the turn's, semitones; `syllable`: loudness of the last syllable against
the turn's syllables, dB; `level`: the loudest point of the last 300 ms against the turn's, dB. Medians of the turn."""

RATE_HZ = 16_000
SECONDS_MAX = 5.0
"""What lies further back says nothing about the end."""
SPEECH_S_MIN = 0.25
"""In less speech, or less voice, there is nothing to compare the end with."""
END_S = 0.3

PITCH_RATE_HZ = 8_000
"""Half the rate: pitch and the overtones that tell it are below 4 kHz."""
WINDOW = 320
HOP = 128
FFT = 512
HOP_S = HOP / PITCH_RATE_HZ
PITCH_HZ = (65.0, 400.0)
LAGS = (int(PITCH_RATE_HZ / PITCH_HZ[1]), int(PITCH_RATE_HZ / PITCH_HZ[0]))
OCTAVE_COST = 0.06
"""A period twice as long must be better by this much: autocorrelation is almost as high there."""
STRAY_SEMITONES = 10.0
"""Further from the median than this is a wrong octave, not a melody."""
VOICED_MIN = 0.5
"""Autocorrelation, 0 to 1, from which a window counts as voice."""

LOUD_QUANTILE = 0.95
SPEECH_DB, VOICE_DB, SYLLABLE_DB = -30.0, -25.0, -18.0
"""Below the loud parts of a turn: what is still speech, voice, the peak of a syllable."""
FLOOR_QUANTILE, FLOOR_MARGIN_DB = 0.03, 6.0
"""Speech is also louder than the background by this much."""
SPEECH_DBFS_MIN = -75.0
SPEECH_WINDOWS_MIN = 3
"""So many in a row are speech; fewer are a click."""
SYLLABLE_DIP_DB, SYLLABLE_S_MIN = 3.0, 0.1
"""Between two syllables loudness dips, and one takes some time."""
SYLLABLES_MIN = 3

Track = NDArray[np.floating]
"""One value for each 16 ms."""


def cues(audio: bytes) -> Mapping[str, float]:
    """The cues of `CUES` that PCM16 mono at 16 kHz shows; empty for silence and for hardly any speech."""
    audio = audio[: len(audio) // 2 * 2][-int(SECONDS_MAX * RATE_HZ) * 2 :]
    # The mean of two neighbours is a low-pass good enough before every other sample is dropped.
    samples = np.frombuffer(audio, "<i2", len(audio) // 4 * 2).astype(np.float32).reshape(-1, 2).mean(axis=1) / 32_768
    if len(samples) < SPEECH_S_MIN * PITCH_RATE_HZ:
        return {}
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    shaped = (windows - windows.mean(axis=1, keepdims=True)) * _hann()
    level = 10 * np.log10(np.mean(shaped**2, axis=1) + 1e-10)
    speech = _speech(level)
    if speech is None:
        return {}
    return {**_pitch(shaped[speech], level[speech]), **_loudness(level[speech])}


def _hann() -> NDArray[np.float32]:
    return np.hanning(WINDOW).astype(np.float32)


def _speech(level: Track) -> slice | None:
    """From the first window of speech to the last one; None where there is too little."""
    loud, floor = np.quantile(level, (LOUD_QUANTILE, FLOOR_QUANTILE))
    above = level > max(loud + SPEECH_DB, floor + FLOOR_MARGIN_DB, SPEECH_DBFS_MIN)
    solid = np.flatnonzero(np.convolve(above, np.ones(SPEECH_WINDOWS_MIN), "valid") == SPEECH_WINDOWS_MIN)
    if len(solid) * HOP_S < SPEECH_S_MIN:
        return None
    return slice(int(solid[0]), int(solid[-1]) + SPEECH_WINDOWS_MIN)


def _periods(shaped: NDArray[np.float32]) -> tuple[Track, Track]:
    """Pitch in semitones over 1 Hz and periodicity of each window: autocorrelation, freed of the window's own."""
    short, long = LAGS
    power = np.abs(np.fft.rfft(shaped, FFT, axis=1)) ** 2
    shape = np.fft.irfft(np.abs(np.fft.rfft(_hann(), FFT)) ** 2)[: long + 2]
    raw = np.fft.irfft(power, axis=1)[:, : long + 2]
    similar = raw / (raw[:, :1] + 1e-9) / (shape / shape[0])
    cost = OCTAVE_COST * np.log2(np.arange(short, long + 1) / short)
    at = (similar[:, short : long + 1] - cost).argmax(axis=1) + short
    rows = np.arange(len(at))
    before, peak, after = similar[rows, at - 1], similar[rows, at], similar[rows, at + 1]
    # The top of the parabola through three points is where the period really is.
    bend = np.minimum(before - 2 * peak + after, -1e-6)
    shift = np.clip(0.5 * (before - after) / bend, -0.5, 0.5)
    return 12 * np.log2(PITCH_RATE_HZ / (at + shift)), np.clip(peak, 0, 1)


def _pitch(shaped: NDArray[np.float32], level: Track) -> dict[str, float]:
    """The cue `pitch`; nothing where there is hardly any voice."""
    loud = np.flatnonzero(level > np.quantile(level, LOUD_QUANTILE) + VOICE_DB)
    pitch, voicing = _periods(shaped[loud])
    voiced, pitch = loud[voicing > VOICED_MIN], pitch[voicing > VOICED_MIN]
    if len(voiced) * HOP_S < SPEECH_S_MIN:
        return {}
    middle = float(np.median(pitch))
    is_near = np.abs(pitch - middle) < STRAY_SEMITONES
    voiced, pitch = voiced[is_near], pitch[is_near]
    if not len(voiced):
        return {}
    return {"pitch": float(np.median(pitch[voiced > voiced[-1] - END_S / HOP_S])) - middle}


def _loudness(level: Track) -> dict[str, float]:
    """The cues `level` and, where there are syllables to compare with, `syllable`."""
    smooth = np.convolve(level, np.ones(3) / 3, "valid")
    top = float(np.quantile(smooth, LOUD_QUANTILE))
    found = {"level": float(smooth[-round(END_S / HOP_S) :].max()) - top}
    peaks = _syllables(smooth, top + SYLLABLE_DB)
    if len(peaks) >= SYLLABLES_MIN:
        found["syllable"] = float(smooth[peaks[-1]] - np.median(smooth[peaks]))
    return found


def _syllables(level: Track, least: float) -> list[int]:
    """Where loudness peaks, of at least `least` dB, with a dip between one peak and the next."""
    peaks: list[int] = []
    rising = np.diff(level) > 0
    for at in np.flatnonzero(rising[:-1] & ~rising[1:]) + 1:
        if level[at] < least:
            continue
        if peaks:
            last = peaks[-1]
            dip = min(level[at], level[last]) - level[last:at].min()
            if (at - last) * HOP_S < SYLLABLE_S_MIN or dip < SYLLABLE_DIP_DB:
                peaks[-1] = int(at) if level[at] > level[last] else last
                continue
        peaks.append(int(at))
    return peaks
