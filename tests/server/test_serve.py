"""The server on a real socket, and a WebSocket client that is not ours."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from served import SERVED
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as ws_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from vivavoce.client import connect
from vivavoce.engines import Pipeline
from vivavoce.engines.scripted import ScriptedSettings, ScriptedVad, scripted_pipeline
from vivavoce.errors import ConnectionFailed, EngineMissing, SettingsError
from vivavoce.protocol.codec import FRAME_BYTES_MAX
from vivavoce.server import Server, create_app, running
from vivavoce.server.serve import TALKATIVE, silence_libraries, told_by_signals
from vivavoce.server.settings import Settings, settings_of

pytestmark = pytest.mark.usefixtures("door")

KEY = "sk-the-right-key-0001"
TIMEOUT_S = 20.0


def within_time(main: Coroutine[Any, Any, None]) -> None:
    async def timed() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await main
        await asyncio.sleep(0)  # the other side's tasks have been cancelled by now, and need a moment to see it
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(timed())


def scripted(**values: Any) -> Settings:
    return settings_of({"pipeline": "scripted", "port": 0, **SERVED, **values})


@asynccontextmanager
async def socket_to(
    server: Server, path: str = "/v1/realtime?model=m", *, headers: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[ClientConnection]:
    url = f"ws://{server.host}:{server.port}{path}"
    async with ws_connect(
        url, additional_headers=headers, max_size=None, compression=None, proxy=None, **options
    ) as opened:
        yield opened


async def receive(socket: ClientConnection) -> dict[str, Any]:
    frame = await socket.recv()
    assert isinstance(frame, str), "every message is text (§1.6)"
    event: dict[str, Any] = json.loads(frame)
    return event


async def until(socket: ClientConnection, type: str) -> dict[str, Any]:
    while (event := await receive(socket))["type"] != type:
        pass
    return event


async def closing(socket: ClientConnection) -> tuple[int, str]:
    with suppress(ConnectionClosed):
        async for _ in socket:
            pass
    await socket.wait_closed()
    assert socket.protocol.close_rcvd is not None
    return socket.protocol.close_rcvd.code, socket.protocol.close_rcvd.reason


async def is_true_soon(condition: Callable[[], bool]) -> bool:
    """Whether it comes to hold within a few seconds."""
    clock = asyncio.get_running_loop().time
    until = clock() + 5
    while not condition() and clock() < until:  # noqa: ASYNC110 - what is looked at announces nothing
        await asyncio.sleep(0)
    return condition()


def message(text: str) -> str:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    return json.dumps({"type": "conversation.item.create", "item": item})


RESPOND = json.dumps({"type": "response.create", "response": {"output_modalities": ["text"]}})

# --- bad input (§3.2) -------------------------------------------------------------------------------------------------

AUDIO_20_MIB = base64.b64encode(bytes(20 * 2**20)).decode()

BAD: dict[str, tuple[str | bytes, str, str | None]] = {
    "not JSON": ("hello", "invalid_json", None),
    "half a JSON": ('{"type": "response.create"', "invalid_json", None),
    "not an object": ("[1, 2]", "invalid_event", None),
    "binary": (b'{"type": "response.create"}', "invalid_event", None),
    "no type": ("{}", "invalid_event", None),
    "unknown type": ('{"type": "response.make"}', "invalid_value", "type"),
    "wrong type of a field": ('{"type": "input_audio_buffer.append", "audio": 3}', "invalid_type", "audio"),
    "bad base64": ('{"type": "input_audio_buffer.append", "audio": "a"}', "invalid_value", "audio"),
    "field missing": ('{"type": "conversation.item.delete"}', "missing_required_parameter", "item_id"),
    "field unknown": ('{"type": "response.cancel", "x": 1}', "unknown_parameter", "x"),
    "20 MiB of audio": (
        f'{{"type": "input_audio_buffer.append", "audio": "{AUDIO_20_MIB}"}}',
        "string_above_max_length",
        "audio",
    ),
    "a million fields": (
        '{"type": "response.cancel", ' + ", ".join(f'"f{n}": 0' for n in range(2**20)) + "}",
        "unknown_parameter",
        "f0",
    ),
    "deep nesting": (
        '{"type": "session.update", "session": ' + '{"a":' * 200_000 + "1" + "}" * 200_001,
        "invalid_json",
        None,
    ),
}


def test_bad_input_of_every_kind_is_answered_and_the_next_event_works() -> None:
    async def main() -> None:
        async with running(scripted()) as server, socket_to(server) as socket:
            await until(socket, "session.created")
            for name, (frame, code, param) in BAD.items():
                await socket.send(frame)
                event = await receive(socket)
                assert event["type"] == "error", name
                assert event["error"]["type"] == "invalid_request_error", name
                assert (event["error"]["code"], event["error"]["param"]) == (code, param), name
                assert len(event["error"]["message"]) < 2_000, name
                await socket.send('{"type": "input_audio_buffer.clear"}')
                assert (await receive(socket))["type"] == "input_audio_buffer.cleared", name

    within_time(main())


def test_an_error_echoes_the_event_id() -> None:
    async def main() -> None:
        async with running(scripted()) as server, socket_to(server) as socket:
            await until(socket, "session.created")
            await socket.send('{"type": "response.cancel", "event_id": "mine"}')
            error = (await receive(socket))["error"]
            assert (error["code"], error["event_id"]) == ("response_cancel_not_active", "mine")

    within_time(main())


def test_a_message_above_every_limit_closes_with_1009() -> None:
    async def main() -> None:
        async with running(scripted()) as server, socket_to(server) as socket:
            await until(socket, "session.created")
            with suppress(ConnectionClosed):  # it may come before all is sent
                await socket.send(" " * (FRAME_BYTES_MAX + 1))
            await socket.wait_closed()
            assert socket.close_code == 1009

    within_time(main())


def test_a_client_that_stops_reading_loses_its_session_and_nobody_else_does() -> None:
    async def main() -> None:
        settings = scripted(connection_limits={"stall_ms_max": 300, "close_ms_max": 100})
        async with running(settings) as server, socket_to(server, ping_interval=None) as deaf:
            await until(deaf, "session.created")
            audio = base64.b64encode(bytes(48 * 10_000)).decode()
            part = {"type": "input_audio", "audio": audio, "transcript": "long"}
            item = {"id": "long", "type": "message", "role": "user", "content": [part]}
            await deaf.send(json.dumps({"type": "conversation.item.create", "item": item}))
            async with socket_to(server) as other:
                await until(other, "session.created")
                for _ in range(60):  # 38 MB of answers, which no socket holds
                    await deaf.send('{"type": "conversation.item.retrieve", "item_id": "long"}')
                assert await is_true_soon(lambda: len(server.app.state.sessions) == 1)
                await other.send('{"type": "input_audio_buffer.clear"}')
                await until(other, "input_audio_buffer.cleared")
            deaf.transport.abort()

    within_time(main())


# --- the handshake (§1.3–§1.5) ----------------------------------------------------------------------------------------

REFUSED = [
    ("/v1/realtime?model=m", {}, None, (3000, "invalid_request_error")),
    (
        "/v1/realtime?model=m",
        {"Authorization": "Bearer wrong"},
        "invalid_api_key",
        (3000, "invalid_request_error.invalid_api_key"),
    ),
    (
        "/openai/v1/realtime?model=m",
        {"api-key": "wrong"},
        "invalid_api_key",
        (3000, "invalid_request_error.invalid_api_key"),
    ),
    ("/v1/realtime", {"api-key": KEY}, "missing_model", (4000, "invalid_request_error.missing_model")),
    ("/v1/realtime/translations", {"api-key": KEY}, "missing_model", (4000, "invalid_request_error.missing_model")),
]


def test_a_refused_client_gets_an_error_event_and_a_close() -> None:
    async def main() -> None:
        async with running(scripted(api_keys=[KEY])) as server:
            for path, headers, code, close in REFUSED:
                async with socket_to(server, path, headers=headers) as socket:
                    event = await receive(socket)
                    assert event["type"] == "error"
                    assert event["event_id"]
                    assert event["error"]["code"] == code
                    assert event["error"]["param"] is None
                    assert "wrong" not in event["error"]["message"]
                    assert await closing(socket) == close

    within_time(main())


ADMITTED: list[tuple[str, dict[str, str], list[str] | None, str | None, bool]] = [
    ("/v1/realtime?model=m", {"Authorization": f"Bearer {KEY}"}, None, None, False),
    ("/v1/realtime?model=m", {"api-key": KEY}, None, None, False),
    (f"/v1/realtime?model=m&api-key={KEY}", {}, None, None, False),
    ("/v1/realtime?model=m", {}, ["realtime", f"openai-insecure-api-key.{KEY}"], "realtime", False),
    (
        "/v1/realtime?model=m",
        {},
        ["realtime", f"openai-insecure-api-key.{KEY}", "openai-beta.realtime-v1"],
        "realtime",
        True,
    ),
    ("/v1/realtime?model=m", {"api-key": KEY, "OpenAI-Beta": "realtime=v1"}, None, None, True),
    ("/openai/v1/realtime?model=m", {"api-key": KEY, "OpenAI-Beta": "realtime=v1"}, None, None, False),
    ("/openai/realtime?api-version=2025-04-01-preview&deployment=d", {"api-key": KEY}, None, None, True),
]


def test_an_admitted_client_gets_a_session_in_its_dialect() -> None:
    async def main() -> None:
        async with running(scripted(api_keys=[KEY])) as server:
            for path, headers, subprotocols, chosen, is_beta in ADMITTED:
                async with socket_to(server, path, headers=headers, subprotocols=subprotocols) as socket:
                    created = await receive(socket)
                    assert created["type"] == "session.created"
                    assert created["session"]["model"] in {"m", "d"}
                    assert socket.subprotocol == chosen
                    assert ("modalities" in created["session"]) == is_beta
                    assert KEY not in json.dumps(created)

    within_time(main())


def test_keys_do_not_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with running(scripted(api_keys=[KEY])) as server:
            async with socket_to(server, f"/v1/realtime?model=m&api-key={KEY}") as socket:
                await until(socket, "session.created")
            async with socket_to(server, "/v1/realtime?model=m&api-key=sk-a-wrong-key-0002") as socket:
                await receive(socket)

    with caplog.at_level("DEBUG", logger="vivavoce"), caplog.at_level("DEBUG", logger="asyncio"):
        within_time(main())
    assert "begins, realtime, model 'm'" in caplog.text
    assert "sk-" not in "\n".join(record.message for record in caplog.records if record.name.startswith("vivavoce"))
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


def test_one_session_too_many_is_refused_and_then_there_is_room_again() -> None:
    async def main() -> None:
        async with running(scripted(sessions_max=1)) as server:
            async with socket_to(server) as first:
                await until(first, "session.created")
                async with socket_to(server) as second:
                    event = await receive(second)
                    assert (event["error"]["type"], event["error"]["code"]) == ("rate_limit_error", "too_many_sessions")
                    assert await closing(second) == (1013, "rate_limit_error.too_many_sessions")
            assert await is_true_soon(lambda: not len(server.app.state.sessions))
            async with socket_to(server) as third:
                await until(third, "session.created")

    within_time(main())


# --- pipelines --------------------------------------------------------------------------------------------------------


def test_a_model_reaches_the_pipeline_that_the_settings_say() -> None:
    def named(name: str) -> Pipeline:
        return scripted_pipeline(name)

    async def main() -> None:
        settings = settings_of(
            {
                "pipeline": "scripted",
                "models": {"gpt-realtime": "other", "other": "scripted"},
                "pipelines": {"other": {}, "third": {}},
            }
        )
        pipelines = {name: named(name) for name in ("scripted", "other", "third")}
        loaded = create_app(settings, pipelines).state.pipelines
        assert loaded.for_model("anything").name == "scripted"
        assert loaded.for_model("gpt-realtime").name == "other"
        assert loaded.for_model("third").name == "third"
        assert loaded.for_model("other").name == "scripted", "the map comes before the name"

    asyncio.run(main())


class Gated(ScriptedVad):
    """A detector that takes as long to load as the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.closed = 0
        self.error: Exception | None = None

    async def warm_up(self) -> None:
        await self.gate.wait()
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        self.closed += 1


async def get(server: Server, path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(f"http://{server.host}:{server.port}{path}")


def test_a_client_waits_for_the_models_and_readyz_says_what_is_missing() -> None:
    async def main() -> None:
        vad, told = Gated(), []
        pipelines = {"scripted": replace(scripted_pipeline(), vad=vad)}
        progress = lambda *step: told.append(step)  # noqa: E731
        async with running(scripted(), pipelines=pipelines, progress=progress, warm=False) as server:
            assert (await get(server, "/healthz")).status_code == 200
            ready = await get(server, "/readyz")
            assert ready.status_code == 503
            assert ready.json()["loading"][0] == "scripted.vad"
            async with socket_to(server) as socket:
                waiting = asyncio.create_task(receive(socket))
                for _ in range(20):
                    await asyncio.sleep(0)
                assert not waiting.done()
                vad.gate.set()
                assert (await waiting)["type"] == "session.created"
            assert (await get(server, "/readyz")).json()["status"] == "ready"
        assert told[:2] == [("scripted", "vad", False), ("scripted", "vad", True)]
        assert len(told) == 2 * len(pipelines["scripted"].engines)
        assert vad.closed == 1

    within_time(main())


def test_a_client_that_waited_too_long_for_the_models_is_told_to_come_back() -> None:
    async def main() -> None:
        vad = Gated()
        pipelines = {"scripted": replace(scripted_pipeline(), vad=vad)}
        async with (
            running(scripted(warm_up_ms_max=1), pipelines=pipelines, warm=False) as server,
            socket_to(server) as socket,
        ):
            event = await receive(socket)
            assert event["error"]["code"] == "still_loading"
            assert "scripted.vad" in event["error"]["message"]
            assert (await closing(socket))[0] == 1013
        assert vad.closed == 1, "what was being loaded is given up and freed"

    within_time(main())


def test_models_that_cannot_be_loaded_are_told_to_whoever_starts_the_server() -> None:
    async def main() -> None:
        vad = Gated()
        vad.error = EngineMissing("install the weights")
        vad.gate.set()
        with pytest.raises(EngineMissing, match="install the weights"):
            async with running(scripted(), pipelines={"scripted": replace(scripted_pipeline(), vad=vad)}):
                raise AssertionError("it must not begin")
        assert vad.closed == 1

    within_time(main())


def test_models_that_could_not_be_loaded_refuse_their_clients() -> None:
    async def main() -> None:
        vad = Gated()
        vad.error = EngineMissing("install the weights")
        vad.gate.set()
        pipelines = {"scripted": replace(scripted_pipeline(), vad=vad)}
        async with running(scripted(), pipelines=pipelines, warm=False) as server, socket_to(server) as socket:
            assert (await receive(socket))["error"]["code"] == "pipeline_failed"
            assert (await closing(socket))[0] == 1011
            assert (await get(server, "/readyz")).json()["status"] == "failed"

    within_time(main())


# --- HTTP -------------------------------------------------------------------------------------------------------------


def test_http_errors_have_the_shape_of_the_api() -> None:
    async def main() -> None:
        async with running(scripted()) as server:
            for path, status in (("/v1/realtime", 426), ("/nowhere", 404)):
                response = await get(server, path)
                assert response.status_code == status
                assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    within_time(main())


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/v1"])
def test_whoever_asks_for_another_api_is_told_which_one_is_spoken_and_where(method: str, path: str) -> None:
    async def main() -> None:
        transport = httpx.ASGITransport(create_app(scripted()))
        async with httpx.AsyncClient(transport=transport, base_url="http://h") as http:
            response = await http.request(method, path)
        error = response.json()["error"]
        assert (response.status_code, error["type"]) == (404, "invalid_request_error")
        assert "this server speaks the Realtime API, by WebSocket at /v1/realtime," in error["message"]

    within_time(main())


def test_a_failure_of_ours_has_the_shape_of_the_api_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("with something secret in it")

    async def main() -> None:
        app = create_app(scripted())
        monkeypatch.setattr(app.state.sessions.keys, "check", fail)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://h") as http:
            response = await http.post("/v1/realtime/client_secrets")
        assert response.status_code == 500
        error = {"message": "The server has failed.", "type": "server_error", "param": None, "code": None}
        assert response.json() == {"error": error}

    within_time(main())


def test_libraries_do_not_log_urls_at_any_level(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in TALKATIVE:
        monkeypatch.setattr(logging.getLogger(library), "level", logging.NOTSET)
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)
    silence_libraries()
    for library in ("httpx", "httpcore.http11", "httpx2", "httpcore2.connection", "mcp.client.streamable_http"):
        assert not logging.getLogger(library).isEnabledFor(logging.INFO), library


def test_a_websocket_to_a_wrong_path_is_told_so_and_does_not_look_like_a_wrong_key() -> None:
    async def main() -> None:
        async with running(scripted()) as server:
            with pytest.raises(
                ConnectionFailed, match=r"404 Not Found: There is no WebSocket endpoint at this path; .* Likely"
            ):
                await connect("m", url=f"http://{server.host}:{server.port}/v2")
            with pytest.raises(InvalidStatus) as refused:
                async with socket_to(server, "/v1/chat?model=m"):
                    raise AssertionError("it must not open")
            assert refused.value.response.status_code == 404
            assert "/v1/realtime" in json.loads(refused.value.response.body or b"")["error"]["message"]

    within_time(main())


def test_an_asgi_server_that_cannot_deny_with_a_status_closes_instead() -> None:
    async def main() -> None:
        sent: list[Any] = []

        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        scope = {"type": "websocket", "path": "/v2", "headers": [], "query_string": b"", "subprotocols": []}
        await create_app(scripted())(scope, receive, send)
        assert sent == ["websocket.close"]

    within_time(main())


def test_the_app_can_be_mounted_in_another_and_loads_its_models_by_itself() -> None:
    async def main() -> None:
        outer = Starlette(routes=[Mount("/voice", create_app(scripted()))])
        listener = socket.create_server(("127.0.0.1", 0))
        host, port = listener.getsockname()
        config = uvicorn.Config(outer, log_config=None, ws="websockets-sansio", lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        url = f"ws://{host}:{port}/voice/v1/realtime?model=m"
        async with ws_connect(url, proxy=None) as client:
            assert (await receive(client))["type"] == "session.created"
        server.should_exit = True
        await serving

    within_time(main())


# --- beginning and end ------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_told() -> None:
    async def main() -> None:
        taken = socket.create_server(("127.0.0.1", 0))
        with taken, pytest.raises(SettingsError, match=r"host, port: cannot bind 127\.0\.0\.1:.*in use; .* 0 for any"):
            async with running(scripted(port=taken.getsockname()[1])):
                raise AssertionError("it must not begin")

    within_time(main())


def test_without_keys_only_loopback_is_bound() -> None:
    async def main() -> None:
        with pytest.raises(SettingsError, match="no api_keys are set"):
            async with running(scripted(host="0.0.0.0")):
                raise AssertionError("it must not begin")

    within_time(main())


def test_at_a_stop_the_running_response_ends_and_then_the_socket_closes_with_1001() -> None:
    async def main() -> None:
        slow = {"scripted": scripted_pipeline(language_model=ScriptedSettings(piece_delay_s=0.05))}
        async with running(scripted(), pipelines=slow) as server:
            opening = ws_connect(f"ws://{server.host}:{server.port}/v1/realtime?model=m", proxy=None)
            client = await opening
            await until(client, "session.created")
            await client.send(message("one two three four five"))
            await client.send(RESPOND)
            await until(client, "response.output_text.delta")
            stopping = asyncio.create_task(server.app.state.sessions.drain(10))
            done = await until(client, "response.done")
            assert done["response"]["status"] == "completed"
            assert await closing(client) == (1001, "The server is stopping.")
            await stopping
            async with socket_to(server) as late:
                assert (await receive(late))["error"]["code"] == "server_stopping"
                assert (await closing(late))[0] == 1001
            assert (await get(server, "/readyz")).json()["status"] == "stopping"

    within_time(main())


def test_a_response_that_takes_longer_than_the_grace_is_cut() -> None:
    async def main() -> None:
        slow = {"scripted": scripted_pipeline(language_model=ScriptedSettings(first_delay_s=1_000))}
        client: ClientConnection | None = None
        async with running(scripted(drain_ms_max=50), pipelines=slow) as server:
            client = await ws_connect(f"ws://{server.host}:{server.port}/v1/realtime?model=m", proxy=None)
            await until(client, "session.created")
            await client.send(message("hello"))
            await client.send(RESPOND)
            await until(client, "response.created")
        assert await closing(client) == (1001, "The server is stopping.")

    within_time(main())


SLOW = """
pipeline = "slow"
port = 0
drain_ms_max = 600000
[pipelines.slow]
vad = { engine = "scripted" }
transcriber = { engine = "scripted" }
language_model = { engine = "scripted", options = { first_delay_s = 1000.0 } }
synthesizer = { engine = "scripted" }
"""


def test_the_command_stops_at_the_first_signal_when_idle_and_at_the_second_in_any_case(tmp_path: Path) -> None:
    config = tmp_path / "slow.toml"
    config.write_text(SLOW)
    command = [sys.executable, "-m", "vivavoce", "serve", "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            url = next(word for line in process.stdout for word in line.split() if word.startswith("ws://"))

            async def main() -> None:
                async with ws_connect(f"{url.rstrip(',')}?model=m", proxy=None) as client:
                    await until(client, "session.created")
                    await client.send(message("hello"))
                    await client.send(RESPOND)
                    await until(client, "response.created")
                    process.send_signal(signal.SIGTERM)
                    await client.send('{"type": "input_audio_buffer.clear"}')
                    await until(client, "input_audio_buffer.cleared")
                    process.send_signal(signal.SIGTERM)
                    assert await closing(client) == (1001, "The server is stopping.")

            within_time(main())
            assert process.wait(TIMEOUT_S) == 0
            assert "Traceback" not in process.stdout.read()
        finally:
            process.kill()


UNREACHABLE = """
port = 0
pipeline = "away"

[pipelines.away]
vad = { engine = "scripted" }
transcriber = { engine = "scripted" }
language_model = { engine = "openai-chat", options = { url = "http://127.0.0.1:1/v1", model = "m" } }
synthesizer = { engine = "scripted" }
"""


def test_the_command_says_once_why_it_cannot_serve(tmp_path: Path) -> None:
    config = tmp_path / "away.toml"
    config.write_text(UNREACHABLE)
    command = [sys.executable, "-m", "vivavoce", "serve", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 1
    assert done.stderr.count("cannot reach http://127.0.0.1:1/v1") == 1
    assert "Traceback" not in done.stderr
    assert "httpx" not in done.stderr


class WindowsLoop(asyncio.SelectorEventLoop):
    """A loop that has no signals of its own, as on Windows."""

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        raise NotImplementedError

    def remove_signal_handler(self, sig: int) -> bool:
        raise NotImplementedError


@pytest.mark.parametrize("loop", [WindowsLoop, asyncio.SelectorEventLoop])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_the_server_also_where_the_loop_has_none(
    loop: type[asyncio.SelectorEventLoop], number: signal.Signals
) -> None:
    async def main() -> None:
        told = asyncio.Event()
        before = signal.getsignal(number)
        with told_by_signals(told.set):
            signal.raise_signal(number)
            await asyncio.wait_for(told.wait(), TIMEOUT_S)
        assert signal.getsignal(number) is before

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
