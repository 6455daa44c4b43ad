"""Why a server has refused a WebSocket, in words: what it said itself, or else the likely cause of its status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from picows import WSHandshakeError

EXCERPT_CHARS_MAX = 300
"""What is shown of a server's own words."""

LIKELY_CAUSES: Mapping[int, str] = {
    301: "the endpoint has moved; use the address in its Location header",
    400: "the server does not take this request; check the model name and the query of the URL",
    401: "the API key is missing, wrong or expired",
    403: "the API key may not use this model or endpoint",
    404: "there is no Realtime endpoint at this address, or no such model; check the path of the URL",
    407: "the proxy asks for credentials",
    426: "the server speaks no WebSocket at this address",
    429: "too many requests, or no quota left",
    500: "the server has failed; try again",
    502: "the server behind the gateway cannot be reached; try again",
    503: "the server is overloaded or restarting; try again",
    504: "the server behind the gateway does not answer; try again",
}


def refusal(error: WSHandshakeError) -> str:
    """Status, and what the server said as far as it came with the headers; with a likely cause where it names none."""
    response = error.response
    if response is None or response.status == HTTPStatus.SWITCHING_PROTOCOLS:
        return str(error)
    status = int(response.status)
    line, body = f"HTTP {status} {response.status.phrase}", (error.raw_body or b"").decode(errors="replace").strip()
    if (message := _message(body)) is not None:
        return f"{line}: {message[:EXCERPT_CHARS_MAX]}"
    cause = LIKELY_CAUSES.get(status) or LIKELY_CAUSES.get(status // 100 * 100, "not a WebSocket endpoint")
    if 300 <= status < 400:
        cause = f"{LIKELY_CAUSES[301]} ({response.headers.get('Location', 'which is missing')})"
    return f"{line} ({cause})" + (f": {body[:EXCERPT_CHARS_MAX]}" if body else "")


def _message(body: str) -> str | None:
    """What an API error says; None where it is anything else."""
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        return None
    return message if isinstance(message, str) and message else None
