"""What the operators of a relay see and do: sessions that pass, their log, and an end to them."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from relay_house import at, created, end_of, event, idle, relayed, until
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from vivavoce.bridge.relay import create_app
from vivavoce.bridge.relay import relay as module
from vivavoce.bridge.relay.legs import SocketLeg
from vivavoce.bridge.relay.serving import Running
from vivavoce.bridge.relay.settings import relay_settings_of
from vivavoce.bridge.relay.upstream import reach
from vivavoce.errors import SettingsError
from vivavoce.server.logs import JsonLines
from vivavoce.server.session_log import SessionLog

USAGE = {"total_tokens": 30, "input_tokens": 20, "output_tokens": 10}


async def answering(socket: ServerConnection) -> None:
    """A service that has one response to tell of."""
    await created(socket)
    response = {"id": "resp_1", "object": "realtime.response", "status": "completed", "output": [], "usage": USAGE}
    await socket.send(json.dumps({"type": "response.done", "event_id": "event_2", "response": response}))


async def ask(relay: Running, path: str = "", method: str = "GET", key: str = "sk-operator") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        url = f"http://127.0.0.1:{relay.port}/v1/realtime/sessions{path}"
        return await http.request(method, url, headers={"Authorization": f"Bearer {key}"})


def test_sessions_that_pass_are_listed_closed_and_logged(tmp_path: Path) -> None:
    async def main() -> dict[str, Any]:
        settings = {"prices": {"m": {"text_in": 1.0, "text_out": 2.0}}, "session_log": str(tmp_path / "sessions.db")}
        keys = {"api_keys": ["sk-user"], "admin_keys": ["sk-operator"]}
        async with relayed(answering, **keys, **settings) as (service, relay):
            assert (await ask(relay, key="sk-user")).status_code == 403
            async with at(relay, headers={"Authorization": "Bearer sk-user"}) as client:
                await until(client, "response.done")
                (live,) = (await ask(relay)).json()["data"]
                assert (live["status"], live["transport"], live["model"]) == ("live", "relay", "m")
                assert (live["responses"], live["input_tokens"], live["output_tokens"]) == (1, 20, 10)
                assert live["cost"] == pytest.approx(40e-6)
                assert (live["turns"], live["audio_in_s"]) == (None, None), "it reads no messages for that"
                closed = await ask(relay, f"/{live['id']}", "DELETE")
                assert (await event(client))["error"]["code"] == "session_closed_by_operator"
                with pytest.raises(ConnectionClosed) as end:
                    await client.recv()
                assert end.value.rcvd is not None
                assert (end.value.rcvd.code, end.value.rcvd.reason) == (1008, "An operator has closed this session.")
            await asyncio.wait_for(service.ended.wait(), 20)
            assert closed.status_code == 200
            assert closed.json()["reason"] == "session_closed_by_operator"
            assert (await ask(relay, f"/{live['id']}", "DELETE")).status_code == 404
            assert (await ask(relay)).json()["data"] == []
            (ended,) = (await ask(relay, "?status=ended")).json()["data"]
            assert ended == closed.json()
            return ended

    ended = asyncio.run(main())
    assert ended["server"].rpartition(":")[2].isdigit(), "its port is by what its successor knows it"


def test_a_place_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(SettingsError, match="session_log"):
        create_app(relay_settings_of({"upstream": "http://h", "session_log": "/no/such/folder/sessions.db"}))


# --- health -----------------------------------------------------------------------------------------------------------


async def get(relay: Running, path: str, key: str | None = None) -> tuple[int, dict[str, Any]]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"http://127.0.0.1:{relay.port}{path}", headers=headers)
    return answer.status_code, answer.json()


KEYS: dict[str, Any] = {"api_keys": ["sk-user"], "admin_keys": ["sk-operator"]}


async def refused(relay: Running) -> None:
    with pytest.raises(InvalidStatus):
        await at(relay, headers={"Authorization": "Bearer sk-user"})


def test_a_relay_that_is_well_says_so_to_operators_in_detail_and_to_others_in_a_word() -> None:
    async def main() -> None:
        async with (
            relayed(**KEYS, sessions_max=2) as (_, relay),
            at(relay, headers={"Authorization": "Bearer sk-user"}) as client,
        ):
            await until(client, "session.created")
            assert await get(relay, "/healthz") == (200, {"status": "alive"})
            assert await get(relay, "/readyz", "sk-user") == (200, {"status": "ready"})
            status, body = await get(relay, "/readyz", "sk-operator")
            assert (status, body["status"], body["reasons"]) == (200, "ready", [])
            assert body["upstream"] == {"status": "ok", "failures_in_a_row": 0, "last_error": None}
            assert body["sessions"] == {"live": 1, "places_left": 1}
            async with at(relay, headers={"Authorization": "Bearer sk-user"}) as other:
                await until(other, "session.created")
                _, body = await get(relay, "/readyz", "sk-operator")
                assert body["reasons"] == ["every place is taken, and new sessions are refused"]

    asyncio.run(main())


def test_a_service_that_is_not_reached_degrades_the_relay_and_one_that_answers_makes_it_well() -> None:
    async def main() -> None:
        async with relayed(**KEYS) as (service, relay):
            service.refusal = (401, {}, b"{}")
            for _ in range(2):
                await refused(relay)
            assert (await get(relay, "/readyz"))[1] == {"status": "ready"}, "it may be an accident"
            await refused(relay)
            assert await get(relay, "/readyz") == (200, {"status": "degraded"}), "it serves all the same"
            _, body = await get(relay, "/readyz", "sk-operator")
            said = "the service was not reached 3 times in a row, the last time with upstream_refused"
            assert body["reasons"] == [said]
            assert body["upstream"]["status"] == "degraded"
            service.refusal = (404, {}, b"{}")  # the client's own mistake, so the service is there
            await refused(relay)
            assert (await get(relay, "/readyz"))[1] == {"status": "ready"}

    asyncio.run(main())


def test_a_service_that_takes_the_handshake_and_refuses_the_key_degrades_the_relay() -> None:
    is_taken = False

    async def conversation(socket: ServerConnection) -> None:
        if is_taken:
            await created(socket)
        else:
            await socket.send('{"type":"error","error":{"type":"invalid_request_error","code":"invalid_api_key"}}')
            await socket.close(3000, "invalid_request_error.invalid_api_key")

    async def main() -> None:
        nonlocal is_taken
        async with relayed(conversation, **KEYS) as (_, relay):
            for failures in (1, 2, 3):
                async with at(relay, headers={"Authorization": "Bearer sk-user"}) as client:
                    await until(client, "error")
                _, body = await get(relay, "/readyz", "sk-operator")
                assert body["upstream"]["failures_in_a_row"] == failures
            assert (body["status"], body["upstream"]["last_error"]) == ("degraded", "upstream_refused")
            is_taken = True
            async with at(relay, headers={"Authorization": "Bearer sk-user"}) as client:
                await until(client, "session.created")
                assert (await get(relay, "/readyz"))[1] == {"status": "ready"}

    asyncio.run(main())


def test_a_relay_that_stops_lives_and_is_not_ready() -> None:
    async def main() -> None:
        async with relayed() as (_, relay):
            relay.relay.stop()
            status, body = await get(relay, "/readyz")
            assert (status, body["status"], body["reasons"]) == (503, "stopping", ["the relay is stopping"])
            assert (await get(relay, "/healthz"))[0] == 200

    asyncio.run(main())


def test_a_session_whose_service_is_reached_when_the_relay_stops_does_not_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        is_dialled, may_arrive = asyncio.Event(), asyncio.Event()

        async def slowly(*given: Any, **named: Any) -> SocketLeg:
            is_dialled.set()
            await may_arrive.wait()
            return await reach(*given, **named)

        monkeypatch.setattr(module, "reach", slowly)
        async with relayed() as (service, relay):
            client = asyncio.ensure_future(at(relay).__aenter__())
            await is_dialled.wait()
            relay.relay.stop()
            may_arrive.set()
            socket = await client
            assert (await event(socket))["error"]["code"] == "server_stopping"
            assert (await end_of(socket))[0] == 1001
            await asyncio.wait_for(service.ended.wait(), 20)
            assert relay.relay.listed() == []

    asyncio.run(main())


def test_a_session_that_cannot_begin_is_told_so_and_is_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def no_thread(self: object, live: object) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        monkeypatch.setattr(SessionLog, "begin", no_thread)
        async with relayed(session_log=str(tmp_path / "sessions.db")) as (service, relay), at(relay) as client:
            assert (await event(client))["error"]["code"] == "relay_failed"
            assert (await end_of(client))[0] == 1011
            await asyncio.wait_for(service.ended.wait(), 20)
            await idle(relay)
            assert (len(relay.relay), relay.relay.listed()) == (0, [])

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(main())


# --- log lines --------------------------------------------------------------------------------------------------------


def test_the_first_and_the_last_line_of_a_session_bring_its_record(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with relayed(answering) as (service, relay):
            async with at(relay) as client:
                await until(client, "response.done")
            await asyncio.wait_for(service.ended.wait(), 20)
            await idle(relay)

    with caplog.at_level(logging.INFO, logger="vivavoce.bridge.relay"):
        asyncio.run(main())
    lines = [json.loads(JsonLines().format(one)) for one in caplog.records]
    first, last = (line for line in lines if "session_id" in line)
    assert first["session_id"] == first["id"] == last["session_id"]
    assert (first["status"], last["status"], last["responses"]) == ("live", "ended", 1)
    assert last["message"].startswith("has ended after")


@pytest.mark.parametrize("format", ["json", "text"])
def test_the_command_writes_its_lines_in_the_form_that_is_asked_for(format: str) -> None:
    command = (sys.executable, "-m", "vivavoce", "relay", "--upstream", "http://127.0.0.1:9/v1", "--port", "0")
    with subprocess.Popen((*command, "--log-format", format), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.terminate()
        process.communicate(timeout=60)
    assert "relaying ws://127.0.0.1:" in line
    assert line.startswith("{") is (format == "json")
    if format == "json":
        assert json.loads(line)["logger"] == "vivavoce.bridge.relay.serving"
