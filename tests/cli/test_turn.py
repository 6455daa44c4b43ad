"""One turn, as the client's events tell it."""

from __future__ import annotations

from vivavoce.cli.turn import Turn
from vivavoce.protocol import events as ev
from vivavoce.protocol.items import (
    FunctionCall,
    Message,
    OutputText,
    Response,
    ResponseError,
    StatusDetails,
)


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 10.0

    def __call__(self) -> float:
        return self.now


def done(**fields: object) -> ev.ResponseDone:
    return ev.ResponseDone(response=Response(id="resp_1", **fields))  # type: ignore[arg-type]


def delta(audio: bytes) -> ev.ResponseOutputAudioDelta:
    return ev.ResponseOutputAudioDelta(
        response_id="resp_1", item_id="item_2", output_index=0, content_index=0, delta=audio
    )


def test_stages_count_from_the_end_of_speech_and_only_the_first_time() -> None:
    clock = Clock()
    turn = Turn(clock)
    turn.take(delta(b"\0\0"))
    assert turn.marks_ms == {}
    turn.end_of_speech()
    for now in (10.5, 11.0):
        clock.now = now
        turn.take(delta(b"\0\0"))
    assert turn.marks_ms == {"first_audio": 500.0}
    assert len(turn.audio) == 6


def test_a_spoken_turn_is_over_when_both_answer_and_transcript_are_there() -> None:
    turn = Turn(Clock())
    turn.take(ev.InputAudioBufferCommitted(item_id="item_1"))
    turn.take(done(status="completed"))
    assert not turn.is_over
    other = ev.ConversationItemInputAudioTranscriptionCompleted(
        item_id="item_0", content_index=0, transcript="no", usage=ev.DurationUsage(seconds=1)
    )
    turn.take(other)
    assert not turn.is_over
    turn.take(
        ev.ConversationItemInputAudioTranscriptionCompleted(
            item_id="item_1", content_index=0, transcript="yes", usage=ev.DurationUsage(seconds=1)
        )
    )
    assert turn.is_over
    assert turn.transcript == "yes"


def test_an_answer_without_deltas_is_read_from_the_response() -> None:
    turn = Turn(Clock())
    call = FunctionCall(name="f", arguments='{"a": 1}')
    message = Message(role="assistant", content=(OutputText(text="hello"),))
    turn.take(done(status="completed", output=(message, call)))
    assert turn.answer == "hello"
    assert turn.calls == ['f({"a": 1})']
    assert turn.is_over


def test_a_failed_response_is_an_error() -> None:
    turn = Turn(Clock())
    details = StatusDetails(type="failed", error=ResponseError(message="the model is gone"))
    turn.take(done(status="failed", status_details=details))
    assert turn.error == "the model is gone"
    assert turn.is_over


def test_an_error_event_ends_the_turn() -> None:
    turn = Turn(Clock())
    turn.take(ev.ErrorEvent(error=ev.ErrorDetail(type="invalid_request_error", message="no")))
    assert turn.error == "no"
    assert turn.is_over


def test_an_answer_into_which_the_user_goes_on_speaking_is_not_the_answer() -> None:
    turn = Turn(Clock())
    turn.take(ev.InputAudioBufferCommitted(item_id="item_1"))
    turn.take(delta(b"\1\1"))
    turn.take(done(status="cancelled", status_details=StatusDetails(type="cancelled", reason="turn_detected")))
    assert not turn.is_over
    turn.take(ev.InputAudioBufferCommitted(item_id="item_3"))
    turn.end_of_speech()
    turn.take(delta(b"\2\2"))
    usage = ev.DurationUsage(seconds=1)
    for item_id, text in (("item_3", "the rest"), ("item_1", "the beginning")):
        turn.take(
            ev.ConversationItemInputAudioTranscriptionCompleted(
                item_id=item_id, content_index=0, transcript=text, usage=usage
            )
        )
    turn.take(done(status="completed"))
    assert turn.is_over
    assert turn.transcript == "the rest"
    assert turn.audio == b"\2\2"
