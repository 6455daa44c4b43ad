"""The virtual-time loop: time jumps, order holds, hangs are found."""

from __future__ import annotations

import asyncio

import pytest

from vivavoce.testing.virtual_time import Hang, run

HOUR_S = 3600.0


def test_an_hour_of_waiting_takes_an_hour_of_the_loop_and_none_of_ours() -> None:
    async def main() -> tuple[float, list[float]]:
        loop = asyncio.get_running_loop()
        seen: list[float] = []
        for at in (3.0, 1.0, 2.0):
            loop.call_later(at, lambda: seen.append(loop.time()))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(HOUR_S):
                await asyncio.Event().wait()
        return loop.time(), seen

    assert run(main()) == (HOUR_S, [1.0, 2.0, 3.0])


def test_time_stands_still_while_there_is_something_to_do() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(0.001, lambda: None)
        for _ in range(1000):
            await asyncio.sleep(0)
        return loop.time()

    assert run(main()) == 0.0


def test_many_small_steps_add_up() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        for turn in range(1, 5001):
            await asyncio.wait_for(_at(loop, turn * 0.02), 1.0)
        return loop.time()

    assert run(main()) == pytest.approx(100.0, abs=1e-6)


async def _at(loop: asyncio.AbstractEventLoop, when: float) -> None:
    reached = asyncio.Event()
    loop.call_at(when, reached.set)
    await reached.wait()


def test_queues_timeouts_and_task_groups() -> None:
    async def main() -> list[tuple[int, float]]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
        taken: list[tuple[int, float]] = []

        async def put() -> None:
            for number in range(3):
                await queue.put(number)
                await _at(loop, loop.time() + 5)

        async def take() -> None:
            while True:
                try:
                    number = await asyncio.wait_for(queue.get(), timeout=60)
                except TimeoutError:
                    return
                taken.append((number, loop.time()))

        async with asyncio.TaskGroup() as group:
            group.create_task(put())
            group.create_task(take())
        assert loop.time() == pytest.approx(70)
        return taken

    assert run(main()) == [(0, 0.0), (1, 5.0), (2, 10.0)]


def test_a_task_group_that_fails_cancels_its_children() -> None:
    async def main() -> None:
        async def fail() -> None:
            await _at(asyncio.get_running_loop(), 1)
            raise KeyError

        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.Event().wait())
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        run(main())
    assert [type(error) for error in caught.value.exceptions] == [KeyError]


def test_a_hang_names_the_tasks_and_where_they_wait() -> None:
    async def waits_for_nobody() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(waits_for_nobody(), name="lonely")

    with pytest.raises(Hang) as caught:
        run(main())
    message = str(caught.value)
    assert "nothing is ready and nothing is scheduled" in message
    assert "lonely: Event.wait" in message


def test_a_program_that_spins_is_stopped() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    with pytest.raises(Hang, match=r"no end after 500 steps, at 0\.000 s"):
        run(main(), steps_max=500)


def test_work_for_threads_is_done_in_place() -> None:
    def fail() -> None:
        raise KeyError

    async def main() -> int:
        with pytest.raises(KeyError):
            await asyncio.to_thread(fail)
        return await asyncio.to_thread(sum, (1, 2))

    assert run(main()) == 3


def test_the_same_program_runs_the_same_way() -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        order: list[str] = []

        async def one(name: str, delays: tuple[float, ...]) -> None:
            for delay in delays:
                await _at(loop, loop.time() + delay)
                order.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(one("a", (0.1, 0.2, 0.3)))
            group.create_task(one("b", (0.3, 0.3)))
            group.create_task(one("c", (0.2, 0.2, 0.2)))
        return order

    assert run(main()) == run(main())
