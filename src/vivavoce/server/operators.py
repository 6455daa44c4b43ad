"""The HTTP endpoints for operators: what runs and what has run, closing a session, metrics.

    GET    /v1/realtime/sessions         what lives here; with `status`, what the log knows
    GET    /v1/realtime/sessions/{id}    one of them, living or over
    DELETE /v1/realtime/sessions/{id}    close it, and say how it ended
    GET    /metrics                      for Prometheus

Thin: `sessions`, `session_log` and `telemetry` do the work. Invariants: who is no operator learns nothing, not even
whether there is such a session; a page of the list has a limit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING, Literal, Protocol, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .auth import REQUEST, Asked, Keys, Refusal
from .metrics import TYPE
from .records import STATUSES, EndedLately, SessionRecord, Status, Wanted, shown
from .rest import refused
from .sessions import Sessions, log_refusal

if TYPE_CHECKING:
    from .session_log import SessionLog

LIST = "/v1/realtime/sessions"
ONE = LIST + "/{session_id}"
METRICS = "/metrics"

LISTED_MAX = 1_000
"""Sessions of one page of the list."""
LISTED = 100
"""Those of one whose size is not said."""
EVERY = "all"
PARAMETERS = ("status", "key", "since", "limit", "after", "api-key")
"""What the list may be asked with; the last one is for who has no other place for a key."""

FRESH = {"Cache-Control": "no-store"}


class House(Protocol):
    """What has sessions: a server, or a relay."""

    @property
    def keys(self) -> Keys:
        """Whose keys are those of operators."""
        ...

    @property
    def log(self) -> SessionLog | None:
        """Where sessions are that have ended."""
        ...

    @property
    def ended(self) -> EndedLately:
        """Where those were that live no more."""
        ...

    def listed(self) -> list[SessionRecord]:
        """Those that live."""
        ...

    def listed_one(self, session_id: str) -> SessionRecord | None:
        """The one with this id, where it lives."""
        ...

    async def expel(self, session_id: str) -> SessionRecord | None:
        """End it. None: no such session lives."""
        ...


Answer = Callable[[Request, Asked], Awaitable[Response]]


def operator_routes(sessions: House) -> list[Route]:
    """The list of sessions, each of them, and how to close one."""
    routes = _Routes(sessions)
    return [
        Route(LIST, _for_operators(sessions, routes.listed), methods=["GET"]),
        Route(ONE, _for_operators(sessions, routes.one), methods=["GET"]),
        Route(ONE, _for_operators(sessions, routes.close), methods=["DELETE"]),
    ]


def metrics_routes(sessions: Sessions, readers: Literal["operators", "everybody", "off"]) -> list[Route]:
    """What Prometheus reads, for whom the settings say; nothing where that is nobody."""

    async def metrics(request: Request, asked: Asked) -> Response:
        return Response(sessions.telemetry.text(), media_type=TYPE, headers=FRESH)

    async def everybody(request: Request) -> Response:
        return await metrics(request, Asked.of("openai", request.scope))

    endpoint = everybody if readers == "everybody" else _for_operators(sessions, metrics)
    return [] if readers == "off" else [Route(METRICS, endpoint, methods=["GET"])]


def _for_operators(sessions: House, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        asked = Asked.of("openai", request.scope)
        try:
            sessions.keys.check_operator(asked)
            return await answer(request, asked)
        except Refusal as refusal:
            log_refusal(asked, refusal)
            return refused(refusal)

    return endpoint


class _Routes:
    def __init__(self, sessions: House) -> None:
        self._sessions = sessions

    async def listed(self, request: Request, asked: Asked) -> Response:
        """A page of sessions, the latest first."""
        wanted = _wanted(asked.query)
        one_more = replace(wanted, limit=wanted.limit + 1)
        if wanted.status == "live":
            found = one_more.of(self._sessions.listed(), self._sessions.ended)
        else:
            found = await self._log().read(one_more)
        page = [shown(record) for record in found[: wanted.limit]]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        body = {"object": "list", "data": page, **ends, "has_more": len(found) > wanted.limit}
        return JSONResponse(body, headers=FRESH)

    async def one(self, request: Request, asked: Asked) -> Response:
        """One session, by its id."""
        session_id = request.path_params["session_id"]
        record = self._sessions.listed_one(session_id)
        if record is None and self._sessions.log is not None:
            record = await self._sessions.log.find(session_id)
        if record is None:
            raise _not_found(session_id)
        return JSONResponse(shown(record), headers=FRESH)

    async def close(self, request: Request, asked: Asked) -> Response:
        """End one session now; 202 where it has not quite ended yet."""
        session_id = request.path_params["session_id"]
        record = await self._sessions.expel(session_id)
        if record is None:
            raise _not_found(session_id)
        return JSONResponse(shown(record), 202 if record.status == "live" else 200, headers=FRESH)

    def _log(self) -> SessionLog:
        if self._sessions.log is None:
            message = "This server keeps no log of its sessions; the setting 'session_log' says where to keep one."
            raise Refusal(REQUEST, "no_session_log", message, param="status", status=404)
        return self._sessions.log


def _not_found(session_id: str) -> Refusal:
    message = f"There is no session {session_id[:64]!r} here; it may be over."
    return Refusal(REQUEST, "session_not_found", message, status=404)


def _wanted(query: Mapping[str, str]) -> Wanted:
    """What the query asks for. Raises `Refusal`."""
    for name in query:
        if name not in PARAMETERS:
            raise _invalid(name, f"Unknown parameter: {name[:64]!r}. There is {', '.join(PARAMETERS)}.")
    status = query.get("status", "live")
    if status != EVERY and status not in STATUSES:
        raise _invalid("status", f"Invalid value: {status[:64]!r}. Expected {', '.join(STATUSES)} or {EVERY}.")
    since = query.get("since")
    return Wanted(
        limit=_limit(query.get("limit", str(LISTED))),
        status=None if status == EVERY else cast(Status, status),
        key=query.get("key"),
        since=None if since is None else _moment(since),
        after=query.get("after"),
    )


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= LISTED_MAX:
        raise _invalid("limit", f"Invalid value: {text[:64]!r}. Expected a number from 1 to {LISTED_MAX}.")
    return int(text)


def _moment(text: str) -> float:
    """Unix seconds, or a date and time as ISO 8601 has it, in UTC where it says no other."""
    with suppress(ValueError):
        if isfinite(seconds := float(text)):
            return seconds
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign in a URL means a space
    except ValueError:
        expected = "Expected unix seconds, or ISO 8601 as in 2026-01-31T12:00:00Z."
        raise _invalid("since", f"Invalid value: {text[:64]!r}. {expected}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _invalid(param: str, message: str) -> Refusal:
    return Refusal(REQUEST, "invalid_value", message, param=param)
