"""The current `openai` package, unmodified, against the server: GA, asynchronous and synchronous, and Azure's paths."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import beta_client
import ga_client
import pytest
from heard import BYTES_PER_MS, CALL_REQUEST, CHARACTER_MS, Heard
from openai import AsyncOpenAI, OpenAI
from openai.types.beta.realtime.realtime_server_event import RealtimeServerEvent as BetaServerEvent
from openai.types.realtime import RealtimeServerEvent
from strictness import BETA, GA, Judge

pytestmark = pytest.mark.interop

TURN_SECONDS_MAX = 30

GA_JUDGE = Judge(RealtimeServerEvent, GA)
BETA_JUDGE = Judge(BetaServerEvent, BETA)


def http(url: str) -> str:
    return url.replace("ws://", "http://", 1)


def hold(
    turn: Callable[[Any], Awaitable[Heard]], make_client: Callable[[str], Any], server_url: str, judge: Judge
) -> Heard:
    """Hold the turn, and judge every event of it."""

    async def run() -> Heard:
        async with make_client(server_url) as client:
            return await asyncio.wait_for(turn(client), TURN_SECONDS_MAX)

    heard = asyncio.run(run())
    judge.check_all(heard.wire)
    return heard


def ga(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{http(url)}/v1", api_key="sk-any")


def azure_ga(url: str) -> AsyncOpenAI:
    """Azure's GA path is reached by the plain client."""
    return AsyncOpenAI(base_url=f"{http(url)}/openai/v1", api_key="any")


def check_written(heard: Heard) -> None:
    assert heard.statuses == ["completed"]
    assert heard.text == "echo: Good morning, how are you?"
    assert heard.finals == [heard.text]
    assert heard.audio == b""
    assert heard.transcript == ""


def check_spoken(heard: Heard, turn_ms: int = 1_800) -> None:
    """300 ms before the sound, one second of it, and the 500 ms of silence that end the turn."""
    assert heard.statuses == ["completed"]
    assert heard.user_transcript == f"audio of {turn_ms} ms"
    assert heard.transcript == f"echo: audio of {turn_ms} ms"
    assert heard.finals == [heard.transcript]
    assert len(heard.audio) == len(heard.transcript) * CHARACTER_MS * BYTES_PER_MS
    assert heard.text == ""
    in_turn = [name for name in heard.types if name.startswith("input_audio_buffer.")]
    assert in_turn == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
    ]


def check_calling(heard: Heard) -> None:
    assert heard.statuses == ["completed", "completed"]
    assert heard.call_name == "get_weather"
    assert heard.arguments == CALL_REQUEST.removeprefix("call get_weather ")
    assert heard.transcript == "tool said: 18 degrees, dry"
    assert heard.finals == [heard.arguments, heard.transcript]
    assert len(heard.audio) == len(heard.transcript) * CHARACTER_MS * BYTES_PER_MS


def test_written_turn(server_url: str) -> None:
    check_written(hold(ga_client.written, ga, server_url, GA_JUDGE))


def test_spoken_turn(server_url: str) -> None:
    check_spoken(hold(ga_client.spoken, ga, server_url, GA_JUDGE))


def test_function_call(server_url: str) -> None:
    check_calling(hold(ga_client.calling, ga, server_url, GA_JUDGE))


@pytest.mark.parametrize(
    ("turn", "check"),
    [
        (ga_client.written_sync, check_written),
        (ga_client.spoken_sync, check_spoken),
        (ga_client.calling_sync, check_calling),
    ],
)
def test_synchronous_client(turn: Callable[[OpenAI], Heard], check: Callable[[Heard], None], server_url: str) -> None:
    with OpenAI(base_url=f"{http(server_url)}/v1", api_key="sk-any") as client:
        heard = turn(client)
    check(heard)
    GA_JUDGE.check_all(heard.wire)


def test_azure_ga_path(server_url: str) -> None:
    check_spoken(hold(ga_client.spoken, azure_ga, server_url, GA_JUDGE))


@pytest.mark.parametrize("make_client", [beta_client.plain, beta_client.azure])
@pytest.mark.parametrize(
    ("turn", "check"),
    [
        (beta_client.written, check_written),
        (beta_client.spoken, check_spoken),
        (beta_client.calling, check_calling),
    ],
)
def test_beta_types_of_the_current_package(
    turn: Callable[[AsyncOpenAI], Awaitable[Heard]],
    check: Callable[[Heard], None],
    make_client: Callable[[str], AsyncOpenAI],
    server_url: str,
) -> None:
    heard = hold(turn, make_client, server_url, BETA_JUDGE)
    check(heard)
    assert not {name for name in heard.types if name.startswith("response.output_") and "item" not in name}
