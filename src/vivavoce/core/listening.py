"""The ear of the session: from appended audio to committed turns (reference §3.4–§3.6, §5).

Owns the input buffer, the audio clock and the turn that is open; says what it decides through `Ear`'s callbacks, in the
order in which it is heard. Audio is cleaned first where noise reduction is on, then scored. Invariant: scores and clean
audio of an older epoch change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from vivavoce.audio.formats import Format
from vivavoce.protocol import events as ev

from .input_audio import TICKS_PER_BYTE_MAX, InputAudio, ms_of, ticks_of
from .limits import Limits
from .messages import DetectSpeech, Effect, JudgeTurn, NoiseReduced, ReduceNoise, SpeechScored, TurnJudged
from .refused import Refused
from .turns import Decision, Paused, SpeechStarted, Turns, TurnSettings


@dataclass(frozen=True, slots=True)
class Reduction:
    """Noise reduction as it is set: where the microphone is, and how much of the noise goes."""

    field: Literal["near_field", "far_field"]
    strength: float


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """The user is speaking: the item that it will become, and where it began."""

    item_id: str
    start: int


@dataclass(slots=True)
class Cleaning:
    """Noise reduction under way: `until` is the tick up to which the buffer is clean."""

    epoch: int
    reduction: Reduction
    until: int


@dataclass(slots=True)
class Along:
    """A turn that is heard along: its item, its beginning, and up to where it was handed on, in ticks."""

    item_id: str
    start: int
    until: int


@dataclass(frozen=True, slots=True)
class Ear:
    """What the listener may do outside itself."""

    send: Callable[[ev.AnyServerEvent], None]
    ask: Callable[[Effect], None]
    new_id: Callable[[str], str]
    turn_started: Callable[[], None]
    committed: Callable[[str, bytes], None]
    turn_ended: Callable[[], None]
    language: Callable[[], str | None] = lambda: None
    """The one that the user is expected to speak, where that was said."""
    quiet_ms: int = 0
    """Silence in a turn of which the ear wants to be told; 0: of none."""
    fell_silent: Callable[[str, bytes], None] = lambda item_id, audio: None
    """The open turn may end with this silence: its item, and its audio so far. Either `resumed` follows, or
    `committed` with no more than silence behind that audio."""
    resumed: Callable[[], None] = lambda: None
    hear_along: Callable[[str, int, bytes], None] | None = None
    """More of the open turn: the item that it will become, how many bytes of it came before, and what is new. None
    where nobody hears along."""
    turn_over: Callable[[str], None] = lambda item_id: None
    """What was heard along has become its item, or is dropped."""


class Listening:
    """Input audio of one session. `settings` None means that the client marks the turns."""

    def __init__(self, format: Format, limits: Limits, ear: Ear) -> None:
        self._audio = InputAudio(format)
        self._limits = limits
        self._ticks_max = ticks_of(limits.input_ms_max)
        self._ear = ear
        self._epoch = 0
        self._turns: Turns | None = None
        self._scores_from = 0
        self._turn: OpenTurn | None = None
        self._cleaning: Cleaning | None = None
        self._cleanings = 0
        self._pauses = 0
        self._silence: int | None = None
        """Where the silence began of which the ear was told."""
        self._kept: tuple[int, int] | None = None
        self._along: Along | None = None

    @property
    def format(self) -> Format:
        """The layout of the audio that comes in."""
        return self._audio.format

    @property
    def holds_audio_to_keep(self) -> bool:
        """Whether the buffer holds more than the rolling prefix of a turn that has not begun."""
        return bool(self._audio) and (self._turns is None or self._turn is not None)

    @property
    def end(self) -> int:
        """The audio clock: the tick up to which audio has come."""
        return self._audio.end

    @property
    def silent_since(self) -> int | None:
        """The tick at which the silence began that ended a turn, or may end the open one; None where there is none."""
        return None if self._turns is None else self._turns.silent_since

    @property
    def open_item_id(self) -> str | None:
        """The id under which the turn that is open will be committed."""
        return self._turn.item_id if self._turn else None

    @property
    def next_item_id(self) -> str | None:
        """The id of the item that the audio in the buffer will be, where it has one already."""
        return self._along.item_id if self._along else self.open_item_id

    def begin(self, settings: TurnSettings | None) -> None:
        """Wait for speech from here on: a new epoch, in which scores of older ones are stale."""
        self._epoch += 1
        self._turn = None
        self._stop_hearing_along()
        self._hear(settings, is_open=False)

    def _hear(self, settings: TurnSettings | None, *, is_open: bool) -> None:
        self._resume()
        longest_ms, self._scores_from = self._limits.turn_ms_max, self._audio.end
        self._turns = Turns(settings, self._audio.end, speaking=is_open, longest_ms=longest_ms) if settings else None

    def change(self, settings: TurnSettings | None) -> None:
        """Other parameters apply from the next scores; on or off begins a new epoch (§5.4).

        A turn that is open stays open under its item id: without detection until the client commits it.
        """
        if self._turns is not None and settings is not None:
            self._follow(self._turns, self._turns.change(settings))
            return
        self._epoch += 1
        if self._turn is None:
            self._stop_hearing_along()
        self._hear(settings, is_open=self._turn is not None)

    def change_format(self, format: Format, settings: TurnSettings | None) -> None:
        """Audio from here on is in another format."""
        self._audio.change_format(format)
        self.begin(settings)
        if self._cleaning is not None:
            self.reduce_noise(self._cleaning.reduction)

    def reduce_noise(self, reduction: Reduction | None) -> None:
        """Clean the audio from here on, or no more; what is being cleaned stays as it came."""
        unclean, self._cleaning = self._cleaning, None
        if unclean is not None:
            begin = max(unclean.until, self._audio.start)
            self._detect(begin, self._audio.since(begin))
        if reduction is not None:
            self._cleanings += 1
            self._cleaning = Cleaning(self._cleanings, reduction, self._audio.end)

    def keep_quiet_audio(self, ms_max: int | None) -> None:
        """Keep the last `ms_max` of what is heard from here on, though nobody speaks; None: only what a turn needs."""
        self._kept = None if ms_max is None else (self._audio.end, ticks_of(ms_max))

    # --- what the client does -----------------------------------------------------------------------------------------

    def append(self, audio: bytes) -> int:
        """More audio; it is cleaned where that is wanted, and scored where turns are found by us. Returns `end`."""
        held = self._audio
        begin = held.end
        fits_surely = begin - held.start + TICKS_PER_BYTE_MAX * (len(audio) + 1) <= self._ticks_max
        if not fits_surely and held.ticks_with(audio) > self._ticks_max:
            raise Refused(
                "input_audio_buffer_full",
                f"The input audio buffer holds at most {self._limits.input_ms_max} ms; commit or clear it first.",
                "audio",
            )
        new = held.append(audio)
        if self._cleaning is None:
            if self._turns is not None:
                self._detect(begin, new)
        elif new:
            reduction = self._cleaning.reduction
            self._ear.ask(ReduceNoise(self._cleaning.epoch, new, held.format, reduction.field, reduction.strength))
        if self._turns is None and self._ear.hear_along is not None:
            self._hear_along()
        return held.end

    def commit(self) -> None:
        """The client ends the turn; there will be no `speech_stopped` for it."""
        held = self._audio.ticks
        if held < ticks_of(self._limits.commit_ms_min):
            raise Refused(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{self._limits.commit_ms_min}ms of audio, but buffer only has {held / ticks_of(1):.2f}ms of audio.",
            )
        item_id = self.next_item_id or self._ear.new_id("item")
        audio = self._audio.take_until(self._audio.end)
        along, self._along = self._along, None
        self.begin(self._turns.settings if self._turns else None)
        self._ear.committed(item_id, audio)
        if along is not None:
            self._ear.turn_over(along.item_id)

    def clear(self) -> None:
        """The client throws the buffer away, a turn in progress with it."""
        self._audio.clear()
        self.begin(self._turns.settings if self._turns else None)
        self._ear.send(ev.InputAudioBufferCleared())

    # --- what time does -----------------------------------------------------------------------------------------------

    def time_out(self, timeout_ms: int) -> None:
        """Nobody spoke for so long: commit the silence (§4.4 T15)."""
        end, item_id = self._audio.end, self._ear.new_id("item")
        start = max(self._audio.start, end - ticks_of(timeout_ms))
        self._audio.forget_before(start)
        self._ear.send(
            ev.InputAudioBufferTimeoutTriggered(
                item_id=item_id, audio_start_ms=ms_of(self._audio.start), audio_end_ms=ms_of(end)
            )
        )
        audio = self._audio.take_until(end)
        self.begin(self._turns.settings if self._turns else None)
        self._ear.committed(item_id, audio)

    # --- what the engines say -----------------------------------------------------------------------------------------

    def clean(self, report: NoiseReduced) -> None:
        """Clean audio takes the place of what was appended, and is scored."""
        cleaning = self._cleaning
        if cleaning is None or report.epoch != cleaning.epoch:
            return
        if report.is_over:
            self.reduce_noise(None)
            return
        begin = cleaning.until
        cleaning.until += self._audio.ticks_in(report.audio)
        self._audio.overwrite(begin, report.audio)
        self._detect(begin, report.audio)
        if self._turns is None:
            self._hear_along()

    def _detect(self, begin: int, audio: bytes) -> None:
        """Ask for scores of the part that belongs to this epoch."""
        if self._turns is None:
            return
        if begin < self._scores_from:
            audio = audio[self._audio.bytes_of(self._scores_from - begin) :]
        if audio:
            self._ear.ask(DetectSpeech(self._epoch, audio, self._audio.format))

    def score(self, scores: SpeechScored) -> None:
        """Scores of audio that was appended; they may begin and end turns."""
        if self._turns is not None and scores.epoch == self._epoch:
            self._follow(self._turns, self._turns.push(scores.probabilities, scores.frame_ms))

    def judged(self, report: TurnJudged) -> None:
        """Whether the user, who paused, has finished."""
        if self._turns is not None and self._turns.is_judging and report.pause == self._pauses:
            self._follow(self._turns, self._turns.judged(report.probability))

    def _follow(self, turns: Turns, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, SpeechStarted):
                self._start(decision.onset, turns.settings.prefix_padding_ms)
            elif isinstance(decision, Paused):
                self._pause(decision.at)
            else:
                self._end(decision.end, turns.silent_since)
        if self._turn is None:
            self._audio.forget_before(turns.needed_from if self._kept is None else self._needed_from(turns))
        else:
            self._hear_along()
            self._note_silence(turns, self._turn)

    def _note_silence(self, turns: Turns, turn: OpenTurn) -> None:
        """Tell of a silence that may be the end of the turn, and of speech behind it."""
        since, least = turns.silent_since, ticks_of(self._ear.quiet_ms)
        if since != self._silence:
            self._resume()
        if since is not None and self._silence is None and 0 < least <= turns.position - since:
            self._silence = since
            self._ear.fell_silent(turn.item_id, self._audio.until(turns.position))

    def _resume(self) -> None:
        if self._silence is not None:
            self._silence = None
            self._ear.resumed()

    def _needed_from(self, turns: Turns) -> int:
        if self._kept is None:
            return turns.needed_from
        since, ticks_max = self._kept
        return min(turns.needed_from, max(since, self._audio.end - ticks_max))

    def _start(self, onset: int, padding_ms: int) -> None:
        self._audio.forget_before(onset - ticks_of(padding_ms))
        self._turn = OpenTurn(self._ear.new_id("item"), self._audio.start)
        self._ear.send(
            ev.InputAudioBufferSpeechStarted(item_id=self._turn.item_id, audio_start_ms=ms_of(self._turn.start))
        )
        self._ear.turn_started()

    def _pause(self, at: int) -> None:
        assert self._turn is not None
        self._pauses += 1
        audio = self._audio.until(at)[-self._audio.format.bytes_of(self._limits.judged_ms_max) :]
        self._ear.ask(JudgeTurn(self._turn.item_id, self._pauses, audio, self._audio.format, self._ear.language()))

    def _end(self, end: int, silent_since: int | None) -> None:
        turn, self._turn = self._turn, None
        assert turn is not None
        if silent_since != self._silence:
            self._resume()
        self._silence = None
        self._ear.send(ev.InputAudioBufferSpeechStopped(item_id=turn.item_id, audio_end_ms=ms_of(end)))
        self._ear.committed(turn.item_id, self._audio.take_until(end))
        self._stop_hearing_along()
        self._ear.turn_ended()

    # --- the turn, while it is spoken ---------------------------------------------------------------------------------

    def _hear_along(self) -> None:
        """Hand on what is new of the turn. Where the client marks the turns, it is what the buffer holds."""
        if self._ear.hear_along is None:
            return
        if self._along is None:
            start = self._turn.start if self._turn else self._audio.start
            self._along = Along(self.open_item_id or self._ear.new_id("item"), start, start)
        along = self._along
        if self._turns is not None:
            until = self._turns.position
        else:
            until = self._audio.end if self._cleaning is None else self._cleaning.until
        if audio := self._audio.between(along.until, until):
            self._ear.hear_along(along.item_id, self._audio.bytes_of(along.until - along.start), audio)
            along.until = until

    def _stop_hearing_along(self) -> None:
        along, self._along = self._along, None
        if along is not None:
            self._ear.turn_over(along.item_id)
