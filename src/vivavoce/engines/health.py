"""How the engines of a pipeline are doing: who failed how often in a row, and with what.

The runtime notes every outcome; operators are told. Invariant: codes and counts, never what was said to an engine or by
it; one success makes up for all failures before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

__all__ = ["EngineHealth", "Failing"]

UNWELL_AFTER = 3
"""Failures in a row that are no accident."""


@dataclass(frozen=True, slots=True)
class Failing:
    """An engine that failed and has not succeeded since."""

    failures: int
    """In a row."""
    code: str
    """Of the last one."""
    at_s: float
    """When that was, on the clock of the health."""

    @property
    def is_unwell(self) -> bool:
        """Whether it failed too often to be an accident."""
        return self.failures >= UNWELL_AFTER


@dataclass(slots=True)
class EngineHealth:
    """Of one pipeline, by role. `clock` gives seconds from any origin."""

    clock: Callable[[], float] = time.monotonic
    is_well: bool = True
    """Whether none is failing: then nothing need be told of one that worked."""
    _failing: dict[str, Failing] = field(default_factory=dict)

    def worked(self, role: str) -> None:
        """The engine did what it was asked."""
        if self._failing:
            self._failing.pop(role, None)
            self.is_well = not self._failing

    def failed(self, role: str, code: str) -> None:
        """It did not."""
        before = self._failing.get(role, Failing(0, code, 0.0))
        self.is_well = False
        self._failing[role] = replace(before, failures=before.failures + 1, code=code, at_s=self.clock())

    @property
    def failing(self) -> Mapping[str, Failing]:
        """The engines whose last work failed, by role."""
        return dict(self._failing)
