"""Where the playback is at the far end: the clock of what the caller has heard, held true by marks.

What is sent is played there as soon as it comes, one piece behind the other; so the time since it was sent is how much
was heard, and whatever the way there takes is the same for a `clear`. Marks come back when the playback reaches them,
and say how much later than that it really is: by the least of the last few, since a network only ever adds delay.
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
LAGS_MIN: Final = 3
LAGS_MAX: Final = 5
"""So many marks have to come back before what they say of the playback counts, and so many are remembered."""
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
        self._begun_behind_s = 0.0
        """How far behind the clock was when what is playing now began."""
        self._lags_s: deque[float] = deque(maxlen=LAGS_MAX)
        """How far behind the last marks say that the playback is."""
        self._echoes_s: deque[float] = deque(maxlen=LAGS_MAX)
        self.lost_marks = 0

    def __call__(self) -> float:
        """Up to where has been played."""
        free_s = self._now_s() - self._behind_s
        while self._expected and free_s > self._expected[0].due_s + self._patience_s + MARK_LOST_S:
            self._lose()
        self._at_s = self._position_s
        return self._at_s

    @property
    def _position_s(self) -> float:
        """The same, as it is known now: nobody has been told yet, so what a mark says can still change it."""
        free_s = self._now_s() - self._behind_s
        at_s = min(free_s, self._expected[0].due_s + self._patience_s) if self._expected else free_s
        return max(self._at_s, at_s)

    @property
    def echo_s(self) -> float | None:
        """What a mark takes there and back; None as long as that is not known."""
        return min(self._echoes_s, default=None)

    @property
    def is_heard_out(self) -> bool:
        """Whether every mark has come back."""
        return not self._expected

    def expect(self, name: str, due_s: float) -> None:
        """A mark was sent, which will be reached when the clock says `due_s`."""
        at_s = self()
        if len(self._expected) >= MARKS_MAX:
            self._lose()
        is_probe = due_s <= at_s and not self._expected
        if is_probe:  # what is played now begins anew, and what marks said before is over
            self._begun_behind_s = self._behind_s
            self._lags_s.clear()
        self._expected.append(_Expected(name, due_s, self._now_s(), is_probe))

    def echoed(self, name: str) -> bool:
        """A mark came back; says whether it was expected: one of audio that was cleared is not."""
        if all(mark.name != name for mark in self._expected):
            return False
        at_s, now_s = self._position_s, self._now_s()
        while (mark := self._expected.popleft()).name != name:
            pass  # they come back in order: those before have been reached as well
        if mark.is_probe:
            self._echoes_s.append(now_s - mark.sent_s)
        elif at_s < mark.due_s:
            self._behind_s = now_s - mark.due_s
        else:
            self._lag(mark, now_s)
        return True

    def _lag(self, mark: _Expected, now_s: float) -> None:
        """A mark says how late the playback is."""
        if now_s - self._behind_s > mark.due_s + self._patience_s:  # it was held: all that was known is over
            self._lags_s.clear()
            self._behind_s = max(self._behind_s, now_s - mark.due_s - (self.echo_s or 0.0))
        if self.echo_s is not None:
            self._lags_s.append(now_s - mark.due_s - self.echo_s)
            if len(self._lags_s) >= LAGS_MIN:
                self._behind_s = max(self._begun_behind_s, min(self._lags_s))

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
