"""When the steps of each response were reached: a fold over what the session machine hears, asks for and sends.

It stands at the door, so it knows the time of an engine's report also where the report is held until later: a step of
an answer that is prepared before the turn ends lies before the commit. Says what it knows as `Waterfall`s, in the
`response.done` of a client that asked, and to the `Watch` of the server. Invariants: it decides nothing, and changes
no event but that one pair of metadata; what it remembers is bounded, and the oldest is forgotten first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from msgspec import structs

from vivavoce.audio.formats import PCM16_24K, Format
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.items import AudioOutputResource, Message, Response, ResponseAudioResource
from vivavoce.protocol.waterfall import Origin, Step, Waterfall, told_in

from .conversation import format_of
from .input_audio import TICKS_PER_SECOND, ms_of, ticks_of
from .messages import (
    AudioSynthesized,
    CallStarted,
    Cancel,
    Generate,
    GenerationEnded,
    PhraseSpoken,
    PlaybackStarted,
    Speak,
    StopPlayback,
    TextGenerated,
    TranscriptEnded,
    TranscriptFailed,
)

ARRIVALS_MAX = 32
"""Moments of the input audio that are remembered."""
ARRIVAL_MS = 200
"""How far they are apart, in audio; between two of them audio is taken to have come evenly."""
_ARRIVAL_TICKS = ticks_of(ARRIVAL_MS)
TRANSCRIPTS_MAX = 64
"""Transcripts whose time is remembered."""
RUNS_MAX = 64
"""Responses that are timed at once, those included that are only prepared, or wait to be played."""


TIMED = frozenset(
    {
        TranscriptEnded,
        TranscriptFailed,
        TextGenerated,
        CallStarted,
        GenerationEnded,
        AudioSynthesized,
        PhraseSpoken,
        PlaybackStarted,
    }
)
"""The inputs that reach a step. Audio and its scores do not, many times a second."""

TOLD = frozenset({Generate, Speak, Cancel, StopPlayback})
"""The effects that do, or end the wait for one."""


class Watch(Protocol):
    """What a server wants to be told of one of its sessions."""

    def committed(self) -> None:
        """A turn of the user was committed."""
        ...

    def measured(self, response: Response, waterfall: Waterfall) -> None:
        """A response is over, and where the server plays, its first audio was played or will not be."""
        ...

    def erred(self, error: ev.ErrorDetail) -> None:
        """The client was told an error."""
        ...


class Arrivals:
    """When which part of the input audio came: ticks of the audio clock to wall time, for the last seconds."""

    def __init__(self) -> None:
        self._known: list[tuple[int, int]] = []
        self._last = (0, 0)
        self._next = 0
        """The tick from which on a moment is remembered."""

    def note(self, tick: int, now_ms: int) -> None:
        """The audio up to this tick is there."""
        self._last = last = (tick, now_ms)
        if tick >= self._next:
            self._next = tick + _ARRIVAL_TICKS
            self._known.append(last)
            del self._known[:-ARRIVALS_MAX]

    def when(self, tick: int) -> int:
        """When the audio up to this tick was there, in wall time."""
        after = self._last
        for before in reversed(self._known):
            if before[0] <= tick:
                return _between(before, after, tick)
            after = before
        # Longer ago than is remembered: taken as if it had come in real time.
        return after[1] - ms_of(max(after[0] - tick, 0))


def _between(before: tuple[int, int], after: tuple[int, int], tick: int) -> int:
    ticks, ms = after[0] - before[0], after[1] - before[1]
    return before[1] + (ms * min(tick - before[0], ticks) // ticks if ticks > 0 else 0)


@dataclass(frozen=True, slots=True)
class SpokenTurn:
    """A turn that was committed, and not answered yet."""

    item_id: str
    committed: int
    speech_end: int | None
    """None where voice activity did not end it."""
    source_id: str
    """Under which id it is transcribed."""


@dataclass(slots=True)
class _Run:
    """What is known of one response. Times are those of the session."""

    at: dict[Step, int] = field(default_factory=dict)
    turn: SpokenTurn | None = None
    format: Format = PCM16_24K
    audio_bytes: int = 0
    done: Response | None = None
    """The response once it is over, while its playback is waited for."""

    def reach(self, step: Step, now_ms: int) -> None:
        """Only the first time counts."""
        self.at.setdefault(step, now_ms)


class Stopwatch:
    """Times the responses of one session. `silent_since` says at which tick the present silence began.

    `tells` puts the waterfall into every response, asked or not; with `plays` a response is told to the watch when it
    is played.
    """

    def __init__(
        self,
        silent_since: Callable[[], int | None],
        *,
        watch: Watch | None = None,
        tells: bool = False,
        plays: bool = False,
    ) -> None:
        self._silent_since = silent_since
        self._watch = watch
        self._tells = tells
        self._plays = plays
        self._arrivals = Arrivals()
        self.arrived = self._arrivals.note
        """The input audio up to this tick is there, at this time in ms."""
        self._speech_ends: tuple[str, int] | None = None
        self._turn: SpokenTurn | None = None
        self._transcripts: dict[str, int] = {}
        self._runs: dict[str, _Run] = {}
        self.spoken = 0
        """Speech that was sent, in ticks."""

    # --- what it sees -------------------------------------------------------------------------------------------------

    def heard(self, input: Any, now_ms: int) -> None:
        """An input, as it comes to the door; only those that are `TIMED` say anything."""
        match input:
            case AudioSynthesized():
                if (run := self._runs.get(input.response_id)) is not None and run.done is None and input.audio:
                    run.at.setdefault("first_audio", now_ms)  # `reach`; this and the next are done for all audio
            case TranscriptEnded() | TranscriptFailed():
                self._transcripts[input.item_id] = now_ms
                _bound(self._transcripts, TRANSCRIPTS_MAX)
            case PlaybackStarted():
                if (run := self._runs.get(input.response_id)) is not None:
                    run.reach("played", now_ms)
                    if run.done is not None:
                        self._tell(input.response_id, run.done)
            case _:
                if (run := self._runs.get(input.response_id)) is not None and run.done is None:
                    _note(run, input, now_ms)

    def asked(self, effect: Any, now_ms: int) -> None:
        """An effect that is no event; only those that are `TOLD` say anything."""
        match effect:
            case Generate():
                self._run(effect.response_id).reach("prompted", now_ms)
            case Speak():
                self._run(effect.response_id).reach("first_phrase", now_ms)
            case Cancel() if (run := self._runs.get(effect.owner_id)) is not None and "requested" not in run.at:
                del self._runs[effect.owner_id]  # it was prepared in vain
            case StopPlayback():
                self.flush()

    def sent(self, event: ev.AnyServerEvent, now_ms: int) -> ev.AnyServerEvent:
        """An event on its way out: the same, or `response.done` with the waterfall that the client asked for."""
        match event:
            case ev.ResponseOutputAudioDelta():
                if (run := self._runs.get(event.response_id)) is not None:
                    run.at.setdefault("first_sent", now_ms)
                    run.audio_bytes += len(event.delta)
                    self.spoken += len(event.delta) // run.format.sample_bytes * TICKS_PER_SECOND // run.format.rate_hz
            case ev.ResponseOutputTextDelta():
                if (run := self._runs.get(event.response_id)) is not None:
                    run.reach("first_sent", now_ms)
            case ev.InputAudioBufferSpeechStopped():
                self._speech_ended(event.item_id, now_ms)
            case ev.InputAudioBufferCommitted():
                speech = self._speech_ends
                ended = speech[1] if speech is not None and speech[0] == event.item_id else None
                self._turn = SpokenTurn(event.item_id, now_ms, ended, event.item_id)
                if self._watch is not None:
                    self._watch.committed()
            case ev.ConversationItemAdded(item=Message(role="user") as item):
                if self._turn is not None and item.id != self._turn.item_id:
                    self._turn = None  # what is answered next is what was written
            case ev.ResponseCreated():
                self._created(event.response, now_ms)
            case ev.ResponseDone():
                return self._done(event, now_ms)
            case ev.ErrorEvent() if self._watch is not None:
                self._watch.erred(event.error)
        return event

    def transcribing(self, item_id: str, source_id: str | None) -> None:
        """An item is transcribed; since before it was one, and under this id, where one is given."""
        if self._turn is not None and self._turn.item_id == item_id:
            self._turn = replace(self._turn, source_id=source_id or item_id)

    def flush(self) -> None:
        """What was not played by now, will not be."""
        for response_id, run in list(self._runs.items()):
            if run.done is not None:
                self._tell(response_id, run.done)

    # --- what it makes of it ------------------------------------------------------------------------------------------

    def _run(self, response_id: str) -> _Run:
        run = self._runs.setdefault(response_id, _Run())
        _bound(self._runs, RUNS_MAX)
        return run

    def _speech_ended(self, item_id: str, now_ms: int) -> None:
        tick = self._silent_since()
        self._speech_ends = (item_id, now_ms if tick is None else min(self._arrivals.when(tick), now_ms))

    def _created(self, response: Response, now_ms: int) -> None:
        self.flush()
        run = self._run(response.id)
        run.reach("requested", now_ms)
        output = given(given(response.audio, ResponseAudioResource()).output, AudioOutputResource())
        run.format = format_of(output.format)
        if given(response.conversation_id, None) is not None:
            run.turn, self._turn = self._turn, None

    def _done(self, event: ev.ResponseDone, now_ms: int) -> ev.ResponseDone:
        run = self._run(event.response.id)
        run.reach("done", now_ms)
        told = told_in(event.response, self._waterfall(run), always=self._tells)
        if self._plays and self._watch is not None and run.audio_bytes and "played" not in run.at:
            run.done = event.response
        else:
            self._tell(event.response.id, event.response)
        return event if told is event.response else structs.replace(event, response=told)

    def _tell(self, response_id: str, response: Response) -> None:
        run = self._runs.pop(response_id)
        if self._watch is not None:
            self._watch.measured(response, self._waterfall(run))

    def _waterfall(self, run: _Run) -> Waterfall:
        origin, at = self._origin(run)
        steps: dict[str, int] = {f"{step}_ms": ms - at for step, ms in run.at.items()}
        if run.turn is not None:
            steps["committed_ms"] = run.turn.committed - at
            if (transcribed := self._transcripts.get(run.turn.source_id)) is not None:
                steps["transcript_ms"] = transcribed - at
        audio_ms = run.format.ms(run.audio_bytes // run.format.sample_bytes)
        return Waterfall(counted_from=origin, at_ms=at, audio_ms=audio_ms, **steps)

    @staticmethod
    def _origin(run: _Run) -> tuple[Origin, int]:
        if run.turn is None:
            return "request", run.at.get("requested", run.at["done"])
        if run.turn.speech_end is None:
            return "commit", run.turn.committed
        return "speech_end", run.turn.speech_end


def _note(run: _Run, report: Any, now_ms: int) -> None:
    """What an engine says of a response."""
    match report:
        case TextGenerated(text=""):
            pass  # nothing has come yet
        case TextGenerated() | CallStarted():
            run.reach("first_token", now_ms)
        case GenerationEnded():
            run.reach("generated", now_ms)
        case PhraseSpoken():
            run.at["spoken"] = now_ms


def _bound(known: dict[str, Any], most: int) -> None:
    while len(known) > most:
        del known[next(iter(known))]
