"""The two ends of a connection in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

import pytest

from vivavoce.errors import ConnectionClosed
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


async def settle() -> None:
    """Let everything that can run, run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def closed(waiting: Awaitable[object]) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as ended:
        await waiting
    return ended.value.code, ended.value.reason


def test_messages_arrive_in_order_as_text_in_both_directions() -> None:
    async def main() -> None:
        left, right = pair()
        await left.send("größer".encode())
        await left.send(b"second")
        await right.send(b"back")
        assert [await right.receive(), await right.receive()] == ["größer", "second"]
        assert await left.receive() == "back"

    run(main())


def test_receive_waits_and_survives_cancellation() -> None:
    async def main() -> None:
        left, right = pair()
        given_up = asyncio.create_task(right.receive())
        await settle()
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        waiting = asyncio.create_task(right.receive())
        await settle()
        assert not waiting.done()
        await left.send(b"kept")
        assert await waiting == "kept"

    run(main())


async def _sent_before_waiting(left: Transport, message: bytes, at_most: int) -> tuple[int, asyncio.Task[None]]:
    count = 0

    async def send() -> None:
        nonlocal count
        for _ in range(at_most):
            await left.send(message)
            count += 1

    task = asyncio.create_task(send())
    for _ in range(at_most):
        await settle()
    return count, task


@pytest.mark.parametrize(
    ("limits", "message", "fits"),
    [({"messages_max": 4}, b"x", 4), ({"bytes_max": 100}, b"x" * 30, 4), ({"bytes_max": 10}, b"x" * 11, 1)],
)
def test_a_slow_reader_makes_the_sender_wait(limits: dict[str, int], message: bytes, fits: int) -> None:
    async def main() -> None:
        left, right = pair(**limits)
        count, sending = await _sent_before_waiting(left, message, 10)
        assert count == fits
        received = [await right.receive() for _ in range(10)]
        await sending
        assert received == [message.decode()] * 10

    run(main())


def test_a_waiting_sender_goes_on_at_half() -> None:
    async def main() -> None:
        left, right = pair(messages_max=4)
        await _sent_before_waiting(left, b"x", 4)
        sending = asyncio.create_task(left.send(b"y"))
        await right.receive()
        await settle()
        assert not sending.done()
        await right.receive()
        await settle()
        assert sending.done()

    run(main())


def test_a_close_comes_after_the_messages_before_it() -> None:
    async def main() -> None:
        left, right = pair()
        await left.send(b"last words")
        await left.close(4001, "enough")
        assert await right.receive() == "last words"
        for _ in range(2):
            assert await closed(right.receive()) == (4001, "enough")
        assert await closed(right.send(b"late")) == (4001, "enough")

    run(main())


def test_the_closing_end_receives_nothing_more() -> None:
    async def main() -> None:
        left, right = pair()
        await right.send(b"unread")
        waiting = asyncio.create_task(right.receive())
        await settle()
        await left.close(1001, "away")
        assert await closed(left.receive()) == (1001, "away")
        assert await closed(left.send(b"late")) == (1001, "away")
        assert await closed(waiting) == (1001, "away")

    run(main())


@pytest.mark.parametrize("closer", [0, 1])
def test_a_close_wakes_a_waiting_sender(closer: int) -> None:
    async def main() -> None:
        ends = pair(messages_max=1)
        await ends[0].send(b"fills it")
        sending = asyncio.create_task(ends[0].send(b"waits"))
        await settle()
        assert not sending.done()
        await ends[closer].close(1012, "restart")
        assert await closed(sending) == (1012, "restart")

    run(main())


def test_closing_twice_is_harmless_and_the_first_counts() -> None:
    async def main() -> None:
        left, right = pair()
        await left.close(4000, "first")
        await left.close(4001, "second")
        await right.close(4002, "third")
        assert await closed(left.receive()) == (4000, "first")
        assert await closed(right.receive()) == (4000, "first")

    run(main())
