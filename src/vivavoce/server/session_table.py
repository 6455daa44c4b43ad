"""The table of sessions in a database: SQLite in one file, or PostgreSQL, through SQLAlchemy.

One column for each field of `SessionRecord`, so that operators may ask in SQL as well. Blocking: `session_log` calls it
from threads. Invariant: a SQLite file that a killed process leaves behind opens clean, with all that was committed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from vivavoce.errors import SettingsError

from .records import SessionRecord, Wanted

NAME = "vivavoce_sessions"
BUSY_S = 5.0
"""How long a statement waits where another process writes into the same file, or for PostgreSQL to let it in."""
CONNECTIONS_MAX = 4
"""To PostgreSQL: one that writes, others that read."""

DRIVERS: Mapping[str, str] = {"sqlite": "sqlite", "postgresql": "postgresql+pg8000", "postgres": "postgresql+pg8000"}
"""What a URL may begin with, and by which driver that is reached."""

EXPECTED = "the path of a SQLite file, 'sqlite:///PATH' or 'postgresql://user:password@host/name'"

_TYPES: Mapping[type, type[sa.types.TypeEngine[Any]]] = {int: sa.BigInteger, float: sa.Double, str: sa.Text}
_UNSTORABLE = {0: "\ufffd"} | dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
_FIELDS = tuple(field.name for field in msgspec.structs.fields(SessionRecord))


def _column(field: msgspec.structs.FieldInfo) -> sa.Column[Any]:
    """A column for a field of the record; those that a later version adds can be empty in the rows before."""
    parts = get_args(field.type) or (field.type,)
    kind = next((_TYPES[part] for part in (int, float, str) if part in parts), sa.Text)
    return sa.Column(field.name, kind(), primary_key=field.name == "id", nullable=field.name != "id")


metadata = sa.MetaData()
sessions = sa.Table(NAME, metadata, *(_column(field) for field in msgspec.structs.fields(SessionRecord)))
sa.Index(f"{NAME}_began", sessions.c.began_at, sessions.c.id)
sa.Index(f"{NAME}_status", sessions.c.status, sessions.c.seen_at)


def database_url(text: str) -> URL:
    """A path, which is that of a SQLite file, or a URL. Raises `SettingsError`, which shows no password."""
    try:
        url = make_url(text) if "://" in text else URL.create("sqlite", database=text)
    except (ArgumentError, ValueError):
        raise SettingsError(f"session_log: expected {EXPECTED}") from None
    driver = DRIVERS.get(url.drivername) or (url.drivername if url.drivername in DRIVERS.values() else None)
    if driver is None:
        raise SettingsError(f"session_log: expected {EXPECTED}, not a URL that begins with {url.drivername!r}")
    if driver == "sqlite":
        _check_file(url.database)
    return url.set(drivername=driver)


def _check_file(name: str | None) -> None:
    if not name or name == ":memory:":
        raise SettingsError("session_log: a log needs a file: give its path")
    path = Path(name)
    target = path if path.exists() else path.parent
    if path.is_dir() or not target.exists() or not os.access(target, os.W_OK):
        raise SettingsError(f"session_log: {name!r} cannot be written to")


class SessionTable:
    """The table at a URL of `database_url`. Connects when it is first used; every call may raise `SQLAlchemyError`."""

    def __init__(self, url: URL) -> None:
        self._is_file = url.get_backend_name() == "sqlite"
        self._path = Path(url.database or "")
        # Without the pool's ping, the first statement after PostgreSQL has been restarted would fail.
        options: dict[str, Any] = {} if self._is_file else {"pool_size": CONNECTIONS_MAX, "pool_timeout": BUSY_S}
        self._engine = sa.create_engine(
            url,
            connect_args={"timeout": BUSY_S},
            hide_parameters=True,
            pool_pre_ping=not self._is_file,
            **options,
        )
        if self._is_file:
            sa.event.listen(self._engine, "connect", _tune)

    def create(self) -> None:
        """Make the table where there is none, and the columns that an older version did not have."""
        if self._is_file and not self._path.exists():
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))  # who called is nobody else's business
        with self._engine.begin() as connection:
            metadata.create_all(connection)
            there = {column["name"] for column in sa.inspect(connection).get_columns(NAME)}
            for column in sessions.c:
                if column.name not in there:
                    kind = column.type.compile(self._engine.dialect)
                    connection.execute(sa.text(f"ALTER TABLE {NAME} ADD COLUMN {column.name} {kind}"))

    def write(self, records: Sequence[SessionRecord]) -> None:
        """Put them in, each in the place of the one with its id; all of them or none."""
        rows: Any = [_row(record) for record in records]
        if not self._is_file:
            rows = {"records": msgspec.json.encode(rows).decode()}
        with self._engine.begin() as connection:
            connection.execute(self.upsert(), rows)

    def upsert(self) -> sa.Executable:
        """The statement that puts records in: for SQLite one after the other, for PostgreSQL all, as JSON.

        There every parameter of every row costs time in a driver of Python, and other threads the interpreter.
        """
        insert = (sqlite.insert if self._is_file else postgresql.insert)(sessions)
        if not self._is_file:
            source = sa.text(f"json_populate_recordset(NULL::{NAME}, CAST(:records AS json))")
            insert = insert.from_select(_FIELDS, sa.select(*map(sa.column, _FIELDS)).select_from(source))
        others = {name: insert.excluded[name] for name in _FIELDS if name != "id"}
        return insert.on_conflict_do_update(index_elements=["id"], set_=others)

    def interrupt(self, *, server: str | None = None, unseen_since: float | None = None) -> int:
        """Mark sessions as interrupted that live no more: those of `server`, or not seen since. Says how many."""
        live = sessions.c.status == "live"
        gone = sessions.c.server == server if server is not None else sessions.c.seen_at < unseen_since
        changed = {"status": "interrupted", "state": "over", "reason": "the server was interrupted", "response": None}
        with self._engine.begin() as connection:
            update = sa.update(sessions).where(live, gone).values(ended_at=sessions.c.seen_at, **changed)
            return connection.execute(update).rowcount

    def prune(self, *, before: float, rows_max: int) -> int:
        """Forget sessions that ended before, and the oldest of more than `rows_max`. Says how many."""
        over = sessions.c.status != "live"
        newest = sa.select(sessions.c.id).order_by(sessions.c.began_at.desc(), sessions.c.id.desc())
        surplus = newest.where(over).offset(rows_max)
        with self._engine.begin() as connection:
            old = connection.execute(sa.delete(sessions).where(over, sessions.c.ended_at < before)).rowcount
            return old + connection.execute(sa.delete(sessions).where(sessions.c.id.in_(surplus))).rowcount

    def read(self, wanted: Wanted) -> list[SessionRecord]:
        """The sessions that are asked for."""
        with self._engine.connect() as connection:
            rows = connection.execute(_query(wanted)).mappings().all()
        return [_record(dict(row)) for row in rows]

    def find(self, id: str) -> SessionRecord | None:
        """The session with this id."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(sessions).where(sessions.c.id == _storable(id))).mappings().first()
        return None if row is None else _record(dict(row))

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()


def _query(wanted: Wanted) -> sa.Select[Any]:
    column = sessions.c
    query = sa.select(sessions).order_by(column.began_at.desc(), column.id.desc()).limit(wanted.limit)
    if wanted.status is not None:
        query = query.where(column.status == wanted.status)
    if wanted.key is not None:
        query = query.where(column.key == _storable(wanted.key))
    if wanted.since is not None:
        query = query.where(column.began_at >= wanted.since)
    if wanted.after is not None:
        after = _storable(wanted.after)
        last = sa.select(column.began_at).where(column.id == after).scalar_subquery()
        query = query.where(sa.tuple_(column.began_at, column.id) < sa.tuple_(last, sa.literal(after)))
    return query


def _row(record: SessionRecord) -> dict[str, Any]:
    """A record as a row."""
    return {
        name: _storable(value) if isinstance(value, str) else value
        for name, value in msgspec.structs.asdict(record).items()
    }


def _storable(text: str) -> str:
    """Words of a client as they are in the table, for who writes or asks: PostgreSQL takes not every character."""
    return text.translate(_UNSTORABLE)


def _record(row: Mapping[str, Any]) -> SessionRecord:
    """What a row says; where a column is newer than the row, nothing."""
    return SessionRecord(**{name: row[name] for name in _FIELDS})


def _tune(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    # With a write-ahead log a kill loses nothing that was committed, and who reads does not wait for who writes.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
