"""Warm sessions, against scripted servers behind memory transports, on virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from vivavoce import ConnectionClosed, ConnectionFailed, LocalProtocolError, Pool, Session, connect
from vivavoce.core.session import Session as Machine
from vivavoce.engines.scripted import scripted_pipeline
from vivavoce.protocol.codec import ServerCodec
from vivavoce.protocol.config import RealtimeSession, RealtimeSessionResource
from vivavoce.server.runtime import Runtime
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.virtual_time import run
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair

BE_BRIEF = RealtimeSession(instructions="Be brief.", output_modalities=("text",))


class House:
    """Where sessions are served: `dial_s` is what a connection takes, `failure` why there is none."""

    def __init__(self) -> None:
        self.dial_s = 1.0
        self.failure: Exception | None = None
        self.drops = 0
        """Connections that are lost as soon as they are configured."""
        self.tries: list[float] = []
        self.ends: list[Transport] = []
        self.most = 0
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        """Sessions that are being served."""
        return len(self._serving)

    async def dial(self, extra: Mapping[str, str]) -> Transport:
        self.tries.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.dial_s)
        if self.failure is not None:
            raise self.failure
        client_end, server_end = pair(messages_max=1_000)
        machine = Machine(id=f"sess_{len(self.ends)}", model="m", ids=counting_ids(), expires_at=0)
        runtime = Runtime(machine, scripted_pipeline(), ServerCodec("ga"), server_end)
        task = asyncio.create_task(runtime.run())
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self.ends.append(server_end)
        self.most = max(self.most, self.open)
        return client_end

    def session(self) -> Session:
        return connect("m", dial=self.dial, session=BE_BRIEF)


@asynccontextmanager
async def pooled(size: int, **how: Any) -> AsyncIterator[tuple[Pool, House]]:
    """A pool and where its sessions are; in the end none is served any more and no task is left."""
    before, house = asyncio.all_tasks(), House()
    async with Pool(size, house.session, random=Random(1), **how) as pool:
        yield pool, house
    await asyncio.sleep(60)  # a server's last tasks
    assert house.open == 0
    assert asyncio.all_tasks() == before


def passing() -> ConnectionFailed:
    """A failure that trying again may mend."""
    failure = ConnectionFailed("nobody listens")
    failure.__cause__ = ConnectionRefusedError()
    return failure


def now() -> float:
    return asyncio.get_running_loop().time()


def test_f3_a_warm_session_is_handed_out_at_once_and_replaced_in_the_background() -> None:
    async def main() -> None:
        async with pooled(2) as (pool, house):
            await pool.warm()
            assert (now(), house.open, pool.stats.warm) == (1.0, 2, 2)
            async with pool.session() as session:
                assert now() == 1.0
                assert isinstance(session.session, RealtimeSessionResource)
                assert session.session.instructions == "Be brief."
                assert await session.ask("Hello") == "echo: Hello"
                await pool.warm()
                assert house.open == 3
            async with pool.session() as other:
                assert other is not session
                assert [item.text for item in other.get_items()] == []
            stats = pool.stats
            assert (stats.handed_out, stats.lost, stats.aged, stats.failed, stats.in_use) == (2, 0, 0, 0, 0)
        with pytest.raises(ConnectionClosed):
            await other.ask("Hello?")

    run(main())


def test_f3_callers_beyond_what_is_warm_are_served_in_their_order() -> None:
    async def main() -> None:
        async with pooled(1) as (pool, _):
            served: list[int] = []

            async def call(number: int) -> None:
                async with pool.session() as session:
                    served.append(number)
                    await session.ask("Hello")

            await asyncio.gather(*map(call, range(4)))
            assert served == [0, 1, 2, 3]

    run(main())


def test_f3_sessions_in_use_count_towards_the_limit_and_callers_are_told_what_they_wait_for() -> None:
    async def main() -> None:
        async with pooled(1, open_max=2, timeout_s=5, waiting_max=1) as (pool, house):
            async with pool.session(), pool.session():
                began = now()
                waits = asyncio.create_task(pool.session().__aenter__())
                await asyncio.sleep(0)
                with pytest.raises(ConnectionFailed, match=r"1 callers wait .* all 2 \(open_max\) are in use"):
                    await pool.session().__aenter__()
                assert now() == began
                with pytest.raises(ConnectionFailed, match=r"within 5 s; all 2 \(open_max\) are in use"):
                    await waits
                assert now() == began + 5
            async with pool.session(), pool.session(timeout_s=2):
                assert house.most == 2

    run(main())


def test_f3_a_caller_that_goes_away_takes_no_session_with_it() -> None:
    async def main(turns: int) -> None:
        async with pooled(1, open_max=1) as (pool, house):
            house.dial_s = 0.0

            async def call() -> None:
                async with pool.session():
                    await asyncio.Event().wait()

            caller = asyncio.create_task(call())
            for _ in range(turns):
                await asyncio.sleep(0)
            caller.cancel()
            await asyncio.gather(caller, return_exceptions=True)
            async with pool.session() as session:  # there is but one at a time
                assert await session.ask("Hello") == "echo: Hello"

    for turns in range(40):  # while it queues, when it has just been given a session, when it uses it
        run(main(turns))


def test_f3_an_idle_session_that_is_lost_is_noticed_and_replaced() -> None:
    async def main() -> None:
        async with pooled(2) as (pool, house):
            await pool.warm()
            await house.ends[0].close(1006)
            await asyncio.sleep(0.01)
            assert (pool.stats.warm, pool.stats.lost) == (1, 1)
            await pool.warm()
            assert house.open == 2
            async with pool.session() as session:
                assert await session.ask("Hello") == "echo: Hello"

    run(main())


def test_f3_a_session_is_renewed_before_it_is_too_old() -> None:
    async def main() -> None:
        async with pooled(3, age_s_max=100) as (pool, house):
            await pool.warm()
            await asyncio.sleep(79)
            assert pool.stats.aged == 0
            ages = {pool.stats.aged}
            for _ in range(25):
                await asyncio.sleep(1)
                ages.add(pool.stats.aged)
            assert ages == {0, 1, 2, 3}  # not all at once
            assert pool.stats.warm == house.open == 3

    run(main())


def test_f3_what_fails_is_tried_again_less_and_less_often(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with pooled(1) as (pool, house):
            house.dial_s, house.failure = 0.0, passing()
            with pytest.raises(ConnectionFailed, match=r"within 10 s; 0 are in use .* nobody listens"):
                async with pool.session():
                    pass
            await asyncio.sleep(600)
            pauses = [later - sooner for sooner, later in zip(house.tries, house.tries[1:], strict=False)]
            assert 0.125 <= pauses[0] <= 0.25
            assert all(15 <= pause <= 30 for pause in pauses[8:])
            assert len(set(pauses[8:])) > 10  # chance spreads them
            assert isinstance(pool.stats.last_failure, ConnectionFailed)
            house.failure = None
            await pool.warm()
            assert pool.stats.last_failure is None

    with caplog.at_level(logging.CRITICAL):
        run(main())


@pytest.mark.parametrize("failure", [ConnectionFailed("wrong key", status=401), TypeError("a mistake")])
def test_f3_what_no_other_try_would_mend_is_told_to_callers_at_once(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with pooled(1) as (pool, house):
            house.failure = failure
            with pytest.raises(type(failure), match=str(failure)):
                async with pool.session():
                    pass
            assert now() == 1.0
            with pytest.raises(type(failure), match=str(failure)):
                await pool.warm()

    with caplog.at_level(logging.CRITICAL):
        run(main())


def test_f3_a_server_that_drops_every_session_is_not_run_down() -> None:
    async def main() -> None:
        async with pooled(1) as (pool, house):
            house.dial_s = 0.0
            for _ in range(8):
                await pool.warm()
                await house.ends[-1].close(1006)
                await asyncio.sleep(0.01)
            assert pool.stats.lost == 8
            assert now() > 8

    run(main())


def test_f3_closing_ends_all_sessions_and_all_waiting() -> None:
    async def main(act: Callable[[Pool], Awaitable[object]]) -> None:
        async with pooled(1, open_max=2) as (pool, house):
            async with pool.session() as first, pool.session():
                waits = asyncio.create_task(pool.session().__aenter__())
                await asyncio.sleep(0)
                await act(pool)
                assert not first.is_connected
                with pytest.raises(LocalProtocolError, match="the pool was closed"):
                    await waits
            with pytest.raises(LocalProtocolError, match="not open"):
                await pool.session().__aenter__()
            with pytest.raises(LocalProtocolError, match="not open"):
                await pool.warm()
            assert house.open == 0

    run(main(lambda pool: pool.close()))
    run(main(lambda pool: asyncio.gather(pool.close(), pool.close())))


@pytest.mark.parametrize("cut_s", [0.0, 0.5, 1.0])
def test_f3_a_pool_is_closed_at_any_moment(cut_s: float) -> None:
    async def main() -> None:
        async with pooled(2):
            await asyncio.sleep(cut_s)

    run(main())


def test_f3_a_pool_is_opened_again_on_another_event_loop() -> None:
    house = House()
    pool = Pool(1, house.session, open_max=1)

    async def main() -> None:
        async with pool:
            for _ in range(2):
                async with pool.session():
                    await asyncio.sleep(1)  # the keeper waits for room meanwhile
        await asyncio.sleep(60)  # a server's last tasks

    run(main())
    run(main())
    assert (pool.stats.handed_out, pool.stats.failed) == (4, 0)


def test_f3_the_size_has_bounds() -> None:
    for size, open_max in ((0, 1), (3, 2)):
        with pytest.raises(LocalProtocolError, match="1 <= size <= open_max"):
            Pool(size, House().session, open_max=open_max)
