from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from vivavoce.errors import ConnectionClosed
from vivavoce.server.asgi import AsgiTransport


class AsgiServer:
    """The other side of ASGI: says what it is told to, notes what it is told."""

    def __init__(self, *messages: dict[str, Any], is_gone: bool = False, extensions: Any = None) -> None:
        self._messages = list(messages)
        self.is_gone = is_gone
        self.sent: list[MutableMapping[str, Any]] = []
        self.transport = AsgiTransport({"extensions": extensions}, self.receive, self.send)

    async def receive(self) -> MutableMapping[str, Any]:
        return self._messages.pop(0)

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if self.is_gone:
            raise OSError("the client has gone")
        self.sent.append(message)


def test_text_and_binary_stay_what_they_are() -> None:
    async def main() -> None:
        server = AsgiServer(
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": "tëxt", "bytes": None},
            {"type": "websocket.receive", "bytes": b"\x00"},
            {"type": "websocket.disconnect", "code": 1000},
        )
        await server.transport.accept("realtime")
        assert [await server.transport.receive(), await server.transport.receive()] == ["tëxt", b"\x00"]
        for _ in range(2):
            with pytest.raises(ConnectionClosed, match="1000"):
                await server.transport.receive()
        with pytest.raises(ConnectionClosed, match="1000"):
            await server.transport.send(b"too late")
        await server.transport.close()
        assert [message["type"] for message in server.sent] == ["websocket.accept"]

    asyncio.run(main())


def test_a_client_that_goes_before_the_handshake_is_told() -> None:
    async def main() -> None:
        server = AsgiServer({"type": "websocket.disconnect", "code": 1006})
        with pytest.raises(ConnectionClosed, match="1006"):
            await server.transport.accept(None)

    asyncio.run(main())


def test_a_client_that_went_unseen_is_noticed_by_sending() -> None:
    async def main() -> None:
        server = AsgiServer(is_gone=True)
        with pytest.raises(ConnectionClosed, match="1006"):
            await server.transport.send(b"hello")
        await AsgiServer(is_gone=True).transport.close(1000)

    asyncio.run(main())


def test_a_close_is_said_once_and_its_reason_fits() -> None:
    async def main() -> None:
        server = AsgiServer()
        await server.transport.close(1011, "ü" * 100)
        await server.transport.close(1000)
        (closing,) = server.sent
        assert (closing["code"], closing["reason"]) == (1011, "ü" * 61)

    asyncio.run(main())


def test_a_handshake_may_be_answered_with_a_status() -> None:
    async def main() -> None:
        server = AsgiServer({"type": "websocket.connect"}, extensions={"websocket.http.response": {}})
        assert server.transport.can_deny
        await server.transport.deny(429, {"error": "later"}, {"Retry-After": "3"})
        start, body = server.sent
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 429)
        assert start["headers"] == [(b"content-type", b"application/json"), (b"retry-after", b"3")]
        assert (body["type"], body["body"]) == ("websocket.http.response.body", b'{"error":"later"}')
        await server.transport.close(1000)
        assert len(server.sent) == 2, "after the end nothing is sent"
        assert not AsgiServer().transport.can_deny

    asyncio.run(main())
