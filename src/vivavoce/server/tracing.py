"""Sessions and responses as OpenTelemetry tells them: spans and metrics, by the conventions for generative AI.

Needs `opentelemetry-api` (extra `otel`), and tells nobody anything before the program, or `opentelemetry-instrument`,
has set up where it goes. A session is a span, each response a child of it, made when it is over out of its waterfall.
Invariant: no text, no audio, no key; only ids, names, counts and times.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vivavoce.protocol.base import given
from vivavoce.protocol.items import FunctionCall, Response, ResponseError, StatusDetails
from vivavoce.protocol.waterfall import Waterfall

from .metrics import Counter, Gauge

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, Tracer, TracerProvider

NAME = "vivavoce"
MODEL_CHARS_MAX = 128
"""The model's name is the client's word."""
NS_PER_MS = 1_000_000

Attributes = dict[str, Any]


class Tracing:
    """The way to OpenTelemetry; without providers, those of the process. Make one by `installed`."""

    def __init__(self, tracers: TracerProvider | None = None, meters: MeterProvider | None = None) -> None:
        from opentelemetry import metrics, trace

        self._tracer = trace.get_tracer(NAME, version(NAME), tracers)
        self._meter = meter = metrics.get_meter(NAME, version(NAME), meters)
        self._duration = meter.create_histogram("gen_ai.server.request.duration", "s", "How long a response took.")
        self._first_token = meter.create_histogram(
            "gen_ai.server.time_to_first_token", "s", "From the question to the language model to its first token."
        )
        self._usage = meter.create_histogram("gen_ai.client.token.usage", "{token}", "Tokens of a response.")
        self._steps = meter.create_histogram(
            "vivavoce.step.duration", "s", "When a step of a response was reached, from the end of the user's turn."
        )

    @classmethod
    def installed(cls) -> Tracing | None:
        """None where `opentelemetry-api` is not installed."""
        return cls() if find_spec("opentelemetry") and find_spec("opentelemetry.metrics") else None

    def observe(self, families: Iterable[Counter | Gauge]) -> None:
        """What Prometheus is told, under the same names with points: `vivavoce.sessions.total`."""
        for family in families:
            is_counter = isinstance(family, Counter)
            make = self._meter.create_observable_counter if is_counter else self._meter.create_observable_gauge
            make(family.name.replace("_", "."), [_observed(family)], description=family.help)

    def session(self, session_id: str, model: str, pipeline: str) -> SessionTrace:
        """The trace of one session."""
        return SessionTrace(self, self._tracer, session_id, model[:MODEL_CHARS_MAX], pipeline)

    def count(self, pipeline: str, response: Response, waterfall: Waterfall) -> None:
        """The metrics of a response."""
        about = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": NAME, "gen_ai.response.model": pipeline}
        error = _error_of(response)
        failed = {"error.type": error} if error else {}
        if waterfall.done_ms is not None and waterfall.requested_ms is not None:
            self._duration.record((waterfall.done_ms - waterfall.requested_ms) / 1000, about | failed)
        if waterfall.first_token_ms is not None and waterfall.prompted_ms is not None:
            self._first_token.record((waterfall.first_token_ms - waterfall.prompted_ms) / 1000, about)
        if (usage := given(response.usage, None)) is not None:
            self._usage.record(given(usage.input_tokens, 0), about | {"gen_ai.token.type": "input"})
            self._usage.record(given(usage.output_tokens, 0), about | {"gen_ai.token.type": "output"})
        for step, ms in waterfall.steps.items():
            counted: Attributes = {"vivavoce.step": step, "vivavoce.counted_from": waterfall.counted_from}
            self._steps.record(ms / 1000, counted | {"vivavoce.pipeline": pipeline})


class SessionTrace:
    """The spans of one session. Times are unix time in ns."""

    def __init__(self, tracing: Tracing, tracer: Tracer, session_id: str, model: str, pipeline: str) -> None:
        self._tracing = tracing
        self._tracer = tracer
        self._model = model
        self._pipeline = pipeline
        self._about: Attributes = {"gen_ai.conversation.id": session_id, "gen_ai.provider.name": NAME}
        self._span: Span | None = None
        self._opened_ns = 0

    def begin(self, unix_ns: int) -> None:
        """The session opens."""
        from opentelemetry.trace import SpanKind

        self._opened_ns = unix_ns
        about = self._about | {"gen_ai.request.model": self._model, "vivavoce.pipeline": self._pipeline}
        name = f"realtime {self._model}".rstrip()
        self._span = self._tracer.start_span(name, kind=SpanKind.SERVER, attributes=about, start_time=unix_ns)

    def end(self, unix_ns: int) -> None:
        """It is over."""
        if self._span is not None:
            self._span.end(unix_ns)

    def measured(self, response: Response, waterfall: Waterfall) -> None:
        """A response is over: its metrics, and its spans where spans are kept."""
        self._tracing.count(self._pipeline, response, waterfall)
        if self._span is None or not self._span.is_recording():
            return
        steps = waterfall.steps
        begin = min(0, *steps.values())
        attributes = self._about | {
            "gen_ai.response.id": response.id,
            "vivavoce.status": given(response.status, "completed"),
            "vivavoce.counted_from": waterfall.counted_from,
            "vivavoce.audio_ms": waterfall.audio_ms,
            **{f"vivavoce.{step}_ms": ms for step, ms in steps.items()},
        }
        span = self._start("response", self._span, waterfall, begin, attributes)
        self._children(span, response, waterfall)
        if error := _error_of(response):
            from opentelemetry.trace import Status, StatusCode

            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._ns(waterfall, max(steps.values())))

    def _children(self, parent: Span, response: Response, waterfall: Waterfall) -> None:
        done = waterfall.done_ms or 0
        if (heard := waterfall.transcript_ms) is not None:
            # What was prepared before the commit was heard from the silence on, as far as anybody knows.
            began = waterfall.committed_ms or 0
            self._child("transcription", parent, waterfall, began if began <= heard else min(0, heard), heard, {})
        if (asked := waterfall.prompted_ms) is not None:
            generated = done if waterfall.generated_ms is None else waterfall.generated_ms
            chat = f"chat {self._model}".rstrip()
            self._child(chat, parent, waterfall, asked, generated, self._chat(response))
        if (phrase := waterfall.first_phrase_ms) is not None:
            spoken = done if waterfall.spoken_ms is None else waterfall.spoken_ms
            self._child("speech", parent, waterfall, phrase, spoken, {"vivavoce.audio_ms": waterfall.audio_ms})

    def _chat(self, response: Response) -> Attributes:
        """What the conventions know of a question to a language model."""
        usage, modalities = given(response.usage, None), given(response.output_modalities, ("audio",))
        calls = any(isinstance(item, FunctionCall) for item in response.output)
        reason = given(given(response.status_details, None) or StatusDetails(), StatusDetails()).reason
        about = self._about | {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": self._model,
            "gen_ai.response.id": response.id,
            "gen_ai.output.type": "speech" if "audio" in modalities else "text",
            "gen_ai.response.finish_reasons": (given(reason, "tool_calls" if calls else "stop"),),
        }
        if usage is not None:
            about["gen_ai.usage.input_tokens"] = given(usage.input_tokens, 0)
            about["gen_ai.usage.output_tokens"] = given(usage.output_tokens, 0)
        return about

    def _child(
        self, name: str, parent: Span, waterfall: Waterfall, begin: int, end: int, attributes: Attributes
    ) -> None:
        self._start(name, parent, waterfall, begin, attributes).end(self._ns(waterfall, max(begin, end)))

    def _start(self, name: str, parent: Span, waterfall: Waterfall, begin: int, attributes: Attributes) -> Span:
        from opentelemetry.trace import set_span_in_context

        at_ns = self._ns(waterfall, begin)
        return self._tracer.start_span(name, set_span_in_context(parent), attributes=attributes, start_time=at_ns)

    def _ns(self, waterfall: Waterfall, ms: int) -> int:
        return self._opened_ns + (waterfall.at_ms + ms) * NS_PER_MS


def _observed(family: Counter | Gauge) -> Callable[[CallbackOptions], list[Observation]]:
    """How OpenTelemetry reads a family, from a thread of its own; of a server that is no more there is nothing."""
    from opentelemetry.metrics import Observation

    known = weakref.ref(family)  # a meter lives as long as the process

    def read(options: CallbackOptions) -> list[Observation]:
        if (family := known()) is None:
            return []
        return [
            Observation(value, dict(zip(family.labels, values, strict=True))) for values, value in family.read().items()
        ]

    return read


def _error_of(response: Response) -> str:
    """The code of what went wrong; empty where nothing did."""
    details = given(response.status_details, None)
    error: ResponseError | None = None if details is None else given(details.error, None)
    return "" if error is None else given(error.code, None) or given(error.type, None) or "error"
