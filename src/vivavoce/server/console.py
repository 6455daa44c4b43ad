"""The console: a page at `/` that talks to this server from a browser and looks inside.

Static files out of the package, read once and served with headers that keep everything out that is not ours: no inline
script or style, nothing of another origin. The page itself is for everybody and holds no secret; what the server says
of itself, beyond what it takes to begin, is for those who have a key, where there are keys. Invariant: only files of
the package are served, under the names that they have there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .auth import Asked, Refusal
from .pipelines import Pipelines
from .sessions import Sessions
from .settings import Settings

FOLDER = "console"
PAGE = "index.html"

TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What is served, and as what; other files of the folder are not."""

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the page may do, whatever is in it."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cache-Control": "no-cache",  # asked for again each time, and answered by 304 while it is the same
}

VOICES = ("alloy", "ash", "ballad", "cedar", "coral", "echo", "marin", "sage", "shimmer", "verse")
"""The voices that the API itself names; what else an engine has can be typed."""


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as it is served."""

    body: bytes
    type: str
    etag: str


@lru_cache(maxsize=1)
def static_files() -> Mapping[str, StaticFile]:
    """The files of the console, by name."""
    found: dict[str, StaticFile] = {}
    for entry in files("vivavoce").joinpath(FOLDER).iterdir():
        suffix = "." + entry.name.rpartition(".")[2]
        if suffix in TYPES:
            body = entry.read_bytes()
            found[entry.name] = StaticFile(body, TYPES[suffix], f'"{sha256(body).hexdigest()[:32]}"')
    return found


def takes_calls(settings: Settings) -> bool:
    """Whether a page can talk to this server: it does so by WebRTC alone."""
    return find_spec("aiortc") is not None and settings.webrtc.peers_max > 0


def console_routes(settings: Settings, sessions: Sessions, pipelines: Pipelines) -> list[Route]:
    """The page, its files, and what the page has to know; nothing where the settings say that there is no console."""
    if not settings.console:
        return []
    served = static_files()
    return [
        Route("/", _file(served[PAGE]), methods=["GET"]),
        Route(f"/{FOLDER}/facts.json", _facts(settings, sessions, pipelines), methods=["GET"]),
        *(Route(f"/{FOLDER}/{name}", _file(file), methods=["GET"]) for name, file in served.items() if name != PAGE),
    ]


def _file(file: StaticFile) -> Callable[[Request], Awaitable[Response]]:
    headers = {**HEADERS, "ETag": file.etag}

    async def endpoint(request: Request) -> Response:
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if file.etag in known:
            return Response(status_code=304, headers=headers)
        return Response(file.body, headers={**headers, "Content-Type": file.type})

    return endpoint


def _facts(settings: Settings, sessions: Sessions, pipelines: Pipelines) -> Callable[[Request], Awaitable[Response]]:
    """Without a valid key, where one is needed: no more than it takes to begin."""
    needs_key = bool(settings.api_keys)
    plain: dict[str, Any] = {
        "version": version("vivavoce"),
        "needs_key": needs_key,
        "webrtc": takes_calls(settings),
        "model": settings.pipeline,
        "models": [],
        "voices": list(VOICES),
        "prices": {},
    }

    async def endpoint(request: Request) -> Response:
        asked = Asked.of("openai", request.scope)
        told = dict(plain)
        try:
            sessions.keys.check(asked)
        except Refusal as refusal:
            if not needs_key:
                return JSONResponse(refusal.body, refusal.status, headers=HEADERS)
        else:
            prices = {name: table.plain() for name, table in settings.prices.items()}
            told |= {"models": pipelines.models, "prices": prices}
        return JSONResponse(told, headers={**HEADERS, "Cache-Control": "no-store"})

    return endpoint
