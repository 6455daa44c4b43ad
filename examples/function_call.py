"""Let the model call a function of yours: answer the call, then ask for the answer, with vivavoce's client.

uv run vivavoce serve --model scripted         # in one terminal: it calls what it is told to call
uv run python examples/function_call.py        # in another
"""

import asyncio
import json
import sys

import vivavoce
from vivavoce import config, events, items

URL = "http://127.0.0.1:8080/v1"
QUESTION = 'call weather {"city": "Oslo"}'
WEATHER = config.FunctionTool(
    name="weather",
    description="The weather in a city.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


def weather(city: str) -> str:
    """What the model may call."""
    return f"It is sunny in {city}."


async def ask(url: str) -> str:
    """Ask the question, answer the calls, and return what the model says in the end."""
    async with vivavoce.connect("gpt-realtime", url=url) as connection:
        await connection.update_session(config.RealtimeSession(output_modalities=("text",), tools=(WEATHER,)))
        await connection.create_item(items.Message(role="user", content=(items.InputText(text=QUESTION),)))
        await connection.create_response()
        output = await answer(connection)
        while calls := [item for item in output if isinstance(item, items.FunctionCall)]:
            for call in calls:
                print(f"the model calls {call.name}({call.arguments})")
                result = weather(**json.loads(call.arguments))
                await connection.create_item(items.FunctionCallOutput(call_id=str(call.call_id), output=result))
            await connection.create_response()
            output = await answer(connection)
    messages = [item for item in output if isinstance(item, items.Message)]
    text = "".join(part.text for item in messages for part in item.content if isinstance(part, items.OutputText))
    print(f"the model says: {text}")
    return text


async def answer(connection: vivavoce.Session) -> tuple[items.Item, ...]:
    """The items of one response, when it is complete."""
    async for event in connection:
        if isinstance(event, events.ErrorEvent):
            raise SystemExit(event.error.message)
        if isinstance(event, events.ResponseDone):
            return event.response.output
    raise SystemExit("the server closed the connection")


if __name__ == "__main__":
    try:
        asyncio.run(ask(sys.argv[1] if len(sys.argv) > 1 else URL))
    except vivavoce.VivavoceError as error:
        raise SystemExit(str(error)) from None
