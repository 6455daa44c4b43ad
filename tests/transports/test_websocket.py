"""The client's WebSocket, against servers that are not ours: the `websockets` package, and hand-written bytes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hashlib
import logging
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from certificates import self_signed
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from vivavoce.errors import ConnectionClosed, ConnectionFailed, LocalProtocolError
from vivavoce.transports import Transport, websocket
from vivavoce.transports.websocket import SocketLimits, WebSocket, dial

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA


def run(main: Coroutine[Any, Any, None]) -> None:
    async def within_time() -> None:
        async with asyncio.timeout(20):
            await main

    asyncio.run(within_time())


@contextlib.asynccontextmanager
async def server(behaviour: Callable[[ServerConnection], Awaitable[None]], **options: Any) -> AsyncIterator[str]:
    async with serve(behaviour, "127.0.0.1", 0, compression=None, **options) as serving:
        yield f"ws://127.0.0.1:{next(iter(serving.sockets)).getsockname()[1]}/v1/realtime"


Raw = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def raw_server(behaviour: Raw, *, answer: bytes | None = None) -> AsyncIterator[str]:
    """A TCP server that reads the handshake and gives `answer`, or accepts it and goes on with `behaviour`."""
    done: list[asyncio.Task[None]] = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        done.append(task)
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            key = next(line[18:].strip() for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key:"))
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            writer.write(upgrade + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" if answer is None else answer)
            await behaviour(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1/realtime"
    finally:
        listening.close()
        for task in done:
            task.cancel()
        await asyncio.gather(*done, return_exceptions=True)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, first_bits: int = 0) -> bytes:
    """A frame as a server sends it."""
    first = opcode | (0x80 if fin else 0) | first_bits
    if len(payload) < 126:
        return bytes([first, len(payload)]) + payload
    if len(payload) < 1 << 16:
        return bytes([first, 126]) + struct.pack(">H", len(payload)) + payload
    return bytes([first, 127]) + struct.pack(">Q", len(payload)) + payload


def says(*frames: bytes) -> Raw:
    """Sends the bytes, then listens until the peer closes."""

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in frames:
            writer.write(part)
            await writer.drain()
        await silent(reader, writer)

    return behaviour


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def listen(connection: ServerConnection) -> None:
    async for _ in connection:
        pass


async def wait(connection: ServerConnection) -> None:
    await connection.wait_closed()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says nothing, and hangs up when the peer closes."""
    while (data := await reader.read(4096)) and data[0] != 0x80 | CLOSE:
        pass


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says nothing and reads nothing."""
    await asyncio.Event().wait()


async def closed(waiting: Awaitable[object]) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as ended:
        await waiting
    return ended.value.code, ended.value.reason


async def refused(url: str, **options: Any) -> str:
    with pytest.raises(ConnectionFailed) as failure:
        await dial(url, **options)
    return str(failure.value)


# --- messages ---------------------------------------------------------------------------------------------------------


def test_text_goes_out_and_comes_back_as_text() -> None:
    async def main() -> None:
        async with server(echo) as url:
            connection: Transport = await dial(url)
            for message in ("größer 🙂", "", "x" * 200_000):
                await connection.send(message.encode())
                assert await connection.receive() == message
            await connection.close()

    run(main())


def test_binary_comes_as_bytes() -> None:
    async def behaviour(connection: ServerConnection) -> None:
        await connection.send(b"\x00\xff")
        await connection.wait_closed()

    async def main() -> None:
        async with server(behaviour) as url:
            connection = await dial(url)
            assert await connection.receive() == b"\x00\xff"
            await connection.close()

    run(main())


def test_fragments_are_joined_around_a_ping_which_is_answered() -> None:
    async def main() -> None:
        pong = asyncio.get_running_loop().create_future()

        async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(TEXT, "grö".encode()[:3], fin=False) + frame(PING, b"there?"))
            first, second = await reader.readexactly(2)
            mask = await reader.readexactly(4)
            payload = await reader.readexactly(second & 0x7F)
            pong.set_result((first, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))))
            writer.write(frame(CONTINUATION, "grö".encode()[3:], fin=False) + frame(CONTINUATION, b"!"))
            writer.write(frame(TEXT, b"next"))
            await silent(reader, writer)

        async with raw_server(behaviour) as url:
            connection = await dial(url)
            assert await connection.receive() == "grö!"
            assert await connection.receive() == "next"
            assert await pong == (0x80 | PONG, b"there?")
            await connection.close()

    run(main())


def test_every_byte_may_come_alone() -> None:
    async def main() -> None:
        wire = frame(TEXT, b"a" * 130) + frame(BINARY, b"b", fin=False) + frame(CONTINUATION, b"c") + frame(CLOSE)
        async with raw_server(says(*(wire[at : at + 1] for at in range(len(wire))))) as url:
            connection = await dial(url)
            assert await connection.receive() == "a" * 130
            assert await connection.receive() == b"bc"
            assert await closed(connection.receive()) == (1005, "")
            await connection.close()

    run(main())


# --- handshake --------------------------------------------------------------------------------------------------------


def test_headers_and_subprotocols_are_offered() -> None:
    async def main() -> None:
        seen: dict[str, str] = {}

        def look(connection: ServerConnection, request: Request) -> None:
            seen.update(request.headers.raw_items())

        async with server(echo, process_request=look, subprotocols=["realtime"]) as url:
            connection = await dial(
                url + "?model=m", headers={"Authorization": "Bearer k"}, subprotocols=("realtime", "other")
            )
            assert (seen["Authorization"], seen["Sec-WebSocket-Protocol"]) == ("Bearer k", "realtime, other")
            assert connection.subprotocol == "realtime"
            assert connection.response_headers["upgrade"] == "websocket"
            await connection.close()

    run(main())


def test_no_subprotocol_chosen_is_none() -> None:
    async def main() -> None:
        async with server(echo) as url:
            connection = await dial(url)
            assert connection.subprotocol is None
            await connection.close()

    run(main())


def test_a_subprotocol_that_was_not_offered_is_refused() -> None:
    def choose(connection: ServerConnection, request: Request, response: Response) -> Response:
        response.headers["Sec-WebSocket-Protocol"] = "surprise"
        return response

    async def main() -> None:
        async with server(wait, process_response=choose) as url:
            assert "'surprise', which was not offered" in await refused(url)

    run(main())


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            401,
            '{"error": {"message": "Incorrect API key."}}',
            ["HTTP 401 Unauthorized: Incorrect API key."],
        ),
        (404, "<html>nothing here</html>", ["HTTP 404 Not Found", "check the path", "<html>nothing here</html>"]),
        (418, "", ["HTTP 418", "check the model name"]),
        (429, '{"error": "slow down"}', ["HTTP 429", "quota", '{"error": "slow down"}']),
        (507, "x" * 1_000, ["HTTP 507", "server has failed", "x" * 300]),
    ],
)
def test_an_http_error_says_status_and_body_and_a_likely_cause_where_that_names_none(
    status: int, body: str, expected: list[str]
) -> None:
    def answer(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(status, body)

    async def main() -> None:
        async with server(echo, process_request=answer) as url:
            message = await refused(url + "?api-key=secret")
            for part in expected:
                assert part in message
            assert "x" * 301 not in message
            assert "secret" not in message

    run(main())


def test_a_redirect_is_not_followed_but_shown() -> None:
    async def main() -> None:
        answer = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: wss://elsewhere.invalid/\r\nContent-Length: 0\r\n\r\n"
        async with raw_server(silent, answer=answer) as url:
            assert "(wss://elsewhere.invalid/)" in await refused(url, headers={"Authorization": "Bearer k"})

    run(main())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "unknown protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", r"HTTP 200 OK .not a WebSocket endpoint.: ok"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            "sec-websocket-accept",
        ),
    ],
)
def test_what_is_no_websocket_server_is_told(answer: bytes, expected: str) -> None:
    async def main() -> None:
        async with raw_server(silent, answer=answer) as url:
            with pytest.raises(ConnectionFailed, match=expected):
                await dial(url)

    run(main())


def test_a_server_that_hangs_up() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def main() -> None:
        async with raw_server(hang_up, answer=b"") as url:
            assert "hung up before it answered" in await refused(url)

    run(main())


def test_nobody_listens() -> None:
    async def main() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            assert "refused the connection; is a server running there?" in await refused(f"ws://127.0.0.1:{port}/")

    run(main())


def test_plain_text_where_tls_was_expected() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(plain, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            assert "is TLS spoken there?" in await refused(f"wss://127.0.0.1:{port}/")

    run(main())


def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    async def main() -> None:
        async with server(echo, ssl=self_signed(tmp_path)) as url:
            url = url.replace("ws://", "wss://")
            message = await refused(url)
            assert "not trusted: self" in message
            connection = await dial(url, ssl=ssl.create_default_context(cafile=tmp_path / "certificate.pem"))
            await connection.send(b"in private")
            assert await connection.receive() == "in private"
            await connection.close()

    run(main())


def test_the_systems_trust_is_read_once_in_a_thread_and_anew_where_the_environment_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, readers = ssl.create_default_context, list[threading.Thread]()

    def noted() -> ssl.SSLContext:
        readers.append(threading.current_thread())
        return make()

    async def main() -> None:
        async with server(echo, ssl=self_signed(tmp_path)) as url:
            url = url.replace("ws://", "wss://")
            monkeypatch.setattr(ssl, "create_default_context", noted)
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
            for one in await asyncio.gather(dial(url), dial(url)):
                await one.close()
            assert len(readers) == 1
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nothing.pem"))
            assert "not trusted: self" in await refused(url)
            assert len(readers) == 2
            assert threading.main_thread() not in readers, "which has other sessions to look after"

    run(main())


def test_an_unanswered_handshake_times_out_and_leaves_no_socket() -> None:
    async def main() -> None:
        hung_up = asyncio.Event()

        async def until_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await silent(reader, writer)
            hung_up.set()

        async with raw_server(until_gone, answer=b"") as url:
            assert "did not answer within 0.05 s" in await refused(url, open_timeout_s=0.05)
            await hung_up.wait()

    run(main())


def test_a_cancelled_handshake_leaves_no_socket() -> None:
    async def main() -> None:
        waiting, hung_up = asyncio.Event(), asyncio.Event()

        async def until_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            waiting.set()
            await silent(reader, writer)
            hung_up.set()

        async with raw_server(until_gone, answer=b"") as url:
            dialling = asyncio.create_task(dial(url, open_timeout_s=60))
            await waiting.wait()
            dialling.cancel()
            await asyncio.gather(dialling, return_exceptions=True)
            assert dialling.cancelled()
            await hung_up.wait()

    run(main())


@pytest.mark.parametrize(
    ("url", "headers", "expected"),
    [
        ("http://127.0.0.1/", {}, "is no WebSocket URL"),
        ("ws:///v1", {}, "is no WebSocket URL"),
        ("ws://me:pw@127.0.0.1/", {}, "credentials in the URL are not sent"),
        ("ws://127.0.0.1/", {"Authorization": "Bearer k\r\nX: y"}, "'Authorization' has a line break"),
        ("ws://127.0.0.1/ a\rb", {}, "is no WebSocket URL|'URL' has|cannot connect"),
        ("ws://127.0.0.1:99999/", {}, "cannot connect to ws://127.0.0.1:99999/"),
    ],
)
def test_what_cannot_be_dialled(url: str, headers: dict[str, str], expected: str) -> None:
    with pytest.raises(ConnectionFailed, match=expected) as failure:
        asyncio.run(dial(url, headers=headers))
    assert "Bearer" not in str(failure.value)
    assert "pw" not in str(failure.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_through_an_http_proxy(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, readers = ssl.create_default_context, list[threading.Thread]()

    def noted() -> ssl.SSLContext:
        readers.append(threading.current_thread())
        return make()

    async def main() -> None:
        secured = self_signed(tmp_path) if scheme == "https" else None
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        monkeypatch.setattr(ssl, "create_default_context", noted)
        asked: list[bytes] = []
        tasks: list[asyncio.Task[None]] = []

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(4096):
                writer.write(data)
            writer.close()

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
            host, port = asked[-1].split(b" ")[1].decode().split(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            tasks.append(asyncio.create_task(pump(far_reader, writer)))
            await pump(reader, far_writer)

        async with server(echo) as url, await asyncio.start_server(proxy, "127.0.0.1", 0, ssl=secured) as listening:
            port = listening.sockets[0].getsockname()[1]
            for _ in range(2):
                connection = await dial(url, proxy=f"{scheme}://127.0.0.1:{port}")
                await connection.send(b"far")
                assert await connection.receive() == "far"
                await connection.close()
                await asyncio.gather(*tasks)
            assert asked[1].startswith(b"CONNECT 127.0.0.1:")
            assert len(readers) == (scheme == "https"), "the system's trust is read once"
            assert threading.main_thread() not in readers, "which has other sessions to look after"

    run(main())


def test_a_proxy_that_refuses() -> None:
    async def main() -> None:
        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(proxy, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            message = await refused("ws://example.invalid/", proxy=f"http://me:secret@127.0.0.1:{port}")
            assert f"through proxy http://127.0.0.1:{port}" in message
            assert "403" in message
            assert "secret" not in message

    run(main())


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going"), (4001, "größer"), (1013, "later")])
def test_the_peers_close_comes_after_its_messages_with_code_and_reason(code: int, reason: str) -> None:
    async def behaviour(connection: ServerConnection) -> None:
        await connection.send("last words")
        await connection.close(code, reason)

    async def main() -> None:
        async with server(behaviour) as url:
            connection = await dial(url)
            assert await connection.receive() == "last words"
            assert await closed(connection.receive()) == (code, reason)
            assert await closed(connection.send(b"late")) == (code, reason)
            await connection.close()
            assert await closed(connection.receive()) == (code, reason)

    run(main())


@pytest.mark.parametrize(
    ("code", "reason", "heard"), [(1000, "", ""), (4123, "ü" * 100, "ü" * 61), (3000, "bye", "bye")]
)
def test_our_close_reaches_the_peer_and_ends_our_own_waiting(code: int, reason: str, heard: str) -> None:
    async def main() -> None:
        told: asyncio.Future[tuple[int | None, str | None]] = asyncio.get_running_loop().create_future()

        async def behaviour(connection: ServerConnection) -> None:
            await connection.wait_closed()
            told.set_result((connection.close_code, connection.close_reason))

        async with server(behaviour) as url:
            connection = await dial(url)
            waiting = asyncio.create_task(connection.receive())
            await asyncio.sleep(0)
            await connection.close(code, reason)
            assert await closed(waiting) == (code, reason)
            assert await told == (code, heard)
            await connection.close(1001, "again")
            assert await closed(connection.send(b"late")) == (code, reason)

    run(main())


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 5000])
def test_codes_that_cannot_be_sent(code: int) -> None:
    async def main() -> None:
        async with server(echo) as url:
            connection = await dial(url)
            with pytest.raises(LocalProtocolError, match=f"close code {code} cannot be sent"):
                await connection.close(code)
            await connection.close()

    run(main())


def test_close_gives_up_on_a_peer_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT_S", 0.05)

    async def main() -> None:
        async with raw_server(deaf) as url:
            connection = await dial(url)
            await connection.close()
            assert await closed(connection.receive()) == (1000, "")

    run(main())


def test_a_lost_connection_is_1006() -> None:
    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(TEXT, b"only this"))
        await writer.drain()
        writer.close()

    async def main() -> None:
        async with raw_server(drop) as url:
            connection = await dial(url)
            assert await connection.receive() == "only this"
            assert await closed(connection.receive()) == (1006, "the connection was lost without a goodbye")
            await connection.close()

    run(main())


@pytest.mark.parametrize(
    ("wire", "code", "reason"),
    [
        (frame(TEXT, b"\xff\xfe"), 1007, "UTF-8"),
        (frame(TEXT, "grö".encode()[:3]), 1007, "UTF-8"),
        (frame(CONTINUATION, b"x"), 1002, "out of order"),
        (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002, "out of order"),
        (frame(TEXT, b"x", first_bits=0x40), 1002, "extension"),
        (frame(TEXT, b"x" * 1_001), 1009, "1001 > 1000"),
        (frame(TEXT, b"x" * 600, fin=False) + frame(CONTINUATION, b"x" * 600), 1009, "exceeds 1000 bytes"),
        (b"\x81\x80mask", 1002, "masked"),
    ],
)
def test_a_peer_that_breaks_the_protocol_is_told_and_left(wire: bytes, code: int, reason: str) -> None:
    async def main() -> None:
        told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(wire)
            first, second = await reader.readexactly(2)
            assert first == 0x80 | CLOSE
            mask = await reader.readexactly(4)
            payload = await reader.readexactly(second & 0x7F)
            told.set_result(bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)))

        async with raw_server(behaviour) as url:
            connection = await dial(url, limits=SocketLimits(message_bytes_max=1_000))
            ended_code, ended_reason = await closed(connection.receive())
            assert ended_code == code
            assert reason in ended_reason
            assert struct.unpack(">H", (await told)[:2]) == (code,)
            await connection.close()

    run(main())


def test_a_connection_that_broke_may_be_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with raw_server(says(frame(TEXT, b"x" * 1_001))) as url:
            connection = await dial(url, limits=SocketLimits(message_bytes_max=1_000))
            await closed(connection.receive())

    run(main())
    gc.collect()
    assert "never retrieved" not in caplog.text


# --- limits -----------------------------------------------------------------------------------------------------------


def test_reading_stops_when_nobody_receives_and_goes_on_later() -> None:
    total, message = 3_000, "x" * 10_000

    async def main() -> None:
        begun, finished = asyncio.Event(), asyncio.Event()

        async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(total):
                writer.write(frame(TEXT, message.encode()))
                await writer.drain()
                begun.set()
            finished.set()
            await silent(reader, writer)

        async with raw_server(behaviour) as url:
            connection = await dial(url, limits=SocketLimits(inbox_messages_max=8))
            await begun.wait()
            for _ in range(3_000):  # turns of the loop, in which everything could be read if nothing held it back
                await asyncio.sleep(0)
            assert not finished.is_set()
            for _ in range(total):
                assert await connection.receive() == message
            assert finished.is_set()
            await connection.close()

    run(main())


def watch_pausing(connection: WebSocket, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when the write buffer is over its limit."""
    paused = asyncio.Event()
    pause = connection.pause_writing
    monkeypatch.setattr(connection, "pause_writing", lambda: (pause(), paused.set()))
    return paused


def test_send_waits_while_the_peer_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    message, count = b"x" * 65_536, 200

    async def main() -> None:
        go_on = asyncio.Event()
        sent = 0

        async def late_reader(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await go_on.wait()
            await reader.readexactly(count * (len(message) + 14))

        async with raw_server(late_reader) as url:
            connection = await dial(url)
            paused = watch_pausing(connection, monkeypatch)

            async def flood() -> None:
                nonlocal sent
                for _ in range(count):
                    await connection.send(message)
                    sent += 1

            flooding = asyncio.create_task(flood())
            await paused.wait()
            for _ in range(100):
                await asyncio.sleep(0)
            assert sent < count
            assert not flooding.done()
            assert connection._transport.underlying_transport.get_write_buffer_size() <= 256 * 1024 + 65_536 + 14
            go_on.set()
            await flooding
            assert await closed(connection.receive()) == (1006, "the connection was lost without a goodbye")

    run(main())


def test_a_close_wakes_a_waiting_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT_S", 0.05)

    async def main() -> None:
        async def flood(connection: WebSocket) -> None:
            while True:
                await connection.send(b"x" * 65_536)

        async with raw_server(deaf) as url:
            connection = await dial(url)
            paused = watch_pausing(connection, monkeypatch)
            flooding = asyncio.create_task(flood(connection))
            await paused.wait()
            await connection.close(1001, "enough")
            assert await closed(flooding) == (1001, "enough")

    run(main())


# --- pings ------------------------------------------------------------------------------------------------------------


def test_a_peer_that_answers_no_ping_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "PING_IDLE_S", 0.05)
    monkeypatch.setattr(websocket, "PONG_TIMEOUT_S", 0.05)

    async def main() -> None:
        async with raw_server(silent) as url:
            connection = await dial(url)
            code, reason = await closed(connection.receive())
            assert code == 1006, "lost, not closed: a stream that outlives connections goes on over another"
            assert "ping" in reason

    run(main())


def test_a_full_inbox_is_no_reason_to_give_the_peer_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "PING_IDLE_S", 0.05)
    monkeypatch.setattr(websocket, "PONG_TIMEOUT_S", 0.05)

    async def main() -> None:
        async with raw_server(says(frame(TEXT, b"1"), frame(TEXT, b"2"))) as url:
            connection = await dial(url, limits=SocketLimits(inbox_messages_max=2))
            rounds = 0
            ping = connection.send_user_specific_ping
            enough = asyncio.Event()

            def count(transport: Any) -> None:
                nonlocal rounds
                rounds += 1
                ping(transport)
                if rounds == 3:
                    enough.set()

            monkeypatch.setattr(connection, "send_user_specific_ping", count)
            await enough.wait()
            assert await connection.receive() == "1"
            await connection.close()

    run(main())


def test_nothing_is_logged_above_info(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with server(listen) as url:
            connection = await dial(url)
            for _ in range(100):
                await connection.send(b"x" * 65_536)
            await connection.close()

    run(main())
    assert [
        record
        for record in caplog.records
        if record.name.startswith(("picows", "asyncio")) and record.levelno > logging.INFO
    ] == []
