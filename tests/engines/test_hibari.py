"""The embedded voice, listened to by measurement."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import numpy as np
import pytest

from vivavoce.audio.levels import peak_db, rms_db
from vivavoce.engines.hibari import PHONEMES_MAX, RATE_HZ, Hibari, create, short_enough
from vivavoce.errors import EngineError, SettingsError

SENTENCE = "Good morning, how are you today?"
LONGER = "The train leaves at half past seven from platform nine, and you can buy a ticket on board."


async def spoken(voice: Hibari, text: str, name: str = "alloy", speed: float = 1.0) -> list[bytes]:
    return [piece async for piece in voice.speak(text, name, speed)]


def pitch_hz(audio: bytes) -> float:
    """Median over voiced frames of the lag at which a frame resembles itself most."""
    samples = np.frombuffer(audio, "<i2").astype(np.float64)
    found = []
    for start in range(0, len(samples) - 1200, 240):
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
@pytest.mark.parametrize("most", [PHONEMES_MAX, 200])
def test_what_has_no_punctuation_is_cut_between_words(text: str, most: int) -> None:
    """One run of the network over minutes of speech took seconds and half a gigabyte."""
    parts = list(short_enough(text, most))
    assert all(len(part) <= most for part in parts)
    assert "".join(parts).replace(" ", "") == text.replace(" ", "")
    if " " in text and max(map(len, text.split())) <= most:
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
            assert voice._cache.hits == 1, "said again without the work"
            assert audio == b"".join(await spoken(voice, SENTENCE, "nobody"))
            assert audio == b"".join([piece async for piece in voice._fresh(SENTENCE, "alloy", 1.0)])
            await _stops_within_a_step(voice)

            for wordless in ("", " ", "...", "🙂", "—"):
                assert await spoken(voice, wordless) == []
            for odd in ("3.50 €", "🙂 hi", "naïve café Ω", "a" * 300, "你好 hello"):
                await spoken(voice, odd)
        finally:
            await voice.close()

    asyncio.run(listen())


async def _stops_within_a_step(voice: Hibari) -> None:
    (phonemes,) = voice._phonemes(LONGER, 1.0)[:1]
    left = voice._run_options()
    left.terminate = True
    assert voice._speech(phonemes, "alloy", 1.0, left) == b""
    with pytest.raises(Exception, match="terminate"):
        voice._spoken(voice._voice, voice._voice.ids(phonemes), 1.0, left)
    leaving = asyncio.create_task(spoken(voice, LONGER))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await spoken(voice, LONGER), "and the next one is heard"


@pytest.mark.models
def test_slow_speech_comes_in_shorter_runs_and_whole() -> None:
    """A long text without a comma, four times as slow, filled 800 MB in a run."""

    async def listen() -> None:
        voice = create({})
        await voice.warm_up()
        try:
            text = "the old man walked over the bridge and down to the river where " * 7
            runs = [len(run) for run in voice._phonemes(text, 0.25)]
            usual = voice._phonemes(text, 1.0)
            assert len(usual) == 2
            assert max(runs) <= PHONEMES_MAX // 2 < len(usual[0])
            assert sum(runs) == pytest.approx(sum(map(len, usual)), abs=len(runs))
        finally:
            await voice.close()

    asyncio.run(listen())


@pytest.mark.models
def test_each_voice_is_its_own() -> None:
    """Higher and lower in this order, the lowest by more than an octave, and all about as loud."""

    async def listen() -> None:
        voice = create({})
        await voice.warm_up()
        try:
            names = ("coral", "nova", "alloy", "sage", "fable", "echo", "onyx")
            heard = {name: b"".join(await spoken(voice, LONGER, name)) for name in names}
        finally:
            await voice.close()
        pitches = [pitch_hz(audio) for audio in heard.values()]
        assert all(higher > 1.05 * lower for higher, lower in pairwise(pitches)), pitches
        assert pitches[0] > 2.2 * pitches[-1]
        levels = [rms_db(audio) for audio in heard.values()]
        assert max(levels) - min(levels) < 4
        assert all(peak_db(audio) < -0.5 for audio in heard.values())

    asyncio.run(listen())


@pytest.mark.models
@pytest.mark.parametrize("name", ["alloy", "onyx"])
def test_speed_changes_the_length_and_not_the_pitch(name: str) -> None:
    async def listen() -> None:
        voice = create({})
        await voice.warm_up()
        try:
            usual = b"".join(await spoken(voice, LONGER, name))
            for speed in (0.25, 0.5, 0.75, 0.9, 1.25, 1.5):
                audio = b"".join(await spoken(voice, LONGER, name, speed))
                assert len(audio) * speed / len(usual) == pytest.approx(1.0, abs=0.05), speed
                # Slow, the network draws out other sounds more: the median of one sentence moves.
                assert pitch_hz(audio) / pitch_hz(usual) == pytest.approx(1.0, abs=0.03 if speed > 0.75 else 0.08), (
                    speed
                )
        finally:
            await voice.close()

    asyncio.run(listen())
