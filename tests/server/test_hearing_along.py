"""The client's audio reaches a transcriber that hears along, and whatever goes wrong there, the turn is transcribed."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
from in_process import Call, call, watched

from vivavoce.audio.formats import pcm16
from vivavoce.core.surroundings import Surroundings
from vivavoce.engines import Pipeline, Told, TranscriptionHints
from vivavoce.engines.scripted import (
    ScriptedIncrementalTranscriber,
    ScriptedSettings,
    scripted_pipeline,
)
from vivavoce.engines.scripted.hearing import ScriptedListening
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.server.surroundings import abilities
from vivavoce.testing import sounds
from vivavoce.testing.virtual_time import run

DELTA = "conversation.item.input_audio_transcription.delta"
COMPLETED = "conversation.item.input_audio_transcription.completed"
FAILED = "conversation.item.input_audio_transcription.failed"
COMMITTED = "input_audio_buffer.committed"


class Witness(ScriptedIncrementalTranscriber):
    """Keeps the turns that it was given, and counts those that it had to transcribe whole."""

    def __init__(self, settings: ScriptedSettings | None = None, *, breaks: bool = False) -> None:
        super().__init__(settings or ScriptedSettings())
        self.turns: list[ScriptedListening] = []
        self.breaks = breaks
        self.hints: list[TranscriptionHints] = []

    def listen(self, hints: TranscriptionHints, told: Told | None = None) -> ScriptedListening:
        self.hints.append(hints)
        if self.breaks:
            raise RuntimeError("deaf")
        self.turns.append(turn := super().listen(hints, told))
        return turn


def pipeline(ear: Witness) -> Pipeline:
    return replace(scripted_pipeline(), transcriber=ear)


def session(ear: Witness) -> AbstractAsyncContextManager[Call]:
    engines = pipeline(ear)
    return call(engines, surroundings=Surroundings(abilities=abilities(engines)))


async def by_hand(one: Call, model: str = "gpt-realtime-whisper", language: str = "en") -> None:
    into = cfg.AudioInput(turn_detection=None, transcription=cfg.Transcription(model=model, language=language))
    await one.client.update_session(cfg.RealtimeSession(audio=cfg.AudioConfig(input=into)))
    await one.until("session.updated")


async def speak(one: Call, ms: int, piece_ms: int = 100) -> None:
    for _ in range(0, ms, piece_ms):
        await one.client.append_audio(bytes(sounds.tone(piece_ms)))


async def transcript(one: Call) -> str:
    completed = await one.until(COMPLETED)
    assert isinstance(completed, ev.ConversationItemInputAudioTranscriptionCompleted)
    return completed.transcript


def test_words_are_told_while_they_are_spoken() -> None:
    async def main() -> None:
        ear = Witness()
        async with session(ear) as one:
            await by_hand(one)
            await speak(one, 1_000)
            await one.until(DELTA)
            await one.client.commit_audio()
            assert await transcript(one) == "audio of 1000 ms"
            watched(one.seen)
            assert one.types.index(DELTA) < one.types.index(COMMITTED)
            (item,) = {event.item_id for event in one.seen if isinstance(event, ev.InputAudioBufferCommitted)}
            deltas = [e for e in one.seen if isinstance(e, ev.ConversationItemInputAudioTranscriptionDelta)]
            assert {delta.item_id for delta in deltas} == {item}
            assert ear.hints == [TranscriptionHints("en")]
            (turn,) = ear.turns
            assert turn.is_cancelled
            assert turn.heard_ms == 1_000

    run(main())


def test_a_turn_that_is_committed_by_hand_is_not_given_up_before_it_was_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []

    def noted(name: str) -> None:
        original = getattr(ScriptedListening, name)

        def note(self: ScriptedListening) -> object:
            seen.append(name)
            return original(self)

        monkeypatch.setattr(ScriptedListening, name, note)

    noted("settle")
    noted("cancel")

    async def main() -> None:
        async with session(Witness()) as one:
            await by_hand(one)
            await speak(one, 500)
            await one.client.send(ev.InputAudioBufferCommit())
            assert await transcript(one)

    run(main())
    assert seen == ["settle", "cancel"]


def test_a_turn_is_heard_to_its_very_end() -> None:
    """Also where the transcriber has another rate, and the resampler holds the last milliseconds back."""

    async def main() -> None:
        ear = Witness()
        ear.rate_hz = 16_000
        async with session(ear) as one:
            await by_hand(one)
            await speak(one, 500)
            await one.client.commit_audio()
            await transcript(one)
            (turn,) = ear.turns
            assert len(turn._audio) == pcm16(16_000).bytes_of(500)

    run(main())


def test_two_turns_are_two() -> None:
    async def main() -> None:
        ear = Witness()
        async with session(ear) as one:
            await by_hand(one)
            for ms in (300, 500):
                await speak(one, ms)
                await one.client.commit_audio()
                assert await transcript(one) == f"audio of {ms} ms"
            assert [turn.heard_ms for turn in ear.turns] == [300, 500]

    run(main())


def test_turns_by_voice_activity() -> None:
    async def main() -> None:
        ear = Witness()
        async with session(ear) as one:
            detection = cfg.ServerVad(silence_duration_ms=200, prefix_padding_ms=0)
            into = cfg.AudioInput(turn_detection=detection, transcription=cfg.Transcription(model="any"))
            await one.client.update_session(cfg.RealtimeSession(audio=cfg.AudioConfig(input=into)))
            await speak(one, 600, 20)
            await one.client.append_audio(bytes(sounds.silence(400)))
            assert await transcript(one) == "audio of 800 ms"
            await one.until("response.done")
            watched(one.seen)
            assert DELTA not in one.types[: one.types.index(COMMITTED)]
            assert [turn.heard_ms for turn in ear.turns] == [800]

    run(main())


def test_what_comes_all_at_once_is_transcribed_whole() -> None:
    async def main() -> None:
        ear = Witness()
        async with session(ear) as one:
            await by_hand(one)
            await one.client.append_audio(bytes(sounds.tone(5_000)))
            await one.client.commit_audio()
            assert await transcript(one) == "audio of 5000 ms"
            (turn,) = ear.turns
            assert turn.is_cancelled
            assert not turn.heard_ms

    run(main())


def test_other_hints_in_the_middle_of_a_turn_hold_for_the_whole_turn() -> None:
    async def main() -> None:
        ear = Witness()
        async with session(ear) as one:
            await by_hand(one)
            await speak(one, 300)
            await by_hand(one, language="de")
            await one.client.commit_audio()
            assert await transcript(one) == "audio of 300 ms"
            assert ear.turns[0].settled == 0, "it was heard as another language"

    run(main())


@pytest.mark.parametrize("settings", [ScriptedSettings(), ScriptedSettings(first_delay_s=1)])
def test_a_transcriber_that_cannot_hear_along_after_all(
    settings: ScriptedSettings, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with session(Witness(settings, breaks=True)) as one:
            await by_hand(one)
            await speak(one, 300)
            await one.client.commit_audio()
            assert await transcript(one) == "audio of 300 ms"

    run(main())
    assert "cannot be heard along" in caplog.text


def test_a_failure_at_the_end_of_the_turn_is_told() -> None:
    async def main() -> None:
        async with session(Witness(ScriptedSettings(fail_at_piece=2))) as one:
            await by_hand(one)
            await speak(one, 300)
            await one.client.commit_audio()
            await one.until(FAILED)
            watched(one.seen)

    run(main())


def test_nobody_is_heard_any_more_when_the_session_is_over() -> None:
    async def main() -> None:
        ear = Witness(ScriptedSettings(first_delay_s=10))
        async with session(ear) as one:
            await by_hand(one)
            await speak(one, 300)
            await one.client.commit_audio()
            await one.until(COMMITTED)
            await speak(one, 300)
            await by_hand(one)
        assert [turn.is_cancelled for turn in ear.turns] == [True, True]

    run(main())
