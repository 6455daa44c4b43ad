"""One turn, seen from the client: what was heard, what came back, and when.

Fed with the events of a connection in the order in which they come; the clock is handed in. Times count from the end of
the user's turn, so that they are what a person waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.items import FunctionCall, Message, OutputAudio, OutputText, Response

STAGES = {
    "turn_found": "turn end found",
    "transcript": "transcript",
    "first_text": "first word",
    "first_audio": "first audio",
    "played": "played",
    "done": "answer complete",
}
"""What is timed, in the order in which it usually happens."""

ON_THE_SERVER = "the same on the server, from the end of the turn as it heard it"
"""What stands above the waterfall of a server that tells it."""


@dataclass(slots=True)
class Turn:
    """What one turn brought. `marks_ms` holds the stages that were reached, in ms since the user's turn ended."""

    clock: Callable[[], float]
    ended_at: float | None = None
    item_id: str | None = None
    transcript: str | None = None
    answer: str = ""
    calls: list[str] = field(default_factory=list)
    audio: bytearray = field(default_factory=bytearray)
    marks_ms: dict[str, float] = field(default_factory=dict)
    response: Response | None = None
    error: str | None = None
    interrupted_at_ms: int | None = None

    def end_of_speech(self) -> None:
        """The user has said the last of it, now."""
        self.ended_at = self.clock()

    def mark(self, stage: str) -> None:
        """The stage was reached, now; only the first time counts."""
        if self.ended_at is not None:
            self.marks_ms.setdefault(stage, (self.clock() - self.ended_at) * 1000)

    def take(self, event: ev.AnyServerEvent | ev.Unknown) -> None:
        """Note what an event says about this turn."""
        match event:
            case ev.InputAudioBufferCommitted():
                self._begin(event.item_id)
            case ev.ConversationItemInputAudioTranscriptionCompleted() if event.item_id == self.item_id:
                self.transcript = event.transcript
                self.mark("transcript")
            case ev.ConversationItemInputAudioTranscriptionFailed() if event.item_id == self.item_id:
                self.error = given(event.error.message, None) or "the transcription failed"
            case ev.ResponseOutputTextDelta() | ev.ResponseOutputAudioTranscriptDelta():
                self.answer += event.delta
                self.mark("first_text")
            case ev.ResponseOutputAudioDelta():
                self.audio += event.delta
                self.mark("first_audio")
            case ev.ResponseDone():
                self._finish(event.response)
            case ev.ErrorEvent():
                self.error = event.error.message

    def _begin(self, item_id: str) -> None:
        """The user's turn; where they paused so long that the server found several, the last one counts."""
        self.item_id = item_id
        self.transcript, self.response, self.answer = None, None, ""
        self.audio.clear()
        self.mark("turn_found")

    def _finish(self, response: Response) -> None:
        if self._is_given_up(response):
            return
        self.mark("done")
        self.response = response
        self.calls = [f"{item.name}({item.arguments})" for item in response.output if isinstance(item, FunctionCall)]
        if not self.answer:
            self.answer = " ".join(_said(item) for item in response.output if isinstance(item, Message))
        details = given(response.status_details, None)
        if response.status == "failed" and details is not None and (error := given(details.error, None)):
            self.error = given(error.message, None) or "the response failed"

    @staticmethod
    def _is_given_up(response: Response) -> bool:
        """Whether the user went on speaking, so that this was not the answer."""
        details = given(response.status_details, None)
        return response.status == "cancelled" and details is not None and details.reason == "turn_detected"

    @property
    def is_over(self) -> bool:
        """Whether the answer is complete, and the transcript there or known not to come."""
        return self.error is not None or (
            self.response is not None and (self.transcript is not None or self.item_id is None)
        )


def _said(message: Message) -> str:
    texts = []
    for part in message.content:
        if isinstance(part, OutputText):
            texts.append(part.text)
        elif isinstance(part, OutputAudio):
            texts.append(given(part.transcript, None) or "")
    return "".join(texts)
