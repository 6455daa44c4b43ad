"""The embedded voices, listened to by measurement: is each its own, as loud, as clear as the others, at any speed?

    python benchmarks/voices.py [--voices alloy,onyx] [--speeds alloy,onyx,coral] [--misses]

Every voice speaks the same sentences, and the embedded ear writes them down. The first table has for each voice the
median F0 (autocorrelation), its ratio to the default voice's and that of the formants (how far the envelope of the
average spectrum has to be moved to fit), the level (A-weighted, full scale 0 dB, where there is speech), the pace,
processor time per second of speech, the median wait for the first audio, and the word error rate. Two voices are told
apart if F0 differs by 8 % or formants by 6 %; pairs that are not are named. The second table has for each speed how
long speech lasts times the speed, which should be 1, and by how much F0 and the share of words wrong change.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import jiwer
import numpy as np
from numpy.typing import NDArray
from wer import SENTENCES, plain

from vivavoce.audio.resample import resample
from vivavoce.engines import TranscriptionHints
from vivavoce.engines.hibari import RATE_HZ, Hibari
from vivavoce.engines.voices import DEFAULT, VOICES
from vivavoce.engines.whisper import Whisper, WhisperSettings

MORE_SENTENCES = (
    "Yes, of course.",
    "The meeting was moved to Friday because two of us are ill.",
    "He poured a cup of coffee and read the newspaper by the fire.",
    "Is there a pharmacy near the railway station?",
    "We had planned to walk along the river, but the path was flooded.",
    "Thank you for waiting, I have found your booking.",
    "The children were playing football behind the old school.",
    "Press the green button twice and hold it for five seconds.",
    "Fresh bread, cheese and a few apples are all we need for lunch.",
    "What time does the last bus go back to the village?",
    "I am sorry, but that flight is full; shall I look for another one?",
    "Seven out of ten visitors said they would come again.",
)
SPEEDS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
F0_APART, FORMANTS_APART = 1.08, 1.06
F0_HZ_MIN, F0_HZ_MAX = 60, 420
WINDOW_SAMPLES, STEP_SAMPLES, FFT_SAMPLES = 1_440, 480, 4_096
PERIODIC = 0.5
"""A window has a voice in it if it resembles itself by this much one period later."""
LIFTER = 40
"""Cepstral coefficients of the envelope that are kept: formants, no harmonics."""
MOVES = np.exp(np.linspace(np.log(0.7), np.log(1.4), 281))

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spoken:
    """One voice at one speed through all sentences."""

    audios: list[bytes]
    cpu_ms_per_s: float
    first_ms: float
    f0_hz: float
    envelope: Floats
    level_db: float
    word_errors: float

    @property
    def seconds(self) -> float:
        return sum(map(len, self.audios)) / 2 / RATE_HZ


# --- measures ---------------------------------------------------------------------------------------------------------


def windows(audio: bytes) -> Floats:
    """The windows in which somebody speaks, each by a Hann window."""
    samples = np.frombuffer(audio, "<i2").astype(np.float64) / 32_768
    found = np.lib.stride_tricks.sliding_window_view(samples, WINDOW_SAMPLES)[::STEP_SAMPLES]
    loudness = np.mean(found**2, axis=1)
    return np.asarray(found[loudness > 0.1 * loudness.mean()] * np.hanning(WINDOW_SAMPLES))


def autocorrelation(frames: Floats) -> Floats:
    return np.fft.irfft(np.abs(np.fft.rfft(frames, FFT_SAMPLES)) ** 2, FFT_SAMPLES)[..., : RATE_HZ // F0_HZ_MIN]


def f0_hz(audio: bytes) -> Floats:
    """F0 of each window with a voice in it: the lag at which it is most like itself, a short one rather than a long."""
    likeness, fading = autocorrelation(windows(audio)), autocorrelation(np.hanning(WINDOW_SAMPLES))
    likeness = (likeness / likeness[:, :1]) / (fading / fading[0])
    lags = np.arange(RATE_HZ // F0_HZ_MAX, RATE_HZ // F0_HZ_MIN)
    wanted = likeness[:, lags] - 1e-4 * lags
    best = wanted.argmax(axis=1)
    return np.asarray(RATE_HZ / lags[best[wanted.max(axis=1) > PERIODIC]])


def envelope(audios: Sequence[bytes]) -> Floats:
    """Log spectrum of speech with a voice in it, averaged, without harmonics and without overall slope."""
    frames = np.concatenate([windows(audio) for audio in audios])
    log = np.log(np.abs(np.fft.rfft(frames, FFT_SAMPLES)) + 1e-6)
    cepstrum = np.fft.irfft(log, FFT_SAMPLES)
    cepstrum[:, LIFTER:-LIFTER] = 0
    return np.asarray(np.fft.rfft(cepstrum, FFT_SAMPLES).real.mean(axis=0))


def formant_ratio(mine: Floats, reference: Floats) -> float:
    """By how much the reference's envelope has to be stretched along frequency to be like mine from 300 to 5,000 Hz."""
    bins = np.arange(len(mine), dtype=np.float64)
    hz = bins * RATE_HZ / FFT_SAMPLES
    # Even steps of log frequency, since low formants say most; the straight line is the slope, which is no formant.
    at = np.exp(np.linspace(np.log(300), np.log(5_000), 400))
    target = detrended(np.interp(at, hz, mine))
    fits = [float(target @ detrended(np.interp(at / move, hz, reference))) for move in MOVES]
    return float(MOVES[int(np.argmax(fits))])


def detrended(values: Floats) -> Floats:
    x = np.linspace(-1, 1, len(values))
    values = values - np.polyval(np.polyfit(x, values, 1), x)
    return np.asarray(values / np.linalg.norm(values))


def level_db(audio: bytes) -> float:
    """Mean A-weighted power (IEC 61672) of the windows in which somebody speaks."""
    squared = np.square(np.fft.rfftfreq(WINDOW_SAMPLES, 1 / RATE_HZ))
    weight = 1.2589 * 12_194**2 * squared**2 / (squared + 20.6**2) / (squared + 12_194**2)
    weight /= np.sqrt((squared + 107.7**2) * (squared + 737.9**2))
    power = np.sum(np.abs(np.fft.rfft(windows(audio)) * weight) ** 2, axis=1) * 2 / WINDOW_SAMPLES**2 / 0.375
    return 10 * float(np.log10(power.mean()))


def wrong(texts: Sequence[str], heard: Sequence[str], *, show: bool) -> float:
    """Percent of words wrong, missing and added."""
    total = words = 0
    for text, found in zip(texts, heard, strict=True):
        alike = jiwer.process_words(plain(text), plain(found))
        errors = alike.substitutions + alike.deletions + alike.insertions
        total, words = total + errors, words + len(plain(text).split())
        if show and errors:
            print(f"    {plain(text)!r} → {plain(found)!r}")
    return 100 * total / words


# --- speaking and listening -------------------------------------------------------------------------------------------


async def speak(synthesizer: Hibari, ear: Whisper, voice: str, speed: float, *, show: bool) -> Spoken:
    """All sentences by one voice, measured."""
    texts = SENTENCES + MORE_SENTENCES
    audios, firsts, cpu_s = [], [], 0.0
    for text in texts:
        pieces = []
        started, cpu = time.perf_counter(), time.process_time()
        async for piece in synthesizer.speak(text, voice, speed):
            if not pieces:
                firsts.append(1000 * (time.perf_counter() - started))
            pieces.append(piece)
        cpu_s += time.process_time() - cpu
        audios.append(b"".join(pieces))
    heard = []
    for audio in audios:
        pcm = resample(audio, RATE_HZ, ear.rate_hz)
        heard.append("".join([piece async for piece in ear.transcribe(pcm, TranscriptionHints())]))
    return Spoken(
        audios,
        1000 * cpu_s / (sum(map(len, audios)) / 2 / RATE_HZ),
        statistics.median(firsts),
        float(np.median(np.concatenate([f0_hz(audio) for audio in audios]))),
        envelope(audios),
        level_db(b"".join(audios)),
        wrong(texts, heard, show=show),
    )


async def voices_table(synthesizer: Hibari, ear: Whisper, names: Sequence[str], *, show: bool) -> None:
    """Each voice, and which of them are not told apart."""
    default = await speak(synthesizer, ear, DEFAULT, 1.0, show=False)
    print("voice     F0 Hz  F0 ×  formants ×  dB(A)  pace   CPU ms/s  first ms  WER %")
    found: dict[str, tuple[float, float]] = {}
    for name in names:
        spoken = await speak(synthesizer, ear, name, 1.0, show=show)
        formants = formant_ratio(spoken.envelope, default.envelope)
        found[name] = spoken.f0_hz, formants
        print(
            f"{name:9} {spoken.f0_hz:5.0f}  {spoken.f0_hz / default.f0_hz:.2f}  {formants:10.2f}"
            f"  {spoken.level_db:5.1f}  {default.seconds / spoken.seconds:.2f}"
            f"  {spoken.cpu_ms_per_s:9.1f}  {spoken.first_ms:8.0f}  {spoken.word_errors:5.1f}",
            flush=True,
        )
    pairs = list(combinations(found, 2))
    alike = [pair for pair in pairs if not apart(*(found[name] for name in pair))]
    print(f"told apart: {len(pairs) - len(alike)} of {len(pairs)} pairs")
    for first, second in alike:
        print(f"    not told apart: {first}, {second}")


def apart(first: tuple[float, float], second: tuple[float, float]) -> bool:
    ratios = [max(a / b, b / a) for a, b in zip(first, second, strict=True)]
    return ratios[0] >= F0_APART or ratios[1] >= FORMANTS_APART


async def speeds_table(synthesizer: Hibari, ear: Whisper, names: Sequence[str], *, show: bool) -> None:
    """Each speed against the same voice at 1.0."""
    print("voice     speed  length × speed  F0 change %  CPU ms/s  WER %")
    for name in names:
        usual = await speak(synthesizer, ear, name, 1.0, show=False)
        for speed in SPEEDS:
            spoken = usual if speed == 1.0 else await speak(synthesizer, ear, name, speed, show=show)
            print(
                f"{name:9}  {speed:4.2f}  {spoken.seconds / usual.seconds * speed:14.3f}"
                f"  {100 * (spoken.f0_hz / usual.f0_hz - 1):11.1f}  {spoken.cpu_ms_per_s:8.1f}"
                f"  {spoken.word_errors:5.1f}",
                flush=True,
            )


async def measure(arguments: argparse.Namespace) -> None:
    synthesizer, ear = Hibari(), Whisper(WhisperSettings())
    await synthesizer.warm_up()
    await ear.warm_up()
    try:
        if arguments.voices:
            await voices_table(synthesizer, ear, arguments.voices, show=arguments.misses)
        if arguments.speeds:
            await speeds_table(synthesizer, ear, arguments.speeds, show=arguments.misses)
    finally:
        await ear.close()
        await synthesizer.close()


def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voices", type=names, default=list(VOICES), help="voices of the first table, or '' for none")
    parser.add_argument("--speeds", type=names, default=[DEFAULT], help="voices of the second table, or '' for none")
    parser.add_argument("--misses", action="store_true", help="print what was misheard")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
