"""Whether the server lives, and whether it is well: what load balancers and operators ask.

    GET /healthz   200 while the process answers
    GET /readyz    200 for `ready` and `degraded`, 503 for `loading`, `failed` and `stopping`

What is degraded still serves: a server that is taken out for an engine that fails would never be asked again, and so
never be well again. Invariant: reasons and engines are told to operators alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .auth import Asked, Keys, Refusal
from .pipelines import Pipelines
from .sessions import Sessions

if TYPE_CHECKING:
    from .session_log import SessionLog

CALLS_PER_CORE_MAX = 8
"""More calls than that, waiting for a core, and answers are late."""

SERVES = frozenset({"ready", "degraded"})


def health_routes(sessions: Sessions, pipelines: Pipelines) -> list[Route]:
    """`/healthz` and `/readyz`."""

    async def ready(request: Request) -> Response:
        status, reasons = state_of(sessions, pipelines)
        told: dict[str, Any] = {"status": status}
        if status in ("loading", "failed"):
            told["loading"] = pipelines.loading
        if is_operator(sessions.keys, request):
            told |= {"reasons": reasons, **details_of(sessions, pipelines)}
        return answered(told)

    return [Route("/healthz", alive, methods=["GET"]), Route("/readyz", ready, methods=["GET"])]


async def alive(request: Request) -> Response:
    """`/healthz`, of whatever process."""
    return JSONResponse({"status": "alive"})


def answered(told: Mapping[str, Any]) -> Response:
    """The answer of `/readyz`, by its `status`."""
    return JSONResponse(told, 200 if told["status"] in SERVES else 503, headers={"Cache-Control": "no-store"})


def is_operator(keys: Keys, request: Request) -> bool:
    """Whether who asks may know the reasons."""
    try:
        keys.check_operator(Asked.of("openai", request.scope))
    except Refusal:
        return False
    return True


def state_of(sessions: Sessions, pipelines: Pipelines) -> tuple[str, list[str]]:
    """In a word, and why."""
    if sessions.is_stopping:
        return "stopping", ["the server is stopping"]
    if pipelines.failure is not None:
        return "failed", [f"{pipelines.loading[0]} could not be loaded"]
    if pipelines.loading:
        return "loading", [f"{name} is being loaded" for name in pipelines.loading]
    reasons = list(_troubles(sessions, pipelines))
    return ("degraded" if reasons else "ready"), reasons


def _troubles(sessions: Sessions, pipelines: Pipelines) -> Iterator[str]:
    for name, failing in pipelines.failing.items():
        if failing.is_unwell:
            yield f"{name} has failed {failing.failures} times in a row, the last time with {failing.code}"
    cores = pipelines.cores
    if cores is not None and cores.waiting > CALLS_PER_CORE_MAX * cores.count:
        yield f"{cores.waiting} calls of engines wait for a core"
    if sessions.places_left <= 0:
        yield "every place is taken, and new sessions are refused"
    yield from log_trouble(sessions.log)


def log_trouble(log: SessionLog | None) -> Iterator[str]:
    """Why the log of sessions, where there is one, is not written."""
    if log is not None and log.failure is not None:
        yield f"the log of sessions cannot be written: {log.failure}"


def details_of(sessions: Sessions, pipelines: Pipelines) -> dict[str, Any]:
    """Engines, cores and sessions in numbers."""
    failing = pipelines.failing
    engines = {}
    for name in pipelines.roles:
        one = failing.get(name)
        engines[name] = {
            "status": "loading" if name in pipelines.loading else "degraded" if one and one.is_unwell else "ok",
            "failures_in_a_row": one.failures if one else 0,
            "last_error": one.code if one else None,
        }
    cores = pipelines.cores
    return {
        "engines": engines,
        "cores": None if cores is None else {"count": cores.count, "waiting": cores.waiting},
        "sessions": {"live": len(sessions), "places_left": sessions.places_left},
    }
