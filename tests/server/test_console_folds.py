"""What the console makes of a call's events: the conversation with what was heard, turns, usage, calls, tapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from console_node import run
from msgspec.json import encode

from vivavoce.cli import main
from vivavoce.protocol.waterfall import KEY, STEPS, Waterfall
from vivavoce.testing.tapes.reading import Tape

Event = dict[str, Any]


def conversation(*events: Event | tuple[str, Event], then: str = "said") -> Any:
    """The fold of events, the server's where nothing else is said; `then` is an expression of what is wanted of it."""
    passed = [(event if isinstance(event, tuple) else ("server", event)) for event in events]
    return run(
        f"""
        import {{ Conversation }} from "conversation.js";
        const conversation = new Conversation();
        for (const [dir, event] of {json.dumps(passed)}) conversation.apply(dir, event, 0);
        const said = conversation.entries.map(({{ who, text, status, heard }}) =>
          ({{ who, text, status, heard: heard && text.slice(0, heard.chars) }}));
        say({then});
        """
    )


def answer(text: str, *, item: str = "a", response: str = "r") -> list[Event]:
    started = {"id": item, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    delta = "response.output_audio_transcript.delta"
    return [
        {"type": "response.output_item.added", "response_id": response, "item": started},
        *(
            {"type": delta, "response_id": response, "item_id": item, "content_index": 0, "delta": word}
            for word in text.split(" ")
        ),
    ]


def spoken(text: str, *, item: str = "a", response: str = "r") -> list[Event]:
    """An answer that came in one piece."""
    events = answer("", item=item, response=response)
    events[-1]["delta"] = text
    return events


def done(ms: int, *, response: str = "r", status: str = "completed") -> Event:
    usage = {"output_token_details": {"audio_tokens": ms // 50}}
    return {"type": "response.done", "response": {"id": response, "status": status, "usage": usage}}


def truncated(ms: int, item: str = "a") -> Event:
    return {"type": "conversation.item.truncated", "item_id": item, "content_index": 0, "audio_end_ms": ms}


TEN = "one two three four five six seven eight nine ten"


def test_pieces_of_an_answer_become_its_text() -> None:
    assert conversation(*answer("Good morning")) == [
        {"who": "assistant", "text": "Goodmorning", "status": "live", "heard": None}
    ]


def test_what_was_heard_is_the_share_that_was_played_and_the_rest_stays_to_be_seen() -> None:
    (entry,) = conversation(*spoken(TEN), done(4000, status="cancelled"), truncated(2000))
    assert entry == {"who": "assistant", "text": TEN, "status": "cut", "heard": "one two three four five"}


def test_the_line_is_drawn_anew_when_the_length_of_the_speech_is_known_later() -> None:
    before = conversation(*spoken(TEN), truncated(1000))
    after = conversation(*spoken(TEN), truncated(1000), done(2000))
    assert before[0]["heard"] == "one two three"  # by how fast people speak
    assert after[0]["heard"] == "one two three four five"


def test_speech_that_was_broken_off_does_not_stand_for_words_that_had_none_yet() -> None:
    (entry,) = conversation(*spoken(TEN), done(1000, status="cancelled"), truncated(1000))
    assert entry["heard"] == "one two three"


def test_what_comes_after_the_cut_changes_nothing() -> None:
    empty = {"id": "a", "type": "message", "role": "assistant", "status": "incomplete"}
    late = {"type": "conversation.item.done", "item": {**empty, "content": [{"type": "output_audio"}]}}
    full = {"type": "response.output_audio_transcript.done", "response_id": "r", "item_id": "a", "content_index": 0}
    cut = [*spoken(TEN), done(4000, status="cancelled"), truncated(2000)]
    assert conversation(*cut, late, {**full, "transcript": "something else"}) == conversation(*cut)


@pytest.mark.parametrize(
    ("text", "ms", "heard"), [(TEN, 0, ""), (TEN, 9000, TEN), ("unbroken", 2000, ""), ("日本語です", 3000, "日本語")]
)
def test_words_are_not_cut_in_two(text: str, ms: int, heard: str) -> None:
    (entry,) = conversation(*spoken(text), done(4000), truncated(ms))
    assert entry["heard"] == heard


def test_an_answer_that_was_never_heard_is_struck_whole() -> None:
    (entry,) = conversation(*spoken("Never mind."), {"type": "conversation.item.deleted", "item_id": "a"})
    assert (entry["status"], entry["heard"]) == ("cut", "")


def test_a_turn_of_the_user_stands_before_its_answer_although_its_words_come_later() -> None:
    transcribed = {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "u",
        "content_index": 0,
        "transcript": " Who is there? ",
    }
    entries = conversation(
        {"type": "input_audio_buffer.speech_started", "item_id": "u", "audio_start_ms": 0},
        {"type": "input_audio_buffer.committed", "item_id": "u", "previous_item_id": None},
        *spoken("Nobody."),
        transcribed,
    )
    assert [(entry["who"], entry["text"]) for entry in entries] == [("user", "Who is there?"), ("assistant", "Nobody.")]


def test_items_stand_where_the_server_says() -> None:
    def added(item: str, previous: str | None) -> Event:
        content = [{"type": "input_text", "text": item}]
        said = {"id": item, "type": "message", "role": "user", "status": "completed", "content": content}
        return {"type": "conversation.item.added", "item": said, "previous_item_id": previous}

    entries = conversation(added("first", None), added("third", "first"), added("second", "first"))
    assert [entry["text"] for entry in entries] == ["first", "second", "third"]


def test_a_new_session_is_told_what_was_heard_and_calls_with_their_answers() -> None:
    asked = {"id": "u", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "Go on."}]}
    call = {
        "id": "f",
        "type": "function_call",
        "call_id": "c",
        "name": "look",
        "arguments": "{}",
        "status": "completed",
    }
    output = {"type": "function_call_output", "call_id": "c", "output": "nothing"}
    history = conversation(
        ("client", {"type": "conversation.item.create", "item": asked}),
        *spoken(TEN),
        done(4000, status="cancelled"),
        truncated(2000),
        {"type": "conversation.item.added", "item": call, "previous_item_id": "a"},
        ("client", {"type": "conversation.item.create", "item": output}),
        *spoken("never heard", item="b"),
        truncated(0, "b"),
        then="conversation.history()",
    )
    heard = {"type": "output_text", "text": "one two three four five"}
    assert history == [
        asked,
        {"type": "message", "id": "a", "role": "assistant", "content": [heard]},
        {"type": "function_call", "id": "f", "call_id": "c", "name": "look", "arguments": "{}"},
        output,
    ]


def test_items_that_are_created_again_do_not_change_what_is_shown() -> None:
    told = [*spoken(TEN), done(4000, status="cancelled"), truncated(2000)]
    again = run(
        f"""
        import {{ Conversation }} from "conversation.js";
        const conversation = new Conversation();
        for (const event of {json.dumps(told)}) conversation.apply("server", event, 0);
        for (const item of conversation.history()) {{
          conversation.apply("client", {{ type: "conversation.item.create", item }}, 0);
          conversation.apply("server", {{ type: "conversation.item.added", item }}, 0);
        }}
        say(conversation.entries.map(({{ text, status, heard }}) => [text, status, heard.ms]));
        """
    )
    assert again == [[TEN, "cut", 2000]]


# --- functions --------------------------------------------------------------------------------------------------------


def calling(*steps: str) -> list[str]:
    """The types of what is sent while two functions are called in one response."""
    return run(
        f"""
        import {{ Calls }} from "calls.js";
        const sent = [];
        const send = (event) => (sent.push(event.type), calls.apply("client", event), true);
        const calls = new Calls({{ send }});
        const hear = (type, fields = {{}}) => calls.apply("server", {{ type, ...fields }});
        const call = (call_id) =>
          hear("response.output_item.done", {{ item: {{ type: "function_call", status: "completed", call_id }} }});
        const answer = (callId) => calls.answer({{ callId, name: "look" }}, "{{}}");
        hear("response.created"); call("one"); call("two");
        {"; ".join(steps)}
        say(sent);
        """
    )


OUTPUT, CREATE = "conversation.item.create", "response.create"


def test_several_calls_bring_one_response() -> None:
    sent = calling('hear("response.done")', 'answer("one")', 'answer("two")')
    assert sent == [OUTPUT, OUTPUT, CREATE]


def test_no_response_is_asked_for_while_one_runs_or_the_user_speaks() -> None:
    assert calling('answer("one")', 'answer("two")') == [OUTPUT, OUTPUT]
    assert calling('answer("one")', 'answer("two")', 'hear("response.done")') == [OUTPUT, OUTPUT, CREATE]
    speaking = ('hear("response.done")', 'hear("input_audio_buffer.speech_started")')
    assert calling(*speaking, 'answer("one")', 'answer("two")') == [OUTPUT, OUTPUT]


def test_a_response_that_has_seen_the_outputs_is_not_asked_for_again() -> None:
    turn = ('hear("input_audio_buffer.speech_started")', 'answer("one")', 'answer("two")')
    answered = ('hear("input_audio_buffer.committed")', 'hear("response.created")', 'hear("response.done")')
    assert calling('hear("response.done")', *turn, *answered) == [OUTPUT, OUTPUT]


# --- turns, usage, tapes ----------------------------------------------------------------------------------------------


def test_a_turn_is_timed_from_the_moment_when_the_user_fell_silent() -> None:
    turns = run(
        """
        import { Timing } from "timing.js";
        const timing = new Timing();
        const hear = (type, now, fields = {}) => timing.apply("server", { type, ...fields }, now, 1000);
        hear("input_audio_buffer.speech_stopped", 1500);
        hear("input_audio_buffer.committed", 1510);
        hear("response.created", 1520, { response: { id: "r" } });
        hear("conversation.item.input_audio_transcription.completed", 1700);
        hear("response.output_audio_transcript.delta", 1800, { response_id: "r" });
        hear("output_audio_buffer.started", 1900, { response_id: "r" });
        timing.heard(1980);
        hear("response.done", 2500, { response: { id: "r", status: "completed" } });
        say(timing.turns.map(({ kind, stages, status }) => ({ kind, stages, status })));
        """
    )
    stages = {"stopped": 500, "committed": 510, "created": 520, "transcript": 700, "text": 800, "audio": 900}
    assert turns == [{"kind": "spoken", "stages": {**stages, "heard": 980, "done": 1500}, "status": "completed"}]


def test_a_turn_that_ends_in_a_call_is_timed_to_the_call() -> None:
    stages = run(
        """
        import { Timing } from "timing.js";
        const timing = new Timing();
        timing.apply("client", { type: "response.create" }, 100, null);
        timing.apply("server", { type: "response.created", response: { id: "r" } }, 110, null);
        timing.apply("server", { type: "response.function_call_arguments.done", response_id: "r" }, 340, null);
        say(timing.turns.map(({ kind, stages }) => [kind, stages]));
        """
    )
    assert stages == [["asked", {"created": 10, "call": 240}]]


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (
            encode(Waterfall(counted_from="request", at_ms=7, first_token_ms=40, first_phrase_ms=30, done_ms=90)),
            [["First phrase", 30], ["First token", 40]],
        ),
        (b"no JSON", []),
        (b"5", []),
        (b"null", []),
    ],
)
def test_what_the_server_tells_of_a_turn_is_kept_with_it(told: bytes, shown: list[list[object]]) -> None:
    response = {"id": "r", "status": "completed", "metadata": {KEY: told.decode()}}
    server = run(
        f"""
        import {{ Timing }} from "timing.js";
        const timing = new Timing();
        timing.apply("server", {{ type: "response.created", response: {{ id: "r" }} }}, 110, null);
        timing.apply("server", {{ type: "response.done", response: {json.dumps(response)} }}, 340, null);
        say(timing.turns[0].server);
        """
    )
    assert server == shown


def test_the_console_knows_the_steps_by_their_names() -> None:
    known = run('import { SERVER_STEPS } from "timing.js"; say(SERVER_STEPS.map(([step]) => step));')
    assert set(known) <= set(STEPS)


def test_usage_is_counted_once_and_priced_as_the_server_says() -> None:
    usage = {
        "input_tokens": 1000,
        "output_tokens": 300,
        "input_token_details": {
            "text_tokens": 600,
            "audio_tokens": 400,
            "cached_tokens": 250,
            "cached_tokens_details": {"text_tokens": 150, "audio_tokens": 100},
        },
        "output_token_details": {"text_tokens": 100, "audio_tokens": 200},
    }
    response = {"type": "response.done", "response": {"id": "r", "usage": usage}}
    prices = dict.fromkeys(("text_in", "text_cached", "text_out", "audio_cached", "image_in"), 1.0)
    prices |= {"audio_in": 10.0, "audio_out": 20.0, "transcription_minute": 0.0}
    counted = run(
        f"""
        import {{ UsageCount }} from "usage.js";
        const usage = new UsageCount();
        usage.prices = {{ m: {json.dumps(prices)} }};
        usage.apply({{ type: "session.created", session: {{ model: "m" }} }});
        const event = {json.dumps(response)};
        say([usage.apply(event), usage.apply(event), usage.total, usage.unpriced]);
        """
    )
    first, again, total, unpriced = counted
    assert (first, again, unpriced) == (True, False, [])
    assert (total["textIn"], total["audioIn"], total["cached"]) == (450, 300, 250)
    assert (total["textOut"], total["audioOut"]) == (100, 200)
    assert total["cost"] == pytest.approx((450 + 300 * 10 + 250 + 100 + 200 * 20) / 1_000_000)


def tape(path: Path, script: str) -> Tape:
    lines = run(
        f"""
        import {{ Tape }} from "tape.js";
        const tape = new Tape();
        tape.begin({{ url: "http://127.0.0.1:8080/v1/realtime/calls", model: "m", version: "0.1.0" }}, 100);
        tape.note("connected", {{}}, 100);
        {script}
        say(await tape.blob().text());
        """
    )
    path.write_text(lines)
    return Tape.load(path)


def test_a_tape_of_the_page_is_read_as_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "call.tape.jsonl"
    read = tape(
        path,
        """
        const session = { type: "realtime", model: "m" };
        tape.message("server", { type: "session.created", event_id: "e", session }, 101);
        tape.message("client", { type: "input_audio_buffer.append", audio: "AAAA" }, 300);
        tape.message("client", { type: "response.create" }, 350.5);
        tape.note("closed", { by: "client", code: 1000, reason: "" }, 400);
        """,
    )
    assert (read.header.end, read.header.model, read.warning) == ("client", "m", None)
    assert [(message.t_ms, message.dir, message.type) for message in read.messages] == [
        (1.0, "server", "session.created"),
        (200.0, "client", "input_audio_buffer.append"),
        (250.5, "client", "response.create"),
    ]
    assert [note.kind for note in read.notes] == ["connected", "closed"]
    assert main(["tape", "show", str(path)]) == 0
    assert "response.create" in capsys.readouterr().out


def test_a_tape_of_the_page_holds_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "call.tape.jsonl"
    mcp = {
        "type": "mcp",
        "server_label": "l",
        "authorization": "tok-of-mine",
        "headers": {"X-Own": "hidden-value"},
        "server_url": "https://me:secret-word@tools.example/",
    }
    function = {
        "type": "function",
        "name": "sign_in",
        "parameters": {"type": "object", "properties": {"password": {"type": "string"}}},
    }
    said = "My key is sk-abcdefghijklmnop, and ek_abcdefghijkl is another."
    events = [{"type": "session.update", "session": {"tools": [mcp, function], "instructions": said}}]
    read = tape(path, "".join(f"tape.message('client', {json.dumps(event)}, 200);" for event in events))
    text = path.read_text()
    for secret in ("tok-of-mine", "hidden-value", "secret-word", "abcdefgh"):
        assert secret not in text
    assert read.messages[0].event["session"]["tools"][1] == function
