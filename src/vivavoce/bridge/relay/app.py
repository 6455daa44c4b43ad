"""The relay as an ASGI app: HTTP endpoints of its own, and its WebSockets under any ASGI server.

`create_app` is what another app mounts; `serving` serves it behind our own door, which gives the client's socket away,
so that nothing stands between two sockets but a `Passage`. Another ASGI server lends messages, which cost more.
Invariants: a handshake is answered when the service has answered its own; no answer holds a key but the short-lived one
that was asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from vivavoce.client.tools import Tool
from vivavoce.errors import ConnectionClosed
from vivavoce.protocol.codec import ServerCodec
from vivavoce.protocol.events import ErrorEvent
from vivavoce.server.app import LOOPBACK_ORIGIN, PATHS, no_such_endpoint, upgrade_required
from vivavoce.server.asgi import AsgiTransport
from vivavoce.server.auth import Asked, Refusal, Surface, plain_origin
from vivavoce.server.ids import ids
from vivavoce.server.metrics import TYPE
from vivavoce.server.operators import METRICS, operator_routes
from vivavoce.server.rest import key_routes, refused
from vivavoce.server.sessions import log_refusal

from .health import health_routes
from .legs import SocketLeg, TransportLeg
from .policy import PolicyFactory
from .relay import Relay
from .settings import RelaySettings


def create_app(
    settings: RelaySettings, *, policies: Sequence[PolicyFactory] = (), tools: Sequence[Tool] = ()
) -> Starlette:
    """The relay as an ASGI app; `app.state.relay` is the `Relay`. Raises `SettingsError`.

    Mounted in another app, `lifespan` of this module may be run by that one, so that sessions end with it.
    """
    return app_of(Relay(settings, policies=policies, tools=tools))


def app_of(relay: Relay) -> Starlette:
    """The app of a relay."""
    settings = relay.settings
    cors = Middleware(
        CORSMiddleware,
        allow_origins=[plain_origin(origin) for origin in settings.origins],
        allow_origin_regex=LOOPBACK_ORIGIN,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
    )
    app = Starlette(
        routes=[
            *(WebSocketRoute(path, _Sockets(surface, relay)) for path, surface in PATHS.items()),
            WebSocketRoute("/{path:path}", no_such_endpoint),
            *(Route(path, upgrade_required, methods=["GET"]) for path in PATHS),
            *key_routes(relay.mint, bytes_max=settings.request_bytes_max),
            *operator_routes(relay),
            Route(METRICS, _metrics, methods=["GET"]),
            *health_routes(relay),
        ],
        lifespan=lifespan,
        middleware=[cors],
        exception_handlers={HTTPException: _http_error},
    )
    app.state.relay = relay
    return app


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """End all sessions at the end."""
    app.state.relay.open_log()
    try:
        yield
    finally:
        await app.state.relay.drain()


class _Sockets:
    """The WebSocket endpoint of one path."""

    def __init__(self, surface: Surface, relay: Relay) -> None:
        self._surface = surface
        self._relay = relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked, asgi = Asked.of(self._surface, scope), AsgiTransport(scope, receive, send)
        client = scope.get("client")
        with suppress(ConnectionClosed), asgi.attending():
            try:
                async with self._relay.opened(asked, client[0] if client else "") as opened:
                    await self._relay.carry(opened, await self._leg(asgi, asked.subprotocol))
            except Refusal as refusal:
                await self._refuse(asked, asgi, refusal)

    async def _leg(self, asgi: AsgiTransport, subprotocol: str | None) -> SocketLeg | TransportLeg:
        """The client's, whose handshake is completed."""
        if not asgi.can_give:
            return TransportLeg(await asgi.accept(subprotocol))
        leg = SocketLeg(self._relay.settings.message_bytes_max)
        await asgi.give(leg, subprotocol)
        return leg

    async def _refuse(self, asked: Asked, asgi: AsgiTransport, refusal: Refusal) -> None:
        """With a status where that is wanted, or where it is the service's own; else with an event and a close."""
        log_refusal(asked, refusal)
        is_by_status = refusal.__cause__ is not None or self._relay.settings.refusals == "http"
        if is_by_status and asgi.can_deny:
            await asgi.deny(refusal.status, refusal.body, refusal.headers)
            return
        client = await asgi.accept(asked.subprotocol)
        told = ServerCodec(asked.dialect).encode(ErrorEvent(event_id=ids()("event"), error=refusal.detail))
        if told is not None:
            await client.send(told)
        await client.close(refusal.close.code, refusal.close.reason)


async def _metrics(request: Request) -> Response:
    """For operators."""
    relay: Relay = request.app.state.relay
    asked = Asked.of("openai", request.scope)
    try:
        relay.gate.keys.check_operator(asked)
    except Refusal as refusal:
        log_refusal(asked, refusal)
        return refused(refusal)
    return Response(relay.metrics(), media_type=TYPE, headers={"Cache-Control": "no-store"})


async def _http_error(request: Request, error: Exception) -> Response:
    """Every HTTP error in the API's own shape (reference §1.9)."""
    assert isinstance(error, HTTPException)
    body = {"message": error.detail, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": body}, error.status_code, headers=dict(error.headers or {}))
