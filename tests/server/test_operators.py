"""Who may see and close what runs on a server: operators, and whoever sits at a machine whose server has no keys."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import AsyncExitStack, suppress
from hashlib import sha256
from typing import Any

import httpx
import pytest
from test_doors import socket as raw_socket
from test_resuming import Ground, events, greeted, on_virtual_time
from test_serve import RESPOND, closing, is_true_soon, message, receive, scripted, socket_to, until, within_time

from vivavoce.engines.scripted import ScriptedSettings, scripted_pipeline
from vivavoce.server import Server, doors, operators, records, running

pytestmark = pytest.mark.usefixtures("door")

LIST = "/v1/realtime/sessions"
PRICED = {"prices": {"m": {"text_in": 1.0, "audio_in": 1.0, "text_out": 2.0, "audio_out": 2.0}}}
NEVER = ScriptedSettings(piece_delay_s=3_600.0)


async def ask(server: Server, path: str = "", method: str = "GET", **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.request(method, f"http://{server.host}:{server.port}{LIST}{path}", **options)


async def listed(server: Server, query: str = "") -> list[dict[str, Any]]:
    response = await ask(server, query)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    assert (body["object"], body["has_more"]) == ("list", False)
    data: list[dict[str, Any]] = body["data"]
    return data


# --- who may ask ------------------------------------------------------------------------------------------------------


def status(headers: dict[str, str], *asked: str, **settings: Any) -> int:
    async def main() -> int:
        async with running(scripted(**settings)) as server:
            return (await ask(server, *asked, headers=headers)).status_code

    return asyncio.run(main())


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://localhost:3000"}, {"Host": "localhost:8080"}])
def test_a_server_without_keys_tells_this_machine(headers: dict[str, str]) -> None:
    assert status(headers) == 200


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example:8080"}, {"Host": "["}])
def test_but_no_page_that_its_browser_shows_by_whatever_name(headers: dict[str, str]) -> None:
    assert status(headers) == 403


@pytest.mark.parametrize(("key", "expected"), [("sk-operator", 200), ("sk-user", 403), ("sk-nobody", 401)])
def test_where_there_are_keys_it_takes_an_operators(key: str, expected: int) -> None:
    headers = {"Authorization": f"Bearer {key}", "Host": "voice.example"}
    assert status(headers, api_keys=["sk-user"], admin_keys=["sk-operator"]) == expected


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(("key", "expected"), [("sk-operator", 404), ("sk-user", 403), ("sk-nobody", 401)])
def test_who_is_no_operator_does_not_even_learn_which_sessions_there_are(key: str, expected: int, method: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    assert status(headers, "/sess_1", method, api_keys=["sk-user"], admin_keys=["sk-operator"]) == expected


# --- what it says -----------------------------------------------------------------------------------------------------


def test_the_counters_of_a_session_are_those_of_what_happened() -> None:
    async def main() -> None:
        settings = scripted(api_keys=["sk-user"], admin_keys=["sk-operator"], **PRICED)
        operator = {"headers": {"Authorization": "Bearer sk-operator"}}
        headers = {"Authorization": "Bearer sk-user", "OpenAI-Safety-Identifier": "user-7"}
        async with running(settings) as server, socket_to(server, headers=headers) as socket:
            created = await until(socket, "session.created")
            await socket.send(message("Hello"))
            await socket.send(RESPOND)
            done = await until(socket, "response.done")
            audio = base64.b64encode(bytes(48_000)).decode()
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            await socket.send('{"type": "input_audio_buffer.commit"}')
            await socket.send('{"type": "response.create"}')
            await until(socket, "response.done")
            await socket.send('{"type": "response.cancel"}')
            await until(socket, "error")
            one = (await ask(server, f"/{created['session']['id']}", **operator)).json()
            (same,) = (await ask(server, **operator)).json()["data"]
        assert same["id"] == one["id"] == created["session"]["id"]
        known = {name: one[name] for name in ("object", "status", "kind", "model", "dialect", "transport", "pipeline")}
        assert known == {
            "object": "realtime.session",
            "status": "live",
            "kind": "realtime",
            "model": "m",
            "dialect": "ga",
            "transport": "websocket",
            "pipeline": "scripted",
        }
        assert (one["turns"], one["responses"], one["errors"]) == (1, 2, 1)
        assert (one["failures"], one["interruptions"], one["response"]) == (0, 0, None)
        assert (one["state"], one["safety_identifier"]) == ("idle", "user-7")
        assert one["last_error"] == "response_cancel_not_active"
        assert one["key"] == sha256(b"sk-user").hexdigest()[:16]
        assert one["input_tokens"] > done["response"]["usage"]["input_tokens"]
        assert one["cost"] == pytest.approx((one["input_tokens"] + 2 * one["output_tokens"]) / 1e6)
        assert one["audio_in_s"] == 1.0
        assert one["audio_out_s"] > 0
        assert 0 <= one["latency_median_ms"] == one["latency_last_ms"] < 5_000
        assert one["began_at"] <= one["active_at"] <= one["seen_at"] <= one["began_at"] + one["age_s"] + 1
        assert (one["ended_at"], one["reason"]) == (None, None)

    within_time(main())


def test_a_response_that_runs_is_named() -> None:
    async def main() -> None:
        pipelines = {"scripted": scripted_pipeline(language_model=NEVER)}
        async with running(scripted(drain_ms_max=0), pipelines=pipelines) as server, socket_to(server) as socket:
            await socket.send(RESPOND)
            created = await until(socket, "response.created")
            (one,) = await listed(server)
            assert (one["state"], one["response"], one["responses"]) == ("answering", created["response"]["id"], 0)

    within_time(main())


def test_pages_begin_with_the_latest_and_go_on_after_the_last() -> None:
    async def main() -> None:
        async with running(scripted()) as server, socket_to(server) as first, socket_to(server) as second:
            ids = [(await receive(socket))["session"]["id"] for socket in (first, second)]
            page = (await ask(server, "?limit=1")).json()
            assert ([one["id"] for one in page["data"]], page["has_more"]) == ([ids[1]], True)
            assert (page["first_id"], page["last_id"]) == (ids[1], ids[1])
            assert [one["id"] for one in await listed(server, f"?limit=1&after={ids[1]}")] == [ids[0]]
            assert await listed(server, f"?after={ids[0]}") == []
            assert await listed(server, "?after=sess_unknown") == []
            assert len(await listed(server, "?since=2020-01-01T00:00:00%2B01:00")) == 2
            assert await listed(server, "?since=4000000000") == []
            assert await listed(server, "?key=nobody") == []

    within_time(main())


def test_a_page_goes_on_behind_a_session_that_has_ended_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "ENDED_MAX", 2)

    async def main() -> None:
        async with running(scripted()) as server, AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(socket_to(server)) for _ in range(5)]
            ids = [(await receive(socket))["session"]["id"] for socket in sockets]
            for number in (1, 4, 2):
                await ask(server, f"/{ids[number]}", "DELETE")
            assert [one["id"] for one in await listed(server)] == [ids[3], ids[0]]
            assert [one["id"] for one in await listed(server, f"?limit=2&after={ids[4]}")] == [ids[3], ids[0]]
            assert [one["id"] for one in await listed(server, f"?after={ids[2]}")] == [ids[0]]
            assert await listed(server, f"?after={ids[1]}") == [], "too long ago"

    within_time(main())


BAD = {
    "?limit=0": "limit",
    f"?limit={operators.LISTED_MAX + 1}": "limit",
    "?limit=%C2%B2": "limit",
    f"?limit={'9' * 5_000}": "limit",
    "?limit=0000010009999": "limit",
    "?status=dead": "status",
    "?since=yesterday": "since",
    "?since=nan": "since",
    "?offset=3": "offset",
    "?status=ended": "status",
}


def test_what_cannot_be_asked_is_refused_by_name() -> None:
    async def main() -> None:
        async with running(scripted()) as server:
            for query, param in BAD.items():
                response = await ask(server, query)
                error = response.json()["error"]
                assert (response.status_code in (400, 404), error["param"]) == (True, param), query
            assert error["code"] == "no_session_log"

    within_time(main())


# --- closing ----------------------------------------------------------------------------------------------------------


def test_a_session_that_is_closed_is_told_why_and_its_end_is_told() -> None:
    async def main() -> None:
        async with running(scripted()) as server, socket_to(server) as socket:
            session_id = (await receive(socket))["session"]["id"]
            closed = await ask(server, f"/{session_id}", "DELETE")
            error = (await until(socket, "error"))["error"]
            assert (error["code"], error["message"]) == (
                "session_closed_by_operator",
                "An operator has closed this session.",
            )
            assert await closing(socket) == (1008, "An operator has closed this session.")
            assert closed.status_code == 200
            record = closed.json()
            assert (record["status"], record["state"]) == ("ended", "over")
            assert record["reason"] == "An operator has closed this session (1008)"
            assert await listed(server) == []
            again = await ask(server, f"/{session_id}", "DELETE")
            assert (again.status_code, again.json()["error"]["code"]) == (404, "session_not_found")

    within_time(main())


def test_one_whose_client_does_not_read_is_dropped() -> None:
    async def main() -> None:
        async with running(scripted()) as server, socket_to(server, ping_interval=None) as deaf:
            session_id = (await receive(deaf))["session"]["id"]
            part = {"type": "input_audio", "audio": base64.b64encode(bytes(480_000)).decode(), "transcript": "long"}
            item = {"id": "long", "type": "message", "role": "user", "content": [part]}
            await deaf.send(json.dumps({"type": "conversation.item.create", "item": item}))
            for _ in range(60):  # 38 MB of answers, which no socket holds
                await deaf.send('{"type": "conversation.item.retrieve", "item_id": "long"}')
            closed = await ask(server, f"/{session_id}", "DELETE", timeout=15)
            assert (closed.status_code, closed.json()["status"]) == (200, "ended")
            assert not len(server.app.state.sessions)
            deaf.transport.abort()

    within_time(main())


def test_nor_does_such_a_client_keep_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "LEFT_S_MAX", 0.1)

    async def main() -> None:
        async with running(scripted(ping_interval_ms=0)) as server, raw_socket(server) as (reader, writer):
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            (one,) = await listed(server)
            part = {"type": "input_text", "text": "long " * 100_000}
            item = {"id": "long", "type": "message", "role": "user", "content": [part]}
            writer.write(frame({"type": "conversation.item.create", "item": item}))
            for _ in range(60):  # 30 MB of answers, which no socket holds
                writer.write(frame({"type": "conversation.item.retrieve", "item_id": "long"}))
            assert await is_true_soon(lambda: next(iter(server.app.state.sessions)).waiting[1] > 4)
            closed = await ask(server, f"/{one['id']}", "DELETE", timeout=15)
            assert (closed.status_code, closed.json()["status"]) == (200, "ended")
            with suppress(ConnectionError):
                while True:  # nobody reads it any more, and so it ends only with the connection
                    writer.write(bytes(2**20))
                    await writer.drain()

    within_time(main())


def frame(event: dict[str, Any]) -> bytes:
    """As a client sends it, with a mask that changes nothing."""
    payload = json.dumps(event).encode()
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xff" + size.to_bytes(8, "big")
    return b"\x81" + length + bytes(4) + payload


def test_a_session_that_translates_is_closed_too() -> None:
    async def main() -> None:
        path = "/v1/realtime/translations?model=m"
        async with running(scripted()) as server, socket_to(server, path) as socket:
            session_id = (await receive(socket))["session"]["id"]
            (one,) = await listed(server)
            assert (one["kind"], one["state"]) == ("translation", "interpreting")
            assert (await ask(server, f"/{session_id}", "DELETE")).status_code == 200
            assert (await until(socket, "error"))["error"]["code"] == "session_closed_by_operator"
            assert (await closing(socket))[0] == 1008

    within_time(main())


async def _expelled(ground: Ground, token: str) -> None:
    near = ground.dial(f"token={token}; received=1")
    greeting = await greeted(near)
    assert not greeting.resumed, "it is another session"


@on_virtual_time()
async def test_nothing_brings_a_closed_session_back(ground: Ground) -> None:
    near, greeting = await ground.begin()
    (created,) = await events(near, "session.created")
    record = await ground.sessions.expel(created["session"]["id"])
    assert record is not None
    assert record.status == "ended"
    assert (await events(near, "error"))[-1]["error"]["code"] == "session_closed_by_operator"
    await _expelled(ground, greeting.token)


@on_virtual_time()
async def test_nor_one_that_is_closed_while_its_client_is_away(ground: Ground) -> None:
    near, greeting = await ground.begin()
    (created,) = await events(near, "session.created")
    await near.close(1006, "cut")
    await asyncio.gather(*ground.serving)
    record = await ground.sessions.expel(created["session"]["id"])
    assert record is not None
    assert record.status == "ended"
    assert not len(ground.sessions)
    await _expelled(ground, greeting.token)
