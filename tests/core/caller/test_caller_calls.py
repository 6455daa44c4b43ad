"""A call is run once and answered once (calls.py)."""

from __future__ import annotations

import pytest
from caller_dialogue import SERVER_VAD, Dialogue, added, aside, call, created, done, item_done, started
from msgspec import UNSET, structs

from vivavoce.core.caller.messages import Interrupt, ToolEnded
from vivavoce.protocol import events as ev

OUTPUT = "send conversation.item.create item_1"
CREATE = "send response.create"


def test_a_call_runs_as_soon_as_it_is_complete_and_the_answer_waits_for_nothing() -> None:
    talk = Dialogue()
    assert talk.say(created(), item_done(call())) == ["run call_1"]
    assert talk.caller.calls.open == ("call_1",)
    assert talk.say(ToolEnded("call_1", "42")) == [OUTPUT]
    [event] = talk.sent()
    assert isinstance(event, ev.ConversationItemCreate)
    assert (event.item.call_id, event.item.output) == ("call_1", "42")  # type: ignore[union-attr]
    assert talk.say(done()) == [CREATE]


def test_several_calls_bring_one_response_when_all_are_answered() -> None:
    talk = Dialogue()
    assert talk.say(created(), item_done(call(1)), item_done(call(2)), done()) == ["run call_1", "run call_2"]
    assert talk.say(ToolEnded("call_2", "{}")) == [OUTPUT]
    assert talk.say(ToolEnded("call_1", "{}")) == ["send conversation.item.create item_2", CREATE]


@pytest.mark.parametrize("again", ["item done", "response done", "both ended already"])
def test_a_call_that_is_told_more_than_once_runs_once(again: str) -> None:
    talk = Dialogue()
    talk.say(created(), item_done(call()))
    if again == "both ended already":
        talk.say(ToolEnded("call_1", "{}"))
    lines = talk.say(item_done(call())) if again == "item done" else talk.say(done("resp_1", "completed", call()))
    assert "run call_1" not in lines


def test_a_call_that_only_the_end_of_the_response_tells_runs() -> None:
    talk = Dialogue()
    assert talk.say(created(), done("resp_1", "completed", call())) == ["run call_1"]
    assert talk.say(ToolEnded("call_1", "{}")) == [OUTPUT, CREATE]


def test_a_call_that_only_the_conversation_tells_runs() -> None:
    talk = Dialogue()
    begun = structs.replace(call(), status="in_progress", arguments="")
    talk.say(created(), ev.ResponseOutputItemAdded(response_id="resp_1", output_index=0, item=begun), added(begun))
    told = ev.ConversationItemDone(item=call(), previous_item_id=None)
    assert talk.say(told) == ["run call_1", "tell item.completed fc_1"]
    assert talk.say(item_done(call())) == []


def test_the_application_s_own_item_is_no_call() -> None:
    assert "run call_1" not in Dialogue().say(
        added(call()), ev.ConversationItemDone(item=call(), previous_item_id=None)
    )


def test_half_a_call_does_not_run() -> None:
    assert Dialogue().say(created(), item_done(call(status="incomplete")), done("resp_1", "cancelled")) == []


def test_a_call_that_is_answered_twice_is_answered_once() -> None:
    talk = Dialogue()
    talk.say(created(), item_done(call()), ToolEnded("call_1", "{}"))
    assert talk.say(ToolEnded("call_1", "{}"), ToolEnded("unknown", "{}")) == []


@pytest.mark.parametrize("other", [call(2, "theirs"), structs.replace(call(2), call_id=UNSET)])
def test_where_the_application_answers_a_call_it_asks_for_the_response_too(other: object) -> None:
    talk = Dialogue()
    assert talk.say(created(), item_done(call(1)), item_done(other), done()) == ["run call_1"]  # type: ignore[arg-type]
    assert talk.say(ToolEnded("call_1", "{}")) == [OUTPUT]
    assert talk.caller.is_idle is False  # the output is on its way
    talk.say(added(talk.sent()[0].item))  # type: ignore[union-attr]


@pytest.mark.parametrize("status", ["cancelled", "failed"])
def test_after_a_response_that_was_broken_off_nothing_is_asked_for(status: str) -> None:
    talk = Dialogue(text_fallback=False)
    talk.say(created(), item_done(call()))
    assert talk.say(done("resp_1", status)) == []  # type: ignore[arg-type]
    assert talk.say(ToolEnded("call_1", "{}")) == [OUTPUT]


def test_what_is_called_beside_the_conversation_is_the_application_s() -> None:
    talk = Dialogue()
    talk.ask(aside())
    talk.say(created("r", conversation_id=None, tag="ask_1"))
    assert talk.say(item_done(call(), "r"), done("r", "completed", call(), conversation_id=None)) == []


def test_an_interruption_ends_the_tools_that_want_to_be() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.say(created(), item_done(call(1)), item_done(call(2)))
    assert sorted(talk.say(started())) == ["end call_1", "end call_2", "tell interrupted"]
    assert sorted(talk.say(Interrupt())) == ["end call_1", "end call_2", "tell interrupted"]
