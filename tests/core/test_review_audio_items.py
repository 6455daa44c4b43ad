"""Audio that comes inside an item: where it stands, what is known of it, and what the language model is told."""

from __future__ import annotations

import pytest

from vivavoce.core.messages import Generate, Opened, Transcribe, TranscriptDelta, TranscriptEnded
from vivavoce.core.session import Session
from vivavoce.protocol import events as ev
from vivavoce.protocol.config import AudioConfig, AudioInput, RealtimeSession, Transcription
from vivavoce.protocol.items import InputAudio, InputText, Message
from vivavoce.testing.matching import Id
from vivavoce.testing.playbook import asks, counting_ids, playbook, sends

AUDIO = bytes(9_600)
WITH_TRANSCRIPTION = ev.SessionUpdate(
    session=RealtimeSession(audio=AudioConfig(input=AudioInput(transcription=Transcription(model="m"))))
)


def session() -> Session:
    return Session(id="sess_1", model="m", ids=counting_ids(), expires_at=0)


def user(*content: InputAudio | InputText) -> ev.ConversationItemCreate:
    return ev.ConversationItemCreate(item=Message(role="user", content=content))


def test_a_transcript_is_told_at_the_place_of_the_audio_in_its_item() -> None:
    item = Id("item")
    machine = session()
    with playbook(machine) as play:
        play >> Opened() << ...
        play >> WITH_TRANSCRIPTION << sends("session.updated")
        play >> user(InputText(text="Listen:"), InputAudio(audio=AUDIO)) << sends("conversation.item.added")
        play << sends("conversation.item.done", item={"id": item}) << asks(Transcribe, item_id=item)
        play >> TranscriptDelta(item_id=item, text="hello")
        play << sends("conversation.item.input_audio_transcription.delta", content_index=1, delta="hello")
        play >> TranscriptEnded(item_id=item)
        play << sends("conversation.item.input_audio_transcription.completed", content_index=1, transcript="hello")
    (message,) = machine.conversation.items
    assert isinstance(message, Message)
    assert message.content == (InputText(text="Listen:"), InputAudio(transcript="hello"))


@pytest.mark.parametrize("audio", [AUDIO, b""], ids=["with audio", "without audio"])
def test_audio_that_comes_with_its_transcript_is_known_and_not_transcribed(audio: bytes) -> None:
    with playbook(session()) as play:
        play >> Opened() << ...
        play >> WITH_TRANSCRIPTION << sends("session.updated")
        play >> user(InputAudio(audio=audio, transcript="hello"))
        play << sends("conversation.item.added", item={"content": [{"transcript": "hello"}]})
        play << sends("conversation.item.done")
        play >> ev.ResponseCreate() << sends("response.created")
        play << asks(Generate, items=lambda items: items[0].content == (InputAudio(transcript="hello"),))


def test_a_second_part_of_audio_in_one_item_is_refused_by_its_place() -> None:
    machine = session()
    with playbook(machine) as play:
        play >> Opened() << ...
        play >> user(InputAudio(audio=AUDIO), InputText(text="and"), InputAudio(audio=AUDIO))
        play << sends("error", error={"code": "invalid_value", "param": "item.content[2].type"})
    assert machine.conversation.items == ()
