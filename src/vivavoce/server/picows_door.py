"""The faster door: uvicorn's handshake, picows' WebSocket. The relay has it, the phone, and the server by a setting.

uvicorn reads the head of every request, answers HTTP and asks the app about a WebSocket, so that routes, keys and
refusals are those of the other door. Where the app accepts, the connection changes hands: picows parses what comes from
then on, and the listener that the app named speaks to the socket itself, past ASGI. A client that compresses stays at
uvicorn's door, since picows does not. Invariant: uvicorn knows of the connection until its socket is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, Final

from picows import WSAutoPingStrategy, WSListener, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]
from uvicorn._types import ASGISendEvent
from websockets.frames import CloseCode
from websockets.http11 import Request

from .asgi import DIRECT, Peer
from .doors import WebSocketDoor

EARLY_BYTES_MAX = 64 * 1024
"""What a client may say before its handshake is answered. Then the connection is dropped."""

READ_BUFFER_BYTES = 2 * 1024
"""To begin with. It doubles where a message does not fit, up to twice the largest message, and stays as it is."""

_HEAD: Final = (
    "GET / HTTP/1.1\r\nHost: -\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: {key}\r\n\r\n"
)
"""As much of the client's head as picows needs; uvicorn has read the rest, and found it good."""


class _Quiet(logging.LoggerAdapter[logging.Logger]):
    """picows calls it an error when a peer breaks the rules; that is what a server is for. Ours come with a trace."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        super().log(level if kwargs.get("exc_info") else logging.DEBUG, msg, *args, **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs


_log = _Quiet(logging.getLogger("picows.server"), {})


class PicowsDoor(WebSocketDoor):
    """A connection that is uvicorn's until its WebSocket is accepted, and picows' from then on."""

    on_lost: Callable[[], object] | None = None
    _owner: WSListener | None = None
    _early: bytearray | None = None
    is_given = False
    """Whether the socket is its new owner's."""

    def handle_connect(self, event: Request) -> None:
        """The head has come; the app is asked."""
        super().handle_connect(event)
        if not self.close_sent and not self.conn.extensions:
            self._early = bytearray()
            self.scope["extensions"][DIRECT] = self  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Bytes of the peer: the head of its handshake, and what it says before that is answered."""
        if self._early is None:
            super().data_received(data)
            return
        self._early += data
        if len(self._early) > EARLY_BYTES_MAX:
            self.transport.abort()

    async def send(self, message: ASGISendEvent) -> None:
        """What the app says about the handshake; what it says to a client whom it gave away goes past us."""
        if message["type"] != "websocket.accept" or self._early is None:
            await super().send(message)
        elif self._owner is None:
            await self._keep(self._early, message)
        elif not self.transport.is_closing():
            self._hand_over(self._early, [*self.default_headers, *message.get("headers", ())], message["subprotocol"])

    @property
    def message_bytes_max(self) -> int:
        """Size of a message."""
        return self.config.ws_max_size

    def give_to(self, listener: WSListener) -> None:
        """Whose the socket is, once the handshake is accepted; a `Peer`."""
        self._owner = listener

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone before it was accepted."""
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    async def _keep(self, early: bytearray, accept: ASGISendEvent) -> None:
        """An app that speaks ASGI: its WebSocket stays uvicorn's."""
        self._early = None
        await super().send(accept)
        if early:
            super().data_received(bytes(early))

    def _hand_over(self, early: bytearray, headers: Iterable[tuple[bytes, bytes]], subprotocol: str | None) -> None:
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        if subprotocol:
            fields.append(("Sec-WebSocket-Protocol", subprotocol))
        self.is_given = True
        upgraded = _Upgraded(self._owner, fields, self.connections, self.ping_interval, self.message_bytes_max)
        upgraded.connection_made(self.transport)
        upgraded.take(_HEAD.format(key=self.request.headers["Sec-WebSocket-Key"]).encode() + early)
        self.transport.set_protocol(upgraded)
        self.connections.discard(self)
        self.handshake_complete = True
        self._let_go()

    def _let_go(self) -> None:
        """The task of the app keeps us for as long as the session; what only the handshake needed is 8 KB."""
        self._early = self._owner = self.on_lost = None
        for name in ("conn", "request", "response", "queue", "writable"):
            setattr(self, name, None)


class _Upgraded(WSProtocol):  # type: ignore[misc]
    """picows' end of a connection, as uvicorn knows it: one of `connections` until its socket is gone."""

    def __init__(
        self,
        owner: Any,
        headers: list[tuple[str, str]],
        connections: set[Any],
        ping_interval_s: float | None,
        message_bytes_max: int,
    ) -> None:
        answer = WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(headers), owner)
        super().__init__(
            host_port=None,
            ws_path=None,
            is_client_side=False,
            ws_listener_factory=lambda request: answer,
            logger=_log,
            disconnect_on_exception=True,
            websocket_handshake_timeout=None,
            enable_auto_ping=False,
            auto_ping_idle_timeout=0,
            auto_ping_reply_timeout=0,
            auto_ping_strategy=WSAutoPingStrategy.PING_PERIODICALLY,
            enable_auto_pong=False,
            max_frame_size=message_bytes_max,
            extra_headers=None,
            read_buffer_init_size=READ_BUFFER_BYTES,
        )
        self._owner: Peer = owner
        self._connections = connections
        self._ping_interval_s = ping_interval_s
        self._ping_timer: asyncio.TimerHandle | None = None
        self._is_pinged = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is ours."""
        super().connection_made(transport)
        self._connections.add(self)
        self._wait_to_ping()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        super().connection_lost(exc)
        self._connections.discard(self)

    def take(self, data: bytes) -> None:
        """Bytes of the peer that somebody else has read."""
        while data:
            room = self.get_buffer(-1)
            count = min(len(room), len(data))
            room[:count] = data[:count]
            self.buffer_updated(count)
            data = data[count:]

    def shutdown(self) -> None:
        """The server stops, and the session did not end in time."""
        self._owner.give_up(CloseCode.SERVICE_RESTART, "")

    def _wait_to_ping(self) -> None:
        if self._ping_interval_s is not None:
            self._ping_timer = asyncio.get_running_loop().call_later(self._ping_interval_s, self._ping)

    def _ping(self) -> None:
        """Whatever the peer has said since the last ping shows that it lives; it cannot, while we do not listen."""
        if self._is_pinged and not self._owner.has_heard and not self._owner.is_held_back:
            self._owner.give_up(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
            return
        self._owner.has_heard, self._is_pinged = False, True
        self.transport.send_ping()
        self._wait_to_ping()
