"""Events on their way to whoever iterates: what waits, and who waits."""

from __future__ import annotations

import asyncio

import pytest

from vivavoce.client.streams import Stream


def test_who_gives_up_waiting_leaves_nothing_behind_and_misses_nothing() -> None:
    async def main() -> None:
        stream: Stream[str] = Stream(10)
        for _ in range(100):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await stream.get()
        assert stream._waiters == []
        assert not stream.is_waited_for
        reading = asyncio.ensure_future(stream.get())
        await asyncio.sleep(0)
        stream.put("one")
        reading.cancel()  # in the moment in which it was woken
        await asyncio.gather(reading, return_exceptions=True)
        assert await stream.get() == "one"

    asyncio.run(main())
