"""Who may see what runs on a server: operators, and whoever sits at a machine whose server has no keys."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from test_serve import scripted

from vivavoce.server import running

LIST = "/v1/realtime/sessions"


def status(headers: dict[str, str], **settings: Any) -> int:
    async def main() -> int:
        async with running(scripted(**settings)) as server, httpx.AsyncClient(trust_env=False) as http:
            return (await http.get(f"http://{server.host}:{server.port}{LIST}", headers=headers)).status_code

    return asyncio.run(main())


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://localhost:3000"}, {"Host": "localhost:8080"}])
def test_a_server_without_keys_tells_this_machine(headers: dict[str, str]) -> None:
    assert status(headers) == 200


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example:8080"}, {"Host": "["}])
def test_but_no_page_that_its_browser_shows_by_whatever_name(headers: dict[str, str]) -> None:
    assert status(headers) == 403


@pytest.mark.parametrize(("key", "expected"), [("sk-operator", 200), ("sk-user", 403), ("sk-nobody", 401)])
def test_where_there_are_keys_it_takes_an_operators(key: str, expected: int) -> None:
    headers = {"Authorization": f"Bearer {key}", "Host": "voice.example"}
    assert status(headers, api_keys=["sk-user"], admin_keys=["sk-operator"]) == expected
