"""One turn that is heard while it is spoken: the client's audio on its way into a transcriber that can do that.

`Listen` effects → converter → the engine's `Listening`; what is asked of the turn with `Transcribe` or `JudgeTurn` is
settled from there. Invariant: the engine has heard the first `taken` bytes of the turn, each once, or the turn is not
heard along any more, and whoever asks has to transcribe it from its audio.
"""

from __future__ import annotations

from vivavoce.audio.convert import Converter
from vivavoce.audio.formats import pcm16
from vivavoce.core.messages import Listen, Transcribe
from vivavoce.engines import IncrementalTranscriber, Told, TranscriptionHints

from .detection import SLICE_MS


class Along:
    """The open turn of one session."""

    def __init__(self, engine: IncrementalTranscriber, first: Listen, told: Told) -> None:
        self.item_id = first.item_id
        self._format = first.format
        self._hints = _hints(first)
        self._converter = Converter(first.format, pcm16(engine.rate_hz))
        self._listening = engine.listen(self._hints, told)
        self._taken = 0
        self._asked = 0
        self._is_over = False

    def push(self, wanted: Listen) -> bool:
        """More of the turn. False where this cannot be heard along: there is a gap, or it comes all at once."""
        if wanted.start > self._taken or len(wanted.audio) > self._format.bytes_of(SLICE_MS):
            return False
        self._push(wanted.audio[self._taken - wanted.start :])
        return True

    def _push(self, audio: bytes) -> None:
        self._taken += len(audio)
        self._listening.push(self._converter.push(audio))

    def knows(self, wanted: Transcribe) -> bool:
        """Whether what is wanted can be had from here: the same turn, heard with the same hints, and no more of it."""
        return (
            wanted.turn_id == self.item_id
            and not wanted.with_logprobs
            and not wanted.with_speakers
            and wanted.format == self._format
            and _hints(wanted) == self._hints
            and self._taken <= len(wanted.audio) <= self._taken + self._format.bytes_of(SLICE_MS)
        )

    def hold(self) -> None:
        """Somebody will ask `settle`, and until `let_go` the turn is kept for that, though it ends before."""
        self._asked += 1

    def let_go(self) -> None:
        """Who held it has an answer, or wants none."""
        self._asked -= 1
        self._leave()

    async def settle(self, audio: bytes = b"") -> str:
        """The transcript of the turn so far, of which `audio` is the whole. Raises `EngineError`."""
        self.hold()
        try:
            self._push(audio[self._taken :])
            if self._is_over:  # nothing follows: what the converter holds back is the end of it
                self._listening.push(self._converter.flush())
            return await self._listening.settle()
        finally:
            self.let_go()

    def end(self) -> None:
        """The turn is over; the engine lets go of it once nobody waits for it any more."""
        self._is_over = True
        self._leave()

    def _leave(self) -> None:
        if self._is_over and not self._asked:
            self._listening.cancel()


def _hints(wanted: Listen | Transcribe) -> TranscriptionHints:
    return TranscriptionHints(wanted.language, wanted.prompt, wanted.keywords)
