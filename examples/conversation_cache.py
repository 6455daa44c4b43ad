"""Listeners, and a copy of the conversation to look at: a chat with a tool, and with an answer that is cut short.

uv run vivavoce serve --model scripted                   # in one terminal: it calls what it is told to call
uv run python examples/conversation_cache.py             # in another
uv run python examples/conversation_cache.py wss://api.openai.com/v1      # OPENAI_API_KEY
"""

import asyncio
import sys
from typing import Any

import vivavoce
from vivavoce import updates

URL = "http://127.0.0.1:8080/v1"
GET_WEATHER = {
    "name": "get_weather",
    "description": "The weather at a place.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}
QUESTION = 'call get_weather {"place": "Oslo"}'
HEARD = 24_000
"""Samples: a second. With `player=vivavoce.Loudspeaker()` nobody has to count, and the user interrupts by speaking."""


async def get_weather(place: str) -> dict[str, Any]:
    """What the model gets is the JSON of this."""
    return {"place": place, "sky": "sunny"}


async def converse(url: str) -> list[str]:
    """Ask for the weather, cut the next answer short; returns the conversation as both ends remember it."""
    session = vivavoce.connect("gpt-realtime", url=url)
    session.update_session(instructions="You are a great, upbeat friend.", voice="alloy")  # said when it connects
    session.add_tool(GET_WEATHER, get_weather)

    @session.on(updates.ConversationUpdated)
    def updated(event: updates.ConversationUpdated) -> None:
        if event.delta is not None and event.delta.transcript is not None:
            print(event.delta.transcript, end="", flush=True)

    session.on("conversation.item.completed", lambda event: print(f"[{event.item.type} {event.item.status}]"))
    session.on("conversation.interrupted", lambda event: print("[interrupted]"))
    async with session:
        await session.ask(QUESTION)
        response = await session.send_user_message("Tell me a story that never ends.")
        async for item in response:
            samples = 0
            async for audio in item.audio():
                samples += len(audio) // 2
                if samples >= HEARD:
                    session.interrupt(item.id, HEARD)
                    break
        await response
        return [f"{item.role or item.type}: {item.text}" for item in session.get_items()]


if __name__ == "__main__":
    print(asyncio.run(converse(sys.argv[1] if len(sys.argv) > 1 else URL)))
