"""Row E2: `vivavoce events`, a session for scripts: lines in, lines out, exit codes."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vivavoce.audio import wav
from vivavoce.cli import main
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.sounds import silence, tone

Run = Callable[..., tuple[int, list[dict[str, Any]], str]]


@pytest.fixture
def run(realtime_server: RealServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command with these lines as its input: exit code, events, what was said on standard error."""

    def run(*lines: str, options: tuple[str, ...] = ()) -> tuple[int, list[dict[str, Any]], str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        code = main(["events", "--url", realtime_server.url, "--api-key", realtime_server.api_key, *options])
        shown = capsys.readouterr()
        return code, [json.loads(line) for line in shown.out.splitlines()], shown.err

    return run


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def test_e2_connect_once_then_configure_add_request_and_listen(realtime_server: RealServer, run: Run) -> None:
    realtime_server.answers("It is a star.")
    code, events, said = run(
        "# a comment, and an empty line",
        "",
        'configure instructions="Be brief." modality=text',
        "add What is it?",
        "request",
    )
    assert (code, said) == (0, "")
    assert types(events)[:2] == ["session.created", "session.updated"]
    assert events[1]["session"]["instructions"] == "Be brief."
    assert events[-1]["type"] in ("response.done", "rate_limits.updated")
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert text == "It is a star."
    assert len(realtime_server.connections) == 1


def test_e2_what_is_shown_is_what_came_over_the_wire(realtime_server: RealServer, run: Run) -> None:
    _, events, _ = run("add hello", "request")
    sent = realtime_server.sent()
    assert events == sent[: len(events)]


def test_e2_a_client_event_is_sent_as_it_stands(realtime_server: RealServer, run: Run) -> None:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    lines = (
        json.dumps({"type": "conversation.item.create", "event_id": "mine", "item": item}),
        json.dumps({"type": "response.create"}),
    )
    code, events, _ = run(*lines)
    assert code == 0
    assert realtime_server.received("conversation.item.create") == [json.loads(lines[0])]
    assert "response.done" in types(events)


def test_e2_items_of_every_role_are_added_and_removed(realtime_server: RealServer, run: Run) -> None:
    own = '{"type": "message", "id": "item_1", "role": "user", "content": [{"type": "input_text", "text": "c"}]}'
    code, _, _ = run("add system a", "add assistant b", f"add {own}", "wait conversation.item.done", "remove item_1")
    assert code == 0
    roles = [event["item"]["role"] for event in realtime_server.received("conversation.item.create")]
    assert roles == ["system", "assistant", "user"]
    assert realtime_server.sent("conversation.item.deleted")[0]["item_id"] == "item_1"


def test_e2_sound_is_sent_and_committed(realtime_server: RealServer, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "speech.wav"
    wav.write(file, tone(500), 24_000)
    code, events, _ = run("configure turn_detection=none", f"audio {file}", "commit", "request", "clear")
    assert code == 0
    assert "input_audio_buffer.committed" in types(events)
    assert types(events).index("response.created") > types(events).index("input_audio_buffer.committed")
    wav.write(file, tone(500) + silence(1_000), 24_000)
    code, events, _ = run(f"audio {file}", options=("--until", "response.done", "--timeout", "10"))
    assert code == 0, "the server has found the turn, and answered it"
    assert types(events)[-1] == "response.done"


def test_e2_a_response_is_stopped(realtime_server: RealServer, run: Run) -> None:
    realtime_server.answers(" ".join(["word"] * 2_000))
    realtime_server.behave(pace=1)
    code, events, _ = run("configure modality=text", "add go on", "request", "wait response.output_text.delta", "stop")
    assert code == 0
    (done,) = [event for event in events if event["type"] == "response.done"]
    assert done["response"]["status"] == "cancelled"


def test_e2_a_line_waits_for_an_event_even_one_that_has_come(realtime_server: RealServer, run: Run) -> None:
    code, events, _ = run(
        "add one", "request", "wait response.created", "wait response.done", "add two", "request", "wait response.done"
    )
    assert code == 0
    assert types(events).count("response.done") == 2
    order = [event["type"] for event in realtime_server.received()]
    assert order == ["conversation.item.create", "response.create"] * 2


def test_e2_only_some_events_are_shown_and_one_ends_it(run: Run) -> None:
    code, events, _ = run(
        "add hello",
        "request",
        options=("--only", "response.created", "--only", "*.done", "--until", "response.created"),
    )
    assert code == 0
    assert set(types(events)) <= {"response.created", "conversation.item.done"}
    assert "response.created" in types(events)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hello", "there is no verb 'hello'; there are configure, "),
        ("configure", "expected NAME=VALUE"),
        ("configure fast", "expected NAME=VALUE, not 'fast'"),
        ("configure colour=red", "there is no 'colour' to set so; there are instructions, "),
        ("configure speed=fast", "could not convert"),
        ('configure voice="', "No closing quotation"),
        ("add", "expected a text"),
        ("add assistant", "expected a text"),
        ('add {"type": 1}', "item"),
        ("audio nowhere.wav", "No such file"),
        ("audio", "expected the path"),
        ("remove", "expected the id"),
        ("wait", "expected the type"),
        ("{no json", "no JSON"),
        ("request [1]", "expected a JSON object"),
    ],
)
def test_e2_a_line_that_cannot_be_understood_is_told_and_the_others_are_obeyed(run: Run, line: str, said: str) -> None:
    code, events, told = run(line, "clear")
    assert code == 2
    assert said in told
    assert "input_audio_buffer.cleared" in types(events)


def test_e2_an_error_of_the_server_is_an_exit_code(run: Run) -> None:
    code, events, _ = run("remove nothing")
    assert (code, types(events)[-1]) == (3, "error")
    code, events, _ = run('raw {"type": "no.such.event"}', options=("--until", "error"))
    assert (code, types(events)[-1]) == (3, "error")


def test_e2_what_does_not_come_is_an_exit_code(run: Run) -> None:
    code, _, told = run("add hello", options=("--until", "response.done", "--timeout", "0.2"))
    assert (code, told) == (4, "vivavoce: no response.done came within 0.2 s\n")
    assert run("wait response.done", options=("--timeout", "0.2"))[0] == 4


def test_e2_a_lost_connection_is_an_exit_code(
    realtime_server: RealServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    realtime_server.cut(after="response.created")
    code, events, _ = run("add hello", "request")
    assert (code, types(events)[-1]) == (1, "response.created")
    assert main(["events", "--url", "http://127.0.0.1:1/v1"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_e2_without_a_url_the_embedded_engines_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("configure modality=text\nadd hello\nrequest\n"))
    assert main(["events", "--model", "scripted", "--only", "response.output_text.done"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "echo: hello"
