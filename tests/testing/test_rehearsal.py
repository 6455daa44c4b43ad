"""The rehearsal: effects find their engines, answers wait, order is free between streams."""

from __future__ import annotations

import dataclasses

import pytest

from vivavoce.core.messages import (
    AudioSynthesized,
    Close,
    Effect,
    Generate,
    GenerationFailed,
    Input,
    Opened,
    PhraseSpoken,
    Send,
    SpeechScored,
    SynthesisFailed,
    TextGenerated,
    TranscriptDelta,
    TranscriptFailed,
)
from vivavoce.core.session import Session
from vivavoce.engines.scripted import ScriptedSettings, scripted_pipeline
from vivavoce.protocol.config import AudioConfig, AudioInput, AudioOutput, PcmaFormat, PcmuFormat, RealtimeSession
from vivavoce.protocol.events import (
    ConversationItemCreate,
    InputAudioBufferAppend,
    InputAudioBufferCommit,
    ResponseCancel,
    ResponseCreate,
    ResponseDone,
    SessionUpdate,
)
from vivavoce.protocol.items import InputText, Message, Response
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.rehearsal import DETECTION, Pace, Rehearsal
from vivavoce.testing.sounds import silence, tone


def rehearse(pace: Pace | None = None, **pipeline: ScriptedSettings) -> Rehearsal:
    machine = Session(id="sess_1", model="scripted", ids=counting_ids(), expires_at=0)
    rehearsal = Rehearsal(machine, scripted_pipeline(**pipeline), pace or Pace())  # type: ignore[arg-type]
    rehearsal.say(Opened())
    return rehearsal


def ask(rehearsal: Rehearsal, text: str) -> None:
    rehearsal.say(ConversationItemCreate(item=Message(role="user", content=(InputText(text=text),))))
    rehearsal.say(ResponseCreate())


def sent(rehearsal: Rehearsal) -> list[str]:
    return [moment.message.event.type for moment in rehearsal.record if isinstance(moment.message, Send)]


def heard(rehearsal: Rehearsal, kind: type[Input]) -> list[Input]:
    return [moment.message for moment in rehearsal.record if isinstance(moment.message, kind)]


def test_answers_wait_until_they_are_asked_for() -> None:
    rehearsal = rehearse()
    ask(rehearsal, "hello")
    assert rehearsal.streams == ("generation resp_1",)
    assert sent(rehearsal)[-1] == "response.created"
    report, _ = rehearsal.deliver("generation resp_1")
    assert report == TextGenerated("resp_1", "echo:")


def test_settling_plays_the_dialogue_to_its_end() -> None:
    rehearsal = rehearse()
    ask(rehearsal, "hello")
    rehearsal.settle()
    assert rehearsal.streams == ()
    assert sent(rehearsal)[-1] == "response.done"
    audio = [report.audio for report in heard(rehearsal, AudioSynthesized) if isinstance(report, AudioSynthesized)]
    assert sum(map(len, audio)) == len("echo: hello") * 60 * 48


def test_streams_may_be_delivered_in_any_order() -> None:
    rehearsal = rehearse()
    ask(rehearsal, "First sentence. Second sentence.")
    while "speech item_2" not in rehearsal.streams:
        rehearsal.deliver("generation resp_1")
    assert rehearsal.streams == ("generation resp_1", "speech item_2")
    report, _ = rehearsal.deliver("speech item_2")
    assert isinstance(report, AudioSynthesized)
    report, _ = rehearsal.deliver("generation resp_1")
    assert isinstance(report, TextGenerated)


def test_reports_come_at_their_pace() -> None:
    rehearsal = rehearse(Pace(generation_ms=10, speech_ms=100))
    ask(rehearsal, "you")
    rehearsal.at(25)
    assert len(heard(rehearsal, TextGenerated)) == 2
    rehearsal.at(129)
    assert not heard(rehearsal, AudioSynthesized)
    rehearsal.at(130)
    assert len(heard(rehearsal, AudioSynthesized)) == 1
    assert rehearsal.now_ms == 130


def test_wake_ups_come_at_their_time() -> None:
    rehearsal = rehearse()
    rehearsal.at(Session(id="s", model="m", ids=counting_ids(), expires_at=0).limits.session_ms_max)
    assert rehearsal.closed is not None
    assert rehearsal.closed.code == 1001
    assert isinstance(rehearsal.record[-1].message, Close)


def test_what_a_cancelled_engine_still_says_is_late() -> None:
    rehearsal = rehearse()
    ask(rehearsal, "hello")
    rehearsal.deliver("generation resp_1")
    rehearsal.say(ResponseCancel())
    assert rehearsal.streams == ()
    assert rehearsal.late[0] == TextGenerated("resp_1", " hello")
    assert rehearsal.deliver_late() == (TextGenerated("resp_1", " hello"), [])


def test_audio_is_scored_and_transcribed() -> None:
    rehearsal = rehearse()
    rehearsal.say(InputAudioBufferAppend(audio=silence(50) + tone(60)))
    report, _ = rehearsal.deliver(DETECTION)
    assert report == SpeechScored(1, 20, (0.0, 0.0, 1.0, 1.0, 1.0))
    rehearsal.say(InputAudioBufferCommit())
    report, _ = rehearsal.deliver("transcription item_1")
    assert report == TranscriptDelta("item_1", "audio")


def test_g711_lasts_as_long_as_pcm() -> None:
    rehearsal = rehearse()
    config = AudioConfig(input=AudioInput(format=PcmuFormat()), output=AudioOutput(format=PcmaFormat()))
    rehearsal.say(SessionUpdate(session=RealtimeSession(audio=config)))
    rehearsal.say(InputAudioBufferAppend(audio=b"\xff" * 800 + b"\x00" * 800))
    report, _ = rehearsal.deliver(DETECTION)
    assert report == SpeechScored(2, 20, (0.0,) * 5 + (1.0,) * 5)
    rehearsal.say(InputAudioBufferCommit())
    rehearsal.settle()
    assert TranscriptDelta("item_1", " 200") in heard(rehearsal, TranscriptDelta)
    rehearsal.say(ResponseCreate())
    rehearsal.settle()
    audio = [report.audio for report in heard(rehearsal, AudioSynthesized) if isinstance(report, AudioSynthesized)]
    assert sum(map(len, audio)) == len("echo: audio of 200 ms") * 60 * 8


@pytest.mark.parametrize(
    ("engine", "failure"),
    [("transcriber", TranscriptFailed), ("language_model", GenerationFailed), ("synthesizer", SynthesisFailed)],
)
def test_engines_that_fail_say_so(engine: str, failure: type[Input]) -> None:
    rehearsal = rehearse(**{engine: ScriptedSettings(fail_at_piece=2)})
    rehearsal.say(InputAudioBufferAppend(audio=tone(200)))
    rehearsal.say(InputAudioBufferCommit())
    rehearsal.settle()
    ask(rehearsal, "hello")
    rehearsal.settle()
    assert [report.code for report in heard(rehearsal, failure)] == ["scripted_failure"]  # type: ignore[union-attr]


def test_a_test_may_let_an_engine_fail() -> None:
    rehearsal = rehearse()
    rehearsal.say(InputAudioBufferAppend(audio=tone(200)))
    assert not rehearsal.fail(DETECTION)
    rehearsal.say(InputAudioBufferCommit())
    assert rehearsal.fail("transcription item_1")
    assert isinstance(rehearsal.deliver("transcription item_1")[0], TranscriptFailed)
    ask(rehearsal, "hello")
    rehearsal.deliver("generation resp_1")
    assert rehearsal.fail("generation resp_1")
    assert isinstance(rehearsal.deliver("generation resp_1")[0], GenerationFailed)


def test_a_closed_session_hears_nothing_more() -> None:
    rehearsal = rehearse()
    ask(rehearsal, "hello")
    rehearsal.at(rehearsal.machine.deadline() or 0)
    rehearsal.at(10**9)
    assert rehearsal.closed is not None
    assert rehearsal.streams == ()


def test_an_engine_that_really_waits_is_refused() -> None:
    pipeline = scripted_pipeline()

    class Waits:
        async def generate(self, prompt: object):  # type: ignore[no-untyped-def]
            yield await self

        def __await__(self):  # type: ignore[no-untyped-def]
            yield object()

    machine = Session(id="sess_1", model="scripted", ids=counting_ids(), expires_at=0)
    rehearsal = Rehearsal(machine, dataclasses.replace(pipeline, language_model=Waits()))  # type: ignore[arg-type]
    rehearsal.say(Opened())
    with pytest.raises(AssertionError, match="nothing but"):
        ask(rehearsal, "hello")


def test_phrases_of_an_item_are_spoken_in_their_order() -> None:
    rehearsal = rehearse()
    ask(rehearsal, "One two three. Four five six. Seven.")
    rehearsal.settle()
    numbers = [report.phrase for report in heard(rehearsal, PhraseSpoken) if isinstance(report, PhraseSpoken)]
    assert numbers == [0, 1, 2]


def test_a_machine_that_forgets_its_engines_is_found() -> None:
    class Forgetful:
        def deadline(self) -> None:
            return None

        def handle(self, input: Input, now_ms: int) -> list[Effect]:
            done = ResponseDone(response=Response(id="resp_1", status="completed"))
            return [Generate("resp_1", "", ())] if isinstance(input, Opened) else [Send(done)]

    rehearsal = Rehearsal(Forgetful())
    rehearsal.say(Opened())
    with pytest.raises(AssertionError, match="resp_1 is done and goes on: generation resp_1"):
        rehearsal.say(ResponseCreate())


def test_time_may_pass_while_the_engines_are_silent() -> None:
    rehearsal = rehearse()
    ask(rehearsal, "hello")
    rehearsal.wake_until(60_000)
    assert rehearsal.now_ms == 60_000
    assert sent(rehearsal)[-1] == "response.done"
    assert not heard(rehearsal, TextGenerated)
