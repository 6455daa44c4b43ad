"""The same three turns as code written for the preview holds them, through `client.beta.realtime`.

Runs in two places: inside the tests with the current `openai` package, which still carries these types, and as a
program with the version of that time:

    python beta_client.py ws://127.0.0.1:PORT

which prints one JSON object: what was heard, by client (`openai`, `azure`) and turn. Each event has been validated
against the types of the installed package before.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from heard import CALL_REQUEST, TOOL, Heard, spoken_turn, user_text
from openai import AsyncAzureOpenAI, AsyncOpenAI
from strictness import BETA_1_60, Judge

MODEL = "gpt-4o-realtime-preview"
API_VERSION = "2025-04-01-preview"
TURN_SECONDS_MAX = 30


def plain(url: str) -> AsyncOpenAI:
    """The client of the service; it takes plain WebSocket only where it is told the address."""
    return AsyncOpenAI(api_key="sk-any", base_url=f"{_http(url)}/v1", websocket_base_url=f"{url}/v1")


def azure(url: str) -> AsyncAzureOpenAI:
    """The client of Azure's preview path, which names a deployment and a version in the query."""
    return AsyncAzureOpenAI(
        api_key="any",
        api_version=API_VERSION,
        azure_endpoint=_http(url),
        websocket_base_url=f"{url}/openai",
    )


def _http(url: str) -> str:
    return url.replace("ws://", "http://", 1)


async def written(client: AsyncOpenAI) -> Heard:
    """A written question, a written answer."""
    heard = Heard()
    async with client.beta.realtime.connect(model=MODEL) as connection:
        await connection.session.update(session={"modalities": ["text"]})
        item: Any = user_text("Good morning, how are you?")
        await connection.conversation.item.create(item=item)
        await connection.response.create()
        async for event in connection:
            heard.take(event)
            if event.type == "response.done":
                break
    return heard


async def spoken(client: AsyncOpenAI) -> Heard:
    """A turn that the server finds in the audio, its transcript, and a spoken answer."""
    heard = Heard()
    session: Any = {
        "modalities": ["text", "audio"],
        "voice": "alloy",
        "input_audio_format": "pcm16",
        "output_audio_format": "pcm16",
        "input_audio_transcription": {"model": "whisper-1"},
        "turn_detection": {"type": "server_vad", "silence_duration_ms": 500, "prefix_padding_ms": 300},
        "temperature": 0.8,
    }
    async with client.beta.realtime.connect(model=MODEL) as connection:
        await connection.session.update(session=session)
        for chunk in spoken_turn():
            await connection.input_audio_buffer.append(audio=chunk)
        async for event in connection:
            heard.take(event)
            if heard.statuses and heard.transcribed:
                break
    return heard


async def calling(client: AsyncOpenAI) -> Heard:
    """A question that needs a function, its output, and the answer."""
    heard = Heard()
    async with client.beta.realtime.connect(model=MODEL) as connection:
        session: Any = {"tools": [TOOL], "tool_choice": "auto"}
        await connection.session.update(session=session)
        item: Any = user_text(CALL_REQUEST)
        await connection.conversation.item.create(item=item)
        await connection.response.create()
        async for event in connection:
            heard.take(event)
            if event.type != "response.done":
                continue
            if len(heard.statuses) == 2:
                break
            output: Any = {"type": "function_call_output", "call_id": heard.call_id, "output": "18 degrees, dry"}
            await connection.conversation.item.create(item=output)
            await connection.response.create()
    return heard


TURNS = {"written": written, "spoken": spoken, "calling": calling}


async def _hold_all(url: str) -> dict[str, dict[str, Any]]:
    from openai.types.beta.realtime import realtime_server_event

    judge = Judge(realtime_server_event.RealtimeServerEvent, BETA_1_60)
    heard: dict[str, dict[str, Any]] = {}
    for name, client in (("openai", plain(url)), ("azure", azure(url))):
        heard[name] = {}
        for turn, hold in TURNS.items():
            of_turn = await asyncio.wait_for(hold(client), TURN_SECONDS_MAX)
            judge.check_all(of_turn.wire)
            heard[name][turn] = json.loads(of_turn.as_json())
        await client.close()
    return heard


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_hold_all(sys.argv[1]))))
