"""Messages that are handed over as they come, without a turn of the event loop in between."""

from __future__ import annotations

import asyncio

import pytest

from vivavoce.errors import ConnectionClosed
from vivavoce.transports.inbox import Inbox


def an_inbox() -> Inbox:
    return Inbox(messages_max=4, bytes_max=1_000, on_room=lambda: None)


def test_what_waits_is_handed_over_first_and_then_what_comes() -> None:
    async def main() -> None:
        inbox, taken = an_inbox(), []
        inbox.put("a", 1)

        def sink(message: str | bytes) -> bool:
            taken.append(message)
            return True

        task = asyncio.create_task(inbox.forward(sink))
        await asyncio.sleep(0)
        assert taken == ["a"]
        inbox.put("b", 1)
        assert taken == ["a", "b"]
        inbox.end(1000, "goodbye")
        with pytest.raises(ConnectionClosed):
            await task

    asyncio.run(main())


def test_a_sink_that_has_enough_stops_it_and_nothing_is_lost() -> None:
    async def main() -> None:
        inbox, taken = an_inbox(), []

        def one(message: str | bytes) -> bool:
            taken.append(message)
            return False

        task = asyncio.create_task(inbox.forward(one))
        await asyncio.sleep(0)
        inbox.put("a", 1)
        inbox.put("b", 1)
        await task
        await inbox.forward(one)
        assert taken == ["a", "b"]
        inbox.put("c", 1)
        assert await inbox.get() == "c"

    asyncio.run(main())


def test_messages_come_before_the_end() -> None:
    async def main() -> None:
        inbox, taken = an_inbox(), []

        def one(message: str | bytes) -> bool:
            taken.append(message)
            return False

        task = asyncio.create_task(inbox.forward(one))
        await asyncio.sleep(0)
        for message in "abc":
            inbox.put(message, 1)
        inbox.end(1006, "lost")
        await task
        await inbox.forward(one)
        await inbox.forward(one)
        with pytest.raises(ConnectionClosed):
            await inbox.forward(one)
        assert taken == ["a", "b", "c"]

    asyncio.run(main())


def test_a_sink_that_fails_fails_who_forwards_and_not_who_puts() -> None:
    async def main() -> None:
        inbox = an_inbox()

        def broken(message: str | bytes) -> bool:
            raise ValueError(message)

        task = asyncio.create_task(inbox.forward(broken))
        await asyncio.sleep(0)
        inbox.put("a", 1)
        inbox.put("b", 1)
        with pytest.raises(ValueError, match="a"):
            await task
        assert await inbox.get() == "b"

    asyncio.run(main())


def test_a_forwarding_that_is_cancelled_leaves_the_rest() -> None:
    async def main() -> None:
        inbox = an_inbox()
        task = asyncio.create_task(inbox.forward(lambda message: True))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        inbox.put("a", 1)
        assert await inbox.get() == "a"

    asyncio.run(main())
