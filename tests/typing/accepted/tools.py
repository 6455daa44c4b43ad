"""Tools: a typed function stays the function that it was, whatever is made of it."""

from typing import Any, assert_type

import vivavoce
from vivavoce import Tool, ToolCall, ToolContext, tool


class House:
    """What the tools of this application need."""

    def is_light_on(self, room: str) -> bool:
        return room == "kitchen"


@tool
async def weather(city: str, days: int = 1) -> str:
    """The weather in a city."""
    return f"sunny in {city} for {days} days"


@tool(timeout_s=5, parallel=False, on_interruption="cancel")
def is_light_on(room: str, house: ToolContext[House]) -> bool:
    """Whether there is light in a room."""
    assert_type(house, House)
    return house.is_light_on(room)


def double(number: int) -> int:
    return 2 * number


async def approve(call: ToolCall) -> bool | str:
    assert_type(call.arguments, dict[str, Any])
    return call.name == "pay" or "not without asking"


@tool(approve=approve)
def pay(amount: float) -> None: ...


@tool(approve=lambda call: call.name == "sell")
def sell() -> None: ...


def look_up(arguments: dict[str, Any]) -> object:
    return arguments.get("word")


doubled = tool(double, name="twice")
by_schema = Tool.from_definition({"name": "look_up", "parameters": {"type": "object"}}, look_up)
tools: list[Tool] = [weather, is_light_on, doubled, pay, sell, by_schema]


async def use(session: vivavoce.Session) -> None:
    assert_type(await weather("Oslo", days=2), str)
    assert_type(is_light_on("kitchen", House()), bool)
    assert_type(doubled(2), int)
    assert_type(await weather.run('{"city": "Oslo"}'), str)
    for each in tools:
        await session.add_tool(each)
    await session.add_tool(double)
    await session.add_tool({"name": "now", "parameters": {"type": "object"}}, lambda: "noon")
    await session.update_session(tools=[weather.definition])
    await session.remove_tool("twice")
