"""Where the playback is at the far end: the clock of what the caller has heard, held true by marks.

What is sent is played there as soon as it comes, one piece behind the other; so the time since it was sent is how much
was heard, and whatever the way there takes is the same for a `clear`. Marks come back when the playback reaches them:
they push the clock where it is behind, and hold it where it runs ahead of what can have been played.
Invariants: the clock never runs backwards; it passes no mark by more than the time that an echo takes.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

ECHO_S_MAX: Final = 0.5
"""How late a mark may come back as long as nothing is known of the way there and back."""
SLACK_S: Final = 0.15
"""How much later than usual a mark may come back before the playback counts as delayed."""
MARK_LOST_S: Final = 5.0
"""A mark that is later than this does not come back any more."""
MARKS_MAX: Final = 20_000
"""Marks under way; 10 minutes of audio have fewer. The oldest are given up."""

log = logging.getLogger(__name__)


class _Expected(NamedTuple):
    name: str
    due_s: float
    sent_s: float
    is_probe: bool
    """Whether nothing was playing, so that it comes back at once."""


class Playhead:
    """A clock in seconds: call it. `now_s` is the clock that it follows."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._behind_s = 0.0
        self._at_s = -math.inf
        self._expected: deque[_Expected] = deque()
        self.echo_s: float | None = None
        """What a mark takes there and back, as it was last measured."""
        self.lost_marks = 0

    def __call__(self) -> float:
        """Up to where has been played."""
        free_s = self._now_s() - self._behind_s
        while self._expected and free_s > self._expected[0].due_s + self._patience_s + MARK_LOST_S:
            self._lose()
        at_s = min(free_s, self._expected[0].due_s + self._patience_s) if self._expected else free_s
        self._at_s = max(self._at_s, at_s)
        return self._at_s

    @property
    def is_heard_out(self) -> bool:
        """Whether every mark has come back."""
        return not self._expected

    def expect(self, name: str, due_s: float) -> None:
        """A mark was sent, which will be reached when the clock says `due_s`."""
        at_s = self()
        if len(self._expected) >= MARKS_MAX:
            self._lose()
        self._expected.append(_Expected(name, due_s, self._now_s(), due_s <= at_s and not self._expected))

    def echoed(self, name: str) -> bool:
        """A mark came back; says whether it was expected: one of audio that was cleared is not."""
        if all(mark.name != name for mark in self._expected):
            return False
        at_s, now_s = self(), self._now_s()
        while (mark := self._expected.popleft()).name != name:
            pass  # they come back in order: those before have been reached as well
        if mark.is_probe:
            self.echo_s = now_s - mark.sent_s
        elif at_s < mark.due_s:
            self._behind_s = now_s - mark.due_s
        elif now_s - self._behind_s > mark.due_s + self._patience_s:
            self._behind_s = now_s - mark.due_s - min(self.echo_s or 0.0, self._patience_s)
        return True

    def clear(self) -> None:
        """Nothing is playing any more; marks that are under way say nothing."""
        self._expected.clear()

    @property
    def _patience_s(self) -> float:
        return ECHO_S_MAX if self.echo_s is None else self.echo_s + SLACK_S

    def _lose(self) -> None:
        lost = self._expected.popleft()
        self.lost_marks += 1
        log.warning("the mark %s never came back; from now on it is a guess what the caller has heard", lost.name)
