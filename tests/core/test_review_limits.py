"""What a session holds has limits, and stays within them however the client goes about it."""

from __future__ import annotations

from vivavoce.core.conversation import Conversation
from vivavoce.core.limits import Limits
from vivavoce.core.messages import (
    AudioSynthesized,
    Generate,
    GenerationEnded,
    Opened,
    PhraseSpoken,
    Speak,
    TextGenerated,
)
from vivavoce.core.session import Session
from vivavoce.protocol import events as ev
from vivavoce.protocol.items import FunctionCall, InputText, Item, Message
from vivavoce.testing.matching import Id
from vivavoce.testing.playbook import Playbook, asks, counting_ids, playbook, sends
from vivavoce.testing.sounds import silence

LIMITS = Limits(items_max=4, text_chars_max=1_000, audio_bytes_max=10_000)


def session() -> Session:
    return Session(id="sess_1", model="m", ids=counting_ids(), expires_at=0, limits=LIMITS)


def text(chars: int, *, id: str = "a") -> Message:
    return Message(id=id, role="user", content=(InputText(text="x" * chars),))


def create(item: Item) -> ev.ConversationItemCreate:
    return ev.ConversationItemCreate(item=item)


FULL = sends("error", error={"code": "conversation_full"})


def test_text_that_clients_create_is_limited_and_deleting_makes_room() -> None:
    with playbook(session()) as play:
        play >> Opened() << ...
        play >> create(text(600)) << sends("conversation.item.added") << sends("conversation.item.done")
        play >> create(text(600, id="b")) << FULL
        play >> ev.ConversationItemDelete(item_id="a") << sends("conversation.item.deleted")
        play >> create(text(600, id="b")) << sends("conversation.item.added") << sends("conversation.item.done")


def test_ids_arguments_and_the_number_of_parts_weigh_like_text() -> None:
    parts = tuple(InputText(text="") for _ in range(100))
    with playbook(session()) as play:
        play >> Opened() << ...
        play >> create(text(0, id="a" * 1_001)) << FULL
        play >> create(FunctionCall(id="b", name="f", arguments="x" * 1_001)) << FULL
        play >> create(Message(id="c", role="user", content=parts)) << FULL


def test_the_context_of_one_response_is_limited_in_items_and_text() -> None:
    def with_input(*items: Item) -> ev.ResponseCreate:
        return ev.ResponseCreate(response=ev.ResponseParams(conversation="none", input=items))

    many = tuple(text(1, id=str(number)) for number in range(5))
    with playbook(session()) as play:
        play >> Opened() << ...
        play >> with_input(*many) << sends("error", error={"code": "array_above_max_length", "param": "response.input"})
        play >> with_input(text(600), text(600, id="b")) << FULL
        play >> with_input(*many[:4]) << sends("response.created") << asks(Generate)


def test_a_full_conversation_refuses_a_commit_and_keeps_its_audio() -> None:
    with playbook(session()) as play:
        play >> Opened() << ...
        for number in range(4):
            play >> create(text(1, id=str(number))) << sends("conversation.item.added") << ...
        play >> ev.InputAudioBufferAppend(audio=silence(100)) << ...
        play >> ev.InputAudioBufferCommit() << FULL
        play >> ev.ConversationItemDelete(item_id="0") << sends("conversation.item.deleted")
        play >> ev.InputAudioBufferCommit() << sends("input_audio_buffer.committed") << ...


def speak(play: Playbook, response: Id, item: Id, request: ev.ResponseCreate) -> None:
    play >> request
    play << sends("response.created", response={"id": response}) << asks(Generate)
    play >> TextGenerated(response, "Hello there. ") << ...
    play << asks(Speak, item_id=item)
    play >> AudioSynthesized(response, item, silence(40)) << sends("response.output_audio.delta")


def test_what_was_said_outside_the_conversation_is_not_kept() -> None:
    response, item = Id("response"), Id("item")
    machine = session()
    with playbook(machine) as play:
        play >> Opened() << ...
        speak(play, response, item, ev.ResponseCreate(response=ev.ResponseParams(conversation="none", input=())))
        play >> PhraseSpoken(response, item, 0)
        play >> GenerationEnded(response, "stop") << ... << sends("response.done")
    assert machine._desk.said == {}


def test_audio_behind_a_truncation_does_not_count() -> None:
    response, item = Id("response"), Id("item")
    machine = session()
    with playbook(machine) as play:
        play >> Opened() << ...
        speak(play, response, item, ev.ResponseCreate())
        play >> ev.ConversationItemTruncate(item_id=item, content_index=0, audio_end_ms=20)
        play << sends("conversation.item.truncated")
        for _ in range(10):
            play >> AudioSynthesized(response, item, silence(40)) << sends("response.output_audio.delta")
        play >> ev.ConversationItemRetrieve(item_id=item)
        play << sends("conversation.item.retrieved", item={"content": [{"audio": silence(20)}]})


def test_audio_that_was_let_go_is_never_half_there() -> None:
    conversation = Conversation(LIMITS)
    item = Message(id="a", role="assistant", content=())
    conversation.apply(ev.ResponseOutputItemAdded(response_id="r", output_index=0, item=item))
    conversation.apply(ev.ConversationItemAdded(item=item, previous_item_id=None))
    for _ in range(6):
        delta = ev.ResponseOutputAudioDelta(
            response_id="r", item_id="a", output_index=0, content_index=0, delta=silence(40)
        )
        conversation.apply(delta)
    entry = conversation.entry("a")
    assert entry is not None
    assert entry.audio == b""
    assert entry.audio_ms == 240
