"""How late the event loop is, as the metrics tell it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import chain, repeat

from vivavoce.server.telemetry import LOOK_S, LOOKS_KEPT, LoopDelay
from vivavoce.testing.virtual_time import run


def delay_after(looks: int, clock: Callable[[], float] | None = None) -> LoopDelay:
    """What is known after so many looks."""

    async def main() -> LoopDelay:
        delay = LoopDelay()
        assert delay.read() == {}, "nobody has looked yet"
        looking = asyncio.create_task(delay.run(clock))
        await asyncio.sleep((looks + 0.5) * LOOK_S)
        looking.cancel()
        await asyncio.wait((looking,))
        return delay

    return run(main())


def test_a_loop_that_is_on_time_has_no_delay() -> None:
    assert delay_after(10).read() == {(): 0.0}


def late(by_s: float, looks_before: int) -> Callable[[], float]:
    """A clock by which one look is late."""
    on_time = (0.0, LOOK_S)
    times = chain(*repeat(on_time, looks_before), (0.0, LOOK_S + by_s), chain.from_iterable(repeat(on_time)))
    return lambda: next(times)


def test_the_worst_of_the_last_looks_is_told() -> None:
    assert delay_after(10, late(0.2, 5)).read() == {(): 0.2}
    assert delay_after(LOOKS_KEPT + 5, late(0.2, 5)).read() == {(): 0.2}


def test_what_is_long_ago_is_forgotten() -> None:
    assert delay_after(LOOKS_KEPT + 6, late(0.2, 5)).read() == {(): 0.0}
