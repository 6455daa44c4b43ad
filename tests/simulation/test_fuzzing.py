"""Damaged frames through every codec: each has exactly its answer; `benchmarks/soak.py` goes further."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any, get_args

import pytest

from vivavoce.core.editing import Editing
from vivavoce.core.refused import Refused
from vivavoce.protocol import events as ev
from vivavoce.protocol import translation as tr
from vivavoce.protocol.codec import ServerCodec
from vivavoce.protocol.dialects import overview_events
from vivavoce.server.work import Work
from vivavoce.testing.damage import Vocabulary, frames, valid_events
from vivavoce.testing.fuzzing import Tally, fuzz

WAYS = [(vocabulary, False) for vocabulary in get_args(Vocabulary)] + [("ga", True), ("beta", True)]
SESSIONS = 2
FRAMES = 400


@pytest.mark.parametrize(("vocabulary", "playback"), WAYS)
def test_every_frame_has_its_answer(vocabulary: Vocabulary, playback: bool) -> None:
    tally = Tally()
    for seed in range(SESSIONS):
        tally += fuzz(vocabulary, seed, FRAMES, playback=playback)
    assert tally.frames > 100
    assert len(tally.succeeded) >= 2
    assert {"invalid_json", "invalid_event", "unknown_parameter", "invalid_type"} <= set(tally.refused)


def test_every_client_event_is_among_what_is_damaged() -> None:
    ga = {str(event.__struct_config__.tag) for event in get_args(ev.AnyClientEvent)}
    assert {event["type"] for event in valid_events("ga")} == ga
    assert {event["type"] for event in valid_events("beta")} == ga | {"transcription_session.update"}
    overview = {str(event.__struct_config__.tag) for event in get_args(overview_events.ClientEvent)}
    assert {event["type"] for event in valid_events("overview")} == overview - {"output_audio_buffer.clear"}
    translation = {str(event.__struct_config__.tag) for event in get_args(tr.TranslationClientEvent)}
    assert {event["type"] for event in valid_events("translation")} == translation


def test_the_same_seed_gives_the_same_frames() -> None:
    def some(seed: int) -> list[str | bytes]:
        source = frames("ga", Random(seed))
        return [next(source) for _ in range(200)]

    assert some(1) == some(1)
    assert some(1) != some(2)
    assert Counter(map(type, some(1))).keys() == {str, bytes}


# --- every promise has been seen to break -----------------------------------------------------------------------------


def broken() -> str:
    for seed in range(4):
        try:
            fuzz("ga", seed, FRAMES)
        except AssertionError as found:
            return str(found)
    return "nothing was noticed"


def test_a_frame_without_an_answer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Editing, "retrieve", lambda editing, item_id: None)
    assert "[]: ga, frame" in broken()


def test_an_error_without_its_event_id_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Refused.told
    monkeypatch.setattr(Refused, "told", lambda refused, event_id: told(refused, None))
    assert "ga, frame" in broken()


def test_an_error_that_has_an_effect_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    truncate = Editing.truncate

    def with_effect(editing: Editing, event: ev.ConversationItemTruncate) -> None:
        editing._desk.send(ev.InputAudioBufferCleared())
        truncate(editing, event)

    monkeypatch.setattr(Editing, "truncate", with_effect)
    assert "['input_audio_buffer.cleared', 'error']: ga, frame" in broken()


def test_an_error_that_is_not_sent_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = ServerCodec.encode

    def quiet(codec: ServerCodec, event: Any) -> bytes | None:
        return None if isinstance(event, ev.ErrorEvent) else encode(codec, event)

    monkeypatch.setattr(ServerCodec, "encode", quiet)
    assert "became []" in broken()


def test_a_codec_that_raises_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = ServerCodec.decode

    def fragile(codec: ServerCodec, frame: str | bytes) -> Any:
        return decode(codec, frame.encode("ascii").decode() if isinstance(frame, str) else frame)

    monkeypatch.setattr(ServerCodec, "decode", fragile)
    assert "the server hangs up" in broken()


def test_a_task_that_is_left_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[asyncio.Task[bool]] = []

    async def end(work: Work, grace_s: float) -> None:
        left.append(asyncio.create_task(asyncio.Event().wait()))

    monkeypatch.setattr(Work, "end", end)
    assert "tasks are left" in broken()
