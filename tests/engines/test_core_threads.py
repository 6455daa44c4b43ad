"""Threads that borrow cores: a place is lent for as long as its thread computes, whoever still waits for it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from vivavoce.engines.cores import Cores, Urgency
from vivavoce.errors import EngineError

NOW = Urgency.NOW


def test_a_cancelled_call_keeps_its_place_until_its_thread_has_ended() -> None:
    async def play() -> None:
        cores = Cores(1)
        share, other = cores.share("ear", 1), cores.share("voice", 1)
        begun, may_end = threading.Event(), threading.Event()

        def compute() -> None:
            begun.set()
            may_end.wait(10)

        call = asyncio.create_task(share.run(NOW, compute))
        await asyncio.to_thread(begun.wait, 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        next_one = asyncio.create_task(other.run(NOW, may_end.is_set))
        await asyncio.sleep(0)
        assert cores.waiting == 1
        may_end.set()
        assert await next_one, "it began when the thread had ended"
        await share.close()
        await other.close()

    asyncio.run(play())


def test_a_place_comes_back_after_a_failure_and_a_failure_is_raised() -> None:
    async def play() -> None:
        cores = Cores(1)
        share = cores.share("ear", 1)

        def fail() -> None:
            raise RuntimeError("its own")

        for _ in range(3):
            with pytest.raises(RuntimeError, match="its own"):
                await share.run(NOW, fail)
        assert await share.run(NOW, lambda: 7) == 7
        await share.close()
        with pytest.raises(EngineError, match="ear: closed"):
            await share.run(NOW, lambda: 7)
        assert await cores.share("voice", 1).run(NOW, lambda: 8) == 8

    asyncio.run(play())


def test_a_place_whose_event_loop_is_gone_is_not_lost() -> None:
    cores = Cores(1)
    share = cores.share("ear", 2)
    may_end, ended = threading.Event(), threading.Event()

    def compute() -> None:
        may_end.wait(10)
        ended.set()

    async def leave() -> None:
        running = asyncio.create_task(share.run(NOW, compute))
        waiting = asyncio.create_task(share.run(NOW, compute))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running.cancel()
        waiting.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)

    asyncio.run(leave())
    may_end.set()

    async def come_back() -> str:
        return await share.run(NOW, lambda: "served")

    assert asyncio.run(come_back()) == "served"
