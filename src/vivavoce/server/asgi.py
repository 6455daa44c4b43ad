"""The server's end of a WebSocket under any ASGI server.

A `Transport`, no more: whole messages, and `ConnectionClosed` for everything that ends a connection. Where the ASGI
server is our own and lends its socket, that takes the place of ASGI's messages. Invariant: after the end nothing is
sent, as ASGI demands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec
from starlette.types import Receive, Scope, Send

from vivavoce.errors import ConnectionClosed
from vivavoce.transports import Transport

DENIAL = "websocket.http.response"
"""The extension of ASGI by which a handshake is answered with a status."""

DIRECT = "vivavoce.direct"
"""Our own: what gives the open WebSocket itself, once it is accepted (`Direct`)."""


class Direct(Protocol):
    """An ASGI server that lends its socket."""

    def accepted(self) -> Transport:
        """The open WebSocket. Raises `OSError` where the client has gone before it was."""
        ...


class AsgiTransport:
    """One WebSocket. Begin with `accept` or `deny`."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._end: ConnectionClosed | None = None
        extensions = scope.get("extensions") or {}
        self.can_deny = DENIAL in extensions
        self._direct: Direct | None = extensions.get(DIRECT)
        self.opened: Transport | None = None
        """What to speak to, once accepted."""

    async def accept(self, subprotocol: str | None) -> Transport:
        """Complete the handshake; what to speak to from then on. Raises `ConnectionClosed` for who has gone already."""
        await self._expect_handshake()
        await self._say({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        try:
            self.opened = self if self._direct is None else self._direct.accepted()
        except OSError as error:
            raise ConnectionClosed(1006) from error
        return self.opened

    async def deny(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        """Answer the handshake with a status and JSON, where the ASGI server can. Raises `ConnectionClosed`."""
        await self._expect_handshake()
        fields = {"content-type": "application/json", **(headers or {})}
        coded = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
        await self._say({"type": f"{DENIAL}.start", "status": status, "headers": coded})
        await self._say({"type": f"{DENIAL}.body", "body": msgspec.json.encode(body)})
        self._end = ConnectionClosed(1006)

    async def send(self, message: bytes) -> None:
        """Send one text message, UTF-8. Waits while the peer is slow. Raises `ConnectionClosed`."""
        await self._say({"type": "websocket.send", "text": message.decode()})

    async def receive(self) -> str | bytes:
        """The next message. Raises `ConnectionClosed` at the end."""
        if self._end is not None:
            raise self._end
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._end = ConnectionClosed(message.get("code") or 1005, message.get("reason") or "")
            raise self._end
        text: str | None = message.get("text")
        return text if text is not None else bytes(message["bytes"])

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send the close frame; doing it twice is harmless."""
        if self._end is None:
            try:
                await self._say({"type": "websocket.close", "code": code, "reason": _cut(reason)})
            except ConnectionClosed:
                return
            self._end = ConnectionClosed(code, reason)

    async def _expect_handshake(self) -> None:
        message = await self._receive()
        if message["type"] != "websocket.connect":
            self._end = ConnectionClosed(1006)
            raise self._end

    async def _say(self, message: dict[str, object]) -> None:
        if self._end is not None:
            raise self._end
        try:
            await self._send(message)
        except OSError as error:  # what ASGI servers raise when the client has gone
            self._end = ConnectionClosed(1006)
            raise self._end from error


def _cut(reason: str) -> str:
    """A close frame holds 123 bytes of reason (RFC 6455 §5.5)."""
    return reason.encode()[:123].decode(errors="ignore")
