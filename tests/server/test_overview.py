"""The overview page's conversation with a real session: its messages, in its order, over a memory transport."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from vivavoce.audio.formats import PCM16_24K
from vivavoce.core.session import Session
from vivavoce.engines.scripted import scripted_pipeline
from vivavoce.protocol.codec import ServerCodec
from vivavoce.server.runtime import Runtime
from vivavoce.testing import sounds
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.virtual_time import run
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair

FUNCTION = {
    "name": "get_weather",
    "description": "Get current weather for a location",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}


class Page:
    """The page's end of the line."""

    def __init__(self, wire: Transport) -> None:
        self._wire = wire
        self.seen: list[dict[str, Any]] = []

    async def send(self, type: str, data: Any) -> None:
        await self._wire.send(json.dumps({"type": type, "data": data}).encode())

    async def until(self, type: str) -> dict[str, Any]:
        while True:
            event: dict[str, Any] = json.loads(await self._wire.receive())
            assert event["type"] != "error", event
            self.seen.append(event)
            if event["type"] == type:
                return event

    def said(self, type: str) -> list[Any]:
        return [event["data"] for event in self.seen if event["type"] == type]


@asynccontextmanager
async def page() -> AsyncIterator[Page]:
    wire, server_end = pair(messages_max=10_000)
    session = Session(id="sess_1", model="gpt-4o-realtime-preview", ids=counting_ids(), expires_at=0)
    running = asyncio.create_task(Runtime(session, scripted_pipeline(), ServerCodec("overview"), server_end).run())
    try:
        one = Page(wire)
        await one.send("conversation.create", {"model": "gpt-4o-realtime-preview", "voice": "alloy"})
        created = await one.until("conversation.created")
        assert created["data"]["voice"] == "alloy"
        yield one
    finally:
        await wire.close()
        await running


def test_a_written_turn_is_answered_in_sound_and_text() -> None:
    async def main() -> None:
        async with page() as one:
            await one.send("text", {"text": "hello"})
            await one.until("response.done")
            assert [passage["text"] for passage in one.said("text")] == ["echo: hello"]
            assert "".join(piece["text"] for piece in one.said("content_block.delta")) == "echo: hello"
            spoken = b"".join(base64.b64decode(chunk) for chunk in one.said("audio"))
            assert PCM16_24K.duration_ms(spoken) == len("echo: hello") * 60

    run(main())


def test_a_spoken_turn_is_answered() -> None:
    async def main() -> None:
        async with page() as one:
            samples = bytes(sounds.silence(300)) + bytes(sounds.tone(1_000)) + bytes(sounds.silence(800))
            await one.send("audio", base64.b64encode(samples).decode())
            await one.until("input_audio_buffer.speech_started")
            await one.until("response.done")
            assert one.said("audio")

    run(main())


def test_a_function_is_called_answered_and_talked_about() -> None:
    async def main() -> None:
        async with page() as one:
            await one.send("available_functions.create", {"functions": [FUNCTION]})
            await one.until("conversation.updated")
            await one.send("text", {"text": 'call get_weather {"location": "Paris"}'})
            call = (await one.until("function.call"))["data"]
            assert (call["name"], call["arguments"]["location"]) == ("get_weather", "Paris")
            content = json.dumps({"degrees": 18})
            await one.send("function.response", {"id": call["id"], "response": {"type": "success", "content": content}})
            await one.until("response.done")
            assert one.said("text")

    run(main())
