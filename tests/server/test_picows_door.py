"""What only the door on picows does; all that both do is in the tests that use the fixture `door`."""

from __future__ import annotations

import asyncio
import logging

import pytest
from test_doors import MASK, PATH, UPGRADE, peer, receive, server_end, socket
from test_serve import is_true_soon, scripted, until, within_time
from websockets.asyncio.client import connect as ws_connect

from vivavoce.server import picows_door, running
from vivavoce.server.asgi import AsgiTransport
from vivavoce.transports import Transport

PICOWS = scripted(websocket="picows")
EMPTY_EVENT = bytes([0x81, 0x80 | 2]) + MASK + b"{}"


@pytest.mark.parametrize("is_too_much", [False, True])
def test_what_is_said_before_the_handshake_is_answered_is_heard_after_it(
    is_too_much: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = AsgiTransport.accept
    is_asked, may_accept = asyncio.Event(), asyncio.Event()

    async def accept_late(self: AsgiTransport, subprotocol: str | None) -> Transport:
        is_asked.set()
        await may_accept.wait()
        return await accept(self, subprotocol)

    monkeypatch.setattr(AsgiTransport, "accept", accept_late)

    async def main() -> None:
        async with running(PICOWS) as server, peer(server, UPGRADE.format(path=PATH, headers="").encode()) as ends:
            reader, writer = ends
            await is_asked.wait()
            end = server_end()
            count = picows_door.EARLY_BYTES_MAX // len(EMPTY_EVENT) + 1 if is_too_much else 3
            writer.write(EMPTY_EVENT * count)
            if is_too_much:
                assert await reader.read() == b"", "dropped without a word"
                may_accept.set()
                return
            assert await is_true_soon(lambda: len(end._early) == count * len(EMPTY_EVENT))
            may_accept.set()
            await reader.readuntil(b"\r\n\r\n")
            answers = [(await receive(reader))[1] for _ in range(1 + count)]
            assert [b'"error"' in answer for answer in answers] == [False, *[True] * count]

    within_time(main())


def test_a_client_that_compresses_is_served_as_ever() -> None:
    async def main() -> None:
        async with running(scripted(websocket="picows", compression=True)) as server:
            url = f"ws://{server.host}:{server.port}{PATH}"
            async with ws_connect(url, compression="deflate", proxy=None) as client:
                await until(client, "session.created")
                await client.send('{"type": "input_audio_buffer.clear"}')
                await until(client, "input_audio_buffer.cleared")
                assert client.protocol.extensions

    within_time(main())


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\x81\x02{}", 1002),
        (b"\x8b\x80" + MASK, 1002),
        (b"\xc1\x82" + MASK + b"{}", 1002),
        (b"\x81\x81" + MASK + b"\xff", 1007),
        (b"\x81\xff" + (2**40).to_bytes(8, "big") + MASK, 1009),
    ],
    ids=["no mask", "no such opcode", "no such extension", "no UTF-8", "too long"],
)
def test_who_breaks_the_protocol_is_told_and_the_log_is_not(
    wire: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with running(PICOWS) as server, socket(server) as (reader, writer):
            writer.write(wire)
            opcode, payload = await receive(reader)
            assert (opcode, int.from_bytes(payload[:2], "big")) == (8, code)
            assert await reader.read() == b""
            assert await is_true_soon(lambda: not len(server.app.state.sessions))

    with caplog.at_level(logging.INFO):
        within_time(main())
    assert not [record for record in caplog.records if record.name.startswith("picows")]


@pytest.mark.parametrize("answers", [True, False])
def test_a_peer_that_answers_no_ping_is_given_up(answers: bool) -> None:
    async def main() -> None:
        async with running(scripted(websocket="picows", ping_interval_ms=20)) as server, socket(server) as ends:
            reader, writer = ends
            for _ in range(4):
                opcode, payload = await receive(reader)
                if not answers:
                    break
                assert (opcode, payload) == (9, b"")
                writer.write(b"\x8a\x80" + MASK)
            else:
                return
            assert await receive(reader) == (8, (1011).to_bytes(2, "big") + b"keepalive ping timeout")
            assert await reader.read() == b""

    within_time(main())


def test_what_comes_with_the_head_is_heard() -> None:
    async def main() -> None:
        said = UPGRADE.format(path=PATH, headers="").encode() + EMPTY_EVENT
        async with running(PICOWS) as server, peer(server, said) as (reader, _):
            await reader.readuntil(b"\r\n\r\n")
            answers = [(await receive(reader))[1] for _ in range(2)]
            assert [b'"error"' in answer for answer in answers] == [False, True]

    within_time(main())


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="),
        ("dGhlIHNhbXBsZSBub25jZQ==", "no base64!"),
        ("Version: 13", "Version: 8"),
        ("GET ", "POST "),
        ("Host: h", "Host: h\r\nSec-WebSocket-Protocol: a b"),
        ("Host: h", "Host: h\r\nContent-Length: 3"),
    ],
)
def test_what_is_no_handshake_is_refused_by_a_status(was: str, becomes: str) -> None:
    async def main() -> None:
        said = UPGRADE.format(path=PATH, headers="").replace(was, becomes).encode()
        async with running(PICOWS) as server, peer(server, said) as (reader, _):
            assert (await reader.readline()).startswith(b"HTTP/1.1 4")
            assert not len(server.app.state.sessions)

    within_time(main())


def test_subprotocols_in_two_headers_are_one_list() -> None:
    async def main() -> None:
        offered = "Sec-WebSocket-Protocol: other\r\nSec-WebSocket-Protocol: realtime\r\n"
        said = UPGRADE.format(path=PATH, headers=offered).encode()
        async with running(PICOWS) as server, peer(server, said) as (reader, _):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b" 101 " in head
            assert b"sec-websocket-protocol: realtime" in head

    within_time(main())
