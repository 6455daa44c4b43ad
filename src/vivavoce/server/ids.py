"""Fresh ids for sessions: the one place of the server that rolls dice.

Ids are opaque to clients, unique across sessions, and not to be guessed. Events come by the hundred a second, so theirs
are counted behind a random part that the session keeps.
"""

from __future__ import annotations

import itertools
import secrets


def ids() -> _Ids:
    """The source of ids of one session: call it with the prefix that says what the id is for."""
    return _Ids()


class _Ids:
    def __init__(self) -> None:
        self._stem = f"event_{secrets.token_hex(8)}"
        self._count = itertools.count(1)

    def __call__(self, prefix: str) -> str:
        if prefix == "event":
            return f"{self._stem}{next(self._count):08x}"
        return f"{prefix}_{secrets.token_hex(12)}"
