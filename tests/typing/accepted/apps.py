"""Apps of decorated functions: a decorated function keeps its type."""

from collections.abc import AsyncIterator
from typing import Any, assert_type

import vivavoce
from vivavoce import ToolResult

app = vivavoce.App("gpt-realtime", url="http://127.0.0.1:8080/v1")


@app.tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


@app.tool(timeout_s=5)
async def slow(city: str) -> dict[str, Any]:
    return {"city": city}


@app.sender
async def greet() -> str:
    return "Hello!"


@app.sender(wait_for="response", repeat=True)
async def speak() -> AsyncIterator[bytes]:
    yield b"\0\0"


@app.receiver("text")
def show(text: str) -> None:
    print(text)


@app.receiver("audio_chunk")
async def play(audio: bytes) -> None:
    print(len(audio))


@app.receiver("tool")
def told(result: ToolResult) -> None:
    print(result)


@app.receiver
def everything(event: object) -> None:
    print(event)


async def main() -> None:
    assert_type(weather("Oslo"), str)
    assert_type(await slow("Oslo"), dict[str, Any])
    assert_type(await greet(), str)
    assert_type(await app.serve(), None)
    assert_type(app.session, vivavoce.Session)
