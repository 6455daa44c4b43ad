"""The line to the server over successive connections: opens, loses, resumes, opens anew.

Below the session, above the transports. Where the server offers it, a broken connection is mended under the session's
hands (`transports/lasting.py`); where not, `reopen` gives a fresh connection, and the session tells it what was before.
Invariant: one attempt at a time; a mistake that trying again cannot mend is told at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

from vivavoce.errors import ConnectionClosed, ConnectionFailed, RemoteProtocolError, VivavoceError
from vivavoce.transports import Transport
from vivavoce.transports.lasting import HEADER, LEFT, NEW, Lasting, Resumption, greet

Dial = Callable[[Mapping[str, str]], Awaitable[Transport]]
"""Opens a connection, with these headers besides its own. Raises `ConnectionFailed`."""

NORMAL_CODES = frozenset({1000})
"""Close codes by which somebody has said goodbye."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """What is done about a lost connection. The waits double from `first_s` up to `max_s`, each shortened by chance."""

    tries: int = 12
    """Attempts for one loss; 0 is for none."""
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


@dataclass(slots=True)
class Opened:
    """A connection on which a session has been asked for. `first` is its first message, where it was read already."""

    transport: Transport
    first: str | bytes | None = None
    token: str | None = None
    """By which the session can be found again; None where the server does not offer that."""
    received: int | None = None
    """Where the old session goes on: how much the server has of what was sent. `transport` is not a stream yet."""


class Line:
    """Connections to one endpoint. `lost` and `resumed` are told what happens under the session's hands."""

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
        self._is_passing = is_passing
        self._lost = lost
        self._resumed = resumed
        self._current: Opened | None = None
        self._resuming: asyncio.Task[None] | None = None
        self._fresh: Opened | None = None
        self._has_given_up = False
        self.attempts = 0
        """Attempts for the present loss."""

    async def open(self) -> Opened:
        """A connection with a session of its own. Raises `ConnectionFailed`."""
        opened = await self._open(NEW if self._policy.resume and self._policy.tries else None)
        self._adopt(opened)
        return opened

    async def another(self) -> Opened:
        """A second connection beside the present one; `replace` puts it in its place."""
        return await self._open(NEW if self._policy.resume else None)

    def replace(self, opened: Opened) -> Opened | None:
        """The present connection, which is the caller's to close now."""
        old, self._current = self._current, None
        self._stop_resuming()
        self._adopt(opened)
        return old

    async def reopen(self, closed: ConnectionClosed) -> Opened | None:
        """A fresh connection after the session's own has ended for good; None where there shall be none.

        Raises `ConnectionFailed` where trying again cannot help, and after the last try.
        """
        if self._fresh is not None:
            opened, self._fresh = self._fresh, None
            self._adopt(opened)
            return opened
        if closed.code in NORMAL_CODES or self._has_given_up or not self._is_passing(closed):
            return None
        failure: VivavoceError = closed
        for wait_s in self._policy.waits(self._random):
            await asyncio.sleep(wait_s)
            try:
                return await self.open()
            except (ConnectionFailed, ConnectionClosed) as error:
                failure = error
                if not self._is_passing(error):
                    break
        raise failure

    async def close(self) -> None:
        """End whatever goes on."""
        self._stop_resuming()
        for opened in (self._fresh, self._current):
            if opened is not None:
                await opened.transport.close()
        self._fresh = self._current = None

    # --- leaves -------------------------------------------------------------------------------------------------------

    async def _open(self, resume: str | None) -> Opened:
        """Dial, and see whether the server offers to resume."""
        transport = await self._dial({} if resume is None else {HEADER: resume})
        if resume is None:
            return Opened(transport)
        try:
            async with asyncio.timeout(self._open_timeout_s):
                first = await greet(transport)
        except TimeoutError:
            await transport.close(LEFT)
            raise ConnectionFailed(
                f"the server accepted the connection and then said nothing for {self._open_timeout_s:g} s; it may "
                "still be loading its models, or be no Realtime endpoint"
            ) from None
        except BaseException:
            await transport.close(LEFT)
            raise
        if not isinstance(first, Resumption):
            return Opened(transport, first)
        if first.resumed:
            return Opened(transport, token=first.token, received=first.received)
        lasting = Lasting(lost=self._on_lost)
        lasting.attach(transport, received=first.received)
        return Opened(lasting, token=first.token)

    def _adopt(self, opened: Opened) -> None:
        self._current = opened
        self._has_given_up = False

    def _on_lost(self, closed: ConnectionClosed) -> None:
        """The connection under the session is gone, the session may not be."""
        self._lost(closed)
        if self._current is not None and isinstance(self._current.transport, Lasting):
            self._stop_resuming()
            self._resuming = asyncio.get_running_loop().create_task(self._resume(self._current, closed))

    async def _resume(self, opened: Opened, closed: ConnectionClosed) -> None:
        lasting, token = opened.transport, opened.token
        assert isinstance(lasting, Lasting)
        assert token is not None
        failure: ConnectionClosed = closed
        for number, wait_s in enumerate(self._policy.waits(self._random), 1):
            self.attempts = number
            await asyncio.sleep(wait_s)
            try:
                again = await self._resume_once(lasting, token)
            except (ConnectionFailed, ConnectionClosed, RemoteProtocolError) as error:
                failure = error if isinstance(error, ConnectionClosed) else closed
                if self._is_passing(error):
                    continue
                break
            if again is None:
                self.attempts = 0
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
