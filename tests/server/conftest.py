"""Fixtures of the tests that speak to a whole server."""

from __future__ import annotations

import pytest
from served import DOORS, SERVED


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test twice, once for each door of the server; for a whole module, `pytestmark` uses it."""
    name = str(request.param)
    monkeypatch.setitem(SERVED, "websocket", name)
    return name
