"""The npm package `openai`, unmodified: the current one for GA, 4.x for the preview.

It connects by TLS only, so it gets a tap that speaks it; what the tap overhears is judged, and equals what it emits.
"""

from __future__ import annotations

import json

import npm
import pytest
from checks import CHECKS
from conversations import BETA, CONVERSATIONS, GA, TRANSCRIBING, model_for
from environments import Npm, install_npm
from openai.types.beta.realtime.realtime_server_event import RealtimeServerEvent as BetaServerEvent
from openai.types.realtime import RealtimeServerEvent
from openai_client import OF_THE_PREVIEW
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


HELD = [
    *(("ga", "openai", title) for title in CONVERSATIONS),
    *(("beta", "openai", title) for title in OF_THE_PREVIEW),
    *(("ga", "azure", title) for title in ("spoken", "transcribed")),
    ("beta", "azure", "spoken"),
]
"""4.x cannot open a session for transcription: its URL always has a model, and nothing else."""


@pytest.mark.parametrize(("name", "service", "title"), HELD)
def test_conversation(name: str, service: str, title: str, packages: Npm, server_url: str, certificate: str) -> None:
    dialect = {"ga": GA, "beta": BETA}[name]
    model = "--transcription" if title in TRANSCRIBING else model_for(title)
    with Tap(server_url, certificate) as tap:
        url = tap.url.replace("wss://", "https://", 1)
        command = packages.command("openai.mjs", name, service, url, model)
        heard = npm.hold(command, packages.environment(certificate), CONVERSATIONS[title](dialect))
    CHECKS[title](heard)
    (connection,) = tap.connections
    JUDGES[name].check_all(connection.heard)
    emitted = [json.loads(frame) for frame in heard.wire]
    assert [json.loads(frame) for frame in connection.heard][: len(emitted)] == emitted
