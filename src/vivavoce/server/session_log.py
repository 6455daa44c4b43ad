"""The log of sessions: a row for each from its beginning, refreshed while it lives, kept for a time when it is over.

sessions → `begin`, `end` → what is pending, the latest record of each → a thread that writes it → `SessionTable`.
Nothing here makes a session wait. Invariants: of a session whose server is killed no more than the last second is
missing; a database that is away costs memory up to `PENDING_MAX` records and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Protocol, TypeVar

from vivavoce.errors import SettingsError

from .auth import INTERNAL, Refusal
from .records import SessionRecord, Status, Wanted
from .settings import Secret

if TYPE_CHECKING:
    from .session_table import SessionTable

REFRESH_S = 0.5
"""How often live sessions are written; with the time that writing takes it is well below a second."""
PENDING_MAX = 10_000
"""Sessions that wait to be written, as while the database is away. Beyond it the oldest record is lost, and counted."""
RETRY_S = 2.0
"""After a failure the database is left alone for so long."""
TIDY_S = 60.0
"""How often old sessions are forgotten, and those looked for whose server is no more."""
UNSEEN_S = 30.0
"""A live session that no server has refreshed for so long is taken for interrupted."""
CLOSE_S_MAX = 5.0
"""Time to write what is left when the server stops."""
READ_WAIT_S_MAX = 1.0
"""A reader waits so long for what is pending, so that who ends a session finds it."""
READERS_MAX = 2
"""Requests that read at once; one more waits."""

SAID_CHARS_MAX = 200
"""What is told of an error of the database."""

DAY_S = 86_400.0

T = TypeVar("T")

log = logging.getLogger(__name__)


class LogSettings(Protocol):
    """What is set about the log; see `Settings`."""

    @property
    def session_log(self) -> Secret | None:
        """Where it is."""
        ...

    @property
    def session_log_days(self) -> float:
        """How long sessions are kept."""
        ...

    @property
    def session_log_rows_max(self) -> int:
        """And how many."""
        ...


class Recorded(Protocol):
    """A session that lives, of a server or a relay."""

    @property
    def server(self) -> str:
        """On which it runs."""
        ...

    def record(self, now: float, status: Status = "live") -> SessionRecord:
        """How it stands at unix second `now`."""
        ...


def session_log(settings: LogSettings, *, wall_s: Callable[[], float] = time.time) -> SessionLog | None:
    """The log that the settings name, not yet open; None where they name none. Raises `SettingsError`."""
    if settings.session_log is None:
        return None
    try:
        from .session_table import SessionTable, database_url

        table = SessionTable(database_url(settings.session_log.reveal()))
    except ModuleNotFoundError as error:
        raise SettingsError(f"session_log: {error.name} is missing; pip install 'vivavoce[operators]'") from None
    keep_s = settings.session_log_days * DAY_S
    return SessionLog(table, keep_s=keep_s, rows_max=settings.session_log_rows_max, wall_s=wall_s)


class SessionLog:
    """The log of one server, `open` before anything else; `wall_s` gives unix seconds."""

    def __init__(
        self, table: SessionTable, *, keep_s: float, rows_max: int, wall_s: Callable[[], float] = time.time
    ) -> None:
        self._table = table
        self._keep_s = keep_s
        self._rows_max = rows_max
        self._wall_s = wall_s
        self._server = ""
        self._live: dict[Recorded, None] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._readers = asyncio.Semaphore(READERS_MAX)
        self._thread: threading.Thread | None = None
        self._is_made = False
        self._tidied_s = 0.0
        self._changed = threading.Condition()
        # Below: shared with the thread, under the condition's lock.
        self._pending: dict[str, SessionRecord] = {}
        self._is_writing = False
        self._is_closing = False
        self.failure: str | None = None
        """Why nothing can be written at present."""
        self.lost = 0
        """Sessions whose end is in no log, since too many were waiting."""

    def open(self, server: str) -> None:
        """Begin to write. What `server` left open when it was killed is marked. Doing it twice is harmless."""
        if self._thread is None:
            self._server = server
            self._thread = threading.Thread(target=self._run, name="log of sessions", daemon=True)
            self._thread.start()

    async def close(self) -> None:
        """Write what is left, and let the database go. Whatever lives on has ended for the log: its server does."""
        now = self._wall_s()
        self._put(*[live.record(now, "ended") for live in self._live])
        self._live.clear()
        if self._refreshing is not None:
            self._refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await self._refreshing
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, CLOSE_S_MAX)

    # --- what sessions tell it ----------------------------------------------------------------------------------------

    def begin(self, live: Recorded) -> None:
        """A session begins; from now on it is looked at again and again."""
        self.open(live.server)
        self._live[live] = None
        self._put(live.record(self._wall_s()))
        if self._refreshing is None or self._refreshing.done():
            # In a context of its own, since it outlives the session that it begins with.
            self._refreshing = asyncio.create_task(
                self._refresh(), name="refreshing the log of sessions", context=Context()
            )

    def end(self, live: Recorded, record: SessionRecord) -> None:
        """It is over, with this record."""
        self._live.pop(live, None)
        self._put(record)

    async def _refresh(self) -> None:
        while self._live:
            await asyncio.sleep(REFRESH_S)
            now = self._wall_s()
            self._put(*[live.record(now) for live in self._live])

    def _put(self, *records: SessionRecord) -> None:
        with self._changed:
            for record in records:
                self._pending.pop(record.id, None)
                self._pending[record.id] = record
            self._bound()
            self._changed.notify_all()

    def _bound(self) -> None:
        while len(self._pending) > PENDING_MAX:
            self._pending.pop(next(iter(self._pending)))
            self.lost += 1

    # --- what operators ask -------------------------------------------------------------------------------------------

    async def read(self, wanted: Wanted) -> list[SessionRecord]:
        """The sessions that are asked for, those included that ended a moment ago. Raises `Refusal`."""
        return await self._ask(lambda: self._table.read(wanted))

    async def find(self, id: str) -> SessionRecord | None:
        """The session with this id. Raises `Refusal`."""
        return await self._ask(lambda: self._table.find(id))

    async def _ask(self, question: Callable[[], T]) -> T:
        def answer() -> T:
            with self._changed:
                self._changed.wait_for(lambda: self._is_written or self.failure is not None, READ_WAIT_S_MAX)
            return question()

        async with self._readers:
            try:
                return await asyncio.to_thread(answer)
            except Exception as error:
                log.warning("the log of sessions cannot be read: %s", _said(error))
                message = "The log of sessions cannot be read now; the log of the server says why."
                raise Refusal(INTERNAL, "session_log_failed", message, type="server_error", status=503) from error

    @property
    def _is_written(self) -> bool:
        return self._is_made and not self._pending and not self._is_writing

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        is_last = False
        while not is_last:
            batch, is_last = self._take()
            try:
                self._write(list(batch.values()))
            except Exception as error:  # whatever a driver raises: the thread must not end of it
                self._put_back(batch, error)
                if is_last or self._must_close_within(RETRY_S):
                    log.error("%d sessions are not in the log: the database did not take them", len(self._pending))
                    break
            else:
                self._written()
        self._table.close()

    def _take(self) -> tuple[dict[str, SessionRecord], bool]:
        """What is pending, as soon as there is something or it is time to tidy, and whether that is the last of it."""
        with self._changed:
            if self._is_made:
                self._changed.wait_for(lambda: self._pending or self._is_closing, TIDY_S)
            batch, self._pending = self._pending, {}
            self._is_writing = True
            return batch, self._is_closing

    def _write(self, batch: list[SessionRecord]) -> None:
        if not self._is_made:
            self._table.create()
            if count := self._table.interrupt(server=self._server):
                log.warning("%d sessions were interrupted when this server ended the last time", count)
            self._is_made = True
        if batch:
            self._table.write(batch)
        now = self._wall_s()
        if not 0 <= now - self._tidied_s < TIDY_S:
            self._table.interrupt(unseen_since=now - UNSEEN_S)
            self._table.prune(before=now - self._keep_s, rows_max=self._rows_max)
            self._tidied_s = now

    def _written(self) -> None:
        with self._changed:
            self._is_writing = False
            is_back, self.failure = self.failure is not None, None
            self._changed.notify_all()
        if is_back:
            log.info("the log of sessions is written again")

    def _put_back(self, batch: dict[str, SessionRecord], error: Exception) -> None:
        with self._changed:
            self._is_writing = False
            self._pending = {**batch, **self._pending}
            self._bound()
            is_new, self.failure = self.failure is None, _said(error)
            self._changed.notify_all()
        if is_new:
            log.warning("the log of sessions cannot be written, and is tried again: %s", self.failure)

    def _must_close_within(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._is_closing, seconds)


def _said(error: Exception) -> str:
    """What a database says of itself; SQLAlchemy's own words would repeat the statement."""
    original = getattr(error, "orig", None) or error
    return f"{type(original).__name__}: {str(original)[:SAID_CHARS_MAX]}"
