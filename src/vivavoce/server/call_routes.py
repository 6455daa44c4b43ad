"""The HTTP endpoints of calls: an SDP offer in, an SDP answer out, and what else can be done to a call (§1.9.5–1.9.7).

Thin: `calls` does the work. An offer comes as it is, with a short-lived key that says what the session will be, or as a
form with a part `sdp` and a part `session`. Invariant: who may not ask is not listened to, and no body is larger than
the settings say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .auth import REQUEST, Asked, Refusal, Surface
from .calls import Call, Calls
from .client_secrets import Configured
from .minting import Mint
from .rest import PREFIXES, body_of, refused
from .sessions import Sessions, log_refusal

SDP = "application/sdp"
FORM = "multipart/form-data"
PARTS_MAX = 8
"""Parts of a form."""

Answer = Callable[[Request, Asked], Awaitable[Response]]


def call_routes(calls: Calls, mint: Mint, sessions: Sessions, *, bytes_max: int) -> list[Route]:
    """The routes of all endpoints of calls; bodies above `bytes_max` are refused."""
    routes = _Routes(calls, mint, sessions, bytes_max)
    made: list[Route] = [Route("/v1/realtime", _endpoint("openai", routes.begin_beta), methods=["POST"])]
    for prefix, surface in PREFIXES.items():
        made.append(Route(f"{prefix}/calls", _endpoint(surface, routes.begin), methods=["POST"]))
        made.append(Route(f"{prefix}/calls/{{call_id}}/hangup", _endpoint(surface, routes.hang_up), methods=["POST"]))
        made += [
            Route(f"{prefix}/calls/{{call_id}}/{name}", _endpoint(surface, routes.only_sip(name)), methods=["POST"])
            for name in ("accept", "reject", "refer")
        ]
    return made


def _endpoint(surface: Surface, answer: Answer) -> Callable[[Request], object]:
    async def endpoint(request: Request) -> Response:
        asked = Asked.of(surface, request.scope)
        try:
            return await answer(request, asked)
        except Refusal as refusal:
            log_refusal(asked, refusal)
            return refused(refusal)

    return endpoint


class _Routes:
    def __init__(self, calls: Calls, mint: Mint, sessions: Sessions, bytes_max: int) -> None:
        self._calls = calls
        self._mint = mint
        self._sessions = sessions
        self._bytes_max = bytes_max

    async def begin_beta(self, request: Request, asked: Asked) -> Response:
        """`POST /v1/realtime?model=…` (§1.9.6)."""
        return await self.begin(request, dataclasses.replace(asked, query={"dialect": "beta", **asked.query}))

    async def begin(self, request: Request, asked: Asked) -> Response:
        """`POST /v1/realtime/calls` (§1.9.5)."""
        credential = self._sessions.keys.check(asked)  # before the body: who may not ask, need not be listened to
        offer, session = await self._offer(request)
        configured: Configured | None = None
        if session is not None:
            kind, model, configured = self._mint.wanted(asked, credential, session)
            said = {"model": asked.model or model, "intent": "transcription" if kind == "transcription" else None}
            query = {**asked.query, **{name: value for name, value in said.items() if value is not None}}
            asked = dataclasses.replace(asked, query=query)
        host = request.client.host if request.client else ""
        call_id, answer = await self._calls.begin(asked, offer, configured, client_host=host)
        prefix = "/openai/v1/realtime" if asked.surface == "azure" else "/v1/realtime"
        return Response(answer, 201, media_type=SDP, headers={"Location": f"{prefix}/calls/{call_id}"})

    async def hang_up(self, request: Request, asked: Asked) -> Response:
        """`POST /v1/realtime/calls/{call_id}/hangup` (§1.9.7)."""
        self._found(request, asked).hang_up(1000, "The call was hung up.")
        return Response(status_code=200)

    def only_sip(self, name: str) -> Answer:
        """What can be done to calls by telephone alone (§1.9.7)."""

        async def answer(request: Request, asked: Asked) -> Response:
            call = self._found(request, asked)
            message = f"{name!r} is for calls by SIP; {call.id!r} is one by WebRTC, and runs already. 'hangup' ends it."
            raise Refusal(REQUEST, "not_a_sip_call", message)

        return answer

    def _found(self, request: Request, asked: Asked) -> Call:
        return self._calls.find(request.path_params["call_id"], self._sessions.keys.check(asked))

    async def _offer(self, request: Request) -> tuple[str, str | None]:
        """The offer, and the session as JSON where one came along. Raises `Refusal`."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in (SDP, FORM):
            message = f"Expected a body of type '{SDP}', or '{FORM}' with a part 'sdp', not {kind!r}."
            raise Refusal(REQUEST, "invalid_content_type", message, status=415)
        body = await body_of(request, self._bytes_max)
        if kind == SDP:
            return _text(body, "body"), None
        parts = await _parts(request.headers, body)
        if "sdp" not in parts:
            raise Refusal(REQUEST, "missing_required_parameter", "Missing required parameter: 'sdp'.", param="sdp")
        return parts["sdp"], parts.get("session")


async def _parts(headers: Headers, body: bytes) -> Mapping[str, str]:
    """The parts of a form by name, whatever their type; browsers send text, others files. Raises `Refusal`."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        headers, stream(), max_files=PARTS_MAX, max_fields=PARTS_MAX, max_part_size=max(len(body), 1)
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        said = error.message if isinstance(error, MultiPartException) else "it cannot be read"
        raise Refusal(REQUEST, "invalid_form", f"The body is no form: {said}.") from None
    try:
        return {
            name: _text(await part.read(), name) if isinstance(part, UploadFile) else part
            for name, part in form.multi_items()
        }
    finally:
        await form.close()


def _text(body: bytes, what: str) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Refusal(REQUEST, "invalid_offer", f"The {what} is not UTF-8.") from None
