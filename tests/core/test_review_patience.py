"""A response whose engines are silent ends, whatever else is heard; and a turn keeps its item id to itself."""

from __future__ import annotations

from vivavoce.core.limits import Limits
from vivavoce.core.messages import (
    Cancel,
    DetectSpeech,
    Generate,
    Opened,
    SpeechScored,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
)
from vivavoce.core.session import Session
from vivavoce.protocol import events as ev
from vivavoce.protocol.config import AudioConfig, AudioInput, RealtimeSession
from vivavoce.protocol.items import InputText, Message
from vivavoce.testing.matching import Id
from vivavoce.testing.playbook import asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import silence, tone


def session() -> Session:
    limits = Limits(engine_silence_ms_max=5_000)
    return Session(id="sess_1", model="m", ids=counting_ids(), expires_at=0, limits=limits)


def test_what_the_user_says_meanwhile_does_not_keep_a_silent_response_alive() -> None:
    by_hand = RealtimeSession(audio=AudioConfig(input=AudioInput(turn_detection=None)))
    response, item = Id("response"), Id("item")
    with playbook(session()) as play:
        play >> Opened() << ...
        play >> ev.SessionUpdate(session=by_hand) << sends("session.updated")
        play >> ev.ResponseCreate() << sends("response.created", response={"id": response}) << asks(Generate)
        play.after(4_000) >> ev.InputAudioBufferAppend(audio=silence(100)) >> ev.InputAudioBufferCommit()
        play << ... << asks(Transcribe, item_id=item)
        play >> TranscriptDelta(item, "hello") >> TranscriptEnded(item)
        play.after(1_000) << Cancel(response) << sends("response.done", response={"id": response, "status": "failed"})


def test_a_response_that_waits_for_a_transcript_is_patient_while_it_comes() -> None:
    by_hand = RealtimeSession(audio=AudioConfig(input=AudioInput(turn_detection=None)))
    response, item = Id("response"), Id("item")
    with playbook(session()) as play:
        play >> Opened() << ...
        play >> ev.SessionUpdate(session=by_hand) << sends("session.updated")
        play >> ev.InputAudioBufferAppend(audio=silence(100)) >> ev.InputAudioBufferCommit()
        play << ... << asks(Transcribe, item_id=item)
        play >> ev.ResponseCreate() << sends("response.created", response={"id": response})
        play.after(4_000) >> TranscriptDelta(item, "hello")
        play.after(4_000) >> TranscriptEnded(item) << asks(Generate, response_id=response)
        play.after(4_999)
        play.after(1) << Cancel(response) << sends("response.done", response={"status": "failed"})


def test_an_item_cannot_take_the_id_of_the_turn_that_is_open() -> None:
    turn = Id("turn")
    with playbook(session()) as play:
        play >> Opened() << ...
        play >> ev.InputAudioBufferAppend(audio=tone(200)) << asks(DetectSpeech, epoch=1)
        play >> SpeechScored(1, 20, (1.0,) * 10) << sends("input_audio_buffer.speech_started", item_id=turn)
        play >> ev.ConversationItemCreate(item=Message(id=turn, role="user", content=(InputText(text="mine"),)))
        play << sends("error", error={"code": "invalid_value", "param": "item.id"})
        play >> ev.InputAudioBufferCommit() << sends("input_audio_buffer.committed", item_id=turn) << ...
