"""The current `openai` package, unmodified, against the server: GA, asynchronous and synchronous, and Azure's paths."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from checks import CHECKS
from conversations import BETA, CONVERSATIONS, GA, Dialect
from heard import Heard
from openai import AsyncOpenAI, OpenAI
from openai.types.beta.realtime.realtime_server_event import RealtimeServerEvent as BetaServerEvent
from openai.types.realtime import RealtimeServerEvent
from openai_client import SECONDS_MAX, azure, connection_to, hold, hold_sync, http, plain
from strictness import BETA as BETA_ALLOWANCE
from strictness import GA as GA_ALLOWANCE
from strictness import Judge

pytestmark = pytest.mark.interop

GA_JUDGE = Judge(RealtimeServerEvent, GA_ALLOWANCE)
BETA_JUDGE = Judge(BetaServerEvent, BETA_ALLOWANCE)

every_conversation = pytest.mark.parametrize("title", CONVERSATIONS)


def azure_ga(url: str) -> AsyncOpenAI:
    """Azure's GA path is reached by the plain client."""
    return AsyncOpenAI(base_url=f"{http(url)}/openai/v1", api_key="any")


def hold_with(client: AsyncOpenAI, dialect: Dialect, title: str) -> Heard:
    """Hold the conversation of this title through the client."""

    async def run() -> Heard:
        async with client:
            resource: Any = client.beta.realtime if dialect is BETA else client.realtime
            async with resource.connect(**connection_to(dialect, title)) as connection:
                return await asyncio.wait_for(hold(connection, CONVERSATIONS[title](dialect)), SECONDS_MAX)

    return asyncio.run(run())


@pytest.mark.parametrize("make_client", [plain, azure_ga])
@every_conversation
def test_asynchronous_client(title: str, make_client: Callable[[str], AsyncOpenAI], server_url: str) -> None:
    heard = hold_with(make_client(server_url), GA, title)
    CHECKS[title](heard)
    GA_JUDGE.check_all(heard.wire)


@every_conversation
def test_synchronous_client(title: str, server_url: str) -> None:
    with (
        OpenAI(base_url=f"{http(server_url)}/v1", api_key="sk-any") as client,
        client.realtime.connect(**connection_to(GA, title)) as connection,
    ):
        heard = hold_sync(connection, CONVERSATIONS[title](GA))
    CHECKS[title](heard)
    GA_JUDGE.check_all(heard.wire)


@pytest.mark.parametrize("make_client", [plain, azure])
@every_conversation
def test_beta_types_of_the_current_package(
    title: str, make_client: Callable[[str], AsyncOpenAI], server_url: str
) -> None:
    heard = hold_with(make_client(server_url), BETA, title)
    CHECKS[title](heard)
    BETA_JUDGE.check_all(heard.wire)
    assert not {name for name in heard.types if name.startswith("response.output_") and "item" not in name}
