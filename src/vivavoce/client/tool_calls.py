"""The tools of a session, and their calls that run: one task each, ended with the session.

The caller says which to run and which to end; what they answer goes back to it. Invariant: every call that was begun is
answered, by its tool or for it, as long as the session lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from vivavoce.core.caller.messages import CancelTool, RunTool, ToolEnded
from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import config

if TYPE_CHECKING:
    from .tools import Tool

REMOVED = '{"error":"there is no such function any more"}'
CANCELLED = '{"error":"cancelled: the user has interrupted"}'

_call: ContextVar[asyncio.Task[str] | None] = ContextVar("call", default=None)
"""The call within which this runs, in whatever tasks and threads its tool has begun."""


class ToolCalls:
    """Tools by name, and what runs of them. `context` is handed to each."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._tools: dict[str, Tool] = {}
        self._passing: dict[str, Tool] = {}
        self._running: dict[str, tuple[asyncio.Task[str], Tool | None]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._tools or name in self._passing

    def __iter__(self) -> Any:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    @property
    def definitions(self) -> tuple[config.FunctionTool, ...]:
        """What the model is told of them."""
        return tuple(tool.definition for tool in self._tools.values())

    def add(self, tool: Tool) -> None:
        """A tool more."""
        self._tools[tool.name] = tool

    def add_passing(self, tool: Tool) -> None:
        """A tool that the session does not offer by itself, only single responses: it is run where it is called.

        It can be called until the session is reset, or another of its name is given. Raises `LocalProtocolError` where
        the session offers another one of its name.
        """
        own = self._tools.get(tool.name)
        if own is None:
            self._passing[tool.name] = tool
        elif own._function != tool._function:
            raise LocalProtocolError(f"the session has another tool named {tool.name!r}; give this one another name")

    def remove(self, name: str) -> None:
        """Raises `LocalProtocolError` for an unknown one."""
        if name not in self._tools:
            raise LocalProtocolError(f"there is no tool named {name!r}; there are: {', '.join(self._tools) or 'none'}")
        del self._tools[name]

    def clear(self) -> None:
        """Forget all of them."""
        self._tools.clear()
        self._passing.clear()

    def run(self, effect: RunTool, answer: Callable[[ToolEnded], None]) -> None:
        """Begin a call."""
        tool = self._tools.get(effect.call.name) or self._passing.get(effect.call.name)
        task = asyncio.get_running_loop().create_task(self._run(effect, tool), name=f"tool {effect.call.name}")
        self._running[effect.call_id] = (task, tool)

        def ended(task: asyncio.Task[str]) -> None:  # also where it was cancelled before it could begin
            if self._running.pop(effect.call_id, None) is not None:
                has_failed = task.cancelled() or task.exception() is not None
                answer(ToolEnded(effect.call_id, CANCELLED if has_failed else task.result()))

        task.add_done_callback(ended)

    async def _run(self, effect: RunTool, tool: Tool | None) -> str:
        _call.set(asyncio.current_task())
        if tool is None:
            return REMOVED
        return await tool.run(effect.call.arguments, self._context, call_id=effect.call_id)

    def interrupt(self, effect: CancelTool) -> None:
        """The user has interrupted: end the call, where its tool wants that."""
        task, tool = self._running.get(effect.call_id, (None, None))
        if task is not None and tool is not None and tool.on_interruption == "cancel":
            task.cancel()

    async def end(self) -> None:
        """End all calls that run, but for the one that asks for it; nobody is answered any more."""
        running, self._running = self._running, {}
        tasks = [task for task, _ in running.values() if task is not _call.get()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def tool_of(
    tool: Tool | Callable[..., Any] | Mapping[str, Any] | config.FunctionTool,
    function: Callable[..., Any] | None = None,
) -> Tool:
    """A tool, from whatever may be one. Raises `LocalProtocolError`."""
    from .tools import Tool
    from .tools import tool as made

    if isinstance(tool, Mapping | config.FunctionTool):
        if function is None:
            raise LocalProtocolError("add_tool with a definition takes the function as well: add_tool(definition, f)")
        return Tool.from_definition(tool, function)
    if function is not None:
        raise LocalProtocolError("add_tool takes a function alone, or a definition and a function")
    return tool if isinstance(tool, Tool) else made(tool)
