"""The one test of sources on real threads and a real loop; the others run on virtual time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing

from vivavoce.client.sources import chunks


def test_a_source_that_blocks_blocks_a_thread_and_not_the_loop() -> None:
    may_go = threading.Event()

    def blocking() -> Iterator[bytes]:
        assert may_go.wait(10)
        yield bytes(4_800)

    async def take() -> bytes:
        async with aclosing(chunks(blocking())) as stream:
            first = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            may_go.set()  # which only a loop that is not blocked can do
            return await first

    assert asyncio.run(take()) == bytes(4_800)
