"""What each answer on a tape took: from the end of the user's turn, stage by stage.

The end of a turn is the first thing since the last answer that asked for one: the server found the end of speech, the
client committed, or the client asked. The silence that the server waited for is
before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vivavoce.protocol.waterfall import Waterfall, waterfall_of

from .entries import Message

_ENDS = frozenset({"input_audio_buffer.speech_stopped", "input_audio_buffer.commit", "response.create"})
_STAGES = {
    "response.output_text.delta": "first_text_ms",
    "response.text.delta": "first_text_ms",
    "response.output_audio_transcript.delta": "first_text_ms",
    "response.audio_transcript.delta": "first_text_ms",
    "response.output_audio.delta": "first_audio_ms",
    "response.audio.delta": "first_audio_ms",
    "response.done": "done_ms",
}
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"


@dataclass(slots=True)
class Turn:
    """One answer. `ended_ms` is when the user's turn ended, on the tape; the others count from there, None if never."""

    response_id: str
    ended_ms: float
    created_ms: float
    transcript_ms: float | None = None
    first_text_ms: float | None = None
    first_audio_ms: float | None = None
    done_ms: float | None = None
    status: str = "in_progress"
    waterfall: Waterfall | None = None
    """What the server told of it, where the client had asked; counted from the end of the turn as the server saw it."""

    def reach(self, stage: str, t_ms: float) -> None:
        """The stage was reached; only the first time counts."""
        if getattr(self, stage) is None:
            setattr(self, stage, round(t_ms - self.ended_ms, 3))


def turns_of(messages: Iterable[Message]) -> tuple[Turn, ...]:
    """The answers in the order in which they began."""
    turns: dict[str, Turn] = {}
    ended: float | None = None
    transcribed: float | None = None
    for message in messages:
        kind = message.type
        if kind == "input_audio_buffer.speech_started":
            ended = transcribed = None
        elif kind in _ENDS and ended is None:
            ended, transcribed = message.t_ms, None
        elif kind == _TRANSCRIBED:
            transcribed = message.t_ms
            if ended is None and turns:
                list(turns.values())[-1].reach("transcript_ms", message.t_ms)
        elif kind == "response.created":
            response_id = str(message.event.get("response", {}).get("id"))
            start = message.t_ms if ended is None else ended
            turn = turns[response_id] = Turn(response_id, start, round(message.t_ms - start, 3))
            if transcribed is not None:
                turn.reach("transcript_ms", transcribed)
            ended = transcribed = None
        elif kind in _STAGES:
            _reach(turns, message, _STAGES[kind])
    return tuple(turns.values())


def _reach(turns: dict[str, Turn], message: Message, stage: str) -> None:
    event = message.event
    response = event.get("response") or {}
    turn = turns.get(str(event.get("response_id") or response.get("id")))
    if turn is not None:
        turn.reach(stage, message.t_ms)
        turn.status = response.get("status", turn.status)
        turn.waterfall = waterfall_of(response.get("metadata")) or turn.waterfall
