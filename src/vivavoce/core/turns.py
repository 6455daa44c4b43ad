"""Speech probabilities → turns, in audio time (reference §5).

Fed by the detector's scores, frame by frame; says where speech began and where the turn ended. Knows neither the wall
clock nor the audio itself. Invariants: starts and stops alternate and never go back; what is decided depends on the
scores and judgements alone, not on when they came: while a judgement is awaited, later scores wait with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .input_audio import TICKS_PER_SECOND, ticks_of

ONSET_MS = 64
"""Speech must last this long to begin a turn: a click does not."""
HYSTERESIS = 0.15
"""Silence begins this far below the threshold, so that a wavering score does not end a word."""
THRESHOLD_MIN = 0.01
"""A score below this is silence even where the threshold is set to 0."""
PAUSE_MS = 200
"""Silence after which `semantic_vad` asks whether the user has finished."""
UNDECIDED = 0.5
"""What a judgement counts as that could not be had."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long `semantic_vad` waits in silence, by the chance that the user has finished (§5.2)."""

    least_ms: int
    most_ms: int

    def after(self, probability: float) -> int:
        """Near the least where the turn looks complete, the most where it certainly is not."""
        return self.least_ms + round((self.most_ms - self.least_ms) * (1 - probability) ** 2)


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """What decides on turns. With `waits` a pause is judged, without them `silence_duration_ms` ends the turn."""

    threshold: float
    prefix_padding_ms: int
    silence_duration_ms: int
    waits: Waits | None = None


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Speech was first heard at tick `onset`; padding not yet taken off."""

    onset: int


@dataclass(frozen=True, slots=True)
class Paused:
    """The user has paused, at tick `at` for `PAUSE_MS`; `Turns.judged` is to say what that means."""

    at: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The silence that ends the turn was complete at tick `end`."""

    end: int


Decision = SpeechStarted | Paused | SpeechStopped
_NOTHING: tuple[Decision, ...] = ()


class Turns:
    """One stream of scores, from tick `start` on. A turn of `longest_ms` ends there, as if by silence."""

    def __init__(
        self, settings: TurnSettings, start: int, *, speaking: bool = False, longest_ms: int | None = None
    ) -> None:
        self.speaking = speaking
        self.position = start
        """Decided up to here."""
        self.is_judging = False
        self._use(settings)
        self._scores: deque[tuple[float, int]] | None = None
        """What is not decided yet, if ever there was anything to decide: an empty queue takes 600 bytes."""
        self._longest = None if longest_ms is None else ticks_of(longest_ms)
        self._onset: int | None = start if speaking else None
        self._silence: int | None = None
        self._wait_ms: int | None = None

    def _use(self, settings: TurnSettings) -> None:
        self._settings = settings
        self._speech_min = max(settings.threshold, THRESHOLD_MIN)
        self._padding = ticks_of(settings.prefix_padding_ms)

    @property
    def settings(self) -> TurnSettings:
        """The parameters in force."""
        return self._settings

    @property
    def needed_from(self) -> int:
        """The audio before it is not needed: up to here nothing belongs to speech, nor to the padding before it."""
        return (self.position if self._onset is None else self._onset) - self._padding

    @property
    def silent_since(self) -> int | None:
        """Where the silence began in which a turn is, or has ended; None where it is speech."""
        return self._silence

    def push(self, probabilities: tuple[float, ...], frame_ms: int) -> Iterable[Decision]:
        """Take scores of consecutive frames; say what they decide, in order."""
        frame = frame_ms * TICKS_PER_SECOND // 1000  # `ticks_of`; this is done 50 times a second
        if self._onset is None and probabilities and max(probabilities) < self._speech_min:
            self.position += frame * len(probabilities)
            return _NOTHING  # silence in which nobody speaks, which most of it is
        if self._scores is None:
            self._scores = deque()
        self._scores.extend((probability, frame) for probability in probabilities)
        return self._decide()

    def judged(self, probability: float | None) -> Iterator[Decision]:
        """The pause means this; go on with the scores that came meanwhile."""
        if self.is_judging and self._settings.waits is not None:
            self._wait_ms = self._settings.waits.after(UNDECIDED if probability is None else probability)
        self.is_judging = False
        return self._decide()

    def change(self, settings: TurnSettings) -> Iterator[Decision]:
        """Other parameters, from the next score on; a judgement that is awaited means nothing any more."""
        self._use(settings)
        self.is_judging, self._wait_ms = False, None
        return self._decide()

    def _decide(self) -> Iterator[Decision]:
        while self._scores and not self.is_judging:
            probability, frame = self._scores.popleft()
            begin, self.position = self.position, self.position + frame
            decided: Decision | None
            if self.speaking:
                decided = self._continue(probability, begin) or self._limit()
            else:
                decided = self._wait(probability, begin)
            if decided is not None:
                yield decided

    def _wait(self, probability: float, begin: int) -> SpeechStarted | None:
        if probability < self._speech_min:
            self._onset = None
            return None
        if self._onset is None:
            self._onset = begin
        if self.position - self._onset < ticks_of(ONSET_MS):
            return None
        self.speaking = True
        self._silence = self._wait_ms = None
        return SpeechStarted(self._onset)

    def _continue(self, probability: float, begin: int) -> Paused | SpeechStopped | None:
        if probability >= self._speech_min:
            self._silence = self._wait_ms = None
        elif self._silence is None and probability < max(self._settings.threshold - HYSTERESIS, THRESHOLD_MIN):
            self._silence = begin
        if self._silence is None:
            return None
        silence = self.position - self._silence
        if self._settings.waits is not None and self._wait_ms is None:
            self.is_judging = silence >= ticks_of(PAUSE_MS)
            return Paused(self.position) if self.is_judging else None
        if silence < ticks_of(self._settings.silence_duration_ms if self._wait_ms is None else self._wait_ms):
            return None
        return self._stop()

    def _limit(self) -> SpeechStopped | None:
        """The end of a turn that has become too long."""
        assert self._onset is not None
        is_over = self._longest is not None and self.position - self._onset >= self._longest
        return self._stop() if is_over else None

    def _stop(self) -> SpeechStopped:
        self.speaking = False
        self._onset = self._wait_ms = None
        return SpeechStopped(self.position)
