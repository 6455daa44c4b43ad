"""How far an answer is ahead of its listener: text as it is written, speech as it is made, and the ear that uses it up.

`Work` tells it what the engines report, `Speaking` asks it when the speech may begin and when more of it is due. Pure:
time comes in, as seconds of one clock. Invariant: an answer that may begin has begun, and what comes later is due so
long before the listener has heard all that was there before as a phrase takes.
"""

from __future__ import annotations

__all__ = ["Ahead"]

NEXT_PHRASE_CHARS = 64
"""How long the second phrase is expected to be while it is being written: it may end in front of many a word from 48
on, and ends at any from here on, see `core.phrases`."""
ANSWER_CHARS = 300
"""How long an answer is expected to be that is written slower than it is spoken."""
CHAR_S = 0.06
"""How long a character sounds, before any was heard."""
SLOWER_PER_S = 1.0
"""How much slower than until now the language model may become in a second, since others begin to be answered too: what
takes half a second may take three quarters, and what takes two may take six."""
SYNTHESIS_SHARE = 2.0
"""How much longer the synthesizer takes for a phrase than it took for the shorter first one."""
SPARE_S = 0.2
"""Kept for whatever else the cores are doing when a phrase is to be spoken."""
READY_S_MAX = 10.0
"""So much speech is made before the answer begins; then it begins, whatever becomes of the rest."""


class Ahead:
    """One answer, asked for at `now`."""

    def __init__(self, now: float) -> None:
        self._asked_at = now
        self._first_at: float | None = None
        """When the first text came, of so many characters."""
        self._first_chars = 0
        self._chars = 0
        self._is_written = False
        self._asked_chars = 0
        self._unspoken: list[tuple[int, float]] = []
        """Phrases that are being spoken or wait for it: characters, and when they were asked for."""
        self._spoken_chars = 0
        self._made_s = 0.0
        self._made_of_phrase_s = 0.0
        """Of the phrase that is first in line."""
        self._synthesis_s = 0.0
        """From asking for the first phrase to its first sound."""
        self._began_at: float | None = None

    # --- what is told -------------------------------------------------------------------------------------------------

    def wrote(self, chars: int, now: float) -> None:
        """The language model has written so much more."""
        if self._first_at is None:
            self._first_at, self._first_chars = now, chars
        self._chars += chars

    def written(self) -> None:
        """There is no more text to come."""
        self._is_written = True

    def asked(self, chars: int, now: float) -> None:
        """The synthesizer has been given a phrase."""
        self._asked_chars += chars
        self._unspoken.append((chars, now))

    def made(self, seconds: float, now: float) -> None:
        """So much speech of the phrase that is first in line is there."""
        if not self._made_s and self._unspoken:
            self._synthesis_s = now - self._unspoken[0][1]
        if self._began_at is not None and now > self._began_at + self._made_s:
            self._began_at = now - self._made_s  # there was a gap; the listener goes on from here
        self._made_s += seconds
        self._made_of_phrase_s += seconds

    def spoken(self) -> None:
        """All speech of the phrase that is first in line is there."""
        chars, _ = self._unspoken.pop(0)
        self._spoken_chars += chars
        self._made_of_phrase_s = 0.0

    # --- what follows -------------------------------------------------------------------------------------------------

    @property
    def has_begun(self) -> bool:
        """Whether it is being heard."""
        return self._began_at is not None

    def next_due(self, now: float) -> float | None:
        """When the next phrase has to be begun, to be there when all that is there has been heard.

        None where nothing sounds yet.
        """
        return None if self._began_at is None else max(self._began_at + self._made_s - self._takes_s, now)

    def may_begin(self, now: float) -> bool:
        """Whether what is there probably lasts until there is more, to the end, or is all there is. Begins, if so."""
        is_silent = self._is_written and not self._unspoken
        if self._began_at is None and (is_silent or (self._made_s and self._lasts(now))):
            self._began_at = now
        return self._began_at is not None

    def begin(self, now: float) -> None:
        """Begin, come what may."""
        if self._began_at is None:
            self._began_at = now

    def _lasts(self, now: float) -> bool:
        there_s, waiting = self._made_s, len(self._unspoken)
        if self._made_of_phrase_s:  # the rest of a phrase that has begun comes by itself
            waiting -= 1
            there_s += max(self._unspoken[0][0] * self._char_spoken_s - self._made_of_phrase_s, 0.0)
        if there_s >= READY_S_MAX or (self._is_written and not waiting):
            return True
        needed_s = self._takes_s
        if not self._is_written:
            char_s = self._char_written_s(now)
            unwritten = 0 if waiting else max(NEXT_PHRASE_CHARS - (self._chars - self._asked_chars), 0)
            to_come = max(ANSWER_CHARS - self._chars, 0)
            next_s, behind_s = unwritten * char_s, to_come * (char_s - self._char_spoken_s)
            needed_s += max(next_s * (1 + SLOWER_PER_S * next_s), behind_s)
        return there_s >= needed_s

    @property
    def _takes_s(self) -> float:
        """From asking for a phrase to its first sound, at most."""
        return SPARE_S + SYNTHESIS_SHARE * self._synthesis_s

    def _char_written_s(self, now: float) -> float:
        """Time per character, since the first text; where there was no more, since the question."""
        if self._first_at is not None and self._chars > self._first_chars:
            return (now - self._first_at) / (self._chars - self._first_chars)
        return (now - self._asked_at) / max(self._chars, 1)

    @property
    def _char_spoken_s(self) -> float:
        return self._made_s / self._spoken_chars if self._spoken_chars else CHAR_S
