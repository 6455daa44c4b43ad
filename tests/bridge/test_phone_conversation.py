"""Whole calls between the simulated phone and a server in this process: who has heard what, and how soon."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from phone_house import House, Line, ask, on_the_phone, tone, words_heard

from vivavoce import ItemView
from vivavoce.engines import Prompt
from vivavoce.engines.scripted.answering import Answer
from vivavoce.protocol.base import given
from vivavoce.protocol.items import Message, OutputAudio
from vivavoce.testing.phone_call import PhoneWeather
from vivavoce.testing.virtual_time import run

STORY = "Once upon a time there was a telephone that nobody answered, and so it rang and rang until the end of days."
STORY_S = len(STORY) * 0.06
FINE = PhoneWeather()
FAR = PhoneWeather(delay_s=0.12)
ROUGH = PhoneWeather(delay_s=0.05, jitter_s=0.04, is_shuffled=True)


def tell(prompt: Prompt) -> Answer:
    return (STORY,)


def answers(line: Line) -> list[ItemView]:
    return [view for view in line.session.get_items() if view.role == "assistant"]


def said_in(item: Message) -> str:
    """What the model is told that it has said."""
    return "".join(given(part.transcript, None) or "" for part in item.content if isinstance(part, OutputAudio)).strip()


def more_spells(line: Line, than: int) -> bool:
    return len(line.phone.spells) > than


async def a_minute(line: Line, barge_in_after_s: list[float]) -> None:
    """Ask, and cut in after so many seconds of each answer; then hear the last one to its end."""
    phone = line.phone
    for after_s in barge_in_after_s:
        phone.say(ask())
        await phone.until(partial(more_spells, line, len(phone.spells)))
        await asyncio.sleep(after_s)
    phone.say(ask())
    await phone.until(lambda: not phone.is_speaking)
    await asyncio.sleep(2)
    await phone.until(lambda: not phone.is_playing)


@pytest.mark.parametrize(("weather", "off_ms"), [(FINE, 1), (FAR, 1), (ROUGH, 45)])
@pytest.mark.parametrize("seed", range(3))
def test_what_the_caller_heard_is_what_the_conversation_says(weather: PhoneWeather, off_ms: int, seed: int) -> None:
    async def main() -> None:
        house = House(tell)
        async with on_the_phone(house, weather, seed) as line:
            began_s = asyncio.get_running_loop().time()
            await a_minute(line, [1.3 + seed * 0.37, 2.9, 4.4, 0.7, 3.3, 5.0, 2.2, 4.9, 3.6, 5.1, 2.4, 1.9])
            assert asyncio.get_running_loop().time() - began_s >= 50
            spells, views = line.phone.spells, answers(line)
            assert len(spells) == len(views) == 13
            for spell, view in zip(spells, views, strict=True):
                heard_ms = len(spell.audio) / 8
                assert abs(view.audio_ms - heard_ms) <= off_ms
                size = min(len(spell.audio), len(view.audio))
                assert spell.audio[:size] == view.audio[:size]
                if off_ms == 1:
                    assert view.text == words_heard(STORY, heard_ms)
            assert [view.is_truncated for view in views] == [True] * 12 + [False]
            told = [item for item in house.prompts[-1].items if isinstance(item, Message) and item.role == "assistant"]
            assert list(map(said_in, told)) == [view.text.strip() for view in views[:-1]]

    run(main())


def test_tone_is_speech() -> None:
    assert len(tone(20)) == 160
