"""Let the model call a function: a typed Python function, or a schema with the call answered by hand.

uv run vivavoce serve --model scripted                # in one terminal: it calls what it is told to call
uv run python examples/overview_tool_call.py          # in another
uv run python examples/overview_tool_call.py wss://api.openai.com/v1 "What's the weather in Oslo?"    # OPENAI_API_KEY
"""

import asyncio
import json
import sys
from typing import Any

import vivavoce
from vivavoce import events, items

URL = "http://127.0.0.1:8080/v1"
QUESTION = 'call get_weather {"location": "Oslo"}'


@vivavoce.tool
async def get_weather(location: str, days: int = 1) -> dict[str, Any]:
    """The weather at a location.

    Args:
        location: City and state, e.g. San Francisco, CA.
        days: How many days ahead.
    """
    return {"location": location, "sky": "sunny", "days": days}


async def ask(url: str, question: str) -> str:
    """The session shows the function to the model, runs it, answers the call and asks for the response to it."""
    async with vivavoce.connect("gpt-realtime", url=url) as session:
        await session.update_session(modality="text")
        await session.add_tool(get_weather)
        return await session.ask(question)


async def ask_by_hand(url: str, question: str) -> str:
    """The same event by event, with nothing but the function's definition: any JSON Schema would do."""
    async with vivavoce.connect("gpt-realtime", url=url) as session:
        await session.update_session(modality="text", tools=[get_weather.definition])
        await session.send_user_message(question)
        async for event in session:
            match event:
                case events.ResponseOutputItemDone(item=items.FunctionCall(name="get_weather") as call):
                    print(f"the model calls {call.name}({call.arguments})")
                    session.send_function_output(call, await get_weather(**json.loads(call.arguments)))
                    session.create_response()  # is sent when the response that called is done
                case events.ResponseOutputTextDone():
                    return event.text
    raise SystemExit("the server closed the connection")


if __name__ == "__main__":
    where, what, *_ = [*sys.argv[1:], *[URL, QUESTION][len(sys.argv) - 1 :]]
    for way in (ask, ask_by_hand):
        print(asyncio.run(way(where, what)))
