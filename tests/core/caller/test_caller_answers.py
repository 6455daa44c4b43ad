"""Who waits for an answer, and gets it once (answers.py)."""

from __future__ import annotations

import pytest
from caller_dialogue import (
    SERVER_VAD,
    Dialogue,
    added,
    append,
    committed,
    created,
    done,
    error,
    session,
    started,
    stopped,
)

from vivavoce.audio.formats import PCM16_24K
from vivavoce.core.caller import Caller, CallerLimits
from vivavoce.core.caller.messages import Ask, Connected, Lost, WakeUp
from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.items import user_message
from vivavoce.testing.playbook import counting_ids

ITEM = user_message("hello", id="mine")
BETA_ADDED = ev.ConversationItemCreated(item=ITEM, previous_item_id=None)
QUESTIONS = {
    "update": (ev.SessionUpdate(event_id="e", session=cfg.RealtimeSession()), ev.SessionUpdated(session=session())),
    "commit": (ev.InputAudioBufferCommit(event_id="e"), committed("new")),
    "clear": (ev.InputAudioBufferClear(event_id="e"), ev.InputAudioBufferCleared()),
    "clear output": (ev.OutputAudioBufferClear(event_id="e"), ev.OutputAudioBufferCleared(response_id="r")),
    "create, GA": (ev.ConversationItemCreate(event_id="e", item=ITEM), added(ITEM)),
    "create, beta": (ev.ConversationItemCreate(event_id="e", item=ITEM), BETA_ADDED),
    "delete": (ev.ConversationItemDelete(event_id="e", item_id="x"), ev.ConversationItemDeleted(item_id="x")),
    "retrieve": (ev.ConversationItemRetrieve(event_id="e", item_id="mine"), ev.ConversationItemRetrieved(item=ITEM)),
    "truncate": (
        ev.ConversationItemTruncate(event_id="e", item_id="x", content_index=0, audio_end_ms=1),
        ev.ConversationItemTruncated(item_id="x", content_index=0, audio_end_ms=1),
    ),
    "cancel": (ev.ResponseCancel(event_id="e"), done("resp_9", "cancelled")),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_success_event_settles_the_ticket_and_only_once(name: str) -> None:
    question, answer = QUESTIONS[name]
    talk = Dialogue()
    assert [line.split()[1] for line in talk.ask(question)] == [question.type]
    assert f"ack 1 {answer.type}" in talk.say(answer)
    assert not [line for line in talk.say(answer) if line.startswith("ack")]
    assert talk.caller.deadline() is None


@pytest.mark.parametrize("name", QUESTIONS)
def test_an_error_that_names_the_event_refuses_it_and_nobody_else_is_told(name: str) -> None:
    question, answer = QUESTIONS[name]
    talk = Dialogue()
    talk.ask(question)
    assert talk.say(error("bad", "e")) == ["refuse 1 bad"]
    assert not [line for line in talk.say(answer) if line.startswith("ack")]


@pytest.mark.parametrize("name", QUESTIONS)
def test_without_an_answer_it_fails_in_time(name: str) -> None:
    question, _ = QUESTIONS[name]
    talk = Dialogue(limits=CallerLimits(answer_ms_max=1_000))
    talk.ask(question)
    assert talk.caller.deadline() == 1_000
    assert talk.say(WakeUp()) == []
    assert talk.after(1_000) == ["refuse 1 no_answer"]
    assert talk.caller.deadline() is None


def test_an_append_is_answered_at_once_as_no_server_answers_it() -> None:
    assert Dialogue().ask(append(20)) == ["ack 1", "send input_audio_buffer.append"]


def test_an_event_that_nobody_waits_for_settles_nothing_and_its_refusal_is_told() -> None:
    talk = Dialogue()
    assert talk.say(Ask(append(20))) == ["send input_audio_buffer.append"]
    delete = ev.ConversationItemDelete(event_id="e", item_id="x")
    talk.say(Ask(delete))
    assert talk.say(ev.ConversationItemDeleted(item_id="x")) == []
    talk.say(Ask(delete))
    assert talk.say(error("item_delete_invalid_item_id", "e")) == ["tell error item_delete_invalid_item_id"]


def test_answers_of_one_kind_come_in_the_order_of_the_questions() -> None:
    talk = Dialogue()
    talk.ask(*(ev.SessionUpdate(event_id=f"e{n}", session=cfg.RealtimeSession()) for n in range(3)))
    assert talk.say(error("bad", "e1"), *[ev.SessionUpdated(session=session())] * 2) == [
        "refuse 2 bad",
        "ack 1 session.updated",
        "ack 3 session.updated",
    ]


def test_answers_about_items_go_by_the_item() -> None:
    talk = Dialogue()
    talk.ask(*(ev.ConversationItemDelete(event_id=f"e{item}", item_id=item) for item in "ab"))
    assert talk.say(*(ev.ConversationItemDeleted(item_id=item) for item in "cba")) == [
        "ack 2 conversation.item.deleted",
        "ack 1 conversation.item.deleted",
    ]


def test_a_named_response_is_cancelled_by_its_own_end_alone() -> None:
    talk = Dialogue()
    talk.ask(ev.ResponseCancel(event_id="e", response_id="resp_1"))
    assert talk.say(done("resp_2")) == []
    assert talk.say(done("resp_1", "cancelled")) == ["ack 1 response.done"]


def test_a_turn_that_the_server_found_does_not_answer_a_commit_by_hand() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.ask(append(500), ev.InputAudioBufferCommit(event_id="e"))
    assert talk.say(started(), stopped(at_ms=300), committed("turn_1")) == ["tell interrupted"]
    assert talk.say(committed("turn_2")) == ["ack 2 input_audio_buffer.committed"]


def test_a_cancellation_that_came_too_late_troubles_nobody() -> None:
    talk = Dialogue()
    talk.say(created())
    talk.ask(ev.ResponseCancel(event_id="mine"))
    assert talk.say(done()) == ["ack 1 response.done"]
    assert talk.say(error("response_cancel_not_active", "mine")) == []
    assert talk.say(error("response_cancel_not_active", "another")) == ["tell error response_cancel_not_active"]


def test_an_error_about_nothing_of_ours_is_told() -> None:
    talk = Dialogue()
    assert talk.say(error("server_error")) == ["tell error server_error"]
    assert talk.say(error("bad", "unknown")) == ["tell error bad"]


def test_while_there_is_no_connection_no_time_counts() -> None:
    talk = Dialogue(limits=CallerLimits(answer_ms_max=1_000))
    talk.ask(QUESTIONS["delete"][0])
    talk.say(Lost())
    assert talk.caller.deadline() is None
    assert talk.after(5_000) == []
    assert talk.say(WakeUp()) == []
    assert talk.say(Connected()) == []
    assert talk.caller.deadline() == 6_000
    assert talk.after(1_000) == ["refuse 1 no_answer"]


def test_what_was_configured_is_what_the_server_has_taken() -> None:
    talk = Dialogue()
    for number, voice in enumerate(("ash", "nobody", "coral")):
        output = cfg.AudioOutput(voice=voice)
        talk.ask(
            ev.SessionUpdate(event_id=f"e{number}", session=cfg.RealtimeSession(audio=cfg.AudioConfig(output=output)))
        )
    talk.ask(ev.SessionUpdate(event_id="e3", session=cfg.RealtimeSession(instructions="Be brief.")))
    updated = ev.SessionUpdated(session=session())
    talk.say(updated, error("bad", "e1"), updated)
    assert talk.caller.configured == cfg.RealtimeSession(audio=cfg.AudioConfig(output=cfg.AudioOutput(voice="coral")))
    talk.say(updated)
    assert talk.caller.configured == cfg.RealtimeSession(
        instructions="Be brief.", audio=cfg.AudioConfig(output=cfg.AudioOutput(voice="coral"))
    )


def test_an_id_that_is_used_twice_is_refused_before_anything_is_sent() -> None:
    talk = Dialogue()
    talk.ask(QUESTIONS["commit"][0])
    with pytest.raises(LocalProtocolError, match="an event with event_id 'e' is on its way"):
        talk.ask(QUESTIONS["delete"][0])
    assert talk.say(committed("new")) == ["ack 1 input_audio_buffer.committed"]


def test_what_nobody_waits_for_is_given_up_in_silence() -> None:
    talk = Dialogue(limits=CallerLimits(answer_ms_max=1_000))
    talk.say(Ask(QUESTIONS["update"][0]))  # type: ignore[arg-type]
    assert talk.after(1_000) == []
    assert talk.say(ev.SessionUpdated(session=session())) == []
    assert talk.caller.configured is None


def test_before_the_server_has_greeted_a_refusal_changes_nothing() -> None:
    caller = Caller(ids=counting_ids())
    caller.handle(Connected(), 0)
    caller.handle(Ask(QUESTIONS["update"][0], 1), 0)  # type: ignore[arg-type]
    assert len(caller.handle(error("bad", "e"), 0)) == 1
    assert caller.ear.format == PCM16_24K
