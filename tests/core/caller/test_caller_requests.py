"""One response at a time, and none forgotten (requests.py)."""

from __future__ import annotations

import pytest
from caller_dialogue import (
    SERVER_VAD,
    Dialogue,
    added,
    aside,
    call,
    committed,
    conversation_of,
    create,
    created,
    delta,
    done,
    error,
    item_done,
    said,
    session,
    spoken,
    started,
    stopped,
)
from msgspec import UNSET, structs
from msgspec.structs import force_setattr

from vivavoce.core.caller import CallerLimits
from vivavoce.core.caller.messages import Ask, Connected, Lost, Restored, Tell, ToolEnded
from vivavoce.core.caller.requests import BUSY
from vivavoce.core.caller.tags import TAG, untagged
from vivavoce.core.caller.turns import answers_turns, interrupts
from vivavoce.core.caller.updates import Failed
from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.items import FunctionCallOutput, user_message

CREATE = "send response.create"
OUTPUT = FunctionCallOutput(id="item_1", call_id="call_1", output="{}")


def tag_of(event: ev.AnyClientEvent) -> str | None:
    assert isinstance(event, ev.ResponseCreate)
    params = given(event.response, ev.ResponseParams())
    return (given(params.metadata, None) or {}).get(TAG)


def after_a_call(talk: Dialogue) -> list[str]:
    """The model has called a function, it has answered, and the server has taken the answer."""
    talk.say(created(), item_done(call()), done())
    return talk.say(ToolEnded("call_1", "{}"), added(OUTPUT))


# --- one at a time ----------------------------------------------------------------------------------------------------


def test_the_next_request_waits_until_the_response_is_done() -> None:
    talk = Dialogue()
    assert talk.ask(create(1), create(2), create(3)) == [CREATE]
    assert talk.say(created("resp_1")) == ["ack 1 response.created"]
    assert talk.say(done("resp_1")) == [CREATE]
    assert talk.say(created("resp_2"), done("resp_2")) == ["ack 2 response.created", CREATE]
    assert talk.say(created("resp_3"), done("resp_3")) == ["ack 3 response.created"]
    assert talk.caller.is_idle


def test_a_response_that_the_server_began_by_itself_is_waited_for() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.say(created("resp_1"))
    assert talk.ask(create()) == []
    assert talk.say(done("resp_1")) == [CREATE]


def test_out_of_band_requests_run_beside_everything() -> None:
    talk = Dialogue()
    talk.ask(create(1))
    assert talk.ask(aside(2), aside(3)) == [CREATE, CREATE]
    assert [tag_of(event) for event in talk.sent()] == ["ask_2", "ask_3"]
    assert talk.say(created("r3", conversation_id=None, tag="ask_3")) == ["ack 3 response.created"]
    assert talk.say(created("r1")) == ["ack 1 response.created"]
    assert talk.say(created("r2", conversation_id=None, tag="ask_2")) == ["ack 2 response.created"]
    assert talk.ask(create(4)) == []
    assert talk.say(done("r2", conversation_id=None), done("r3", conversation_id=None)) == []
    assert talk.say(done("r1")) == [CREATE]


@pytest.mark.parametrize("conversation_id", [None, UNSET])
def test_without_tags_out_of_band_responses_go_by_the_order(conversation_id: str | None) -> None:
    talk = Dialogue()
    talk.ask(aside(1), aside(2))
    assert talk.say(created("a", conversation_id=conversation_id)) == ["ack 1 response.created"]
    assert talk.say(created("b", conversation_id=conversation_id)) == ["ack 2 response.created"]


def test_a_refused_request_lets_the_next_one_go() -> None:
    talk = Dialogue()
    talk.ask(create(1), create(2), aside(3))
    assert talk.say(error("bad", "ask_1")) == ["refuse 1 bad", CREATE]
    assert talk.say(error("bad", "ask_3")) == ["refuse 3 bad"]
    talk.say(created(), done(), Ask(create(4)))
    assert talk.say(error("bad", "ask_4")) == ["tell error bad"]
    assert talk.caller.is_idle


def test_too_many_requests_are_refused_at_once() -> None:
    talk = Dialogue(limits=CallerLimits(requests_max=2))
    talk.ask(create(1), create(2), create(3), aside(4), aside(5))
    for request in (create, aside):
        with pytest.raises(LocalProtocolError, match="2 requests for a response wait already"):
            talk.ask(request(9))


# --- tags -------------------------------------------------------------------------------------------------------------


def test_a_request_is_tagged_only_where_it_could_be_mistaken() -> None:
    plain, listening = Dialogue(), Dialogue(detection=SERVER_VAD)
    plain.ask(create(metadata={"mine": "1"}))
    assert tag_of(plain.sent()[0]) is None
    listening.ask(create(metadata={"mine": "1"}))
    event = listening.sent()[0]
    assert isinstance(event, ev.ResponseCreate)
    assert given(event.response, ev.ResponseParams()).metadata == {"mine": "1", TAG: "ask_1"}
    full = {f"k{n}": "v" for n in range(16)}
    listening.say(created(tag="ask_1"), done())
    listening.ask(create(2, metadata=full))
    assert tag_of(listening.sent()[0]) is None
    assert listening.say(created("r2")) == ["ack 2 response.created"]


def test_a_tag_is_shown_to_nobody_and_the_application_s_own_pairs_are() -> None:
    event = created(tag="ask_1")
    force_setattr(event, "raw_frame", b"as it came")
    assert (untagged(event).response.metadata, untagged(event).raw) == (None, b"as it came")
    assert given(event.response.metadata, None) == {TAG: "ask_1"}
    both = structs.replace(event, response=structs.replace(event.response, metadata={"mine": "1", TAG: "ask_1"}))
    assert untagged(both).response.metadata == {"mine": "1"}
    mine = done()
    assert untagged(mine) is mine


def test_a_response_of_a_turn_is_not_taken_for_the_one_asked_for() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.ask(create())
    talk.say(started(), stopped(), committed())
    assert talk.say(created("of_turn")) == []
    assert talk.say(error(BUSY, "ask_1")) == []
    assert talk.say(done("of_turn")) == [CREATE]
    assert talk.say(created("mine", tag="ask_1")) == ["ack 1 response.created"]


def test_a_server_that_does_not_echo_tags_is_understood_by_the_order() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.ask(create(1))
    assert talk.say(created("r1")) == ["ack 1 response.created"]
    talk.say(done("r1"))
    talk.ask(create(2))
    talk.say(started(), stopped(), committed())
    assert talk.say(created("of_turn")) == []
    assert talk.say(error(BUSY, "ask_2"), done("of_turn")) == [CREATE]
    assert talk.say(created("r2")) == ["ack 2 response.created"]


def test_once_tags_have_come_back_a_response_without_one_is_not_ours() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.ask(create(1))
    talk.say(created("r1", tag="ask_1"), done("r1"))
    talk.ask(create(2))
    assert talk.say(created("of_another")) == []
    assert talk.say(error(BUSY, "ask_2"), done("of_another")) == [CREATE]
    assert talk.say(created("r2", tag="ask_2")) == ["ack 2 response.created"]


def test_a_request_sent_again_without_a_tag_is_known_without_one() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.ask(create(1))
    talk.say(created("r1", tag="ask_1"), done("r1"))
    talk.ask(create(2))
    talk.say(created("of_turn"), ev.SessionUpdated(session=session()), error(BUSY, "ask_2"))
    assert talk.say(done("of_turn")) == [CREATE]
    assert tag_of(talk.sent()[0]) is None
    assert talk.say(created("r2")) == ["ack 2 response.created"]


# --- the race ---------------------------------------------------------------------------------------------------------


def test_a_response_that_is_not_known_of_is_waited_out_by_the_clock() -> None:
    talk = Dialogue(limits=CallerLimits(busy_wait_ms=100, busy_tries_max=2))
    talk.ask(create())
    assert talk.say(error(BUSY, "ask_1")) == []
    assert talk.caller.deadline() == 100
    assert talk.after(99) == []
    assert talk.after(1) == [CREATE]
    assert talk.say(error(BUSY, "ask_1")) == []
    assert talk.after(100) == [CREATE]
    assert talk.say(error(BUSY, "ask_1")) == [f"refuse 1 {BUSY}"]


def test_waiting_for_a_response_that_is_known_of_costs_no_try() -> None:
    talk = Dialogue(detection=SERVER_VAD, limits=CallerLimits(busy_tries_max=1))
    talk.ask(create())
    for _ in range(5):
        talk.say(started(), stopped(), committed(), created("of_turn"))
        assert talk.say(error(BUSY, "ask_1")) == []
        assert talk.say(done("of_turn")) == [CREATE]


def test_the_error_of_a_server_that_does_not_name_the_event_is_understood() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.ask(create())
    talk.say(started(), stopped(), committed(), created("of_turn"))
    assert talk.say(error(BUSY)) == []
    assert talk.say(done("of_turn")) == [CREATE]


def test_a_turn_whose_answer_our_request_was_in_the_way_of_is_answered_after_it() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.say(started())
    talk.ask(create())
    talk.say(created("mine", tag="ask_1"), stopped(), committed("turn_1"), added(user_message("hm", id="turn_1")))
    assert talk.say(error(BUSY)) == []
    assert talk.say(done("mine")) == []
    assert talk.after(250) == [CREATE]


def test_a_second_refusal_of_the_same_turn_asks_no_second_time() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.say(created("mine"), started(), stopped(), committed("turn_1"))
    assert talk.say(error(BUSY), error(BUSY), done("mine")) == []
    assert talk.after(10_000) == [CREATE]


# --- after tools ------------------------------------------------------------------------------------------------------


def test_after_tools_one_response_is_asked_for() -> None:
    talk = Dialogue()
    assert after_a_call(talk) == ["send conversation.item.create item_1", CREATE, "tell item.appended item_1"]
    assert talk.say(created("resp_2"), done("resp_2")) == []
    assert talk.caller.is_idle


def test_a_request_that_waits_already_sees_the_outputs_and_comes_first() -> None:
    talk = Dialogue()
    talk.say(created(), item_done(call()))
    talk.ask(create())
    talk.say(ToolEnded("call_1", "{}"), added(OUTPUT))
    assert talk.say(done()) == [CREATE]
    assert talk.say(created("resp_2"), done("resp_2")) == ["ack 1 response.created"]
    assert talk.caller.is_idle


def test_outputs_that_came_after_the_response_began_are_asked_about() -> None:
    talk = Dialogue()
    talk.say(created(), item_done(call()))
    talk.ask(create())
    assert talk.say(ToolEnded("call_1", "{}"), done()) == ["send conversation.item.create item_1", CREATE]
    assert talk.say(created("resp_2"), added(OUTPUT), done("resp_2"))[-1] == CREATE


def test_while_the_user_speaks_outputs_wait_for_the_response_of_the_turn() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.say(created(), item_done(call()), done(), started())
    assert talk.say(ToolEnded("call_1", "{}"), added(OUTPUT)) == [
        "send conversation.item.create item_1",
        "tell item.appended item_1",
    ]
    assert talk.say(stopped(), committed(), created("of_turn"), done("of_turn", "completed", said())) == []
    assert talk.caller.is_idle


def test_where_the_turn_brings_no_response_the_outputs_are_asked_about_in_time() -> None:
    talk = Dialogue(detection=SERVER_VAD, limits=CallerLimits(turn_answer_ms_max=500))
    talk.say(created(), item_done(call()), done(), started(), ToolEnded("call_1", "{}"), added(OUTPUT))
    assert talk.say(stopped(), committed()) == []
    assert talk.after(499) == []
    assert talk.after(1) == [CREATE]


@pytest.mark.parametrize("end", ["cleared", "committed", "detection off"])
def test_a_turn_that_ends_otherwise_lets_the_outputs_go(end: str) -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.say(created(), item_done(call()), done(), started(), ToolEnded("call_1", "{}"), added(OUTPUT))
    talk.ask(ev.InputAudioBufferCommit(event_id="c") if end == "committed" else ev.InputAudioBufferClear(event_id="c"))
    lines = {
        "cleared": lambda: talk.say(ev.InputAudioBufferCleared()),
        "committed": lambda: talk.say(committed()) + talk.say(created("other"), done("other", "completed")),
        "detection off": lambda: talk.say(ev.SessionUpdated(session=session())),
    }[end]()
    assert CREATE in lines


def test_after_a_noise_that_was_not_answered_the_outputs_are_asked_about() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    talk.say(created(), item_done(call()), done(), started(), ToolEnded("call_1", "{}"), added(OUTPUT))
    talk.say(stopped(), committed(), created("of_noise"))
    assert talk.say(done("of_noise", "completed")) == [CREATE]


def test_also_where_the_request_was_on_its_way_when_the_noise_came() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    assert after_a_call(talk)[1] == CREATE
    event_id = given(talk.caller.requests._in_flight.event.event_id, "")  # type: ignore[union-attr]
    talk.say(started(), stopped(), committed(), created("of_noise"))
    assert talk.say(error(BUSY, event_id)) == []
    assert talk.say(done("of_noise", "completed")) == [CREATE]


def test_a_request_on_its_way_that_lost_to_a_response_with_the_outputs_is_needless() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    after_a_call(talk)
    event_id = given(talk.caller.requests._in_flight.event.event_id, "")  # type: ignore[union-attr]
    talk.say(started(), stopped(), committed(), created("of_turn"))
    assert talk.say(error(BUSY, event_id), done("of_turn", "completed", said())) == []
    assert talk.caller.is_idle


def test_a_model_that_only_calls_tools_comes_to_an_end() -> None:
    talk = Dialogue(limits=CallerLimits(tool_rounds_max=2))
    lines = []
    for number in (1, 2, 3):
        talk.say(created(f"r{number}"), item_done(call(number), f"r{number}"), done(f"r{number}"))
        lines.append(talk.say(ToolEnded(f"call_{number}", "{}"))[-1])
    assert lines == [CREATE, CREATE, "tell error tool_rounds_exceeded"]


def test_the_response_after_tools_is_asked_for_as_the_one_that_called_them() -> None:
    talk = Dialogue()
    same: dict[str, object] = {
        "instructions": "Be brief.",
        "output_modalities": ("text",),
        "audio": cfg.ResponseAudioConfig(output=cfg.ResponseAudioOutput(voice="marin")),
        "tools": (cfg.FunctionTool(name="look"),),
        "metadata": {"about": "the weather"},
        "max_output_tokens": 100,
    }
    talk.ask(create(1, **same, tool_choice="required", input=(user_message("What is it like?"),)))
    for number, answered in ((1, "r1"), (2, "r2")):
        talk.say(created(answered), item_done(call(number), answered), done(answered))
        assert talk.say(ToolEnded(f"call_{number}", "{}"))[-1] == CREATE
        event = talk.sent()[-1]
        assert isinstance(event, ev.ResponseCreate)
        assert event.response == ev.ResponseParams(**same)  # type: ignore[arg-type]


@pytest.mark.parametrize("params", [{}, {"tool_choice": "required"}])
def test_the_response_after_tools_does_what_the_session_says_where_nothing_else_was_asked(
    params: dict[str, object],
) -> None:
    talk = Dialogue()
    talk.ask(create(1, **params))
    talk.say(created(), item_done(call()), done(), ToolEnded("call_1", "{}"))
    event = talk.sent()[-1]
    assert isinstance(event, ev.ResponseCreate)
    assert event.response is UNSET


def test_the_response_after_tools_of_a_lost_response_is_asked_for_as_that_one() -> None:
    talk = Dialogue()
    talk.ask(create(1, instructions="Be brief."))
    talk.say(created(), item_done(call()), Lost(), Restored(conversation_of(call())))
    assert talk.say(ToolEnded("call_1", "{}"))[-1] == CREATE
    event = talk.sent()[-1]
    assert isinstance(event, ev.ResponseCreate)
    assert event.response == ev.ResponseParams(instructions="Be brief.")


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_request_that_nobody_answers_fails_and_the_next_is_sent() -> None:
    talk = Dialogue(limits=CallerLimits(response_silence_ms_max=1_000))
    talk.ask(create(1), create(2), aside(3))
    assert talk.after(1_000) == ["refuse 1 response_timeout", "refuse 3 response_timeout", CREATE]


def test_a_response_that_stops_is_cancelled_and_in_the_end_forgotten() -> None:
    talk = Dialogue(limits=CallerLimits(response_silence_ms_max=1_000))
    talk.say(created())
    talk.now_ms = 900
    talk.say(delta())
    assert talk.after(900) == []
    assert talk.after(100) == ["send response.cancel resp_1", "tell error response_timeout"]
    failed = [effect.update for effect in talk.effects if isinstance(effect, Tell)]
    assert [given(one.error.param, None) for one in failed if isinstance(one, Failed)] == ["resp_1"]
    talk.ask(create())
    assert talk.after(1_000) == [CREATE]


def test_while_there_is_no_connection_a_response_may_be_silent() -> None:
    talk = Dialogue(limits=CallerLimits(response_silence_ms_max=1_000))
    talk.say(created(), Lost())
    assert talk.after(60_000) == []
    talk.say(Connected())
    assert talk.caller.deadline() == 61_000


# --- when speech fails ------------------------------------------------------------------------------------------------


def test_where_speech_fails_text_is_asked_for_once() -> None:
    talk = Dialogue()
    talk.ask(create(instructions="Be brief."))
    talk.say(created())
    assert talk.say(done("resp_1", "failed")) == [CREATE]
    event = talk.sent()[0]
    assert isinstance(event, ev.ResponseCreate)
    assert event.response == ev.ResponseParams(instructions="Be brief.", output_modalities=("text",))
    assert talk.say(created("resp_2", modality="text")) == ["tell replaced resp_1 resp_2"]
    assert talk.say(done("resp_2", "failed")) == []


@pytest.mark.parametrize("why_not", ["something came", "it was text", "out of band", "not wanted", "not failed"])
def test_nothing_is_asked_for_again_where(why_not: str) -> None:
    talk = Dialogue(text_fallback=why_not != "not wanted")
    fields: dict[str, object] = {"conversation_id": None} if why_not == "out of band" else {}
    if why_not == "it was text":
        fields["modality"] = "text"
    talk.say(created(**fields))
    if why_not == "something came":
        talk.say(*spoken())
    status = "incomplete" if why_not == "not failed" else "failed"
    assert talk.say(done("resp_1", status, **fields)) == []  # type: ignore[arg-type]


def test_a_fallback_that_is_refused_takes_the_response_with_it() -> None:
    talk = Dialogue()
    talk.say(created())
    talk.say(done("resp_1", "failed"))
    event_id = given(talk.sent()[0].event_id, "")
    talk.say(error("rate_limit_exceeded", event_id))
    [told] = [effect.update for effect in talk.effects if isinstance(effect, Tell)]
    assert isinstance(told, Failed)
    assert told.error.param == "resp_1"


# --- what a configuration means ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configured", "answers", "cuts_in"),
    [
        (None, False, False),
        (session(), False, False),
        (session(SERVER_VAD), True, True),
        (session(cfg.ServerVad(create_response=False)), False, True),
        (session(cfg.SemanticVad(interrupt_response=False)), True, False),
        (cfg.RealtimeSessionResource(id="sess_1"), False, False),
        (cfg.TranscriptionSessionResource(id="sess_1"), False, False),
    ],
)
def test_who_begins_responses(configured: cfg.SessionResource | None, answers: bool, cuts_in: bool) -> None:
    assert answers_turns(configured) == answers
    assert interrupts(configured) == cuts_in


def test_where_turns_bring_no_response_outputs_wait_for_no_turn() -> None:
    talk = Dialogue(detection=cfg.ServerVad(create_response=False))
    talk.say(created(), item_done(call()), done(), started())
    assert talk.say(ToolEnded("call_1", "{}"))[-1] == CREATE
    assert talk.say(stopped(), committed()) == []
    assert talk.caller.deadline() == 30_000  # that of the output


def test_of_two_responses_the_one_that_is_named_is_cancelled() -> None:
    talk = Dialogue()
    talk.ask(aside(1))
    talk.say(created("a", conversation_id=None, tag="ask_1"), created("b"))
    talk.ask(ev.ResponseCancel(event_id="c", response_id="a"))
    unwanted = {one.response_id for one in talk.caller.requests._running.values() if one.is_unwanted}
    assert unwanted == {"a"}
    talk.ask(ev.ResponseCancel(event_id="d"))
    assert all(one.is_unwanted for one in talk.caller.requests._running.values())


def test_a_refusal_of_the_server_s_own_answer_is_not_taken_for_ours() -> None:
    talk = Dialogue(detection=cfg.ServerVad(interrupt_response=False))
    talk.ask(create())
    talk.say(started("a"), stopped("a"), committed("a"), created("of_turn"))
    talk.say(started("b"), stopped("b"), committed("b"))
    assert talk.say(error(BUSY)) == []
    assert talk.say(error(BUSY, "ask_1")) == []
    assert talk.say(done("of_turn", "completed", said())) == []
    assert talk.after(250) == [CREATE]
    assert tag_of(talk.sent()[0]) == "ask_1"


# --- nothing is under way ---------------------------------------------------------------------------------------------


def test_between_the_end_of_a_turn_and_its_answer_it_is_not_idle() -> None:
    talk = Dialogue(detection=SERVER_VAD)
    for event in (started(), stopped(), committed(), created("of_turn")):
        talk.say(event)
        assert not talk.caller.is_idle, event
    talk.say(done("of_turn", "completed", said()))
    assert talk.caller.is_idle


def test_a_turn_of_which_only_the_item_is_told_is_waited_for_as_well() -> None:
    talk = Dialogue(detection=SERVER_VAD, limits=CallerLimits(turn_answer_ms_max=500))
    talk.say(committed("silence"))
    assert not talk.caller.is_idle
    talk.after(499)
    assert not talk.caller.is_idle
    talk.after(1)
    assert talk.caller.is_idle  # a server that does not answer is not waited for any longer
    talk.ask(create())
    assert talk.say(created("mine", tag="ask_1")) == ["ack 1 response.created"]


@pytest.mark.parametrize("detection", [None, cfg.ServerVad(create_response=False)])
def test_where_turns_bring_no_response_their_end_is_a_silence(detection: cfg.TurnDetection | None) -> None:
    talk = Dialogue(detection=detection)
    talk.say(started(), stopped(), committed())
    assert talk.caller.is_idle
