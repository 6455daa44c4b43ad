"""Turns that end when the user seems to have finished (reference §5.2)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vivavoce.audio.formats import PCM16_24K, ULAW_8K
from vivavoce.core.abilities import Abilities
from vivavoce.core.limits import Limits
from vivavoce.core.messages import DetectSpeech, JudgeTurn, Opened, SpeechScored, Transcribe, TurnJudged
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.protocol import config as cfg
from vivavoce.protocol.events import (
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    SessionUpdate,
)
from vivavoce.testing.playbook import Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import silence, tone


def machine(**limits: int) -> Session:
    return Session(
        id="s",
        model="m",
        ids=counting_ids(),
        expires_at=0,
        limits=Limits(**limits),
        surroundings=Surroundings(abilities=Abilities(semantic_vad=True)),
    )


@pytest.fixture
def play() -> Iterator[Playbook]:
    with playbook(machine()) as play:
        play >> Opened() << ...
        listen(play, turn_detection=cfg.SemanticVad(create_response=False))
        yield play


def listen(play: Playbook, **fields: object) -> Playbook:
    audio = cfg.AudioConfig(input=cfg.AudioInput(**fields))  # type: ignore[arg-type]
    return play >> SessionUpdate(session=cfg.RealtimeSession(audio=audio)) << sends("session.updated")


def hear(play: Playbook, ms: int, speech: bool, epoch: int = 1) -> Playbook:
    play >> InputAudioBufferAppend(audio=tone(ms) if speech else silence(ms)) << asks(DetectSpeech, epoch=epoch)
    return play >> SpeechScored(epoch, 20, (float(speech),) * (ms // 20))


def paused(play: Playbook, item: str = "item_1", pause: int = 1, epoch: int = 1) -> None:
    """The user has spoken for 200 ms, and has paused for as long."""
    hear(play, 200, True, epoch) << sends("input_audio_buffer.speech_started", item_id=item)
    hear(play, 200, False, epoch) << asks(JudgeTurn, item_id=item, pause=pause)


def stopped(play: Playbook, end_ms: int, item: str = "item_1") -> Playbook:
    return play << sends("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=end_ms) << ...


def test_without_a_detector_it_is_refused(session: Session) -> None:
    with playbook(session) as play:
        play >> Opened() << ...
        audio = cfg.AudioConfig(input=cfg.AudioInput(turn_detection=cfg.SemanticVad()))
        play >> SessionUpdate(session=cfg.RealtimeSession(audio=audio))
        play << sends("error", error={"param": "session.audio.input.turn_detection.type"})


def test_its_members_that_are_left_out_get_their_defaults(play: Playbook) -> None:
    wanted = {"type": "semantic_vad", "eagerness": "low", "create_response": True, "interrupt_response": True}
    audio = cfg.AudioConfig(input=cfg.AudioInput(turn_detection=cfg.SemanticVad(eagerness="low")))
    play >> SessionUpdate(session=cfg.RealtimeSession(audio=audio))
    play << sends("session.updated", session={"audio": {"input": {"turn_detection": wanted}}})


@pytest.mark.parametrize(
    ("eagerness", "probability", "wait_ms"),
    [
        ("low", 1.0, 700),
        ("low", 0.0, 8_000),
        ("medium", 1.0, 460),
        ("medium", 0.0, 4_000),
        ("auto", 0.0, 4_000),
        ("high", 1.0, 260),
        ("high", 0.0, 2_000),
        ("high", None, 700),
    ],
)
def test_eagerness_says_how_long_silence_may_last(
    play: Playbook, eagerness: str, probability: float | None, wait_ms: int
) -> None:
    """In frames of 20 ms; the longest waits are those of the reference."""
    listen(play, turn_detection=cfg.SemanticVad(eagerness=eagerness, create_response=False))  # type: ignore[arg-type]
    paused(play)
    play >> TurnJudged("item_1", 1, probability)
    hear(play, wait_ms - 220, False)
    stopped(hear(play, 20, False), 200 + wait_ms)


def test_what_is_judged_is_the_turn_with_the_pause_at_its_end() -> None:
    with playbook(machine(judged_ms_max=300)) as play:
        play >> Opened() << ...
        without_answer = cfg.SemanticVad(create_response=False)
        listen(play, turn_detection=without_answer, transcription=cfg.Transcription(language="de"))
        hear(play, 200, True) << ...
        hear(play, 300, False) << JudgeTurn("item_1", 1, tone(200)[100 * 48 :] + silence(200), PCM16_24K, "de")
        listen(play, transcription=None)
        play >> TurnJudged("item_1", 1, 0.0)
        hear(play, 100, True)
        hear(play, 200, False) << asks(JudgeTurn, language=None)


def test_a_pause_is_judged_in_the_format_of_the_input(play: Playbook) -> None:
    listen(play, format=cfg.PcmuFormat())
    play >> InputAudioBufferAppend(audio=bytes(8 * 400)) << asks(DetectSpeech, epoch=2, format=ULAW_8K)
    play >> SpeechScored(2, 20, (1.0,) * 10 + (0.0,) * 10) << sends("input_audio_buffer.speech_started")
    play << JudgeTurn("item_1", 1, bytes(8 * 400), ULAW_8K)


def test_scores_that_come_while_a_judgement_is_awaited_are_not_lost(play: Playbook) -> None:
    paused(play)
    hear(play, 1_000, False)
    stopped(play >> TurnJudged("item_1", 1, 1.0), 660)
    hear(play, 200, True) << sends("input_audio_buffer.speech_started", item_id="item_2", audio_start_ms=1_100)


def test_whole_turns_may_have_come_before_the_judgement(play: Playbook) -> None:
    paused(play)
    hear(play, 1_000, False)
    hear(play, 200, True)
    hear(play, 1_000, False)
    stopped(play >> TurnJudged("item_1", 1, 1.0), 660)
    play << sends("input_audio_buffer.speech_started", item_id="item_2", audio_start_ms=1_100)
    play << asks(JudgeTurn, item_id="item_2", pause=2, audio=silence(300) + tone(200) + silence(200))
    stopped(play >> TurnJudged("item_2", 2, 1.0), 1_600 + 460, "item_2")
    play << asks(Transcribe, item_id="item_2", audio=silence(300) + tone(200) + silence(460))


def test_speech_that_resumes_goes_on_with_the_turn(play: Playbook) -> None:
    paused(play)
    hear(play, 200, True)
    play >> TurnJudged("item_1", 1, 1.0)
    hear(play, 200, False) << asks(JudgeTurn, item_id="item_1", pause=2)
    play >> TurnJudged("item_1", 1, 1.0)  # again, and of the pause before
    hear(play, 1_000, False)
    stopped(play >> TurnJudged("item_1", 2, 1.0), 600 + 460)


def test_a_judgement_that_comes_too_late_means_nothing(play: Playbook) -> None:
    paused(play)
    play >> InputAudioBufferCommit() << sends("input_audio_buffer.committed", item_id="item_1") << ...
    play >> TurnJudged("item_1", 1, 1.0)
    paused(play, "item_2", 2, epoch=2)
    play >> TurnJudged("item_1", 1, 1.0)
    play >> InputAudioBufferClear() << sends("input_audio_buffer.cleared")
    play >> TurnJudged("item_2", 2, 1.0)
    paused(play, "item_3", 3, epoch=3)
    hear(play, 1_000, False, epoch=3)
    play >> TurnJudged("item_2", 2, 1.0)
    stopped(play >> TurnJudged("item_3", 3, 1.0), 1_000 + 460, "item_3")


def test_turning_it_off_while_a_pause_is_judged_leaves_the_turn_to_the_client(play: Playbook) -> None:
    paused(play)
    listen(play, turn_detection=None)
    play >> TurnJudged("item_1", 1, 1.0)
    play >> InputAudioBufferAppend(audio=silence(1_000))
    play >> InputAudioBufferCommit() << sends("input_audio_buffer.committed", item_id="item_1") << ...
    play << asks(Transcribe, audio=tone(200) + silence(1_200))


def test_turning_it_off_and_on_again_judges_the_turn_anew(play: Playbook) -> None:
    paused(play)
    listen(play, turn_detection=None)
    listen(play, turn_detection=cfg.SemanticVad(create_response=False))
    play >> TurnJudged("item_1", 1, 1.0)
    hear(play, 200, False, epoch=3) << asks(JudgeTurn, item_id="item_1", pause=2)
    hear(play, 500, False, epoch=3)
    stopped(play >> TurnJudged("item_1", 2, 1.0), 400 + 460)


def test_silence_decides_where_another_detection_is_set_while_a_pause_is_judged(play: Playbook) -> None:
    paused(play)
    hear(play, 300, False)
    stopped(listen(play, turn_detection=cfg.ServerVad(create_response=False, silence_duration_ms=400)), 600)
    play >> TurnJudged("item_1", 1, 1.0)


def test_another_eagerness_has_the_pause_judged_anew(play: Playbook) -> None:
    paused(play)
    listen(play, turn_detection=cfg.SemanticVad(eagerness="high", create_response=False))
    hear(play, 20, False) << asks(JudgeTurn, pause=2)
    play >> TurnJudged("item_1", 1, 0.0)
    hear(play, 100, False)
    stopped(play >> TurnJudged("item_1", 2, 1.0), 460)


def test_the_longest_turn_ends_though_nobody_has_finished() -> None:
    with playbook(machine(turn_ms_max=1_000)) as play:
        play >> Opened() << ...
        listen(play, turn_detection=cfg.SemanticVad(create_response=False))
        paused(play)
        hear(play, 2_000, False)
        stopped(play >> TurnJudged("item_1", 1, 0.0), 1_000)
