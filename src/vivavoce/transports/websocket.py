"""A WebSocket over picows: whole messages, bounded in both directions.

`dial` opens one as a client, and says in words why it could not; the server makes one of a connection of its own
(`server/picows_door.py`). picows parses frames; here they become messages, wait in an `Inbox`, and stop the socket from
being read when too many do. Nothing leaves without room in the write buffer. Invariant: once the connection has ended,
for whatever reason, nobody is left waiting.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ssl import SSLCertVerificationError, SSLContext, SSLError
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSParsedURL,
    WSTransport,
    ws_connect,
)
from python_socks import ProxyError

from vivavoce.errors import ConnectionFailed, LocalProtocolError
from vivavoce.transports.inbox import Inbox, Sink
from vivavoce.transports.proxies import check_proxy
from vivavoce.transports.refusals import LIKELY_CAUSES, refusal
from vivavoce.transports.trust import system_trust

__all__ = ["MESSAGE_BYTES_MAX", "SocketLimits", "WebSocket", "connect", "dial"]

L = TypeVar("L", bound=WSListener)

OPEN_TIMEOUT_S = 10.0
"""For everything until the handshake is done: name lookup, TCP, TLS, proxy, HTTP."""

CLOSE_TIMEOUT_S = 5.0
"""How long `close` waits for the peer to close as well, before it drops the connection."""

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
"""Largest message that is accepted; a larger one ends the connection with code 1009."""

FRAGMENTS_MAX = 65_536
"""Fragments of one message. Beyond it close 1009."""

PING_IDLE_S = 20.0
PONG_TIMEOUT_S = 20.0
"""After this long without a byte from the peer it is pinged; after this long without an answer it is given up."""

REASON_BYTES_MAX = 123
"""What fits into a close frame (RFC 6455 section 5.5)."""

NOT_UTF8 = "text message is not UTF-8"
EXTENSION = "frame uses an extension that was not agreed upon"

# Looking into an enumeration takes as long as half of what is done with a message.
_TEXT, _CONTINUATION = WSMsgType.TEXT, WSMsgType.CONTINUATION
_CLOSE, _PING, _PONG = WSMsgType.CLOSE, WSMsgType.PING, WSMsgType.PONG

_PROTOCOL_ERROR, _INVALID_TEXT, _MESSAGE_TOO_BIG = (
    WSCloseCode.PROTOCOL_ERROR.value,
    WSCloseCode.INVALID_TEXT.value,
    WSCloseCode.MESSAGE_TOO_BIG.value,
)
_NO_CODE = 1005
_LOST = 1006
_LOCAL_ONLY_CODES = frozenset({1004, _NO_CODE, _LOST, 1015})
_NOT_IN_HEADERS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketLimits:
    """What one connection may hold."""

    message_bytes_max: int = MESSAGE_BYTES_MAX
    """Largest message that is accepted; a larger one ends the connection with code 1009."""

    inbox_messages_max: int = 1_024
    """Messages not yet taken. Beyond it the socket is not read until half of them are; what was read is kept."""

    inbox_bytes_max: int = 8 * 1024 * 1024
    """Likewise, in bytes."""

    write_buffer_bytes_max: int = 256 * 1024
    """Bytes that wait to be sent; above it `send` waits."""


class WebSocket(WSListener):
    """An open connection; see the `Transport` Protocol.

    `subprotocol` is the one that the server chose, if any; `response_headers` are those of its handshake. `has_heard`
    is set with every frame of the peer, for whoever watches whether it lives.
    """

    def __init__(self, limits: SocketLimits) -> None:
        self.subprotocol: str | None = None
        self.response_headers: Mapping[str, str] = {}
        self.has_heard = False
        self._limits = limits
        self._inbox = Inbox(limits.inbox_messages_max, limits.inbox_bytes_max, on_room=self._resume_reading)
        self._room: asyncio.Event | None = None
        """Set when there is room in the write buffer again; None while there is, since an event takes 800 bytes."""
        self._fragments = bytearray()
        self._fragments_count = 0
        self._fragments_type: WSMsgType | None = None
        self._settling: asyncio.Task[None] | None = None

    async def send(self, message: bytes) -> None:
        """Send one text message, UTF-8. Waits while the write buffer is over its limit. Raises `ConnectionClosed`."""
        while self._room is not None:
            await self._room.wait()
        closed = self._inbox.ended
        if closed is not None:
            raise closed
        self._transport.send(_TEXT, message)

    def offer(self, message: bytes) -> bool:
        """Send one text message, UTF-8, if that can be done at once; say whether. Raises `ConnectionClosed`."""
        if self._room is not None:
            return False
        closed = self._inbox.ended
        if closed is not None:
            raise closed
        self._transport.send(_TEXT, message)
        return True

    async def receive(self) -> str | bytes:
        """The next message. Raises `ConnectionClosed`: after the last message, or at once where this end closed."""
        return await self._inbox.get()

    async def forward(self, sink: Sink) -> None:
        """Hand every message to `sink` as it comes, until it returns False. Raises as `receive`, and what it raises."""
        await self._inbox.forward(sink)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye, wait up to `CLOSE_TIMEOUT_S` for the peer's, and drop the connection. Twice is harmless.

        Raises `LocalProtocolError` where `code` is one that must not be sent (RFC 6455 section 7.4).
        """
        if not 1000 <= code <= 4999 or code in _LOCAL_ONLY_CODES:
            raise LocalProtocolError(
                f"close code {code} cannot be sent; use 1000 to 1003, 1007 to 1014 or 3000 to 4999"
            )
        self._end(code, reason, discard=True)
        self._transport.send_close(WSCloseCode(code), _cut(reason, REASON_BYTES_MAX))
        self._transport.underlying_transport.resume_reading()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await _settle(self._transport)
        except TimeoutError:
            pass
        finally:
            self._transport.disconnect(graceful=False)

    def give_up(self, code: int, reason: str) -> None:
        """Close at once, whatever is still to be read: the peer broke the rules, or is dead."""
        self._end(code, reason)
        self._transport.send_close(WSCloseCode(code), _cut(reason, REASON_BYTES_MAX))
        self._transport.disconnect()

    @property
    def is_held_back(self) -> bool:
        """Whether the peer is not read, since nobody takes what it has said."""
        return self._inbox.full

    # --- called by picows; nothing here may raise -----------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done."""
        self._transport = transport
        self.response_headers = transport.response.headers
        transport.underlying_transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes_max)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Join fragments into messages, and messages into the inbox."""
        self.has_heard = True
        kind = frame.msg_type
        if (
            kind is _TEXT
            and frame.fin
            and self._fragments_type is None
            and not (frame.rsv1 or frame.rsv2 or frame.rsv3)
        ):
            try:  # which nearly all of them are: a message in one frame
                message = frame.get_payload_as_utf8_text()
            except UnicodeDecodeError:
                self.give_up(_INVALID_TEXT, NOT_UTF8)
                return
            self._inbox.put(message, frame.payload_size)
            if self._inbox.full:
                self._hold_back()
        elif kind is _PONG:
            return
        elif kind is _PING:
            self._answer(frame)
        elif kind is _CLOSE:
            self._goodbye(frame)
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.give_up(_PROTOCOL_ERROR, EXTENSION)
        elif (kind is _CONTINUATION) != (self._fragments_type is not None):
            self.give_up(_PROTOCOL_ERROR, "fragments of messages are out of order")
        elif frame.fin and kind is not _CONTINUATION:
            self._accept(kind, frame.get_payload_as_bytes())
        else:
            self._gather(frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The socket is gone. What picows itself closes as "going away" is a peer that answers no ping: it is lost."""
        sent = transport.close_handshake.sent if transport.close_handshake else None
        if sent is not None:
            self._end(_LOST if sent.code is WSCloseCode.GOING_AWAY else sent.code.value, sent.reason)
        self._end(_LOST, "the connection was lost without a goodbye")
        # picows keeps the error that made it disconnect for whoever waits; unfetched, asyncio would complain about it.
        self._settling = asyncio.get_running_loop().create_task(_settle(transport))

    def send_user_specific_ping(self, transport: WSTransport) -> None:
        """Ping, unless we do not listen: then silence says nothing about the peer."""
        if self._inbox.full:
            # The answer is expected only after this call, so it is taken as given a moment later.
            asyncio.get_running_loop().call_soon(transport.notify_user_specific_pong_received)
        else:
            transport.send_ping()

    def pause_writing(self) -> None:
        """The write buffer is over its limit."""
        if self._inbox.ended is None and self._room is None:
            self._room = asyncio.Event()

    def resume_writing(self) -> None:
        """The write buffer has drained."""
        room, self._room = self._room, None
        if room is not None:
            room.set()

    # --- leaves ---------------------------------------------------------------------------------------------------

    def _gather(self, frame: WSFrame) -> None:
        """A fragment; the last one completes its message."""
        self._fragments_type = self._fragments_type or frame.msg_type
        self._fragments += frame.get_payload_as_memoryview()
        self._fragments_count += 1
        if len(self._fragments) > self._limits.message_bytes_max:
            self.give_up(_MESSAGE_TOO_BIG, f"message exceeds {self._limits.message_bytes_max} bytes")
        elif self._fragments_count > FRAGMENTS_MAX:
            self.give_up(_MESSAGE_TOO_BIG, f"message of more than {FRAGMENTS_MAX} fragments")
        elif frame.fin:
            kind, payload = self._fragments_type, bytes(self._fragments)
            self._fragments_type, self._fragments_count = None, 0
            self._fragments.clear()
            self._accept(kind, payload)

    def _accept(self, kind: WSMsgType, payload: bytes) -> None:
        try:
            message = payload.decode() if kind is _TEXT else payload
        except UnicodeDecodeError:
            self.give_up(_INVALID_TEXT, NOT_UTF8)
            return
        self._inbox.put(message, len(payload))
        if self._inbox.full:
            self._hold_back()

    def _hold_back(self) -> None:
        """Nobody takes what comes: the socket is not read for a while."""
        self._transport.underlying_transport.pause_reading()
        self._transport.notify_user_specific_pong_received()

    def _resume_reading(self) -> None:
        if self._inbox.ended is None:
            self._transport.underlying_transport.resume_reading()

    def _goodbye(self, frame: WSFrame) -> None:
        """The peer closes, or answers our close."""
        code = frame.get_close_code()
        self._end(_NO_CODE if code is WSCloseCode.NO_INFO else code.value, frame.get_close_reason() or "")
        self._transport.send_close(WSCloseCode.OK if code is WSCloseCode.NO_INFO else code)
        self._transport.disconnect()

    def _answer(self, ping: WSFrame) -> None:
        """The pong, where picows leaves it to us: none for a peer that does not read what it has been sent already."""
        if self._room is None:
            self._transport.send_pong(ping.get_payload_as_bytes())

    def _end(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Only the first end counts. Nobody waits any more."""
        self._inbox.end(code, reason, discard=discard)
        self._fragments.clear()
        self.resume_writing()


async def _settle(transport: WSTransport) -> None:
    """Wait until the socket is gone. Why picows left is told by the close code, not by its exception."""
    with suppress(WSError, OSError):
        await transport.wait_disconnected()


# --- opening ----------------------------------------------------------------------------------------------------------


async def dial(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] = (),
    ssl: SSLContext | None = None,
    proxy: str | None = None,
    open_timeout_s: float = OPEN_TIMEOUT_S,
    limits: SocketLimits = SocketLimits(),
) -> WebSocket:
    """Open a WebSocket to a `ws://` or `wss://` URL.

    `ssl` None means the system's trust; `proxy` is a URL with scheme http, https, socks4 or socks5. Redirects are not
    followed, since the headers may carry a key. Raises `ConnectionFailed`, which says why as far as can be known, and
    `LocalProtocolError` where `proxy` is not such a URL.
    """
    websocket = await connect(
        url,
        lambda: WebSocket(limits),
        headers=headers,
        subprotocols=subprotocols,
        ssl=ssl,
        proxy=proxy,
        open_timeout_s=open_timeout_s,
        message_bytes_max=limits.message_bytes_max,
    )
    chosen = websocket.response_headers.get("Sec-WebSocket-Protocol")
    if chosen is not None and chosen not in subprotocols:
        await websocket.close(1002, "subprotocol was not offered")
        raise ConnectionFailed(f"{_address(url)} chose subprotocol {chosen!r}, which was not offered")
    websocket.subprotocol = chosen
    return websocket


async def connect(
    url: str,
    make: Callable[[], L],
    *,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] = (),
    ssl: SSLContext | None = None,
    proxy: str | None = None,
    open_timeout_s: float = OPEN_TIMEOUT_S,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
    ping_s: float | None = None,
) -> L:
    """Open a WebSocket for any listener of picows, whose frames it is from then on; otherwise as `dial`.

    `ping_s` stands for both `PING_IDLE_S` and `PONG_TIMEOUT_S`.

    Where the server has answered with a status, the cause of the `ConnectionFailed` is a `WSHandshakeError`.
    """
    check_proxy(proxy)
    fields = _checked_headers(url, headers or {}, subprotocols)
    async with _failing_clearly(url, proxy, open_timeout_s), _Socket() as opened:
        async with asyncio.timeout(open_timeout_s):
            if ssl is None and url.startswith("wss"):
                ssl = await system_trust()
            _, listener = await ws_connect(
                make,
                url,
                ssl_context=ssl,
                # For the case that the wait for the answer is cancelled: picows leaves the socket open until then.
                websocket_handshake_timeout=open_timeout_s,
                enable_auto_ping=True,
                auto_ping_idle_timeout=ping_s or PING_IDLE_S,
                auto_ping_reply_timeout=ping_s or PONG_TIMEOUT_S,
                max_frame_size=message_bytes_max,
                extra_headers=fields,
                max_redirects=0,
                proxy=proxy,
                proxy_ssl_context=await system_trust() if proxy and urlsplit(proxy).scheme == "https" else None,
                socket_factory=opened.connect if proxy is None else None,
                # Its own TLS tells nothing about why a handshake failed.
                use_aiofastnet=False if url.startswith("wss") else None,
            )
        if listener is None:
            raise ConnectionResetError
    return cast(L, listener)


def _checked_headers(url: str, headers: Mapping[str, str], subprotocols: Sequence[str]) -> list[tuple[str, str]]:
    """Check what picows takes as it is. Values are not shown: they may be keys."""
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.fragment:
        raise ConnectionFailed(
            f"{_address(url)} is no WebSocket URL; it takes ws:// or wss://, a host, and no #fragment"
        )
    if "@" in parts.netloc:
        raise ConnectionFailed("credentials in the URL are not sent; put them into the headers")
    fields = list(headers.items())
    if subprotocols:
        fields.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    for name, value in (*fields, ("URL", url)):
        if _NOT_IN_HEADERS.search(name) or _NOT_IN_HEADERS.search(value):
            raise ConnectionFailed(f"{name!r} has a line break or another control character in its value")
    return fields


class _Socket:
    """The TCP connection while it is being opened, so that it does not outlive a `dial` that was given up."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    async def connect(self, url: WSParsedURL) -> socket.socket:
        """Connect to the first of the host's addresses that answers."""
        loop = asyncio.get_running_loop()
        failure = OSError(f"no address found for {url.host}")
        for family, kind, proto, _, address in await _addresses(url.host, url.port):
            self._socket = socket.socket(family, kind, proto)
            self._socket.setblocking(False)
            try:
                await loop.sock_connect(self._socket, address)
                return self._socket
            except OSError as error:
                failure = error
                self._socket.close()
            except BaseException:
                self._socket.close()
                raise
        raise failure

    async def __aenter__(self) -> _Socket:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._socket is not None:
            # Whatever transport reads from it now sees its end, and closes it.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


async def _addresses(host: str, port: int) -> Sequence[tuple[int, int, int, str, tuple[Any, ...]]]:
    """Of a host. One that is written as a number needs no lookup, and so no thread."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


@asynccontextmanager
async def _failing_clearly(url: str, proxy: str | None, open_timeout_s: float) -> AsyncIterator[None]:
    """Everything that can go wrong while opening, as `ConnectionFailed`."""
    where = _address(url) + (f" through proxy {_address(proxy)}" if proxy else "")
    try:
        yield
    except TimeoutError:
        raise ConnectionFailed(f"{where} did not answer within {open_timeout_s:g} s") from None
    except WSHandshakeError as error:
        status = None if error.response is None else int(error.response.status)
        raise ConnectionFailed(f"{where} refused the WebSocket: {refusal(error)}", status=status) from error
    except SSLCertVerificationError as error:
        raise ConnectionFailed(f"the certificate of {where} is not trusted: {error.verify_message}") from error
    except SSLError as error:
        raise ConnectionFailed(f"TLS with {where} failed: {error.reason}; is TLS spoken there?") from error
    except socket.gaierror as error:
        raise ConnectionFailed(f"the host of {where} was not found: {error.strerror}") from error
    except ConnectionRefusedError as error:
        raise ConnectionFailed(f"{where} refused the connection; is a server running there?") from error
    except ConnectionError as error:
        raise ConnectionFailed(
            f"{where} hung up before it answered; is it a WebSocket server, and ws or wss right?"
        ) from error
    except ProxyError as error:
        # Only its text has the status, where it is an HTTP proxy.
        found = re.search(r"status (\d{3})$", str(error))
        status = int(found[1]) if found else None
        cause = f" ({LIKELY_CAUSES[407]})" if status == 407 else ""
        raise ConnectionFailed(f"cannot connect to {where}: {error}{cause}", status=status) from error
    except (OSError, WSError, ValueError) as error:
        raise ConnectionFailed(f"cannot connect to {where}: {error}") from error


def _address(url: str) -> str:
    """The URL without credentials and query, which may hold keys."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _cut(text: str, bytes_max: int) -> str:
    """The longest beginning of `text` that takes at most `bytes_max` bytes as UTF-8."""
    return text.encode()[:bytes_max].decode(errors="ignore")
