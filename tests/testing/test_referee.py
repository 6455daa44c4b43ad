"""The referee: keeps silent about a good dialogue, and objects to each way of breaking it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from msgspec import structs

from vivavoce.core.messages import Opened, Send
from vivavoce.core.session import Session
from vivavoce.protocol import events as ev
from vivavoce.protocol.config import AudioConfig, AudioInput, RealtimeSession, Transcription
from vivavoce.protocol.items import InputText, Message, Usage
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.referee import Objection, Referee
from vivavoce.testing.rehearsal import Rehearsal
from vivavoce.testing.sounds import silence, tone

Events = list[ev.AnyServerEvent]


def good_dialogue() -> Events:
    """A text turn with a message and a call, a spoken turn that is cut short, an answer out of band."""
    machine = Session(id="sess_1", model="scripted", ids=counting_ids(), expires_at=0)
    rehearsal = Rehearsal(machine)
    listen = AudioConfig(input=AudioInput(transcription=Transcription(model="scripted")))
    rehearsal.say(Opened())
    rehearsal.say(ev.SessionUpdate(session=RealtimeSession(audio=listen)))
    for text in ("hello", 'call look {"at": "it"}'):
        rehearsal.say(ev.ConversationItemCreate(item=Message(role="user", content=(InputText(text=text),))))
        rehearsal.say(ev.ResponseCreate())
        rehearsal.settle()
    rehearsal.say(ev.InputAudioBufferAppend(audio=tone(300) + silence(600)))
    while not any(stream.startswith("speech item_6") for stream in rehearsal.streams):
        rehearsal.deliver(rehearsal.streams[0])
    rehearsal.deliver("speech item_6")
    rehearsal.deliver("speech item_6")
    rehearsal.say(ev.ResponseCancel())
    rehearsal.say(ev.ConversationItemTruncate(item_id="item_6", content_index=0, audio_end_ms=150))
    rehearsal.say(ev.ConversationItemDelete(item_id="item_1"))
    aside = ev.ResponseParams(conversation="none", output_modalities=("text",))
    rehearsal.say(ev.ResponseCreate(response=aside))
    rehearsal.settle()
    return [moment.message.event for moment in rehearsal.record if isinstance(moment.message, Send)]


def watch(events: Events) -> None:
    referee = Referee()
    for event in events:
        referee.server(event)
    referee.end()


def test_a_good_dialogue_passes() -> None:
    events = good_dialogue()
    kinds = {event.type for event in events}
    assert {
        "response.function_call_arguments.done",
        "response.output_text.done",
        "input_audio_buffer.committed",
    } < kinds
    assert {"conversation.item.truncated", "conversation.item.deleted"} < kinds
    watch(events)


def positions(events: Events, kind: type[ev.ServerEvent]) -> Iterator[int]:
    return (index for index, event in enumerate(events) if isinstance(event, kind))


# Every event of these kinds is indispensable: without any one of them, something is out of order.
@pytest.mark.parametrize(
    "kind",
    [
        ev.SessionCreated,
        ev.ConversationItemAdded,
        ev.ConversationItemDone,
        ev.ResponseCreated,
        ev.ResponseDone,
        ev.ResponseOutputItemAdded,
        ev.ResponseOutputItemDone,
        ev.ResponseContentPartAdded,
        ev.ResponseContentPartDone,
        ev.ResponseOutputTextDelta,
        ev.ResponseOutputTextDone,
        ev.ResponseOutputAudioTranscriptDelta,
        ev.ResponseOutputAudioTranscriptDone,
        ev.ResponseOutputAudioDone,
        ev.ResponseFunctionCallArgumentsDelta,
        ev.ResponseFunctionCallArgumentsDone,
        ev.ConversationItemInputAudioTranscriptionDelta,
    ],
)
def test_no_event_of_this_kind_may_be_missing(kind: type[ev.ServerEvent]) -> None:
    events = good_dialogue()
    found = list(positions(events, kind))
    assert found
    for index in found:
        with pytest.raises(Objection):
            watch(events[:index] + events[index + 1 :])


@pytest.mark.parametrize(
    "kind",
    [
        ev.SessionCreated,
        ev.ConversationItemAdded,
        ev.ConversationItemDone,
        ev.ConversationItemDeleted,
        ev.ConversationItemInputAudioTranscriptionDelta,
        ev.ConversationItemInputAudioTranscriptionCompleted,
        ev.InputAudioBufferSpeechStarted,
        ev.ResponseCreated,
        ev.ResponseDone,
        ev.ResponseOutputItemAdded,
        ev.ResponseOutputItemDone,
        ev.ResponseContentPartAdded,
        ev.ResponseContentPartDone,
        ev.ResponseOutputTextDelta,
        ev.ResponseOutputTextDone,
        ev.ResponseOutputAudioTranscriptDelta,
        ev.ResponseOutputAudioTranscriptDone,
        ev.ResponseOutputAudioDone,
        ev.ResponseFunctionCallArgumentsDelta,
        ev.ResponseFunctionCallArgumentsDone,
    ],
)
def test_no_event_of_this_kind_may_come_twice(kind: type[ev.ServerEvent]) -> None:
    events = good_dialogue()
    for index in list(positions(events, kind)):
        again = structs.replace(events[index], event_id="event_again")
        with pytest.raises(Objection):
            watch([*events[: index + 1], again, *events[index + 1 :]])


def test_nothing_of_a_response_may_follow_its_end() -> None:
    events = good_dialogue()
    ends = {event.response.id: index for index, event in enumerate(events) if isinstance(event, ev.ResponseDone)}
    for event in events:
        response_id = getattr(event, "response_id", None)
        if response_id is None:
            continue
        late = structs.replace(event, event_id="event_late")
        with pytest.raises(Objection):
            watch([*events[: ends[response_id] + 1], late, *events[ends[response_id] + 1 :]])


def changed(kind: type[ev.ServerEvent], which: int = 0, **fields: object) -> Callable[[Events], Events]:
    def change(events: Events) -> Events:
        index = list(positions(events, kind))[which]
        return [*events[:index], structs.replace(events[index], **fields), *events[index + 1 :]]

    return change


def response_done_with(**fields: object) -> Callable[[Events], Events]:
    def change(events: Events) -> Events:
        done = next(event for event in events if isinstance(event, ev.ResponseDone))
        return changed(ev.ResponseDone, response=structs.replace(done.response, **fields))(events)

    return change


def out_of_band_in_conversation(events: Events) -> Events:
    """The last response is out of band: announce its item in the conversation all the same."""
    index = list(positions(events, ev.ResponseOutputItemAdded))[-1]
    item = events[index].item  # type: ignore[union-attr]
    added = ev.ConversationItemAdded(item=item, previous_item_id=None)
    return [*events[: index + 1], added, *events[index + 1 :]]


def second_active_response(events: Events) -> Events:
    index = next(positions(events, ev.ResponseCreated))
    created = events[index]
    assert isinstance(created, ev.ResponseCreated)
    other = ev.ResponseCreated(response=structs.replace(created.response, id="resp_other"))
    return [*events[: index + 1], other, *events[index + 1 :]]


@pytest.mark.parametrize(
    ("rule", "breach"),
    [
        ("event_id must not come twice", changed(ev.ResponseCreated, event_id="event_1")),
        ("previous_item_id must be an item", changed(ev.ConversationItemAdded, 1, previous_item_id="item_none")),
        ("previous_item_id must be 'item_1'", changed(ev.ConversationItemDone, 1, previous_item_id=None)),
        ("previous_item_id must be 'item_4'", changed(ev.InputAudioBufferCommitted, previous_item_id="item_1")),
        ("audio clock was at", changed(ev.InputAudioBufferSpeechStopped, audio_end_ms=-1)),
        ("only the turn that began", changed(ev.InputAudioBufferSpeechStopped, item_id="item_other")),
        ("a turn must be committed under its own id", changed(ev.InputAudioBufferCommitted, item_id="item_other")),
        ("an item of 200 ms cannot", changed(ev.ConversationItemTruncated, audio_end_ms=201)),
        ("only an item that is there can be deleted", changed(ev.ConversationItemDeleted, item_id="item_none")),
        ("output_index must be 0", changed(ev.ResponseOutputItemAdded, output_index=1)),
        ("content_index must be 0", changed(ev.ResponseContentPartAdded, content_index=1)),
        ("its deltas were", changed(ev.ResponseOutputTextDone, text="something else")),
        ("its deltas were", changed(ev.ResponseOutputAudioTranscriptDone, transcript="something else")),
        ("its deltas were", changed(ev.ResponseContentPartDone, part=ev.ContentPart(type="audio", transcript="x"))),
        ("its deltas were", changed(ev.ResponseFunctionCallArgumentsDone, arguments="{}")),
        ("its deltas were", changed(ev.ConversationItemInputAudioTranscriptionCompleted, transcript="x")),
        ("a delta must not be empty", changed(ev.ResponseOutputAudioDelta, delta=b"")),
        ("a delta must not be empty", changed(ev.ResponseOutputTextDelta, delta="")),
        (
            "its item must be in the conversation",
            changed(ev.ConversationItemAdded, 1, item=Message(role="user", id="i", content=())),
        ),
        ("its status must be final", response_done_with(status="in_progress")),
        ("its output must be its items", response_done_with(output=())),
        ("total tokens", response_done_with(usage=Usage(total_tokens=3, input_tokens=1, output_tokens=1))),
        ("must not touch the conversation", out_of_band_in_conversation),
        ("one active response at most", second_active_response),
    ],
)
def test_each_breach_is_named(rule: str, breach: Callable[[Events], Events]) -> None:
    with pytest.raises(Objection, match=rule):
        watch(breach(good_dialogue()))
