"""The embedded voice, listened to by measurement."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from vivavoce.audio.levels import peak_db, rms_db
from vivavoce.engines.hibari import PHONEMES_MAX, RATE_HZ, Hibari, create, short_enough
from vivavoce.errors import EngineError, SettingsError

SENTENCE = "Good morning, how are you today?"


async def spoken(voice: Hibari, text: str, name: str = "alloy", speed: float = 1.0) -> list[bytes]:
    return [piece async for piece in voice.speak(text, name, speed)]


def pitch_hz(audio: bytes) -> float:
    """Median over voiced frames of the lag at which a frame resembles itself most."""
    samples = np.frombuffer(audio, "<i2").astype(np.float64)
    found = []
    for start in range(0, len(samples) - 1200, 600):
        frame = samples[start : start + 1200]
        if np.sqrt(np.mean(frame**2)) < 1500:
            continue
        likeness = np.correlate(frame, frame, "full")[1199:]
        lags = slice(RATE_HZ // 350, RATE_HZ // 70)
        best = int(np.argmax(likeness[lags])) + RATE_HZ // 350
        if likeness[best] > 0.5 * likeness[0]:
            found.append(RATE_HZ / best)
    return float(np.median(found))


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(SettingsError, match="wokers"):
        create({"wokers": 2})


def test_nothing_is_spoken_before_warm_up() -> None:
    with pytest.raises(EngineError, match="not warmed up"):
        asyncio.run(spoken(create({}), SENTENCE))


@pytest.mark.parametrize(
    "text", ["", "wˈɜɹd", "wˈɜɹd " * 200, "a" * 1_000, "a" * 399 + " b", "a" * 400 + " b", "a" * 401]
)
def test_what_has_no_punctuation_is_cut_between_words(text: str) -> None:
    """One run of the network over minutes of speech took seconds and half a gigabyte."""
    parts = list(short_enough(text))
    assert all(len(part) <= PHONEMES_MAX for part in parts)
    assert "".join(parts).replace(" ", "") == text.replace(" ", "")
    if " " in text:
        assert [word for part in parts for word in part.split()] == text.split()


@pytest.mark.models
def test_it_speaks() -> None:
    async def listen() -> None:
        voice = create({})
        await voice.warm_up()
        try:
            pieces = await spoken(voice, SENTENCE)
            assert all(len(piece) <= RATE_HZ // 10 * 2 for piece in pieces)
            audio = b"".join(pieces)
            assert 1.2 < len(audio) / 2 / RATE_HZ < 3.5
            assert -30 < rms_db(audio) < -12
            assert peak_db(audio) < -0.5
            assert audio == b"".join(await spoken(voice, SENTENCE))

            slow = b"".join(await spoken(voice, SENTENCE, speed=0.7))
            assert len(slow) > 1.2 * len(audio)

            low = b"".join(await spoken(voice, SENTENCE, "onyx"))
            assert 0.55 < pitch_hz(low) / pitch_hz(audio) < 0.75
            assert peak_db(low) < -0.5

            for wordless in ("", " ", "...", "🙂", "—"):
                assert await spoken(voice, wordless) == []
            for odd in ("3.50 €", "🙂 hi", "naïve café Ω", "a" * 300, "你好 hello"):
                await spoken(voice, odd)
        finally:
            await voice.close()

    asyncio.run(listen())
