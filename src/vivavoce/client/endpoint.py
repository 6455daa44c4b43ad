"""Where to connect and with what: from what a user has in hand to a WebSocket URL and its headers (reference §1.1).

Pure, so that every form of URL is a line in a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from vivavoce.errors import LocalProtocolError
from vivavoce.protocol.codec import Dialect

OPENAI_URL = "https://api.openai.com/v1"

_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_SELECTORS = frozenset({"model", "deployment", "call_id", "intent"})
"""Query parameters that already say what session is meant."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A WebSocket URL, and the headers that open it; headers carry the key and stay out of the repr."""

    url: str
    headers: dict[str, str] = field(repr=False)


def endpoint(
    url: str,
    *,
    model: str | None,
    api_key: str | None,
    dialect: Dialect,
    headers: Mapping[str, str] | None = None,
) -> Endpoint:
    """The endpoint behind a base URL (`http://host:8080/v1`) or a whole one (`wss://host/v1/realtime?model=…`).

    Raises `LocalProtocolError` for a URL that cannot be one.
    """
    parts = _parts(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if model is not None and not _SELECTORS & {name for name, _ in query}:
        query.append(("model", model))
    whole = urlunsplit((_SCHEMES[parts.scheme], parts.netloc, _path(parts.path), urlencode(query), ""))
    return Endpoint(whole, _headers(parts.path, api_key, dialect) | dict(headers or {}))


def is_same_host(url: str, other: str) -> bool:
    """Whether two URLs lead to the same host. Raises `LocalProtocolError` for what is no URL of an endpoint."""
    return _parts(url).hostname == _parts(other).hostname


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket that is not closed, a port that is no number
        is_one = False
    if not is_one:
        raise LocalProtocolError(
            f"{url!r} is no URL of an endpoint; expected for example http://127.0.0.1:8080/v1 or wss://host/v1/realtime"
        )
    return parts


def _path(path: str) -> str:
    path = path.rstrip("/")
    if not path:
        return "/v1/realtime"
    return path if "/realtime" in path else f"{path}/realtime"


def _headers(path: str, api_key: str | None, dialect: Dialect) -> dict[str, str]:
    is_azure = path.startswith("/openai")
    headers: dict[str, str] = {}
    if api_key is not None:
        headers = {"api-key": api_key} if is_azure else {"Authorization": f"Bearer {api_key}"}
    if dialect == "beta" and not is_azure:
        headers["OpenAI-Beta"] = "realtime=v1"
    return headers
