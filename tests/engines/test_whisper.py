"""The embedded transcriber: what it writes down, what it does not, and what it does when it is told to stop."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import jiwer
import numpy as np
import pytest

from vivavoce.audio.resample import resample
from vivavoce.engines import TranscriptionHints
from vivavoce.engines.doubt import Draft
from vivavoce.engines.hibari import Hibari
from vivavoce.engines.whisper import PROMPT_TOKENS_MAX, RATE_HZ, WAITING_MAX, Whisper, _better, _byte_of, create
from vivavoce.errors import EngineError, SettingsError

HINTS = TranscriptionHints()
SENTENCES = (
    "The train to the city leaves at half past seven.",
    "Please remind me to water the plants on Thursday evening.",
    "The museum is closed on Mondays, but the garden stays open.",
    "We need a bigger color screen.",
)
ROUND_TRIP_WER_MAX = 0.1


def plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def silence(seconds: float) -> bytes:
    return bytes(int(seconds * RATE_HZ) * 2)


async def written(ear: Whisper, audio: bytes, hints: TranscriptionHints = HINTS) -> list[str]:
    return [piece async for piece in ear.transcribe(audio, hints)]


# --- without the model ------------------------------------------------------------------------------------------------


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(SettingsError, match="beam"):
        create({"beam": 3})
    with pytest.raises(SettingsError, match="workers"):
        create({"workers": 0})
    with pytest.raises(SettingsError, match=r"option 'model': nothing at .*none"):
        create({"model": "/none"})


def test_nothing_is_written_before_warm_up() -> None:
    with pytest.raises(EngineError, match="not warmed up"):
        asyncio.run(written(create({}), silence(1)))


GOOD = Draft(" Jump the fence.", 5, -0.2, 0.02, True)
LOOP = Draft(" five five five five five", 6, -0.1, 0.02, True)


def test_the_draft_without_doubt_is_kept() -> None:
    assert _better(LOOP, GOOD, 3.0, "en") == GOOD


def test_two_drafts_that_agree_are_believed() -> None:
    assert _better(LOOP, LOOP, 3.0, "en") == LOOP


def test_two_doubtful_drafts_lose_what_they_repeat() -> None:
    other = Draft(" five four five four five four", 6, -0.4, 0.02, True)
    assert _better(LOOP, other, 3.0, "en").text == " five"
    cut = Draft(" five five five five five five", 40, -0.01, 0.02, False)
    assert _better(cut, other, 3.0, "en").text == " five four", "a text that was cut off comes last"


def test_every_byte_has_one_character() -> None:
    assert sorted(_byte_of().values()) == list(range(256))
    assert bytes(_byte_of()[character] for character in "ĠcafÃ©Ċ") == " café\n".encode()


# --- with the model ---------------------------------------------------------------------------------------------------


@pytest.mark.models
def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be used") as caught:
        asyncio.run(create({"model": str(tmp_path)}).warm_up())
    assert caught.value.code == "engine_load_failed"


@pytest.mark.models
def test_it_writes_down_what_is_said() -> None:
    """One load for everything that needs the model."""

    async def listen() -> None:
        ear = create({})
        await ear.warm_up()
        spoken = await _spoken()
        checks: tuple[Callable[[Whisper, list[bytes]], Awaitable[None]], ...] = (
            _hears_each_sentence,
            _hears_both_sides_of_a_pause,
            _hears_more_than_a_window,
            _hears_two_at_once,
            _writes_nothing_where_nobody_speaks,
            _leans_on_the_hints,
            _scores_every_token,
            _hears_along,
            _stops_when_cancelled,
        )
        try:
            for check in checks:
                await check(ear, spoken)
                assert ear._waiting == 0
        finally:
            await ear.close()
        with pytest.raises(EngineError, match="not warmed up"):
            await written(ear, spoken[0])

    asyncio.run(listen())


async def _spoken() -> list[bytes]:
    voice = Hibari()
    await voice.warm_up()
    try:
        return [
            resample(b"".join([piece async for piece in voice.speak(text, "heart", 1.0)]), voice.rate_hz, RATE_HZ)
            for text in SENTENCES
        ]
    finally:
        await voice.close()


async def _hears_each_sentence(ear: Whisper, spoken: list[bytes]) -> None:
    texts = ["".join(await written(ear, audio)) for audio in spoken]
    assert jiwer.wer([plain(text) for text in SENTENCES], [plain(text) for text in texts]) <= ROUND_TRIP_WER_MAX
    assert all(text == text.strip() for text in texts)


async def _hears_both_sides_of_a_pause(ear: Whisper, spoken: list[bytes]) -> None:
    pieces = await written(ear, spoken[0] + silence(1.5) + spoken[1])
    assert len(pieces) == 2
    assert jiwer.wer(plain(f"{SENTENCES[0]} {SENTENCES[1]}"), plain("".join(pieces))) <= ROUND_TRIP_WER_MAX


async def _hears_more_than_a_window(ear: Whisper, spoken: list[bytes]) -> None:
    """Over 30 s without a long pause: cut where nobody speaks, and nothing lost or said twice."""
    text = " ".join(SENTENCES * 4)
    pieces = await written(ear, silence(0.2).join(spoken * 4))
    assert len(pieces) >= 2
    assert jiwer.wer(plain(text), plain("".join(pieces))) <= ROUND_TRIP_WER_MAX


async def _hears_two_at_once(ear: Whisper, spoken: list[bytes]) -> None:
    alone = [await written(ear, audio) for audio in spoken]
    assert await asyncio.gather(*(written(ear, audio) for audio in spoken)) == alone
    ear._waiting = WAITING_MAX
    with pytest.raises(EngineError) as caught:
        await written(ear, spoken[0])
    assert caught.value.code == "engine_busy"
    ear._waiting = 0


async def _writes_nothing_where_nobody_speaks(ear: Whisper, spoken: list[bytes]) -> None:
    random = np.random.default_rng(11)
    hiss = (random.standard_normal(3 * RATE_HZ) * 800).astype("<i2").tobytes()
    faint = (random.standard_normal(2 * RATE_HZ) * 3).astype("<i2").tobytes()
    hum = (np.sin(np.arange(3 * RATE_HZ) * 2 * np.pi * 100 / RATE_HZ) * 6_000).astype("<i2").tobytes()
    clicks = np.zeros(3 * RATE_HZ, "<i2")
    clicks[random.integers(0, len(clicks), 20)] = 20_000
    for audio in (b"", b"\0", silence(0.01) + b"\0", silence(2), faint, hiss, hum, clicks.tobytes()):
        assert await written(ear, audio) == []


async def _leans_on_the_hints(ear: Whisper, spoken: list[bytes]) -> None:
    for language in ("en", "en-US", "EN"):
        assert await written(ear, spoken[0], TranscriptionHints(language=language)) == await written(ear, spoken[0])
    with pytest.raises(EngineError, match="English only") as caught:
        await written(ear, spoken[0], TranscriptionHints(language="de"))
    assert caught.value.code == "unsupported_language"
    british = "".join(await written(ear, spoken[3], TranscriptionHints(prompt="Colour, grey, centre, neighbour.")))
    assert "colour" in british, "the prompt shows how to spell"
    assert "color" in "".join(await written(ear, spoken[3]))
    long = TranscriptionHints(prompt="and then another thing " * PROMPT_TOKENS_MAX)
    assert plain("".join(await written(ear, spoken[0], long)))


async def _scores_every_token(ear: Whisper, spoken: list[bytes]) -> None:
    for audio in (*spoken[:3], spoken[0] + silence(1.5) + spoken[1]):
        scored = [piece async for piece in ear.transcribe_scored(audio, HINTS)]
        assert [text for text, _ in scored] == await written(ear, audio)
        for text, tokens in scored:
            assert b"".join(bytes(token.bytes) for token in tokens) == text.encode()
            assert "".join(token.token for token in tokens) == text
            assert all(-70 < token.logprob <= 0 for token in tokens)
            assert np.mean([token.logprob for token in tokens]) > -0.7
    assert [piece async for piece in ear.transcribe_scored(silence(2), HINTS)] == []
    assert await _mean_logprob(ear, spoken[0]) > await _mean_logprob(ear, _in_noise(spoken[0]))


async def _hears_along(ear: Whisper, spoken: list[bytes]) -> None:
    """In pieces, with pauses in it: the same words, part of them told before the end."""
    audio = spoken[0] + silence(0.5) + spoken[1] + silence(1.5) + spoken[2] + silence(0.2)
    told: list[str] = []
    turn = ear.listen(HINTS, lambda words, _: told.append(words))
    for start in range(0, len(audio), 640):
        turn.push(audio[start : start + 640])
        await turn.idle()
    text = await turn.settle()
    assert jiwer.wer(plain(" ".join(SENTENCES[:3])), plain(text)) <= ROUND_TRIP_WER_MAX
    assert len(told) >= 2
    assert text.startswith("".join(told))
    assert await turn.settle() == text
    turn.cancel()
    quiet = ear.listen(HINTS)
    quiet.push(silence(2))
    assert await quiet.settle() == ""
    with pytest.raises(EngineError, match="not warmed up"):
        create({}).listen(HINTS)


def _in_noise(audio: bytes) -> bytes:
    samples = np.frombuffer(audio, "<i2").astype(np.float64)
    noise = np.random.default_rng(5).standard_normal(len(samples)) * samples.std()
    return (samples / 4 + noise / 4).astype("<i2").tobytes()


async def _mean_logprob(ear: Whisper, audio: bytes) -> float:
    found = [token async for _, tokens in ear.transcribe_scored(audio, HINTS) for token in tokens]
    assert found
    return float(np.mean([token.logprob for token in found]))


async def _stops_when_cancelled(ear: Whisper, spoken: list[bytes]) -> None:
    pieces = ear.transcribe(silence(1.5).join(spoken * 8), HINTS)
    assert await anext(pieces)
    waiting = asyncio.ensure_future(anext(pieces))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ear._waiting == 0
    assert await written(ear, spoken[0]), "it hears the next one"
