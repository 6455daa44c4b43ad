"""What OpenTelemetry is told of sessions and responses, by its own SDK."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from test_serve import scripted, within_time

from vivavoce import connect, items
from vivavoce.engines.scripted import scripted_pipeline
from vivavoce.protocol.items import (
    Message,
    OutputAudio,
    Response,
    ResponseError,
    StatusDetails,
    Usage,
)
from vivavoce.protocol.waterfall import Waterfall
from vivavoce.server import running
from vivavoce.server.metrics import Gauge
from vivavoce.server.telemetry import About, SessionTelemetry, Telemetry
from vivavoce.server.tracing import Tracing

OPENED_NS = 1_700_000_000 * 10**9
SPOKEN = Waterfall(
    counted_from="speech_end",
    at_ms=2_000,
    committed_ms=500,
    transcript_ms=240,
    requested_ms=500,
    prompted_ms=250,
    first_token_ms=300,
    first_phrase_ms=320,
    first_audio_ms=400,
    first_sent_ms=500,
    played_ms=1_300,
    generated_ms=900,
    spoken_ms=1_100,
    done_ms=1_200,
    audio_ms=1_800,
)
SECRET_WORDS = "my card has the number four"


@dataclass(frozen=True)
class Observed:
    telemetry: Telemetry
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    def session(self) -> SessionTelemetry:
        session = self.telemetry.session(About("sess_1", "realtime", "websocket", "scripted", "gpt-realtime"))
        session.begin(OPENED_NS, lambda: 0)
        return session

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def metrics(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def observed() -> Iterator[Observed]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    yield Observed(Telemetry(Tracing(tracers, meters)), exporter, reader)
    tracers.shutdown()
    meters.shutdown()


def answered(status: Any = "completed", details: StatusDetails | None = None) -> Response:
    said = Message(id="item_1", role="assistant", content=(OutputAudio(transcript=SECRET_WORDS),))
    usage = Usage(total_tokens=30, input_tokens=20, output_tokens=10)
    return Response(
        id="resp_1", status=status, status_details=details, output=(said,), output_modalities=("audio",), usage=usage
    )


def between(span: ReadableSpan) -> tuple[float, float]:
    """When it began and ended, in ms since the end of the speech."""
    assert span.start_time is not None
    assert span.end_time is not None
    origin = OPENED_NS + SPOKEN.at_ms * 10**6
    return (span.start_time - origin) / 1e6, (span.end_time - origin) / 1e6


def test_a_response_is_a_span_of_its_session_with_a_child_for_each_engine(observed: Observed) -> None:
    session = observed.session()
    session.measured(answered(), SPOKEN)
    session.end(OPENED_NS + 10**10)
    spans = observed.spans()
    assert set(spans) == {"realtime gpt-realtime", "response", "transcription", "chat gpt-realtime", "speech"}
    root, response = spans["realtime gpt-realtime"], spans["response"]
    assert root.kind is SpanKind.SERVER
    assert root.context is not None
    assert response.parent is not None
    assert response.parent.span_id == root.context.span_id
    assert [spans[name].parent for name in ("transcription", "chat gpt-realtime", "speech")] == [response.context] * 3
    assert between(response) == (0, 1_300)
    assert between(spans["transcription"]) == (0, 240), "it was heard before the turn was committed"
    assert between(spans["chat gpt-realtime"]) == (250, 900)
    assert between(spans["speech"]) == (320, 1_100)
    assert root.end_time == OPENED_NS + 10**10


def test_the_attributes_are_those_of_the_conventions(observed: Observed) -> None:
    session = observed.session()
    session.measured(answered(), SPOKEN)
    chat = observed.spans()["chat gpt-realtime"].attributes
    assert chat is not None
    assert dict(chat) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vivavoce",
        "gen_ai.conversation.id": "sess_1",
        "gen_ai.request.model": "gpt-realtime",
        "gen_ai.response.id": "resp_1",
        "gen_ai.output.type": "speech",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 10,
    }
    response = observed.spans()["response"].attributes
    assert response is not None
    assert (response["vivavoce.first_sent_ms"], response["vivavoce.counted_from"]) == (500, "speech_end")


def test_what_failed_is_an_error_by_its_code(observed: Observed) -> None:
    why = StatusDetails(type="failed", error=ResponseError(type="server_error", code="engine_timeout", message="x"))
    observed.session().measured(answered("failed", why), Waterfall(counted_from="request", at_ms=0, requested_ms=0))
    span = observed.spans()["response"]
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["error.type"] == "engine_timeout"
    assert set(observed.spans()) == {"response"}, "no engine has done anything"


def test_metrics_as_the_conventions_name_them(observed: Observed) -> None:
    observed.session().measured(answered(), SPOKEN)
    metrics = observed.metrics()
    assert [point.sum for point in metrics["gen_ai.server.request.duration"]] == [0.7]
    assert [point.sum for point in metrics["gen_ai.server.time_to_first_token"]] == [pytest.approx(0.05)]
    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in metrics["gen_ai.client.token.usage"]}
    assert tokens == {"input": 20, "output": 10}
    steps = {point.attributes["vivavoce.step"]: point.sum for point in metrics["vivavoce.step.duration"]}
    assert steps["first_sent"] == 0.5
    assert set(steps) == set(SPOKEN.steps)


def test_what_prometheus_is_told_opentelemetry_is_told_too(observed: Observed) -> None:
    observed.session().measured(answered(), SPOKEN)
    observed.telemetry.add(Gauge("vivavoce_level", "A level.", ("who",), lambda: {("a",): 0.5}))
    observed.telemetry.refused.add(2, "invalid_model")
    found = {
        name: {tuple(dict(point.attributes).values()): point.value for point in points}
        for name, points in observed.metrics().items()
        if name.startswith("vivavoce.") and name != "vivavoce.step.duration"
    }
    assert found["vivavoce.sessions"] == {("realtime", "websocket"): 1}
    assert found["vivavoce.sessions.total"] == {("realtime", "websocket"): 1}
    assert found["vivavoce.sessions.refused.total"] == {("invalid_model",): 2}
    assert found["vivavoce.responses.total"] == {("scripted", "completed"): 1}
    assert found["vivavoce.audio.seconds.total"][("out",)] == 1.8
    assert found["vivavoce.level"] == {("a",): 0.5}
    assert sum(found["vivavoce.tokens.total"].values()) == 30


def test_a_server_that_is_no_more_is_not_kept_alive_by_its_meter(observed: Observed) -> None:
    observed.session()  # so that there is something to tell
    gauge: Gauge | None = Gauge("vivavoce_level", "A level.", (), lambda: {(): 1.0})
    assert observed.telemetry._tracing is not None
    observed.telemetry._tracing.observe([gauge])  # type: ignore[list-item]
    assert "vivavoce.level" in observed.metrics()
    known = weakref.ref(gauge)
    gauge = None
    gc.collect()
    assert known() is None
    assert "vivavoce.level" not in observed.metrics()


def test_a_real_session_and_not_a_word_of_it(observed: Observed) -> None:
    async def main() -> None:
        key = "sk-nobody-may-see-this"
        pipelines = {"scripted": scripted_pipeline()}
        async with running(scripted(api_keys=[key]), pipelines=pipelines) as server:
            server.app.state.sessions.telemetry = observed.telemetry
            async with connect("gpt-realtime", url=server.url, api_key=key) as session:
                await session.create_item(items.user_message(SECRET_WORDS))
                await (await session.create_response())
        spans = observed.spans()
        assert {"realtime gpt-realtime", "response", "chat gpt-realtime", "speech"} == set(spans)
        told = "".join(span.to_json() for span in spans.values())
        assert SECRET_WORDS not in told
        assert key not in told
        session_span = spans["realtime gpt-realtime"]
        assert all(
            session_span.start_time <= span.start_time <= span.end_time <= session_span.end_time + 10**6  # type: ignore[operator]
            for span in spans.values()
        )

    within_time(main())


def test_without_a_provider_nothing_is_recorded_and_without_the_package_there_is_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    telemetry = Telemetry(Tracing())
    session = telemetry.session(About("sess_1", "realtime", "websocket", "scripted", "m"))
    session.begin(OPENED_NS, lambda: 0)
    session.measured(answered(), SPOKEN)
    session.end(OPENED_NS)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert Tracing.installed() is None
