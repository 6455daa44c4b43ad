"""Sessions that only transcribe (reference §2.2, §3.1, §4.4 T16)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vivavoce.core.abilities import Abilities
from vivavoce.core.messages import (
    DetectSpeech,
    JudgeTurn,
    NoiseReduced,
    Opened,
    ReduceNoise,
    SpeechScored,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
    TranscriptFailed,
    TurnJudged,
)
from vivavoce.core.refused import Refused
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.protocol import config as cfg
from vivavoce.protocol.base import UNSET
from vivavoce.protocol.events import (
    ClientEvent,
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemRetrieve,
    ConversationItemTruncate,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    OutputAudioBufferClear,
    ResponseCancel,
    ResponseCreate,
    SessionUpdate,
)
from vivavoce.protocol.items import InputText, McpApprovalResponse, Message
from vivavoce.testing.playbook import Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import silence, tone

ABLE = Abilities(semantic_vad=True, noise_reduction=True, logprobs=True, mcp=True)
UNTOUCHED = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 200}
ONLY_FOR_ANSWERS = {"create_response": UNSET, "interrupt_response": UNSET}


def machine(**fields: object) -> Session:
    audio = cfg.TranscriptionAudioConfig(input=cfg.AudioInput(**fields))  # type: ignore[arg-type]
    return Session(
        id="s",
        model="m",
        ids=counting_ids(),
        expires_at=0,
        configured=cfg.TranscriptionSession(audio=audio) if fields else cfg.TranscriptionSession(),
        surroundings=Surroundings(abilities=ABLE),
    )


@pytest.fixture
def play() -> Iterator[Playbook]:
    with playbook(machine()) as play:
        play >> Opened() << sends("session.created")
        yield play


def update(include: object = UNSET, **fields: object) -> SessionUpdate:
    audio = cfg.TranscriptionAudioConfig(input=cfg.AudioInput(**fields))  # type: ignore[arg-type]
    session = cfg.TranscriptionSession(audio=audio, include=include)  # type: ignore[arg-type]
    return SessionUpdate(session=session, event_id="mine")


def listen(play: Playbook, **fields: object) -> Playbook:
    return play >> update(**fields) << sends("session.updated")


def refused(play: Playbook, event: ClientEvent, code: str, param: str | None) -> None:
    play >> event << sends("error", error={"code": code, "param": param, "event_id": "mine"})  # type: ignore[operator]


MODEL = cfg.Transcription(model="whisper")


# --- configuration ----------------------------------------------------------------------------------------------------


def test_t16_an_untouched_session_states_what_it_hears_and_nothing_else() -> None:
    with playbook(machine()) as play:
        into = {"transcription": None, "noise_reduction": None, "turn_detection": UNTOUCHED | ONLY_FOR_ANSWERS}
        stated = {"type": "transcription", "object": "realtime.transcription_session", "include": None}
        play >> Opened() << sends("session.created", session={**stated, "audio": {"input": into}})


def test_a_session_may_begin_configured() -> None:
    with playbook(machine(transcription=MODEL, turn_detection=None)) as play:
        into = {"transcription": {"model": "whisper", "language": None, "prompt": None}, "turn_detection": None}
        play >> Opened() << sends("session.created", session={"audio": {"input": into}})


def test_a_session_that_cannot_begin_as_configured_does_not() -> None:
    with pytest.raises(Refused):
        Session(
            id="s",
            model="m",
            ids=counting_ids(),
            expires_at=0,
            configured=cfg.TranscriptionSession(include=("item.input_audio_transcription.logprobs",)),
        )


def test_updates_merge_field_by_field_and_the_echo_has_nothing_of_answers(play: Playbook) -> None:
    def states(**into: object) -> None:
        play << sends("session.updated", session={"audio": {"input": into}})

    play >> update(transcription=MODEL)
    states(transcription={"model": "whisper", "language": None, "prompt": None}, turn_detection=UNTOUCHED)
    play >> update(turn_detection=cfg.ServerVad(threshold=0.7, idle_timeout_ms=5_000, create_response=False))
    quiet = {"threshold": 0.7, "silence_duration_ms": 500, "idle_timeout_ms": UNSET, **ONLY_FOR_ANSWERS}
    states(transcription={"model": "whisper"}, turn_detection=quiet)
    play >> update(turn_detection=cfg.SemanticVad(eagerness="high"))
    states(turn_detection={"type": "semantic_vad", "eagerness": "high", **ONLY_FOR_ANSWERS})
    play >> update(noise_reduction=cfg.NoiseReduction(type="far_field"), format=cfg.PcmaFormat())
    states(noise_reduction={"type": "far_field", "strength": 1.0}, format={"type": "audio/pcma"})
    play >> update(turn_detection=None, transcription=None, noise_reduction=None)
    states(turn_detection=None, transcription=None, noise_reduction=None, format={"type": "audio/pcma"})
    play >> SessionUpdate(session=cfg.TranscriptionSession(include=("item.input_audio_transcription.logprobs",)))
    play << sends("session.updated", session={"include": ["item.input_audio_transcription.logprobs"]})
    play >> SessionUpdate(session=cfg.TranscriptionSession(include=None))
    play << sends("session.updated", session={"include": None})


def test_it_cannot_become_a_conversation_nor_a_conversation_become_it(play: Playbook, session: Session) -> None:
    refused(play, SessionUpdate(session=cfg.RealtimeSession(), event_id="mine"), "invalid_value", "session.type")
    with playbook(session) as other:
        other >> Opened() << ...
        refused(other, update(), "invalid_value", "session.type")


# --- §3.1: every client event -----------------------------------------------------------------------------------------


def test_there_are_no_responses(play: Playbook) -> None:
    refused(play, ResponseCreate(event_id="mine"), "invalid_value", "type")
    refused(play, ResponseCancel(event_id="mine"), "response_cancel_not_active", None)
    refused(play, ResponseCancel(event_id="mine", response_id="resp_1"), "response_cancel_not_active", None)
    refused(play, OutputAudioBufferClear(event_id="mine"), "invalid_value", "type")


def test_items_can_be_created_looked_at_and_deleted_but_not_truncated(play: Playbook) -> None:
    text = Message(id="a", role="user", content=(InputText(text="one"),))
    play >> ConversationItemCreate(item=text) << sends("conversation.item.added") << sends("conversation.item.done")
    play >> ConversationItemRetrieve(item_id="a") << sends("conversation.item.retrieved", item={"id": "a"})
    truncate = ConversationItemTruncate(item_id="a", content_index=0, audio_end_ms=0, event_id="mine")
    refused(play, truncate, "unsupported_content_type", None)
    play >> ConversationItemDelete(item_id="a") << sends("conversation.item.deleted")
    answer = McpApprovalResponse(approval_request_id="x", approve=True)
    refused(play, ConversationItemCreate(item=answer, event_id="mine"), "invalid_value", "item.approval_request_id")


def test_the_buffer_is_committed_and_cleared_by_hand(play: Playbook) -> None:
    listen(play, turn_detection=None, transcription=MODEL)
    refused(play, InputAudioBufferCommit(event_id="mine"), "input_audio_buffer_commit_empty", None)
    play >> InputAudioBufferAppend(audio=tone(200))
    play >> InputAudioBufferClear() << sends("input_audio_buffer.cleared")
    play >> InputAudioBufferAppend(audio=silence(200))
    play >> InputAudioBufferCommit() << sends("input_audio_buffer.committed", item_id="item_1") << ...
    play << asks(Transcribe, item_id="item_1", audio=silence(200))
    play >> ConversationItemRetrieve(item_id="item_1")
    play << sends("conversation.item.retrieved", item={"content": [{"audio": silence(200)}]})


# --- turns and transcripts --------------------------------------------------------------------------------------------


def turn(play: Playbook, item: str = "item_1") -> Playbook:
    play >> InputAudioBufferAppend(audio=tone(200) + silence(200)) << asks(DetectSpeech)
    play >> SpeechScored(1, 20, (1.0,) * 10 + (0.0,) * 10) << sends("input_audio_buffer.speech_started", item_id=item)
    play << sends("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=400)
    play << sends("input_audio_buffer.committed", item_id=item)
    return play << sends("conversation.item.added") << sends("conversation.item.done")


def test_t16_a_turn_is_transcribed_and_not_answered(play: Playbook) -> None:
    listen(play, transcription=MODEL)
    turn(play) << asks(Transcribe, item_id="item_1", audio=tone(200) + silence(200))
    kind = "conversation.item.input_audio_transcription"
    play >> TranscriptDelta("item_1", "one") << sends(f"{kind}.delta", item_id="item_1", delta="one")
    play >> TranscriptEnded("item_1") << sends(f"{kind}.completed", transcript="one", usage={"seconds": 0.4})


def test_a_transcription_that_fails_is_told(play: Playbook) -> None:
    listen(play, transcription=MODEL)
    turn(play) << asks(Transcribe)
    play >> TranscriptFailed("item_1", "broken", "No ear.")
    play << sends("conversation.item.input_audio_transcription.failed", error={"code": "broken"})


def test_without_a_transcription_nobody_listens_to_the_turn(play: Playbook) -> None:
    turn(play)
    play >> TranscriptDelta("item_1", "one")
    play >> TranscriptEnded("item_1")


def test_noise_is_reduced(play: Playbook) -> None:
    listen(play, noise_reduction=cfg.NoiseReduction(type="near_field"), transcription=MODEL)
    play >> InputAudioBufferAppend(audio=tone(400)) << asks(ReduceNoise, field="near_field")
    play >> NoiseReduced(1, silence(400)) << asks(DetectSpeech, audio=silence(400))
    play >> SpeechScored(1, 20, (1.0,) * 10 + (0.0,) * 10) << ... << asks(Transcribe, audio=silence(400))


def test_a_turn_may_end_by_its_meaning(play: Playbook) -> None:
    listen(play, turn_detection=cfg.SemanticVad(), transcription=MODEL)
    play >> InputAudioBufferAppend(audio=tone(1_000)) << asks(DetectSpeech)
    play >> SpeechScored(1, 20, (1.0,) * 10 + (0.0,) * 40) << ... << asks(JudgeTurn, item_id="item_1")
    play >> TurnJudged("item_1", 1, 1.0) << ... << asks(Transcribe, item_id="item_1")
