"""The log of sessions: what is in the table, what is written when, and what a database that is away costs."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable
from test_operators import LIST, ask
from test_serve import RESPOND, message, receive, scripted, socket_to, until, within_time

from vivavoce.errors import SettingsError
from vivavoce.server import running, session_log, session_table
from vivavoce.server.records import SessionRecord, Wanted
from vivavoce.server.session_log import REFRESH_S, SessionLog
from vivavoce.server.session_table import SessionTable, database_url

POSTGRES = os.environ.get("VIVAVOCE_POSTGRES")
"""The URL of a database in which the table may be made anew."""

SAMPLE = SessionRecord(
    id="sess_1",
    status="live",
    server="host:1",
    kind="realtime",
    model="m",
    pipeline="scripted",
    dialect="ga",
    transport="websocket",
    began_at=1_000.0,
    seen_at=1_010.5,
    active_at=1_010.25,
    age_s=10.5,
    state="answering",
    turns=1,
    responses=2,
    interruptions=0,
    failures=0,
    response="resp_1",
    input_tokens=3,
    output_tokens=4,
    cost=0.125,
    audio_in_s=1.5,
    audio_out_s=2.5,
    errors=0,
    revision=7,
)


def record(number: int, **values: Any) -> SessionRecord:
    return msgspec.structs.replace(SAMPLE, id=f"sess_{number}", began_at=1_000.0 + number, **values)


@pytest.fixture(params=["sqlite", "postgresql"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionTable]:
    if request.param == "postgresql" and POSTGRES is None:
        pytest.skip("VIVAVOCE_POSTGRES names no database")
    url = database_url(str(tmp_path / "sessions.db") if request.param == "sqlite" else POSTGRES or "")
    engine = sa.create_engine(url)
    session_table.metadata.drop_all(engine)
    engine.dispose()
    made = SessionTable(url)
    made.create()
    yield made
    made.close()


def ids(table: SessionTable, **wanted: Any) -> list[str]:
    return [one.id for one in table.read(Wanted(**{"limit": 100, **wanted}))]


# --- the table --------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was_and_a_later_one_takes_its_place(table: SessionTable) -> None:
    table.write([SAMPLE, record(2)])
    assert table.find("sess_1") == SAMPLE
    later = msgspec.structs.replace(SAMPLE, status="ended", ended_at=1_020.0, reason="done (1000)", response=None)
    table.write([later])
    assert table.find("sess_1") == later
    assert table.find("sess_3") is None
    assert ids(table) == ["sess_2", "sess_1"], "the latest first"


def test_what_is_asked_for_is_what_comes(table: SessionTable) -> None:
    table.write([record(n, key="a" if n % 2 else "b", status="ended" if n < 5 else "live") for n in range(8)])
    assert ids(table, limit=3) == ["sess_7", "sess_6", "sess_5"]
    assert ids(table, limit=3, after="sess_5") == ["sess_4", "sess_3", "sess_2"]
    assert ids(table, status="ended", key="a") == ["sess_3", "sess_1"]
    assert ids(table, since=1_006.0) == ["sess_7", "sess_6"]
    assert ids(table, after="sess_unknown") == []


def test_pages_are_whole_where_sessions_began_in_the_same_moment(table: SessionTable) -> None:
    table.write([msgspec.structs.replace(SAMPLE, id=f"sess_{n}") for n in range(5)])
    assert ids(table, limit=2) + ids(table, limit=9, after="sess_3") == [f"sess_{n}" for n in (4, 3, 2, 1, 0)]


def test_words_of_clients_that_no_database_takes_are_stored_all_the_same(table: SessionTable) -> None:
    table.write([record(1, model="a\0b\ud800'; DROP TABLE vivavoce_sessions; --", reason="\0")])
    found = table.find("sess_1")
    assert found is not None
    assert (found.model, found.reason) == ("a\ufffdb\ufffd'; DROP TABLE vivavoce_sessions; --", "\ufffd")


@pytest.mark.parametrize("asked", [{"key": "k\0"}, {"after": "sess\0"}, {"key": "\ud800"}])
def test_and_what_is_asked_for_with_such_words_is_nothing_unless_it_is_there(
    table: SessionTable, asked: dict[str, str]
) -> None:
    table.write([record(1, key="k")])
    assert ids(table, **asked) == []
    assert table.find("sess_1\0") is None
    table.write([record(2, key="k\0"), msgspec.structs.replace(SAMPLE, id="sess\0", key="\ud800", began_at=1_003.0)])
    assert len(ids(table, **asked)) == (2 if "after" in asked else 1)
    assert table.find("sess\0") is not None


def test_no_statement_carries_a_character_that_postgresql_refuses() -> None:
    wanted = Wanted(limit=1, key="k\0", after="sess\0")
    params = session_table._query(wanted).compile(dialect=postgresql.dialect()).params
    assert "\0" not in "".join(value for value in params.values() if isinstance(value, str))


def test_what_a_server_left_open_is_interrupted_where_it_was_last_seen(table: SessionTable) -> None:
    table.write([record(1), record(2, server="host:2"), record(3, status="ended", reason="done")])
    assert table.interrupt(server="host:1") == 1
    first, second, third = (table.find(f"sess_{n}") for n in (1, 2, 3))
    assert first == record(
        1, status="interrupted", state="over", reason="the server was interrupted", ended_at=1_010.5, response=None
    )
    assert (second, third) == (record(2, server="host:2"), record(3, status="ended", reason="done"))
    assert table.interrupt(unseen_since=1_010.5) == 0
    assert table.interrupt(unseen_since=1_010.6) == 1, "whose server is not known any more"


def test_old_sessions_and_the_oldest_of_too_many_are_forgotten_and_living_ones_never(table: SessionTable) -> None:
    table.write([record(0), *(record(n, status="ended", ended_at=2_000.0 + n) for n in range(1, 8))])
    assert table.prune(before=2_003.0, rows_max=3) == 4
    assert ids(table) == ["sess_7", "sess_6", "sess_5", "sess_0"]


def test_columns_that_an_older_version_did_not_have_are_added(table: SessionTable) -> None:
    table.write([SAMPLE])
    with table._engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE vivavoce_sessions DROP COLUMN cost"))
    table.create()
    assert table.find("sess_1") == msgspec.structs.replace(SAMPLE, cost=None)
    table.write([record(2)])


def test_the_statements_are_what_postgresql_takes() -> None:
    """By its dialect, where no server is at hand; the tests above speak to one where there is."""
    created = str(CreateTable(session_table.sessions).compile(dialect=postgresql.dialect()))
    assert "id TEXT NOT NULL" in created
    assert "began_at DOUBLE PRECISION" in created
    table = SessionTable(database_url("postgresql://user:geheim@127.0.0.1:1/voice"))
    upsert = str(table.upsert().compile(dialect=postgresql.dialect()))
    assert "ON CONFLICT (id) DO UPDATE SET" in upsert
    assert upsert.count("excluded.") == len(SessionRecord.__struct_fields__) - 1
    table.close()


def test_a_file_of_sqlite_is_nobody_elses_business_and_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    table = SessionTable(database_url(str(path)))
    table.create()
    table.write([SAMPLE])
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    if os.name == "posix":
        assert path.stat().st_mode & 0o077 == 0
    table.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mysql://root:geheim@host/db", "begins with 'mysql'"),
        ("postgresql://user:geheim@host:port/db", "expected the path"),
        ("/no/such/folder/sessions.db", "cannot be written to"),
        ("sqlite://", "give its path"),
        (":memory:", "give its path"),
    ],
)
def test_what_is_no_place_for_a_log_is_refused_at_the_start_without_its_password(given: str, said: str) -> None:
    with pytest.raises(SettingsError, match="session_log") as refused:
        session_log.session_log(scripted(session_log=given))
    assert said in str(refused.value)
    assert "geheim" not in str(refused.value)


# --- the log ----------------------------------------------------------------------------------------------------------


class Gate(SessionTable):
    """A database that is away as long as the test wants."""

    def __init__(self, path: Path) -> None:
        super().__init__(database_url(str(path)))
        self.is_away = True

    def create(self) -> None:
        if self.is_away:
            raise OSError("away")
        super().create()


class Told:
    """A session of which a log is told; a double, without a runtime."""

    server = "host:1"

    def __init__(self, number: int) -> None:
        self.number = number
        self.revision = 0

    def record(self, now: float, status: str = "live") -> SessionRecord:
        self.revision += 1
        return record(self.number, status=status, seen_at=now, revision=self.revision)


def log_of(table: SessionTable, **values: Any) -> SessionLog:
    return SessionLog(table, **{"keep_s": 1e9, "rows_max": 1_000, "wall_s": lambda: 1_100.0, **values})


def test_a_database_that_is_away_costs_no_session_and_gets_everything_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session_log, "RETRY_S", 0.001)
    monkeypatch.setattr(session_log, "PENDING_MAX", 3)

    async def main() -> None:
        table = Gate(tmp_path / "sessions.db")
        log = log_of(table)
        for number in range(5):
            told: Any = Told(number)
            log.begin(told)
            log.end(told, told.record(1_100.0, "ended"))
        while log.failure is None:  # noqa: ASYNC110 - set by a thread
            await asyncio.sleep(0)
        assert log.failure == "OSError: away"
        assert log.lost == 2, "more than may wait"
        table.is_away = False
        while log.failure is not None:  # noqa: ASYNC110 - set by a thread
            await asyncio.sleep(0)
        assert [one.id for one in await log.read(Wanted(limit=9))] == ["sess_4", "sess_3", "sess_2"]
        await log.close()

    within_time(main())
    said = [one.getMessage() for one in caplog.records]
    assert [line for line in said if "cannot be written" in line] == [
        "the log of sessions cannot be written, and is tried again: OSError: away"
    ], "once, however often it was tried"


def test_a_server_that_stops_does_not_wait_for_a_database_that_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        log = log_of(Gate(tmp_path / "sessions.db"))
        told: Any = Told(1)
        log.begin(told)
        log.end(told, told.record(1_100.0, "ended"))
        await log.close()
        assert log._thread is not None
        assert not log._thread.is_alive()

    within_time(main())
    assert "1 sessions are not in the log: the database did not take them" in caplog.text


def test_a_session_that_outlasts_the_stop_of_its_server_is_ended_there_and_not_found_interrupted(
    tmp_path: Path,
) -> None:
    url = database_url(str(tmp_path / "sessions.db"))

    async def main() -> None:
        log = log_of(SessionTable(url))
        told: Any = Told(1)
        log.begin(told)
        await log.close()
        log.end(told, told.record(1_200.0, "ended"))  # too late, and harmless

    within_time(main())
    table = SessionTable(url)
    assert table.interrupt(server="host:1") == 0
    found = table.find("sess_1")
    table.close()
    assert found is not None
    assert (found.status, found.seen_at) == ("ended", 1_100.0)


def test_a_session_that_lives_is_written_again_and_again(tmp_path: Path) -> None:
    assert 2 * REFRESH_S <= 1.0, "of what is written at the second look, no more than a second is missing"

    async def main() -> None:
        log = log_of(SessionTable(database_url(str(tmp_path / "sessions.db"))))
        told: Any = Told(1)
        log.begin(told)
        while (found := await log.find("sess_1")) is None or found.revision < 3:
            pass
        assert found.status == "live"
        log.end(told, told.record(1_100.0, "ended"))
        found = await log.find("sess_1")
        assert found is not None
        assert found.status == "ended", "who asks waits for what is pending"
        await log.close()

    within_time(main())


# --- over HTTP --------------------------------------------------------------------------------------------------------


def test_sessions_that_have_ended_are_in_the_log_and_no_word_of_them(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"

    async def main() -> None:
        async with running(scripted(session_log=str(path))) as server:
            async with socket_to(server) as socket:
                session_id = (await receive(socket))["session"]["id"]
                await socket.send(message("a secret word"))
                await socket.send(RESPOND)
                done = await until(socket, "response.done")
                (live,) = (await ask(server, "?status=live")).json()["data"]
                assert live["id"] == session_id
            while (await ask(server)).json()["data"]:
                pass
            (ended,) = (await ask(server, "?status=ended")).json()["data"]
            assert (ended["id"], ended["status"], ended["responses"]) == (session_id, "ended", 1)
            assert ended["reason"] == "closed by the client (1000)"
            assert ended["input_tokens"] == done["response"]["usage"]["input_tokens"]
            assert (await ask(server, f"/{session_id}")).json() == ended
            assert (await ask(server, "?status=all&limit=1")).json()["data"] == [ended]
            assert (await ask(server, "?status=interrupted")).json()["data"] == []
            assert (await ask(server, f"/{session_id}", "DELETE")).status_code == 404
        assert LIST.encode() not in path.read_bytes()

    within_time(main())
    for file in tmp_path.iterdir():
        assert b"secret word" not in file.read_bytes(), file


def test_a_server_in_its_old_place_says_what_its_predecessor_left_open(tmp_path: Path) -> None:
    values: dict[str, Any] = {"session_log": str(tmp_path / "sessions.db"), "session_log_days": 1e6}

    async def main() -> None:
        async with running(scripted(**values)) as server:
            port, name = server.port, server.app.state.sessions.server
        table = SessionTable(database_url(str(values["session_log"])))
        table.write([record(1, server=name)])
        table.close()
        async with running(scripted(**values, port=port)) as server:
            (one,) = (await ask(server, "?status=interrupted")).json()["data"]
            assert one["id"] == "sess_1"

    within_time(main())
