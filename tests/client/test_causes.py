from __future__ import annotations

import asyncio
import socket
from ssl import SSLCertVerificationError, SSLError
from traceback import format_exception
from typing import Any

import pytest

from vivavoce import connect
from vivavoce.client.causes import cause_of, explained, is_passing
from vivavoce.client.endpoint import Endpoint, Target, resolve
from vivavoce.errors import ConnectionClosed, ConnectionFailed, LocalProtocolError, ServerError, VivavoceError
from vivavoce.transports.websocket import dial

OPENAI = resolve(Target(model="gpt-realtime", api_key="sk-secret-0123456789abcdef"), {})
SHORT = resolve(Target(model="gpt-realtime", api_key="ek_secret"), {})
AZURE = resolve(Target(azure_endpoint="https://r.openai.azure.com", azure_deployment="voice", api_key="secret"), {})
ENTRA = resolve(Target(azure_endpoint="https://r.openai.azure.com", model="voice", token_provider=lambda: "secret"), {})
PREVIEW = resolve(
    Target(azure_endpoint="https://r.openai.azure.com", model="v", api_key="secret", api_version="2025-04-01-preview"),
    {},
)
LOCAL = resolve(Target(url="http://127.0.0.1:8080/v1"), {})
MINE = resolve(Target(url="ws://mine.example/v1?ticket=secret", api_key="secret", model="m"), {})


def failed(cause: BaseException | None = None, *, status: int | None = None, said: str = "no") -> ConnectionFailed:
    error = ConnectionFailed(said, status=status)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("code", "message", "endpoint", "said"),
    [
        ("invalid_api_key", "no", OPENAI, "the key was revoked"),
        ("invalid_api_key", "no", SHORT, "ask for a fresh one"),
        ("invalid_api_key", "no", MINE, "a key of OpenAI counts at OpenAI only"),
        (None, "Missing bearer or basic authentication", LOCAL, "no key was sent; give api_key, or set OPENAI_API_KEY"),
        ("invalid_model", "no", OPENAI, "does not know the model 'gpt-realtime'"),
        ("invalid_model", "no", AZURE, "no deployment 'voice'"),
        ("invalid_model", "no", LOCAL, "the model of that name"),
        ("missing_model", "no", LOCAL, 'connect("gpt-realtime")'),
        ("beta_api_shape_disabled", "no", OPENAI, "retired the beta dialect"),
        ("session_kind_mismatch", "no", SHORT, "one kind of session only"),
        ("insufficient_quota", "no", OPENAI, "no credit left"),
        ("rate_limit_exceeded", "no", OPENAI, "wait"),
    ],
)
def test_an_error_of_the_server_names_its_likely_cause(
    code: str | None, message: str, endpoint: Endpoint, said: str
) -> None:
    error = ServerError(message, type="t", code=code, param="p", event_id="e")
    told = explained(error, endpoint)
    assert f"{message}. Likely cause: " in str(told)
    assert said in str(told)
    assert (told.type, told.code, told.param, told.event_id) == ("t", code, "p", "e")


@pytest.mark.parametrize(
    ("status", "message", "endpoint", "said"),
    [
        (401, "no", AZURE, "the key is of another resource"),
        (401, "no", ENTRA, "'Cognitive Services OpenAI User'"),
        (401, "no", OPENAI, "the key was revoked"),
        (401, "no", LOCAL, "no key was sent"),
        (403, "no", AZURE, "network rules"),
        (403, "no", OPENAI, "this key may not use the model"),
        (404, "no", AZURE, "no deployment 'voice'"),
        (404, "no", PREVIEW, "no deployment 'v'"),
        (404, "HTTP 404 (check the model): The model `m` does not exist", MINE, "does not know the model 'm'"),
        (404, "HTTP 404 Not Found: The model `m` does not exist", MINE, "does not know the model 'm'"),
        (404, "the call (HTTP 404 Not Found): The model `m` does not exist", MINE, "does not know the model 'm'"),
        (404, "HTTP 404 Not Found: nothing here", MINE, "a base URL mostly ends in /v1"),
        (404, "HTTP 404 (or no such model): nothing here", MINE, "a base URL mostly ends in /v1"),
        (400, "no", PREVIEW, "not every model is in every preview"),
        (429, "no", AZURE, "the deployment's quota"),
        (200, "no", LOCAL, "something else answers"),
        (407, "no", OPENAI, "http://USER:PASSWORD@HOST:PORT"),
    ],
)
def test_a_status_names_its_likely_cause(status: int, message: str, endpoint: Endpoint, said: str) -> None:
    told = explained(failed(status=status, said=message), endpoint)
    assert said in str(told)
    assert told.status == status
    assert "secret" not in str(told)


@pytest.mark.parametrize(
    ("cause", "endpoint", "said"),
    [
        (SSLCertVerificationError("self-signed"), MINE, "create_default_context(cafile="),
        (SSLError("wrong version number"), MINE, "speaks no TLS on this port; write ws://"),
        (socket.gaierror(-2, "unknown"), AZURE, "the name of the resource is not right"),
        (socket.gaierror(-2, "unknown"), MINE, "proxy='http://HOST:PORT'"),
        (ConnectionRefusedError(), LOCAL, "vivavoce serve --port 8080"),
        (ConnectionRefusedError(), MINE, "no server listens on this port"),
        (TimeoutError(), OPENAI, "a firewall drops the connection"),
        (ConnectionResetError(), MINE, "write wss://"),
        (ConnectionClosed(3000, "invalid_request_error.invalid_api_key"), OPENAI, "the key was revoked"),
        (ConnectionClosed(4000, "invalid_request_error.missing_model"), MINE, 'connect("gpt-realtime")'),
        (ConnectionClosed(4000, "invalid_request_error.beta_api_shape_disabled"), OPENAI, "retired the beta dialect"),
        (ConnectionClosed(1009), MINE, "smaller pieces"),
    ],
)
def test_a_failure_of_the_network_names_its_likely_cause(cause: Exception, endpoint: Endpoint, said: str) -> None:
    told = explained(failed(cause), endpoint)
    assert said in str(told)
    assert told.__cause__ is cause


@pytest.mark.parametrize(
    "error",
    [failed(), failed(OSError()), failed(TimeoutError()), failed(status=418), failed(ConnectionClosed(4999, "x"))],
)
def test_nothing_is_made_up(error: ConnectionFailed) -> None:
    assert cause_of(error, MINE) is None
    assert explained(error, MINE) is error


def test_the_end_of_a_session_has_a_cause_too() -> None:
    cause = cause_of(ConnectionClosed(1001, "Your session hit the maximum duration of 60 minutes."), OPENAI)
    assert cause is not None
    assert "longest duration" in cause


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (failed(status=503), True),
        (failed(status=429), True),
        (failed(status=401), False),
        (failed(status=404), False),
        (failed(ConnectionRefusedError()), True),
        (failed(socket.gaierror()), True),
        (failed(TimeoutError()), True),
        (failed(SSLCertVerificationError()), False),
        (failed(ConnectionClosed(1013)), True),
        (failed(ConnectionClosed(3000)), False),
        (failed(), False),
        (ConnectionClosed(1006), True),
        (ConnectionClosed(1000), False),
        (ServerError("no", code="rate_limit_exceeded"), True),
        (ServerError("no", type="server_error"), True),
        (ServerError("no", code="invalid_api_key"), False),
        (LocalProtocolError("token_provider gave None"), False),
    ],
)
def test_what_may_pass_is_told_from_what_will_not(error: VivavoceError, passes: bool) -> None:
    assert is_passing(error) is passes


# --- on a real socket -------------------------------------------------------------------------------------------------


def refused(endpoint: Endpoint, *, proxy: str | None = None, open_timeout_s: float = 10.0) -> ConnectionFailed:
    async def main() -> ConnectionFailed:
        with pytest.raises(ConnectionFailed) as raised:
            await dial(endpoint.url, proxy=proxy, open_timeout_s=open_timeout_s)
        return explained(raised.value, endpoint)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "There is no such path."}}', "HTTP 404 Not Found: There is no such path."),
        (b"<p>(none)</p>: nothing", "HTTP 404 Not Found: <p>(none)</p>: nothing."),
        (b"", "HTTP 404 Not Found."),
    ],
)
def test_a_cause_is_told_once(body: bytes, said: str) -> None:
    head = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + body)
        writer.close()

    async def main() -> str:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/realtime"
            with pytest.raises(ConnectionFailed) as raised:
                await dial(url)
            return str(explained(raised.value, LOCAL)).removeprefix(f"{url} refused the WebSocket: ")

    assert asyncio.run(main()) == (
        f"{said} Likely cause: the address has no Realtime endpoint; a base URL mostly ends in /v1"
    )


def test_a_server_that_is_not_running_may_be_started() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        told = refused(resolve(Target(url=f"http://127.0.0.1:{port}"), {}))
    assert str(told).endswith(
        "is a server running there? Likely cause: the server is not running; "
        f"start it with: vivavoce serve --port {port}"
    )
    assert is_passing(told)


def test_a_server_that_does_not_answer_is_a_passing_failure() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        told = refused(resolve(Target(url=f"http://127.0.0.1:{silent.getsockname()[1]}"), {}), open_timeout_s=0.05)
    assert "did not answer within 0.05 s" in str(told)
    assert is_passing(told)


def test_a_proxy_that_is_not_there_is_not_the_server() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        told = refused(LOCAL, proxy=f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert str(told).endswith("Likely cause: the proxy is not running there, or its address is misspelt")


@pytest.mark.parametrize("transport", ["websocket", "webrtc"])
@pytest.mark.parametrize(
    "proxy",
    [
        "me:s3cret@127.0.0.1:1",
        "s3cret@127.0.0.1:1",
        "127.0.0.1:1",
        "ftp://me:s3cret@127.0.0.1:1",
        "http://me:s3cret",
        "http://me:s3cret/more@127.0.0.1:1",
        "http://me:s3cret#more@127.0.0.1:1",
        "http://me:s3cret@more@127.0.0.1:1",
        "http://me:[s3cret@127.0.0.1:1",
        "http://me:s3cret\n@127.0.0.1:1",
        "http://:s3cret@",
        "",
    ],
)
def test_a_proxy_that_is_none_is_refused_and_its_password_is_not_shown(proxy: str, transport: Any) -> None:
    async def main() -> None:
        with pytest.raises(LocalProtocolError, match="http://USER:PASSWORD@HOST:PORT") as refused:
            await connect("m", url=LOCAL.url, proxy=proxy, transport=transport)
        assert "s3cret" not in "".join(format_exception(refused.value))
        assert refused.value.__context__ is None
        if transport == "websocket":
            with pytest.raises(LocalProtocolError, match="http://USER:PASSWORD@HOST:PORT"):
                await dial(LOCAL.url, proxy=proxy)

    asyncio.run(main())


@pytest.mark.parametrize("scheme", ["http", "https", "socks4", "socks5"])
def test_a_proxy_that_is_one_is_tried_and_its_password_is_not_shown(scheme: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        told = refused(LOCAL, proxy=f"{scheme}://me:s3cret%2F@127.0.0.1:{taken.getsockname()[1]}/")
    assert "through proxy" in str(told)
    assert "s3cret" not in str(told)


def test_what_is_no_websocket_server_at_all_is_something_else() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 404 File not found\r\n\r\n")
        writer.close()

    async def main() -> ConnectionFailed:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            with pytest.raises(ConnectionFailed) as raised:
                await dial(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/realtime")
            return explained(raised.value, LOCAL)

    assert "Likely cause: something else answers at this address" in str(asyncio.run(main()))


@pytest.mark.parametrize(
    ("status", "said"),
    [(b"407 Proxy Authentication Required", "wants a user and a password"), (b"403 Forbidden", "403")],
)
def test_a_proxy_that_refuses_says_its_status(status: bytes, said: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + status + b"\r\n\r\n")
        writer.close()

    async def main() -> ConnectionFailed:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as proxy:
            port = proxy.sockets[0].getsockname()[1]
            with pytest.raises(ConnectionFailed) as raised:
                await dial(MINE.url, proxy=f"http://127.0.0.1:{port}")
            return explained(raised.value, MINE)

    told = asyncio.run(main())
    assert told.status == int(status[:3])
    assert said in str(told)
    assert not is_passing(told)
