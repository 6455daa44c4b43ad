from __future__ import annotations

import asyncio

import pytest

from vivavoce.errors import ConnectionClosed
from vivavoce.server.channel import Channel
from vivavoce.testing.virtual_time import run


def test_messages_come_out_in_the_order_of_their_putting() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(bytes_max=100, messages_max=2)
        putting = [asyncio.create_task(channel.put(number)) for number in range(6)]
        await asyncio.sleep(0)
        assert len(channel) == 2
        assert [await channel.get() for _ in range(6)] == [0, 1, 2, 3, 4, 5]
        await asyncio.gather(*putting)

    run(main())


def test_a_full_channel_takes_no_more_bytes() -> None:
    async def main() -> None:
        channel: Channel[str] = Channel(bytes_max=10, messages_max=100)
        assert channel.offer("a", 6)
        assert channel.offer("b", 6), "the limit is passed by one message at most"
        assert not channel.offer("c", 1)
        waiting = asyncio.create_task(channel.put("c", 1))
        await asyncio.sleep(0)
        assert channel.bytes == 12
        assert await channel.get() == "a"
        assert channel.bytes == 7, "c was let in as soon as there was room"
        await waiting

    run(main())


def test_nobody_overtakes_who_waits() -> None:
    async def main() -> None:
        channel: Channel[str] = Channel(bytes_max=10, messages_max=1)
        await channel.put("first")
        waiting = asyncio.create_task(channel.put("second"))
        await asyncio.sleep(0)
        assert not channel.offer("third", 0)
        assert [await channel.get(), await channel.get()] == ["first", "second"]
        await waiting

    run(main())


def test_a_put_that_is_cancelled_puts_nothing() -> None:
    async def main() -> None:
        channel: Channel[str] = Channel(bytes_max=10, messages_max=1)
        await channel.put("first")
        waiting = [asyncio.create_task(channel.put(name)) for name in ("second", "third")]
        await asyncio.sleep(0)
        waiting[0].cancel()
        assert [await channel.get(), await channel.get()] == ["first", "third"]
        await asyncio.gather(*waiting, return_exceptions=True)

    run(main())


def test_the_end_frees_everybody() -> None:
    async def main() -> None:
        channel: Channel[str] = Channel(bytes_max=10, messages_max=1)
        await channel.put("first")
        waiting = asyncio.create_task(channel.put("second"))
        await asyncio.sleep(0)
        channel.end(ConnectionClosed(1008, "enough"))
        channel.end(ConnectionClosed(1000, "too late to count"))
        with pytest.raises(ConnectionClosed, match="1008 enough"):
            await waiting
        with pytest.raises(ConnectionClosed, match="1008 enough"):
            await channel.get()
        with pytest.raises(ConnectionClosed, match="1008 enough"):
            await channel.put("third")
        channel.push("fourth")
        assert (len(channel), channel.bytes) == (0, 0)

    run(main())


def test_the_end_frees_who_gets() -> None:
    async def main() -> None:
        channel: Channel[str] = Channel(bytes_max=10, messages_max=1)
        getting = asyncio.create_task(channel.get())
        await asyncio.sleep(0)
        channel.end(ConnectionClosed(1000))
        with pytest.raises(ConnectionClosed, match="1000"):
            await getting

    run(main())


def test_a_get_that_is_cancelled_loses_nothing() -> None:
    async def main() -> None:
        channel: Channel[str] = Channel(bytes_max=10, messages_max=1)
        getting = asyncio.create_task(channel.get())
        await asyncio.sleep(0)
        await channel.put("first")
        getting.cancel()
        await asyncio.gather(getting, return_exceptions=True)
        assert await channel.get() == "first"

    run(main())


def test_what_the_owner_pushes_goes_in_although_it_is_full() -> None:
    async def main() -> None:
        channel: Channel[str] = Channel(bytes_max=10, messages_max=1)
        await channel.put("first")
        channel.push("second")
        assert [await channel.get(), await channel.get()] == ["first", "second"]

    run(main())
