"""How a session begins that is configured here: by a short-lived key, or with tools that the relay answers.

The service is told before the client can say anything; its `session.created` is held back until it has taken that, and
says then what is in force. Invariant: a client never sees, nor changes before, a session without its configuration.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import msgspec

from vivavoce.protocol import config
from vivavoce.protocol import events as ev
from vivavoce.protocol.client_codec import has_temperature
from vivavoce.protocol.wire import write
from vivavoce.server.auth import REQUEST
from vivavoce.server.client_secrets import Configured
from vivavoce.server.ids import ids

from .inspection import warning
from .policy import NONE, Json, Verdict, Visit


class Opening:
    """The beginning of one session; a policy that wants nothing any more when it has begun."""

    client_types: Set[str] = NONE
    server_types: Set[str] = frozenset({"session.created", "session.updated", "error"})

    def __init__(self, visit: Visit, configured: Configured | None, tools: Sequence[config.FunctionTool]) -> None:
        self._visit = visit
        self._event_id = ids()("relay")
        self._is_done = False
        self._left_out: list[Json] = []
        update: Json = {"type": "session.update", "session": {"type": "realtime"}}
        if configured is not None:
            if has_temperature(ev.SessionUpdate(session=configured)):  # type: ignore[arg-type]
                left_out = warning("session.temperature", "short-lived keys carry GA's settings only")
                self._left_out = [{**left_out, "event_id": ids()("event")}]
            # That a translation's configuration is no other kind's does not matter to who writes it.
            update = msgspec.json.decode(write(ev.SessionUpdate(session=configured)))  # type: ignore[arg-type]
        if tools:
            update["session"]["tools"] = [*update["session"].get("tools", ()), *map(msgspec.to_builtins, tools)]
        visit.to_service({**update, "event_id": self._event_id})

    def client_said(self, event: Json) -> Verdict:
        """It looks at none."""
        return None

    def server_said(self, event: Json) -> Verdict:
        """Hold `session.created` back until the service has answered."""
        if self._is_done:
            return None
        if event["type"] == "session.created":
            return []
        if event["type"] == "session.updated":
            self._is_done = True
            return [{**event, "type": "session.created"}, *self._left_out]
        if event["error"].get("event_id") != self._event_id:
            return None
        self._is_done = True
        self._visit.to_client({**event, "error": {**event["error"], "event_id": None}})
        self._visit.end(REQUEST, "The service did not take the session's configuration.")
        return []
