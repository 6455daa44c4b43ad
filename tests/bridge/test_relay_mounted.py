"""The relay inside another ASGI app, under plain uvicorn, on uvloop, and what its tapes hold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from relay_house import SERVICE_KEY, Service, at, created, end_of, event, idle, relayed, until
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus

from vivavoce.bridge.relay import create_app
from vivavoce.bridge.relay.settings import relay_settings_of
from vivavoce.cli import main as command
from vivavoce.server.hosting import Uvicorn, listening
from vivavoce.server.serve import loop_factory
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.tapes import Tape

PLAIN: dict[str, Any] = {"log_config": None, "lifespan": "off"}
PIECE = json.dumps({"type": "n", "fill": "x" * 60_000})


@asynccontextmanager
async def mounted(conversation: Any = created, **settings: Any) -> AsyncIterator[tuple[Service, str, Starlette]]:
    service = Service(conversation)
    async with serve(service, "127.0.0.1", 0, process_request=service.answer, max_size=None) as upstream:
        port = next(iter(upstream.sockets)).getsockname()[1]
        values = {"upstream": f"http://127.0.0.1:{port}/v1", "upstream_key": SERVICE_KEY, "model": "m"}
        inner = create_app(relay_settings_of(values | settings))
        app = Starlette(routes=[Mount("/relay", inner)])
        with listening("127.0.0.1", 0) as listener:
            server = Uvicorn(uvicorn.Config(app, ws="websockets-sansio", ws_per_message_deflate=False, **PLAIN))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            await server.listens.wait()
            try:
                yield service, f"127.0.0.1:{listener.getsockname()[1]}/relay/v1/realtime", inner
            finally:
                await inner.state.relay.drain()
                server.stop()
                await serving


def test_mounted_it_carries_messages_and_closes_both_ways() -> None:
    frame = '{"type":"n",  "n":1.0}'

    async def conversation(socket: ServerConnection) -> None:
        await socket.send(await socket.recv())
        await socket.recv()
        await socket.close(4321, "enough")

    async def main() -> None:
        async with mounted(conversation) as (service, url, _), connect(f"ws://{url}") as client:
            await client.send(frame)
            assert await client.recv() == frame
            await client.send(frame)
            assert await end_of(client) == (4321, "enough")
            assert service.ends[0][0] == 4321

    asyncio.run(main())


def test_mounted_the_end_of_the_client_is_told() -> None:
    async def main() -> None:
        async with mounted() as (service, url, _):
            async with connect(f"ws://{url}") as client:
                await event(client)
                await client.close(4000, "bye")
            await service.ended.wait()
            assert service.ends == [(4000, "bye")]

    asyncio.run(main())


def test_mounted_refusals_and_keys_are_the_same() -> None:
    async def main() -> None:
        async with mounted(api_keys=["backend"]) as (service, url, _):
            async with connect(f"ws://{url}") as client:
                assert (await event(client))["type"] == "error"
                assert (await end_of(client))[0] == 3000
            async with httpx.AsyncClient(trust_env=False) as http:
                headers = {"Authorization": "Bearer backend"}
                made = await http.post(f"http://{url}/client_secrets", json={}, headers=headers)
            key = made.json()["value"]
            async with connect(f"ws://{url}", subprotocols=["realtime", f"openai-insecure-api-key.{key}"]) as client:
                assert (await event(client))["type"] == "session.created"
            service.refusal = (429, {}, b"{}")
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://{url}", additional_headers=headers).__aenter__()
            assert refused.value.response.status_code == 429

    asyncio.run(main())


def test_mounted_a_client_that_does_not_read_holds_the_service_back() -> None:
    sent = 0

    async def conversation(socket: ServerConnection) -> None:
        nonlocal sent
        while sent < 2_000:
            await socket.send(PIECE)
            sent += 1

    async def main() -> None:
        async with mounted(conversation, stall_ms_max=300) as (service, url, app):
            client = await connect(f"ws://{url}", max_size=None, ping_interval=None).__aenter__()
            client.transport.pause_reading()
            await service.ended.wait()
            assert sent < 2_000
            client.transport.abort()
            await asyncio.gather(*app.state.relay._tasks)
            assert app.state.relay.ledger.counters.ends.read() == {("client_stalled",): 1}

    asyncio.run(main())


@pytest.mark.skipif(loop_factory() is None, reason="uvloop is not installed")
def test_the_door_hands_sockets_over_on_uvloop_too() -> None:
    async def conversation(socket: ServerConnection) -> None:
        for _ in range(100):
            await socket.send(await socket.recv())

    async def main() -> None:
        async with relayed(conversation) as (_, relay), at(relay) as client:
            for number in range(100):
                await client.send(json.dumps({"type": "n", "n": number, "fill": "x" * 50_000}))
                assert (await event(client))["n"] == number
            assert await end_of_service(client) is None

    async def end_of_service(client: Any) -> None:
        await client.close()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())


# --- tapes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_a_session_is_taped_as_its_client_saw_it(dialect: str, tmp_path: Path, realtime_server: RealServer) -> None:
    realtime_server.answers("It is sunny.")
    is_beta = dialect == "beta"

    async def main() -> list[dict[str, Any]]:
        settings = {"upstream": realtime_server.url, "upstream_key": realtime_server.api_key, "tapes": str(tmp_path)}
        async with relayed(**settings) as (_, relay):
            async with at(relay, "?model=scripted", beta=is_beta) as client:
                heard = [await event(client)]
                how = {"modalities": ["text"]} if is_beta else {"output_modalities": ["text"]}
                await client.send(json.dumps({"type": "response.create", "response": how}))
                heard += await until(client, "response.done")
            await idle(relay)
            return heard

    heard = asyncio.run(main())
    (file,) = tmp_path.iterdir()
    tape = Tape.load(file)
    assert tape.header.dialect == dialect
    assert tape.header.end == "server"
    assert [line.event["type"] for line in tape.messages if line.dir == "server"][: len(heard)] == [
        one["type"] for one in heard
    ]
    assert [note.kind for note in tape.notes] == ["connected", "closed"]
    assert tape.conversation().items[-1].content[0].text == "It is sunny."
    assert file.stat().st_mode & 0o077 == 0
    assert realtime_server.api_key not in file.read_text("utf-8")


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_lacks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIVAVOCE_RELAY_UPSTREAM", raising=False)
    assert command(["relay"]) == 1
    assert "upstream: say where to relay to" in capsys.readouterr().err
    assert command(["relay", "--upstream", "http://h", "--host", "0.0.0.0"]) == 1
    assert "host: " in capsys.readouterr().err
