"""The fold: whatever events come, in whatever order, it holds what fits and never fails."""

from __future__ import annotations

from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from vivavoce.core.conversation import RESPONSES_KEPT_MAX, Conversation
from vivavoce.core.limits import Limits
from vivavoce.core.messages import Opened, Send
from vivavoce.core.session import Session
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.items import (
    FunctionCall,
    InputAudio,
    InputText,
    McpCall,
    Message,
    OutputAudio,
    OutputText,
    Response,
)
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.rehearsal import Rehearsal
from vivavoce.testing.sounds import silence, tone


@cache
def dialogue() -> tuple[ev.AnyServerEvent, ...]:
    """Turns by text, by voice and by function call, one of them cut short, with truncation and deletion."""
    rehearsal = Rehearsal(Session(id="sess_1", model="scripted", ids=counting_ids(), expires_at=0))
    listen = cfg.AudioInput(transcription=cfg.Transcription(model="m"))
    rehearsal.say(Opened())
    rehearsal.say(ev.SessionUpdate(session=cfg.RealtimeSession(audio=cfg.AudioConfig(input=listen))))
    for text in ("hello", 'call look {"at": 1}'):
        rehearsal.say(ev.ConversationItemCreate(item=Message(role="user", content=(InputText(text=text),))))
        rehearsal.say(ev.ResponseCreate())
        rehearsal.settle()
    rehearsal.say(ev.InputAudioBufferAppend(audio=tone(200) + silence(400)))
    rehearsal.settle()
    rehearsal.say(ev.ResponseCreate(response=ev.ResponseParams(conversation="none", output_modalities=("text",))))
    rehearsal.settle()
    rehearsal.say(ev.ConversationItemTruncate(item_id="item_6", content_index=0, audio_end_ms=100))
    rehearsal.say(ev.ConversationItemDelete(item_id="item_1"))
    return tuple(moment.message.event for moment in rehearsal.record if isinstance(moment.message, Send))


@given(st.lists(st.integers(0, 10_000), max_size=80))
def test_no_order_of_events_makes_it_fail(choices: list[int]) -> None:
    events = dialogue()
    conversation = Conversation(Limits(audio_bytes_max=20_000))
    for choice in choices:
        conversation.apply(events[choice % len(events)])
        assert len(set(conversation.item_ids)) == len(conversation) == len(conversation.items)
        entries = [conversation.entry(item_id) for item_id in conversation.item_ids]
        assert sum(len(entry.audio) for entry in entries if entry) <= 20_000


@given(st.data())
def test_a_client_that_misses_events_holds_the_items_that_it_was_told(data: st.DataObject) -> None:
    events = dialogue()
    missed = data.draw(st.sets(st.integers(0, len(events) - 1), max_size=10))
    conversation = Conversation()
    for index, event in enumerate(events):
        if index not in missed:
            conversation.apply(event)
    told = {
        event.item.id
        for index, event in enumerate(events)
        if index not in missed and isinstance(event, ev.ConversationItemAdded | ev.ConversationItemDone)
    }
    deleted = {
        event.item_id
        for index, event in enumerate(events)
        if index not in missed and isinstance(event, ev.ConversationItemDeleted)
    }
    assert set(conversation.item_ids) == told - deleted


def user(item_id: str, *content: InputText | InputAudio) -> Message:
    return Message(role="user", id=item_id, content=content)


def test_items_take_their_places() -> None:
    conversation = Conversation()
    for item_id, previous in (("b", None), ("c", "b"), ("a", None), ("d", "who?")):
        conversation.apply(ev.ConversationItemAdded(item=user(item_id), previous_item_id=previous))
    conversation.apply(ev.ConversationItemCreated(item=user("e")))
    assert conversation.item_ids == ("a", "b", "c", "d", "e")
    assert conversation.previous_item_id("a") is None
    assert conversation.previous_item_id("c") == "b"
    assert conversation.last_item_id == "e"
    assert "a" in conversation
    assert "z" not in conversation


def test_an_item_without_an_id_is_passed_over() -> None:
    conversation = Conversation()
    conversation.apply(ev.ConversationItemAdded(item=Message(role="user", content=()), previous_item_id=None))
    assert len(conversation) == 0
    assert conversation.last_item_id is None


def test_a_transcript_that_came_early_outlives_a_later_snapshot() -> None:
    conversation = Conversation()
    item = user("a", InputAudio(transcript=None))
    conversation.apply(ev.ConversationItemAdded(item=item, previous_item_id=None))
    for piece in ("he", "llo"):
        conversation.apply(ev.ConversationItemInputAudioTranscriptionDelta(item_id="a", content_index=0, delta=piece))
    conversation.apply(ev.ConversationItemDone(item=item, previous_item_id=None))
    assert conversation.items == (user("a", InputAudio(transcript="hello")),)
    usage = ev.DurationUsage(seconds=1)
    for index in (0, 7):
        done = ev.ConversationItemInputAudioTranscriptionCompleted(
            item_id="a", content_index=index, transcript="Hello.", usage=usage
        )
        conversation.apply(done)
    assert conversation.items == (user("a", InputAudio(transcript="Hello.")),)


def test_what_streams_can_be_seen_while_it_streams() -> None:
    conversation = Conversation()
    place = {"response_id": "r", "item_id": "a", "output_index": 0, "content_index": 0}
    message = Message(role="assistant", id="a", status="in_progress", content=())
    conversation.apply(ev.ResponseOutputItemAdded(response_id="r", output_index=0, item=message))
    conversation.apply(ev.ConversationItemAdded(item=message, previous_item_id=None))
    conversation.apply(ev.ResponseContentPartAdded(**place, part=ev.ContentPart(type="text", text="")))  # type: ignore[arg-type]
    for piece in ("He", "llo"):
        conversation.apply(ev.ResponseOutputTextDelta(**place, delta=piece))  # type: ignore[arg-type]
    (item,) = conversation.items
    assert isinstance(item, Message)
    assert item.content == (OutputText(text="Hello"),)
    conversation.apply(ev.ResponseOutputTextDone(**place, text="Hello!"))  # type: ignore[arg-type]
    (item,) = conversation.items
    assert isinstance(item, Message)
    assert item.content == (OutputText(text="Hello!"),)


def test_arguments_stream_into_their_call() -> None:
    conversation = Conversation()
    call = FunctionCall(id="a", name="look", arguments="", call_id="c", status="in_progress")
    conversation.apply(ev.ConversationItemAdded(item=call, previous_item_id=None))
    place = {"response_id": "r", "item_id": "a", "output_index": 0, "call_id": "c"}
    for piece in ('{"at"', ":1}"):
        conversation.apply(ev.ResponseFunctionCallArgumentsDelta(**place, delta=piece))  # type: ignore[arg-type]
    (item,) = conversation.items
    assert isinstance(item, FunctionCall)
    assert item.arguments == '{"at":1}'
    conversation.apply(ev.ResponseFunctionCallArgumentsDone(**place, arguments="{}"))  # type: ignore[arg-type]
    (item,) = conversation.items
    assert isinstance(item, FunctionCall)
    assert item.arguments == "{}"


def test_items_that_it_cannot_stream_into_stay_as_they_are() -> None:
    conversation = Conversation()
    call = McpCall(id="a", server_label="s", name="n", arguments="")
    conversation.apply(ev.ConversationItemAdded(item=call, previous_item_id=None))
    conversation.apply(ev.ResponseMcpCallArgumentsDelta(response_id="r", item_id="a", output_index=0, delta="{}"))
    assert conversation.items == (call,)


def test_audio_is_let_go_oldest_first_and_durations_stay() -> None:
    conversation = Conversation(Limits(audio_bytes_max=4_800))
    for item_id in ("a", "b"):
        speech = Message(role="assistant", id=item_id, content=(OutputAudio(transcript=""),))
        conversation.apply(ev.ConversationItemAdded(item=speech, previous_item_id=None))
        delta = ev.ResponseOutputAudioDelta(
            response_id="r", item_id=item_id, output_index=0, content_index=0, delta=bytes(4_800)
        )
        conversation.apply(delta)
    old, new = conversation.entry("a"), conversation.entry("b")
    assert old is not None
    assert new is not None
    assert (len(old.audio), old.audio_ms) == (0, 100)
    assert (len(new.audio), new.audio_ms) == (4_800, 100)


def test_only_so_many_finished_responses_are_kept() -> None:
    conversation = Conversation()
    conversation.apply(ev.ResponseCreated(response=Response(id="running", status="in_progress")))
    for number in range(RESPONSES_KEPT_MAX + 5):
        conversation.apply(ev.ResponseDone(response=Response(id=f"resp_{number}", status="completed")))
    assert len(conversation.responses) == RESPONSES_KEPT_MAX + 1
    assert [response.id for response in conversation.active_responses] == ["running"]


def test_an_unknown_event_changes_nothing() -> None:
    conversation = Conversation()
    conversation.apply(ev.Unknown(kind="new.event", fields={}))
    assert (len(conversation), conversation.session, conversation.id) == (0, None, None)
