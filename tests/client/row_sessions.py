"""What the tests of the rows share: a session with the test server, what it tells, and a server played by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import vivavoce
from vivavoce.core.caller.updates import Delta
from vivavoce.testing.real_server import RealServer
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair

T = TypeVar("T")

SECONDS_MAX = 15.0
DIALECTS = ("ga", "beta")
UTILITY = (
    "conversation.item.appended",
    "conversation.updated",
    "conversation.item.completed",
    "conversation.interrupted",
    "error",
)
"""The events of the reference client, `realtime.event` aside."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine, and let it hang no longer than is bearable."""
    return asyncio.run(asyncio.wait_for(main, SECONDS_MAX))


def session(server: RealServer, **how: Any) -> vivavoce.Session:
    """A session with the test server, not yet open."""
    return vivavoce.connect("gpt-realtime", **{"url": server.url, "api_key": server.api_key, **how})


def fields_of(delta: Delta) -> list[str]:
    """Which fields of a delta are set."""
    return [name for name in delta.__struct_fields__ if getattr(delta, name) is not None]


def record(listening: vivavoce.Session, *names: str) -> list[Any]:
    """What is told under these names, from now on."""
    told: list[Any] = []
    for name in names:
        listening.on(name, told.append)
    return told


def types(told: list[Any]) -> list[str]:
    """What they are called."""
    return [event.type for event in told]


async def until(condition: Callable[[], object]) -> None:
    """Let other tasks run until it is so."""
    while not condition():  # noqa: ASYNC110 - what is waited for is no event of a loop
        await asyncio.sleep(0)


class PlayedServer:
    """A server that is played by the test, message by message, over memory; for what no real server says."""

    def __init__(self) -> None:
        self.ends: list[Transport] = []
        self.headers: list[Mapping[str, str]] = []

    async def dial(self, headers: Mapping[str, str]) -> Transport:
        """For `connect(dial=…)`."""
        client, server = pair()
        self.ends.append(server)
        self.headers.append(headers)
        await self.say({"type": "session.created", "session": {"type": "realtime", "id": "sess_1"}})
        return client

    async def say(self, event: Mapping[str, Any] | str) -> None:
        """Say this; an event gets an id."""
        text = event if isinstance(event, str) else json.dumps({"event_id": "event_s", **event})
        await self.ends[-1].send(text.encode())

    async def hear(self) -> dict[str, Any]:
        """The client's next event."""
        heard = json.loads(await self.ends[-1].receive())
        assert isinstance(heard, dict)
        return heard


@asynccontextmanager
async def played(**how: Any) -> AsyncIterator[tuple[PlayedServer, vivavoce.Session]]:
    """A server that the test plays, and a session with it."""
    server = PlayedServer()
    how = {"reconnect": False, **how}
    async with vivavoce.connect("m", dial=server.dial, **how) as opened:
        yield server, opened
