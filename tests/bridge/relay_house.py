"""A relay between a client of the public `websockets` package and a service that a test writes with the same package.

The service is a double: what it says and how it ends, the test decides; what it hears, it keeps as it came.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from vivavoce.bridge.relay import running
from vivavoce.bridge.relay.serving import Running
from vivavoce.bridge.relay.settings import relay_settings_of

SERVICE_KEY = "sk-service-0123456789abcdefghij"
SECONDS_MAX = 20

Conversation = Callable[[ServerConnection], Awaitable[None]]


class Service:
    """A service of one conversation, held with every client; `refusal` answers handshakes in its place."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self.requests: list[Request] = []
        self.heard: list[str | bytes] = []
        self.ends: list[tuple[int, str]] = []
        self.refusal: tuple[int, Mapping[str, str], bytes] | None = None
        self.ended = asyncio.Event()
        self._changed = asyncio.Condition()

    async def __call__(self, socket: ServerConnection) -> None:
        try:
            await self._conversation(socket)
            while True:
                self.heard.append(await socket.recv())
                async with self._changed:
                    self._changed.notify_all()
        except ConnectionClosed:
            pass
        finally:
            await socket.wait_closed()
            self.ends.append((socket.close_code or 0, socket.close_reason or ""))
            self.ended.set()

    async def has_heard(self, count: int) -> None:
        """Wait until so many messages have come."""
        async with asyncio.timeout(SECONDS_MAX), self._changed:
            await self._changed.wait_for(lambda: len(self.heard) >= count)

    def answer(self, socket: ServerConnection, request: Request) -> Response | None:
        """The handshake."""
        self.requests.append(request)
        if self.refusal is None:
            return None
        status, headers, body = self.refusal
        return Response(status, "Refused", Headers({**headers, "Content-Length": str(len(body))}), body)


async def created(socket: ServerConnection) -> None:
    """What a service says first."""
    await socket.send('{"type":"session.created","event_id":"event_1","session":{"type":"realtime"}}')


@asynccontextmanager
async def relayed(
    conversation: Conversation = created, *, policies: Any = (), tools: Any = (), **settings: Any
) -> AsyncIterator[tuple[Service, Running]]:
    """A service with this conversation, and a relay to it with these settings."""
    service = Service(conversation)
    async with serve(service, "127.0.0.1", 0, process_request=service.answer, max_size=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        if (named := settings.pop("policies_of_settings", None)) is not None:
            settings["policies"] = named
        values = {"upstream": f"http://127.0.0.1:{port}/v1", "upstream_key": SERVICE_KEY, "port": 0, "model": "m"}
        async with running(
            relay_settings_of(values | settings), policies=policies, tools=tools, environment={}
        ) as relay:
            yield service, relay


def at(relay: Running, query: str = "", path: str = "/v1/realtime", **options: Any) -> connect:
    """A client's connection to the relay."""
    headers = {"OpenAI-Beta": "realtime=v1"} if options.pop("beta", False) else {}
    headers |= options.pop("headers", {})
    url = f"ws://127.0.0.1:{relay.port}{path}{query}"
    return connect(url, additional_headers=headers, max_size=None, ping_interval=None, **options)


async def event(socket: ClientConnection) -> dict[str, Any]:
    """The next event, as JSON."""
    heard: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), SECONDS_MAX))
    return heard


async def until(socket: ClientConnection, kind: str) -> list[dict[str, Any]]:
    """All events up to the next one of this type."""
    heard = [await event(socket)]
    while heard[-1]["type"] != kind:
        heard.append(await event(socket))
    return heard


async def end_of(socket: ClientConnection) -> tuple[int, str]:
    """How the connection ends."""
    await asyncio.wait_for(socket.wait_closed(), SECONDS_MAX)
    return socket.close_code or 0, socket.close_reason or ""


async def idle(relay: Running) -> None:
    """Wait until no session is left."""
    if relay.relay._tasks:
        await asyncio.wait(relay.relay._tasks, timeout=SECONDS_MAX)
