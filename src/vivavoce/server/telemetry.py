"""What happens on a server, for those who run it: metrics of all sessions, and the traces of each, where wanted.

Every session gets a `SessionTelemetry`, which is the `Watch` of its machine; it counts for Prometheus, and tells spans
to OpenTelemetry where that is installed. Invariant: nothing here holds text, audio or a key, and label values come from
the server's own settings and constants, never from a client.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median

from vivavoce.core.account import Tokens
from vivavoce.protocol.base import given
from vivavoce.protocol.events import ErrorDetail
from vivavoce.protocol.items import Response
from vivavoce.protocol.waterfall import Waterfall

from .metrics import Counter, Gauge, Histogram, Labels, exposition
from .tracing import SessionTrace, Tracing

STEP_BOUNDS_S = (0.05, 0.1, 0.2, 0.3, 0.45, 0.65, 1.0, 1.5, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram: the goals for an answer, and what lies around them."""

LOOK_S = 0.25
"""How often the event loop is asked how late it is."""
LOOKS_KEPT = 60
"""The worst of so many is told: 15 s, as far apart as two looks of Prometheus are by default."""

ERROR_TYPES = frozenset({"invalid_request_error", "server_error", "rate_limit_error", "authentication_error"})
"""The types of errors that are told apart."""

LATENCIES_KEPT = 64
"""Of so many answers of a session the median is told; the oldest is forgotten first."""

Told = Callable[[str, Response, Waterfall], None]


@dataclass(frozen=True, slots=True)
class About:
    """What telemetry may know of a session. `model` is the client's word, and no label."""

    session_id: str
    kind: str
    transport: str
    pipeline: str
    model: str


@dataclass(slots=True)
class Seen:
    """What has happened in one session, in numbers."""

    turns: int = 0
    responses: int = 0
    interruptions: int = 0
    failures: int = 0
    errors: int = 0
    last_error: str | None = None
    latencies_ms: list[int] = field(default_factory=list)
    """The last `LATENCIES_KEPT`."""

    @property
    def latency_last_ms(self) -> float | None:
        """From the end of the last turn, or the request, to the first audio of its answer."""
        return self.latencies_ms[-1] if self.latencies_ms else None

    @property
    def latency_median_ms(self) -> float | None:
        """Of those that are kept."""
        return median(self.latencies_ms) if self.latencies_ms else None

    def answered(self, status: str, waterfall: Waterfall) -> None:
        """A response is over."""
        self.responses += 1
        self.interruptions += status == "cancelled"
        self.failures += status == "failed"
        since = waterfall.requested_ms if waterfall.committed_ms is None else waterfall.committed_ms
        if waterfall.audio_ms and waterfall.first_sent_ms is not None and since is not None:
            self.latencies_ms.append(waterfall.first_sent_ms - since)
            del self.latencies_ms[:-LATENCIES_KEPT]


class Telemetry:
    """The metrics of one server. `tracing` None: there are no spans."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        self._tracing = tracing
        self._live: dict[SessionTelemetry, None] = {}
        self.listeners: list[Told] = []
        """Called with session id, response and waterfall of everything that is measured."""
        self.loop_delay = LoopDelay()
        where = ("kind", "transport")
        self.begun = Counter("vivavoce_sessions_total", "Sessions that began.", where)
        self.refused = Counter("vivavoce_sessions_refused_total", "Sessions that were refused.", ("code",))
        self.live = Gauge("vivavoce_sessions", "Sessions that live now.", where, self._live_now)
        self.responses = Counter("vivavoce_responses_total", "Responses that ended.", ("pipeline", "status"))
        self.interrupted = Counter(
            "vivavoce_interruptions_total", "Responses that were cut off while they ran.", ("pipeline", "reason")
        )
        self.errors = Counter("vivavoce_errors_total", "Errors that clients were told.", ("type",))
        self.tokens = Counter("vivavoce_tokens_total", "Tokens of responses.", ("pipeline", "content", "direction"))
        self.audio = Counter("vivavoce_audio_seconds_total", "Audio of sessions.", ("direction",))
        self.steps = Histogram(
            "vivavoce_step_seconds",
            "When a step of a response was reached, from the end of the user's turn.",
            ("pipeline", "counted_from", "step"),
            STEP_BOUNDS_S,
        )
        self.delay = Gauge(
            "vivavoce_loop_delay_seconds", "How late the event loop was, at worst in 15 s.", (), self.loop_delay.read
        )
        self.families: list[Counter | Gauge | Histogram] = [
            self.begun,
            self.refused,
            self.live,
            self.responses,
            self.interrupted,
            self.errors,
            self.tokens,
            self.audio,
            self.steps,
            self.delay,
        ]
        self._observe(self.families)

    def add(self, *gauges: Gauge) -> None:
        """Tell these too: what the server knows and sessions do not."""
        self.families += gauges
        self._observe(gauges)

    def _observe(self, families: Iterable[Counter | Gauge | Histogram]) -> None:
        if self._tracing is not None:  # which has the histogram already, by the conventions
            self._tracing.observe([family for family in families if not isinstance(family, Histogram)])

    def session(self, about: About) -> SessionTelemetry:
        """The watch of one session."""
        trace = None if self._tracing is None else self._tracing.session(about.session_id, about.model, about.pipeline)
        return SessionTelemetry(self, about, trace)

    def text(self) -> str:
        """All metrics, as Prometheus reads them."""
        for session in self._live:
            session.count_heard()
        return exposition(self.families)

    def _live_now(self) -> Mapping[Labels, float]:
        return Tally((session.about.kind, session.about.transport) for session in tuple(self._live))

    def begins(self, session: SessionTelemetry) -> None:
        """A session begins to live."""
        self._live[session] = None
        self.begun.add(1, session.about.kind, session.about.transport)

    def ends(self, session: SessionTelemetry) -> None:
        """It lives no more."""
        self._live.pop(session, None)


class SessionTelemetry:
    """The watch of one session; `begin` when it lives, `end` when it does so no more."""

    def __init__(self, telemetry: Telemetry, about: About, trace: SessionTrace | None) -> None:
        self.about = about
        self.seen = Seen()
        self._all = telemetry
        self._heard_ms: Callable[[], int] = lambda: 0
        self._counted_ms = 0
        self._trace = trace

    def begin(self, unix_ns: int, heard_ms: Callable[[], int]) -> None:
        """The session opens now. `heard_ms` says how much audio has come from its client."""
        self._heard_ms = heard_ms
        self._all.begins(self)
        if self._trace is not None:
            self._trace.begin(unix_ns)

    def end(self, unix_ns: int) -> None:
        """It has ended."""
        self.count_heard()
        self._all.ends(self)
        if self._trace is not None:
            self._trace.end(unix_ns)

    def count_heard(self) -> None:
        """Count the audio that has come since the last time."""
        heard_ms = self._heard_ms()
        self._all.audio.add((heard_ms - self._counted_ms) / 1000, "in")
        self._counted_ms = heard_ms

    def committed(self) -> None:
        """A turn of the user was committed."""
        self.seen.turns += 1

    def erred(self, error: ErrorDetail) -> None:
        """The client was told an error."""
        self.seen.errors += 1
        self.seen.last_error = given(error.code, None) or error.type
        self._all.errors.add(1, error.type if error.type in ERROR_TYPES else "other")

    def measured(self, response: Response, waterfall: Waterfall) -> None:
        """A response is over."""
        count, pipeline, status = self._all, self.about.pipeline, given(response.status, "completed")
        self.seen.answered(status, waterfall)
        self.count_heard()
        count.responses.add(1, pipeline, status)
        details = given(response.status_details, None)
        if status == "cancelled" and details is not None:
            count.interrupted.add(1, pipeline, given(details.reason, "unknown"))
        usage = given(response.usage, None)
        if usage is not None:
            for name, number in asdict(Tokens.of(usage)).items():
                if number:
                    count.tokens.add(number, pipeline, *name.split("_"))
        count.audio.add(waterfall.audio_ms / 1000, "out")
        for step, ms in waterfall.steps.items():
            count.steps.observe(ms / 1000, pipeline, waterfall.counted_from, step)
        if self._trace is not None:
            self._trace.measured(response, waterfall)
        for listener in count.listeners:
            listener(self.about.session_id, response, waterfall)


class LoopDelay:
    """How late the event loop runs what is due: every session of the server waits for whatever blocks it."""

    def __init__(self) -> None:
        self._seen_s: deque[float] = deque(maxlen=LOOKS_KEPT)

    async def run(self, clock: Callable[[], float] | None = None) -> None:
        """Look again and again, until cancelled. `clock` is in s; without one it is the loop's own."""
        clock = clock or asyncio.get_running_loop().time
        while True:
            due = clock() + LOOK_S
            await asyncio.sleep(LOOK_S)
            self._seen_s.append(max(clock() - due, 0.0))

    def read(self) -> Mapping[Labels, float]:
        """The worst of the last looks; nothing where nobody looks."""
        seen_s = tuple(self._seen_s)
        return {(): max(seen_s)} if seen_s else {}
