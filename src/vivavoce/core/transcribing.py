"""What the transcriber is asked, and what the client is told of it (reference §4.4 T5, T6, T16).

An item with audio → `Transcribe` → reports → the transcript in `hearing`, and events where the client wants them. The
language model's answer waits for it. A turn that is being spoken is heard along where the transcriber can do that; with
a model that streams by nature, the client is told the words that will stay before the turn has ended.
Invariant: what is told ahead is the beginning of what is told of the item.
"""

from __future__ import annotations

from collections.abc import Callable

from vivavoce.audio.formats import Format
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.config import Transcription
from vivavoce.protocol.items import InputAudio

from . import configuration as cfg
from .adoption import Adopted
from .desk import Desk
from .messages import (
    Listen,
    StopListening,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
    TranscriptFailed,
    TranscriptSegment,
    WordsHeard,
)

DIARIZING = "diarize"
"""What names of transcription models have in them that tell speakers apart (§2.3)."""

STREAMING = ("gpt-realtime-whisper", "gpt-live-transcribe")
"""Models that tell what they hear while it is spoken, by the names that the API gives them."""

Report = TranscriptDelta | TranscriptSegment | TranscriptEnded | TranscriptFailed


class Transcribing:
    """The transcripts of one session.

    `format` is that of the input audio; `source_of` says under which id an item is being transcribed already; `heard`
    is called after every report, `transcribed` with the ms of what was written down for the client.
    """

    def __init__(
        self,
        desk: Desk,
        format: Callable[[], Format],
        source_of: Callable[[str], str | None],
        heard: Callable[[], None],
        transcribed: Callable[[int], None],
    ) -> None:
        self._desk = desk
        self._format = format
        self._source_of = source_of
        self._heard = heard
        self._transcribed = transcribed
        self._turn = ""
        """The open turn that is heard along."""
        self._words = ""
        """What is known of what was said in it."""
        self._told = ""
        """What the client was told of it."""

    # --- what is asked ------------------------------------------------------------------------------------------------

    @property
    def _wanted(self) -> Transcription | None:
        """What the client has asked for; None where it wants to be told nothing."""
        return given(cfg.audio_input(self._desk.config).transcription, None)

    @property
    def _is_of_use(self) -> bool:
        return self._desk.is_conversation or self._wanted is not None

    def listen_to(self, adopted: Adopted) -> None:
        """An item that came with audio is transcribed, unless it came with its transcript."""
        if adopted.audio is not None:
            self.transcribe(adopted.id, adopted.audio, adopted.audio_index)

    def transcribe(self, item_id: str, part: InputAudio, content_index: int = 0) -> None:
        """Keep what the user said, and have it transcribed where anybody wants to know."""
        audio, source_id = given(part.audio, None) or b"", self._source_of(item_id)
        heard = self._desk.hearing.begin(
            item_id,
            audio,
            self._format(),
            content_index=content_index,
            transcript=given(part.transcript, None),
            is_told=self._wanted is not None,
            with_logprobs=bool(given(self._desk.config.include, None)),
            source_id=source_id,
            told=self._told if item_id == self._turn else "",
        )
        heard.is_pending = heard.is_pending and self._is_of_use
        if heard.is_pending and source_id is None:
            self._desk.ask(self.request(item_id, audio, item_id))

    def request(self, item_id: str, audio: bytes, turn_id: str) -> Transcribe:
        """What the transcriber is asked, as the configuration is now. `turn_id`: what the turn is, or will be."""
        wanted = self._wanted
        hints = wanted or Transcription()
        return Transcribe(
            item_id,
            audio,
            self._format(),
            given(hints.language, None),
            given(hints.prompt, None),
            given(hints.keywords, ()),
            wanted is not None and bool(given(self._desk.config.include, None)),
            wanted is not None and DIARIZING in given(hints.model, ""),
            turn_id if turn_id == self._turn else "",
        )

    # --- a turn that is being spoken ----------------------------------------------------------------------------------

    def hear_along(self, turn_id: str, start: int, audio: bytes) -> None:
        """More of the open turn, behind `start` bytes of it."""
        if not self._is_of_use:
            return
        wanted = self.request(turn_id, audio, turn_id)
        if wanted.with_logprobs or wanted.with_speakers:
            return
        if turn_id != self._turn:
            self._turn, self._words, self._told = turn_id, "", ""
        hints = (wanted.language, wanted.prompt, wanted.keywords)
        self._desk.ask(Listen(turn_id, start, audio, wanted.format, *hints))

    def turn_over(self, turn_id: str) -> None:
        """The turn has become an item, or nothing."""
        if turn_id == self._turn:
            self._turn = ""
            self._desk.ask(StopListening(turn_id))

    # --- what the transcriber says ------------------------------------------------------------------------------------

    def take(self, report: Report) -> None:
        """A report; one that nobody waits for means nothing."""
        known = self._desk.hearing.pending(report.item_id)
        if known is None:
            return
        match report:
            case TranscriptDelta():
                known.pieces.append(report.text)
                known.logprobs.extend(report.logprobs)
            case TranscriptEnded():
                known.is_pending = False
                if known.is_told:
                    self._transcribed(known.ms)
            case TranscriptFailed():
                known.is_pending, known.failure = False, report
        if known.is_told and (event := known.told(report, self._desk.new_id)) is not None:
            self._desk.send(event)
        self._heard()

    def words_heard(self, report: WordsHeard) -> str | None:
        """All words of the open turn so far, the guessed ones too; None if this is no news.

        Those that will stay are told to the client if the model streams.
        """
        if report.item_id != self._turn:
            return None
        self._words += report.text
        wanted = self._wanted
        if report.text and wanted is not None and given(wanted.model, "").startswith(STREAMING):
            self._told += report.text
            self._desk.send(
                ev.ConversationItemInputAudioTranscriptionDelta(item_id=self._turn, content_index=0, delta=report.text)
            )
        return self._words + report.guess
