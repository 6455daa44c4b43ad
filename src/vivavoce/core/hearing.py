"""What the machine knows of user items beyond their events: their audio, and what the transcriber heard in it.

The client is told a transcript only where it asked for transcription; the language model needs it always. Audio is kept
up to a limit, oldest let go first. Invariant: a transcript is pending from `begin` until exactly one of `end`, `fail`
or `forget`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vivavoce.audio.formats import Format
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET

from .messages import TranscriptDelta, TranscriptEnded, TranscriptFailed, TranscriptSegment


@dataclass(slots=True)
class Heard:
    """One user item's audio and its transcript so far."""

    item_id: str
    source_id: str
    """Under which id the transcriber works for it: its own, or that of a turn that was transcribed before it ended."""
    audio: bytes
    audio_bytes: int
    format: Format
    content_index: int
    """Where in the item's content the audio stands."""
    is_told: bool
    """Whether the client wants to be told the transcript."""
    with_logprobs: bool = False
    """Whether the client wants to be told how probable each token is."""
    pieces: list[str] = field(default_factory=list)
    logprobs: list[ev.LogProb] = field(default_factory=list)
    told_ahead: str = ""
    """What the client was told of it while it was spoken."""
    is_pending: bool = True
    is_silence: bool = False
    """Whether it is what was heard while nobody spoke for `idle_timeout_ms`."""
    failure: TranscriptFailed | None = None

    @property
    def transcript(self) -> str:
        """What was heard; empty while nothing is known."""
        return "".join(self.pieces).strip()

    @property
    def ms(self) -> int:
        """Duration of the audio."""
        return self.format.ms(self.audio_bytes // self.format.sample_bytes)

    def told(
        self,
        report: TranscriptDelta | TranscriptSegment | TranscriptEnded | TranscriptFailed,
        new_id: Callable[[str], str],
    ) -> ev.AnyServerEvent | None:
        """A report on this transcript as the client is told it; None for words that it was told before."""
        item_id, content_index = self.item_id, self.content_index
        match report:
            case TranscriptDelta():
                if not (text := self._untold(report.text)):
                    return None
                return ev.ConversationItemInputAudioTranscriptionDelta(
                    item_id=item_id,
                    content_index=content_index,
                    delta=text,
                    logprobs=report.logprobs if self.with_logprobs else UNSET,
                )
            case TranscriptSegment():
                return ev.ConversationItemInputAudioTranscriptionSegment(
                    id=new_id("seg"),
                    item_id=item_id,
                    content_index=content_index,
                    text=report.text,
                    speaker=report.speaker,
                    start=report.start_s,
                    end=report.end_s,
                )
            case TranscriptEnded():
                return ev.ConversationItemInputAudioTranscriptionCompleted(
                    item_id=item_id,
                    content_index=content_index,
                    transcript="".join(self.pieces),
                    usage=ev.DurationUsage(seconds=self.ms / 1000),
                    logprobs=tuple(self.logprobs) if self.with_logprobs else UNSET,
                )
            case TranscriptFailed():
                error = ev.TranscriptionError(type="transcription_error", code=report.code, message=report.message)
                return ev.ConversationItemInputAudioTranscriptionFailed(
                    item_id=item_id, content_index=content_index, error=error
                )

    def _untold(self, text: str) -> str:
        """What is new to the client in `text`, the last piece. Where it was told otherwise, it waits for the whole."""
        if not self.told_ahead:
            return text
        whole = "".join(self.pieces)
        if not whole.startswith(self.told_ahead):
            return ""
        text, self.told_ahead = whole[len(self.told_ahead) :], whole
        return text


class Hearing:
    """All user audio of a session, by item."""

    def __init__(self, bytes_max: int) -> None:
        self._items: dict[str, Heard] = {}
        self._sources: dict[str, str] = {}
        """Items by the ids under which they are transcribed, where these are not their own."""
        self._bytes_max = bytes_max
        self._bytes = 0

    def get(self, item_id: str) -> Heard | None:
        """What is known of an item; None for one without audio."""
        return self._items.get(item_id)

    def pending(self, source_id: str) -> Heard | None:
        """What is being transcribed under this id; None where nothing is: reports for it are stale."""
        heard = self._items.get(self._sources.get(source_id, source_id))
        return heard if heard is not None and heard.is_pending and heard.source_id == source_id else None

    def begin(
        self,
        item_id: str,
        audio: bytes,
        format: Format,
        *,
        content_index: int = 0,
        transcript: str | None = None,
        is_told: bool,
        with_logprobs: bool = False,
        source_id: str | None = None,
        told: str = "",
    ) -> Heard:
        """Keep an item's audio. Nothing is pending where the transcript is known, or there is nothing to hear."""
        heard = self._items[item_id] = Heard(
            item_id,
            source_id or item_id,
            audio,
            len(audio),
            format,
            content_index,
            is_told,
            with_logprobs,
            told_ahead=told,
        )
        if source_id is not None:
            self._sources[source_id] = item_id
        heard.pieces += [transcript] if transcript else []
        heard.is_pending = bool(audio) and not transcript
        self._bytes += len(audio)
        for other in self._items.values():
            if self._bytes <= self._bytes_max or other is heard:
                break
            self._bytes -= len(other.audio)
            other.audio = b""
        return heard

    def forget(self, item_id: str) -> str | None:
        """The item is gone. Says under which id it is still being transcribed, if it is."""
        heard = self._items.pop(item_id, None)
        if heard is None:
            return None
        self._bytes -= len(heard.audio)
        self._sources.pop(heard.source_id, None)
        return heard.source_id if heard.is_pending else None
