"""Conversations through the `openai` package, any version: asynchronous, synchronous, GA, preview, Azure.

Runs in two places: inside the tests with the current package, which still carries the types of the preview, and as a
program with the version of that time:

    python openai_client.py ws://127.0.0.1:PORT

which prints one JSON object: what was heard, by client (`openai`, `azure`) and conversation. Each event has been
validated against the types of the installed package before.
"""

from __future__ import annotations

import asyncio
import json
import sys
from operator import attrgetter
from typing import Any

from conversations import BETA, CONVERSATIONS, TRANSCRIBING, Conversation, Dialect, Event, model_for
from heard import Heard
from openai import AsyncAzureOpenAI, AsyncOpenAI
from strictness import BETA_1_60, Judge

API_VERSION = "2025-04-01-preview"
SECONDS_MAX = 30
OF_THE_PREVIEW = {title: talk for title, talk in CONVERSATIONS.items() if title not in TRANSCRIBING}
"""Those that the first version of the preview could hold; it had no sessions for transcription yet."""


def plain(url: str) -> AsyncOpenAI:
    """The client of the service; its preview takes plain WebSocket only where it is told the address."""
    return AsyncOpenAI(api_key="sk-any", base_url=f"{http(url)}/v1", websocket_base_url=f"{url}/v1")


def azure(url: str) -> AsyncAzureOpenAI:
    """The client of Azure's preview path, which names a deployment and a version in the query."""
    return AsyncAzureOpenAI(
        api_key="any",
        api_version=API_VERSION,
        azure_endpoint=http(url),
        websocket_base_url=f"{url}/openai",
    )


def connection_to(dialect: Dialect, title: str) -> dict[str, Any]:
    """How to connect for the conversation of this title; the preview's client names a model whatever it is for."""
    if title not in TRANSCRIBING:
        return {"model": model_for(title)}
    model = {"model": model_for(title)} if dialect is BETA else {}
    return {**model, "extra_query": {"intent": "transcription"}}


def http(url: str) -> str:
    """The same address for plain HTTP."""
    return url.replace("ws://", "http://", 1)


async def hold(connection: Any, conversation: Conversation) -> Heard:
    """Hold the conversation through an asynchronous connection of the client."""
    heard = Heard()
    step = next(conversation)
    try:
        while True:
            if step is None:
                step = conversation.send(take(heard, await connection.recv()))
            else:
                await attrgetter(step.type)(connection)(**step.fields)
                step = next(conversation)
    except StopIteration:
        return heard


def hold_sync(connection: Any, conversation: Conversation) -> Heard:
    """`hold`, through the synchronous client."""
    heard = Heard()
    step = next(conversation)
    try:
        while True:
            if step is None:
                step = conversation.send(take(heard, connection.recv()))
            else:
                attrgetter(step.type)(connection)(**step.fields)
                step = next(conversation)
    except StopIteration:
        return heard


def take(heard: Heard, typed: Any) -> Event:
    """The event as JSON, as far as its class holds it."""
    frame = typed.to_json(indent=None, use_api_names=True, exclude_unset=True)
    event: Event = json.loads(frame)
    heard.take(event, type(typed).__name__, frame)
    return event


async def _hold_all(url: str) -> dict[str, dict[str, Any]]:
    from openai.types.beta.realtime import realtime_server_event

    judge = Judge(realtime_server_event.RealtimeServerEvent, BETA_1_60)
    heard: dict[str, dict[str, Any]] = {}
    for name, client in (("openai", plain(url)), ("azure", azure(url))):
        heard[name] = {}
        for title, talk in OF_THE_PREVIEW.items():
            async with client.beta.realtime.connect(**connection_to(BETA, title)) as connection:
                held = await asyncio.wait_for(hold(connection, talk(BETA)), SECONDS_MAX)
            judge.check_all(held.wire)
            heard[name][title] = json.loads(held.as_json())
        await client.close()
    return heard


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_hold_all(sys.argv[1]))))
