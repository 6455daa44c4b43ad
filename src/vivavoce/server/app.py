"""The ASGI app: routes, who may call them from a web page, and the lifespan that loads models (reference §1.1, §1.9).

Serves alone or mounted in another app. A WebSocket goes straight from the ASGI server into its session; nothing stands
between them but a transport of three methods. Mounted, an app has no lifespan of its own: then the first connection
loads the models, unless the outer app runs `lifespan`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from vivavoce.engines import Pipeline
from vivavoce.engines.registry import Registry
from vivavoce.errors import ConnectionClosed

from .access import AccessLog
from .asgi import DENIAL, AsgiTransport
from .auth import Asked, Refusal, Surface, plain_origin
from .call_routes import call_routes
from .calls import Calls
from .console import console_routes
from .health import health_routes
from .minting import Mint
from .operators import metrics_routes, operator_routes
from .pipelines import Pipelines, build
from .rest import key_routes
from .sessions import Sessions, log_refusal
from .settings import Settings

PATHS: Mapping[str, Surface] = {
    "/v1/realtime": "openai",
    "/v1/realtime/translations": "translation",
    "/openai/v1/realtime": "azure",
    "/openai/realtime": "azure-preview",
}


CALLING: tuple[Surface, ...] = ("openai", "azure")
"""Where a WebSocket may be attached to a call."""

LOOPBACK_ORIGIN = r"https?://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?"
"""Pages of this machine."""


def create_app(settings: Settings, pipelines: Mapping[str, Pipeline] | None = None) -> Starlette:
    """The server as an ASGI app; `app.state` has its `sessions` and `pipelines`.

    `pipelines` replaces those that the settings name. Raises `SettingsError` and `EngineMissing`; nothing is loaded
    before the lifespan begins.
    """
    registry = Registry.load() if pipelines is None else None
    named = build(settings, registry) if pipelines is None else pipelines
    cores = registry.cores if registry is not None else None
    loaded = Pipelines(named, default=settings.pipeline, models=settings.models, cores=cores)
    sessions = Sessions(settings, loaded)
    calls, mint = Calls(sessions, settings), Mint(sessions)
    routes = [
        *(WebSocketRoute(path, _Sockets(surface, sessions, calls, settings)) for path, surface in PATHS.items()),
        *call_routes(calls, mint, sessions, bytes_max=settings.request_bytes_max),
        *(Route(path, upgrade_required, methods=["GET"]) for path in PATHS),
        *operator_routes(sessions),
        *metrics_routes(sessions, settings.metrics),
        *key_routes(mint, bytes_max=settings.request_bytes_max),
        *console_routes(settings, sessions, loaded),
        WebSocketRoute("/{path:path}", no_such_endpoint),
        *health_routes(sessions, loaded),
    ]
    app = _App(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(AccessLog), _cors(settings)],
        exception_handlers={HTTPException: _http_error, Exception: _failed},
    )
    app.state.settings, app.state.sessions, app.state.pipelines = settings, sessions, loaded
    app.state.calls = calls
    return app


class _App(Starlette):
    """Starlette, whose middleware has nothing to say to WebSockets: they go past ours, and keep no part of it alive."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._ours = list(self.user_middleware)

    def build_middleware_stack(self) -> ASGIApp:
        """What a connection goes through; all of it where somebody has added to it."""
        whole, router = super().build_middleware_stack(), self.router
        if self.user_middleware != self._ours:
            return whole
        return lambda scope, receive, send: (router if scope["type"] == "websocket" else whole)(scope, receive, send)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Load models in the background; at the end drain the sessions and free the models."""
    app.state.pipelines.warm_up()
    sessions = app.state.sessions
    if sessions.log is not None:
        sessions.log.open(sessions.server)
    looking = asyncio.create_task(sessions.telemetry.loop_delay.run(), name="looking at the event loop")
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.wait((looking,))
        try:
            await sessions.drain(app.state.settings.drain_ms_max / 1000)
            await app.state.pipelines.close()
        finally:
            if sessions.log is not None:
                await sessions.log.close()


def _cors(settings: Settings) -> Middleware:
    """What browsers ask before a page of another origin may call the HTTP endpoints; keys decide all the rest."""
    return Middleware(
        CORSMiddleware,
        allow_origins=[plain_origin(origin) for origin in settings.origins],
        allow_origin_regex=LOOPBACK_ORIGIN,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["Location"],
    )


class _Sockets:
    """The WebSocket endpoint of one path."""

    def __init__(self, surface: Surface, sessions: Sessions, calls: Calls, settings: Settings) -> None:
        self._surface = surface
        self._sessions = sessions
        self._calls = calls
        self._answers_with_status = settings.refusals == "http"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Asked.of(self._surface, scope)
        asgi = AsgiTransport(scope, receive, send)
        with suppress(ConnectionClosed):
            try:
                if (call_id := asked.query.get("call_id")) is not None and self._surface in CALLING:
                    call = self._calls.find(call_id, self._sessions.keys.check(asked))
                    call.hub.check_room()
                    await call.hub.carry(await asgi.accept(asked.subprotocol))
                    return
                if (found := self._sessions.resumable(asked)) is not None:
                    await found.carry(await asgi.accept(asked.subprotocol))
                    return
                with self._sessions.admitted(asked) as admitted:
                    await self._sessions.run(admitted, await asgi.accept(asked.subprotocol))
            except Refusal as refusal:
                await self._refuse(asked, asgi, refusal)

    async def _refuse(self, asked: Asked, asgi: AsgiTransport, refusal: Refusal) -> None:
        """With a status where that is wanted and the handshake still waits for an answer, else with event and close."""
        opened = asgi.opened
        if opened is None:
            if self._answers_with_status and asgi.can_deny:
                log_refusal(asked, refusal)
                await asgi.deny(refusal.status, refusal.body, refusal.headers)
                return
            opened = await asgi.accept(asked.subprotocol)
        await self._sessions.refuse(asked, opened, refusal)


async def upgrade_required(request: Request) -> Response:
    """A WebSocket's path, asked for by HTTP."""
    raise HTTPException(426, "This is a WebSocket endpoint: connect to it with ws:// or wss://.")


_NO_SUCH_PATH = (
    "There is nothing at this path: this server speaks the Realtime API, by WebSocket at "
    f"{', '.join(PATHS)}, and by WebRTC at /v1/realtime/calls; no other part of the OpenAI API."
)


async def no_such_endpoint(socket: WebSocket) -> None:
    """404, where the ASGI server can say it; its own word for a WebSocket that nobody takes is 403, as for a key."""
    if DENIAL in (socket.scope.get("extensions") or {}):
        paths = ", ".join(PATHS)
        await socket.send_denial_response(
            _error(f"There is no WebSocket endpoint at this path; there is {paths}.", 404)
        )
    else:
        await socket.close()


async def _http_error(request: Request, error: Exception) -> Response:
    """Every HTTP error in the API's own shape (reference §1.9)."""
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code == 404 and detail == HTTPStatus.NOT_FOUND.phrase:  # no route: ours say what is not there
        detail = _NO_SUCH_PATH
    return _error(detail, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    """A mistake of ours in the same shape; the traceback is for the log, to which it goes by itself."""
    return _error("The server has failed.", 500, type="server_error")


def _error(
    message: str, status: int, headers: Mapping[str, str] | None = None, *, type: str = "invalid_request_error"
) -> Response:
    body = {"message": message, "type": type, "param": None, "code": None}
    return JSONResponse({"error": body}, status, headers=dict(headers or {}))
