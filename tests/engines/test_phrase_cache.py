"""Phrases that were spoken before: the same sound without the work, and never more of it than there is room for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from vivavoce.engines.phrase_cache import PHRASE_BYTES_MAX, PhraseCache
from vivavoce.errors import EngineError


class Voice:
    """Says each character twice, and counts how often it has to."""

    def __init__(self, cache: PhraseCache) -> None:
        self.cache = cache
        self.said: list[str] = []

    async def _speak(self, text: str, times: int) -> AsyncGenerator[bytes]:
        self.said.append(text)
        for char in text:
            if char == "!":
                raise EngineError("broken", code="synthesis_failed")
            yield char.encode() * times

    async def say(self, text: str, voice: str = "alloy", speed: float = 1.0, times: int = 2) -> Sequence[bytes]:
        return [piece async for piece in self.cache.spoken(voice, speed, text, lambda: self._speak(text, times))]


def test_what_is_said_again_sounds_the_same_piece_by_piece_and_takes_no_work() -> None:
    async def talk() -> None:
        voice = Voice(PhraseCache())
        assert await voice.say("Sure") == [b"SS", b"uu", b"rr", b"ee"] == await voice.say("Sure")
        assert await voice.say("Sure ") == await voice.say("Sure"), "blanks around it are not heard"
        assert voice.said == ["Sure"]
        assert voice.cache.hits == 3

    asyncio.run(talk())


def test_another_voice_or_speed_is_another_sound() -> None:
    async def talk() -> None:
        voice = Voice(PhraseCache())
        for name, speed in (("alloy", 1.0), ("echo", 1.0), ("alloy", 1.1)) * 2:
            await voice.say("Sure", name, speed)
        assert voice.said == ["Sure"] * 3

    asyncio.run(talk())


def test_what_was_not_said_to_its_end_is_not_kept() -> None:
    async def talk() -> None:
        voice = Voice(PhraseCache())
        left = voice.cache.spoken("alloy", 1.0, "Sure", lambda: voice._speak("Sure", 1))
        await anext(left)
        await left.aclose()
        assert voice.cache.bytes == 0
        for _ in range(2):
            with pytest.raises(EngineError):
                await voice.say("Su!")
        assert voice.said == ["Sure", "Su!", "Su!"]
        assert voice.cache.bytes == 0

    asyncio.run(talk())


def test_there_is_never_more_than_there_is_room_for_and_the_oldest_goes_first() -> None:
    async def talk() -> None:
        voice = Voice(PhraseCache(bytes_max=16))
        for text in ("aaaa", "bbbb", "aaaa", "cccc", "aaaa", "bbbb"):
            await voice.say(text)
            assert voice.cache.bytes <= 16
        assert voice.said == ["aaaa", "bbbb", "cccc", "bbbb"]
        await voice.say("ten chars.")
        assert voice.cache.bytes <= 16, "one that does not fit at all is not kept"
        nothing = Voice(PhraseCache(bytes_max=0))
        await nothing.say("Sure")
        await nothing.say("Sure")
        assert nothing.said == ["Sure", "Sure"]

    asyncio.run(talk())


def test_a_long_phrase_is_not_kept() -> None:
    async def talk() -> None:
        voice = Voice(PhraseCache())
        for _ in range(2):
            await voice.say("ab", times=PHRASE_BYTES_MAX // 2 + 1)
        assert voice.said == ["ab", "ab"]
        await voice.say("cd", times=PHRASE_BYTES_MAX // 2)
        assert voice.cache.bytes == PHRASE_BYTES_MAX

    asyncio.run(talk())


def test_two_who_say_the_same_at_once_keep_it_once() -> None:
    async def talk() -> None:
        voice = Voice(PhraseCache())
        await asyncio.gather(voice.say("Sure"), voice.say("Sure"))
        assert voice.cache.bytes in (8,)
        assert await voice.say("Sure") == [b"SS", b"uu", b"rr", b"ee"]

    asyncio.run(talk())
