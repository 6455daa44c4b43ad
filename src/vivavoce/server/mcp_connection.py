"""One MCP server, connected: the `mcp` library below, `McpServers` above. Only that one imports this module.

The library's contexts must be left by the task that entered them, so each connection has a task of its own; requests
run in the tasks of those who ask, and end when the connection does. What goes over the network passes `_Gate`, which
knows more than the library tells: which HTTP status, whether the request left at all. Invariant: only addresses that
were checked are connected to.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from functools import cache, partial
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar

import httpx2
import mcp_types as types
import msgspec
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from vivavoce.protocol.items import McpHttpError, McpListedTool, McpProtocolError

from .hosts import HostRules
from .mcp import INVALID_PARAMS, UNREACHABLE, Address, Failed, Lost

OPEN_S_MAX = 10.0
"""Time for a connection to come about, whoever waits for it."""

PAGES_MAX = 64
"""Pages of a listing of tools."""

LISTED_MAX = 4_096
"""Tools in a listing, before `allowed_tools` is applied."""

LEAVE_S_MAX = 5.0
"""Time for the goodbye to a server."""

CANCEL_S_MAX = 1.0
"""Time for the library to let go of a request that nobody waits for."""

NOT_THIS_WAY = (400, 404, 405)
"""What a server that knows only the older transport (SSE) answers to the newer one."""

log = logging.getLogger(__name__)

T = TypeVar("T")


class _Exchange:
    """What `_Gate` saw of one request of ours."""

    def __init__(self) -> None:
        self.has_begun = False
        self.failure: Failed | None = None
        self.has_failed = asyncio.Event()

    def fail(self, failure: Failed) -> None:
        """Something went wrong on the way."""
        self.failure = failure
        self.has_failed.set()


_exchange: ContextVar[_Exchange] = ContextVar("exchange")


class Connection:
    """One connection. Made on a running event loop, it begins to connect at once."""

    def __init__(self, address: Address, hosts: HostRules, answer_bytes_max: int) -> None:
        self.address = address
        self.listed: tuple[McpListedTool, ...] = ()
        """All tools of the server, as last listed."""
        self._hosts = hosts
        self._answer_bytes_max = answer_bytes_max
        self._running = 0
        self._goodbye = asyncio.Event()
        self._opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(), name=f"connection to {address!r}")

    @property
    def is_over(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._task.done() or self._goodbye.is_set()

    @property
    def is_busy(self) -> bool:
        """Whether somebody waits for it."""
        return self._running > 0 or not self._opened.done()

    async def opened(self) -> None:
        """Wait until it is connected. Raises `Failed`."""
        await asyncio.shield(self._opened)

    def leave(self, then: Callable[[], None]) -> None:
        """Begin to take leave, without waiting for it; `then` is called when that is done."""
        self._goodbye.set()
        self._task.add_done_callback(lambda _: then())

    async def end(self, seconds: float) -> None:
        """Wait until leave is taken; drop the connection when that takes too long."""
        for patience_s in (seconds, CANCEL_S_MAX):
            await asyncio.wait((self._task,), timeout=patience_s)
            if self._task.done():
                return
            self._task.cancel()
        log.warning("%s did not end", self._task.get_name())

    # --- requests -----------------------------------------------------------------------------------------------------

    async def list_tools(self) -> tuple[McpListedTool, ...]:
        """All tools, page by page. Raises `Failed`."""
        tools: list[types.Tool] = []
        cursor: str | None = None
        for _ in range(PAGES_MAX):
            page = await self._ask(partial(_page, cursor))
            tools += page.tools
            cursor = page.next_cursor
            if cursor is None or len(tools) > LISTED_MAX:
                break
        if cursor is not None or len(tools) > LISTED_MAX:
            self._refuse(types.INVALID_REQUEST, f"lists more than {LISTED_MAX} tools or {PAGES_MAX} pages")
        self.listed = tuple(_listed(tool) for tool in tools)
        return self.listed

    async def call(self, name: str, arguments: dict[str, Any]) -> tuple[bool, str]:
        """Whether the tool says that it failed, and its text. Raises `Failed`."""
        request = types.CallToolRequest(params=types.CallToolRequestParams(name=name, arguments=arguments))
        # Not `call_tool`: that checks the answer against the tool's own schema, whose patterns are the server's and run
        # on our event loop for as long as they like.
        result = await self._ask(lambda mcp: mcp.session.send_request(request, types.CallToolResult))
        return result.is_error, _text(result)

    async def _ask(self, request: Callable[[Client], Awaitable[T]]) -> T:
        """One request; it ends with an answer, with what `_Gate` saw go wrong, or with the connection."""
        client = await asyncio.shield(self._opened)
        exchange = _Exchange()
        token = _exchange.set(exchange)
        try:
            asking = asyncio.ensure_future(_run(request(client)))
        finally:
            _exchange.reset(token)
        failing = asyncio.create_task(exchange.has_failed.wait())
        self._running += 1
        try:
            await asyncio.wait((asking, failing, self._task), return_when=asyncio.FIRST_COMPLETED)
            if exchange.failure is not None:
                raise exchange.failure
            if not asking.done():
                raise Lost(self._says("went away"), is_unsent=not exchange.has_begun)
            return asking.result()
        except MCPError as error:
            if error.code == UNREACHABLE:
                raise Lost(self._says(f"went away: {error.message}"), is_unsent=not exchange.has_begun) from None
            self._refuse(error.code, f"says: {error.message}")
        except (ValidationError, RuntimeError, ValueError) as error:
            self._refuse(types.INVALID_REQUEST, f"does not keep to its protocol ({type(error).__name__})")
        finally:
            self._running -= 1
            await _ended(asking, failing)

    def _refuse(self, code: int, what: str) -> NoReturn:
        raise Failed(McpProtocolError(code=code, message=self._says(what)))

    def _says(self, what: str) -> str:
        return f"The MCP server {self.address.label!r} {self.address.without_secrets(what)}"

    # --- the connection's own task ------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Connect, the newer way or the older; stay until the goodbye or until the connection breaks."""
        failure: Failed = Lost(self._says("is not connected"), is_unsent=True)
        try:
            try:
                await self._stay(self._streamable)
            except Failed as first:
                failure = first
                if not _is_for_older_way(first):
                    return
                await self._stay(self._server_sent)
        except Failed:
            pass  # the older way does not lead there either: what the newer one met says more
        finally:
            if not self._opened.done():
                self._opened.set_exception(failure)
                self._opened.exception()  # nobody may be waiting any more

    async def _stay(self, transport: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        """Connect and stay. Raises `Failed` where no connection comes about."""
        exchange = _Exchange()
        _exchange.set(exchange)
        clock = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(OPEN_S_MAX) as patience, self._client(transport) as client:
                patience.reschedule(None)
                self._opened.set_result(client)
                await self._goodbye.wait()
                patience.reschedule(clock.time() + LEAVE_S_MAX)
        except Exception as error:  # often an ExceptionGroup, of whatever the library's tasks ended with
            log.debug("%s broke: %s", self._task.get_name(), type(_leaf(error)).__name__)
            if not self._opened.done():
                raise self._why(error, exchange) from None

    def _why(self, error: BaseException, exchange: _Exchange) -> Failed:
        leaf = _leaf(error)
        if exchange.failure is not None:
            return exchange.failure
        if isinstance(leaf, MCPError):
            return Failed(McpProtocolError(code=leaf.code, message=self._says(f"says: {leaf.message}")))
        if isinstance(leaf, TimeoutError):
            return Lost(self._says(f"could not be connected within {OPEN_S_MAX:g} s"), is_unsent=True)
        return Lost(self._says(f"could not be connected: {type(leaf).__name__}"), is_unsent=True)

    @asynccontextmanager
    async def _client(self, transport: Callable[[], AbstractAsyncContextManager[Any]]) -> AsyncIterator[Client]:
        info = types.Implementation(name="vivavoce", version="1")
        async with Client(transport(), cache=None, client_info=info) as client:
            yield client

    @asynccontextmanager
    async def _streamable(self) -> AsyncIterator[Any]:
        bytes_max = self._answer_bytes_max
        async with (
            self._http() as http,
            streamable_http_client(self.address.url, http_client=http, max_sse_event_size=bytes_max) as streams,
        ):
            yield streams

    def _server_sent(self) -> AbstractAsyncContextManager[Any]:
        return sse_client(self.address.url, httpx_client_factory=self._http)

    def _http(self, *_: Any, **__: Any) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            transport=_Gate(self.address, self._hosts, self._answer_bytes_max),
            headers={**dict(self.address.headers), "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(OPEN_S_MAX, read=None),  # who asks brings patience of his own
            trust_env=False,
        )


class _Gate(httpx2.AsyncHTTPTransport):
    """The way to the network: to checked addresses, with answers of limited size, failures noted in the exchange."""

    def __init__(self, address: Address, hosts: HostRules, answer_bytes_max: int) -> None:
        super().__init__(verify=_tls())
        self._address = address
        self._hosts = hosts
        self._answer_bytes_max = answer_bytes_max

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if (exchange := _exchange.get(None)) is not None:
            exchange.has_begun = True
            exchange.failure = None  # the library tries one thing after the other when it connects: the last counts
        try:
            response = await self._send(request)
            await self._require_plain(response)
            if response.headers.get("content-type", "").lower().startswith("text/event-stream"):
                return response
            return await self._whole(request, response)
        except Failed as failed:
            self._note(failed)
            # Raising would end the connection, and with it whatever else is being asked on it.
            return httpx2.Response(HTTPStatus.BAD_GATEWAY, request=request)
        except httpx2.TransportError as error:
            is_unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            what = "cannot be reached" if is_unsent else "went away"
            self._note(Lost(self._says(f"{what}: {type(error).__name__}"), is_unsent=is_unsent))
            raise

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        """To the checked addresses, one after the other, under the host's own name."""
        url, host = request.url, request.url.raw_host.decode("ascii")
        request.extensions = {**request.extensions, "sni_hostname": host}
        addresses = await self._resolved(host, url.port or (443 if url.scheme == "https" else 80))
        for address in addresses[:-1]:
            try:
                return await self._send_to(address, request, url)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                log.debug("%s: one of its addresses does not answer, trying the next", self._address)
        return await self._send_to(addresses[-1], request, url)

    async def _send_to(self, address: str, request: httpx2.Request, url: httpx2.URL) -> httpx2.Response:
        request.url = url.copy_with(host=address)
        try:
            return await super().handle_async_request(request)
        finally:
            # From here on it serves logs and redirects, and a key may be in the query.
            request.url = url.copy_with(query=None)

    async def _resolved(self, host: str, port: int) -> list[str]:
        """The host's addresses. Raises `Failed` for one that may not be reached."""
        found: list[str] = []
        if self._hosts.may_admit(host, port):
            try:
                infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                raise Lost(self._says("cannot be reached: its host is not known"), is_unsent=True) from None
            found = list(dict.fromkeys(str(info[4][0]) for info in infos))
        if not found or not self._hosts.admits(host, port, found):
            message = self._says(
                f"is at {host}, where clients may not send this server; its operator can list the host among the "
                "allowed hosts of MCP"
            )
            raise Failed(McpProtocolError(code=INVALID_PARAMS, message=message))
        return found

    async def _require_plain(self, response: httpx2.Response) -> None:
        """No compression: a few bytes would become more than any limit sees in time. Raises `Failed`."""
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            raise Failed(self._broken("compresses its answer, unasked"))

    async def _whole(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        """The answer with its body, read here, where its size can be limited."""
        body = bytearray()
        try:
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > self._answer_bytes_max:
                    raise Failed(self._broken(f"answers with more than {self._answer_bytes_max} bytes"))
        finally:
            await response.aclose()
        self._judge(request, response, bytes(body))
        headers = [(name, value) for name, value in response.headers.multi_items() if name != "transfer-encoding"]
        return httpx2.Response(response.status_code, headers=headers, content=bytes(body), request=request)

    def _judge(self, request: httpx2.Request, response: httpx2.Response, body: bytes) -> None:
        """Note an HTTP error; one that brings a JSON-RPC error along is that."""
        status = response.status_code
        if request.method != "POST" or (status < 400 and not response.has_redirect_location):
            return
        if status == HTTPStatus.NOT_FOUND and "mcp-session-id" in request.headers:
            self._note(Lost(self._says("has forgotten this connection"), is_unsent=True))
        elif not _is_rpc_error(body):
            message = self._says(f"answers with HTTP status {status}{_phrase(status)}")
            self._note(Failed(McpHttpError(code=status, message=message)))

    def _broken(self, what: str) -> McpProtocolError:
        return McpProtocolError(code=types.INVALID_REQUEST, message=self._says(what))

    def _note(self, failure: Failed) -> None:
        if (exchange := _exchange.get(None)) is not None:
            exchange.fail(failure)

    def _says(self, what: str) -> str:
        return f"The MCP server {self._address.label!r} {self._address.without_secrets(what)}."


# --- small things -----------------------------------------------------------------------------------------------------


@cache
def _tls() -> Any:
    """Loading the certificates takes tens of milliseconds; once is enough."""
    return httpx2.create_ssl_context()


async def _page(cursor: str | None, client: Client) -> types.ListToolsResult:
    return await client.list_tools(cursor=cursor)


async def _run(request: Awaitable[T]) -> T:
    return await request


async def _ended(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what is still running and see it end."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=CANCEL_S_MAX)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # told already, or of no interest any more


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _is_for_older_way(failure: Failed) -> bool:
    return isinstance(failure.error, McpHttpError) and failure.error.code in NOT_THIS_WAY


def _is_rpc_error(body: bytes) -> bool:
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return False
    error = answer.get("error") if isinstance(answer, dict) else None
    return isinstance(error, dict) and isinstance(error.get("code"), int)


def _phrase(status: int) -> str:
    return f" ({HTTPStatus(status).phrase})" if status in {known.value for known in HTTPStatus} else ""


def _listed(tool: types.Tool) -> McpListedTool:
    annotations = tool.annotations
    return McpListedTool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        annotations=annotations.model_dump(by_alias=True, exclude_none=True, mode="json") if annotations else None,
    )


def _text(result: types.CallToolResult) -> str:
    """What a language model can read of an answer; what it cannot is named."""
    said = "\n".join(_text_of(block) for block in result.content)
    if not said and result.structured_content is not None:
        return msgspec.json.encode(result.structured_content).decode()
    return said


def _text_of(block: types.ContentBlock) -> str:
    match block:
        case types.TextContent():
            return block.text
        case types.EmbeddedResource(resource=types.TextResourceContents(text=text)):
            return text
        case types.EmbeddedResource():
            return f"[resource {block.resource.uri}, binary]"
        case types.ResourceLink():
            return f"[resource {block.uri}]"
        case _:
            return f"[{block.type} {block.mime_type}]"
