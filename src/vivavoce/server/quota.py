"""How much a key may use in a time: token buckets, and one account of them for each key.

Pure: the clock is an argument, in seconds from any origin. A bucket begins full and fills at an even rate. Invariants:
it never holds more than its limit; there are never more accounts than `ACCOUNTS_MAX`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

ACCOUNTS_MAX = 10_000
"""Accounts that are remembered; beyond it the one that was not asked for longest is forgotten, and begins anew."""

MINUTE_S = 60.0


class Quota:
    """A bucket of `limit` units, filled with `per_s` units a second."""

    def __init__(self, limit: float, per_s: float) -> None:
        if limit <= 0 or per_s <= 0:
            raise ValueError("a quota needs a limit and a rate above 0")
        self.limit = limit
        self._per_s = per_s
        self._level = float(limit)
        self._filled_at: float | None = None

    @classmethod
    def a_minute(cls, limit: float) -> Quota:
        """So many units in every minute, all of them at once if need be."""
        return cls(limit, limit / MINUTE_S)

    def take(self, n: float, now: float) -> bool:
        """Take `n` units if there are as many; otherwise take none."""
        self._fill(now)
        if self._level < n:
            return False
        self._level -= n
        return True

    def spend(self, n: float, now: float) -> None:
        """Take `n` units that are used up already. The bucket may owe some after that, and gives none meanwhile."""
        self._fill(now)
        self._level -= n

    def give_back(self, n: float) -> None:
        """Put back what was taken and not used."""
        self._level = min(self.limit, self._level + n)

    def remaining(self, now: float) -> int:
        """Whole units that could be taken."""
        self._fill(now)
        return max(0, math.floor(self._level))

    def seconds_until(self, n: float, now: float) -> float:
        """Time until `n` units can be taken, if nothing else is taken before."""
        self._fill(now)
        return max(0.0, n - self._level) / self._per_s

    def reset_seconds(self, now: float) -> float:
        """Time until the bucket is full."""
        return self.seconds_until(self.limit, now)

    def _fill(self, now: float) -> None:
        if self._filled_at is not None and now > self._filled_at:
            self._level = min(self.limit, self._level + (now - self._filled_at) * self._per_s)
        self._filled_at = now if self._filled_at is None else max(now, self._filled_at)


@dataclass(frozen=True, slots=True)
class Account:
    """What one key has left. None stands for no limit."""

    sessions: Quota | None = None
    """Sessions begun."""
    requests: Quota | None = None
    """Responses asked for."""
    tokens: Quota | None = None
    """Tokens, in and out."""


class Accounts:
    """An account for each key, made by `new` when it is first asked for."""

    def __init__(self, new: Callable[[], Account], *, accounts_max: int = ACCOUNTS_MAX) -> None:
        self._new = new
        self._accounts_max = accounts_max
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def of(self, key_id: str) -> Account:
        """The account of the key with this id."""
        account = self._accounts.pop(key_id, None) or self._new()
        self._accounts[key_id] = account
        if len(self._accounts) > self._accounts_max:
            self._accounts.popitem(last=False)
        return account
