"""Servers that a test cuts off, silences, takes away and plays itself; sessions with them, on virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from random import Random
from typing import Any

from vivavoce import Reconnect, Session, connect
from vivavoce.core.limits import Limits
from vivavoce.engines.scripted import scripted_pipeline
from vivavoce.server.auth import Asked
from vivavoce.server.pipelines import Pipelines
from vivavoce.server.sessions import Sessions
from vivavoce.server.settings import PriceTable, Settings
from vivavoce.testing.network import Fate, Line, Weather
from vivavoce.testing.virtual_time import run as run_virtual
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair


class Played:
    """A server that is played by the test."""

    def __init__(self) -> None:
        self.ends: list[Transport] = []
        self.is_mute = False

    async def dial(self, headers: Mapping[str, str]) -> Transport:
        client, server = pair()
        self.ends.append(server)
        if not self.is_mute:
            await self.say({"type": "session.created", "session": {"type": "realtime", "id": "sess_1"}})
        return client

    async def say(self, event: Mapping[str, Any]) -> None:
        await self.ends[-1].send(json.dumps({"event_id": "event_1", **event}).encode())


PATIENCE_S = 600.0
SECOND = 48_000
DETECTION = {"type": "server_vad", "silence_duration_ms": 300}


class House:
    """A server behind lines that the test cuts, silences and takes away."""

    def __init__(self, *, lasts: bool = False, session_ms_max: int = 3_600_000, **engines: Any) -> None:
        self.pipelines = Pipelines({"scripted": scripted_pipeline(**engines)}, default="scripted", models={})
        settings = Settings(
            pipeline="scripted",
            resume_ms_max=30_000 if lasts else 0,
            session_limits=Limits(session_ms_max=session_ms_max),
            prices={"any": PriceTable(text_out=1_000_000.0)},
        )
        self.sessions = Sessions(settings, self.pipelines, wall_s=asyncio.get_running_loop().time)
        self.lines: list[Line] = []
        self.dialled_s: list[float] = []
        self.headers: list[Mapping[str, str]] = []
        self.refusal: Exception | None = None
        self.is_silent = False
        self.heard: list[str] = []
        self._serving: set[asyncio.Task[None]] = set()

    async def dial(self, headers: Mapping[str, str]) -> Transport:
        self.dialled_s.append(asyncio.get_running_loop().time())
        self.headers.append(headers)
        if self.refusal is not None:
            raise self.refusal
        line = await Line(Random(0), Weather(), self._witness, self._omen).__aenter__()
        self.lines.append(line)
        asked = Asked("openai", dict(headers), {"model": "any"})
        serving = asyncio.create_task(self.sessions.serve(asked, line.server))
        self._serving.add(serving)
        return line.client

    def _omen(self, direction: str, message: str) -> Fate:
        return "silence" if self.is_silent else "arrives"

    def _witness(self, direction: str, message: str) -> None:
        if direction == "C":
            self.heard.append(message)

    async def cut(self) -> None:
        """The present line breaks."""
        await self.lines[-1].cut()

    async def close(self) -> None:
        await self.sessions.drain(PATIENCE_S)
        for line in self.lines:
            await line.__aexit__()
        await asyncio.wait(self._serving)
        await self.pipelines.close()


def session(house: Any, **how: Any) -> Session:
    """One at this house, on the clock of the loop."""
    made = connect(dial=house.dial, **{"reconnect": Reconnect(), **how})
    made._options.random = Random(1)
    made._options.wall_s = asyncio.get_running_loop().time
    return made


def told(of: Session, *names: str) -> list[Any]:
    """What is told under these names from now on."""
    found: list[Any] = []
    for name in names or ("connection.*",):
        of.on(name, found.append)
    return found


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run it; nothing may be left behind."""

    async def bounded() -> None:
        before = asyncio.all_tasks()
        async with asyncio.timeout(PATIENCE_S * 100):
            await main
        for _ in range(3):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == before, "tasks are left"

    run_virtual(bounded())


async def settle(seconds: float = 5.0) -> None:
    await asyncio.sleep(seconds)
