"""Speech probabilities → turns, in audio time (reference §5).

Fed by the detector's scores, frame by frame; says where speech began and where the turn ended. Knows neither the wall
clock nor the audio itself. Invariant: starts and stops alternate and never go back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .input_audio import ticks_of

ONSET_MS = 64
"""Speech must last this long to begin a turn: a click does not."""
HYSTERESIS = 0.15
"""Silence begins this far below the threshold, so that a wavering score does not end a word."""
THRESHOLD_MIN = 0.01
"""A score below this is silence even where the threshold is set to 0."""


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """The `server_vad` parameters that decide on turns."""

    threshold: float
    prefix_padding_ms: int
    silence_duration_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Speech was first heard at tick `onset`; padding not yet taken off."""

    onset: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The silence that ends the turn was complete at tick `end`."""

    end: int


class Turns:
    """One stream of scores, from tick `start` on."""

    def __init__(self, settings: TurnSettings, start: int, *, speaking: bool = False) -> None:
        self.settings = settings
        self.speaking = speaking
        self.position = start
        """Scored up to here."""
        self._onset: int | None = None
        self._silence: int | None = None

    @property
    def quiet_since(self) -> int:
        """Up to here nothing belongs to speech: the audio before it, padding aside, is not needed."""
        return self.position if self._onset is None else self._onset

    def push(self, probabilities: tuple[float, ...], frame_ms: int) -> Iterator[SpeechStarted | SpeechStopped]:
        """Take scores of consecutive frames; say what they decide, in order."""
        frame = ticks_of(frame_ms)
        for probability in probabilities:
            begin, self.position = self.position, self.position + frame
            decided = self._continue(probability, begin) if self.speaking else self._wait(probability, begin)
            if decided is not None:
                yield decided

    def stop(self) -> None:
        """End the turn from outside: it reached the longest that a turn may be."""
        self.speaking = False
        self._onset = self._silence = None

    def _wait(self, probability: float, begin: int) -> SpeechStarted | None:
        if probability < max(self.settings.threshold, THRESHOLD_MIN):
            self._onset = None
            return None
        if self._onset is None:
            self._onset = begin
        if self.position - self._onset < ticks_of(ONSET_MS):
            return None
        self.speaking = True
        self._silence = None
        return SpeechStarted(self._onset)

    def _continue(self, probability: float, begin: int) -> SpeechStopped | None:
        if probability >= max(self.settings.threshold, THRESHOLD_MIN):
            self._silence = None
        elif self._silence is None and probability < max(self.settings.threshold - HYSTERESIS, THRESHOLD_MIN):
            self._silence = begin
        if self._silence is None or self.position - self._silence < ticks_of(self.settings.silence_duration_ms):
            return None
        self.stop()
        return SpeechStopped(self.position)
