"""`pipecat-ai`, unmodified: its OpenAI realtime service in a pipeline, the one for Azure, and speech-to-text.

It has none for beta.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from environments import printed_by_page, run_python
from heard import BYTES_PER_MS, CHARACTER_MS
from openai.types.realtime import RealtimeServerEvent
from strictness import GA, Judge
from tap import Tap

pytestmark = pytest.mark.interop

VERSION = "1.14.0"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "livekit.md"
GREETING = "echo: Good morning"


@pytest.fixture(scope="module")
def tap(server_url: str) -> Tap:
    return Tap(server_url)


@pytest.fixture(scope="module")
def told(tap: Tap) -> dict[str, Any]:
    with tap:
        heard: dict[str, Any] = run_python("pipecat_client.py", tap.url, f"pipecat-ai[openai]=={VERSION}")
    return heard


def check_audio(heard: dict[str, Any]) -> None:
    assert heard["audio_bytes"] == len(heard["text"]) * CHARACTER_MS * BYTES_PER_MS


@pytest.mark.parametrize("title", ["written", "azure_written"])
def test_written(title: str, told: dict[str, Any]) -> None:
    assert told[title] == {"text": GREETING, "audio_bytes": 0, "user_said": [], "errors": []}


@pytest.mark.parametrize(("title", "turn_ms"), [("spoken", 1_800), ("manual", 2_400)])
def test_spoken(title: str, turn_ms: int, told: dict[str, Any]) -> None:
    heard = told[title]
    assert "failed" not in heard, heard
    assert heard["text"] == f"{GREETING}echo: audio of {turn_ms} ms"
    assert heard["user_said"] == [f"audio of {turn_ms} ms"]
    assert heard["errors"] == []
    check_audio(heard)


def test_semantic_turns(told: dict[str, Any]) -> None:
    heard = told["semantic"]
    assert "failed" not in heard, heard
    (said,) = heard["user_said"]
    assert heard["text"] == f"{GREETING}echo: {said}"
    assert heard["errors"] == []
    check_audio(heard)


def test_defaults(told: dict[str, Any]) -> None:
    """The settings of the server: turns by voice activity after 200 ms of silence, nothing transcribed for the user."""
    heard = told["defaults"]
    assert "failed" not in heard, heard
    assert heard["text"] == f"{GREETING}echo: audio of 1500 ms"
    assert heard["user_said"] == heard["errors"] == []
    check_audio(heard)


def test_function_call(told: dict[str, Any]) -> None:
    assert told["calling"] == {
        "text": 'tool said: "18 degrees in Paris"',
        "audio_bytes": 0,
        "user_said": [],
        "errors": [],
    }


@pytest.mark.parametrize(("title", "reason"), [("cancelled", "client_cancelled"), ("barged_in", "turn_detected")])
def test_interruption(title: str, reason: str, told: dict[str, Any], tap: Tap) -> None:
    heard = told[title]
    assert "failed" not in heard, heard
    assert heard["text"].startswith("echo: Tell me everything.")
    assert heard["audio_bytes"] == (2 if title == "barged_in" else 1) * 100 * BYTES_PER_MS
    assert heard["errors"] == []
    overheard = dict(zip(told, tap.connections, strict=True))[title]
    assert overheard.endings()[0] == ("cancelled", reason)


@pytest.mark.parametrize(("title", "turns_ms"), [("transcribed", [1_800, 1_800]), ("transcribed_by_hand", [2_400])])
def test_transcription(title: str, turns_ms: list[int], told: dict[str, Any]) -> None:
    user_said = [f"audio of {turn_ms} ms" for turn_ms in turns_ms]
    assert told[title] == {"text": "", "audio_bytes": 0, "user_said": user_said, "errors": []}


def test_errors(told: dict[str, Any]) -> None:
    heard = told["mistaken"]
    assert "failed" not in heard, heard
    assert heard["text"] == GREETING
    unknown, empty = heard["errors"]
    assert unknown == "Error retrieving item: the item with id 'item_nowhere' does not exist."
    assert "input_audio_buffer_commit_empty" in empty


def test_the_service_of_the_page(server_url: str) -> None:
    """It is made as the documentation has it; conversations with it are above."""
    assert printed_by_page(PAGE, 1, server_url, f"pipecat-ai[openai]=={VERSION}") == ""
    assert f"`pipecat-ai` {VERSION}" in PAGE.read_text(encoding="utf-8")


def test_every_event_is_as_the_types_have_it(told: dict[str, Any], tap: Tap) -> None:
    assert len(tap.connections) == len(told)
    judge = Judge(RealtimeServerEvent, GA)
    for connection in tap.connections:
        judge.check_all(connection.heard)
