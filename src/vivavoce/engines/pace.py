"""How many answers a language model writes side by side, so that each is written faster than it is spoken.

Fed with the moments at which tokens come, says how many there may be at once: what the machine gives, whoever else uses
it, is measured and not configured. A step writes a token of every answer, so how long it takes is known for each number
of answers that was tried; and it bounds the other numbers, since more answers never take less than fewer, and never
more than one after the other. Used from the model's threads. Invariant: at least one, and no more than `most_max`.
"""

from __future__ import annotations

import threading

__all__ = ["Pace"]

STEP_S_MAX = 0.1
"""Between two tokens of one answer: it is written twice as fast as it is spoken, so that its speech can get ahead."""
TRIED_S_MAX = 0.15
"""What a step may take at worst where one answer more is let in only to learn what it takes: still faster than it is
spoken. Without that, one answer whose tokens take long would never let another in."""
TRIED_TOKENS = 500
"""Written, some five answers: so long a number of answers that was too slow is not tried again."""
WEIGHT = 0.1
"""Of the newest step in the mean: with four answers, of whose steps each is told four times, some two steps."""
TOKEN_S_BEGIN = 0.03
"""A step's share of one answer before anything was measured: three answers at once."""
TOKEN_S_MAX = 0.5
"""What took longer was no writing: somebody's long prompt was read, or the machine slept."""
TOKEN_S_MIN = 1e-4
"""Quicker than any model; where a clock is coarse, tokens seem to take no time at all."""


class Pace:
    """One model that computes `most_max` answers together at best. Times in seconds of one clock."""

    def __init__(self, most_max: int) -> None:
        self._step_s = {answers: answers * TOKEN_S_BEGIN for answers in range(1, most_max + 1)}
        """What a step takes with so many answers: grows with them, at most in proportion."""
        self._tried_at: dict[int, int] = {}
        """For each number of answers that were ever written at once: how many tokens had been written by then."""
        self._tokens = 0
        self._most = self._fast_enough()
        self._lock = threading.Lock()

    @property
    def most(self) -> int:
        """Answers at once that are each written fast enough, as far as is known, or that are worth a trial."""
        return self._most

    def wrote(self, step_s: float, answers: int) -> None:
        """An answer's token came `step_s` after the one before, while so many were written: a prompt is not."""
        answers = min(max(answers, 1), len(self._step_s))
        with self._lock:
            self._tokens += 1
            self._tried_at[answers] = self._tokens
            self._learn(min(max(step_s / answers, TOKEN_S_MIN), TOKEN_S_MAX) * answers, answers)
            self._most = self._fast_enough()
            if self._most == answers and self._is_worth_a_trial(answers + 1):
                self._most += 1

    def _learn(self, step_s: float, answers: int) -> None:
        before = self._step_s[answers]
        now = before + WEIGHT * (step_s - before)
        for others, known in self._step_s.items():
            # The machine has become slower or quicker for more answers too. For fewer it may be that only their share
            # was not known: they change no further than the bounds.
            expected = known * now / before if others > answers else known
            lowest, highest = sorted((now, now * others / answers))
            self._step_s[others] = min(max(expected, lowest), highest)

    def _fast_enough(self) -> int:
        return max(sum(step_s <= STEP_S_MAX for step_s in self._step_s.values()), 1)

    def _is_worth_a_trial(self, answers: int) -> bool:
        tried_at = self._tried_at.get(answers)
        is_new = tried_at is None or self._tokens - tried_at > TRIED_TOKENS
        return is_new and self._step_s.get(answers, TOKEN_S_MAX) <= TRIED_S_MAX
