"""`vivavoce sessions`, against a server of this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vivavoce.cli import main
from vivavoce.cli.sessions import KEY_VARIABLE
from vivavoce.sync import connect
from vivavoce.testing.real_server import RealServer

ADMIN = "sk-operator-0001"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealServer]:
    with RealServer(settings={"admin_keys": [ADMIN], "session_log": str(tmp_path / "sessions.db")}) as serving:
        yield serving


def told(capsys: pytest.CaptureFixture[str], server: RealServer, *arguments: str, key: str = ADMIN) -> tuple[int, Any]:
    code = main(["sessions", *arguments, "--url", server.url, "--admin-key", key])
    return code, capsys.readouterr()


def listed(capsys: pytest.CaptureFixture[str], server: RealServer, *arguments: str) -> list[dict[str, Any]]:
    code, printed = told(capsys, server, "list", "--json", *arguments)
    assert code == 0, printed.err
    return [json.loads(line) for line in printed.out.splitlines()]


def test_sessions_are_listed_shown_and_closed(server: RealServer, capsys: pytest.CaptureFixture[str]) -> None:
    model = "m\x1b[2J"
    with connect(model, url=server.url, api_key=server.api_key) as session:
        session.ask("Hello")
        (one,) = listed(capsys, server)
        assert (one["model"], one["responses"]) == (model, 1)
        _, table = told(capsys, server, "list")
        header, row = table.out.splitlines()
        assert header.split()[:4] == ["began", "id", "status", "kind"]
        assert row.split()[2:5] == [one["id"], "live", "realtime"]
        assert "\x1b" not in row, "a client's word gives no orders"
        shown = told(capsys, server, "show", one["id"])[1].out
        assert ["responses", "1"] in [line.split() for line in shown.splitlines()]
        code, closed = told(capsys, server, "close", one["id"])
        assert (code, closed.out.startswith(f"closed {one['id']} after ")) == (0, True)
    assert listed(capsys, server) == []
    (ended,) = listed(capsys, server, "--status", "ended", "--limit", "1")
    assert (ended["id"], ended["reason"]) == (one["id"], "An operator has closed this session (1008)")
    assert listed(capsys, server, "--status", "all", "--since", "2020-01-01", "--key", "0" * 16) == []


def test_more_than_a_page_is_asked_for_page_by_page(
    server: RealServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivavoce.cli.sessions.PAGE", 2)
    for _ in range(5):
        with connect("m", url=server.url, api_key=server.api_key):
            pass
    while listed(capsys, server):
        pass
    found = listed(capsys, server, "--status", "ended")
    assert len({one["id"] for one in found}) == 5
    assert [one["id"] for one in listed(capsys, server, "--status", "ended", "--limit", "3")] == [
        one["id"] for one in found[:3]
    ]


def test_the_key_may_be_in_the_environment_and_a_wrong_one_is_said_to_be_wrong(
    server: RealServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, ADMIN)
    assert main(["sessions", "list", "--url", server.url.replace("http", "ws", 1) + "/realtime"]) == 0
    code, printed = told(capsys, server, "list", key=server.api_key)
    assert code == 1
    assert "This is for operators" in printed.err
    code, printed = told(capsys, server, "close", "sess_nobody")
    assert (code, "There is no session 'sess_nobody'" in printed.err) == (1, True)


def test_a_key_that_came_with_a_newline_is_taken_and_an_impossible_one_is_not_shown(
    server: RealServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(capsys, server, "list", key=f"{ADMIN}\n")[0] == 0
    for key in ("sk-se\ncret", "sk-sécret"):
        code, printed = told(capsys, server, "list", key=key)
        assert (code, "has characters that no key has" in printed.err) == (1, True)
        assert "cret" not in printed.err + printed.out


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://[", "nonsense"])
def test_where_there_is_no_server_that_is_said(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sessions", "list", "--url", url]) == 1
    assert "cannot be reached" in capsys.readouterr().err
