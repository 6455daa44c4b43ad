"""A relayed session as operators see it: what passed is not read for it, so what only the service knows is left empty.

Invariant: what is said of it is what the relay counts anyway; no message is looked at for the sake of a record.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from vivavoce.server.records import SessionRecord, Status

from .gate import Passenger
from .passage import Passage


@dataclass(slots=True, eq=False)
class RelayedSession:
    """A session that passes, and all that is known of it."""

    passage: Passage
    passenger: Passenger
    server: str
    began_at: float
    over: asyncio.Future[SessionRecord]
    """Its last record, once it has ended."""
    revision: int = 0

    def record(self, now: float, status: Status = "live") -> SessionRecord:
        """How it stands at unix second `now`."""
        self.revision += 1
        admitted, spending = self.passenger.admitted, self.passage.spending
        is_over = status != "live"
        return SessionRecord(
            id=self.passage.id,
            status=status,
            server=self.server,
            kind=admitted.kind,
            model=admitted.model,
            dialect=self.passenger.dialect,
            transport="relay",
            key=admitted.key_id or None,
            safety_identifier=admitted.safety_identifier,
            began_at=self.began_at,
            seen_at=now,
            ended_at=now if is_over else None,
            reason=self.passage.ended_by if is_over else None,
            age_s=round(now - self.began_at, 3),
            responses=spending.responses,
            input_tokens=spending.input_tokens,
            output_tokens=spending.output_tokens,
            cost=spending.cost if spending.price else None,
            revision=self.revision,
        )
