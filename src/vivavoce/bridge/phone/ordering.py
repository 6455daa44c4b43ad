"""What Twilio says, in the order in which it was said, and the caller's audio in time.

Messages are numbered and audio has timestamps, so that a network that shuffles or loses does no harm: `Ordering` holds
what came too early, `Timeline` puts silence where audio is missing. Pure, without a clock: later messages are what ends
a wait.
Invariants: every number passes once and in order; the audio that comes out is as long as the timestamps say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from vivavoce.audio.formats import ULAW_8K

from .messages import AnyMessage, Sound

HELD_MAX: Final = 10
"""Messages that wait for an earlier one, 200 ms of a call. Then that one counts as lost; it is dropped if it comes."""
SLACK_MS: Final = 40
"""Timestamps that are off by less are uneven, and nothing is missing."""
GAP_MS_MAX: Final = 5_000
"""Silence that stands for a gap. What is missing beyond it is left out, and counted."""
SILENCE: Final = b"\xff"
"""The code of µ-law for zero."""


class Ordering:
    """Puts the messages of one stream in order. `late` counts those that came twice or after they were given up."""

    def __init__(self) -> None:
        self._next: int | None = None
        self._held: dict[int, AnyMessage] = {}
        self.late = 0
        self.lost = 0

    def push(self, message: AnyMessage) -> Iterable[AnyMessage]:
        """Take a message; give those whose turn it is. One without a number passes at once."""
        number = message.number
        if number <= 0:
            return (message,)
        if self._next is None:
            self._next = 1
        if number < self._next or number in self._held:
            self.late += 1
            return ()
        self._held[number] = message
        ready = self._run()
        if len(self._held) > HELD_MAX:
            ready += self._give_up()
        return ready

    def flush(self) -> Iterable[AnyMessage]:
        """The stream is over: what is held, in order."""
        ready: list[AnyMessage] = []
        while self._held:
            ready += self._give_up()
        return ready

    def _run(self) -> list[AnyMessage]:
        ready: list[AnyMessage] = []
        while self._next in self._held:
            ready.append(self._held.pop(self._next))
            self._next += 1
        return ready

    def _give_up(self) -> list[AnyMessage]:
        first = min(self._held)
        self.lost += first - (self._next or 0)
        self._next = first
        return self._run()


class Timeline:
    """The caller's audio without holes. `silence_ms` counts what was filled in, `skipped_ms` what was too much."""

    def __init__(self) -> None:
        self._samples = 0
        self._began_ms: int | None = None
        self.silence_ms = 0
        self.skipped_ms = 0

    def push(self, sound: Sound) -> bytes:
        """The audio of a message that came in order, with the silence that is missing before it."""
        missing = self._missing_ms(sound.at_ms)
        filled = min(missing, GAP_MS_MAX)
        self.silence_ms += filled
        if missing > filled and self._began_ms is not None:
            self.skipped_ms += missing - filled
            self._began_ms += missing - filled
        audio = SILENCE * ULAW_8K.bytes_of(filled) + sound.payload
        self._samples += len(audio)
        return audio

    def _missing_ms(self, at_ms: int | None) -> int:
        if at_ms is None:
            return 0
        if self._began_ms is None:
            self._began_ms = at_ms
        missing = at_ms - self._began_ms - ULAW_8K.ms(self._samples)
        return missing if missing >= SLACK_MS else 0
