"""One session as operators see it: in the list of those that live, in the log of those that have ended, in log lines.

The same flat record everywhere, so that a name means one thing in the API, in the database and in a line of the log.
Invariant: counters, names, times and reasons; no word that was said, no audio, and no key but its id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import msgspec

from vivavoce.core.session import Session
from vivavoce.core.translating import Translating

from .admission import Admitted
from .runtime import Runtime
from .telemetry import SessionTelemetry

Status = Literal["live", "ended", "interrupted"]
STATUSES: tuple[Status, ...] = get_args(Status)

ENDED_MAX = 1_000
"""Sessions of which it is known where they were in the list. Behind one that ended before those, a page is empty."""


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One session. Times are unix seconds. None: not yet, or what a relay cannot know, which reads no messages."""

    id: str
    status: Status
    """`interrupted`: its server ended without a word of it; `seen_at` is the last that is known."""
    server: str
    """Which server it ran on, where several write into one log."""
    kind: str
    model: str
    """The client's word."""
    pipeline: str | None = None
    dialect: str
    transport: str
    call_id: str | None = None
    key: str | None = None
    """The id of the key that began it: the first 16 hex digits of its SHA-256. None where the server has no keys."""
    safety_identifier: str | None = None
    began_at: float
    seen_at: float
    """When this record was made."""
    active_at: float | None = None
    """When client or engines last said something."""
    ended_at: float | None = None
    reason: str | None = None
    """Why it ended, with the close code."""
    age_s: float
    state: str | None = None
    """`hearing`, `answering`, `speaking`, `idle`, `interpreting`; `over` once it has ended."""
    turns: int | None = None
    """Stretches of the user's speech that were committed."""
    responses: int
    """That have ended, however."""
    interruptions: int | None = None
    """Responses that were cut off."""
    failures: int | None = None
    """Responses that failed."""
    response: str | None = None
    """The one that runs."""
    input_tokens: int
    output_tokens: int
    cost: float | None = None
    """In US dollars, where the model has a price."""
    audio_in_s: float | None = None
    audio_out_s: float | None = None
    errors: int | None = None
    """That the client was told."""
    last_error: str | None = None
    """The code of the last one."""
    latency_last_ms: float | None = None
    """From the end of the user's turn, or the request, to the first audio that was sent."""
    latency_median_ms: float | None = None
    """Of the last so many."""
    waiting_inputs: int | None = None
    waiting_messages: int | None = None
    """What has come and is not handled; what is to be sent."""
    revision: int = 0
    """Which of the records that were made of the session, for the log or for who asked: a later one has a higher."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sessions are asked for, the latest first. None stands for any."""

    limit: int
    status: Status | None = None
    key: str | None = None
    since: float | None = None
    """Begun at this unix second or later."""
    after: str | None = None
    """The id of the last one that is known already."""

    def of(self, records: Iterable[SessionRecord], ended: EndedLately) -> list[SessionRecord]:
        """Those of all records that are asked for; behind the last known one also where that has `ended` meanwhile."""
        found = sorted(filter(self._fits, records), key=_place, reverse=True)
        if self.after is not None:
            places = {one.id: _place(one) for one in found}
            last = places.get(self.after) or ended.place(self.after)
            found = [one for one in found if last is not None and _place(one) < last]
        return found[: self.limit]

    def _fits(self, record: SessionRecord) -> bool:
        return (
            self.status in (None, record.status)
            and self.key in (None, record.key)
            and (self.since is None or record.began_at >= self.since)
        )


Place = tuple[float, str]
"""Where a session is in the list, whose latest comes first."""


def _place(record: SessionRecord) -> Place:
    return record.began_at, record.id


class EndedLately:
    """Where the sessions were in the list that have left it: who reads it page by page goes on behind one of them."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}

    def add(self, record: SessionRecord) -> None:
        """It has ended. Of more than `ENDED_MAX` the first is forgotten."""
        self._places[record.id] = _place(record)
        if len(self._places) > ENDED_MAX:
            del self._places[next(iter(self._places))]

    def place(self, session_id: str) -> Place | None:
        """None: no such session has ended lately."""
        return self._places.get(session_id)


@dataclass(slots=True, eq=False)
class LiveSession:
    """A session that runs, and all that is known of it."""

    runtime: Runtime
    admitted: Admitted
    watch: SessionTelemetry
    server: str
    began_at: float
    over: asyncio.Future[SessionRecord]
    """Its last record, once it has ended."""
    revision: int = 0

    def record(self, now: float, status: Status = "live") -> SessionRecord:
        """How it stands at unix second `now`."""
        self.revision += 1
        runtime, admitted, about, seen = self.runtime, self.admitted, self.watch.about, self.watch.seen
        machine, (inputs, messages) = runtime.session, runtime.waiting
        sound = machine if isinstance(machine, Session | Translating) else None
        bill = machine.bill if isinstance(machine, Session) else None
        is_over = status != "live"
        return SessionRecord(
            id=runtime.session_id,
            status=status,
            server=self.server,
            kind=admitted.kind,
            model=admitted.model,
            pipeline=about.pipeline,
            dialect=admitted.dialect,
            transport=about.transport,
            call_id=admitted.call_id,
            key=admitted.key_id or None,
            safety_identifier=admitted.safety_identifier,
            began_at=self.began_at,
            seen_at=now,
            active_at=now - runtime.quiet_s,
            ended_at=now if is_over else None,
            reason=(runtime.ended or "the client is gone") if is_over else None,
            age_s=round(runtime.lasted_s, 3),
            state="over" if is_over else (machine.state if isinstance(machine, Session) else "interpreting"),
            turns=seen.turns,
            responses=seen.responses,
            interruptions=seen.interruptions,
            failures=seen.failures,
            response=machine.responding if isinstance(machine, Session) and not is_over else None,
            input_tokens=bill.input_tokens if bill else 0,
            output_tokens=bill.output_tokens if bill else 0,
            cost=bill.cost if bill and bill.price else None,
            audio_in_s=sound.heard_ms / 1000 if sound else 0.0,
            audio_out_s=sound.spoken_ms / 1000 if sound else 0.0,
            errors=seen.errors,
            last_error=seen.last_error,
            latency_last_ms=seen.latency_last_ms,
            latency_median_ms=seen.latency_median_ms,
            waiting_inputs=0 if is_over else inputs,
            waiting_messages=0 if is_over else messages,
            revision=self.revision,
        )


def shown(record: SessionRecord) -> dict[str, object]:
    """As the API tells it."""
    return {"object": "realtime.session", **msgspec.structs.asdict(record)}
