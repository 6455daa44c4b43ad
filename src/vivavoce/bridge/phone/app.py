"""The phone as an ASGI app, alone or mounted in another: the webhook that answers a call, and the stream that follows.

    POST /incoming   Twilio's webhook: signature checked, answered with TwiML
    WS   /media      the stream of the call: ticket checked, carried by a session
    GET  /healthz    alive, and how many calls there are

Invariants: without the signature or the ticket nothing is answered or begun; beyond `calls_max` the line is busy.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from vivavoce.errors import ConnectionClosed, LocalProtocolError, RemoteProtocolError
from vivavoce.server.asgi import AsgiTransport

from .call import Call, PhoneOptions, carry
from .twilio import TICKET, is_signed, ticket_for, twiml

FORM_BYTES_MAX: Final = 64 * 1024
"""Largest webhook. Twilio's have 1 kB. Beyond it 413."""
FIELDS_MAX: Final = 200
"""Fields of a webhook. Beyond it 400."""
OPENINGS_MAX: Final = 256
"""Streams that have not said yet which call they are. One more is closed with 1013."""
BUSY: Final = '<?xml version="1.0" encoding="UTF-8"?><Response><Reject reason="busy"/></Response>'
SIGNATURE: Final = "x-twilio-signature"
TOLD: Final = {"From": "from", "To": "to", "Direction": "direction", "CallerName": "caller_name"}
"""What of a webhook becomes parameters of the call."""

log = logging.getLogger(__name__)


def create_phone_app(options: PhoneOptions) -> Starlette:
    """The app; `app.state.calls` are the calls that go on. Raises `LocalProtocolError` for a URL that is none."""
    phone = _Phone(options)
    app = Starlette(
        routes=[
            Route("/incoming", phone.incoming, methods=["POST"]),
            WebSocketRoute("/media", phone),
            Route("/healthz", phone.healthz, methods=["GET"]),
        ]
    )
    app.state.calls = phone.calls
    return app


class _Phone:
    def __init__(self, options: PhoneOptions) -> None:
        self._options = options
        self._public = _public(options.public_url)
        self.calls: set[Call] = set()
        self._openings = 0
        if not options.auth_token:
            log.warning("no auth token of Twilio's: anybody who finds this app can talk to it as a phone")

    async def healthz(self, request: Request) -> Response:
        """Alive."""
        return JSONResponse({"status": "alive", "calls": len(self.calls)})

    async def incoming(self, request: Request) -> Response:
        """A call has come, or one that we placed was answered."""
        body = await _body(request)
        if body is None:
            return PlainTextResponse(f"A webhook has at most {FORM_BYTES_MAX} bytes.", 413)
        try:
            form = parse_qsl(
                body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX, strict_parsing=bool(body)
            )
        except ValueError:
            return PlainTextResponse("Expected the form of a webhook, application/x-www-form-urlencoded.", 400)
        url = self._url(request)
        token = self._options.auth_token
        if token and not is_signed(token, url, form, request.headers.get(SIGNATURE, "")):
            log.warning("a webhook whose signature is not that of %s; is this the URL that Twilio calls?", url)
            return PlainTextResponse("This request is not signed by Twilio for this URL.", 403)
        told = dict(form)
        call_sid = told.get("CallSid", "")
        if not call_sid:
            return PlainTextResponse("CallSid: expected the SID of the call.", 400)
        if self._is_busy:
            log.warning("%s: the line is busy, %d calls go on", call_sid, len(self.calls))
            return Response(BUSY, media_type="text/xml")
        parameters = {ours: told[theirs] for theirs, ours in TOLD.items() if told.get(theirs)}
        if token:
            parameters[TICKET] = ticket_for(token, call_sid)
        stream = urlsplit(url)._replace(query="", scheme="ws" if url.startswith("http:") else "wss").geturl()
        return Response(twiml(stream.removesuffix("/incoming") + "/media", parameters), media_type="text/xml")

    def _url(self, request: Request) -> str:
        """The URL that Twilio has called, by which it signs."""
        query = f"?{request.url.query}" if request.url.query else ""
        if self._public is not None:
            return f"{self._public}/incoming{query}"
        scheme = request.headers.get("x-forwarded-proto", request.url.scheme).partition(",")[0].strip()
        host = request.headers.get("x-forwarded-host", request.headers.get("host", ""))
        return f"{scheme}://{host}{request.url.path}{query}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The stream of a call."""
        with suppress(ConnectionClosed):
            transport = await AsgiTransport(scope, receive, send).accept(None)
            if self._openings >= OPENINGS_MAX:
                await transport.close(1013, "too many streams are being opened")
                return
            self._openings += 1
            begun: list[Call] = []

            def admits(call_sid: str) -> bool:
                return not self._is_busy and all(call.sid != call_sid for call in self.calls)

            def began(call: Call) -> None:
                self._openings -= 1
                begun.append(call)
                self.calls.add(call)

            try:
                await carry(transport, self._options, admits=admits, began=began)
            except RemoteProtocolError as error:
                log.warning("a stream is refused: %s", error)
            finally:
                self._openings -= not begun
                self.calls.difference_update(begun)

    @property
    def _is_busy(self) -> bool:
        return len(self.calls) >= self._options.calls_max


def _public(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or "@" in parts.netloc:
        raise LocalProtocolError(f"public_url: expected https://HOST, with or without a path, not {url!r}")
    return url.rstrip("/").removesuffix("/incoming")


async def _body(request: Request) -> bytes | None:
    """The whole of it; None where it is too much."""
    body = b""
    with suppress(ClientDisconnect):
        async for chunk in request.stream():
            body += chunk
            if len(body) > FORM_BYTES_MAX:
                return None
    return body
