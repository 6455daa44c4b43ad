"""Warm sessions: connected and configured before they are needed, each handed out once.

`size` keepers have one place each: a keeper opens a session, keeps it until it is handed out, lost or too old, and
opens the next; callers take what is warm, or queue. Invariants: every session that was opened is ended; there are never
more than `open_max` of them, and never more than `waiting_max` callers wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Literal

from vivavoce.errors import ConnectionFailed, LocalProtocolError, VivavoceError

from .causes import is_passing
from .session import Session

__all__ = ["Pool", "PoolStats"]

log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 30.0
"""A keeper whose sessions fail waits from the one up to the other, doubling each time, less what chance takes off."""
AGE_SPREAD = 0.2
"""Share of the age limit that chance takes off, so that sessions that were opened together do not all end together."""

Outcome = Literal["taken", "aged", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """What a pool holds at this moment, and what has become of all that it has opened."""

    warm: int
    in_use: int
    waiting: int
    """Callers that wait for a session."""
    opened: int
    handed_out: int
    lost: int
    """Sessions that were lost before anybody took them."""
    aged: int
    """Sessions that were let go for their age."""
    failed: int
    """Attempts to open one that have failed."""
    last_failure: Exception | None
    """Why the last attempt failed; None where it did not."""


@dataclass(slots=True, eq=False)
class _Warm:
    session: Session
    taken: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Pool:
    """Keeps `size` sessions warm: `async with Pool(4, lambda: connect(…)) as pool, pool.session() as session: …`.

    `connect` makes a session that is not open yet. Each is used for one conversation, and replaced as soon as it is
    handed out, or lost, or `age_s_max` old, which should be less than the server's limit on sessions. `open_max` limits
    all of them, warm or in use; callers beyond wait for `timeout_s`, and beyond `waiting_max` are turned away.
    """

    def __init__(
        self,
        size: int,
        connect: Callable[[], Session],
        *,
        open_max: int = 100,
        waiting_max: int = 1_000,
        timeout_s: float = 10.0,
        age_s_max: float = 900.0,
        random: Random | None = None,
    ) -> None:
        if not 1 <= size <= open_max:
            raise LocalProtocolError(f"size is {size} and open_max {open_max}; expected 1 <= size <= open_max")
        self._size = size
        self._connect = connect
        self._open_max = open_max
        self._waiting_max = waiting_max
        self._timeout_s = timeout_s
        self._age_s_max = age_s_max
        self._random = random or Random()  # noqa: S311 - spreads load
        self._room = asyncio.Semaphore(open_max)
        self._warm: list[_Warm] = []
        self._in_use: set[Session] = set()
        self._waiting: deque[asyncio.Future[Session]] = deque()
        self._keepers: list[asyncio.Task[None]] = []
        self._endings: set[asyncio.Task[None]] = set()
        self._is_open = False
        self._full: asyncio.Future[None] | None = None
        self._opened = self._handed_out = self._lost = self._aged = self._failed = 0
        self._last_failure: Exception | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Pool:
        """Begin to open sessions, without waiting for them."""
        if self._is_open:
            raise LocalProtocolError("the pool is open already")
        self._is_open = True
        self._room = asyncio.Semaphore(self._open_max)  # the last event loop may have been another
        self._keepers = [asyncio.create_task(self._keep(), name=f"pool keeper {n}") for n in range(self._size)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every session, those in use too. Whoever waits for one gets an error. Twice is harmless."""
        self._is_open = False
        self._refuse(LocalProtocolError("the pool was closed"))
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(session.disconnect() for session in self._in_use))
        await asyncio.gather(*self._endings)

    async def warm(self) -> None:
        """Wait until all places are filled, when a program begins. Raises what hinders that for good."""
        while len(self._warm) < self._size:
            if not self._is_open:
                raise LocalProtocolError("the pool is not open; use `async with`")
            self._full = self._full or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._full)

    def _end(self, session: Session) -> asyncio.Task[None]:
        """End a session, whoever waits for that or does not."""
        ending = asyncio.create_task(self._disconnect(session), name="pool ending")
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        return ending

    async def _disconnect(self, session: Session) -> None:
        try:
            await session.disconnect()
        finally:
            self._room.release()

    # --- for callers --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def session(self, timeout_s: float | None = None) -> AsyncIterator[Session]:
        """A session for one conversation: at once where one is warm. It ends with the block.

        Raises `ConnectionFailed` where none was ready within `timeout_s` (that of the pool, if None), and at once where
        too many callers wait, or an attempt has failed for a reason that another would not mend.
        """
        session = await self._take(self._timeout_s if timeout_s is None else timeout_s)
        self._handed_out += 1
        self._in_use.add(session)
        try:
            yield session
        finally:
            self._in_use.discard(session)
            await asyncio.shield(self._end(session))

    async def _take(self, timeout_s: float) -> Session:
        if not self._is_open:
            raise LocalProtocolError("the pool is not open; use `async with`")
        for warm in self._warm:  # the oldest first
            if warm.session.is_connected:
                self._warm.remove(warm)
                warm.taken.set_result(None)
                return warm.session
        if len(self._waiting) >= self._waiting_max:
            raise ConnectionFailed(f"{len(self._waiting)} callers wait for a session already; {self._situation}")
        future: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(timeout_s):
                session = await future
                if not self._is_open:
                    raise LocalProtocolError("the pool was closed")
                return session
        except BaseException as error:
            if future.done() and not future.cancelled() and future.exception() is None:  # it came too late
                self._end(future.result())
            if isinstance(error, TimeoutError):
                message = f"no session became free within {timeout_s:g} s; {self._situation}"
                raise ConnectionFailed(message) from self._last_failure
            raise
        finally:
            self._waiting.remove(future)

    @property
    def _situation(self) -> str:
        """Why there is none, for an error."""
        if len(self._in_use) >= self._open_max:
            return f"all {self._open_max} (open_max) are in use"
        in_use = f"{len(self._in_use)} are in use (open_max {self._open_max})"
        return in_use if self._last_failure is None else f"{in_use}; the last that failed: {self._last_failure}"

    @property
    def stats(self) -> PoolStats:
        """How it stands."""
        return PoolStats(
            warm=len(self._warm),
            in_use=len(self._in_use),
            waiting=len(self._waiting),
            opened=self._opened,
            handed_out=self._handed_out,
            lost=self._lost,
            aged=self._aged,
            failed=self._failed,
            last_failure=self._last_failure,
        )

    # --- keeping ------------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """One place: a session that waits, and when it is gone the next."""
        failures = 0
        while True:
            await self._room.acquire()
            session = await self._open()
            outcome = "lost" if session is None else await self._await_caller(session)
            failures = failures + 1 if outcome == "lost" else 0
            if failures:
                longest = min(FIRST_WAIT_S * 2.0 ** min(failures - 1, 30), LONGEST_WAIT_S)
                await asyncio.sleep(self._random.uniform(longest / 2, longest))

    async def _open(self) -> Session | None:
        """A session that is connected and configured; None where that has failed."""
        try:
            session = await self._connect().connect()
        except Exception as error:
            self._room.release()
            self._note_failure(error)
            return None
        except BaseException:
            self._room.release()
            raise
        self._opened += 1
        self._last_failure = None
        return session

    def _note_failure(self, error: Exception) -> None:
        self._failed += 1
        self._last_failure = error
        log.warning("no session for the pool: %s", error)
        if not (isinstance(error, VivavoceError) and is_passing(error)):
            self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        """Tell all who wait for a session that there will be none."""
        for future in self._waiting:
            if not future.done():
                future.set_exception(error)
        if self._full is not None:
            self._full.set_exception(error)
            self._full.exception()  # nobody need wait
            self._full = None

    async def _await_caller(self, session: Session) -> Outcome:
        """Keep a session until somebody takes it, or it is no good any more."""
        for future in self._waiting:
            if not future.done():
                future.set_result(session)
                return "taken"
        warm = _Warm(session)
        self._warm.append(warm)
        if len(self._warm) == self._size and self._full is not None:
            self._full.set_result(None)
            self._full = None
        lost = asyncio.create_task(_loss_of(session), name="pool watch")
        try:
            age_s = self._age_s_max * self._random.uniform(1 - AGE_SPREAD, 1)
            await asyncio.wait((warm.taken, lost), timeout=age_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            is_lost = lost.done()
            lost.cancel()
            if not warm.taken.done():
                self._warm.remove(warm)
                self._end(session)
        if warm.taken.done():
            return "taken"
        self._lost += is_lost
        self._aged += not is_lost
        return "lost" if is_lost else "aged"


async def _loss_of(session: Session) -> None:
    """Wait until the connection of an idle session is lost, whether or not it would come back."""
    with suppress(VivavoceError):  # it has ended before this began
        await session.wait_for("connection.*", where=lambda change: change.what in ("lost", "closed"))
