"""An ASGI app on a port: uvicorn behind our doors, for the server, the relay and the telephone alike.

`listening` binds, `hosted` serves there until its block ends, in the caller's event loop. Invariant: when the block
ends, what the app has to end first has ended, no connection stands, and the port is free.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

from vivavoce.errors import SettingsError

from .doors import HttpDoor, WebSocketDoor
from .picows_door import PicowsDoor

SOCKET_STALL_MS = 60_000
"""The kernel drops a connection whose peer acknowledges nothing for so long, also when nobody writes any more."""

BACKLOG = 128

_BINDING_HINTS = {
    errno.EADDRINUSE: "; is it served already? Choose another port, or 0 for any free one",
    errno.EACCES: "; ports below 1024 may be reserved: choose a higher one, or 0 for any free one",
    errno.EADDRNOTAVAIL: "; the host has to be an address of this machine",
}

DOORS: Mapping[str, type[HttpDoor]] = {"uvicorn": HttpDoor, "picows": PicowsDoor}
"""Who meets a connection, by the name that `Hosting` has for it."""

TICK_S = 1.0
"""How often uvicorn is given the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosting:
    """How an app is served."""

    websocket: Literal["uvicorn", "picows"] = "picows"
    """Who speaks WebSocket once a handshake is accepted."""
    message_bytes_max: int
    """Size of a WebSocket message. A larger one ends its connection with 1009."""
    ping_s: float | None
    """How often a WebSocket's peer is pinged, and how long it may take to answer. Then it is lost. None: never."""
    compresses: bool = False
    """Whether WebSockets may be compressed."""
    has_lifespan: bool = False
    """Whether the app's lifespan is run; a failure of it ends the hosting."""
    stop_s: float
    """Time for connections to end at the stop."""


async def _nothing() -> None:
    """What an app does that has nothing to end."""


@asynccontextmanager
async def hosted(
    app: ASGIApp, listener: socket.socket, how: Hosting, *, ends: Callable[[], Awaitable[object]] = _nothing
) -> AsyncIterator[str]:
    """Serve the app on this socket until the block ends; its URL, without a path.

    `ends` is awaited before anything is closed: uvicorn closes sockets first, and sessions want to say goodbye.
    """
    server = Uvicorn(_config(app, how))
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="serving")
    try:
        await server.listens.wait()
        host, port = listener.getsockname()[:2]
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        await ends()
        server.stop()
        await serving


class Uvicorn(uvicorn.Server):
    """uvicorn, with its signals left to us, an event for the moment when it listens, and one to stop at once."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End it."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Keep the Date header fresh, once a second, until it is stopped; the original looks ten times a second."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._stopping.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets=sockets)
        self.listens.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: a server inside a program does not take the program's Ctrl-C."""
        yield


def _config(app: ASGIApp, how: Hosting) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=DOORS[how.websocket],
        ws=WebSocketDoor,
        ws_max_size=how.message_bytes_max,
        ws_ping_interval=how.ping_s,
        ws_ping_timeout=how.ping_s,
        ws_per_message_deflate=how.compresses,
        lifespan="on" if how.has_lifespan else "off",
        log_config=None,
        log_level=logging.WARNING,  # its lower levels log whole URLs, and with them keys
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=round(how.stop_s),
    )


@contextmanager
def listening(address: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens until the block ends. Raises `SettingsError` where it cannot."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # The protocol is named, because asyncio switches Nagle's delay off only where it sees that a socket is TCP.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        if os.name == "posix":
            # Windows binds a port again without it, and with it would share one that another program listens on.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Accepted sockets take it over. Without it a peer that never reads could keep its socket for ever.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SOCKET_STALL_MS)
        try:
            listener.bind((address, port))
        except OSError as error:
            hint = _BINDING_HINTS.get(error.errno or 0, "")
            raise SettingsError(f"host, port: cannot bind {address}:{port}: {error.strerror or error}{hint}") from None
        listener.listen(BACKLOG)
        listener.setblocking(False)
        yield listener
