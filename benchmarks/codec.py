"""What one event costs: our codec against `json` with `base64`, and against the public `openai` package.

    python benchmarks/codec.py [--rounds 9]

Every way of doing a thing runs in turn, round after round, so that a slow moment of the machine hits all of them; the
median over the rounds counts. Figures are microseconds of CPU per event, ratios are against ours. The `openai` column
is what that package does with the same frame: its client's own parse for server events, validation by its types for
client events (it has no server), `model_dump_json` of its types for writing.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import pydantic
from openai._models import construct_type_unchecked
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent, ResponseAudioDeltaEvent

from vivavoce.protocol.codec import ClientCodec, Dialect, ServerCodec
from vivavoce.protocol.events import (
    InputAudioBufferAppend,
    ResponseOutputAudioDelta,
    ResponseOutputTextDelta,
    SessionUpdate,
)

TIMING_SECONDS = 0.02  # of one timing; a round is one timing of everything
CLIENT_TYPES: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(RealtimeClientEvent)
Ways = dict[str, Callable[[], object]]


def server(dialect: Dialect = "ga") -> tuple[Callable[[str], Any], Callable[[Any], Any]]:
    """How a server decodes and encodes."""
    codec = ServerCodec(dialect)
    return codec.decode, codec.encode


def client(dialect: Dialect = "ga") -> tuple[Callable[[str], Any], Callable[[Any], Any]]:
    """How a client decodes and encodes."""
    codec = ClientCodec(dialect)
    return codec.decode, codec.encode


def openai_client(frame: str) -> Any:
    """How the public client reads a server event."""
    return construct_type_unchecked(value=json.loads(frame), type_=RealtimeServerEvent)


def plain(frame: str, field: str) -> bytes:
    """The least that anyone has to do: JSON and base64, nothing checked."""
    return base64.b64decode(json.loads(frame)[field])


def pcm(ms: int) -> bytes:
    """Some audio, 24 kHz PCM16."""
    return bytes(index * 37 % 251 for index in range(48 * ms))


def decode_append(ms: int) -> Ways:
    frame = ClientCodec().encode(InputAudioBufferAppend(audio=pcm(ms))).decode()
    decode, _ = server()
    return {
        "vivavoce": lambda: decode(frame),
        "json": lambda: plain(frame, "audio"),
        "openai": lambda: base64.b64decode(CLIENT_TYPES.validate_json(frame).audio),
    }


def audio_delta(ms: int) -> ResponseOutputAudioDelta:
    return ResponseOutputAudioDelta(
        event_id="event_CRz8kQ0dW5yTn", response_id="resp_CRz8kW5yTn0dQ", item_id="item_CRz8k5yTnW0dQ",
        output_index=0, content_index=0, delta=pcm(ms),
    )  # fmt: skip


def encode_delta(ms: int) -> Ways:
    event = audio_delta(ms)
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    _, encode = server()

    def written(audio: str) -> dict[str, Any]:
        return fields | {"type": event.type, "delta": audio}

    return {
        "vivavoce": lambda: encode(event),
        "json": lambda: json.dumps(written(base64.b64encode(event.delta).decode())).encode(),
        "openai": lambda: (
            ResponseAudioDeltaEvent(**written(base64.b64encode(event.delta).decode())).model_dump_json().encode()
        ),
    }


def decode_delta(ms: int, dialect: Dialect = "ga") -> Ways:
    frame = ServerCodec(dialect).encode(audio_delta(ms))
    assert frame is not None
    text = frame.decode()
    decode, _ = client(dialect)
    ways: Ways = {"vivavoce": lambda: decode(text), "json": lambda: plain(text, "delta")}
    if dialect == "ga":
        ways["openai"] = lambda: base64.b64decode(openai_client(text).delta)
    return ways


def decode_text_delta() -> Ways:
    event = ResponseOutputTextDelta(
        event_id="event_CRz8kQ0dW5yTn", response_id="resp_CRz8kW5yTn0dQ", item_id="item_CRz8k5yTnW0dQ",
        output_index=0, content_index=0, delta=" certainly",
    )  # fmt: skip
    frame = ServerCodec().encode(event)
    assert frame is not None
    text = frame.decode()
    decode, _ = client()
    return {"vivavoce": lambda: decode(text), "json": lambda: json.loads(text), "openai": lambda: openai_client(text)}


def decode_session_update(dialect: Dialect = "ga") -> Ways:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {
        "type": "function",
        "name": "get_weather",
        "description": "Tell the weather. " * 5,
        "parameters": parameters,
    }
    session = {
        "type": "realtime",
        "instructions": "You are a helpful assistant on the telephone. " * 20,
        "output_modalities": ["audio"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24_000},
                "transcription": {"model": "whisper-1", "language": "en"},
                "turn_detection": {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 200},
            },
            "output": {"format": {"type": "audio/pcm", "rate": 24_000}, "voice": "marin"},
        },
        "tools": [tool, tool | {"name": "get_time"}],
        "tool_choice": "auto",
        "max_output_tokens": 1_024,
    }
    frame = json.dumps({"type": "session.update", "session": session})
    if dialect == "beta":
        update = ServerCodec().decode(frame)
        assert isinstance(update, SessionUpdate)
        frame = ClientCodec("beta").encode(update).decode()
    decode, _ = server(dialect)
    assert isinstance(decode(frame), SessionUpdate)
    ways: Ways = {"vivavoce": lambda: decode(frame), "json": lambda: json.loads(frame)}
    if dialect == "ga":
        ways["openai"] = lambda: CLIENT_TYPES.validate_json(frame)
    return ways


CASES: dict[str, Callable[[], Ways]] = {
    "append, 20 ms: decode (server)": lambda: decode_append(20),
    "append, 100 ms: decode (server)": lambda: decode_append(100),
    "audio delta, 20 ms: encode (server)": lambda: encode_delta(20),
    "audio delta, 100 ms: encode (server)": lambda: encode_delta(100),
    "audio delta, 20 ms: decode (client)": lambda: decode_delta(20),
    "audio delta, 100 ms: decode (client)": lambda: decode_delta(100),
    "text delta: decode (client)": decode_text_delta,
    "session.update: decode (server)": decode_session_update,
    "beta audio delta, 20 ms: decode (client)": lambda: decode_delta(20, "beta"),
    "beta session.update: decode (server)": lambda: decode_session_update("beta"),
}


def seconds(way: Callable[[], object], times: int) -> float:
    """CPU seconds of one call, over `times` calls."""
    begun = time.process_time()
    for _ in range(times):
        way()
    return (time.process_time() - begun) / times


def measure(cases: dict[str, Ways], rounds: int) -> dict[str, dict[str, float]]:
    """The median of each way in microseconds."""
    calls = {(case, name): way for case, ways in cases.items() for name, way in ways.items()}
    times = {key: max(5, int(TIMING_SECONDS / max(seconds(way, 20), 1e-7))) for key, way in calls.items()}
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, way in calls.items():
            taken[key].append(seconds(way, times[key]))
    medians = {key: statistics.median(found) * 1e6 for key, found in taken.items()}
    return {case: {name: medians[case, name] for name in ways} for case, ways in cases.items()}


def main() -> None:
    """Measure everything and print a table."""
    parser = argparse.ArgumentParser(description="What one event costs.")
    parser.add_argument("--rounds", type=int, default=9)
    found = measure({name: make() for name, make in CASES.items()}, parser.parse_args().rounds)
    print(f"{'µs of CPU per event':42}{'vivavoce':>10}{'json':>10}{'openai':>10}{'json/ours':>12}{'openai/ours':>13}")
    for case, ways in found.items():
        ours, theirs = ways["vivavoce"], ways.get("openai")
        last = (
            f"{theirs:10.1f}{ways['json'] / ours:12.1f}{theirs / ours:13.1f}"
            if theirs
            else f"{'–':>10}{ways['json'] / ours:12.1f}{'–':>13}"
        )
        print(f"{case:42}{ours:10.2f}{ways['json']:10.2f}{last}")


if __name__ == "__main__":
    main()
