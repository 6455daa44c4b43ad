"""The line to the server over successive connections: opens, loses, resumes, opens anew.

Below the session, above the transports. Where the server offers it, a broken connection is mended under the session's
hands (`transports/lasting.py`); where not, `reopen` gives a fresh connection, and the session tells it what was before.
Invariant: one attempt at a time; a mistake that trying again cannot mend is told at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from vivavoce.errors import ConnectionClosed, ConnectionFailed, RemoteProtocolError, VivavoceError
from vivavoce.transports import Transport
from vivavoce.transports.lasting import HEADER, LEFT, NEW, Lasting, Resumption, greet

T = TypeVar("T")

Dial = Callable[[Mapping[str, str]], Awaitable[Transport]]
"""Opens a connection, with these headers besides its own. Raises `ConnectionFailed`."""

NORMAL_CODES = frozenset({1000})
"""Close codes by which somebody has said goodbye."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """What is done about a lost connection. The waits double from `first_s` up to `max_s`, each shortened by chance."""

    tries: int = 12
    """Attempts for one loss; 0 is for none. A connection that is lost again within `max_s` is the same loss."""
    first_s: float = 0.25
    max_s: float = 8.0
    resume: bool = True
    """Whether the server is asked to keep the session for a while; servers that do not know of it ignore that."""
    renew_before_s: float = 300.0
    """How long before the server's limit on a session another one takes its place, at the next silence."""

    def waits(self, random: Random) -> Iterator[float]:
        """The seconds before each attempt; the first comes almost at once."""
        longest = self.first_s
        for number in range(self.tries):
            yield random.uniform(longest / 2, longest) if number else random.uniform(0, self.first_s / 2)
            longest = min(longest * 2, self.max_s)


@dataclass(slots=True, eq=False)
class Opened:
    """A connection on which a session has been asked for. `first` is its first message, where it was read already."""

    transport: Transport
    first: str | bytes | None = None
    token: str | None = None
    """By which the session can be found again; None where the server does not offer that."""
    received: int | None = None
    """Where the old session goes on: how much the server has of what was sent. `transport` is not a stream yet."""


class Line:
    """Connections to one endpoint. `lost` and `resumed` are told what happens under the session's hands.

    What `open` and `reopen` give is the caller's to close, until it is adopted.
    """

    def __init__(
        self,
        dial: Dial,
        policy: Reconnect,
        *,
        random: Random,
        open_timeout_s: float,
        is_passing: Callable[[VivavoceError], bool],
        lost: Callable[[ConnectionClosed], None],
        resumed: Callable[[], None],
    ) -> None:
        self._dial = dial
        self._policy = policy
        self._random = random
        self._open_timeout_s = open_timeout_s
        self.is_passing = is_passing
        self._lost = lost
        self._resumed = resumed
        self._current: Opened | None = None
        self._resuming: asyncio.Task[None] | None = None
        self._fresh: Opened | None = None
        self._has_given_up = False
        self._waits: Iterator[float] | None = None
        self._stands_since: float | None = None
        self._hurry = asyncio.Event()

    async def open(self) -> Opened:
        """A connection with a session of its own. Raises `ConnectionFailed`."""
        return await self._open(NEW if self._policy.resume and self._policy.tries else None)

    async def first(self, opened: Opened) -> str | bytes:
        """The first message of its session. Raises `ConnectionFailed`."""
        if opened.first is None:
            opened.first = await self._within_time(opened.transport.receive())
        return opened.first

    def adopt(self, opened: Opened) -> Opened | None:
        """The session lives on this one from now on; the one before is the caller's to close."""
        old, self._current = self._current, opened
        self._stop_resuming()
        self._has_given_up = False
        self._stand()
        return old

    def may_reopen(self, closed: ConnectionClosed) -> bool:
        """Whether `reopen` would try."""
        if self._fresh is not None:
            return True
        is_over = closed.code in NORMAL_CODES or self._has_given_up or not self.is_passing(closed)
        return not is_over and self._policy.tries > 0

    async def reopen(self, closed: ConnectionClosed) -> Opened:
        """A fresh connection after the session's own has ended for good.

        Raises `closed` where there shall be none, and `ConnectionFailed` where trying again cannot help, and after the
        last try.
        """
        if self._fresh is not None:
            opened, self._fresh = self._fresh, None
            return opened
        if not self.may_reopen(closed):
            raise closed
        failure: VivavoceError = closed
        for wait_s in self._attempts():
            await self._pause(wait_s)
            try:
                return await self.open()
            except (ConnectionFailed, RemoteProtocolError) as error:
                failure = error
                if not self.is_passing(error):
                    break
        raise failure

    def leave(self) -> bool:
        """Give the present connection up and look for another at once; False where that is the caller's to do."""
        self._waits = None
        if self._current is None or not isinstance(lasting := self._current.transport, Lasting):
            self._hurry.set()
            return False
        if lasting.is_attached:
            lasting.resuming("")  # nothing that it still brings counts
            self._on_lost(self._current, ConnectionClosed(LEFT, "the connection was given up"))
        self._hurry.set()
        return True

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End whatever goes on."""
        self._stop_resuming()
        opened = [one for one in (self._fresh, self._current) if one is not None]
        self._fresh = self._current = None
        for one in opened:
            await one.transport.close(code, reason)

    # --- leaves -------------------------------------------------------------------------------------------------------

    async def _open(self, resume: str | None) -> Opened:
        """Dial, and see whether the server offers to resume."""
        transport = await self._dial({} if resume is None else {HEADER: resume})
        try:
            first = await self._within_time(greet(transport))
        except BaseException:
            await transport.close(LEFT)
            raise
        if not isinstance(first, Resumption):
            return Opened(transport, first)
        if first.resumed:
            return Opened(transport, token=first.token, received=first.received)
        lasting = Lasting(lost=lambda closed: self._on_lost(opened, closed))
        opened = Opened(lasting, token=first.token)
        try:
            lasting.attach(transport, received=first.received)
        except RemoteProtocolError:
            await transport.close(LEFT)
            raise
        return opened

    async def _within_time(self, first: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._open_timeout_s):
                return await first
        except TimeoutError:
            raise ConnectionFailed(
                f"the server accepted the connection and then said nothing for {self._open_timeout_s:g} s; it may "
                "still be loading its models, or be no Realtime endpoint"
            ) from None
        except ConnectionClosed as closed:
            raise ConnectionFailed(f"the server closed at once: {closed.code} {closed.reason}".rstrip()) from closed

    # --- waiting ------------------------------------------------------------------------------------------------------

    def _stand(self) -> None:
        """There is a connection."""
        self._stands_since = asyncio.get_running_loop().time()

    def _attempts(self) -> Iterator[float]:
        """The waits for one loss. They go on where a connection did not stand for long, so that nobody is hammered."""
        since, self._stands_since = self._stands_since, None
        has_stood = since is not None and asyncio.get_running_loop().time() - since > self._policy.max_s
        if self._waits is None or has_stood:
            self._waits = self._policy.waits(self._random)
        return self._waits

    async def _pause(self, seconds: float) -> None:
        """Wait, unless somebody knows that there is a network again."""
        self._hurry.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    # --- resuming -----------------------------------------------------------------------------------------------------

    def _on_lost(self, opened: Opened, closed: ConnectionClosed) -> None:
        """The connection under a session is gone, the session may not be."""
        lasting = opened.transport
        assert isinstance(lasting, Lasting)
        if opened is not self._current:  # it was never lived in: there is nothing in it to come back to
            lasting.end(closed)
            return
        self._lost(closed)
        self._stop_resuming()
        self._resuming = asyncio.get_running_loop().create_task(self._resume(opened, lasting, closed))

    async def _resume(self, opened: Opened, lasting: Lasting, closed: ConnectionClosed) -> None:
        assert opened.token is not None
        failure: ConnectionClosed = closed
        for wait_s in self._attempts():
            await self._pause(wait_s)
            try:
                again = await self._resume_once(lasting, opened.token)
            except (ConnectionFailed, ConnectionClosed, RemoteProtocolError) as error:
                failure = next((one for one in (error, error.__cause__) if isinstance(one, ConnectionClosed)), closed)
                if self.is_passing(error):
                    continue
                break
            if again is None:
                self._stand()
                self._resumed()
            else:
                self._fresh = again
                lasting.end(closed)
            return
        self._has_given_up = True
        lasting.end(failure)

    async def _resume_once(self, lasting: Lasting, token: str) -> Opened | None:
        """None where the session goes on, or the connection with the session that takes its place."""
        again = await self._open(lasting.resuming(token))
        if again.received is None:
            return again
        try:
            lasting.attach(again.transport, received=again.received)
        except BaseException:
            await again.transport.close(LEFT)
            raise
        return None

    def _stop_resuming(self) -> None:
        if self._resuming is not None and self._resuming is not asyncio.current_task():
            self._resuming.cancel()
        self._resuming = None
