"""One turn, and one interruption, as the client's end of the wire sees them.

Fed with the events of a session and the time at which each came. Times count from the true end of speech (a turn) or
its true beginning (an interruption), in ms, so that they are what a person waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from vivavoce.audio.formats import PCM16_24K
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given

__all__ = ["FIRST_AUDIO", "STAGES", "BargeIn", "Turn"]

STAGES: Final = {
    "speech_stopped": "end of turn found",
    "committed": "committed",
    "created": "response created",
    "transcript": "transcript",
    "first_text": "first text",
    "first_audio": "first audio",
    "done": "response done",
}
"""What is timed, in the order in which it usually happens."""
FIRST_AUDIO: Final = "first_audio"

GRACE_S = 3.0
"""How long after the end of speech a turn may begin to be answered that seems to have been answered before."""
GAP_MS_MIN = 20.0
"""What a loudspeaker holds anyway: an answer that falls behind by less has no gap."""
_BYTES_PER_S = PCM16_24K.rate_hz * PCM16_24K.sample_bytes


@dataclass
class Turn:
    """One turn: when its stages were reached, in ms after the true end of speech. Times are seconds of one clock."""

    name: str
    spoken_ms: int
    ended_at: float
    stages: dict[str, float] = field(default_factory=dict)
    heard: str = ""
    answer: str = ""
    audio_ms: float = 0.0
    gaps: int = 0
    """How often a listener, who began at the first audio, ran out of it before the answer was complete."""
    gap_ms: float = 0.0
    error: str | None = None
    was_cut: bool = False
    """Whether the server found an end of the turn while it was still being spoken."""
    _item_id: str = ""
    _is_open: bool = False
    response_id: str = ""
    plays_until: float = 0.0
    """When a listener has heard all that has come."""

    def take(self, event: ev.AnyServerEvent | ev.Unknown, now: float) -> None:
        """Note an event. Where speech begins again after an early end, the stages begin again as well."""
        match event:
            case ev.InputAudioBufferSpeechStarted():
                self._begin_again()
            case ev.InputAudioBufferSpeechStopped():
                self.was_cut = self.was_cut or now < self.ended_at
                self._is_open = False
                self._mark("speech_stopped", now)
            case ev.InputAudioBufferCommitted():
                self._item_id = event.item_id
                self._mark("committed", now)
            case ev.ResponseCreated():
                self.response_id = event.response.id
                self._mark("created", now)
            case ev.ConversationItemInputAudioTranscriptionCompleted() if event.item_id == self._item_id:
                self.heard = event.transcript
                self._mark("transcript", now)
            case ev.ResponseOutputAudioTranscriptDelta() if event.response_id == self.response_id:
                self.answer += event.delta
                self._mark("first_text", now)
            case ev.ResponseOutputAudioDelta() if event.response_id == self.response_id:
                self._hear(len(event.delta) / _BYTES_PER_S, now)
            case ev.ResponseDone() if event.response.id == self.response_id:
                self._mark("done", now)
                if event.response.status != "completed":
                    self.error = f"the response ended {event.response.status}"
            case ev.ErrorEvent():
                self.error = event.error.message

    def _begin_again(self) -> None:
        self.stages.clear()
        self.heard = self.answer = self._item_id = self.response_id = ""
        self.audio_ms, self.gaps, self.gap_ms, self.error, self._is_open = 0.0, 0, 0.0, None, True

    def _mark(self, stage: str, now: float) -> None:
        self.stages.setdefault(stage, (now - self.ended_at) * 1000)

    def _hear(self, seconds: float, now: float) -> None:
        if FIRST_AUDIO not in self.stages:
            self.plays_until = now
        late_ms = (now - self.plays_until) * 1000
        if late_ms > 0:
            self.plays_until = now
        if late_ms >= GAP_MS_MIN:
            self.gaps += 1
            self.gap_ms += late_ms
        self.plays_until += seconds
        self.audio_ms += seconds * 1000
        self._mark(FIRST_AUDIO, now)

    def has_sounded(self, now: float) -> bool:
        """Whether all has been said, and the answer to it can be heard."""
        return not self._is_open and now >= self.ended_at and FIRST_AUDIO in self.stages

    def is_settled(self, now: float) -> bool:
        """Whether it is known by now if there is an answer."""
        return self.has_sounded(now) or self.is_over(now)

    def is_over(self, now: float) -> bool:
        """Whether everything that was said has been answered, as far as one can know."""
        if self._is_open or now < self.ended_at:
            return False
        if self.stages.get("done", 0.0) > 0:
            return True
        return now > self.ended_at + GRACE_S and ("done" in self.stages or not self.stages)

    def check(self) -> None:
        """Say what is missing."""
        if self._is_open:
            self.error = "speech was found, but not its end"
        elif self.error is None and FIRST_AUDIO not in self.stages:
            self.error = "no answer" if self.stages else "no speech was found"
        elif self.error is None and "done" not in self.stages:
            self.error = "the answer has no end"

    @property
    def after_commit_ms(self) -> float | None:
        """From the commit to the first audio."""
        if FIRST_AUDIO not in self.stages or "committed" not in self.stages:
            return None
        return self.stages[FIRST_AUDIO] - self.stages["committed"]


@dataclass
class BargeIn:
    """The user speaks while an answer comes: how soon the endpoint is silent, in ms after the onset of speech."""

    name: str
    response_id: str
    onset_at: float
    stages: dict[str, float] = field(default_factory=dict)
    """`speech_started`, and `last_audio` and `done` of the interrupted answer; none is below 0. There is no
    `last_audio` where the endpoint sent none of the answer after the onset: it was ahead, and between two phrases."""
    status: str = ""
    """How the interrupted answer ended; empty while it has not."""
    was_late: bool = False
    """Whether the answer was complete already, so that there was nothing left to stop."""

    def take(self, event: ev.AnyServerEvent | ev.Unknown, now: float) -> None:
        """Note an event."""
        ms = max(now - self.onset_at, 0.0) * 1000
        match event:
            case ev.InputAudioBufferSpeechStarted():
                self.stages.setdefault("speech_started", ms)
            case ev.ResponseOutputAudioDelta() if event.response_id == self.response_id and now > self.onset_at:
                self.stages["last_audio"] = ms
            case ev.ResponseDone() if event.response.id == self.response_id:
                self.was_late = now < self.onset_at
                self.stages["done"] = ms
                self.status = given(event.response.status, "")
