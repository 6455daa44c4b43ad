"""Fresh ids for what a client makes: events by a count, items by chance.

Services take item ids of up to 32 characters; events are many, and theirs have to be unlike those of other sessions
only by accident.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random, SystemRandom


def ids(random: Random | None = None) -> Callable[[str], str]:
    """The source of ids of one session: call it with the prefix that says what the id is for."""
    chance = random or SystemRandom()
    stem = f"{chance.getrandbits(32):08x}"
    count = itertools.count(1)

    def new_id(prefix: str) -> str:
        if prefix == "item":
            return f"item_{chance.getrandbits(96):024x}"
        return f"{prefix}_{stem}{next(count):06x}"

    return new_id
