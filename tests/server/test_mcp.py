"""MCP servers as a session uses them, against a real one in a process of its own (reference §2.4, §4.4 T17)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from mcp_server_process import TOKEN

from vivavoce.errors import EngineError
from vivavoce.protocol.config import McpTool, McpToolFilter
from vivavoce.protocol.items import McpError, McpHttpError, McpProtocolError, McpToolExecutionError
from vivavoce.server.mcp import TIMED_OUT, UNREACHABLE, McpLimits, McpServers

PROCESS = Path(__file__).with_name("mcp_server_process.py")
LOCAL = ("127.0.0.1",)


@contextlib.contextmanager
def mcp_process(port: int = 0) -> Iterator[int]:
    """Gives the port. A connection waits in the listener's queue until the server takes it."""
    with subprocess.Popen([sys.executable, str(PROCESS), str(port)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with mcp_process() as port:
        yield port


def tool(port: int, path: str = "mcp", **fields: object) -> McpTool:
    return McpTool(server_label="double", server_url=f"http://127.0.0.1:{port}/{path}", **fields)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def servers(limits: McpLimits | None = None) -> AsyncIterator[McpServers]:
    mcp = McpServers(allowed_hosts=LOCAL, limits=limits)
    before = asyncio.all_tasks()
    try:
        yield mcp
    finally:
        await mcp.close()
        assert asyncio.all_tasks() <= before, "nothing is left running"


def run(test: Callable[[McpServers], Awaitable[None]], limits: McpLimits | None = None) -> None:
    async def main() -> None:
        async with servers(limits) as mcp:
            await test(mcp)

    asyncio.run(main())


def call(server: McpTool, name: str, arguments: str = "{}", limits: McpLimits | None = None) -> str | McpError:
    async def main() -> str | McpError:
        async with servers(limits) as mcp:
            return await mcp.call(server, name, arguments)

    return asyncio.run(main())


def refusal(server: McpTool, limits: McpLimits | None = None, hosts: tuple[str, ...] | None = LOCAL) -> EngineError:
    async def main() -> None:
        mcp = McpServers(allowed_hosts=hosts, limits=limits)
        try:
            await mcp.list_tools(server)
        finally:
            await mcp.close()

    with pytest.raises(EngineError) as caught:
        asyncio.run(main())
    return caught.value


# --- what works -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["mcp", "legacy/mcp", "sse"])
def test_tools_are_listed_and_called_over_every_transport(port: int, path: str) -> None:
    async def test(mcp: McpServers) -> None:
        tools = {tool.name: tool for tool in await mcp.list_tools(tool(port, path))}
        assert tools["add"].description == "The sum of two numbers."
        assert tools["add"].input_schema["properties"].keys() == {"a", "b"}
        assert tools["add"].annotations == {"title": "Add", "readOnlyHint": True}
        assert await mcp.call(tool(port, path), "add", '{"a": 2, "b": 3}') == "5"

    run(test)


def test_a_connection_serves_several_calls_at_once(port: int) -> None:
    async def test(mcp: McpServers) -> None:
        sums = await asyncio.gather(*(mcp.call(tool(port), "add", f'{{"a": {n}, "b": 1}}') for n in range(8)))
        assert sums == [str(n + 1) for n in range(8)]
        assert len(mcp._connections) == 1

    run(test)


def test_a_tool_can_be_called_without_having_been_listed(port: int) -> None:
    assert call(tool(port), "add", '{"a": 2, "b": 2}') == "4"


def test_what_is_no_text_is_named(port: int) -> None:
    assert call(tool(port), "several") == "one\n[image image/png]\ntwo"


@pytest.mark.parametrize(
    ("allowed", "names"),
    [
        (("add", "big", "nothing"), {"add", "big"}),
        (McpToolFilter(tool_names=("add", "fail")), {"add", "fail"}),
        (McpToolFilter(read_only=True), {"add", "who_hangs"}),
        (McpToolFilter(read_only=True, tool_names=("add", "fail")), {"add"}),
        ((), set()),
    ],
)
def test_allowed_tools_restrict_listing_and_calls(
    port: int, allowed: tuple[str, ...] | McpToolFilter, names: set[str]
) -> None:
    async def test(mcp: McpServers) -> None:
        server = tool(port, allowed_tools=allowed)
        assert {tool.name for tool in await mcp.list_tools(server)} == names
        refused = await mcp.call(server, "several", "{}")
        assert isinstance(refused, McpProtocolError)
        assert "allowed_tools" in refused.message

    run(test)


# --- credentials ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_token", [{"authorization": TOKEN}, {"headers": {"authorization": f"Bearer {TOKEN}"}}])
def test_credentials_are_sent(port: int, with_token: dict[str, object]) -> None:
    assert call(tool(port, "locked/mcp", **with_token), "add", '{"a": 1, "b": 1}') == "2"


def test_credentials_are_in_no_error_and_no_log(port: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "vivavoce")
    secret = "wrong-secret-456"
    server = tool(port, "locked/mcp?key=hidden-key-789", authorization=secret)
    failed = call(server, "add")
    assert isinstance(failed, McpHttpError)
    assert failed.code == 401
    echoed = call(tool(port, "rpc-error", authorization=secret), "add")
    assert isinstance(echoed, McpProtocolError)
    assert "not today, [secret]" in echoed.message
    said = f"{failed.message} {echoed.message} {refusal(server).message} {caplog.text}"
    assert secret not in said
    assert "hidden-key" not in said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"authorization": "a", "headers": {"AUTHORIZATION": "b"}}, "not both"),
        ({"headers": {"X-Key": "secret\r\nHost: inside"}}, "X-Key"),
        ({"headers": {"X Key": "1"}}, "X Key"),
        ({"headers": {"Host": "inside"}}, "Host"),
        ({"server_url": "file:///etc/passwd"}, "server_url"),
        ({"server_url": "http://[::1"}, "server_url"),
        ({"server_url": "http://me:secret@127.0.0.1/"}, "user name"),
        ({"connector_id": "connector_gmail"}, "connector_id"),
        ({"tunnel_id": "tunnel_" + "a" * 32}, "tunnel_id"),
    ],
)
def test_what_cannot_be_used_is_named(fields: dict[str, object], said: str) -> None:
    message = refusal(McpTool(**{"server_label": "double", "server_url": "http://127.0.0.1:1/", **fields})).message  # type: ignore[arg-type]
    assert said in message
    assert "secret" not in message


# --- what fails -------------------------------------------------------------------------------------------------------


def test_a_tool_that_fails_says_why(port: int) -> None:
    failed = call(tool(port), "fail", '{"why": "no more eggs"}')
    assert isinstance(failed, McpToolExecutionError)
    assert "no more eggs" in failed.message


def test_an_unknown_tool_is_an_error(port: int) -> None:
    failed = call(tool(port), "nothing")
    assert isinstance(failed, McpProtocolError | McpToolExecutionError)
    assert "nothing" in failed.message


@pytest.mark.parametrize("arguments", ["[1]", "{", '"add"', "[" * 100_000])
def test_arguments_must_be_an_object(port: int, arguments: str) -> None:
    failed = call(tool(port), "add", arguments)
    assert isinstance(failed, McpProtocolError)
    assert failed.code == -32602


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_http_errors_keep_their_status(port: int, status: int) -> None:
    failed = call(tool(port, f"status/{status}"), "add")
    assert isinstance(failed, McpHttpError)
    assert failed.code == status
    assert refusal(tool(port, f"status/{status}")).code == "mcp_http_error"


def test_protocol_errors_keep_their_code(port: int) -> None:
    failed = call(tool(port, "rpc-error"), "add")
    assert failed == McpProtocolError(code=-32099, message="The MCP server 'double' says: not today, stranger")


def test_a_server_that_is_not_there(port: int) -> None:
    with mcp_process() as gone:
        pass
    failed = call(tool(gone), "add")
    assert isinstance(failed, McpProtocolError)
    assert failed.code == UNREACHABLE
    assert refusal(tool(gone)).code == "mcp_protocol_error"


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_tool_that_never_answers_is_given_up(port: int) -> None:
    async def test(mcp: McpServers) -> None:
        await mcp.list_tools(tool(port))
        failed = await mcp.call(tool(port), "hang", '{"name": "slow"}')
        assert isinstance(failed, McpProtocolError)
        assert failed.code == TIMED_OUT
        assert await mcp.call(tool(port), "add", '{"a": 1, "b": 1}') == "2", "the connection is still good"

    run(test, McpLimits(call_s_max=0.5))


@pytest.mark.parametrize("path", ["mcp", "legacy/mcp"])
def test_a_cancelled_call_ends_at_the_server_too(port: int, path: str) -> None:
    async def test(mcp: McpServers) -> None:
        calling = asyncio.create_task(mcp.call(tool(port, path), "hang", f'{{"name": "{path}"}}'))
        while path not in str(await mcp.call(tool(port, path), "who_hangs", "")):
            pass
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        while path in str(await mcp.call(tool(port, path), "who_hangs", "")):
            pass

    run(test)


def test_closing_ends_what_is_running(port: int) -> None:
    async def test(mcp: McpServers) -> None:
        calling = asyncio.create_task(mcp.call(tool(port), "hang", '{"name": "closing"}'))
        while "closing" not in str(await mcp.call(tool(port), "who_hangs", "")):
            pass
        await mcp.close()
        assert isinstance(await calling, McpProtocolError)
        assert isinstance(await mcp.call(tool(port), "add", "{}"), McpProtocolError), "over is over"

    run(test)


# --- connections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["mcp", "legacy/mcp"])
def test_a_server_that_was_restarted_is_connected_again(path: str) -> None:
    async def test(mcp: McpServers) -> None:
        with mcp_process() as port:
            assert await mcp.call(tool(port, path), "count", '{"name": "a"}') == "1"
        with mcp_process(port):
            assert await mcp.call(tool(port, path), "count", '{"name": "a"}') == "1"
        failed = await mcp.call(tool(port, path), "count", '{"name": "a"}')
        assert isinstance(failed, McpProtocolError)
        assert failed.code == UNREACHABLE

    run(test)


def test_a_server_that_ends_during_a_call_is_an_error() -> None:
    with mcp_process() as port:
        failed = call(tool(port), "vanish")
        assert isinstance(failed, McpProtocolError)
        assert failed.code == UNREACHABLE
        assert "went away" in failed.message


def test_a_call_that_may_have_reached_its_tool_is_not_repeated(port: int) -> None:
    async def test(mcp: McpServers) -> None:
        await mcp.list_tools(tool(port, "cut/mcp"))
        failed = await mcp.call(tool(port, "cut/mcp"), "count", '{"name": "cut"}')
        assert isinstance(failed, McpProtocolError)
        assert failed.code == UNREACHABLE
        assert await mcp.call(tool(port), "count", '{"name": "cut"}') == "2"

    run(test)


def test_connections_are_limited_and_the_unused_one_makes_room(port: int) -> None:
    async def test(mcp: McpServers) -> None:
        for number in range(4):
            assert await mcp.call(tool(port, f"mcp?{number}"), "add", '{"a": 1, "b": 1}') == "2"
            assert len(mcp._connections) <= 2
        hanging = [
            asyncio.create_task(mcp.call(tool(port, f"mcp?{n}"), "hang", f'{{"name": "room{n}"}}'), name=f"room{n}")
            for n in (2, 3)
        ]
        async with asyncio.timeout(10):
            for task in hanging:
                while task.get_name() not in str(await mcp.call(tool(port, "mcp?3"), "who_hangs", "")):
                    pass
        failed = await mcp.call(tool(port, "mcp?9"), "add", "{}")
        assert isinstance(failed, McpProtocolError)
        assert "busy" in failed.message
        for task in hanging:
            task.cancel()
        await asyncio.wait(hanging)

    run(test, McpLimits(connections_max=2))


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_a_long_output_is_cut(port: int) -> None:
    output = call(tool(port), "big", '{"chars": 150000}', McpLimits(output_chars_max=1_000))
    assert output == "x" * 1_000 + "\n[cut here: 149000 more characters]"


@pytest.mark.parametrize("path", ["mcp", "legacy/mcp"])
def test_an_answer_that_is_too_large_is_an_error(port: int, path: str) -> None:
    async def test(mcp: McpServers) -> None:
        failed = await mcp.call(tool(port, path), "big", '{"chars": 500000}')
        assert isinstance(failed, McpProtocolError)
        assert await mcp.call(tool(port, path), "add", '{"a": 1, "b": 1}') == "2"

    run(test, McpLimits(answer_bytes_max=100_000))


def test_a_flood_is_not_read_to_its_end(port: int) -> None:
    failed = call(tool(port, "flood"), "add")
    assert isinstance(failed, McpProtocolError)
    assert "more than" in failed.message


@pytest.mark.parametrize("kind", ["json", "events"])
def test_what_nobody_asked_to_be_compressed_is_not_unpacked(port: int, kind: str) -> None:
    failed = call(tool(port, f"packed/{kind}"), "add")
    assert isinstance(failed, McpProtocolError)
    assert "compresses its answer" in failed.message


def test_too_many_tools_are_refused_unless_filtered(port: int) -> None:
    limits = McpLimits(tools_max=2)
    error = refusal(tool(port), limits)
    assert error.code == "mcp_too_many_tools"
    assert "allowed_tools" in error.message
    assert refusal(tool(port), McpLimits(listing_bytes_max=100)).code == "mcp_too_many_tools"

    async def test(mcp: McpServers) -> None:
        assert len(await mcp.list_tools(tool(port, allowed_tools=("add", "big")))) == 2

    run(test, limits)


# --- where we may be sent ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "0.0.0.0"])
def test_inside_is_out_of_reach_by_default(host: str) -> None:
    error = refusal(McpTool(server_label="inside", server_url=f"http://{host}:1/mcp"), hosts=None)
    assert "allowed hosts" in error.message


def test_the_operator_may_turn_mcp_off(port: int) -> None:
    assert "turned off" in refusal(tool(port), hosts=()).message


def test_a_listed_host_is_reached_with_its_port_only(port: int) -> None:
    assert "allowed hosts" in refusal(tool(port), hosts=("127.0.0.1:1",)).message

    async def main() -> None:
        mcp = McpServers(allowed_hosts=(f"127.0.0.1:{port}",))
        assert await mcp.list_tools(tool(port))
        await mcp.close()

    asyncio.run(main())


class Resolving(asyncio.SelectorEventLoop):
    """Knows the addresses of one more name."""

    addresses: Sequence[str] = ()

    async def getaddrinfo(self, host, port, **more):  # type: ignore[no-untyped-def]
        if host == "mcp.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]
        return await super().getaddrinfo(host, port, **more)


@pytest.mark.parametrize(
    ("hosts", "addresses", "code"),
    [
        (("mcp.example",), ("127.0.0.1",), 418),
        (("mcp.example",), ("127.0.0.2", "127.0.0.1"), 418),
        (None, ("127.0.0.1",), -32602),
        (None, ("93.184.215.14", "127.0.0.1"), -32602),
        (("other.example",), ("93.184.215.14",), -32602),
        (("mcp.example",), (), -32602),
    ],
    ids=["listed", "the next address", "not listed", "one of them inside", "another", "none"],
)
def test_names_are_judged_by_their_addresses(
    port: int, hosts: tuple[str, ...] | None, addresses: tuple[str, ...], code: int
) -> None:
    """418 comes from the server on 127.0.0.1; nothing else is connected to."""

    async def main() -> McpError | str:
        mcp = McpServers(allowed_hosts=hosts)
        server = McpTool(server_label="named", server_url=f"http://mcp.example:{port}/status/418")
        try:
            return await mcp.call(server, "add", "{}")
        finally:
            await mcp.close()

    def resolving() -> Resolving:
        loop = Resolving()
        loop.addresses = addresses
        return loop

    with asyncio.Runner(loop_factory=resolving) as runner:
        failed = runner.run(main())
    assert isinstance(failed, McpHttpError | McpProtocolError)
    assert failed.code == code


def test_without_the_library_the_extra_is_named(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vivavoce.server.mcp_connection", None)
    error = refusal(tool(port))
    assert error.code == "engine_missing"
    assert "vivavoce[mcp]" in error.message
    failed = call(tool(port), "add")
    assert isinstance(failed, McpProtocolError)
    assert "vivavoce[mcp]" in failed.message
