"""The doors of the server: uvicorn's HTTP and WebSocket protocols, with limits where they have none.

Whoever connects may say nothing for ever, or begin a request and never end it; may send pings and read no pong; may
cut a message into millions of fragments; may send a head that the WebSocket library refuses without a word. Invariant:
no connection lives on that has neither a request in work nor a session, and none makes the server hold what the
peer does not take.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import msgspec
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from vivavoce.transports.websocket import FRAGMENTS_MAX

HEAD_S_MAX = 20.0
"""Time in which a request has to begin, its head complete. Then the connection is dropped."""

LEFT_S_MAX = 5.0
"""Time to take what is left and to say goodbye, for who has no session any more. Then the connection is dropped."""

WAITING_MAX = 16
SMALL_BYTES_MAX = 16 * 1024
"""Messages that may wait for the app, and how large each of them may be. Beyond it the socket is not read."""

HEAD_REFUSED = "A line of the handshake is longer than 8192 bytes, or there are more than 128 headers."


def drop_soon(transport: asyncio.Transport) -> None:
    """Its WebSocket is over. Closing it would wait for a peer who takes nothing, for as long as the kernel does."""
    asyncio.get_running_loop().call_later(LEFT_S_MAX, transport.abort)


class HttpDoor(H11Protocol):
    """An HTTP connection that does not wait for requests for ever, nor for the rest of one that is answered."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has connected: wait for a request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """A request is answered: wait for another."""
        self._wait()
        super().on_response_complete()

    def handle_websocket_upgrade(self, event: object) -> None:
        """The other door takes over."""
        self._stop_waiting()
        super().handle_websocket_upgrade(event)  # type: ignore[arg-type]

    def _wait(self) -> None:
        self._stop_waiting()
        self._waiting = self.loop.call_later(HEAD_S_MAX, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        # Otherwise a request is in work: who answers it has limits of his own, and then comes the next wait.


class WebSocketDoor(WebSocketsSansIOProtocol):
    """A WebSocket whose peer cannot make it hold more than a large message, a few small ones and one buffer."""

    _fragments = 0

    def data_received(self, data: bytes) -> None:
        """Bytes of the peer; first of all the head of its handshake, whole."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self._refuse_head()

    def handle_text(self, event: Frame) -> None:
        """A text message, or its first fragment."""
        self._fragments = 0
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """A binary message, or its first fragment."""
        self._fragments = 0
        super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        """One more fragment."""
        if self.close_sent:
            return
        self._fragments += 1
        if self._fragments < FRAGMENTS_MAX:
            super().handle_cont(event)
            return
        self.frames.clear()
        self.conn.fail(CloseCode.MESSAGE_TOO_BIG, f"message of more than {FRAGMENTS_MAX} fragments")
        self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        """A message is whole. uvicorn stops reading after each; to stop and to begin again takes two system calls."""
        is_small = sum(map(len, self.frames)) <= SMALL_BYTES_MAX
        was_paused, self.read_paused = self.read_paused, True
        super().send_receive_event_to_app()
        self.read_paused = was_paused
        if is_small and self.queue.qsize() < WAITING_MAX:
            return
        if not was_paused and not self.close_sent and not self.transport.is_closing():
            self.read_paused = True
            self.transport.pause_reading()

    def handle_ping(self) -> None:
        """A ping; its pong is dropped where the peer does not read what it has been sent already."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    async def run_asgi(self) -> None:
        """The app, until it is over. A goodbye that is under way has its time, whoever it is for."""
        try:
            await super().run_asgi()
        finally:
            drop_soon(self.transport)

    async def send(self, message: ASGISendEvent) -> None:
        """What the app says. A handshake that was answered with a status is complete, whatever uvicorn's log thinks."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True

    def _refuse_head(self) -> None:
        """The library ends such a handshake without an answer, and would leave the connection open."""
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        error = {"message": HEAD_REFUSED, "type": "invalid_request_error", "param": None, "code": None}
        body = msgspec.json.encode({"error": error})
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
