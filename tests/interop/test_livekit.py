"""`livekit-plugins-openai`, unmodified: its realtime model and session, in GA and through Azure's preview.

Its speech-to-text as well, where that goes through the API.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from environments import printed_by_page, run_python
from heard import CHARACTER_MS
from openai.types.beta.realtime.realtime_server_event import RealtimeServerEvent as BetaServerEvent
from openai.types.realtime import RealtimeServerEvent
from strictness import BETA, GA, Judge
from tap import Overheard, Tap

pytestmark = pytest.mark.interop

VERSION = "1.8.9"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "livekit.md"
WRITTEN = [{"text": "echo: Good morning", "audio_ms": 0, "calls": []}]
CALLED = {"text": "", "audio_ms": 0, "calls": ["get_weather"]}


def spoken(text: str) -> dict[str, Any]:
    return {"text": text, "audio_ms": len(text) * CHARACTER_MS, "calls": []}


@pytest.fixture(scope="module")
def tap(server_url: str) -> Tap:
    return Tap(server_url)


@pytest.fixture(scope="module")
def told(tap: Tap) -> dict[str, Any]:
    with tap:
        heard: dict[str, Any] = run_python("livekit_client.py", tap.url, f"livekit-plugins-openai=={VERSION}")
    return heard


@pytest.mark.parametrize("title", ["written", "mistaken", "azure_written"])
def test_written(title: str, told: dict[str, Any]) -> None:
    heard = told[title]
    assert "failed" not in heard, heard
    assert heard["answers"] == WRITTEN
    assert heard["errors"] == (["item_delete_invalid_item_id"] if title == "mistaken" else [])


@pytest.mark.parametrize(("title", "turn_ms"), [("spoken", 1_800), ("manual", 2_400), ("azure_spoken", 1_800)])
def test_spoken(title: str, turn_ms: int, told: dict[str, Any]) -> None:
    heard = told[title]
    assert "failed" not in heard, heard
    assert heard["answers"] == [spoken(f"echo: audio of {turn_ms} ms")]
    assert heard["user_said"] == [f"audio of {turn_ms} ms"]
    assert heard["errors"] == []


def test_defaults(told: dict[str, Any]) -> None:
    """The plugin's own choice is semantic_vad, which ends a turn when it seems to be over."""
    heard = told["defaults"]
    assert "failed" not in heard, heard
    (said,) = heard["user_said"]
    assert heard["answers"] == [spoken(f"echo: {said}")]
    assert heard["errors"] == []


@pytest.mark.parametrize("title", ["calling", "azure_calling"])
def test_function_call(title: str, told: dict[str, Any]) -> None:
    heard = told[title]
    assert "failed" not in heard, heard
    assert heard["answers"] == [CALLED, spoken("tool said: 18 degrees in Paris")]
    assert heard["errors"] == []


@pytest.mark.parametrize(("title", "reason"), [("cancelled", "client_cancelled"), ("barged_in", "turn_detected")])
def test_interruption(title: str, reason: str, told: dict[str, Any], tap: Tap) -> None:
    heard = told[title]
    assert "failed" not in heard, heard
    assert [one["audio_ms"] for one in heard["answers"]] == [100]
    assert heard["errors"] == []
    overheard = dict(zip(told, tap.connections, strict=True))[title]
    assert overheard.endings() == [("cancelled", reason)]
    assert heard["kinds"].count("response.created") == (2 if title == "barged_in" else 1)


def test_transcription(told: dict[str, Any]) -> None:
    assert told["transcribed"] == {"user_said": ["audio of 1800 ms", "audio of 1800 ms"]}


def test_every_event_is_as_the_types_have_it(told: dict[str, Any], tap: Tap) -> None:
    assert len(tap.connections) == len(told)
    ga, beta = Judge(RealtimeServerEvent, GA), Judge(BetaServerEvent, BETA)
    for connection in tap.connections:
        (beta if is_preview(connection) else ga).check_all(connection.heard)


def test_the_program_of_the_page(server_url: str) -> None:
    """A whole agent with a tool, as the documentation has it."""
    printed = printed_by_page(PAGE, 0, server_url, f"livekit-plugins-openai=={VERSION}")
    page = PAGE.read_text(encoding="utf-8")
    assert f"```text\n{printed}```" in page
    assert f"\n{VERSION} and " in page


def is_preview(connection: Overheard) -> bool:
    return "api-version" in connection.request.splitlines()[0]
