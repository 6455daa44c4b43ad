"""One log line for each HTTP request that is answered: method, path, status, time. Around the app.

WebSockets are told of by the beginnings and ends of sessions, and by refusals. Invariant: never the query, headers or
body, in which keys may be.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .logs import FIELDS

PATH_CHARS_MAX = 256
"""A longer path is cut."""
OF_THE_API = ("/v1/", "/openai/")
"""What begins otherwise, probes and the files of the console, is told at level debug."""

log = logging.getLogger(__name__)


class AccessLog:
    """The app, with a line for each of its answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        clock, status = asyncio.get_running_loop().time, 0
        began_s = clock()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            status = status or 500  # which Starlette sends outside of this
            raise
        finally:
            _note(scope, status, (clock() - began_s) * 1000)


def _note(scope: Scope, status: int, ms: float) -> None:
    # As it came, still quoted; of what a server without it leaves, the same.
    raw: bytes = scope.get("raw_path") or scope["path"].encode(errors="replace")
    path = raw.partition(b"?")[0].decode("latin-1")[:PATH_CHARS_MAX]
    level = logging.INFO if path.startswith(OF_THE_API) else logging.DEBUG
    fields = {"method": scope["method"], "path": path, "status": status, "ms": round(ms, 1)}
    log.log(level, "%s %s %d %.1f ms", *fields.values(), extra={FIELDS: fields})
