"""Peers that say nothing, too little, too much or in too many pieces, and what becomes of their connections."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import SO_RCVBUF, SO_SNDBUF, SOL_SOCKET
from typing import Any

import pytest
from picows.picows import WSProtocol  # type: ignore[attr-defined]
from test_serve import is_true_soon, scripted, within_time

from vivavoce.server import Server, doors, running
from vivavoce.server.picows_door import PicowsDoor
from vivavoce.transports import websocket

pytestmark = pytest.mark.usefixtures("door")

MASK = bytes(4)
UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
)
ANSWERED = "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"
KEYS = "/v1/realtime/client_secrets"
PATH = "/v1/realtime?model=m"


@asynccontextmanager
async def peer(server: Server, said: bytes = b"") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(said)
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def socket(server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw WebSocket whose session has begun."""
    handshake = UPGRADE.format(path=PATH, headers="").encode()
    async with peer(server, handshake) as (reader, writer):
        assert b"101 Switching Protocols" in await reader.readuntil(b"\r\n\r\n")
        assert b'"session.created"' in (await receive(reader))[1]
        yield reader, writer


async def receive(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Opcode and payload of the next frame."""
    first, size = await reader.readexactly(2)
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2), "big")
    return first & 0x0F, await reader.readexactly(size)


def server_end() -> Any:
    """The server's end of the one WebSocket that there is."""
    ends = [one for one in gc.get_objects() if isinstance(one, doors.WebSocketDoor | PicowsDoor)]
    (end,) = [one for one in ends if one.transport is not None and not one.transport.is_closing()]
    return end


@pytest.mark.parametrize(
    "said",
    [
        "",
        "GET /healthz HTTP/1.1\r\nHos",
        "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\nGET /he",
        ANSWERED.format(path="/nowhere"),
        f"POST {KEYS} HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n\r\n" + "x" * 300_000,
    ],
    ids=["nothing", "half a head", "half a second head", "answered before its body came", "too large a body"],
)
def test_a_connection_without_a_request_in_work_is_dropped(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "HEAD_S_MAX", 0.1)

    async def main() -> None:
        async with running(scripted()) as server, peer(server, said.encode()) as (reader, _):
            while True:
                try:
                    if not await reader.read(65_536):
                        return
                except ConnectionResetError:
                    return

    within_time(main())


def test_a_request_in_work_and_a_session_are_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "HEAD_S_MAX", 0.01)

    async def main() -> None:
        async with running(scripted()) as server, socket(server) as (reader, writer):
            async with peer(server, ANSWERED.format(path=KEYS).encode()) as (answer, body):
                waited = asyncio.create_task(asyncio.wait_for(answer.read(1), 0.1))
                with pytest.raises(TimeoutError):
                    await waited
                body.write(b"{}" + b" " * 99_998)
                assert b"200 OK" in await answer.readuntil(b"\r\n\r\n")
            writer.write(bytes([0x81, 0x80 | 2]) + MASK + b"{}")
            assert b'"error"' in (await receive(reader))[1]

    within_time(main())


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/realtime?model=" + "m" * 9_000, ""),
        ("/v1/realtime?model=m", f"Authorization: Bearer {'k' * 9_000}\r\n"),
        ("/v1/realtime?model=m", "".join(f"X-{n}: 1\r\n" for n in range(200))),
    ],
    ids=["long URL", "long header", "many headers"],
)
def test_a_handshake_that_is_too_large_is_answered_and_closed(path: str, headers: str) -> None:
    async def main() -> None:
        handshake = UPGRADE.format(path=path, headers=headers).encode()
        async with running(scripted()) as server, peer(server, handshake) as (reader, _):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 431 ")
            assert "8192 bytes" in json.loads(body)["error"]["message"]

    within_time(main())


def test_a_message_of_too_many_fragments_closes_with_1009(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (doors, websocket):
        monkeypatch.setattr(module, "FRAGMENTS_MAX", 10)

    async def main() -> None:
        async with running(scripted()) as server, socket(server) as (reader, writer):
            begin, part, end = (bytes([code, 0x80 | 1]) + MASK for code in (0x01, 0x00, 0x80))
            writer.write(begin + b"{" + (part + b" ") * 8 + end + b"}")
            assert b'"error"' in (await receive(reader))[1]
            writer.write(begin + b"{" + (part + b" ") * 20 + end + b"}")
            assert await receive(reader) == (8, (1009).to_bytes(2, "big") + b"message of more than 10 fragments")
            assert await is_true_soon(lambda: not len(server.app.state.sessions))

    within_time(main())


def test_pongs_are_not_kept_for_a_peer_that_does_not_read() -> None:
    ping = bytes([0x89, 0x80 | 125]) + MASK + bytes(125)

    async def main() -> None:
        async with running(scripted(ping_interval_ms=0)) as server, socket(server) as (reader, writer):
            door = server_end()
            writer.write(ping)
            assert await receive(reader) == (10, bytes(125))
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            for end in (door.transport, writer):  # else the kernel may hold all of it
                end.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, 32_768)
                end.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_RCVBUF, 32_768)
            most = 0
            for _ in range(400):
                writer.write(ping * 200)
                await writer.drain()
                most = max(most, door.transport.get_write_buffer_size())
            assert 0 < most < 200_000, "of 10 MB"

    within_time(main())


def test_a_handshake_refused_by_status_is_no_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        for path in ("/nowhere", "/v1/realtime"):
            handshake = UPGRADE.format(path=path, headers="").encode()
            async with running(scripted(refusals="http")) as server, peer(server, handshake) as (reader, _):
                assert (await reader.read()).startswith(b"HTTP/1.1 40")

    with caplog.at_level(logging.WARNING):
        within_time(main())
    assert not caplog.records


def test_each_door_speaks_what_its_name_says(door: str) -> None:
    async def main() -> None:
        async with running(scripted()) as server, socket(server):
            speaks = type(server_end().transport.get_protocol())
            assert issubclass(speaks, WSProtocol if door == "picows" else doors.WebSocketDoor)

    within_time(main())
