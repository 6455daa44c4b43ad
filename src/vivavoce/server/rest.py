"""The HTTP endpoints that make short-lived keys (reference §1.9), and what they share with the others.

Thin: `minting` does the work and knows nothing of HTTP. Invariant: bodies have a limit, every error is
JSON in the API's shape, and none repeats a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .auth import Asked, Refusal, Surface
from .minting import Body, Mint
from .sessions import log_refusal

BODY_S_MAX = 20.0
"""Time for the body of a request to come."""

PREFIXES: Mapping[str, Surface] = {"/v1/realtime": "openai", "/openai/v1/realtime": "azure"}

Make = Callable[[Asked, bytes], Body]


def key_routes(mint: Mint, *, bytes_max: int) -> list[Route]:
    """The routes of all endpoints that make keys; bodies above `bytes_max` are refused."""
    makers: Mapping[str, Make] = {
        "/client_secrets": mint.client_secret,
        "/translations/client_secrets": mint.translation_secret,
        "/sessions": mint.beta_session,
        "/transcription_sessions": mint.beta_transcription_session,
    }
    return [
        Route(prefix + path, _endpoint(mint, surface, make, bytes_max), methods=["POST"])
        for prefix, surface in PREFIXES.items()
        for path, make in makers.items()
    ]


def _endpoint(mint: Mint, surface: Surface, make: Make, bytes_max: int) -> Callable[[Request], object]:
    async def endpoint(request: Request) -> Response:
        asked = Asked.of(surface, request.scope)
        try:
            mint.credential(asked)  # before the body: who may not ask, need not be listened to
            body = await body_of(request, bytes_max)
            return JSONResponse(make(asked, body), headers={"Cache-Control": "no-store"})
        except Refusal as refusal:
            log_refusal(asked, refusal)
            return refused(refusal)

    return endpoint


async def body_of(request: Request, bytes_max: int) -> bytes:
    """The body of a request. Raises `HTTPException` where it is too large, or does not come."""
    too_large = HTTPException(413, f"The body of the request is larger than {bytes_max} bytes.")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S_MAX):
            async for chunk in request.stream():
                body += chunk
                if len(body) > bytes_max:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"The body of the request did not come within {BODY_S_MAX:g} s.") from None
    except ClientDisconnect:
        raise HTTPException(400, "The body of the request did not come to its end.") from None
    return bytes(body)


def refused(refusal: Refusal) -> Response:
    """A refusal as an HTTP response."""
    return JSONResponse(refusal.body, refusal.status, headers=refusal.headers)
