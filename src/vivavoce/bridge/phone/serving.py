"""The phone app on a socket, in the caller's event loop, behind the server's own doors.

Invariant: when the block ends the port is free; calls that go on are cut then, so end them before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.types import ASGIApp

from vivavoce.server.hosting import Hosting, hosted, listening

from .messages import MESSAGE_BYTES_MAX

PING_S: Final = 20.0
"""How often the carrier's end is asked whether it is still there, and how long it may take to say so."""
STOP_S: Final = 5
"""Time for connections to end at a stop."""


@asynccontextmanager
async def served(app: ASGIApp, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[tuple[str, int]]:
    """Serve the app until the block ends; where it listens. Raises `SettingsError` where it cannot be bound."""
    how = Hosting(message_bytes_max=MESSAGE_BYTES_MAX, ping_s=PING_S, stop_s=STOP_S)
    with listening(host, port) as listener:
        async with hosted(app, listener, how):
            bound: tuple[str, int] = listener.getsockname()[:2]
            yield bound
