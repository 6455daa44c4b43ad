"""The golden trace of a translation session (reference §4.4 T18), played against the bare machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from vivavoce.core.translating import Translating
from vivavoce.protocol.codec import TranslationServerCodec
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.traces import Line, difference, load, replay, save

TRACE = Path(__file__).parent.parent / "traces" / "translation" / "t18_translation.jsonl"


def play(trace: tuple[Line, ...]) -> tuple[Line, ...]:
    machine = Translating(id="sess_x", model="scripted", ids=counting_ids(), expires_at=1)
    return replay(trace, machine, codec=TranslationServerCodec())


def test_t18_golden_trace(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--record-traces"):
        save(TRACE, play(tuple(line for line in load(TRACE) if line.dir == "client")))
    golden = load(TRACE)
    assert not (differing := difference(golden, play(golden))), differing


def test_t18_is_a_stream_that_ends_with_session_closed() -> None:
    """No turns, no responses, no items; positions never go back, in steps of 200 ms."""
    said = [line.event for line in load(TRACE) if line.dir == "server"]
    assert [said[0]["type"], said[1]["type"], said[-1]["type"]] == [
        "session.created",
        "session.updated",
        "session.closed",
    ]
    deltas = [event for event in said if "elapsed_ms" in event]
    assert {event["type"] for event in deltas} == {
        "session.input_transcript.delta",
        "session.output_transcript.delta",
        "session.output_audio.delta",
    }
    positions = [event["elapsed_ms"] for event in deltas]
    assert positions == sorted(positions)
    assert {position % 200 for position in positions} == {0}
    assert not [event for event in said if event["type"] == "error"]
