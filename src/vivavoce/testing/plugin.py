"""The pytest plugin: a real Realtime server for any test that asks for one.

pytest loads this module in every run of every project beside which vivavoce is installed, whether it is used or not; so
it imports nothing but pytest, and all else when a fixture is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vivavoce.testing.real_server import RealServer

MARKER = "realtime(answers=[...], hears=[...], pace=0, settings={...}): how the fixture realtime_server begins"
SERVER_MISSING = "The fixture realtime_server runs a server, which needs more packages: pip install 'vivavoce[server]'"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARKER)


@pytest.fixture
def realtime_server_factory() -> Iterator[Callable[..., RealServer]]:
    """Starts servers, with the arguments of `RealServer`; they end with the test."""
    try:
        from vivavoce.testing.real_server import RealServer
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == "vivavoce":
            raise
        pytest.fail(f"{SERVER_MISSING} (no module {missing.name!r})")
    with ExitStack() as servers:
        yield lambda **how: servers.enter_context(RealServer(**how))


@pytest.fixture
def realtime_server(request: pytest.FixtureRequest, realtime_server_factory: Callable[..., RealServer]) -> RealServer:
    """A Realtime server with scripted engines, on a free port of this machine, for this test alone.

    `url` and `api_key` are what a client needs. What it says, hears and breaks is up to the test: see `RealServer`.
    """
    marked: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("realtime"))):  # the closest marker counts
        if marker.args or set(marker.kwargs) - {"answers", "hears", "pace", "settings"}:
            pytest.fail(f"expected @pytest.mark.{MARKER.partition(':')[0]}, not {marker}")
        marked |= marker.kwargs
    server = realtime_server_factory(pace=marked.get("pace", 0.0), settings=marked.get("settings"))
    server.answers(*marked.get("answers", ()))
    server.hears(*marked.get("hears", ()))
    return server
