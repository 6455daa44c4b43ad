"""The server's end of a WebSocket under any ASGI server.

A `Transport`, no more: whole messages, and `ConnectionClosed` for everything that ends a connection. Where the ASGI
server is our own and gives its socket away, that takes the place of ASGI's messages. Invariant: after the end nothing
is sent, as ASGI demands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, Protocol

import msgspec
from picows import WSListener
from starlette.types import Message, Receive, Scope, Send

from vivavoce.errors import ConnectionClosed
from vivavoce.protocol.codec import FRAME_BYTES_MAX
from vivavoce.transports import Transport
from vivavoce.transports.inbox import Sink
from vivavoce.transports.websocket import SocketLimits, WebSocket

DENIAL = "websocket.http.response"
"""The extension of ASGI by which a handshake is answered with a status."""

DIRECT = "vivavoce.direct"
"""Our own extension: the connection as one that can be given away (`Direct`)."""

LIMITS: Final = SocketLimits(
    message_bytes_max=FRAME_BYTES_MAX,
    inbox_messages_max=16,
    inbox_bytes_max=64 * 1024,
    write_buffer_bytes_max=64 * 1024,
)
"""The inbox of a session has limits of its own; this one is for what arrives while that is full."""


class Peer(Protocol):
    """Who may be given a socket, besides being a listener of picows. Pings of the peer are for it to answer."""

    has_heard: bool
    """Set with every frame of the peer; unset by whoever watches whether it lives."""

    @property
    def is_held_back(self) -> bool:
        """Whether the peer is not read, so that its silence says nothing."""
        ...

    def give_up(self, code: int, reason: str) -> None:
        """Close at once: nobody answers there, or the server stops."""
        ...


class Direct(Protocol):
    """A connection of an ASGI server that gives its socket away when the handshake is accepted."""

    on_lost: Callable[[], object] | None
    """Called where the client goes before that."""

    @property
    def message_bytes_max(self) -> int:
        """Size of a message."""
        ...

    def give_to(self, listener: WSListener) -> None:
        """Whose the socket is from then on; it is a `Peer` as well."""
        ...

    @property
    def is_given(self) -> bool:
        """Whether it has changed hands; not where the client went before."""
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
        self.can_give = self._direct is not None
        """Whether `give` is to be had."""
        self.opened: Transport | None = None
        """What to speak to, once accepted."""

    async def accept(self, subprotocol: str | None) -> Transport:
        """Complete the handshake; what to speak to from then on. Raises `ConnectionClosed` for who has gone already."""
        if self._direct is not None:
            websocket = WebSocket(replace(LIMITS, message_bytes_max=self._direct.message_bytes_max))
            await self.give(websocket, subprotocol)
            self.opened = websocket
        else:
            await self._accept(subprotocol)
            self.opened = self
        return self.opened

    async def give(self, listener: WSListener, subprotocol: str | None) -> None:
        """Complete the handshake, and give the socket to this listener, which is a `Peer`; see `can_give`.

        Raises `ConnectionClosed` for who has gone already.
        """
        assert self._direct is not None
        self._direct.give_to(listener)
        await self._accept(subprotocol)
        if not self._direct.is_given:
            raise ConnectionClosed(1006)

    @contextmanager
    def attending(self) -> Iterator[None]:
        """Where the client goes before its handshake is answered, cancel what the block does.

        Raises `ConnectionClosed` then. Only our own server says so; others leave it to the answer to find out.
        """
        if self._direct is None:
            yield
            return
        task, has_gone = asyncio.current_task(), False
        assert task is not None
        before = task.cancelling()

        def gone() -> None:
            nonlocal has_gone
            has_gone = True
            task.cancel()

        self._direct.on_lost = gone
        try:
            yield
        except asyncio.CancelledError:
            if has_gone and task.uncancel() <= before:
                raise ConnectionClosed(1006) from None
            raise
        finally:
            self._direct.on_lost = None

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
        return self._heard(await self._receive())

    async def forward(self, sink: Sink) -> None:
        """Hand every message to `sink`, until it returns False. Raises as `receive`, and what `sink` raises."""
        while self._end is None:
            if not sink(self._heard(await self._receive())):
                return
        raise self._end

    def _heard(self, message: Message) -> str | bytes:
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

    async def _accept(self, subprotocol: str | None) -> None:
        await self._expect_handshake()
        await self._say({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})

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
