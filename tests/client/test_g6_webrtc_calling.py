"""G6: where calls begin, in which form, what refusals mean, and what becomes of a call that is lost."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from peer_double import PeerDouble

import vivavoce
import vivavoce.transports.webrtc  # before the clock runs: it takes seconds, the first time
from vivavoce.client.calling import CallAddress, call_address
from vivavoce.client.endpoint import Target, resolve
from vivavoce.client.webrtc import PeerTransport
from vivavoce.errors import ConnectionFailed, EngineMissing, LocalProtocolError
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.sounds import tone

SECONDS_MAX = 60.0
SK = "sk-" + "x" * 40
EK = "ek_" + "x" * 40


def address(**target: Any) -> CallAddress:
    return call_address(resolve(Target(**target), {}))


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "url", "form_url", "session"),
    [
        (
            {"model": "gpt-realtime", "api_key": SK},
            "https://api.openai.com/v1/realtime/calls?model=gpt-realtime",
            "https://api.openai.com/v1/realtime/calls",
            {"type": "realtime", "model": "gpt-realtime"},
        ),
        (
            {"azure_endpoint": "https://r.openai.azure.com", "azure_deployment": "mine", "api_key": "a" * 32},
            "https://r.openai.azure.com/openai/v1/realtime/calls?model=mine",
            "https://r.openai.azure.com/openai/v1/realtime/calls",
            {"type": "realtime", "model": "mine"},
        ),
        (
            {"model": "m", "url": "http://127.0.0.1:8080"},
            "http://127.0.0.1:8080/v1/realtime/calls?model=m",
            "http://127.0.0.1:8080/v1/realtime/calls",
            {"type": "realtime", "model": "m"},
        ),
        (
            {"url": "https://relay.example/api/v1/realtime?model=m&team=7"},
            "https://relay.example/api/v1/realtime/calls?model=m&team=7",
            "https://relay.example/api/v1/realtime/calls?team=7",
            {"type": "realtime", "model": "m"},
        ),
        (
            {"url": "http://127.0.0.1:8080", "kind": "transcription"},
            "http://127.0.0.1:8080/v1/realtime/calls?intent=transcription",
            "http://127.0.0.1:8080/v1/realtime/calls",
            {"type": "transcription"},
        ),
        (
            {"url": "http://127.0.0.1:8080", "model": "m", "dialect": "beta"},
            "http://127.0.0.1:8080/v1/realtime?model=m",
            "http://127.0.0.1:8080/v1/realtime",
            {"type": "realtime", "model": "m"},
        ),
    ],
)
def test_g6_where_calls_begin(target: Any, url: str, form_url: str, session: Mapping[str, str]) -> None:
    found = address(**target)
    assert (found.url, found.form_url, found.session) == (url, form_url, session)
    assert found.calls_url.endswith("/realtime/calls")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"url": "http://127.0.0.1:1", "call_id": "rtc_1"}, "call_id attaches"),
        ({"url": "http://127.0.0.1:1", "model": "m", "kind": "translation"}, "translation"),
        (
            {
                "azure_endpoint": "https://r.openai.azure.com",
                "azure_deployment": "d",
                "api_key": "a" * 32,
                "api_version": "2025-04-01-preview",
            },
            "leave out api_version",
        ),
    ],
)
def test_g6_what_is_no_call_is_told_at_once(target: Any, said: str) -> None:
    async def main() -> None:
        with pytest.raises(LocalProtocolError, match=said):
            await vivavoce.connect(transport="webrtc", **target)

    asyncio.run(main())


def test_g6_there_are_two_transports() -> None:
    with pytest.raises(LocalProtocolError, match="'websocket' or 'webrtc'"):
        vivavoce.connect("m", transport="smoke")  # type: ignore[arg-type]


# --- what goes over HTTP ----------------------------------------------------------------------------------------------


class Door:
    """A server that takes offers apart, and refuses them all."""

    def __init__(self, status: int, body: str) -> None:
        self.status, self.body = status, body
        self.asked: list[tuple[str, dict[str, str], str]] = []
        self.answers: dict[str, str] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *fields = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        body = (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
        path = line.split()[1]
        self.asked.append((path, headers, body))
        answer = next((answer for end, answer in self.answers.items() if path.endswith(end)), None)
        status, said = (self.status, self.body) if answer is None else (200, answer)
        writer.write(
            f"HTTP/1.1 {status} Said\r\nContent-Length: {len(said)}\r\nConnection: close\r\n\r\n{said}".encode()
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def door(status: int = 404, body: str = "") -> AsyncIterator[tuple[Door, str]]:
    one = Door(status, body)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    try:
        yield one, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run it; no task may be left behind."""

    async def clean() -> None:
        await asyncio.wait_for(main, SECONDS_MAX)
        for _ in range(5):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks are left"

    asyncio.run(clean())


async def refused(url: str, **how: Any) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as failed:
        await vivavoce.connect("m", url=url, transport="webrtc", **{"open_timeout_s": 20.0, **how})
    return failed.value


def test_g6_a_plain_key_sends_a_form_and_a_short_lived_one_the_offer_as_it_is() -> None:
    async def main() -> None:
        async with door() as (one, url):
            await refused(url, api_key=SK)
            await refused(url, api_key=EK)
            await refused(url, api_key=SK, dialect="beta")
        (path, headers, form), (raw_path, raw, sdp), (beta_path, beta, beta_sdp) = one.asked
        assert path == "/v1/realtime/calls"
        assert headers["content-type"].startswith("multipart/form-data")
        assert 'name="sdp"' in form
        assert '{"type":"realtime","model":"m"}' in form
        assert headers["authorization"] == f"Bearer {SK}"
        assert raw_path == "/v1/realtime/calls?model=m"
        assert raw["content-type"] == "application/sdp"
        assert sdp.startswith("v=0")
        assert (beta_path, beta["openai-beta"]) == ("/v1/realtime?model=m", "realtime=v1")
        assert "m=audio" in beta_sdp
        assert "m=application" in beta_sdp

    run(main())


def test_g6_azure_is_called_with_a_short_lived_key_that_is_made_first() -> None:
    async def main() -> None:
        async with door() as (one, url):
            one.answers["/client_secrets"] = json.dumps({"value": EK})
            with pytest.raises(ConnectionFailed):
                await vivavoce.connect(
                    transport="webrtc",
                    azure_endpoint=url,
                    azure_deployment="mine",
                    api_key="a" * 32,
                    open_timeout_s=20.0,
                )
        (secrets_path, secrets, made), (path, headers, sdp) = one.asked
        assert (secrets_path, secrets["api-key"]) == ("/openai/v1/realtime/client_secrets", "a" * 32)
        assert json.loads(made) == {"session": {"type": "realtime", "model": "mine"}}
        assert path == "/openai/v1/realtime/calls?model=mine"
        assert headers["authorization"] == f"Bearer {EK}"
        assert "api-key" not in headers
        assert sdp.startswith("v=0")

    run(main())


def error(message: str, code: str) -> str:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", "code": code, "param": None}})


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, "", "takes no calls by WebRTC; leave out transport='webrtc'"),
        (405, "", "takes no calls by WebRTC"),
        (501, error("This server has no WebRTC", "webrtc_not_available"), "takes no calls by WebRTC"),
        (404, error("The model 'm' does not exist", "model_not_found"), "does not know the model 'm'"),
        (401, error("Incorrect API key", "invalid_api_key"), "does not know the key"),
        (400, error("Invalid SDP offer. Please try again", "invalid_offer"), "audio format in common"),
        (200, "<html>", "no SDP"),
        (200, "v=0\r\n", "no answer"),
    ],
)
def test_g6_a_refusal_says_why_and_what_to_do(status: int, body: str, said: str) -> None:
    async def main() -> None:
        async with door(status, body) as (_, url):
            failed = await refused(url, api_key=SK)
            assert said in str(failed)
            assert SK not in str(failed)
            assert failed.status == (status if status != 200 else None)

    run(main())


def test_g6_a_server_that_is_not_there_is_told_as_for_a_websocket() -> None:
    async def main() -> None:
        async with door() as (_, url):
            pass
        failed = await refused(url, reconnect=False)
        assert "refused the connection" in str(failed)
        assert "vivavoce serve" in str(failed)

    run(main())


def test_g6_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setitem(sys.modules, "vivavoce.transports.webrtc", None)
        with pytest.raises(EngineMissing, match=r"vivavoce\[webrtc\]"):
            await vivavoce.connect("m", url="http://127.0.0.1:9", transport="webrtc")

    run(main())


def test_g6_nobody_who_does_not_call_loads_webrtc() -> None:
    program = "import sys, vivavoce; vivavoce.connect('m', transport='webrtc'); print('aiortc' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


# --- connections that come and go -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """What both ends import at their first call takes its time; no test is about that."""
    with RealServer() as server:
        asyncio.run(on(server, lambda one: asyncio.sleep(0)))


async def on(server: RealServer, do: Callable[[vivavoce.Session], Any], **how: Any) -> None:
    how = {"url": server.url, "api_key": server.api_key, "open_timeout_s": 30.0, **how}
    async with vivavoce.connect("gpt-realtime", transport="webrtc", **how) as one:
        await do(one)


def transport_of(one: vivavoce.Session) -> Any:
    assert one._life is not None
    return one._life._transport


@pytest.mark.parametrize("how", ["lost", "left"])
def test_g6_a_lost_call_is_followed_by_another_that_knows_what_was(how: str) -> None:
    async def do(one: vivavoce.Session) -> None:
        response = await one.send_user_message("My name is Ada")
        assert await response.audio()  # what is lost before it was heard has not been said
        first = transport_of(one)
        restored = asyncio.ensure_future(one.wait_for("connection.restored"))
        if how == "lost":  # as where ICE finds no way any more
            first._peer.channel.end(1006, "The connection to the peer is lost.")
        else:
            await one.reconnect()
        await restored
        assert transport_of(one) is not first
        assert [view.text for view in one.get_items()] == ["My name is Ada", "echo: My name is Ada"]
        await one.update_session(turn_detection=None)
        await one.send_audio(tone(300))
        assert (await (await one.create_response()).text()).startswith("echo: audio of")
        await asyncio.wait_for(first.close(), 5)
        assert first._peer.state == "closed"

    async def main() -> None:
        with RealServer() as server:
            await on(server, do)

    run(main())


def test_g6_a_session_that_was_hung_up_is_not_called_again() -> None:
    async def main() -> None:
        with RealServer() as server:

            async def do(one: vivavoce.Session) -> None:
                await transport_of(one)._peer.close()
                async for _ in one:
                    pass
                assert not one.is_connected

            await on(server, do)

    run(main())


@pytest.mark.parametrize("key", [True, False])
def test_g6_the_server_learns_that_it_is_over(key: bool) -> None:
    async def main() -> None:
        from vivavoce.server import running
        from vivavoce.server.settings import settings_of

        said = {"host": "127.0.0.1", "port": 0, "pipeline": "scripted", "log_level": "warning"}
        async with running(settings_of({**said, "api_keys": [SK]} if key else said)) as server:
            one = vivavoce.connect("m", url=server.url, api_key=SK if key else None, transport="webrtc")
            async with one:
                assert len(server.app.state.calls) == 1
            assert len(server.app.state.calls) == 0

    run(main())


def test_g6_a_double_of_the_connection_is_enough_for_a_session() -> None:
    async def main() -> None:
        doubles: list[PeerDouble] = []

        async def dial(headers: Mapping[str, str]) -> PeerTransport:
            transport, peer = PeerTransport(), PeerDouble()
            transport.begin(peer)
            doubles.append(peer)
            created = {"type": "session.created", "event_id": "e", "session": {"type": "realtime", "id": "s"}}
            await peer.server.send(json.dumps(created).encode())
            return transport

        async with vivavoce.connect(dial=dial, transport="webrtc", reconnect=False) as one:
            await one.append_audio(tone(100))
            assert bytes(doubles[0].outlet.said) == tone(100)
            one.interrupt()
            assert "output_audio_buffer.clear" in str(await doubles[0].server.receive())

    run(main())
