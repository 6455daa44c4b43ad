"""The phone app on a socket, in the caller's event loop: uvicorn with the limits of the server's own doors.

Invariant: when the block ends the port is free; calls that go on are cut then, so end them before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from vivavoce.server.doors import HttpDoor, WebSocketDoor
from vivavoce.server.serve import Uvicorn, listening

from .messages import MESSAGE_BYTES_MAX

PING_S: Final = 20.0
"""How often the carrier's end is asked whether it is still there, and how long it may take to say so."""
STOP_S: Final = 5
"""Time for connections to end at a stop."""


@asynccontextmanager
async def served(app: ASGIApp, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[tuple[str, int]]:
    """Serve the app until the block ends; where it listens. Raises `SettingsError` where it cannot be bound."""
    config = uvicorn.Config(
        app,
        http=HttpDoor,
        ws=WebSocketDoor,
        ws_max_size=MESSAGE_BYTES_MAX,
        ws_ping_interval=PING_S,
        ws_ping_timeout=PING_S,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_S,
    )
    with listening(host, port) as listener:
        server = Uvicorn(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="serving of the phone")
        try:
            await server.listens.wait()
            bound: tuple[str, int] = listener.getsockname()[:2]
            yield bound
        finally:
            server.stop()
            await serving
