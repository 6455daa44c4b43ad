"""The faster door: h11's head, picows' WebSocket. The relay has it, the phone, and the server by a setting.

uvicorn reads the head of every request with h11 and answers HTTP. A handshake is put before the app as ASGI has it, so
that routes, keys and refusals are those of the other door; where the app accepts, the connection changes hands: picows
parses what comes from then on, and the listener that the app named speaks to the socket itself, past ASGI. What is no
ordinary handshake, and who compresses, is left to uvicorn's own door. Invariant: uvicorn knows of the connection until
its socket is gone.
"""

from __future__ import annotations

import asyncio
import logging
import re
from base64 import b64decode
from binascii import Error
from collections.abc import Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any, Final, cast

import h11
from picows import WSAutoPingStrategy, WSListener, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]
from websockets.frames import CloseCode

from .asgi import DENIAL, DIRECT, Peer
from .doors import HttpDoor, drop_soon

EARLY_BYTES_MAX = 64 * 1024
"""What a client may say before its handshake is answered. Then the connection is dropped."""

HEAD_LINE_BYTES_MAX, HEADERS_MAX = 8_192, 128
"""Of a handshake that is taken here; one that is larger is uvicorn's to refuse."""

READ_BUFFER_BYTES = 2 * 1024
"""To begin with. It doubles where a message does not fit, up to twice the largest message, and stays as it is."""

KEY_BYTES: Final = 16
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

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


class PicowsDoor(HttpDoor):
    """A connection that is uvicorn's until its WebSocket is accepted, and picows' from then on."""

    on_lost: Callable[[], object] | None = None
    _owner: WSListener | None = None
    _early: bytearray | None = None
    _answer: tuple[int, list[tuple[bytes, bytes]]] | None = None
    is_given = False
    """Whether the socket is its new owner's."""

    @property
    def message_bytes_max(self) -> int:
        """Size of a message."""
        return self.config.ws_max_size

    def give_to(self, listener: WSListener) -> None:
        """Whose the socket is, once the handshake is accepted; a `Peer`."""
        self._owner = listener

    def handle_websocket_upgrade(self, event: h11.Request) -> None:  # type: ignore[override]
        """The head has come; the app is asked."""
        fields = dict(self.headers)
        if not _is_ordinary(event, fields, compresses=self.config.ws_per_message_deflate):
            super().handle_websocket_upgrade(event)
            return
        self._stop_waiting()
        self._early = bytearray(self.conn.trailing_data[0])
        scope = {
            **self.scope,
            "type": "websocket",
            "scheme": "wss" if self.scheme == "https" else "ws",
            "subprotocols": _listed(fields.get(b"sec-websocket-protocol", b"")),
            "extensions": {DENIAL: {}, DIRECT: self},
        }
        del scope["method"]
        task = self.loop.create_task(self._ask(scope), name="a WebSocket's app")
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def data_received(self, data: bytes) -> None:
        """Bytes of the peer: the head of its handshake, and what it says before that is answered."""
        if self._early is None:
            super().data_received(data)
            return
        self._early += data
        if len(self._early) > EARLY_BYTES_MAX:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone before it was accepted."""
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def shutdown(self) -> None:
        """The server stops."""
        if self._early is None:
            super().shutdown()
        else:
            self.transport.close()

    # --- the app ------------------------------------------------------------------------------------------------------

    async def _ask(self, scope: dict[str, Any]) -> None:
        try:
            await self.app(cast(Any, scope), self._receive, cast(Any, self._send))
        except Exception:
            _log.exception("the app of a WebSocket has failed")
            if not self.is_given and self._answer is None:
                self._answer = (500, [])
                self._say_answer(b"")
        finally:
            self.transport.close()
            drop_soon(self.transport)

    async def _receive(self) -> Any:
        """Once, as ASGI has it; whoever takes the socket needs no more."""
        return {"type": "websocket.connect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        """What the app says about the handshake."""
        kind = message["type"]
        if self.transport.is_closing():
            return
        if kind == "websocket.accept":
            if self._owner is None:
                raise TypeError("this door serves apps that take the socket: name who gets it with AsgiTransport")
            headers = [*self.server_state.default_headers, *message.get("headers", ())]
            self._hand_over(self._owner, headers, message.get("subprotocol"))
        elif kind == f"{DENIAL}.start":
            self._answer = (message["status"], list(message.get("headers", ())))
        elif kind == f"{DENIAL}.body":
            self._say_answer(message.get("body", b""))
        elif kind == "websocket.close":
            self._answer = (403, [])
            self._say_answer(b"")

    def _say_answer(self, body: bytes) -> None:
        """No, by a status. Apps of ours have the whole body in one message."""
        assert self._answer is not None
        status, fields = self._answer
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Refused"
        kept = [(name, value) for name, value in fields if name.lower() not in (b"content-length", b"connection")]
        kept += [*self.server_state.default_headers, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        answer = h11.Response(status_code=status, headers=kept, reason=phrase.encode())
        told = [self.conn.send(part) for part in (answer, h11.Data(data=body), h11.EndOfMessage())]
        self.transport.write(b"".join(part for part in told if part))
        self.transport.close()

    def _hand_over(self, owner: WSListener, headers: Iterable[tuple[bytes, bytes]], subprotocol: str | None) -> None:
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        if subprotocol:
            fields.append(("Sec-WebSocket-Protocol", subprotocol))
        key, early = dict(self.headers)[b"sec-websocket-key"], self._early or b""
        upgraded = _Upgraded(owner, fields, self.connections, self.config.ws_ping_interval, self.message_bytes_max)
        self.is_given = True  # before anything is said to the owner
        upgraded.connection_made(self.transport)
        upgraded.take(_HEAD.format(key=key.decode()).encode() + early)
        self.transport.set_protocol(upgraded)
        self.connections.discard(self)
        self._let_go()

    def _let_go(self) -> None:
        """The task of the app keeps us for as long as the session; what only the handshake needed is 8 KB."""
        transport = self.transport
        vars(self).clear()
        self.transport, self.is_given = transport, True


def _is_ordinary(event: h11.Request, fields: dict[bytes, bytes], *, compresses: bool) -> bool:
    """Whether it is a handshake as all clients send them (RFC 6455 section 4.1), and for one who does not compress."""
    if event.method != b"GET" or len(event.target) > HEAD_LINE_BYTES_MAX // 2 or len(event.headers) > HEADERS_MAX:
        return False
    if any(len(name) + len(value) > HEAD_LINE_BYTES_MAX - 16 for name, value in event.headers):
        return False
    if len(fields) != len(event.headers):
        return False  # a header that comes twice is read as one there
    if (compresses and b"sec-websocket-extensions" in fields) or b"content-length" in fields:
        return False
    names = _listed(fields.get(b"sec-websocket-protocol", b""))
    if b"transfer-encoding" in fields or not all(map(_TOKEN.fullmatch, names)):
        return False
    try:
        key = b64decode(fields.get(b"sec-websocket-key", b""), validate=True)
    except Error:
        return False
    return len(key) == KEY_BYTES and fields.get(b"sec-websocket-version") == b"13"


def _listed(field: bytes) -> list[str]:
    return [part.strip() for part in field.decode("latin-1").split(",") if part.strip()]


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
