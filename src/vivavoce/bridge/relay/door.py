"""The relay's own door: uvicorn parses requests and answers HTTP, WebSockets go on with picows on the same socket.

So one port serves both, a handshake is answered only when the service has answered its own, and afterwards nothing
stands between two sockets but `Passage`. Knows the inside of uvicorn, as `server/doors.py` does, and of picows.
Invariant: a connection that is neither answered nor carried is closed.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from http import HTTPStatus
from typing import Any

import h11
import msgspec
from picows import (
    WSAutoPingStrategy,
    WSListener,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from vivavoce.protocol.codec import ServerCodec
from vivavoce.protocol.events import ErrorEvent
from vivavoce.server.app import PATHS
from vivavoce.server.auth import Asked, Refusal
from vivavoce.server.doors import HttpDoor
from vivavoce.server.ids import ids
from vivavoce.server.sessions import log_refusal

from .legs import Ear, SocketLeg
from .relay import Relay

READ_BUFFER_BYTES = 16 * 1024
"""What one read takes at first; grows with the messages."""
HANDSHAKE_S_MAX = 10.0

log = logging.getLogger(__name__)


class RelayDoor(HttpDoor):
    """A connection to the relay. Made by uvicorn for each."""

    _passing: asyncio.Task[None] | None = None
    _is_lost = False

    def __init__(self, relay: Relay, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._relay = relay

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or HTTP is over; nobody waits for the service then."""
        self._is_lost = True
        super().connection_lost(exc)
        if self._passing is not None:
            self._passing.cancel()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:  # type: ignore[override]
        """Somebody wants a WebSocket: hold everything until the service has answered."""
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.pause_reading()
        self._passing = self.loop.create_task(self._pass(event), name="a client of the relay")
        self.tasks.add(self._passing)
        self._passing.add_done_callback(self.tasks.discard)

    async def _pass(self, event: h11.Request) -> None:
        surface = PATHS.get(self.scope["path"])
        if surface is None:
            self._answer(404, _error(f"There is no WebSocket endpoint at this path; there is {', '.join(PATHS)}."))
            return
        asked = Asked.of(surface, {**self.scope, "subprotocols": _subprotocols(self.headers)})
        address = self.client[0] if self.client else ""
        try:
            async with self._relay.opened(asked, address) as opened:
                leg = self._handshaken(event, asked)
                if leg is not None:
                    await self._relay.carry(opened, leg)
        except Refusal as refusal:
            await self._refuse(event, asked, refusal)
        except Exception:
            log.exception("a session could not be carried")
            self._answer(500, _error("The relay has failed."))

    def _handshaken(self, event: h11.Request, asked: Asked) -> SocketLeg | None:
        """The client's leg; None where it has gone, or its handshake was none, which is answered then."""
        if self._is_lost or self.transport.is_closing():
            return None
        leg = SocketLeg(self._relay.settings.message_bytes_max)
        ping_s = self._relay.settings.ping_interval_ms / 1000
        protocol = WSProtocol(
            None,
            None,
            False,
            partial(_agreed, leg, asked.subprotocol),
            logging.getLogger("picows.server"),
            True,
            HANDSHAKE_S_MAX,
            True,
            ping_s,
            ping_s,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            True,
            self._relay.settings.message_bytes_max,
            None,
            READ_BUFFER_BYTES,
        )
        self._passing = None  # from now on the leg hears of the end of the connection
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        _feed(protocol, _head(event, self.headers) + self.conn.trailing_data[0])
        return leg if leg.is_open else None

    async def _refuse(self, event: h11.Request, asked: Asked, refusal: Refusal) -> None:
        """With a status where that is wanted, or where it is the service's own; else with an event and a close."""
        log_refusal(asked, refusal)
        is_of_the_service = refusal.__cause__ is not None
        if is_of_the_service or self._relay.settings.refusals == "http":
            self._answer(refusal.status, refusal.body, refusal.headers)
            return
        leg = self._handshaken(event, asked)
        if leg is None:
            return
        leg.join(Ear(_nothing, _nothing, _nothing))
        told = ServerCodec(asked.dialect).encode(ErrorEvent(event_id=ids()("event"), error=refusal.detail))
        if told is not None:
            leg.send(told)
        leg.close(refusal.close.code, refusal.close.reason)
        await leg.gone

    def _answer(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        if self._is_lost or self._passing is None or self.transport.is_closing():
            return  # gone, or handed over
        encoded = msgspec.json.encode(body)
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Refused"
        lines = [f"HTTP/1.1 {status} {phrase}", "Content-Type: application/json", f"Content-Length: {len(encoded)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.transport.write("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1", "replace") + encoded)
        self.transport.close()


def _nothing(*_: object) -> None:
    """Whoever is refused is not listened to."""


def _error(message: str) -> dict[str, object]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


def _agreed(leg: WSListener, subprotocol: str | None, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
    chosen = {} if subprotocol is None else {"Sec-WebSocket-Protocol": subprotocol}
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(extra_headers=chosen), leg)


def _subprotocols(headers: list[tuple[bytes, bytes]]) -> tuple[str, ...]:
    offered = [value.decode("latin-1") for name, value in headers if name == b"sec-websocket-protocol"]
    return tuple(part.strip() for value in offered for part in value.split(",") if part.strip())


def _head(event: h11.Request, headers: list[tuple[bytes, bytes]]) -> bytes:
    lines = [event.method + b" " + event.target + b" HTTP/1.1", *(name + b": " + value for name, value in headers)]
    return b"\r\n".join([*lines, b"", b""])


def _feed(protocol: Any, data: bytes) -> None:
    """Hand bytes that were read already to a protocol that reads into its own buffer."""
    while data:
        buffer = protocol.get_buffer(len(data))
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        protocol.buffer_updated(count)
        data = data[count:]
