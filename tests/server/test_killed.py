"""A server that is killed: what its log of sessions still knows."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import closing as closed
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from serve_process import ServeProcess, serve_process
from test_serve import RESPOND, message, until
from websockets.asyncio.client import connect

from vivavoce.server.session_log import REFRESH_S

PATIENCE_S = 120.0
LOOK_S = 0.02
ASKED = ("id", "status", "responses", "turns", "input_tokens", "audio_in_s", "revision", "seen_at", "ended_at")


def rows(path: Path) -> list[dict[str, Any]]:
    """What is in the database, read as any program would."""
    with closed(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT {', '.join(ASKED)} FROM vivavoce_sessions")]


def row_of(path: Path, revision: int) -> dict[str, Any]:
    """The one session that there is, once it has been written so often. The server may be making the table still."""
    latest = time.monotonic() + PATIENCE_S
    while time.monotonic() < latest:
        with suppress(sqlite3.OperationalError):
            if (found := rows(path)) and found[0]["revision"] >= revision:
                (one,) = found
                return one
        threading.Event().wait(LOOK_S)  # another process announces nothing, and wants the processor
    raise AssertionError("the session was not written")


def test_after_a_kill_the_log_opens_clean_and_lacks_a_second_at_most(tmp_path: Path) -> None:
    """Deterministic: what was true before the last but one look at the session is there."""
    path = tmp_path / "sessions.db"
    assert 2 * REFRESH_S <= 1.0

    async def talk(server: ServeProcess) -> dict[str, Any]:
        async with connect(f"{server.url}?model=m", proxy=None, ping_interval=None) as client:
            session = (await until(client, "session.created"))["session"]
            for _ in range(2):
                await client.send(message("hello"))
                await client.send(RESPOND)
                done = await until(client, "response.done")
            await client.send('{"type": "input_audio_buffer.append", "audio": "' + "A" * 64_000 + '"}')
            await client.send('{"type": "input_audio_buffer.commit"}')
            await until(client, "input_audio_buffer.committed")
            now = await asyncio.to_thread(row_of, path, 1)
            # The look that is under way may have begun before; the one after it has not.
            seen = await asyncio.to_thread(row_of, path, now["revision"] + 2)
            server.process.kill()
            return {"id": session["id"], "usage": done["response"]["usage"], "seen": seen}

    with serve_process("--session-log", str(path)) as server:
        said = asyncio.run(asyncio.wait_for(talk(server), PATIENCE_S))
        server.process.wait()
        port = server.port
    with closed(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    (left,) = rows(path)
    assert (left["id"], left["status"], left["ended_at"]) == (said["id"], "live", None)
    assert (left["responses"], left["turns"], left["audio_in_s"]) == (2, 1, 1.0)
    assert left["input_tokens"] > said["usage"]["input_tokens"]
    assert left["revision"] >= said["seen"]["revision"]

    with serve_process("--session-log", str(path), port=port) as again:
        listed = f"http://{again.host}:{again.port}/v1/realtime/sessions"
        (one,) = httpx.get(listed, params={"status": "interrupted"}, trust_env=False).json()["data"]
    assert (one["id"], one["reason"]) == (said["id"], "the server was interrupted")
    assert one["ended_at"] == left["seen_at"], "when it was last known to live"
