"""MCP servers for tests, without any server: every one that is asked has the same three tools.

A double of `vivavoce.server.mcp.McpServers`: `look_up` only reads, `write_down` does not, `break_down` fails. A server
whose URL says `unreachable` has no tools and answers no call. Deterministic, and waits for nothing.
"""

from __future__ import annotations

from vivavoce.errors import EngineError
from vivavoce.protocol.base import given
from vivavoce.protocol.config import McpTool
from vivavoce.protocol.items import McpError, McpHttpError, McpListedTool, McpToolExecutionError

__all__ = ["ScriptedToolServers"]

_SCHEMA = {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}
TOOLS = (
    McpListedTool(
        name="look_up", description="Look something up.", input_schema=_SCHEMA, annotations={"readOnlyHint": True}
    ),
    McpListedTool(name="write_down", description="Write something down.", input_schema=_SCHEMA),
    McpListedTool(name="break_down", description="Fail.", input_schema=_SCHEMA),
)


class ScriptedToolServers:
    """All MCP servers that a session may name."""

    async def list_tools(self, server: McpTool) -> tuple[McpListedTool, ...]:
        """The three tools. Raises `EngineError` for an unreachable server."""
        if _is_unreachable(server):
            raise EngineError("The MCP server cannot be reached.", code="mcp_http_error")
        allowed = given(server.allowed_tools, None)
        return tuple(tool for tool in TOOLS if not isinstance(allowed, tuple) or tool.name in allowed)

    async def call(self, server: McpTool, name: str, arguments: str) -> str | McpError:
        """`NAME of LABEL: ARGUMENTS`, or the tool's failure."""
        if _is_unreachable(server):
            return McpHttpError(code=503, message="The MCP server cannot be reached.")
        if name == "break_down":
            return McpToolExecutionError(message="It broke.")
        return f"{name} of {server.server_label}: {arguments}"

    async def close(self) -> None:
        """Nothing to close."""


def _is_unreachable(server: McpTool) -> bool:
    return "unreachable" in given(server.server_url, "")
