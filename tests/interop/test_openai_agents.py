"""The agents packages, `openai-agents` of Python and `@openai/agents-realtime` of npm, unmodified.

Both hold a session of their own over the API: agent, tools, history. Each connects through a tap, whose every event is
judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from conversations import MODEL, SLOW_MODEL
from environments import install_npm, run_python, told_by
from heard import BYTES_PER_MS, CHARACTER_MS
from openai.types.realtime import RealtimeServerEvent
from strictness import GA, Judge
from tap import Overheard, Tap

pytestmark = pytest.mark.interop

VERSION = "0.24.0"
"""Of the Python package; those of npm are in `js/package.json`."""
TITLES = ("defaults", "written", "spoken", "manual", "calling", "cancelled", "barged_in", "mistaken")
SAID = {
    "written": [["user", "Good morning"], ["assistant", "echo: Good morning"]],
    "spoken": [["user", "audio of 1800 ms"], ["assistant", "echo: audio of 1800 ms"]],
    "manual": [["user", "audio of 2400 ms"], ["assistant", "echo: audio of 2400 ms"]],
    "calling": [["user", 'call get_weather {"city": "Paris"}'], ["assistant", "tool said: 18 degrees in Paris"]],
    "mistaken": [["user", "Good morning"], ["assistant", "echo: Good morning"]],
}
ENDINGS: dict[str, list[tuple[str, str | None]]] = {
    "cancelled": [("cancelled", "client_cancelled")],
    "barged_in": [("cancelled", "turn_detected")],
}


@dataclass(frozen=True)
class Told:
    """What a program told of all its conversations, and what the tap overheard of them."""

    by_title: dict[str, Any]
    connections: list[Overheard]


def python(url: str) -> dict[str, Any]:
    told: dict[str, Any] = run_python("agents_client.py", url, f"openai-agents[realtime]=={VERSION}")
    return told


def npm(url: str) -> dict[str, Any]:
    packages = install_npm()
    told: dict[str, Any] = told_by(packages.command("agents.mjs", url, MODEL, SLOW_MODEL))
    return told


@pytest.fixture(scope="module", params=[python, npm])
def told(request: pytest.FixtureRequest, server_url: str) -> Told:
    with Tap(server_url) as tap:
        by_title = request.param(tap.url)
    return Told(by_title, tap.connections)


@pytest.mark.parametrize("title", TITLES)
def test_conversation(title: str, told: Told) -> None:
    heard = told.by_title[title]
    assert "failed" not in heard, heard
    assert heard["errors"] == (["input_audio_buffer_commit_empty"] if title == "mistaken" else [])
    assert heard["tools"] == (["18 degrees in Paris"] if title == "calling" else [])
    if title in SAID:
        assert heard["said"] == SAID[title]
    if title == "defaults":
        (_, user_text), (_, assistant_text) = heard["said"]
        assert assistant_text == f"echo: {user_text}"
    if title in ("defaults", "spoken", "manual", "calling"):
        assert heard["audio_bytes"] == len(heard["said"][1][1]) * CHARACTER_MS * BYTES_PER_MS
    interrupted = {"audio_interrupted", "session.audio_interrupted"} & set(heard["kinds"])
    assert bool(interrupted) == (title in ENDINGS)
    overheard = dict(zip(told.by_title, told.connections, strict=True))[title]
    assert overheard.endings() == ENDINGS.get(title, [("completed", None)] * (2 if title == "calling" else 1))


def test_every_event_is_as_the_types_have_it(told: Told) -> None:
    assert len(told.connections) == len(TITLES)
    judge = Judge(RealtimeServerEvent, GA)
    for connection in told.connections:
        judge.check_all(connection.heard)
