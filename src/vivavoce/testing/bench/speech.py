"""What is said to an endpoint: recordings, synthesized questions or tones, and where in them speech begins and ends.

A recording goes on after its last word, so the end of speech is found by level: the end of the last 10 ms that are
within 35 dB of the loudest 10 ms. All audio is PCM16 mono at 24 kHz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vivavoce.audio import wav
from vivavoce.audio.formats import PCM16_24K
from vivavoce.audio.resample import resample
from vivavoce.errors import VivavoceError
from vivavoce.testing import sounds

__all__ = ["Utterance", "recorded", "synthesized", "tones", "utterance"]

QUESTIONS = (
    "Hello! Can you hear me?",
    "What is the capital of France?",
    "How many days are there in a week?",
    "Please tell me something about the sea.",
    "What should I cook for dinner tonight?",
)
VOICE = "echo"
TONES_MS = (700, 1_100, 500, 900, 1_300)
TONE_MARGIN_MS = 100
STEP_MS = 10
SPEECH_BELOW_PEAK_DB = 35.0


@dataclass(frozen=True, slots=True)
class Utterance:
    """A recording, and where in it speech begins and ends, in ms of its audio."""

    name: str
    audio: bytes
    begin_ms: int
    end_ms: int


def utterance(name: str, audio: bytes) -> Utterance:
    """Find where speech begins and ends. Raises `VivavoceError` where there is nothing to hear."""
    samples = np.frombuffer(audio, "<i2").astype(np.float64)
    size = PCM16_24K.samples(STEP_MS)
    power = (samples[: len(samples) // size * size].reshape(-1, size) ** 2).mean(axis=1)
    if not power.size or not power.max():
        raise VivavoceError(f"{name}: there is nothing to hear in it; expected speech")
    loud = np.nonzero(power >= power.max() / 10 ** (SPEECH_BELOW_PEAK_DB / 10))[0]
    return Utterance(name, audio, int(loud[0]) * STEP_MS, int(loud[-1] + 1) * STEP_MS)


def recorded(sources: Sequence[Path]) -> list[Utterance]:
    """The WAV files, and those in the folders, by name. Raises `VivavoceError` for what cannot be used."""
    files = [file for source in sources for file in (sorted(source.glob("*.wav")) if source.is_dir() else [source])]
    if not files:
        raise VivavoceError(f"no WAV files in {', '.join(map(str, sources))}")
    return [_read(file) for file in files]


def _read(file: Path) -> Utterance:
    try:
        pcm, rate_hz = wav.read(file)
    except (OSError, ValueError) as error:
        raise VivavoceError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    return utterance(file.stem, resample(pcm, rate_hz, PCM16_24K.rate_hz))


async def synthesized(texts: Sequence[str] = QUESTIONS) -> list[Utterance]:
    """The questions, spoken by the embedded voice. Raises `EngineMissing` where it is not installed."""
    from vivavoce.engines.hibari import create

    voice = create({})
    await voice.warm_up()
    try:
        said = []
        for text in texts:
            pcm = b"".join([piece async for piece in voice.speak(text, VOICE, 1.0)])
            said.append(utterance(text, resample(pcm, voice.rate_hz, PCM16_24K.rate_hz)))
        return said
    finally:
        await voice.close()


def tones() -> list[Utterance]:
    """What detectors of voice activity by level take for speech, as the scripted one is; nobody else does."""
    margin = sounds.silence(TONE_MARGIN_MS)
    return [utterance(f"tone of {ms} ms", margin + sounds.tone(ms) + margin) for ms in TONES_MS]
