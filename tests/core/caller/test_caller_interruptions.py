"""What was heard is what was said: interruptions, cut to the sample (voice.py)."""

from __future__ import annotations

import pytest
from caller_dialogue import (
    SERVER_VAD,
    Dialogue,
    aside,
    conversation_of,
    created,
    delta,
    done,
    error,
    item_done,
    said,
    spoken,
    started,
)
from msgspec import structs

from vivavoce.core.caller.messages import Ask, Heard, Interrupt, Lost, PlaybackStopped, Restored
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.items import Message, OutputText

SECOND = 24_000


def speaking(**settings: object) -> Dialogue:
    """A second of an answer has come and is being played."""
    talk = Dialogue(plays=True, **settings)  # type: ignore[arg-type]
    talk.say(created(), *spoken())
    return talk


def cuts(talk: Dialogue) -> list[tuple[str, int | None]]:
    """What is cut, where; None: deleted."""
    return [
        (event.item_id, event.audio_end_ms if isinstance(event, ev.ConversationItemTruncate) else None)
        for event in talk.sent()
        if isinstance(event, ev.ConversationItemTruncate | ev.ConversationItemDelete)
    ]


def test_audio_is_handed_to_the_player_and_only_where_there_is_one() -> None:
    assert Dialogue(plays=True).say(created(), *spoken())[-1] == "play item_1 48000"
    assert Dialogue().say(created(), *spoken())[-1] == "tell item.appended item_1"


def test_speech_of_the_user_stops_the_player_first() -> None:
    talk = speaking(detection=SERVER_VAD)
    assert talk.say(started()) == ["stop"]
    assert talk.say(PlaybackStopped((Heard("item_1", 12_000),))) == [
        "send conversation.item.truncate item_1",
        "tell interrupted item_1:12000",
    ]
    [event] = talk.sent()
    assert isinstance(event, ev.ConversationItemTruncate)
    assert (event.content_index, event.audio_end_ms) == (0, 500)
    assert talk.caller.memory.view("item_1").text == "one "  # type: ignore[union-attr]  # it was to last 1040 ms


def test_where_the_user_may_speak_along_nothing_stops() -> None:
    assert speaking(detection=cfg.ServerVad(interrupt_response=False)).say(started()) == []


def test_without_a_player_the_interruption_is_told() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.say(created(), *spoken())
    assert talk.say(started()) == ["tell interrupted"]
    assert talk.say(Interrupt()) == ["tell interrupted"]  # the server cancels the response already


@pytest.mark.parametrize(
    ("samples", "end_ms"),
    [(-5, None), (0, None), (23, None), (24, 1), (12_011, 500), (SECOND - 1, 999), (SECOND, 1_000), (10**9, 1_000)],
)
def test_what_was_heard_is_clamped_and_nothing_is_deleted(samples: int, end_ms: int | None) -> None:
    talk = speaking()
    talk.say(Interrupt(Heard("item_1", samples)))
    assert cuts(talk) == [("item_1", end_ms)]


def test_several_unfinished_items_are_cut_and_deleted() -> None:
    talk = speaking()
    talk.say(item_done(said()), *spoken("item_2"), *spoken("item_3"))
    talk.say(PlaybackStopped((Heard("item_1", 2_400), Heard("item_2", 0), Heard("item_3", 0))))
    assert cuts(talk) == [("item_1", 100), ("item_2", None), ("item_3", None)]


def test_an_answer_that_was_played_as_far_as_it_has_come_is_cut_there() -> None:
    talk = speaking()
    talk.say(PlaybackStopped(()))
    assert cuts(talk) == [("item_1", 1_000)]
    assert talk.say(delta()) == []


def test_an_answer_that_is_over_and_was_played_stays() -> None:
    talk = speaking()
    talk.say(ev.ConversationItemDone(item=said(), previous_item_id=None), done("resp_1", "completed", said()))
    assert talk.say(PlaybackStopped(())) == ["tell interrupted"]


def test_the_application_cuts_in() -> None:
    talk = speaking()
    assert talk.say(Interrupt()) == ["send response.cancel resp_1", "stop"]
    talk.say(PlaybackStopped((Heard("item_1", 2_400),)))
    assert cuts(talk) == [("item_1", 100)]
    assert talk.say(Interrupt()) == ["stop"]
    assert talk.say(PlaybackStopped(())) == ["tell interrupted"]


def test_the_application_s_own_truth_is_taken_without_a_player() -> None:
    talk = Dialogue()
    talk.say(created(), *spoken())
    assert talk.say(Interrupt(Heard("item_1", 2_400))) == [
        "send response.cancel resp_1",
        "send conversation.item.truncate item_1",
        "tell interrupted item_1:2400",
    ]
    assert talk.say(Interrupt(Heard("item_1", 4_800))) == ["tell interrupted item_1:4800"]


def test_late_audio_is_dropped_and_told_to_nobody() -> None:
    talk = speaking()
    talk.caller.tells_deltas = True
    talk.say(Interrupt(), PlaybackStopped((Heard("item_1", 2_400),)))
    assert talk.say(delta()) == []


def test_an_item_that_begins_after_the_interruption_is_not_heard_and_deleted_once() -> None:
    talk = speaking()
    talk.say(Interrupt(), PlaybackStopped((Heard("item_1", 2_400),)))
    lines = talk.say(*spoken("item_2"), delta("item_2"))
    assert lines == ["tell item.appended item_2", "send conversation.item.delete item_2"]


def test_responses_beside_the_conversation_are_neither_cancelled_nor_silenced() -> None:
    talk = Dialogue(plays=True)
    talk.ask(aside())
    talk.say(created("r", conversation_id=None, tag="ask_1"))
    item = Message(id="item_1", role="assistant", status="in_progress", content=())
    talk.say(ev.ResponseOutputItemAdded(response_id="r", output_index=0, item=item), delta("item_1", "r"))
    assert talk.say(Interrupt()) == ["stop"]
    assert talk.say(PlaybackStopped((Heard("item_1", 3),))) == ["tell interrupted item_1:3"]
    assert talk.say(delta("item_1", "r")) == []
    assert talk.say(delta("item_2", "r")) == []


def test_races_are_harmless() -> None:
    talk = speaking()
    talk.say(Interrupt())
    [cancel] = talk.sent()
    talk.say(PlaybackStopped((Heard("item_1", 2_400), Heard("gone", 5))))
    [truncate] = talk.sent()
    talk.say(done("resp_1", "completed", said()))
    assert talk.say(error("response_cancel_not_active", cancel.event_id)) == []  # type: ignore[arg-type]
    assert talk.say(error("item_truncate_invalid_item_id", truncate.event_id)) == []  # type: ignore[arg-type]
    assert talk.say(error("server_error", truncate.event_id)) == ["tell error server_error"]  # type: ignore[arg-type]


def test_what_the_server_has_cut_itself_is_not_cut_again() -> None:
    talk = speaking()
    talk.say(ev.ConversationItemTruncated(item_id="item_1", content_index=0, audio_end_ms=300))
    assert talk.say(PlaybackStopped((Heard("item_1", 2_400),))) == ["tell interrupted item_1:2400"]


def test_speech_is_cut_where_it_stands_among_the_parts() -> None:
    talk = speaking()
    item = structs.replace(said(), content=(OutputText(text="(aside)"), *said().content))
    talk.say(ev.ConversationItemDone(item=item, previous_item_id=None))
    talk.say(PlaybackStopped((Heard("item_1", 2_400),)))
    [event] = talk.sent()
    assert isinstance(event, ev.ConversationItemTruncate)
    assert event.content_index == 1


def test_a_cancelled_response_may_be_heard_to_where_it_was_cancelled() -> None:
    talk = speaking()
    talk.say(Ask(ev.ResponseCancel(event_id="mine")))
    assert talk.say(delta()) == ["play item_1 960"]


def test_in_another_session_that_was_told_in_words_the_words_are_cut() -> None:
    talk = speaking()
    before = Message(id="before", role="user", content=())
    told = Message(id="item_1", role="assistant", status="completed", content=(OutputText(text="one two three fo"),))
    talk.say(Lost(), Restored(conversation_of(before, told)))
    assert talk.say(PlaybackStopped((Heard("item_1", 12_000),)))[:2] == [
        "send conversation.item.delete item_1",
        "send conversation.item.create item_1",
    ]
    _, create = talk.sent()
    assert isinstance(create, ev.ConversationItemCreate)
    assert create.previous_item_id == "before"
    assert create.item == Message(id="item_1", role="assistant", content=(OutputText(text="one "),))
    told_again = structs.replace(create.item, status="completed")
    lines = talk.say(
        ev.ConversationItemDeleted(item_id="item_1"),
        ev.ConversationItemAdded(item=told_again, previous_item_id="before"),
    )
    assert lines == ["tell updated item_1", "tell item.appended item_1", "tell item.completed item_1"]
    assert talk.caller.memory.view("item_1").text == "one "  # type: ignore[union-attr]


def test_words_of_which_none_was_heard_are_deleted_there() -> None:
    talk = speaking()
    told = Message(id="item_1", role="assistant", status="completed", content=(OutputText(text="one two three fo"),))
    talk.say(Lost(), Restored(conversation_of(told)))
    talk.say(PlaybackStopped((Heard("item_1", 2_400),)))
    assert cuts(talk) == [("item_1", None)]


def test_of_an_item_that_is_cut_twice_the_words_of_the_shorter_cut_are_shown() -> None:
    talk = speaking()
    talk.say(Interrupt(), PlaybackStopped((Heard("item_1", 800 * 24),)))
    talk.say(ev.ConversationItemTruncated(item_id="item_1", content_index=0, audio_end_ms=800))
    [view] = talk.caller.memory.views()
    longer = view.text
    talk.ask(ev.ConversationItemTruncate(event_id="t", item_id="item_1", content_index=0, audio_end_ms=400))
    assert view.text == longer  # the server has not done it
    talk.say(ev.ConversationItemTruncated(item_id="item_1", content_index=0, audio_end_ms=400))
    assert longer.startswith(view.text)
    assert (longer, view.text) == ("one two ", "one ")
    assert (view.audio_ms, view.is_truncated) == (400, True)
