"""Three turns as code written for the current `openai` client holds them: written, spoken, with a function call."""

from __future__ import annotations

from typing import Any

from heard import CALL_REQUEST, TOOL, Heard, spoken_turn, user_text
from openai import AsyncOpenAI, OpenAI

MODEL = "gpt-realtime"
WRITTEN: Any = {"type": "realtime", "output_modalities": ["text"]}
SPOKEN: Any = {
    "type": "realtime",
    "output_modalities": ["audio"],
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24_000},
            "transcription": {"model": "whisper-1"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 500, "prefix_padding_ms": 300},
        },
        "output": {"format": {"type": "audio/pcm", "rate": 24_000}, "voice": "marin"},
    },
}
CALLING: Any = {"type": "realtime", "output_modalities": ["audio"], "tools": [TOOL], "tool_choice": "auto"}


async def written(client: AsyncOpenAI) -> Heard:
    """A written question, a written answer."""
    heard = Heard()
    async with client.realtime.connect(model=MODEL) as connection:
        await connection.session.update(session=WRITTEN)
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
    async with client.realtime.connect(model=MODEL) as connection:
        await connection.session.update(session=SPOKEN)
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
    async with client.realtime.connect(model=MODEL) as connection:
        await connection.session.update(session=CALLING)
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


def written_sync(client: OpenAI) -> Heard:
    """`written`, through the synchronous client."""
    heard = Heard()
    with client.realtime.connect(model=MODEL) as connection:
        connection.session.update(session=WRITTEN)
        item: Any = user_text("Good morning, how are you?")
        connection.conversation.item.create(item=item)
        connection.response.create()
        for event in connection:
            heard.take(event)
            if event.type == "response.done":
                break
    return heard


def spoken_sync(client: OpenAI) -> Heard:
    """`spoken`, through the synchronous client."""
    heard = Heard()
    with client.realtime.connect(model=MODEL) as connection:
        connection.session.update(session=SPOKEN)
        for chunk in spoken_turn():
            connection.input_audio_buffer.append(audio=chunk)
        for event in connection:
            heard.take(event)
            if heard.statuses and heard.transcribed:
                break
    return heard


def calling_sync(client: OpenAI) -> Heard:
    """`calling`, through the synchronous client."""
    heard = Heard()
    with client.realtime.connect(model=MODEL) as connection:
        connection.session.update(session=CALLING)
        item: Any = user_text(CALL_REQUEST)
        connection.conversation.item.create(item=item)
        connection.response.create()
        for event in connection:
            heard.take(event)
            if event.type != "response.done":
                continue
            if len(heard.statuses) == 2:
                break
            output: Any = {"type": "function_call_output", "call_id": heard.call_id, "output": "18 degrees, dry"}
            connection.conversation.item.create(item=output)
            connection.response.create()
    return heard
