"""Whether the relay lives, and whether it is well: what load balancers and operators ask, as of a server.

    GET /healthz   200 while the process answers
    GET /readyz    200 for `ready` and `degraded`, 503 for `stopping`

Invariant: nobody asks the service for this; how it does is known from the sessions that wanted to reach it. Reasons are
told to operators alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vivavoce.server.health import alive, answered, is_operator, log_trouble

from .relay import UPSTREAM, Relay


def health_routes(relay: Relay) -> list[Route]:
    """`/healthz` and `/readyz`."""

    async def ready(request: Request) -> Response:
        reasons = list(_reasons(relay))
        told: dict[str, Any] = {"status": "stopping" if relay.is_stopping else "degraded" if reasons else "ready"}
        if is_operator(relay.keys, request):
            told |= {"reasons": reasons, **_details(relay)}
        return answered(told)

    return [Route("/healthz", alive, methods=["GET"]), Route("/readyz", ready, methods=["GET"])]


def _reasons(relay: Relay) -> Iterator[str]:
    if relay.is_stopping:
        yield "the relay is stopping"
    failing = relay.health.failing.get(UPSTREAM)
    if failing is not None and failing.is_unwell:
        yield f"the service was not reached {failing.failures} times in a row, the last time with {failing.code}"
    if relay.places_left <= 0:
        yield "every place is taken, and new sessions are refused"
    yield from log_trouble(relay.log)


def _details(relay: Relay) -> dict[str, Any]:
    failing = relay.health.failing.get(UPSTREAM)
    return {
        "upstream": {
            "status": "degraded" if failing and failing.is_unwell else "ok",
            "failures_in_a_row": failing.failures if failing else 0,
            "last_error": failing.code if failing else None,
        },
        "sessions": {"live": len(relay), "places_left": relay.places_left},
    }
