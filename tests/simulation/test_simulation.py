"""Seeded conversations; `VIVAVOCE_SEEDS=1000:3000` looks further. A seed that fails leaves its trace behind."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from vivavoce.engines import Piece, Prompt, TextPiece, Traits
from vivavoce.protocol import events as ev
from vivavoce.protocol.codec import ServerCodec
from vivavoce.server.channel import Channel
from vivavoce.server.outbox import Outbox
from vivavoce.server.work import Work
from vivavoce.testing.referee import Referee
from vivavoce.testing.simulation import Broken, Ending, Scenario, simulate

FROM, _, TO = os.environ.get("VIVAVOCE_SEEDS", "0:60").partition(":")
SEEDS = range(int(FROM), int(TO))
TRACES = Path(tempfile.gettempdir()) / "vivavoce-simulation"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seeded_conversation_keeps_every_promise(seed: int) -> None:
    scenario = Scenario.of(seed)
    try:
        simulate(scenario)
    except Broken as broken:
        path = TRACES / f"seed-{seed}.jsonl"
        broken.trace.save(path)
        pytest.fail(f"{broken}\n{scenario}\ntrace: {path}")


def test_the_same_seed_gives_the_same_conversation() -> None:
    first, second, other = (simulate(Scenario.of(seed)).digest for seed in (7, 7, 8))
    assert first == second
    assert first != other


def test_the_seeds_reach_every_ending_dialect_kind_and_outcome() -> None:
    scenarios = [Scenario.of(seed) for seed in range(60)]
    assert {scenario.ending for scenario in scenarios} == set(get_args(Ending))
    assert {scenario.dialect for scenario in scenarios} == {"ga", "beta"}
    assert {scenario.kind for scenario in scenarios} == {"realtime", "transcription"}
    events = [entry["event"] for scenario in scenarios for entry in simulate(scenario).entries]
    done = [event["response"] for event in events if event["type"] == "response.done"]
    assert {response["status"] for response in done} == {"completed", "cancelled", "incomplete", "failed"}
    errors = [response["status_details"]["error"]["code"] for response in done if response["status"] == "failed"]
    errors += [event["error"]["code"] for event in events if event["type"] == "error"]
    assert set(errors) >= {"scripted_failure", "context_length_exceeded", "rate_limit_exceeded", "budget_exceeded"}
    outputs = {item["type"] for response in done for item in response["output"]}
    assert outputs == {"message", "function_call", "mcp_call", "mcp_approval_request"}
    assert {event["type"] for event in events} >= {
        "input_audio_buffer.speech_started",
        "input_audio_buffer.timeout_triggered",
        "mcp_list_tools.completed",
        "mcp_list_tools.failed",
        "response.mcp_call.completed",
        "response.mcp_call.failed",
        "rate_limits.updated",
        "transcription_session.created",
        "conversation.item.truncated",
        "conversation.item.deleted",
        "conversation.item.input_audio_transcription.completed",
        "conversation.item.input_audio_transcription.failed",
    }


# --- every promise has been seen to break -----------------------------------------------------------------------------


def broken(seeds: range = range(60)) -> str:
    """What the first seed that is broken says."""
    for seed in seeds:
        try:
            simulate(Scenario.of(seed))
        except Broken as found:
            return str(found)
    return "nothing was noticed"


def deaf_to(*types: type[ev.ServerEvent]) -> Any:
    """An `encode` that loses these events."""
    encode = ServerCodec.encode
    return lambda codec, event: None if isinstance(event, types) else encode(codec, event)


def test_a_lost_delta_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServerCodec, "encode", deaf_to(ev.ResponseOutputAudioDelta))
    assert "cannot be truncated there" in broken()
    monkeypatch.setattr(Referee, "server", lambda referee, event: None)
    assert "audio of item" in broken()


def test_a_response_without_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServerCodec, "encode", deaf_to(ev.ResponseDone))
    assert "Objection" in broken()


def test_a_replica_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServerCodec, "encode", deaf_to(ev.ConversationItemDeleted))
    monkeypatch.setattr(Referee, "server", lambda referee, event: None)
    assert "order: client" in broken()


def test_a_queue_without_limit_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Channel, "is_full", False)
    assert "were waiting" in broken()


def test_a_task_that_is_left_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[asyncio.Task[bool]] = []

    async def end(self: Work, grace_s: float) -> None:
        left.append(asyncio.create_task(asyncio.Event().wait()))

    monkeypatch.setattr(Work, "end", end)
    assert "tasks are left" in broken()


def test_a_connection_that_does_not_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outbox, "close", lambda outbox, close: None)
    assert "does not end" in broken()


def test_a_complaint_of_the_server_is_noticed() -> None:
    class Broke:
        traits = Traits()

        async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
            yield TextPiece("well")
            raise KeyError("a bug")

        async def warm_up(self) -> None: ...

        async def close(self) -> None: ...

    scenario = next(scenario for seed in range(60) if (scenario := Scenario.of(seed)).kind == "realtime")
    with pytest.raises(Broken, match="the server complained"):
        simulate(scenario, pipeline=replace(scenario.pipeline(), language_model=Broke()))
