"""What a sending call returns: the event is on its way already, and who wants to know waits for the server's word.

Invariant: an `Ack` is settled once; one that nobody awaits is no mistake, and its failure is told to `on("error")`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

from vivavoce.errors import LocalProtocolError

T = TypeVar("T")


class Ack(Generic[T]):
    """Await it for the server's answer. Raises `ServerError`, which names the code and the field, and where there can
    be no answer any more `ConnectionClosed`. To cancel the awaiting does not take back the event."""

    __slots__ = ("__weakref__", "_convert", "_future", "_room", "held")

    def __init__(
        self,
        future: asyncio.Future[Any] | None,
        convert: Callable[[Any], T],
        room: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._future = future
        self._convert = convert
        self._room = room
        self.held: object = None
        """What the answer is about, kept for whoever awaits it."""
        if future is not None:
            future.add_done_callback(_retrieved)

    def __repr__(self) -> str:
        """For a prompt: what has become of what was sent."""
        if self._future is None:
            return "<Ack of what is sent when the session connects>"
        if not self._future.done():
            return "<Ack not answered yet>"
        if self._future.cancelled():
            return "<Ack never to be answered>"
        error = self._future.exception()
        return "<Ack answered>" if error is None else f"<Ack failed: {error!r}>"

    def __await__(self) -> Generator[Any, None, T]:
        if self._future is None:
            raise LocalProtocolError(
                "nothing is sent before the session connects, so there is no answer to wait for; open it first with "
                "`async with` or `await session.connect()`, or call without await, and it is said when it opens"
            )
        if self._room is not None:
            yield from self._room().__await__()
        return self._convert((yield from asyncio.shield(self._future).__await__()))

    def done(self) -> bool:
        """Whether the server has answered."""
        return self._future is not None and self._future.done()


def _retrieved(future: asyncio.Future[Any]) -> None:
    """A failure that nobody awaits is told elsewhere; asyncio need not complain about it."""
    if not future.cancelled():
        future.exception()
