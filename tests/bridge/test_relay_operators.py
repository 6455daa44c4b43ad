"""What the operators of a relay see and do: sessions that pass, their log, and an end to them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from relay_house import at, created, event, relayed, until
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from vivavoce.bridge.relay import create_app
from vivavoce.bridge.relay.serving import Running
from vivavoce.bridge.relay.settings import relay_settings_of
from vivavoce.errors import SettingsError

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
