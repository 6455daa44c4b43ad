"""The server's end of a WebSocket under any ASGI server.

A `Transport`, no more: whole messages, and `ConnectionClosed` for everything that ends a connection. Invariant: after
the end nothing is sent, as ASGI demands.
"""

from __future__ import annotations

from starlette.types import Receive, Send

from vivavoce.errors import ConnectionClosed


class AsgiTransport:
    """One WebSocket. Begin with `accept`."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._end: ConnectionClosed | None = None

    async def accept(self, subprotocol: str | None) -> None:
        """Complete the handshake. Raises `ConnectionClosed` where the client has gone already."""
        message = await self._receive()
        if message["type"] != "websocket.connect":
            self._end = ConnectionClosed(1006)
            raise self._end
        await self._say({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})

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
