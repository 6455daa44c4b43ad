"""Whole calls between the simulated phone and a server in this process: who has heard what, and how soon."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from phone_house import House, Line, ask, on_the_phone, tone, words_heard

from vivavoce import ItemView
from vivavoce.bridge.phone.ordering import SILENCE
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
SLOW = PhoneWeather(delay_s=0.08, buffer_s=0.13)
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


@pytest.mark.parametrize(("weather", "off_ms"), [(FINE, 1), (FAR, 1), (SLOW, 1), (ROUGH, 45)])
@pytest.mark.parametrize("seed", range(2))
def test_what_the_caller_heard_is_what_the_conversation_says(weather: PhoneWeather, off_ms: int, seed: int) -> None:
    async def main() -> None:
        house = House(tell)
        async with on_the_phone(house, weather, seed) as line:
            began_s = asyncio.get_running_loop().time()
            await a_minute(line, [1.3 + seed * 0.37, 2.9, 4.4, 0.7, 3.3, 5.0, 2.2, 4.9, 3.6, 5.1, 2.4, 1.9, 4.2, 3.1])
            assert asyncio.get_running_loop().time() - began_s >= 60
            spells, views = line.phone.spells, answers(line)
            assert len(spells) == len(views) == 15
            for spell, view in zip(spells, views, strict=True):
                heard_ms = len(spell.audio) / 8
                assert abs(view.audio_ms - heard_ms) <= off_ms
                size = min(len(spell.audio), len(view.audio))
                assert spell.audio[:size] == view.audio[:size]
                if off_ms == 1:
                    assert view.text == words_heard(STORY, heard_ms)
            assert [view.is_truncated for view in views] == [True] * 14 + [False]
            told = [item for item in house.prompts[-1].items if isinstance(item, Message) and item.role == "assistant"]
            assert list(map(said_in, told)) == [view.text.strip() for view in views[:-1]]

    run(main())


@pytest.mark.parametrize("weather", [FINE, FAR])
def test_the_bridge_adds_next_to_nothing_to_the_servers_latency(weather: PhoneWeather) -> None:
    """What the carrier's own way takes is not the bridge's: it is taken off."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        house = House(tell)
        async with on_the_phone(house, weather) as line:
            ended_s = await said(line)
            await line.phone.until(lambda: line.phone.spells)
            by_phone_s = line.phone.spells[0].began_s - ended_s - 2 * weather.delay_s
        first: asyncio.Future[float] = loop.create_future()
        async with house.connect() as session:
            await session.update_session(input_format="audio/pcmu", output_format="audio/pcmu")
            session.once("response.output_audio.delta", lambda _: first.set_result(loop.time()))
            for piece in pieces(ask() + SILENCE * 8_000):
                await asyncio.sleep(0.02)
                session.append_audio(piece)
            ended_s = loop.time() - 1.0
            directly_s = await first - ended_s
        assert 0 <= by_phone_s - directly_s <= 0.06

    run(main())


async def said(line: Line) -> float:
    """Ask; when the last of it was said."""
    line.phone.say(ask())
    await line.phone.until(lambda: not line.phone.is_speaking)
    return asyncio.get_running_loop().time() + 0.02  # the last piece is on its way to the network


def pieces(ulaw: bytes) -> list[bytes]:
    return [ulaw[at : at + 160] for at in range(0, len(ulaw), 160)]


def test_a_network_that_shuffles_does_not_change_what_is_understood() -> None:
    """Every piece of the caller's voice comes once, in order, at its time, whatever the network does."""

    async def main() -> None:
        understood = []
        for weather in (FINE, PhoneWeather(delay_s=0.1, jitter_s=0.15, is_shuffled=True)):
            house = House()
            async with on_the_phone(house, weather, seed=7) as line:
                line.phone.say(tone(200) + SILENCE * 1_200 + tone(900))
                await line.answered(1)
                (user,) = [view for view in line.session.get_items() if view.role == "user"]
                understood.append((user.text, bytes(user.audio).strip(SILENCE)))
        assert understood[0] == understood[1]

    run(main())
