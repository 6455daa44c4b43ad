"""What the relay does not look at: frames, closes, handshakes and back-pressure, between two real sockets."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
import ssl
from pathlib import Path
from typing import Any

import pytest
from certificates import self_signed
from relay_house import SERVICE_KEY, at, created, end_of, event, relayed
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus

from vivavoce.bridge.relay import upstream
from vivavoce.bridge.relay.legs import WRITE_BUFFER_BYTES_MAX

ODD = '  { "event_id" : "e1",\n "type":"future.event", "n": 1.50, "t": "\\u00e9\u00e9", "n": 2 }'
"""A message that nobody who reads and writes JSON would leave as it is."""


def test_a_message_passes_byte_for_byte_both_ways() -> None:
    async def conversation(socket: ServerConnection) -> None:
        await socket.send(ODD)

    async def main() -> None:
        async with relayed(conversation) as (service, relay), at(relay) as client:
            assert await client.recv() == ODD
            await client.send(ODD)
            await client.send([ODD[:20], ODD[20:]])  # in fragments
            await client.close(1000, "enough")
            await service.ended.wait()
            assert service.heard == [ODD, ODD]
            assert service.ends == [(1000, "enough")]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "bye"), (3000, "invalid_request_error.invalid_api_key"), (4321, "ü" * 60)]
)
def test_the_close_of_the_service_is_carried_over_after_what_it_said(code: int, reason: str) -> None:
    async def conversation(socket: ServerConnection) -> None:
        for number in range(200):
            await socket.send(json.dumps({"type": "n", "n": number, "fill": "x" * 2_000}))
        await socket.close(code, reason)

    async def main() -> None:
        async with relayed(conversation) as (_, relay), at(relay) as client:
            assert [(await event(client))["n"] for _ in range(200)] == list(range(200))
            assert await end_of(client) == (code, reason)

    asyncio.run(main())


def test_a_close_without_a_code_stays_without_one() -> None:
    async def conversation(socket: ServerConnection) -> None:
        socket.transport.write(b"\x88\x00")

    async def main() -> None:
        async with relayed(conversation) as (_, relay), at(relay) as client:
            assert await end_of(client) == (1005, "")

    asyncio.run(main())


def test_a_lost_service_is_told_as_an_error_and_1014() -> None:
    async def conversation(socket: ServerConnection) -> None:
        await created(socket)
        socket.transport.abort()

    async def main() -> None:
        async with relayed(conversation) as (_, relay), at(relay) as client:
            assert (await event(client))["type"] == "session.created"
            assert (await event(client))["error"]["code"] == "upstream_lost"
            assert (await end_of(client))[0] == 1014

    asyncio.run(main())


def test_a_lost_client_is_told_to_the_service_as_1001() -> None:
    async def main() -> None:
        async with relayed() as (service, relay), at(relay) as client:
            await event(client)
            client.transport.abort()
            await service.ended.wait()
            assert service.ends == [(1001, "")]

    asyncio.run(main())


def test_binary_messages_are_none_of_the_protocol() -> None:
    async def main() -> None:
        async with relayed() as (_, relay), at(relay) as client:
            await client.send(b"\x00")
            assert (await end_of(client))[0] == 1003

    asyncio.run(main())


@pytest.mark.parametrize("extension", [0x40, 0x20, 0x10])
def test_a_message_in_an_extension_that_nobody_agreed_upon_ends_the_session(extension: int) -> None:
    async def main() -> None:
        async with relayed() as (service, relay), at(relay) as client:
            await event(client)
            client.transport.write(bytes((0x81 | extension, 0x80 | 2)) + bytes(4) + b"{}")
            assert (await end_of(client))[0] == 1002
            await asyncio.wait_for(service.ended.wait(), 20)
            assert service.heard == []

    asyncio.run(main())


def test_a_message_that_is_too_large_ends_the_session() -> None:
    async def main() -> None:
        async with relayed(message_bytes_max=1_000) as (_, relay), at(relay) as client:
            await event(client)
            await client.send("x" * 2_000)
            assert (await end_of(client))[0] == 1009

    asyncio.run(main())


# --- handshakes -------------------------------------------------------------------------------------------------------


def test_the_service_gets_the_relays_key_and_not_what_the_client_sent() -> None:
    async def main() -> None:
        async with relayed() as (service, relay):
            headers = {"Authorization": "Bearer sk-of-the-client-12345678", "OpenAI-Beta": "realtime=v1"}
            async with at(relay, "?model=gpt-x", headers=headers) as client:
                await event(client)
            (request,) = service.requests
            assert request.path == "/v1/realtime?model=gpt-x"
            assert request.headers["Authorization"] == f"Bearer {SERVICE_KEY}"
            assert "OpenAI-Beta" not in request.headers
            assert "sk-of-the-client" not in str(request)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        ((404, {}, b'{"error":{"message":"no model","type":"t","code":"c","param":"p"}}'), (404, "no model", "c")),
        ((429, {"Retry-After": "7"}, b"slow down"), (429, "The service answered with HTTP 429.", None)),
        ((503, {}, b"<html>"), (503, "The service answered with HTTP 503.", None)),
        (
            (401, {}, b'{"error":{"message":"Incorrect API key provided: sk-s***ghij","code":"invalid_api_key"}}'),
            (502, "The service did not accept the key of the relay.", "upstream_refused"),
        ),
    ],
)
def test_a_refused_handshake_is_carried_over(answered: Any, expected: tuple[int, str, str | None]) -> None:
    async def main() -> None:
        async with relayed() as (service, relay):
            service.refusal = answered
            with pytest.raises(InvalidStatus) as refused:
                await at(relay).__aenter__()
            response = refused.value.response
            error = json.loads(response.body or b"")["error"]
            assert (response.status_code, error["message"], error["code"]) == expected
            assert response.headers.get("Retry-After") == answered[1].get("Retry-After")
            assert SERVICE_KEY[-4:] not in str(response)

    asyncio.run(main())


def test_the_authorities_are_read_once_and_not_while_sessions_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read them takes 50 ms of the event loop, and with it of every session that passes."""
    context = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))

    def read_again(*_: object, **__: object) -> ssl.SSLContext:
        raise AssertionError("the authorities are read for a session")

    async def main() -> None:
        async with serve(created, "127.0.0.1", 0, ssl=context) as service:
            port = next(iter(service.sockets)).getsockname()[1]
            async with relayed(upstream=f"https://127.0.0.1:{port}/v1") as (_, relay):
                monkeypatch.setattr(ssl, "create_default_context", read_again)
                monkeypatch.setattr(upstream, "create_default_context", read_again)
                for _ in range(2):
                    async with at(relay) as client:
                        assert (await event(client))["type"] == "session.created"

    asyncio.run(main())


def test_a_service_that_is_not_there_is_502() -> None:
    async def main() -> None:
        async with relayed(upstream=f"http://127.0.0.1:{free_port()}/v1") as (_, relay):
            with pytest.raises(InvalidStatus) as refused:
                await at(relay).__aenter__()
            assert refused.value.response.status_code == 502

    asyncio.run(main())


def test_a_service_that_does_not_answer_is_504() -> None:
    async def main() -> None:
        over = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await over.wait()
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            async with relayed(upstream=url, connect_ms_max=100) as (_, relay):
                with pytest.raises(InvalidStatus) as refused:
                    await at(relay).__aenter__()
                assert refused.value.response.status_code == 504
            over.set()

    asyncio.run(main())


def free_port() -> int:
    with sockets.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def test_what_is_no_websocket_handshake_is_answered_and_the_service_not_asked() -> None:
    async def main() -> None:
        async with relayed() as (service, relay):
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            head = "GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            writer.write(head.encode())
            assert b" 400 " in await reader.readline()
            writer.close()
            assert not service.requests
            assert len(relay.relay) == 0

    asyncio.run(main())


# --- back-pressure ----------------------------------------------------------------------------------------------------

PIECE = json.dumps({"type": "n", "fill": "x" * 60_000})
PIECES_MAX = 2_000


@pytest.mark.parametrize("who", ["client", "service"])
def test_who_does_not_read_is_not_written_for_and_ends_the_session(who: str) -> None:
    """The other side is held back after what fits into buffers, of which the relay's own is the least."""
    sent, is_over = 0, asyncio.Event()

    async def pour(socket: Any) -> None:
        nonlocal sent
        while sent < PIECES_MAX:
            await socket.send(PIECE)
            sent += 1

    async def conversation(socket: ServerConnection) -> None:
        if who == "client":
            await pour(socket)
        else:
            socket.transport.pause_reading()
            await is_over.wait()
            socket.transport.abort()

    async def main() -> None:
        async with relayed(conversation, stall_ms_max=300) as (_, relay), at(relay) as client:
            if who == "client":
                client.transport.pause_reading()
            pouring = None if who == "client" else asyncio.create_task(pour(client))
            (passage,) = relay.relay._passages.values()
            await passage._over
            assert passage.ended_by == ("client_stalled" if who == "client" else "upstream_stalled")
            assert sent < PIECES_MAX
            held = passage.bytes_down if who == "client" else passage.bytes_up
            assert held < sent * len(PIECE) + WRITE_BUFFER_BYTES_MAX
            if pouring is not None:
                pouring.cancel()
            is_over.set()
            client.transport.abort()

    asyncio.run(main())


def test_a_slow_reader_loses_and_doubles_nothing() -> None:
    async def conversation(socket: ServerConnection) -> None:
        for number in range(300):
            await socket.send(json.dumps({"type": "n", "n": number, "fill": "x" * 20_000}))
        await socket.close(1000)

    async def main() -> None:
        async with relayed(conversation) as (_, relay), at(relay, max_queue=1) as client:
            numbers = []
            async for message in client:
                numbers.append(json.loads(message)["n"])
                await asyncio.sleep(0)
            assert numbers == list(range(300))

    asyncio.run(main())
