"""What the three engines behind OpenAI-compatible HTTP endpoints have in common: one endpoint and its failures.

An `Endpoint` posts to one server and turns whatever goes wrong into an `EngineError` that names the engine, says what
to look at, and carries the server's own message and code. Keys and header values appear in no error and in no repr.
Cancelling a request, or leaving its block early, closes its connection, so that the server can stop working.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal
from urllib.parse import quote

import httpx
import msgspec
from msgspec import Meta

from vivavoce.errors import EngineError, SettingsError

__all__ = ["Endpoint", "EndpointSettings", "events"]

CONNECTIONS_MAX = 100
"""Requests in flight at one endpoint; more wait, for up to the connect timeout."""

EVENT_BYTES_MAX = 1024 * 1024
"""Largest server-sent event."""

ERROR_BYTES_MAX = 16 * 1024
"""How much of an error's body is read."""

EXCERPT_CHARS_MAX = 500
"""Of a message that a server gives as such."""

PAGE_CHARS_MAX = 160
"""Of an error page: what a proxy or a web server in between says in HTML or plain text."""

PAGE_READ_CHARS_MAX = 4 * 1024
"""How much of a page is searched for what it says."""
SECRET_CHARS_MIN = 6
"""Header values shorter than this are taken for settings, not for keys."""

_NOT_IN_HEADERS = re.compile(r"[^\x20-\x7e]")
_TITLE = re.compile(r"<title[^>]*>([^<]+)<", re.IGNORECASE)
_UNSEEN = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>?", re.IGNORECASE | re.DOTALL)
_TOO_LONG = re.compile(r"context (length|size|window)|exceed_context_size", re.IGNORECASE)

Seconds = Annotated[float, Meta(gt=0)]


class EndpointSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the server is and how to talk to it.

    `url` is the API's root, such as `http://127.0.0.1:8000/v1`; its query, if any, is kept. The key is sent as a bearer
    token: give it as `api_key`, or name the environment variable that holds it in `api_key_env`. `headers` are added to
    every request. `silence_timeout_s` is the longest wait for the next byte of an answer.

    With `azure_api_version`, such as `2024-10-21`, the server is an Azure OpenAI resource: `url` is its root, such as
    `https://NAME.openai.azure.com`, `model` the name of a deployment, and the key goes into the header `api-key`.
    (Azure's `…/openai/v1` is an API root like any other and wants no version.) `api_key_header` says otherwise.
    """

    url: str
    model: str
    api_key: str | None = None
    api_key_env: str | None = None
    api_key_header: Literal["Authorization", "api-key"] | None = None
    azure_api_version: str | None = None
    headers: dict[str, str] = {}
    connect_timeout_s: Seconds = 5.0
    silence_timeout_s: Seconds = 60.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}(url={_shown(self.url)!r}, model={self.model!r})"


class Endpoint:
    """One server, as one engine uses it. Connections are opened by the first request and kept until `close`."""

    def __init__(self, engine: str, settings: EndpointSettings) -> None:
        """Raises `SettingsError` where the URL, the key or a header cannot be used."""
        self.model = settings.model
        self._engine = engine
        self._url = _root(_checked_url(engine, settings.url), settings)
        self._below = f"/deployments/{quote(settings.model, safe='')}" if settings.azure_api_version else ""
        self._headers = _headers(engine, settings)
        self._secrets = [value for value in (_key(engine, settings), *settings.headers.values()) if value]
        self._timeout = httpx.Timeout(settings.silence_timeout_s, connect=settings.connect_timeout_s)
        self._connect_timeout_s = settings.connect_timeout_s
        self._open: httpx.AsyncClient | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self._engine!r}, {_shown(str(self._url))!r})"

    async def check(self) -> None:
        """Ask the server for its models: cheap, and tells whether it is there and takes the key.

        A server without such a list is fine. Raises `EngineError`.
        """
        with_models = self._client().stream("GET", self._at("/models"), timeout=self._connect_timeout_s)
        async with self._failing_clearly(), with_models as response:
            if response.is_success or response.status_code in (404, 405):
                return
            raise await self._refusal(response)

    @asynccontextmanager
    async def post(self, path: str, **content: Any) -> AsyncIterator[httpx.Response]:
        """Post to `path` below the URL; `content` as httpx takes it (`json`, `data`, `files`).

        Gives the answer with its body unread. Raises `EngineError` for a refusal, and for what fails inside the block.
        """
        async with (
            self._failing_clearly(),
            self._client().stream("POST", self._at(self._below + path), **content) as response,
        ):
            if not response.is_success:
                raise await self._refusal(response)
            yield response

    async def close(self) -> None:
        """Close all connections."""
        client, self._open = self._open, None
        if client is not None:
            await client.aclose()

    def failure(self, error: object) -> EngineError:
        """An `EngineError` out of the JSON by which a server says that it failed."""
        message, code = _told(error)
        return self._failure(message, code or "engine_error")

    def broken(self, what: str) -> EngineError:
        """An `EngineError` for an answer that is not what this API answers."""
        return self._failure(f"{what}; is {_shown(str(self._url))} an OpenAI-compatible API?", "engine_protocol")

    def _failure(self, message: str, code: str) -> EngineError:
        for secret in self._secrets:
            if len(secret) >= SECRET_CHARS_MIN:
                message = message.replace(secret, "[key]")
        return EngineError(f"{self._engine}: {message}", code=code)

    async def _refusal(self, response: httpx.Response) -> EngineError:
        """What the server said about why it does not answer."""
        body = b""
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) >= ERROR_BYTES_MAX:
                break
        text = body[:ERROR_BYTES_MAX].decode(errors="replace").strip()
        try:
            message, code = _told(json.loads(text))
        except ValueError:
            message, code = _page(text), None
        status = response.status_code
        hint = " (look at api_key or api_key_env)" if status in (401, 403) else ""
        where = f"HTTP {status} from {_shown(str(response.url))}{hint}"
        return self._failure(f"{where}: {message}" if message else where, code or f"http_{status}")

    @asynccontextmanager
    async def _failing_clearly(self) -> AsyncIterator[None]:
        """What httpx raises, as `EngineError`."""
        where = _shown(str(self._url))
        try:
            yield
        except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise self._failure(f"no connection to {where} in time", "engine_unreachable") from error
        except httpx.TimeoutException as error:
            raise self._failure(f"{where} fell silent for too long", "engine_timeout") from error
        except httpx.ConnectError as error:
            message = f"cannot reach {where} ({error}); is the server running, and the option url right?"
            raise self._failure(message, "engine_unreachable") from error
        except httpx.HTTPError as error:
            raise self._failure(f"the connection to {where} broke: {error}", "engine_connection") from error

    def _client(self) -> httpx.AsyncClient:
        if self._open is None:
            limits = httpx.Limits(max_connections=CONNECTIONS_MAX)
            self._open = httpx.AsyncClient(headers=self._headers, timeout=self._timeout, limits=limits)
        return self._open

    def _at(self, path: str) -> httpx.URL:
        return self._url.copy_with(path=self._url.path.rstrip("/") + path)


async def events(response: httpx.Response) -> AsyncIterator[bytes]:
    """The data of each server-sent event, however its bytes were cut on the way.

    Lines are split at line feeds only: JSON may hold all other characters that text would be split at.
    """
    data: list[bytes] = []
    size = 0
    async for line in _lines(response):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
            size += len(line)
            if size > EVENT_BYTES_MAX:
                raise _too_large()
        elif not line and data:
            yield b"\n".join(data)
            data.clear()
            size = 0
    if data:
        yield b"\n".join(data)


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """The lines of a body without their ends; the last one may have none."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > EVENT_BYTES_MAX:
            raise _too_large()
        for line in lines:
            yield line.removesuffix(b"\r")
    yield rest


def _too_large() -> httpx.RemoteProtocolError:
    return httpx.RemoteProtocolError(f"an event exceeds {EVENT_BYTES_MAX} bytes")


# --- settings ---------------------------------------------------------------------------------------------------------


def _checked_url(engine: str, url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise SettingsError(f"engine {engine!r}: option 'url' is no URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise SettingsError(f"engine {engine!r}: option 'url' must begin with http:// or https:// and name a host")
    return parsed


def _root(url: httpx.URL, settings: EndpointSettings) -> httpx.URL:
    """Where the API begins."""
    if settings.azure_api_version is None:
        return url
    path = url.path.rstrip("/").removesuffix("/openai") + "/openai"
    return url.copy_with(path=path).copy_set_param("api-version", settings.azure_api_version)


def _key(engine: str, settings: EndpointSettings) -> str | None:
    if settings.api_key is not None and settings.api_key_env is not None:
        raise SettingsError(f"engine {engine!r}: give api_key or api_key_env, not both")
    if settings.api_key_env is None:
        return settings.api_key
    key = os.environ.get(settings.api_key_env, "").strip()
    if not key:
        raise SettingsError(f"engine {engine!r}: environment variable {settings.api_key_env} (api_key_env) is not set")
    return key


def _headers(engine: str, settings: EndpointSettings) -> Mapping[str, str]:
    """All headers of every request, checked here because httpx would show the value it stumbles over."""
    headers = dict(settings.headers)
    key = _key(engine, settings)
    carrier = settings.api_key_header or ("api-key" if settings.azure_api_version else "Authorization")
    if key is not None:
        headers[carrier] = key if carrier == "api-key" else f"Bearer {key}"
    for name, value in headers.items():
        if not name or _NOT_IN_HEADERS.search(name) or _NOT_IN_HEADERS.search(value):
            raise SettingsError(f"engine {engine!r}: header {name!r} holds characters that a header cannot hold")
    return headers


def _told(error: object) -> tuple[str, str | None]:
    """Message and code out of an error's JSON, in the shapes that servers use. The message is one line.

    That a prompt is too long has one code here, by whatever words a server tells it.
    """
    inner = error.get("error", error) if isinstance(error, dict) else None
    message, code = json.dumps(error), None
    if isinstance(inner, str):
        message = inner
    elif isinstance(inner, dict) and (told := inner.get("message") or inner.get("detail")):
        message, code = str(told), inner.get("code")
    if not isinstance(code, str) or not code:
        code = "context_length_exceeded" if _TOO_LONG.search(message) else None
    return " ".join(message.split())[:EXCERPT_CHARS_MAX], code


def _page(text: str) -> str:
    """What an error that is no JSON says, in one short line: of an HTML page the title, or else its text."""
    text = text[:PAGE_READ_CHARS_MAX]
    if text.startswith("<"):
        title = _TITLE.search(text)
        text = html.unescape(title[1] if title else _UNSEEN.sub(" ", text))
    return " ".join(text.split())[:PAGE_CHARS_MAX]


def _shown(url: str) -> str:
    """The URL without credentials and query, which may hold keys."""
    parsed = httpx.URL(url)
    return str(parsed.copy_with(userinfo=b"", query=None))
