"""What a session asks of its engines says how urgent it is: the first phrase of an answer goes before its rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from vivavoce.audio.formats import PCM16_24K
from vivavoce.core.messages import EngineReport, PhraseSpoken, Speak
from vivavoce.engines import Pipeline
from vivavoce.engines.cores import URGENCY, Urgency
from vivavoce.engines.scripted import ScriptedLanguageModel, ScriptedSynthesizer, ScriptedTranscriber, ScriptedVad
from vivavoce.server.work import Work
from vivavoce.testing.virtual_time import run


class Noting(ScriptedSynthesizer):
    """Notes how urgent each phrase is."""

    def __init__(self) -> None:
        super().__init__()
        self.urgencies: list[Urgency] = []

    async def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[bytes]:
        self.urgencies.append(URGENCY.get())
        async for piece in super().speak(text, voice, speed):
            yield piece


def test_the_first_phrase_is_urgent_and_the_rest_is_soon_enough() -> None:
    async def speak() -> list[Urgency]:
        voice = Noting()
        reports: asyncio.Queue[EngineReport] = asyncio.Queue()
        pipeline = Pipeline("p", ScriptedVad(), ScriptedTranscriber(), ScriptedLanguageModel(), voice)
        work = Work(pipeline, reports.put, "session")
        for number in range(3):
            work.speak(Speak("resp", "item", number, "Well.", "alloy", 1.0, PCM16_24K))
        spoken = 0
        while spoken < 3:
            spoken += isinstance(await reports.get(), PhraseSpoken)
        await work.end(1.0)
        assert URGENCY.get() is Urgency.NOW, "nobody else is touched by it"
        return voice.urgencies

    assert run(speak()) == [Urgency.NOW, Urgency.SOON, Urgency.SOON]
