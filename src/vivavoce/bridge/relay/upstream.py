"""Reaching the service: one dial for one session, and its refusal in words that a client may hear.

What the service says to the handshake goes on to the client, status, body and `Retry-After`, with two exceptions: a
refusal of the relay's own key is none of the client's, and becomes 502. Invariant: nothing that is said here holds the
key.
"""

from __future__ import annotations

from collections.abc import Mapping
from ssl import SSLContext, create_default_context
from typing import Any

import msgspec
from picows import WSHandshakeError

from vivavoce.client.endpoint import Endpoint
from vivavoce.errors import ConnectionFailed
from vivavoce.server.auth import REQUEST, TRY_AGAIN, Refusal
from vivavoce.transports.websocket import connect

from .legs import SocketLeg
from .passage import BAD_GATEWAY, KEY_REFUSED, REFUSED

_OF_THE_KEY = frozenset({401, 403, 407})
_CLOSES: Mapping[int, int] = {400: REQUEST, 404: REQUEST, 422: REQUEST, 429: TRY_AGAIN, 503: TRY_AGAIN}
MESSAGE_CHARS_MAX = 1_000


def trust_of(upstream: str) -> SSLContext | None:
    """The authorities that a service is believed by, or None for one without TLS.

    To read them takes 50 ms, in which nothing else is done: so that is for the start of a relay, not for each session.
    """
    return None if upstream.startswith(("http:", "ws:")) else create_default_context()


async def reach(
    endpoint: Endpoint, *, trust: SSLContext | None, timeout_s: float, ping_s: float, message_bytes_max: int
) -> SocketLeg:
    """A leg to the service. Raises `Refusal`."""
    try:
        headers = await endpoint.headers_now()
        return await connect(
            endpoint.url,
            lambda: SocketLeg(message_bytes_max),
            headers=headers,
            subprotocols=endpoint.subprotocols,
            ssl=trust,
            open_timeout_s=timeout_s,
            message_bytes_max=message_bytes_max,
            ping_s=ping_s,
        )
    except ConnectionFailed as failed:
        raise _refused(failed, secret_of(endpoint)) from failed


def secret_of(endpoint: Endpoint) -> str:
    """The key that opens the service; empty where there is none."""
    for name, value in endpoint.headers.items():
        if name.lower() in ("authorization", "api-key"):
            return value.removeprefix("Bearer ")
    return ""


def _refused(failed: ConnectionFailed, secret: str) -> Refusal:
    cause = failed.__cause__
    response = cause.response if isinstance(cause, WSHandshakeError) else None
    if response is None or not 400 <= int(response.status) < 600:
        status = 504 if isinstance(failed.__context__, TimeoutError) else 502
        return _unreachable("upstream_unreachable", "The service cannot be reached; the relay's log says why.", status)
    status = int(response.status)
    if status in _OF_THE_KEY:
        return _unreachable(KEY_REFUSED, REFUSED, 502)
    assert isinstance(cause, WSHandshakeError)
    error = _error(cause.raw_body or b"")
    message = str(error.get("message") or f"The service answered with HTTP {status}.")[:MESSAGE_CHARS_MAX]
    refusal = Refusal(
        _CLOSES.get(status, BAD_GATEWAY),
        _text(error.get("code")),
        message.replace(secret, "…") if secret else message,
        type=_text(error.get("type")) or "server_error",
        param=_text(error.get("param")),
        status=status,
    )
    if (after := response.headers.get("Retry-After")) is not None:
        refusal.headers["Retry-After"] = after
    return refusal


def _unreachable(code: str, message: str, status: int) -> Refusal:
    return Refusal(BAD_GATEWAY, code, message, type="server_error", status=status)


def _error(body: bytes) -> dict[str, Any]:
    """The API's error in a body; empty where there is none."""
    try:
        error = msgspec.json.decode(body)["error"]
    except (msgspec.DecodeError, UnicodeError, RecursionError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
