"""The checks go by what really happened, and a failure tells what there was instead."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from plain_client import connected

from vivavoce import connect
from vivavoce.core.account import Price
from vivavoce.core.conversation import Conversation
from vivavoce.protocol.codec import ClientCodec
from vivavoce.testing.checks import (
    assert_answered_within,
    assert_called,
    assert_cost_below,
    assert_heard,
    assert_no_errors,
    assert_not_heard,
    assert_said,
    cost,
    heard,
    said,
    turns,
    words,
)
from vivavoce.testing.evidence import Turn, evidence
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.sounds import silence, tone

Event = dict[str, Any]
PRICE = Price(text_in=1_000_000, text_out=2_000_000, audio_out=3_000_000, transcription_minute=60)


def message(item_id: str, role: str, kind: str, text: str = "", previous: str | None = None) -> Event:
    part = {"type": kind, ("text" if "text" in kind else "transcript"): text}
    item = {"id": item_id, "type": "message", "role": role, "content": [part] if text else []}
    return {"type": "conversation.item.added", "event_id": "e", "previous_item_id": previous, "item": item}


def speech(item_id: str, text: str, ms: int = 1_000) -> list[Event]:
    """A spoken answer, streamed."""
    ids = {"event_id": "e", "response_id": "resp_1", "item_id": item_id, "output_index": 0, "content_index": 0}
    audio = base64.b64encode(silence(ms)).decode()
    return [
        message(item_id, "assistant", "output_audio"),
        {"type": "response.content_part.added", **ids, "part": {"type": "audio", "transcript": ""}},
        {"type": "response.output_audio_transcript.delta", **ids, "delta": text},
        {"type": "response.output_audio.delta", **ids, "delta": audio},
    ]


def truncated(item_id: str, ms: int) -> Event:
    return {
        "type": "conversation.item.truncated",
        "event_id": "e",
        "item_id": item_id,
        "content_index": 0,
        "audio_end_ms": ms,
    }


def typed(events: list[Event]) -> list[Any]:
    return [ClientCodec("ga").decode(json.dumps(event)) for event in events]


def taped(events: list[Event]) -> list[Event]:
    return [{"t_ms": index, "dir": "server", "event": event} for index, event in enumerate(events)]


FORMS: dict[str, Callable[[list[Event]], list[Any]]] = {"json": list, "typed": typed, "tape": taped}


# --- heard and said ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_what_was_truncated_was_not_heard(form: str) -> None:
    events = [*speech("item_1", "one two three four five six seven eight"), truncated("item_1", 450)]
    source = FORMS[form](events)
    assert heard(source) == ["one two three"]  # it ended within a word, which does not count
    assert_heard(source, "Two, three!")
    assert_not_heard(source, "four")
    assert_said(source, "seven eight", by="assistant")
    with pytest.raises(AssertionError, match=r"'three four' was not heard; heard was \(the closest differs by 1 of 2"):
        assert_heard(source, "three four")
    with pytest.raises(AssertionError, match=r"'one' was heard, and should not have been:\n  - one two three"):
        assert_not_heard(source, "one")


def test_what_was_not_truncated_was_heard_in_its_order() -> None:
    events = [message("a", "user", "input_text", "Hello."), *speech("b", "Good morning."), truncated("b", 0)]
    events += speech("c", "How are you?")
    for event in events:
        event.pop("previous_item_id", None)
    assert heard(events) == ["", "How are you?"]
    assert said(events) == ["Hello."]
    assert said(events, "assistant") == ["Good morning.", "How are you?"]


def test_a_truncation_that_comes_twice_or_for_nothing_changes_nothing() -> None:
    events = [*speech("b", "Good morning."), truncated("b", 1_000), truncated("b", 0), truncated("nobody", 0)]
    assert heard(events) == ["Good morning."]


def test_a_conversation_does_not_know_the_words_of_what_was_truncated() -> None:
    class Session:
        conversation = Conversation()

    for event in typed([*speech("b", "Good morning.")]):
        Session.conversation.apply(event)
    assert_heard(Session(), "good morning")
    Session.conversation.apply(typed([truncated("b", 500)])[0])
    with pytest.raises(ValueError, match="does not keep the words"):
        assert_heard(Session.conversation, "good")


@pytest.mark.parametrize(
    ("text", "fuzzy", "is_there"),
    [
        ("the QUICK brown fox", 0.0, True),
        ("the quick fox", 0.0, False),
        ("the quick fox", 0.4, True),
        ("the slow brown fox", 0.25, True),
        ("the slow brown fox", 0.2, False),
        ("a very quick fox", 0.2, False),
        ("cat", 0.9, False),
    ],
)
def test_words_are_compared_more_or_less_strictly(text: str, fuzzy: float, is_there: bool) -> None:
    source = speech("a", "So: the quick, brown fox jumps.")
    if is_there:
        assert assert_heard(source, text, fuzzy=fuzzy) == "So: the quick, brown fox jumps."
    else:
        with pytest.raises(AssertionError, match="was not heard"):
            assert_heard(source, text, fuzzy=fuzzy)


def test_words_have_neither_case_nor_punctuation() -> None:
    assert words("It’s 5 o'clock — «Straße»_x!") == ["it's", "5", "o'clock", "strasse", "x"]


@pytest.mark.parametrize(("text", "fuzzy", "complaint"), [("…", 0.0, "no words"), ("word", 1.0, "fuzzy: expected")])
def test_what_cannot_be_looked_for_is_refused(text: str, fuzzy: float, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        assert_said([], text, fuzzy=fuzzy)


# --- calls ------------------------------------------------------------------------------------------------------------


def call(name: str, arguments: str) -> Event:
    item = {"id": f"item_{name}", "type": "function_call", "call_id": "c", "name": name, "arguments": arguments}
    return {"type": "conversation.item.added", "event_id": "e", "item": item}


def test_calls_are_found_by_name_and_arguments() -> None:
    source = [call("weather", '{"city":"Oslo"}'), call("broken", "{")]
    assert assert_called(source, "weather", {"city": "Oslo"}, times=1).arguments == '{"city":"Oslo"}'
    assert_called(source, "broken")
    for arguments, times in (({"city": "Bergen"}, None), ({}, None), (None, 2)):
        with pytest.raises(AssertionError, match=r'called was:\n  - weather\({"city":"Oslo"}\)\n  - broken'):
            assert_called(source, "weather", arguments, times=times)
    with pytest.raises(AssertionError, match="nothing"):
        assert_called([], "weather")
    with pytest.raises(AssertionError, match="expected a call of broken"):
        assert_called(source, "broken", {})


# --- time -------------------------------------------------------------------------------------------------------------


def at(t_ms: float, type: str, dir: str = "server", **fields: Any) -> Event:
    return {"t_ms": t_ms, "dir": dir, "event": {"type": type, **fields}}


def created(t_ms: float, id: str) -> Event:
    return at(t_ms, "response.created", response={"id": id})


STOPPED, COMMITTED = "input_audio_buffer.speech_stopped", "input_audio_buffer.committed"
AUDIO = "response.output_audio.delta"


def test_an_answer_counts_from_the_end_of_the_turn_to_the_first_audio() -> None:
    tape = [
        at(1_000, STOPPED),
        at(1_001, COMMITTED),
        created(1_010, "a"),
        at(1_400, AUDIO, response_id="a"),
        at(1_500, AUDIO, response_id="a"),
        at(2_000, "response.create", "client"),
        created(2_010, "b"),
        at(2_100, "response.output_text.delta", response_id="b"),
    ]
    assert assert_answered_within(tape, 400) == [400, 100]
    with pytest.raises(
        AssertionError, match=r"within 399 ms of each turn:\n  - turn 1: 400 ms  <- late\n  - turn 2: 100 ms"
    ):
        assert_answered_within(tape, 399)


def test_a_turn_that_the_user_takes_up_again_goes_on() -> None:
    tape = [at(1_000, STOPPED), at(1_200, "input_audio_buffer.speech_started"), at(3_000, STOPPED)]
    assert turns(tape) == [Turn(3_000, None)]
    with pytest.raises(AssertionError, match="no answer  <- late"):
        assert_answered_within(tape, 1_000)


def test_the_rest_of_an_answer_is_no_answer_to_what_was_said_meanwhile() -> None:
    tape = [created(0, "a"), at(1_000, STOPPED), at(1_001, AUDIO, response_id="a"), created(1_100, "b")]
    assert turns([*tape, at(1_300, AUDIO, response_id="b")]) == [Turn(1_000, 1_300)]


def test_without_times_or_turns_there_is_nothing_to_measure() -> None:
    with pytest.raises(TypeError, match="have no times"):
        assert_answered_within([{"type": STOPPED}], 1)
    with pytest.raises(AssertionError, match="no turn of the user"):
        assert_answered_within([at(0, "session.created")], 1)


# --- cost and errors --------------------------------------------------------------------------------------------------


def done(status: str = "completed", **fields: Any) -> Event:
    response = {"id": "resp_1", "object": "realtime.response", "status": status, "output": [], **fields}
    return {"type": "response.done", "event_id": "e", "response": response}


USAGE = {
    "total_tokens": 7,
    "input_tokens": 3,
    "output_tokens": 4,
    "input_token_details": {"text_tokens": 3},
    "output_token_details": {"text_tokens": 1, "audio_tokens": 3},
}
TRANSCRIBED = {
    "type": "conversation.item.input_audio_transcription.completed",
    "event_id": "e",
    "item_id": "item_1",
    "content_index": 0,
    "transcript": "Hello.",
    "usage": {"type": "duration", "seconds": 2.0},
}


@pytest.mark.parametrize("form", FORMS)
def test_cost_is_that_of_responses_and_transcription(form: str) -> None:
    source = FORMS[form]([done(usage=USAGE), TRANSCRIBED])
    assert cost(source, PRICE) == pytest.approx(3 + 2 + 9 + 2)
    assert_cost_below(source, 16.1, PRICE)
    with pytest.raises(AssertionError, match=r"below 16, and it was 16:\n  - resp_1: 3 tokens in, 4 out"):
        assert_cost_below(source, 16, PRICE)


def test_a_cost_that_is_not_known_is_no_cost_of_nothing() -> None:
    with pytest.raises(ValueError, match="resp_1 is done and has no usage"):
        assert_cost_below([done()], 1, PRICE)


def test_a_conversation_knows_its_cost_and_failures() -> None:
    conversation = Conversation()
    for event in typed([done(usage=USAGE)]):
        conversation.apply(event)
    assert cost(conversation, PRICE) == 14
    assert_no_errors(conversation)


FAILURES: list[tuple[Event, str]] = [
    (
        {"type": "error", "event_id": "e", "error": {"type": "server_error", "code": "x", "message": "No."}},
        "error x: No.",
    ),
    (done("failed", status_details={"type": "failed", "error": {"type": "server_error", "code": "y"}}), '"code":"y"'),
    (done("failed"), "no reason was given"),
    (
        {
            "type": "conversation.item.input_audio_transcription.failed",
            "event_id": "e",
            "item_id": "item_9",
            "content_index": 0,
            "error": {"message": "Deaf."},
        },
        "no transcript of item_9: Deaf.",
    ),
]


@pytest.mark.parametrize(("event", "said"), FAILURES, ids=[told for _, told in FAILURES])
def test_every_failure_is_an_error(event: Event, said: str) -> None:
    with pytest.raises(AssertionError) as failed:
        assert_no_errors([event])
    assert said in str(failed.value)
    assert_no_errors([done(usage=USAGE)])


# --- sources ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["text", 7, {"type": "error"}, [7]])
def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(TypeError, match="expected"):
        evidence(source)


def test_what_has_messages_is_a_source_and_a_tape_has_more_than_those() -> None:
    lines = [{"tape": 1, "end": "client"}, *taped(speech("a", "Good morning.")), {"t_ms": 9, "note": "lost"}]
    assert heard(lines) == heard(SimpleNamespace(messages=taped(speech("a", "Good morning.")))) == ["Good morning."]
    assert turns(lines) == []


def test_long_lists_are_cut() -> None:
    with pytest.raises(AssertionError, match="… and 10 more"):
        assert_no_errors([done("failed")] * 30)


def interrupted(server: RealServer, **headers: str) -> None:
    """A spoken question, and an answer of which the user hears a fifth."""
    server.hears("Tell me something!")
    server.answers("one two three four five six seven eight nine ten")
    name = "response.audio.delta" if headers else "response.output_audio.delta"
    with connected(server, headers=headers) as client:
        client.receive()
        client.send("input_audio_buffer.append", audio=base64.b64encode(tone(400) + silence(800)).decode())
        item_id = client.until(name)[-1]["item_id"]
        client.until("response.done")
        client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=600)
        client.until("conversation.item.truncated")


@pytest.mark.parametrize("headers", [{}, {"OpenAI-Beta": "realtime=v1"}], ids=["ga", "beta"])
def test_a_server_is_a_source(realtime_server: RealServer, headers: dict[str, str]) -> None:
    interrupted(realtime_server, **headers)
    assert heard(realtime_server) == ["one two"]
    assert_not_heard(realtime_server, "three")
    assert_said(realtime_server, "six seven", by="assistant")
    assert_no_errors(realtime_server)
    assert len(assert_answered_within(realtime_server, 10_000)) == 1
    assert_cost_below(realtime_server, 1_000, Price(audio_out=1))


def test_a_session_that_was_resumed_is_one_and_what_was_sent_again_counts_once(realtime_server: RealServer) -> None:
    async def converse() -> str:
        async with connect("m", url=realtime_server.url, api_key=realtime_server.api_key) as session:
            return await session.ask("How is it?")

    realtime_server.answers("It is sunny in Oslo.")
    realtime_server.cut(after="response.output_audio_transcript.delta", count=3)
    assert asyncio.run(converse()) == "It is sunny in Oslo."
    assert len(realtime_server.connections) == 2
    assert heard(realtime_server) == ["It is sunny in Oslo."]
    assert said(realtime_server) == ["How is it?"]
    assert_answered_within(realtime_server, 60_000)
    assert len(evidence(realtime_server).usages) == 1


def test_sessions_that_follow_one_another_are_not_one(realtime_server: RealServer) -> None:
    async def converse(text: str) -> str:
        async with connect("m", url=realtime_server.url, api_key=realtime_server.api_key) as session:
            return await session.ask(text)

    realtime_server.answers("One.", "Two.")
    assert [asyncio.run(converse(text)) for text in ("First", "Second")] == ["One.", "Two."]
    assert heard(realtime_server) == ["One.", "Two."]
    assert said(realtime_server) == ["First", "Second"]
