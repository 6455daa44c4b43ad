"""What the tests of the phone share: a server in this process, a phone that rings at it, and what both have heard."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import vivavoce
from vivavoce.audio import g711
from vivavoce.bridge.phone import Call, PhoneOptions, carry, in_process
from vivavoce.engines import Prompt
from vivavoce.engines.scripted import CHARACTER_MS, ScriptedLanguageModel, ScriptedSettings, scripted_pipeline
from vivavoce.engines.scripted.answering import Answer
from vivavoce.server.pipelines import Pipelines
from vivavoce.server.sessions import Sessions
from vivavoce.server.settings import Settings
from vivavoce.testing.phone_call import PhoneCall, PhoneWeather
from vivavoce.transports.memory import pair

ANSWERED = ScriptedSettings(first_delay_s=0.2)
"""An engine that needs a moment to think, and then is quicker than speech."""
VAD = {"type": "server_vad", "silence_duration_ms": 300}


def tone(ms: int) -> bytes:
    """Speech, as the scripted engines take it, in µ-law."""
    wave = array("h", (round(8_000 * math.sin(math.tau * 440 * n / 8_000)) for n in range(ms * 8)))
    return g711.encode(wave.tobytes(), "ulaw")


class House:
    """A server with scripted engines, without a network; `prompts` is what its model was asked."""

    def __init__(self, script: Callable[[Prompt], Answer] | None = None) -> None:
        self.prompts: list[Prompt] = []
        self._script = script
        pipeline = scripted_pipeline(language_model=ANSWERED, synthesizer=ScriptedSettings(first_delay_s=0.1))
        if script is not None:
            pipeline = replace(pipeline, language_model=ScriptedLanguageModel(ANSWERED, self._answer))
        pipelines = Pipelines({"scripted": pipeline}, default="scripted", models={})
        self.sessions = Sessions(Settings(pipeline="scripted"), pipelines, wall_s=lambda: 0.0)
        self.opened: list[vivavoce.Session] = []

    def _answer(self, prompt: Prompt) -> Answer:
        self.prompts.append(prompt)
        assert self._script is not None
        return self._script(prompt)

    def connect(self, **how: Any) -> vivavoce.Session:
        """For `PhoneOptions`."""
        session = vivavoce.connect(dial=in_process(self.sessions, "any"), reconnect=False, **how)
        session.update_session(turn_detection=VAD, transcription="whisper-1")
        self.opened.append(session)
        return session


@dataclass
class Line:
    """A call that goes on, seen from both ends."""

    phone: PhoneCall
    session: vivavoce.Session
    carrying: asyncio.Task[Call]
    told: list[Any] = field(default_factory=list)

    async def answered(self, times: int) -> None:
        """Until so many responses are over and have been heard."""
        done = "response.done"
        await self.phone.until(lambda: len([event for event in self.told if event.type == done]) >= times)
        await self.phone.until(lambda: not self.phone.is_playing)


@asynccontextmanager
async def on_the_phone(
    house: House, weather: PhoneWeather | None = None, seed: int = 0, **how: Any
) -> AsyncIterator[Line]:
    """A call that has begun; at the end of the block the caller hangs up, and everything must be over."""
    near, far = pair()
    before = asyncio.all_tasks()
    told: list[Any] = []

    def connect(**given: Any) -> vivavoce.Session:
        session = house.connect(**given)
        session.on("*", told.append)
        return session

    options = PhoneOptions(connect=how.pop("connect", connect), **how)
    carrying = asyncio.create_task(carry(far, options, wall_s=lambda: 1_000.0))
    parameters = {"from": "+15550001111", "to": "+15552223333"}
    async with PhoneCall(near, weather=weather, seed=seed, parameters=parameters) as phone:
        await phone.until(lambda: house.opened and house.opened[-1].is_connected)
        yield Line(phone, house.opened[-1], carrying, told)
    async with asyncio.timeout(30):
        await carrying
    for _ in range(50):
        await asyncio.sleep(0)
    assert not (left := asyncio.all_tasks() - before), f"tasks are left: {left}"
    assert len(house.sessions) == 0


def words_heard(text: str, heard_ms: float) -> str:
    """The whole words of an answer that fit into so much of its speech, by the pace of the scripted voice."""
    share = text[: int(heard_ms / CHARACTER_MS)]
    return text if len(share) == len(text) else share[: share.rfind(" ") + 1]


ask = partial(tone, 600)
