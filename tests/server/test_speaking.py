"""Speech that might run out is held until it will not; then it comes in order, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from vivavoce.audio.formats import PCM16_24K
from vivavoce.core.messages import (
    AudioSynthesized,
    EngineReport,
    Generate,
    GenerationEnded,
    PhraseSpoken,
    Speak,
    SynthesisFailed,
)
from vivavoce.engines import Finish, Piece, Prompt, TextPiece
from vivavoce.engines.cores import DUE, URGENCY, Urgency
from vivavoce.engines.scripted import ScriptedLanguageModel, scripted_pipeline
from vivavoce.errors import EngineError
from vivavoce.server.speaking import HELD_S_MAX
from vivavoce.server.work import Work
from vivavoce.testing.virtual_time import run

SILENCE_S = 60.0
"""How long the voice thinks about some phrases."""


class Slow(ScriptedLanguageModel):
    """Writes ten characters at each of these times, and ends with the last; or never, where it `stalls`."""

    def __init__(self, times: Sequence[float], *, stalls: bool = False) -> None:
        super().__init__()
        self.times, self.stalls = times, stalls

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        began = asyncio.get_running_loop().time()
        for time in self.times:
            await asyncio.sleep(began + time - asyncio.get_running_loop().time())
            yield TextPiece("0123456789")
        if self.stalls:
            await asyncio.Event().wait()
        yield Finish("stop")


class Voice:
    """A second of silence for each phrase, but for those that fail; notes how urgent each was and when it is due."""

    rate_hz = 24_000

    def __init__(self) -> None:
        self.asked: list[tuple[str, Urgency, float | None]] = []
        self.is_mute = False

    async def warm_up(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to free."""

    async def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[bytes]:
        self.asked.append((text, URGENCY.get(), DUE.get()))
        if text == "fails":
            raise EngineError("no voice", code="synthesis_failed")
        if text == "breaks":
            raise RuntimeError("a mistake of the engine's own")
        if text == "silence":
            await asyncio.sleep(SILENCE_S)
        for _ in range(0 if self.is_mute else 10):
            yield bytes(4_800)


class Answer:
    """One response of a session's `Work`: what is reported, and when."""

    def __init__(self, model: Slow) -> None:
        self.voice = Voice()
        self.told: list[tuple[float, EngineReport]] = []
        self.is_spoken = asyncio.Event()
        """Whether a phrase is spoken to its end."""
        self.work = Work(replace(scripted_pipeline(), language_model=model, synthesizer=self.voice), self._tell, "s")
        self.work.generate(Generate("resp", "", ()))

    async def _tell(self, report: EngineReport) -> None:
        self.told.append((asyncio.get_running_loop().time(), report))
        if isinstance(report, PhraseSpoken):
            self.is_spoken.set()

    async def speak_at(self, time: float, number: int, text: str = "Well.") -> None:
        await asyncio.sleep(time - asyncio.get_running_loop().time())
        self.work.speak(Speak("resp", "item", number, text, "alloy", 1.0, PCM16_24K))

    def heard(self) -> list[tuple[float, str]]:
        """When each phrase began, ended or failed."""
        events: list[tuple[float, str]] = []
        for time, report in self.told:
            match report:
                case AudioSynthesized() if not events or not events[-1][1].startswith("audio"):
                    events.append((time, "audio"))
                case PhraseSpoken():
                    events.append((time, f"spoken {report.phrase}"))
                case SynthesisFailed():
                    events.append((time, "failed"))
        return events


def test_speech_waits_for_slow_text_and_then_comes_whole_and_in_order() -> None:
    async def talk() -> Answer:
        answer = Answer(Slow([1.0 * n for n in range(9)]))
        await answer.speak_at(1.0, 0)
        await answer.speak_at(2.0, 1)
        await asyncio.sleep(10.0)
        await answer.work.end(1.0)
        return answer

    answer = run(talk())
    assert answer.heard() == [(6.0, "audio"), (6.0, "spoken 0"), (6.0, "audio"), (6.0, "spoken 1")]
    assert [urgency for _, urgency, _ in answer.voice.asked] == [Urgency.NOW, Urgency.NOW], "nothing is heard yet"
    assert isinstance(answer.told[-1][1], GenerationEnded), "the third phrase was nearly written"


def test_speech_waits_for_slow_text_behind_a_phrase_without_a_sound_too() -> None:
    async def talk() -> Answer:
        answer = Answer(Slow([1.0 * n for n in range(9)]))
        answer.voice.is_mute = True
        await answer.speak_at(1.0, 0, "…")
        await asyncio.sleep(0.5)
        answer.voice.is_mute = False
        await answer.speak_at(2.0, 1)
        await answer.speak_at(3.0, 2)
        await asyncio.sleep(10.0)
        await answer.work.end(1.0)
        return answer

    answer = run(talk())
    times = [time for time, event in answer.heard() if event == "audio"]
    assert times[0] > 4.0, "text comes slower than it is spoken, so what is there does not last yet"
    assert [event for _, event in answer.heard()] == ["spoken 0", "audio", "spoken 1", "audio", "spoken 2"]
    assert answer.voice.asked[1][1] is Urgency.NOW, "nothing is heard yet"


@pytest.mark.parametrize("steps", range(12))
def test_a_phrase_is_spoken_that_comes_when_the_one_before_ends(steps: int) -> None:
    async def talk() -> Answer:
        answer = Answer(Slow([0.0, 0.1]))
        await answer.speak_at(1.0, 0)
        await answer.is_spoken.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        await answer.speak_at(1.0, 1)
        await asyncio.sleep(1.0)
        await answer.work.end(1.0)
        return answer

    assert [event for _, event in run(talk()).heard()] == ["audio", "spoken 0", "audio", "spoken 1"]


def test_a_phrase_without_sound_holds_nothing_up() -> None:
    async def talk() -> Answer:
        answer = Answer(Slow([0.0, 0.5]))
        answer.voice.is_mute = True
        await answer.speak_at(1.0, 0, "…")
        await asyncio.sleep(0.5)
        await answer.work.end(1.0)
        return answer

    assert run(talk()).heard() == [(1.0, "spoken 0")]


def test_what_comes_later_is_due_before_all_has_been_heard() -> None:
    async def talk() -> Answer:
        answer = Answer(Slow([0.01 * n for n in range(60)]))
        await answer.speak_at(0.1, 0)
        await answer.speak_at(0.3, 1)
        await answer.speak_at(0.4, 2)
        await asyncio.sleep(10.0)
        await answer.work.end(1.0)
        return answer

    answer = run(talk())
    assert [at for at, what in answer.heard() if what == "audio"] == [0.1, 0.3, 0.4]
    assert [urgency for _, urgency, _ in answer.voice.asked] == [Urgency.NOW, Urgency.SOON, Urgency.SOON]
    assert [due for _, _, due in answer.voice.asked] == [None, pytest.approx(0.9), pytest.approx(1.9)]


def test_a_text_that_does_not_go_on_is_not_waited_for_for_ever() -> None:
    async def talk() -> Answer:
        answer = Answer(Slow([0.0, 1.0], stalls=True))
        await answer.speak_at(1.0, 0)
        await asyncio.sleep(100.0)
        await answer.work.end(1.0)
        return answer

    assert run(talk()).heard() == [(1.0 + HELD_S_MAX, "audio"), (1.0 + HELD_S_MAX, "spoken 0")]


def test_text_releases_speech_while_the_synthesizer_is_silent() -> None:
    """The rest of a long answer comes at once: then the first phrase lasts, whenever the second is there."""

    async def talk() -> Answer:
        answer = Answer(Slow([0.0, 3.0, *[5.0] * 40]))
        await answer.speak_at(3.0, 0)
        await answer.speak_at(4.0, 1, "silence")
        await asyncio.sleep(2 * SILENCE_S)
        await answer.work.end(1.0)
        return answer

    heard = run(talk()).heard()
    assert heard[:2] == [(5.0, "audio"), (5.0, "spoken 0")]
    assert heard[2:] == [(4.0 + SILENCE_S, "audio"), (4.0 + SILENCE_S, "spoken 1")]


def test_speech_is_held_no_longer_while_the_synthesizer_is_silent() -> None:
    async def talk() -> Answer:
        answer = Answer(Slow([0.0, 3.0], stalls=True))
        await answer.speak_at(3.0, 0)
        await answer.speak_at(4.0, 1, "silence")
        await asyncio.sleep(2 * SILENCE_S)
        await answer.work.end(1.0)
        return answer

    first, later = 3.0 + HELD_S_MAX, 4.0 + SILENCE_S
    assert run(talk()).heard() == [(first, "audio"), (first, "spoken 0"), (later, "audio"), (later, "spoken 1")]


@pytest.mark.parametrize("text", ["fails", "breaks"])
def test_where_a_later_phrase_fails_the_first_is_heard(text: str, caplog: pytest.LogCaptureFixture) -> None:
    async def talk() -> Answer:
        answer = Answer(Slow([0.0, 1.0], stalls=True))
        await answer.speak_at(1.0, 0)
        await answer.speak_at(2.0, 1, text)
        await asyncio.sleep(1.0)
        await answer.work.end(1.0)
        return answer

    with caplog.at_level(logging.CRITICAL, "vivavoce.server.work"):
        assert run(talk()).heard() == [(2.0, "audio"), (2.0, "spoken 0"), (2.0, "failed")]


def test_what_is_cancelled_while_it_is_held_is_never_heard() -> None:
    async def talk() -> Answer:
        answer = Answer(Slow([0.5 * n for n in range(9)]))
        await answer.speak_at(1.0, 0)
        await asyncio.sleep(1.0)
        answer.work.cancel("resp")
        await asyncio.sleep(100.0)
        assert not answer.work._speaking
        await answer.work.end(1.0)
        return answer

    answer = run(talk())
    assert answer.heard() == []
    assert not any(isinstance(report, GenerationEnded) for _, report in answer.told)
