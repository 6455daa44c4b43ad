"""A network between two ends of a connection, with everything that goes wrong in one: delay, stall, narrowness, a cut.

Messages keep their order and are never lost but by a cut; then both ends see 1006. Time comes from the event loop and
chance from the generator that is handed in, so on virtual time the same seed makes the same weather.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from vivavoce.errors import ConnectionClosed
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair

__all__ = ["Fate", "Line", "Weather"]

Witness = Callable[[str, str], None]
"""Called with the direction ("C" to the server, "S" to the client) and the message, as it arrives at the client's end
or leaves it."""

Fate = Literal["arrives", "lost", "last", "silence"]
"""What becomes of a message: it arrives; the line is cut before it does; or right after; or from now on nothing arrives
any more, and neither end is told."""

Omen = Callable[[str, str], Fate]
"""Called with direction and message before a message arrives."""

CUT = 1006


@dataclass(frozen=True, slots=True)
class Weather:
    """What the network does to each message."""

    delay_s_max: float = 0.0
    """Every message takes up to so long, those before it included."""
    stall_share: float = 0.0
    """Share of messages before which the line stalls."""
    stall_s_max: float = 0.0
    """For up to so long."""
    messages_max: int = 256
    """Messages that the line holds in each direction; beyond it the sender waits."""


class Line:
    """A connection with weather. `client` and `server` are its ends; use it as a context manager."""

    def __init__(
        self,
        random: Random,
        weather: Weather,
        witness: Witness = lambda direction, message: None,
        omen: Omen = lambda direction, message: "arrives",
    ) -> None:
        self.client, self._near = pair(messages_max=weather.messages_max)
        self._far, self.server = pair(messages_max=weather.messages_max)
        self._random = random
        self._weather = weather
        self._witness = witness
        self._omen = omen
        self._is_silent = False
        self._pumps: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Line:
        for name, source, sink in (("C", self._near, self._far), ("S", self._far, self._near)):
            self._pumps.append(asyncio.create_task(self._pump(name, source, sink), name=f"line {name}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        await self.cut()

    async def cut(self) -> None:
        """Both ends lose each other; what was under way is gone."""
        for end in (self._near, self._far):
            await end.close(CUT, "the line was cut")

    async def _pump(self, direction: str, source: Transport, sink: Transport) -> None:
        try:
            while True:
                try:
                    message = await source.receive()
                except ConnectionClosed as closed:
                    if not self._is_silent:
                        await sink.close(closed.code, closed.reason)
                    return
                assert isinstance(message, str), "a line carries text"
                if direction == "C":
                    self._witness(direction, message)
                await self._delay()
                fate = self._omen(direction, message)
                if fate == "silence" or self._is_silent:
                    self._is_silent = True
                    continue
                if fate != "lost":
                    await sink.send(message.encode())
                    if direction == "S":
                        self._witness(direction, message)
                if fate != "arrives":
                    await self.cut()
                    return
        except ConnectionClosed:
            pass  # the other direction brings the news, after what was said before it

    async def _delay(self) -> None:
        weather = self._weather
        delay_s = self._random.uniform(0, weather.delay_s_max)
        if self._random.random() < weather.stall_share:
            delay_s += self._random.uniform(0, weather.stall_s_max)
        if delay_s:
            await asyncio.sleep(delay_s)
