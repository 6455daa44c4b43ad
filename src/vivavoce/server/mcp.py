"""The MCP servers of one session: their tools listed, their tools called, their connections kept and ended.

The session machine asks with `ListMcpTools` and `CallMcpTool`; what comes back becomes `McpToolsListed`,
`McpListFailed` or `McpCallEnded`. Every failure is an answer, not a broken session. Invariants: the credentials of a
client appear in no error and no log; a call that may have reached its tool is never made twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import msgspec

from vivavoce.errors import EngineError, EngineMissing
from vivavoce.protocol.base import UnsetType, given
from vivavoce.protocol.config import McpTool, McpToolFilter
from vivavoce.protocol.items import McpError, McpHttpError, McpListedTool, McpProtocolError, McpToolExecutionError

from .hosts import ANY_PUBLIC, HostRules

if TYPE_CHECKING:
    from .mcp_connection import Connection

log = logging.getLogger(__name__)

T = TypeVar("T")

UNREACHABLE = -32000
"""JSON-RPC code for a server that is not there, or went away."""
TIMED_OUT = -32001
"""JSON-RPC code for an answer that did not come in time."""
INVALID_PARAMS = -32602
"""JSON-RPC code for a call that cannot be made like this."""

SECRET_CHARS_MIN = 6
"""Header values shorter than this are taken for settings, not for secrets."""

EXCERPT_CHARS_MAX = 500
"""How much of a server's own error message is passed on."""

_OURS = {"host", "content-length", "content-type", "transfer-encoding", "connection", "upgrade", "te", "trailer"}
_OURS |= {"accept", "accept-encoding", "expect", "mcp-session-id", "mcp-protocol-version", "last-event-id"}


@dataclass(frozen=True, slots=True, kw_only=True)
class McpLimits:
    """What one session may ask of MCP servers, and how long it waits."""

    connections_max: int = 8
    """Servers connected at once. Beyond it the longest unused one is let go; if all are busy, the request fails."""

    list_s_max: float = 10.0
    """Time for a server to be connected and to list its tools. Then the listing fails."""

    call_s_max: float = 30.0
    """Time for a call, connecting included. Then it fails."""

    close_s_max: float = 2.0
    """Time to take leave of the servers. Then the connections are dropped."""

    tools_max: int = 128
    """Tools of one server, those that `allowed_tools` admits. Beyond it the listing fails."""

    listing_bytes_max: int = 1024 * 1024
    """The same tools as JSON. Beyond it the listing fails."""

    output_chars_max: int = 100_000
    """Output of one call. What is longer is cut, and says so."""

    answer_bytes_max: int = 1024 * 1024
    """One answer of a server, on the wire. Beyond it the request fails."""


class Failed(Exception):
    """A request to an MCP server came to nothing; `error` is what the client is told."""

    def __init__(self, error: McpError) -> None:
        super().__init__(error.message)
        self.error = error


class Lost(Failed):
    """The connection is gone. `is_unsent`: the server has surely not begun what was asked."""

    def __init__(self, message: str, *, is_unsent: bool) -> None:
        super().__init__(McpProtocolError(code=UNREACHABLE, message=message))
        self.is_unsent = is_unsent


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is and what is sent along. Equal addresses share a connection."""

    label: str = field(compare=False)
    url: str
    headers: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"Address({self.label!r}, {urlsplit(self.url).hostname!r})"

    def without_secrets(self, message: str) -> str:
        """A message of the server, cut short, and with nothing in it that was sent as a header or in the URL."""
        values = [part for _, value in self.headers for part in (value, value.rpartition(" ")[2])]
        url = urlsplit(self.url)
        values += [self.url, url.query]
        for value in sorted(values, key=len, reverse=True):
            if len(value) >= SECRET_CHARS_MIN:
                message = message.replace(value, "[secret]")
        return message if len(message) <= EXCERPT_CHARS_MAX else message[:EXCERPT_CHARS_MAX] + "…"


_rules = lru_cache(maxsize=8)(HostRules)
"""Those of the settings, which are the same for all sessions."""


class McpServers:
    """The MCP servers of one session; needs the extra `mcp`.

    `allowed_hosts` says where clients may send us (see `HostRules`): a list of `host` or `host:port`, wherever they
    point, and `*` for any host on public addresses. The default (None) is `*` alone: loopback, private and link-local
    addresses, among them a cloud's metadata service, are out of reach unless the operator lists them. An empty list
    turns MCP off. A redirect is followed within the same origin only.
    """

    def __init__(self, *, allowed_hosts: Sequence[str] | None = None, limits: McpLimits | None = None) -> None:
        """Raises `SettingsError` for an entry of `allowed_hosts` that is none."""
        self._hosts = _rules((ANY_PUBLIC,) if allowed_hosts is None else tuple(allowed_hosts))
        self._limits = limits or McpLimits()
        self._connections: dict[Address, Connection] = {}
        """The longest unused first."""
        self._leaving: set[Connection] = set()
        self._connect: type[Connection] | None = None
        self._is_closed = False

    async def list_tools(self, server: McpTool) -> tuple[McpListedTool, ...]:
        """The server's tools that `allowed_tools` admits, as it has them now. Raises `EngineError`."""
        limits, label = self._limits, server.server_label
        try:
            listed = await self._within(limits.list_s_max, self._list(server))
        except Failed as failed:
            code = "mcp_http_error" if isinstance(failed.error, McpHttpError) else "mcp_protocol_error"
            raise EngineError(failed.error.message, code=code) from None
        tools = tuple(tool for tool in listed if admits(server.allowed_tools, tool.name, tool.annotations))
        size = len(msgspec.json.encode(tools))
        if len(tools) > limits.tools_max or size > limits.listing_bytes_max:
            raise EngineError(
                f"The MCP server {label!r} has {len(tools)} tools in {size} bytes; at most {limits.tools_max} in "
                f"{limits.listing_bytes_max} can be used: name the ones you need in `allowed_tools`.",
                code="mcp_too_many_tools",
            )
        return tools

    async def call(self, server: McpTool, name: str, arguments: str) -> str | McpError:
        """What the tool answered, as text, or why there is no answer. `arguments` is a JSON object as text.

        Raises nothing.
        """
        try:
            given_arguments = _object(arguments)
            is_error, text = await self._within(self._limits.call_s_max, self._call(server, name, given_arguments))
        except Failed as failed:
            return failed.error
        except EngineMissing as missing:
            return McpProtocolError(code=UNREACHABLE, message=missing.message)
        if len(text) > (chars_max := self._limits.output_chars_max):
            text = f"{text[:chars_max]}\n[cut here: {len(text) - chars_max} more characters]"
        return McpToolExecutionError(message=text or "The tool failed and did not say why.") if is_error else text

    async def close(self) -> None:
        """Take leave of all servers; nothing is left running."""
        self._is_closed = True
        for connection in list(self._connections.values()):
            self._forget(connection)
        await asyncio.gather(*(connection.end(self._limits.close_s_max) for connection in list(self._leaving)))

    # --- one request --------------------------------------------------------------------------------------------------

    async def _within(self, seconds: float, request: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(seconds) as patience:
                return await request
        except TimeoutError:
            if not patience.expired():
                raise
            message = f"The MCP server did not answer within {seconds:g} s."
            raise Failed(McpProtocolError(code=TIMED_OUT, message=message)) from None

    async def _list(self, server: McpTool) -> tuple[McpListedTool, ...]:
        return await self._ask(server, lambda connection: connection.list_tools(), is_repeatable=True)

    async def _call(self, server: McpTool, name: str, arguments: dict[str, Any]) -> tuple[bool, str]:
        async def call(connection: Connection) -> tuple[bool, str]:
            listed = connection.listed or await connection.list_tools()
            annotations = next((tool.annotations for tool in listed if tool.name == name), None)
            if not admits(server.allowed_tools, name, annotations):
                _refuse(f"The tool {name!r} is not among the `allowed_tools` of {server.server_label!r}.")
            return await connection.call(name, arguments)

        return await self._ask(server, call, is_repeatable=False)

    async def _ask(self, server: McpTool, ask: Callable[[Connection], Awaitable[T]], *, is_repeatable: bool) -> T:
        """Ask on the connection that there is; where that one turns out to be lost, once more on a new one."""
        address = address_of(server)
        if self._connect is None:
            self._connect = await _library()
        is_new = address not in self._connections
        connection = await self._connection(address, self._connect)
        try:
            return await ask(connection)
        except Lost as lost:
            self._forget(connection)
            if is_new or not (lost.is_unsent or is_repeatable):
                raise
        log.info("the connection to MCP server %r was lost, connecting again", server.server_label)
        return await ask(await self._connection(address, self._connect))

    async def _connection(self, address: Address, connect: type[Connection]) -> Connection:
        if self._is_closed:
            _refuse("The session is over.")
        if not self._hosts:
            _refuse("MCP servers are turned off on this server: its operator allows no host.")
        connection = self._connections.pop(address, None)
        if connection is None or connection.is_over:
            self._make_room()
            connection = connect(address, self._hosts, self._limits.answer_bytes_max)
        self._connections[address] = connection
        try:
            await connection.opened()
        except Failed:
            self._forget(connection)
            raise
        return connection

    def _make_room(self) -> None:
        if len(self._connections) < self._limits.connections_max:
            return
        idle = next((connection for connection in self._connections.values() if not connection.is_busy), None)
        if idle is None:
            _refuse(f"All of this session's {self._limits.connections_max} MCP connections are busy; try again later.")
        self._forget(idle)

    def _forget(self, connection: Connection) -> None:
        if self._connections.get(connection.address) is connection:
            del self._connections[connection.address]
        self._leaving.add(connection)
        connection.leave(lambda: self._leaving.discard(connection))


# --- what a client may ask for ----------------------------------------------------------------------------------------


def admits(allowed: object, name: str, annotations: Any) -> bool:
    """Whether `allowed_tools` of an `McpTool` admits a tool; `read_only` goes by what the server says of it."""
    if allowed is None or isinstance(allowed, UnsetType):
        return True
    if not isinstance(allowed, McpToolFilter):
        return isinstance(allowed, tuple) and name in allowed
    names, read_only = given(allowed.tool_names, None), given(allowed.read_only, None)
    is_read_only = isinstance(annotations, dict) and annotations.get("readOnlyHint") is True
    return (names is None or name in names) and (read_only is None or read_only == is_read_only)


def address_of(server: McpTool) -> Address:
    """Where the server is. Raises `Failed` for what cannot be connected to from here."""
    label = server.server_label
    for elsewhere in ("connector_id", "tunnel_id"):
        if not isinstance(getattr(server, elsewhere), UnsetType):
            _refuse(
                f"MCP server {label!r}: `{elsewhere}` names a service of the OpenAI platform, which is not to be had "
                "here; give the server's own `server_url`."
            )
    url = given(server.server_url, "")
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        has_user = "@" in parts.netloc
    except ValueError:
        is_url = has_user = False
    if not is_url or any(ord(char) <= 0x20 for char in url):
        _refuse(f"MCP server {label!r}: `server_url` must be an http:// or https:// URL.")
    if has_user:
        _refuse(f"MCP server {label!r}: `server_url` has a user name in it; give `authorization` or `headers` instead.")
    return Address(label, url, tuple(_headers(server)))


def _headers(server: McpTool) -> list[tuple[str, str]]:
    label, headers = server.server_label, given(server.headers, None) or {}
    token = given(server.authorization, "")
    if token:
        if any(name.lower() == "authorization" for name in headers):
            _refuse(f"MCP server {label!r}: give `authorization` or `headers.Authorization`, not both.")
        headers = {**headers, "Authorization": token if token.startswith("Bearer ") else f"Bearer {token}"}
    for name, value in headers.items():
        if not name or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            _refuse(f"MCP server {label!r}: `headers` has the name {name[:64]!r}, which no HTTP header can have.")
        if name.lower() in _OURS:
            _refuse(f"MCP server {label!r}: the header {name!r} is set by this server; leave it out of `headers`.")
        if any(not 0x20 <= ord(char) <= 0x7E for char in value):
            _refuse(f"MCP server {label!r}: the value of {name!r} has characters that no HTTP header can have.")
    return sorted(headers.items())


def _object(arguments: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        _refuse("The arguments of an MCP tool must be a JSON object.")
    return value


def _refuse(message: str) -> NoReturn:
    raise Failed(McpProtocolError(code=INVALID_PARAMS, message=message))


# --- the library ------------------------------------------------------------------------------------------------------


async def _library() -> type[Connection]:
    """The connection, on top of the `mcp` library, which takes a second to load: not on the event loop."""
    return await asyncio.to_thread(_loaded)


def _loaded() -> type[Connection]:
    try:
        from .mcp_connection import Connection
    except ModuleNotFoundError as missing:
        raise EngineMissing(
            f"MCP needs the package {missing.name!r}; install it with: pip install 'vivavoce[mcp]'"
        ) from None
    return Connection
