"""The npm package `openai`, unmodified: the current one for GA, 4.x for the preview.

It connects by TLS only, so it gets a tap that speaks it; what the tap overhears is judged, and equals what it emits.
"""

from __future__ import annotations

import json

import npm
import pytest
from checks import CHECKS
from conversations import BETA, CONVERSATIONS, GA, Dialect, model_for
from environments import Npm, install_npm
from openai.types.beta.realtime.realtime_server_event import RealtimeServerEvent as BetaServerEvent
from openai.types.realtime import RealtimeServerEvent
from strictness import BETA as BETA_ALLOWANCE
from strictness import GA as GA_ALLOWANCE
from strictness import Judge
from tap import Tap

pytestmark = pytest.mark.interop

JUDGES = {
    "ga": Judge(RealtimeServerEvent, GA_ALLOWANCE),
    "beta": Judge(BetaServerEvent, BETA_ALLOWANCE),
}


@pytest.fixture(scope="module")
def packages() -> Npm:
    return install_npm()


@pytest.mark.parametrize("dialect", [GA, BETA], ids=["7.x", "4.x"])
@pytest.mark.parametrize("title", CONVERSATIONS)
def test_conversation(title: str, dialect: Dialect, packages: Npm, server_url: str, certificate: str) -> None:
    with Tap(server_url, certificate) as tap:
        base = tap.url.replace("wss://", "https://", 1) + "/v1"
        command = packages.command("openai.mjs", dialect.name, base, model_for(title))
        heard = npm.hold(command, packages.environment(certificate), CONVERSATIONS[title](dialect))
    CHECKS[title](heard)
    (connection,) = tap.connections
    JUDGES[dialect.name].check_all(connection.heard)
    emitted = [json.loads(frame) for frame in heard.wire]
    assert [json.loads(frame) for frame in connection.heard][: len(emitted)] == emitted
