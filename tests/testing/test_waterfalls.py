"""Where the time of responses went, as a test of an application sees it: any client, either carrier, a tape."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import vivavoce.transports.webrtc  # before the clock runs: it takes seconds, the first time
from vivavoce import connect, events
from vivavoce.protocol.waterfall import HEADER, KEY, Waterfall
from vivavoce.testing.checks import assert_steps_within, waterfalls
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.sounds import silence, tone
from vivavoce.testing.tapes import Tape

SECONDS_MAX = 20.0
ASKS = {HEADER: "1"}
VAD = {"type": "server_vad", "silence_duration_ms": 300}
TOLD = Waterfall(counted_from="speech_end", at_ms=0, committed_ms=300, first_sent_ms=400, done_ms=500)


async def spoken(server: RealServer, **how: Any) -> Any:
    """One spoken turn that the server finds and answers by itself; its response."""
    async with connect("gpt-realtime", url=server.url, api_key=server.api_key, **how) as session:
        await session.update_session(turn_detection=VAD)
        await session.send_audio(silence(100) + tone(400) + silence(600))
        response, awaited = None, {"response.done"}
        if how.get("transport") == "webrtc":
            awaited.add("output_audio_buffer.started")
        async with asyncio.timeout(SECONDS_MAX):
            while awaited:
                event = await session.recv()
                awaited.discard(event.type)
                if isinstance(event, events.ResponseDone):
                    response = event.response
    return response


@pytest.mark.parametrize("headers", [{}, ASKS])
def test_any_client_is_measured_and_the_one_that_asks_is_told(
    realtime_server: RealServer, headers: dict[str, str]
) -> None:
    response = asyncio.run(spoken(realtime_server, headers=headers))
    (measured,) = realtime_server.waterfalls
    assert measured.counted_from == "speech_end"
    assert response.waterfall == (measured if headers else None)
    assert response.metadata is None or set(response.metadata) == {KEY}
    found = assert_steps_within(realtime_server, committed=5_000, first_sent=5_000, done=10_000)
    assert found == [measured]


def test_a_session_that_asks_is_told_in_the_other_dialect_too(realtime_server: RealServer) -> None:
    response = asyncio.run(spoken(realtime_server, headers=ASKS, dialect="beta"))
    assert response.waterfall == realtime_server.waterfalls[0]


def test_a_tape_holds_what_the_server_told(realtime_server: RealServer, tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"
    asyncio.run(spoken(realtime_server, headers=ASKS, tape=path))
    tape = Tape.load(path)
    (turn,) = tape.turns
    assert turn.waterfall == realtime_server.waterfalls[0]
    assert waterfalls(tape) == waterfalls(realtime_server)


def done(waterfall: Waterfall) -> dict[str, Any]:
    from msgspec.json import encode

    response = {"object": "realtime.response", "id": "r", "status": "completed", "output": []}
    metadata = {KEY: encode(waterfall).decode()}
    return {"type": "response.done", "event_id": "e", "response": {**response, "metadata": metadata}}


def test_what_is_late_and_what_was_not_reached_is_told() -> None:
    assert assert_steps_within([done(TOLD)], first_sent=400) == [TOLD]
    with pytest.raises(AssertionError, match=r"first_sent within 399 ms:\n  - response 1 \(from speech_end\).*<- late"):
        assert_steps_within([done(TOLD)], first_sent=399)
    with pytest.raises(AssertionError, match="played not reached  <- late"):
        assert_steps_within([done(TOLD)], played=1_000)


def test_a_step_that_there_is_not_and_a_server_that_told_nothing() -> None:
    with pytest.raises(ValueError, match="no step 'first_word'; there is committed, transcript"):
        assert_steps_within([done(TOLD)], first_word=1)
    with pytest.raises(AssertionError, match="no response of which the server told"):
        assert_steps_within([{"type": "input_audio_buffer.cleared", "event_id": "e"}], done=1)


def test_by_webrtc_the_server_knows_when_it_was_played(realtime_server: RealServer) -> None:
    assert vivavoce.transports.webrtc
    response = asyncio.run(spoken(realtime_server, headers=ASKS, transport="webrtc"))
    (measured,) = realtime_server.waterfalls
    assert response.waterfall is not None
    assert response.waterfall.at_ms == measured.at_ms
    assert measured.first_sent_ms is not None
    assert measured.played_ms is not None
    assert measured.played_ms >= measured.first_sent_ms
