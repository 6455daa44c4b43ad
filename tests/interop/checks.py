"""What each conversation must have left behind, whoever held it and in whatever dialect."""

from __future__ import annotations

from collections.abc import Callable

from conversations import CONVERSATIONS, PLAYED_MS
from heard import BYTES_PER_MS, CALL_REQUEST, CHARACTER_MS, Heard

TURN_EVENTS = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
]


def _buffer_events(heard: Heard) -> list[str]:
    return [name for name in heard.types if name.startswith("input_audio_buffer.")]


def _check_answer_to_speech(heard: Heard, turn_ms: int) -> None:
    assert heard.statuses == ["completed"]
    assert heard.user_transcript == f"audio of {turn_ms} ms"
    assert heard.transcript == f"echo: audio of {turn_ms} ms"
    assert heard.finals == [heard.transcript]
    assert heard.audio_bytes == len(heard.transcript) * CHARACTER_MS * BYTES_PER_MS
    assert heard.text == ""
    assert heard.errors == []


def check_written(heard: Heard) -> None:
    assert heard.statuses == ["completed"]
    assert heard.text == "echo: Good morning, how are you?"
    assert heard.finals == [heard.text]
    assert heard.audio_bytes == 0
    assert heard.transcript == ""
    assert heard.errors == []


def check_spoken(heard: Heard) -> None:
    """300 ms before the sound, one second of it, and the 500 ms of silence that end the turn."""
    _check_answer_to_speech(heard, 1_800)
    assert _buffer_events(heard) == TURN_EVENTS


def check_manual(heard: Heard) -> None:
    """All that was recorded since the buffer was cleared."""
    _check_answer_to_speech(heard, 2_400)
    assert _buffer_events(heard) == ["input_audio_buffer.cleared", "input_audio_buffer.committed"]


def check_calling(heard: Heard) -> None:
    assert heard.statuses == ["completed", "completed"]
    assert heard.call_name == "get_weather"
    assert heard.arguments == CALL_REQUEST.removeprefix("call get_weather ")
    assert heard.transcript == "tool said: 18 degrees, dry"
    assert heard.finals == [heard.arguments, heard.transcript]
    assert heard.audio_bytes == len(heard.transcript) * CHARACTER_MS * BYTES_PER_MS
    assert heard.errors == []


def check_cancelled(heard: Heard) -> None:
    assert heard.statuses == ["cancelled", "completed"]
    assert heard.reasons == ["client_cancelled"]
    assert heard.text == "echo: Good morning, how are you?"
    assert heard.audio_bytes > 0
    assert heard.errors == []


def check_barged_in(heard: Heard) -> None:
    assert heard.statuses == ["cancelled"]
    assert heard.reasons == ["turn_detected"]
    assert heard.truncated_ms == [PLAYED_MS]
    assert heard.types.count("response.created") == 2
    assert _buffer_events(heard) == TURN_EVENTS
    assert heard.errors == []


def check_mistaken(heard: Heard) -> None:
    assert [(code, event_id) for code, _, event_id in heard.errors] == [
        ("item_delete_invalid_item_id", "evt_delete"),
        ("input_audio_buffer_commit_empty", "evt_commit"),
        ("decimal_above_max_value", "evt_update"),
    ]
    assert heard.errors[2][1] is not None
    assert heard.errors[2][1].endswith("turn_detection.threshold")
    assert heard.statuses == ["completed"]
    assert heard.text == "echo: Good morning, how are you?"


def check_transcribed(heard: Heard) -> None:
    assert heard.user_transcript == "audio of 1800 ms"
    assert _buffer_events(heard) == TURN_EVENTS * 2
    assert not [name for name in heard.types if name.startswith("response.")]
    assert heard.errors == []


CHECKS: dict[str, Callable[[Heard], None]] = {title: globals()[f"check_{title}"] for title in CONVERSATIONS}
