"""What the application is told of items: B9, B10 (memory.py, updates.py)."""

from __future__ import annotations

import pytest
from caller_dialogue import Dialogue, added, call, created, delta, done, item_done, said, spoken
from msgspec import structs

from vivavoce.core.caller import CallerLimits
from vivavoce.core.caller.messages import CallerInput
from vivavoce.core.caller.updates import ConversationUpdated, Delta
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET
from vivavoce.protocol.items import (
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    UnknownItem,
    user_message,
)

TURN = Message(id="turn_1", role="user", status="completed", content=(InputAudio(transcript=None),))
POSITION = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}


def ga_done(item: Item) -> list[ev.AnyServerEvent]:
    return [ev.ConversationItemDone(item=item, previous_item_id=None), item_done(item)]


def beta(events: list[ev.AnyServerEvent]) -> list[ev.AnyServerEvent]:
    """The same as a beta server says it."""
    return [
        ev.ConversationItemCreated(item=event.item, previous_item_id=None)
        if isinstance(event, ev.ConversationItemAdded)
        else event
        for event in events
        if not isinstance(event, ev.ConversationItemDone)
    ]


def listening() -> Dialogue:
    talk = Dialogue()
    talk.caller.tells_deltas = True
    return talk


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_B10_an_answer_is_appended_updated_completed_each_once(dialect: str) -> None:
    events = [created(), *spoken(), delta(), *ga_done(said()), done("resp_1", "completed", said())]
    talk = listening()
    assert talk.say(*(beta(events) if dialect == "beta" else events)) == [
        "tell item.appended item_1",
        "tell updated item_1 transcript",
        "tell updated item_1 audio",
        "tell updated item_1 audio",
        "tell item.completed item_1",
    ]


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_B10_an_item_of_the_client_is_appended_and_completed_at_once(dialect: str) -> None:
    item = user_message("hello", id="mine")
    item = structs.replace(item, status="completed")
    events = [added(item), ev.ConversationItemDone(item=item, previous_item_id=None)]
    assert Dialogue().say(*(beta(events) if dialect == "beta" else events)) == [
        "tell item.appended mine",
        "tell item.completed mine",
    ]


def test_B10_an_item_that_is_announced_in_both_ways_is_appended_once() -> None:
    talk = Dialogue()
    talk.say(added(TURN))
    assert talk.say(ev.ConversationItemCreated(item=TURN, previous_item_id=None)) == []


def test_B10_an_item_of_which_only_the_end_is_told_is_appended_then() -> None:
    told = ev.ConversationItemDone(item=TURN, previous_item_id=None)
    assert Dialogue().say(told) == ["tell item.appended turn_1", "tell item.completed turn_1"]


def test_B10_an_answer_that_was_broken_off_is_updated_and_not_completed() -> None:
    talk = Dialogue()
    talk.say(created(), *spoken())
    assert talk.say(*ga_done(said(status="incomplete"))) == ["tell updated item_1"]


def test_B10_without_anybody_who_listens_no_delta_is_told() -> None:
    assert Dialogue().say(created(), *spoken()) == ["tell item.appended item_1"]


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (ev.ResponseOutputTextDelta(**POSITION, delta="a"), Delta(text="a")),  # type: ignore[arg-type]
        (ev.ResponseOutputAudioTranscriptDelta(**POSITION, delta="a"), Delta(transcript="a")),  # type: ignore[arg-type]
        (ev.ResponseOutputAudioDelta(**POSITION, delta=b"ab"), Delta(audio=b"ab")),  # type: ignore[arg-type]
        (
            ev.ResponseFunctionCallArgumentsDelta(
                response_id="resp_1", item_id="item_1", output_index=0, call_id="call_1", delta="{"
            ),
            Delta(arguments="{"),
        ),
        (
            ev.ConversationItemInputAudioTranscriptionDelta(item_id="item_1", content_index=0, delta="a"),
            Delta(transcript="a"),
        ),
    ],
)
def test_B9_a_delta_has_exactly_one_field(event: CallerInput, told: Delta) -> None:
    talk = listening()
    talk.say(created(), *spoken(), event)
    update = talk.effects[-1].update  # type: ignore[union-attr]
    assert isinstance(update, ConversationUpdated)
    assert update.delta == told


def test_B9_what_is_unknown_is_passed_over() -> None:
    talk = listening()
    events: list[CallerInput] = [
        delta("nowhere"),
        ev.ResponseOutputTextDelta(**{**POSITION, "item_id": "nowhere"}, delta="a"),  # type: ignore[arg-type]
        ev.ConversationItemTruncated(item_id="nowhere", content_index=0, audio_end_ms=3),
        ev.ConversationItemDeleted(item_id="nowhere"),
        ev.ConversationItemInputAudioTranscriptionCompleted(
            item_id="nowhere",
            content_index=0,
            transcript="a",
            usage=UNSET,  # type: ignore[arg-type]
        ),
        done("resp_9", "completed"),
        ev.Unknown(kind="new.event", fields={}),
    ]
    assert talk.say(*events) == []
    assert talk.say(added(UnknownItem(id="odd", fields={"type": "hologram"})))[0] == "tell item.appended odd"
    view = talk.caller.memory.view("odd")
    assert view is not None
    assert (view.type, view.role, view.text, view.status) == ("hologram", None, "", None)
    assert talk.caller.memory.view("nowhere") is None


# --- transcripts of the user ------------------------------------------------------------------------------------------


def transcript(text: str) -> ev.ConversationItemInputAudioTranscriptionCompleted:
    return ev.ConversationItemInputAudioTranscriptionCompleted(
        item_id="turn_1", content_index=0, transcript=text, usage=ev.DurationUsage(seconds=1.0)
    )


def test_B9_a_transcript_that_comes_whole_is_one_delta() -> None:
    talk = Dialogue()
    talk.say(added(TURN))
    assert talk.say(transcript("hello")) == ["tell updated turn_1 transcript"]
    assert talk.caller.memory.view("turn_1").text == "hello"  # type: ignore[union-attr]
    assert talk.say(transcript("hello")) == ["tell updated turn_1"]


@pytest.mark.parametrize("pieces", [["he", "llo"], []])
def test_B9_a_transcript_that_came_in_pieces_or_is_empty_is_no_delta_at_its_end(pieces: list[str]) -> None:
    talk = listening()
    talk.say(added(TURN))
    lines = talk.say(
        *(
            ev.ConversationItemInputAudioTranscriptionDelta(item_id="turn_1", content_index=0, delta=piece)
            for piece in pieces
        )
    )
    assert lines == ["tell updated turn_1 transcript"] * len(pieces)
    assert talk.say(transcript("".join(pieces))) == ["tell updated turn_1"]


def test_a_transcript_that_fails_is_told() -> None:
    talk = Dialogue()
    talk.say(added(TURN))
    why = ev.TranscriptionError(type="transcription_error", code="no", message="no")
    failed = ev.ConversationItemInputAudioTranscriptionFailed(item_id="turn_1", content_index=0, error=why)
    assert talk.say(failed) == ["tell updated turn_1"]


# --- views ------------------------------------------------------------------------------------------------------------


def test_views_say_what_the_items_are() -> None:
    talk = Dialogue()
    output = FunctionCallOutput(id="out", call_id="call_1", output="42")
    several = Message(id="several", role="user", content=(InputText(text="see "), InputImage(image_url="data:,")))
    talk.say(*map(added, (TURN, call(), output, several, structs.replace(call(2), call_id=UNSET))))
    views = {view.id: view for view in talk.caller.memory.views()}
    assert list(views) == ["turn_1", "fc_1", "out", "several", "fc_2"]
    assert [view.type for view in views.values()][:3] == ["message", "function_call", "function_call_output"]
    assert (views["turn_1"].role, views["turn_1"].audio, views["turn_1"].audio_ms) == ("user", b"", 0)
    assert views["turn_1"].name is views["turn_1"].call_id is views["turn_1"].arguments is None
    assert (views["fc_1"].name, views["fc_1"].call_id, views["fc_1"].arguments) == ("look", "call_1", "{}")
    assert (views["out"].call_id, views["out"].output, views["out"].text) == ("call_1", "42", "")
    assert (views["fc_1"].output, views["fc_2"].call_id, views["out"].item) == (None, None, output)
    assert views["several"].text == "see "
    assert repr(views["several"]) == "<message of the user several : 'see '>"
    assert repr(views["fc_1"]) == "<function_call fc_1 completed: '{}'>"


def test_a_deleted_item_is_told_and_may_come_again() -> None:
    talk = Dialogue()
    talk.say(added(TURN), ev.ConversationItemDone(item=TURN, previous_item_id=None))
    assert talk.say(ev.ConversationItemDeleted(item_id="turn_1")) == ["tell updated turn_1"]
    assert talk.caller.memory.views() == ()
    assert talk.say(added(TURN))[0] == "tell item.appended turn_1"


# --- heard ------------------------------------------------------------------------------------------------------------


def cut(end_ms: int) -> ev.ConversationItemTruncated:
    return ev.ConversationItemTruncated(item_id="item_1", content_index=0, audio_end_ms=end_ms)


@pytest.mark.parametrize(
    ("end_ms", "words"), [(0, ""), (100, ""), (400, "one "), (500, "one two "), (999, "one two three "), (1_000, None)]
)
def test_B9_of_a_truncated_answer_the_words_that_were_heard_are_shown(end_ms: int, words: str | None) -> None:
    talk = Dialogue()
    talk.say(created(), *spoken(), *ga_done(said()))
    assert talk.say(cut(end_ms)) == ["tell updated item_1"]
    [view] = talk.caller.memory.views()
    assert view.text == ("one two three fo" if words is None else words)
    assert (view.is_truncated, view.audio_ms, len(view.audio)) == (True, end_ms, 48 * end_ms)
    talk.say(*ga_done(said(text="")), cut(5_000))
    assert view.text == ("one two three fo" if words is None else words)
    talk.say(cut(1))
    assert view.text == ""


def test_of_speech_that_is_still_coming_the_words_last_as_long_as_words_do() -> None:
    talk = Dialogue()
    *before, sound = spoken()
    assert isinstance(sound, ev.ResponseOutputAudioDelta)
    talk.say(created(), *before, structs.replace(sound, delta=bytes(48 * 100)), cut(100))
    [view] = talk.caller.memory.views()
    assert view.text == ""  # 100 ms of 16 characters, of which each lasts 65 ms
    talk.say(ev.ResponseOutputAudioTranscriptDone(**POSITION, transcript="I am"))  # type: ignore[arg-type]
    assert view.text == ""
    talk.say(*(delta() for _ in range(60)))
    assert view.text == ""


def test_a_transcript_that_comes_only_at_the_end_is_known_too() -> None:
    talk = Dialogue()
    events = [event for event in spoken() if not isinstance(event, ev.ResponseOutputAudioTranscriptDelta)]
    talk.say(created(), *events, ev.ResponseOutputAudioTranscriptDone(**POSITION, transcript="one two"))  # type: ignore[arg-type]
    talk.say(*ga_done(said(text="one two")), cut(900))
    assert talk.caller.memory.view("item_1").text == "one "  # type: ignore[union-attr]


def test_only_so_many_items_are_remembered() -> None:
    talk = Dialogue(limits=CallerLimits(items_remembered_max=2))
    items = [structs.replace(TURN, id=f"t{number}") for number in range(4)]
    talk.say(*map(added, items))
    assert talk.say(*(ev.ConversationItemDone(item=item, previous_item_id=None) for item in items[2:])) == []
    assert len(talk.caller.memory._told) == 2


def test_text_answers_are_told_as_text() -> None:
    talk = listening()
    message = Message(id="item_1", role="assistant", status="in_progress", content=())
    part = ev.ContentPart(type="text", text="")
    talk.say(created(), added(message), ev.ResponseContentPartAdded(**POSITION, part=part))  # type: ignore[arg-type]
    talk.say(ev.ResponseOutputTextDelta(**POSITION, delta="Hi"))  # type: ignore[arg-type]
    assert talk.say(ev.ResponseOutputTextDone(**POSITION, text="Hi!")) == ["tell updated item_1"]  # type: ignore[arg-type]
    whole = structs.replace(message, status="completed", content=(OutputText(text="Hi!"),))
    assert talk.say(*ga_done(whole)) == ["tell item.completed item_1"]
