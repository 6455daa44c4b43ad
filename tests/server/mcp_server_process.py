"""A real MCP server, to be run as a process: `python mcp_server_process.py [PORT]` prints its port and serves.

The library's own server at /mcp and /sse. The first part of a path may change what is in front of it: /locked wants a
token, /legacy knows an older protocol, /cut hangs up in the middle of the answer to a call, /flood answers with too
much, /packed with something compressed, /status/N with that status, /rpc-error with an error.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ImageContent, TextContent, ToolAnnotations

TOKEN = "open-sesame-123"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

server = MCPServer("double", log_level="CRITICAL")
hanging: list[str] = []
calls: list[str] = []


@server.tool(annotations=ToolAnnotations(title="Add", read_only_hint=True))
def add(a: int, b: int) -> str:
    """The sum of two numbers."""
    return str(a + b)


@server.tool()
def fail(why: str) -> str:
    """Always fails."""
    raise ToolError(why)


@server.tool()
def big(chars: int) -> str:
    """A long answer."""
    return "x" * chars


@server.tool()
async def hang(name: str) -> str:
    """Never answers."""
    hanging.append(name)
    try:
        await asyncio.Event().wait()
    finally:
        hanging.remove(name)
    return ""


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def who_hangs() -> str:
    """The calls of `hang` that are running."""
    return ",".join(hanging)


@server.tool(structured_output=False)
def several() -> list[TextContent | ImageContent]:
    """An answer in parts."""
    return [TextContent(text="one"), ImageContent(data="AAAA", mime_type="image/png"), TextContent(text="two")]


@server.tool()
def count(name: str) -> str:
    """How often it was called with this name, this time included."""
    calls.append(name)
    return str(calls.count(name))


@server.tool()
def vanish() -> str:
    """Ends the process."""
    os._exit(1)


async def _answer(send: Send, status: int, body: bytes, kind: str = "text/plain", *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _cut(send: Send) -> Send:
    """Let the head of an answer pass, and no more."""

    async def cut(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            raise ConnectionError
        await send(message)

    return cut


streamable = server.streamable_http_app()
server_sent = server.sse_app()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        await streamable(scope, receive, send)
        return
    _, first, *rest = scope["path"].split("/")
    headers = dict(scope["headers"])
    match first:
        case "status":
            await _answer(send, int(rest[0]), b"no " + headers.get(b"authorization", b""))
        case "rpc-error":
            said = "not today, " + headers.get(b"authorization", b"stranger").decode()
            error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32099, "message": said}}
            await _answer(send, 400, json.dumps(error).encode(), "application/json")
        case "packed":
            kind = "text/event-stream" if rest[0] == "events" else "application/json"
            await _answer(send, 200, gzip.compress(b"x" * 3_000_000), kind, (b"content-encoding", b"gzip"))
        case "flood":
            await _answer(send, 200, b"x" * 3_000_000, "application/json")
        case "locked" if headers.get(b"authorization") != b"Bearer " + TOKEN.encode():
            await _answer(send, 401, b"who are you? not " + headers.get(b"authorization", b"anybody"))
        case "legacy" if headers.get(b"mcp-protocol-version") == b"2026-07-28":
            await _answer(send, 400, b"never heard of that version")
        case "cut" if headers.get(b"mcp-method") == b"tools/call":
            await streamable({**scope, "path": "/" + "/".join(rest)}, receive, _cut(send))
        case "locked" | "legacy" | "cut":
            await streamable({**scope, "path": "/" + "/".join(rest)}, receive, send)
        case "sse" | "messages":
            if scope["method"] == "POST" and first == "sse":
                await _answer(send, 405, b"GET it")
            else:
                await server_sent(scope, receive, send)
        case _:
            await streamable(scope, receive, send)


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 0))
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[listener])
