"""The referee: keeps silent about a good dialogue, and objects to each way of breaking it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import pytest
from msgspec import structs

from vivavoce.core.messages import Opened, Send
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.engines.scripted import scripted_pipeline
from vivavoce.protocol import events as ev
from vivavoce.protocol.config import (
    AudioConfig,
    AudioInput,
    McpApprovalFilter,
    McpTool,
    McpToolFilter,
    RealtimeSession,
    ServerVad,
    Transcription,
    TranscriptionAudioConfig,
    TranscriptionSessionResource,
)
from vivavoce.protocol.items import FunctionCall, InputText, Item, McpApprovalResponse, McpCall, Message, Usage
from vivavoce.server.surroundings import abilities
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.real_time_player import RealTimePlayer
from vivavoce.testing.referee import Objection, Referee
from vivavoce.testing.rehearsal import Rehearsal
from vivavoce.testing.sounds import silence, tone

Events = list[ev.AnyServerEvent]
LOGPROBS: Final = "item.input_audio_transcription.logprobs"


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


# --- beside the conversation: tools, approvals, playback, timeouts, rate limits ---------------------------------------


class Allowance:
    """A rate limit that never runs out."""

    def take(self, tokens: int, now_ms: int) -> bool:
        return True

    def settle(self, reserved: int, used: int, now_ms: int) -> None: ...

    def limits(self, now_ms: int) -> tuple[ev.RateLimit, ...]:
        return (ev.RateLimit(name="tokens", limit=1_000, remaining=900, reset_seconds=0.5),)


def busy_dialogue() -> Events:
    """Tools of an MCP server: one asked for, one called, one failing; answers that are played; a user who is idle."""
    player = RealTimePlayer()
    given = Surroundings(abilities=abilities(scripted_pipeline()), account=Allowance(), player=player)
    machine = Session(id="sess_1", model="scripted", ids=counting_ids(), expires_at=0, surroundings=given)
    rehearsal = Rehearsal(machine, player=player)
    rehearsal.say(Opened())
    approval = McpApprovalFilter(never=McpToolFilter(tool_names=("look_up", "break_down")))
    server = McpTool(server_label="notes", server_url="https://notes.example", require_approval=approval)
    detection = ServerVad(idle_timeout_ms=5_000)
    listen = AudioConfig(input=AudioInput(turn_detection=detection, transcription=Transcription(model="scripted")))
    rehearsal.say(ev.SessionUpdate(session=RealtimeSession(tools=(server,), audio=listen, include=(LOGPROBS,))))
    rehearsal.settle()
    for text in ("call look_up {} call break_down {}", "call write_down {}", "hello"):
        rehearsal.say(ev.ConversationItemCreate(item=Message(role="user", content=(InputText(text=text),))))
        rehearsal.say(ev.ResponseCreate())
        rehearsal.settle()
    rehearsal.say(
        ev.ConversationItemCreate(item=McpApprovalResponse(id="ok", approval_request_id="mcpr_1", approve=True))
    )
    rehearsal.settle()
    rehearsal.say(ev.InputAudioBufferAppend(audio=tone(300) + silence(6_000)))
    rehearsal.settle()
    rehearsal.after(8_000)
    rehearsal.settle()
    rehearsal.say(ev.ResponseCreate())
    while "playback" not in rehearsal.streams:
        rehearsal.deliver(rehearsal.streams[0])
    rehearsal.deliver("playback")
    rehearsal.say(ev.OutputAudioBufferClear())
    rehearsal.say(ev.ResponseCancel())
    rehearsal.settle()
    rehearsal.say(ev.SessionUpdate(session=RealtimeSession(audio=AudioConfig(input=AudioInput(turn_detection=None)))))
    return [moment.message.event for moment in rehearsal.record if isinstance(moment.message, Send)]


def test_a_busy_dialogue_passes() -> None:
    events = busy_dialogue()
    assert {event.type for event in events} >= {
        "mcp_list_tools.completed",
        "response.mcp_call.completed",
        "response.mcp_call.failed",
        "response.mcp_call_arguments.done",
        "input_audio_buffer.timeout_triggered",
        "output_audio_buffer.started",
        "output_audio_buffer.stopped",
        "output_audio_buffer.cleared",
        "rate_limits.updated",
    }
    watch(events)


@pytest.mark.parametrize(
    "kind",
    [
        ev.McpListToolsInProgress,
        ev.McpListToolsCompleted,
        ev.ResponseMcpCallArgumentsDone,
        ev.ResponseMcpCallInProgress,
        ev.ResponseMcpCallCompleted,
        ev.OutputAudioBufferStarted,
        ev.OutputAudioBufferStopped,
        ev.OutputAudioBufferCleared,
        ev.RateLimitsUpdated,
    ],
)
@pytest.mark.parametrize("times", [0, 2])
def test_events_beside_the_conversation_come_once(kind: type[ev.ServerEvent], times: int) -> None:
    events = busy_dialogue()
    # Whether limits are stated at all is not known before the first response is done.
    found = list(positions(events, kind))[2 if kind is ev.RateLimitsUpdated and not times else 0 :]
    assert found
    for index in found:
        copies = [structs.replace(events[index], event_id=f"event_again_{number}") for number in range(times)]
        with pytest.raises(Objection):
            watch([*events[:index], *copies, *events[index + 1 :]])


def test_a_call_that_failed_says_so_once() -> None:
    events = busy_dialogue()
    (index,) = positions(events, ev.ResponseMcpCallFailed)
    for breach in ([], [events[index], structs.replace(events[index], event_id="event_again")]):
        with pytest.raises(Objection):
            watch([*events[:index], *breach, *events[index + 1 :]])


def added(kind: type[Item], which: int = 0, **fields: object) -> Callable[[Events], Events]:
    """The item added to the conversation, changed in its announcement there."""

    def change(events: Events) -> Events:
        found = [index for index in positions(events, ev.ConversationItemAdded) if isinstance(events[index].item, kind)]  # type: ignore[union-attr]
        item = structs.replace(events[found[which]].item, **fields)  # type: ignore[union-attr]
        return [
            *events[: found[which]],
            structs.replace(events[found[which]], item=item),
            *events[found[which] + 1 :],
        ]

    return change


def done(kind: type[Item], which: int = 0, **fields: object) -> Callable[[Events], Events]:
    def change(events: Events) -> Events:
        found = [index for index in positions(events, ev.ConversationItemDone) if isinstance(events[index].item, kind)]  # type: ignore[union-attr]
        item = structs.replace(events[found[which]].item, **fields)  # type: ignore[union-attr]
        return [*events[: found[which]], structs.replace(events[found[which]], item=item), *events[found[which] + 1 :]]

    return change


def without_detection(events: Events) -> Events:
    """The last update, which turns detection off, comes first."""
    first = next(positions(events, ev.SessionUpdated))
    return [*events[:first], events[-1], *events[first + 1 : -1]]


def limits_out_of_place(events: Events) -> Events:
    index = next(positions(events, ev.RateLimitsUpdated))
    return [*events, structs.replace(events[index], event_id="event_late")]


def configured_without(field: str) -> Callable[[Events], Events]:
    """Nobody ever set this: `include`, or the idle timeout."""

    def without(session: object) -> object:
        if field == "include":
            return structs.replace(session, include=None)  # type: ignore[type-var]
        audio = AudioConfig(input=AudioInput(turn_detection=ServerVad(idle_timeout_ms=None)))
        return structs.replace(session, audio=audio)  # type: ignore[type-var]

    def change(events: Events) -> Events:
        return [
            structs.replace(event, session=without(event.session)) if isinstance(event, ev.SessionUpdated) else event
            for event in events
        ]

    return change


def stopped_too_soon(events: Events) -> Events:
    """Playback of the first response that is still being spoken stops at once."""
    start = list(positions(events, ev.OutputAudioBufferStarted))[1]
    stop = list(positions(events, ev.OutputAudioBufferStopped))[1]
    return [*events[: start + 1], events[stop], *events[start + 1 : stop], *events[stop + 1 :]]


def in_a_transcription_session(events: Events) -> Events:
    audio = TranscriptionAudioConfig(input=AudioInput(turn_detection=ServerVad()))
    session = TranscriptionSessionResource(id="sess_1", object="realtime.transcription_session", audio=audio)
    return [structs.replace(events[0], session=session), *(event for event in events[1:] if not is_update(event))]


def swapped(events: Events, kind: type[ev.ServerEvent]) -> Events:
    """The first event of this kind and the one behind it change places."""
    index = next(positions(events, kind))
    return [*events[:index], events[index + 1], events[index], *events[index + 2 :]]


def is_update(event: ev.AnyServerEvent) -> bool:
    return isinstance(event, ev.SessionUpdated)


OVERDRAWN = ev.RateLimit(name="tokens", limit=10, remaining=11, reset_seconds=1.0)
LONG_AGO = ev.RateLimit(name="tokens", limit=10, remaining=1, reset_seconds=-1.0)


@pytest.mark.parametrize(
    ("rule", "breach"),
    [
        ("an approval must have been asked for", added(McpApprovalResponse, approval_request_id="mcpr_none")),
        ("must have been approved", added(McpApprovalResponse, approve=False)),
        ("must have been approved", added(McpCall, -1, approval_request_id="mcpr_other")),
        ("an import must be over before", lambda events: swapped(events, ev.McpListToolsCompleted)),
        ("a call must be over before", lambda events: swapped(events, ev.ResponseMcpCallCompleted)),
        ("and no other, must have an error", done(McpCall, 1, error=None)),
        ("must have an output", done(McpCall, 0, output=None)),
        (
            "its item must be a McpCall",
            changed(ev.ResponseOutputItemAdded, item=FunctionCall(name="x", arguments="", id="mcp_1")),
        ),
        ("its deltas were", changed(ev.ResponseMcpCallArgumentsDone, arguments="[]")),
        ("output_index must be 0", changed(ev.ResponseMcpCallInProgress, output_index=3)),
        ("must have audio to be played", changed(ev.OutputAudioBufferStarted, response_id="resp_1")),
        ("is what is being played", changed(ev.OutputAudioBufferCleared, response_id="resp_1")),
        ("stops for another alone", stopped_too_soon),
        ("nobody asked for an idle timeout", configured_without("idle_timeout_ms")),
        ("must be committed next", lambda events: swapped(events, ev.InputAudioBufferTimeoutTriggered)),
        ("the timeout is 5000 ms", changed(ev.InputAudioBufferTimeoutTriggered, audio_end_ms=600_000)),
        ("without turn detection the client", without_detection),
        ("when a response begins or is done", limits_out_of_place),
        ("can be left", changed(ev.RateLimitsUpdated, rate_limits=(OVERDRAWN,))),
        ("in the future", changed(ev.RateLimitsUpdated, rate_limits=(LONG_AGO,))),
        ("nobody asked for logprobs", configured_without("include")),
        ("has no responses", in_a_transcription_session),
    ],
)
def test_each_breach_beside_the_conversation_is_named(rule: str, breach: Callable[[Events], Events]) -> None:
    with pytest.raises(Objection, match=rule):
        watch(breach(busy_dialogue()))
