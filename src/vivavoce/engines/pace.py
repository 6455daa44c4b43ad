"""How many answers a language model writes side by side, so that each is written faster than it is spoken.

Fed with the moments at which tokens come, says how many there may be at once: what the machine gives, whoever else uses
it, is measured and not configured. Used from the model's threads. Invariant: at least one, and no more than `most_max`.
"""

from __future__ import annotations

import threading

__all__ = ["Pace"]

STEP_S_MAX = 0.1
"""Between two tokens of one answer: it is written twice as fast as it is spoken, so that its speech can get ahead."""
WEIGHT = 0.1
"""Of the newest token in the mean: some two steps of four answers."""
TOKEN_S_BEGIN = 0.03
"""Before anything was measured: three answers at once."""
TOKEN_S_MAX = 0.5
"""What took longer was no writing: somebody's long prompt was read, or the machine slept."""


class Pace:
    """One model that computes `most_max` answers together at best. Times in seconds of one clock."""

    def __init__(self, most_max: int) -> None:
        self._most_max = most_max
        self._token_s = TOKEN_S_BEGIN
        """What a token takes of the model's time: a step writes one for each answer."""
        self._lock = threading.Lock()

    @property
    def most(self) -> int:
        """Answers at once that are each written fast enough."""
        return min(max(int(STEP_S_MAX / self._token_s), 1), self._most_max)

    def wrote(self, step_s: float, answers: int) -> None:
        """An answer's token came `step_s` after the one before, while so many were written."""
        token_s = min(step_s / max(answers, 1), TOKEN_S_MAX)
        with self._lock:
            self._token_s += WEIGHT * (token_s - self._token_s)
