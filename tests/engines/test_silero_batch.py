"""Frames of several streams in one run of the network: who is in which run, when, and that nothing else changes.

A double stands for the network, which knows from a stream's state how much it has heard. On virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from vivavoce.engines.silero import APART_MS, BATCH_MAX, FRAME_BYTES, SileroBatch, SileroStream
from vivavoce.testing.virtual_time import run

APART_S = APART_MS / 1000


class Counting:
    """In place of the network: the score of a stream's nth frame is n / 100 and the frame's first sample."""

    def __init__(self) -> None:
        self.runs: list[tuple[float, int]] = []
        self.fails = False

    def run(self, _: None, given: Mapping[str, Any]) -> tuple[Any, Any]:
        if self.fails:
            raise RuntimeError("broken")
        self.runs.append((round(asyncio.get_running_loop().time(), 3), len(given["input"])))
        states = given["state"] + 1
        return states[0, :, :1] / 100 + given["input"][:, 64:65], states


def frames(first: int, count: int = 1) -> bytes:
    return b"".join(first.to_bytes(2, "little") + bytes(FRAME_BYTES - 2) for _ in range(count))


def scores(first: int, count: int = 1, after: int = 0) -> Sequence[float]:
    return pytest.approx([(after + n + 1) / 100 + first / 32_768 for n in range(count)])  # type: ignore[no-any-return]


class Streams:
    """Streams of one detector."""

    def __init__(self, count: int) -> None:
        self.network = Counting()
        self.batch = SileroBatch(self.network)
        self.all = [SileroStream(self.network, self.batch) for _ in range(count)]


def test_frames_of_one_moment_are_one_run() -> None:
    async def play() -> None:
        streams = Streams(5)
        found = await asyncio.gather(*(stream.score(frames(100 * n)) for n, stream in enumerate(streams.all)))
        assert streams.network.runs == [(0.0, 5)]
        for n, score in enumerate(found):
            assert score == scores(100 * n)

    run(play())


def test_each_frame_of_a_stream_follows_the_one_before_and_others_join_on_the_way() -> None:
    async def play() -> None:
        streams = Streams(3)
        a, b, c = streams.all
        long = asyncio.create_task(a.score(frames(1, 4)))
        short = asyncio.create_task(b.score(frames(2, 2)))
        assert await short == scores(2, 2)
        assert not long.done()
        late = await c.score(frames(3))
        assert await long == scores(1, 4)
        assert late == scores(3)
        assert sorted(size for _, size in streams.network.runs) == [1, 2, 2, 2], "seven frames in four runs"
        assert await a.score(frames(1, 2)) == scores(1, 2, after=4)

    run(play())


def test_an_incomplete_frame_waits_for_its_rest_and_runs_nothing() -> None:
    async def play() -> None:
        streams = Streams(1)
        (stream,) = streams.all
        assert await stream.score(frames(7)[:100]) == []
        assert streams.network.runs == []
        assert await stream.score(frames(7)[100:] + b"\0") == scores(7)

    run(play())


def test_a_lone_stream_never_waits_and_several_wait_a_little_for_each_other() -> None:
    async def play() -> None:
        streams = Streams(3)
        a, b, c = streams.all
        for n in range(3):
            assert await a.score(frames(1)) == scores(1, after=n)
        assert streams.network.runs == [(0.0, 1)] * 3
        second = asyncio.create_task(b.score(frames(2)))
        await asyncio.sleep(APART_S / 2)
        assert await c.score(frames(3)) == scores(3)
        await second
        assert streams.network.runs[3:] == [(APART_S, 2)]
        await asyncio.sleep(1.0)
        await b.score(frames(2))
        assert streams.network.runs[4:] == [(1.0 + APART_S, 1)], "long after the others nobody waits either"

    run(play())


def test_more_streams_than_a_run_takes_are_next_in_their_order() -> None:
    async def play() -> None:
        streams = Streams(BATCH_MAX + 3)
        done: list[int] = []

        async def score(n: int) -> None:
            await streams.all[n].score(frames(n))
            done.append(n)

        await asyncio.gather(*map(score, range(BATCH_MAX + 3)))
        assert [size for _, size in streams.network.runs] == [BATCH_MAX, 3]
        assert done == list(range(BATCH_MAX + 3))

    run(play())


def test_who_gives_up_keeps_nobody_else_from_anything() -> None:
    async def play() -> None:
        streams = Streams(2)
        gone, other = (asyncio.create_task(stream.score(frames(n))) for n, stream in enumerate(streams.all))
        await asyncio.sleep(0)
        gone.cancel()
        assert await other == scores(1)
        assert streams.network.runs == [(0.0, 1)]

    run(play())


def test_a_network_that_fails_is_told_to_all_who_were_in_the_run_and_the_next_run_is_another() -> None:
    async def play() -> None:
        streams = Streams(2)
        streams.network.fails = True
        ends = await asyncio.gather(*(one.score(frames(1)) for one in streams.all), return_exceptions=True)
        assert [type(end) for end in ends] == [RuntimeError, RuntimeError]
        streams.network.fails = False
        assert await streams.all[0].score(frames(1)) == scores(1)

    run(play())


def test_what_waited_on_an_event_loop_that_is_gone_is_forgotten() -> None:
    streams = Streams(2)

    async def leave() -> None:
        asyncio.ensure_future(streams.all[0].score(frames(1))).cancel()
        waiting = asyncio.ensure_future(streams.all[0].score(frames(1)))
        await asyncio.sleep(0)
        waiting.cancel()

    run(leave())

    async def come_back() -> None:
        assert await streams.all[1].score(np.zeros(FRAME_BYTES, np.uint8).tobytes()) == scores(0)

    run(come_back())
    assert [size for _, size in streams.network.runs] == [1]
