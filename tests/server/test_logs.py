"""What a server logs: its form, which session a line is about, and what is in no line."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from serve_process import ServeProcess, serve_process
from test_serve import RESPOND, closing, message, receive, scripted, socket_to, until, within_time
from websockets.asyncio.client import connect

from vivavoce.server import running
from vivavoce.server.logs import CHARS_MAX, FIELDS, SESSION, JsonLines, TextLines

KEYS = {
    name: f"sk-{name}-{'x' * 24}-0123456789"
    for name in ("right", "operator", "header", "azure", "query", "subprotocol", "body")
}
SAMPLES = bytes(range(256)) * 64
AUDIO = base64.b64encode(SAMPLES).decode()
PATIENCE_S = 120.0
WORDS = "the number of my card is four"


def line_of(said: str, *arguments: Any, extra: dict[str, Any] | None = None, error: bool = False) -> logging.LogRecord:
    try:
        raise ValueError("it broke")
    except ValueError:
        info = sys.exc_info() if error else None
    record = logging.LogRecord("vivavoce.some", logging.WARNING, __file__, 1, said, arguments, info)
    record.__dict__.update(extra or {})
    return record


def as_json(record: logging.LogRecord) -> dict[str, Any]:
    line = JsonLines().format(record)
    assert "\n" not in line
    parsed: dict[str, Any] = json.loads(line)
    return parsed


# --- the form ---------------------------------------------------------------------------------------------------------


def test_a_line_of_json_says_who_what_and_when() -> None:
    record = line_of("%d is too many", 7, extra={FIELDS: {"count": 7, "level": "no"}})
    record.created = 1_700_000_000.25
    assert as_json(record) == {
        "time": "2023-11-14T22:13:20.250+00:00",
        "level": "warning",
        "logger": "vivavoce.some",
        "message": "7 is too many",
        "count": 7,
    }


def test_a_line_is_about_the_session_in_whose_task_it_was_written_or_that_it_begins_with() -> None:
    token = SESSION.set("sess_a")
    try:
        assert as_json(line_of("late"))["session_id"] == "sess_a"
        other = as_json(line_of("sess_b: is closed"))
        assert (other["session_id"], other["message"]) == ("sess_b", "is closed")
        assert TextLines().format(line_of("late")).endswith(" WARNING vivavoce.some: sess_a: late")
        assert TextLines().format(line_of("sess_b: is closed")).endswith(" vivavoce.some: sess_b: is closed")
    finally:
        SESSION.reset(token)
    assert "session_id" not in as_json(line_of("nobody's"))


def test_a_failure_keeps_its_traceback() -> None:
    assert "ValueError: it broke" in as_json(line_of("failed", error=True))["exception"]
    assert TextLines().format(line_of("failed", error=True)).endswith("ValueError: it broke")


def test_a_client_writes_no_lines_of_its_own_and_no_endless_ones() -> None:
    line = TextLines().format(line_of("closed: %s", "bye\n2026-01-01 ERROR vivavoce: \x1b[31mlies"))
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(TextLines().format(line_of("x" * 10**6))) < CHARS_MAX + 100


def test_what_a_peer_said_in_a_traceback_is_no_line_either() -> None:
    try:
        raise ValueError("bye\n2026-01-01 ERROR vivavoce: \x1b[31mlies")
    except ValueError:
        record = logging.LogRecord("vivavoce.some", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    _, *traceback = TextLines().format(record).split("\n")
    assert all(line.startswith("    ") for line in traceback)
    assert "\x1b" not in "".join(traceback)


def test_engines_and_tasks_of_a_session_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever logs in a task of the session: here its reading, its engines and a refusal that is nobody's."""
    seen: list[tuple[str, str]] = []
    noted = logging.Handler()
    noted.emit = lambda record: seen.append((SESSION.get(), record.getMessage()))  # type: ignore[method-assign]

    async def main() -> None:
        async with running(scripted(sessions_max=1)) as server, socket_to(server) as socket:
            session_id = (await receive(socket))["session"]["id"]
            logging.getLogger("vivavoce.server.work").info("not of a session")
            async with socket_to(server) as refused:
                await closing(refused)
            await socket.close()
        about = dict.fromkeys(SESSION for SESSION, _ in seen)
        assert list(about) == [session_id, ""] or list(about) == ["", session_id], about
        assert [said for session, said in seen if session and "begins" in said]

    caplog.set_level(logging.INFO)
    logging.getLogger("vivavoce").addHandler(noted)
    try:
        within_time(main())
    finally:
        logging.getLogger("vivavoce").removeHandler(noted)


# --- what is in no line -----------------------------------------------------------------------------------------------


async def everything(server: ServeProcess) -> str:
    """Keys in every place where a client can put one, audio and words; the id of the session in which that was said."""
    plain = f"{server.url}?model=m"
    options: dict[str, Any] = {"proxy": None, "compression": None}
    right = {"additional_headers": {"Authorization": f"Bearer {KEYS['right']}"}, **options}
    async with connect(plain, **right) as socket:
        session_id = (await until(socket, "session.created"))["session"]["id"]
        await socket.send(message(WORDS))
        await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": AUDIO}))
        await socket.send('{"type": "input_audio_buffer.commit"}')
        await until(socket, "input_audio_buffer.committed")
        await socket.send(RESPOND)
        await until(socket, "response.done")
        await socket.send('{"type": "response.create"}')
        await until(socket, "response.done")
        await socket.send(json.dumps({"type": "response.make", "key": KEYS["body"], "audio": AUDIO}))
        await until(socket, "error")
    wrong: tuple[tuple[str, dict[str, Any]], ...] = (
        (plain, {"additional_headers": {"Authorization": f"Bearer {KEYS['header']}"}}),
        (plain, {"additional_headers": {"api-key": KEYS["azure"]}}),
        (f"{plain}&api-key={KEYS['query']}", {}),
        (plain, {"subprotocols": ["realtime", f"openai-insecure-api-key.{KEYS['subprotocol']}"]}),
    )
    for url, more in wrong:
        async with connect(url, **{**options, **more}) as socket:
            assert (await closing(socket))[0] == 3000
    base = f"http://{server.host}:{server.port}/v1/realtime"
    async with httpx.AsyncClient(trust_env=False) as http:
        for method, path, status in (("GET", "sessions", 200), ("POST", "client_secrets", 401)):
            key = KEYS["operator" if status == 200 else "query"]
            answer = await http.request(method, f"{base}/{path}?api-key={key}", json={"key": KEYS["body"]})
            assert answer.status_code == status, answer.text
    return str(session_id)


@pytest.mark.usefixtures("door")
@pytest.mark.parametrize("form", ["json", "text"])
def test_no_line_at_any_level_has_a_key_or_audio_or_a_word(form: str, tmp_path: Path) -> None:
    keys = {"VIVAVOCE_API_KEYS": KEYS["right"], "VIVAVOCE_ADMIN_KEYS": KEYS["operator"]}
    options = ("--log-format", form, "--log-level", "debug", "--session-log", str(tmp_path / "sessions.db"))
    with serve_process(*options, **keys) as server:
        session_id = asyncio.run(asyncio.wait_for(everything(server), PATIENCE_S))
        server.process.terminate()
        assert server.process.wait(PATIENCE_S) == 0
    lines = server.lines
    whole = "\n".join(lines)
    for name, key in KEYS.items():
        assert key not in whole, name
        assert key[:16] not in whole, name
    assert WORDS not in whole
    assert AUDIO[:64] not in whole
    assert re.search(r"[A-Za-z0-9+/]{200}", whole) is None, "a long run of base64"
    assert not [line for line in lines if "Traceback" in line]
    if form == "text":
        assert [line for line in lines if f"{session_id}: begins, realtime, model 'm'" in line]
        assert [line for line in lines if "GET /v1/realtime/sessions 200" in line]
        return
    told = [json.loads(line) for line in lines]
    about = [line for line in told if line.get("session_id") == session_id]
    first, last = (next(one for one in about if word in one["message"]) for word in ("begins", "has ended"))
    assert (first["status"], first["model"], first["level"]) == ("live", "m", "info")
    assert (last["status"], last["responses"], last["turns"], last["errors"]) == ("ended", 2, 1, 1)
    assert last["reason"] == "closed by the client (1000)"
    (access,) = [line for line in told if line.get("path") == "/v1/realtime/sessions"]
    assert (access["method"], access["status"], access["logger"]) == ("GET", 200, "vivavoce.server.access")
