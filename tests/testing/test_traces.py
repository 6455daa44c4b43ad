"""Traces: what a recorder keeps of a frame, what it renames, how differences are told, how a replay goes."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from vivavoce.core.session import Session
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.sounds import tone
from vivavoce.testing.traces import Line, Recorder, difference, load, replay, save


def frame(**fields: Any) -> str:
    return json.dumps(fields)


def encoded(audio: bytes) -> str:
    return base64.b64encode(audio).decode()


def events(recorder: Recorder) -> list[dict[str, Any]]:
    return [line.event for line in recorder.lines]


def test_ids_of_the_server_are_named_by_first_appearance() -> None:
    recorder = Recorder()
    recorder.server(0, frame(type="a", item={"id": "item_XYZ"}, previous_item_id="item_ABC", event_id="event_9"))
    recorder.server(0, frame(type="b", item_id="item_ABC", response_id="resp_Q", previous_item_id=None))
    recorder.client(0, frame(type="c", item_id="item_XYZ"))
    assert events(recorder) == [
        {"type": "a", "item": {"id": "item_1"}, "previous_item_id": "item_2"},
        {"type": "b", "item_id": "item_2", "response_id": "resp_1", "previous_item_id": None},
        {"type": "c", "item_id": "item_1"},
    ]


def test_ids_of_the_client_keep_their_names() -> None:
    recorder = Recorder()
    recorder.client(0, frame(type="a", item={"id": "item_1"}, previous_item_id="root", event_id="mine"))
    recorder.server(0, frame(type="b", item_id="item_1"))
    recorder.server(0, frame(type="b", item_id="item_abc"))
    assert events(recorder) == [
        {"type": "a", "item": {"id": "item_1"}, "previous_item_id": "root", "event_id": "mine"},
        {"type": "b", "item_id": "item_1"},
        {"type": "b", "item_id": "item_2"},
    ]


def test_ids_in_messages_are_renamed() -> None:
    recorder = Recorder()
    recorder.server(0, frame(type="response.created", response={"id": "resp_Fg7"}))
    recorder.server(0, frame(type="error", error={"message": "resp_Fg7 is active, resp_none is not", "event_id": "e"}))
    assert events(recorder)[1]["error"] == {"message": "resp_1 is active, resp_none is not", "event_id": "e"}


def test_audio_is_kept_as_a_sound_or_as_length_and_hash() -> None:
    recorder = Recorder()
    recorder.client(0, frame(type="input_audio_buffer.append", audio=encoded(tone(20))))
    recorder.server(0, frame(type="response.output_audio.delta", delta=encoded(b"\x01\x02")))
    recorder.server(0, frame(type="response.output_text.delta", delta="text"))
    recorder.client(0, frame(type="input_audio_buffer.append", audio="this is no base64"))
    recorder.client(0, frame(type="session.update", session={"audio": {"input": {"format": None}}}))
    assert events(recorder) == [
        {"type": "input_audio_buffer.append", "audio": {"sound": "tone 20 ms"}},
        {"type": "response.output_audio.delta", "delta": {"bytes": 2, "sha256": "a12871fee210fb86"}},
        {"type": "response.output_text.delta", "delta": "text"},
        {"type": "input_audio_buffer.append", "audio": "this is no base64"},
        {"type": "session.update", "session": {"audio": {"input": {"format": None}}}},
    ]


def test_when_a_session_expires_is_left_out() -> None:
    recorder = Recorder()
    recorder.server(0, frame(type="session.created", session={"id": "sess_1", "expires_at": 12345}))
    assert events(recorder) == [{"type": "session.created", "session": {"id": "sess_1"}}]


def test_a_line_is_made_into_a_frame_of_this_connection() -> None:
    recorder = Recorder()
    recorder.server(0, frame(type="a", item_id="item_XYZ"))
    made = json.loads(recorder.frame({"type": "b", "item_id": "item_1", "audio": {"sound": "tone 20 ms"}}))
    assert made == {"type": "b", "item_id": "item_XYZ", "audio": encoded(tone(20))}
    with pytest.raises(ValueError, match="only where the trace has it as a sound"):
        recorder.frame({"type": "b", "audio": {"bytes": 2, "sha256": "x"}})


def test_a_trace_is_read_as_it_was_written(tmp_path: Path) -> None:
    trace = (Line(0, "client", {"type": "a", "text": "ü\n"}), Line(5, "server", {"type": "b"}))
    save(tmp_path / "trace.jsonl", trace)
    assert load(tmp_path / "trace.jsonl") == trace
    assert len((tmp_path / "trace.jsonl").read_text().splitlines()) == 2


GOLDEN = [
    Line(0, "client", {"type": "response.create"}),
    Line(1, "server", {"type": "response.created", "response": {"id": "resp_1", "output": []}}),
]


@pytest.mark.parametrize(
    ("came", "words"),
    [
        (GOLDEN[:1], "expected      1 ms S> response.created"),
        ([*GOLDEN, Line(2, "server", {"type": "x"})], "expected nothing, came      2 ms S> x"),
        ([GOLDEN[0], Line(1, "server", {"type": "error"})], "event.type: expected 'response.created', came 'error'"),
        (
            [GOLDEN[0], Line(1, "server", {"type": "response.created", "response": {"id": "resp_1", "output": [1]}})],
            "event.response.output: expected [], came [1]",
        ),
        (
            [GOLDEN[0], Line(1, "server", {"type": "response.created", "response": {"output": [], "usage": None}})],
            'event.response.id: expected "resp_1", came nothing\nevent.response.usage: expected nothing, came null',
        ),
        ([GOLDEN[0], Line(7, "server", GOLDEN[1].event)], "t_ms: expected 1, came 7"),
        ([GOLDEN[0], Line(1, "client", GOLDEN[1].event)], "came      1 ms C> response.created"),
        (
            [GOLDEN[0], Line(1, "server", {"type": "response.created", "response": {"id": 1, "output": False}})],
            'event.response.id: expected "resp_1", came 1',
        ),
    ],
)
def test_a_difference_is_told_with_its_place(came: list[Line], words: str) -> None:
    said = difference(GOLDEN, came)
    assert words in said
    assert f"line {len(came) if len(came) > 1 else 2} differs" in said


def test_equal_traces_do_not_differ() -> None:
    assert difference(GOLDEN, list(GOLDEN)) == ""
    assert difference(GOLDEN, [GOLDEN[0], Line(7, "server", GOLDEN[1].event)], times=False) == ""


def test_a_replay_says_the_clients_lines_at_their_times() -> None:
    said = [
        Line(5, "client", {"type": "input_audio_buffer.append", "audio": {"sound": "tone 200 ms"}}),
        Line(9, "client", {"type": "input_audio_buffer.commit"}),
        Line(9, "client", {"type": "conversation.item.delete", "item_id": "item_1"}),
    ]
    machine = Session(id="sess_1", model="scripted", ids=counting_ids(), expires_at=0)
    came = replay(said, machine)
    assert [(line.t_ms, line.event["type"]) for line in came] == [
        (0, "session.created"),
        (5, "input_audio_buffer.append"),
        (5, "input_audio_buffer.speech_started"),
        (9, "input_audio_buffer.commit"),
        (9, "input_audio_buffer.committed"),
        (9, "conversation.item.added"),
        (9, "conversation.item.done"),
        (9, "conversation.item.delete"),
        (9, "conversation.item.deleted"),
    ]
    assert machine.conversation.item_ids == ()
