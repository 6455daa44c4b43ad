"""What went over the wires of a test server, kept for the test to look at: messages in order, connection by connection.

Written by the server's thread, read and waited for by the test's. Invariant: a message is here before its receiver can
have it, so whoever has seen its consequence finds it; the record is bounded, and lets go of the oldest messages first.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import groupby, islice
from typing import Any, Literal

__all__ = ["Record", "Seen", "SeenConnection", "Sender"]

MESSAGES_MAX = 50_000
CHARS_MAX = 128 * 1024 * 1024
"""Of all messages that are kept; beyond either the oldest are forgotten."""
CONNECTIONS_MAX = 1_000
SHOWN_MAX = 30
UNTYPED_CHARS = 60
"""What is shown of a message that has no type."""
WAIT_S = 10.0

Sender = Literal["client", "server"]


@dataclass(frozen=True, slots=True)
class Seen:
    """One message on the wire. `event` is the JSON object as it was, `{}` where the text was none."""

    t_ms: float
    """Since the server began."""
    dir: Sender
    connection: int
    event: Mapping[str, Any]
    text: str = field(repr=False)

    @property
    def type(self) -> str:
        """The event's type; empty where it has none."""
        return type_of(self.event)


@dataclass(slots=True)
class SeenConnection:
    """One connection, counted from 0. Header names are in lower case."""

    number: int
    path: str
    query: str
    headers: Mapping[str, str]
    subprotocols: tuple[str, ...] = ()
    is_open: bool = False
    closed: int | None = None
    """The code of the close that the server saw or sent; 1006 for a cut, None while it lasts and for one refused."""


def type_of(event: Mapping[str, Any]) -> str:
    """The type of an event, whatever stands there."""
    type = event.get("type")
    return type if isinstance(type, str) else ""


def parsed(text: str) -> Mapping[str, Any]:
    """The JSON object of a message; `{}` where it is none."""
    try:
        event = json.loads(text)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


class Record:
    """Every message and connection since the server began, within the limits of this module."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_s = clock()
        self._changed = threading.Condition()
        self._messages: deque[Seen] = deque()
        self._forgotten = 0
        self._chars = 0
        self._connections: deque[SeenConnection] = deque(maxlen=CONNECTIONS_MAX)
        self._opened = 0

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def messages(self) -> tuple[Seen, ...]:
        """All messages, both directions, in order."""
        with self._changed:
            return tuple(self._messages)

    @property
    def connections(self) -> tuple[SeenConnection, ...]:
        """All connections that were tried, in order, those refused included."""
        with self._changed:
            return tuple(self._connections)

    def matching(self, type: str, dir: Sender | None = None) -> list[Seen]:
        """The messages of this type, in order; `*` stands for anything."""
        return [seen for seen in self.messages if dir in (None, seen.dir) and fnmatchcase(seen.type, type)]

    def wait_for(self, type: str, *, dir: Sender | None = None, count: int = 1, timeout_s: float = WAIT_S) -> Seen:
        """The `count`th message of this type, as soon as it is there. Raises `AssertionError` after `timeout_s`."""
        found: list[Seen] = []
        looked_at = 0

        def is_there() -> bool:
            nonlocal looked_at
            new = islice(self._messages, max(looked_at - self._forgotten, 0), None)
            found.extend(seen for seen in new if dir in (None, seen.dir) and fnmatchcase(seen.type, type))
            looked_at = self._forgotten + len(self._messages)
            return len(found) >= count

        with self._changed:
            if self._changed.wait_for(is_there, timeout_s):
                return found[count - 1]
        wanted = f"{type!r}" if count == 1 else f"{count} of {type!r}"
        raise AssertionError(f"waited {timeout_s:g} s for {wanted}, and {len(found)} came; on the wire:\n{self.told()}")

    def wait_until_closed(self, connections: int, timeout_s: float = WAIT_S) -> None:
        """Wait until so many connections have ended. Raises `AssertionError` where they do not."""
        with self._changed:
            ended = self._changed.wait_for(lambda: self._closed_count() >= connections, timeout_s)
        if not ended:
            wanted = f"{connections} connections to end"
            raise AssertionError(f"waited {timeout_s:g} s for {wanted}; on the wire:\n{self.told()}")

    def _closed_count(self) -> int:
        return sum(connection.closed is not None for connection in self._connections)

    def told(self) -> str:
        """The last messages, for whoever reads a failed test: one a line, or several where they are of one kind."""
        lines = []
        kinds = groupby(self.messages, lambda seen: (seen.connection, seen.dir, seen.type or seen.text[:UNTYPED_CHARS]))
        for (connection, dir, kind), alike in kinds:
            first, *more = alike
            times = f" (and {len(more)} more)" if more else ""
            lines.append(f"  {first.t_ms:8.0f} ms #{connection} {_ARROW[dir]} {kind}{times}")
        left_out = [f"  … {len(lines) - SHOWN_MAX} before"] if len(lines) > SHOWN_MAX else []
        return "\n".join([*left_out, *lines[-SHOWN_MAX:]]) or "  nothing"

    # --- writing ------------------------------------------------------------------------------------------------------

    def connected(self, scope: Mapping[str, Any]) -> SeenConnection:
        """A client tries to connect; `scope` is ASGI's."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        with self._changed:
            connection = SeenConnection(
                self._opened,
                scope["path"],
                scope.get("query_string", b"").decode("latin-1"),
                headers,
                tuple(scope.get("subprotocols", ())),
            )
            self._opened += 1
            self._connections.append(connection)
            self._changed.notify_all()
        return connection

    def add(self, connection: SeenConnection, dir: Sender, text: str, event: Mapping[str, Any]) -> None:
        """A message on its way."""
        seen = Seen((self._clock() - self._began_s) * 1000, dir, connection.number, event, text)
        with self._changed:
            self._messages.append(seen)
            self._chars += len(text)
            while len(self._messages) > MESSAGES_MAX or self._chars > CHARS_MAX:
                self._chars -= len(self._messages.popleft().text)
                self._forgotten += 1
            self._changed.notify_all()

    def opened(self, connection: SeenConnection) -> None:
        """The handshake is complete."""
        with self._changed:
            connection.is_open = True
            self._changed.notify_all()

    def ended(self, connection: SeenConnection, code: int) -> None:
        """The connection is over; the first code counts."""
        with self._changed:
            connection.is_open = False
            if connection.closed is None:
                connection.closed = code
            self._changed.notify_all()


_ARROW: Mapping[Sender, str] = {"client": ">>", "server": "<<"}
