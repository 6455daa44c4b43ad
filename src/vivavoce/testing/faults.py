"""What goes wrong on the wire of a test server: declared by a test, met by its connections.

    server.cut(after="response.output_audio.delta", count=3)     # the third delta still arrives
    server.stall(before="response.created", seconds=1.5)
    server.refuse(429, times=2)

A fault waits for a message: its type (`*` stands for anything), or `client` or `server` for any message of that end,
the `count`th of them on a connection. It happens `times` times in all, on one connection or on several; None is always.
Nothing here measures time to find its moment, so a fault strikes at the same message in every run.
"""

from __future__ import annotations

import difflib
import functools
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, get_args

from .record import Sender

__all__ = ["Action", "Cut", "Drop", "Duplicate", "Fault", "Faults", "Inject", "Moment", "Refuse", "Stall", "Watch"]

WAIT_S = 10.0
FAULTS_MAX = 1_000
EXPIRED = "Your session hit the maximum duration of 60 minutes."
CLOSE_CODES = range(1000, 5000)
CUT_CODE = 1006

_CODES = {401: "invalid_api_key", 404: "invalid_model", 429: "rate_limit_exceeded"}


# --- what may happen --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refuse:
    """The handshake is answered with a status and JSON, or completed, and then come an `error` event and a close."""

    status: int | None
    close: int
    error: Mapping[str, Any]
    retry_after_s: int | None


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends; without a code it is dropped, as when a cable is pulled (1006 at the client)."""

    close: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing more goes in this direction for so long; None is until the fault is lifted."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Inject:
    """The server says something of its own."""

    text: str


@dataclass(frozen=True, slots=True)
class Drop:
    """The message never arrives."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The message arrives twice."""


Action = Refuse | Cut | Stall | Inject | Drop | Duplicate


@dataclass(frozen=True, slots=True)
class Moment:
    """The `count`th message on a connection that fits, and whether the fault comes before or after it."""

    pattern: str
    count: int = 1
    is_after: bool = False

    def fits(self, sender: Sender, type: str) -> bool:
        """Whether a message is one of those."""
        return self.pattern == sender if self.pattern in get_args(Sender) else fnmatchcase(type, self.pattern)


class Fault:
    """One declared fault. Safe to use from any thread."""

    def __init__(self, action: Action, moment: Moment, times: int | None) -> None:
        self.action = action
        self.moment = moment
        self._left = times
        self._changed = threading.Condition()
        self.fired = 0
        """How many times it has happened."""
        self.lifted: Future[None] = Future()
        """Done once the fault is no more."""

    def __repr__(self) -> str:
        return f"{self.action!r} {'after' if self.moment.is_after else 'before'} {self.moment.pattern!r}"

    def wait(self, times: int = 1, timeout_s: float = WAIT_S) -> None:
        """Wait until it has happened so often. Raises `AssertionError` where it does not."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.fired >= times, timeout_s):
                raise AssertionError(f"waited {timeout_s:g} s for the fault: {self!r}; it came {self.fired} times")

    def lift(self) -> None:
        """It happens no more, and whatever it holds up goes on. Doing it twice is harmless."""
        with self._changed:
            self._left = 0
            if not self.lifted.done():
                self.lifted.set_result(None)

    def take(self) -> bool:
        """Happen once, if it still may; say whether."""
        with self._changed:
            if self._left == 0:
                return False
            self._left = None if self._left is None else self._left - 1
            self.fired += 1
            self._changed.notify_all()
            return True


# --- declaring --------------------------------------------------------------------------------------------------------


class Faults:
    """The faults of one server. Each method declares one and gives it back.

    The module says how `count` and `times` count. Of `after` and `before` exactly one names the message. `ValueError`
    is for what can never happen.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._declared: list[Fault] = []

    def refuse(
        self,
        status: int | None = None,
        *,
        close: int | None = None,
        code: str | None = None,
        message: str = "The test refuses this connection.",
        type: str = "invalid_request_error",
        retry_after_s: int | None = None,
        times: int | None = 1,
    ) -> Fault:
        """The next connection is refused: with an HTTP `status`, or after its handshake with `error` and `close`."""
        if (status is None) == (close is None):
            raise ValueError("refuse: name either a status, such as 401, or a close code, such as close=3000")
        if status is not None and not 400 <= status <= 599:
            raise ValueError(f"status: expected 400 to 599, not {status}")
        if close is not None:
            _check_close(close)
        known = _CODES.get(status or 0)
        error = {"type": type, "code": code or known, "message": message, "param": None}
        return self._declare(Refuse(status, close or 0, error, retry_after_s), Moment(""), times)

    def cut(
        self,
        *,
        after: str | None = None,
        before: str | None = None,
        count: int = 1,
        times: int | None = 1,
        close: int | None = None,
        reason: str = "",
    ) -> Fault:
        """The connection is lost. With `close` the server ends it properly, with this code and reason."""
        if close is not None:
            _check_close(close)
        return self._declare(Cut(close, reason), _moment(after, before, count), times)

    def stall(
        self,
        *,
        before: str | None = None,
        after: str | None = None,
        seconds: float | None = None,
        count: int = 1,
        times: int | None = 1,
    ) -> Fault:
        """Nothing goes on in the message's direction for so long, or until the fault is lifted.

        For a message of the client's this means that the server stops reading.
        """
        if seconds is not None and not seconds >= 0:
            raise ValueError(f"seconds: expected 0 or more, or None for until it is lifted, not {seconds}")
        return self._declare(Stall(seconds), _moment(after, before, count), times)

    def inject(
        self,
        event: Mapping[str, Any] | str,
        *,
        after: str | None = None,
        before: str | None = None,
        count: int = 1,
        times: int | None = 1,
    ) -> Fault:
        """The server also says this: an event, or any text, which need not be JSON."""
        text = event if isinstance(event, str) else json.dumps({"event_id": "event_injected", **event})
        return self._declare(Inject(text), _moment(after, before, count), times)

    def error(
        self,
        message: str,
        *,
        code: str | None = None,
        type: str = "server_error",
        after: str | None = None,
        before: str | None = None,
        count: int = 1,
        times: int | None = 1,
    ) -> Fault:
        """The server also says an `error` event, out of nothing."""
        event = {"type": "error", "error": {"type": type, "code": code, "message": message, "param": None}}
        return self.inject(event, after=after, before=before, count=count, times=times)

    def drop(self, type: str, *, count: int = 1, times: int | None = 1) -> Fault:
        """The message never arrives at the other end."""
        return self._declare(Drop(), _moment(None, type, count), times)

    def duplicate(self, type: str, *, count: int = 1, times: int | None = 1) -> Fault:
        """The message arrives twice."""
        return self._declare(Duplicate(), _moment(None, type, count), times)

    def expire(
        self, *, after: str | None = None, before: str | None = None, count: int = 1, times: int | None = 1
    ) -> Fault:
        """The session is at its end early: `session_expired`, and close 1001. Returns the close."""
        said = {"type": "invalid_request_error", "code": "session_expired"}
        self.error(EXPIRED, after=after, before=before, count=count, times=times, **said)
        reason = "invalid_request_error.session_expired"
        return self.cut(after=after, before=before, count=count, times=times, close=1001, reason=reason)

    @property
    def declared(self) -> tuple[Fault, ...]:
        """All faults, in the order of their declaration."""
        with self._lock:
            return tuple(self._declared)

    def lift_all(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            declared, self._declared = self._declared, []
        for fault in declared:
            fault.lift()

    def _declare(self, action: Action, moment: Moment, times: int | None) -> Fault:
        if times is not None and times < 1:
            raise ValueError(f"times: expected 1 or more, or None for always, not {times}")
        fault = Fault(action, moment, times)
        with self._lock:
            if len(self._declared) >= FAULTS_MAX:
                raise ValueError(f"a server has at most {FAULTS_MAX} faults; lift those that are over with lift_all()")
            self._declared.append(fault)
        return fault

    # --- the wire's side ----------------------------------------------------------------------------------------------

    def refusal(self) -> Refuse | None:
        """How to refuse the connection that is being opened, if it is to be."""
        for fault in self.declared:
            if isinstance(fault.action, Refuse) and fault.take():
                return fault.action
        return None


class Watch:
    """The faults of one connection, as its messages go by."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._counts: dict[Fault, int] = {}

    def meet(self, sender: Sender, type: str) -> tuple[Sequence[Fault], Sequence[Fault]]:
        """The faults that happen before this message, and those after it. Each message is to be met once."""
        before: list[Fault] = []
        after: list[Fault] = []
        for fault in self._faults.declared:
            if isinstance(fault.action, Refuse) or not fault.moment.fits(sender, type):
                continue
            self._counts[fault] = self._counts.get(fault, 0) + 1
            if self._counts[fault] >= fault.moment.count and fault.take():
                (after if fault.moment.is_after else before).append(fault)
        return before, after


# --- checking ---------------------------------------------------------------------------------------------------------


def _moment(after: str | None, before: str | None, count: int) -> Moment:
    if (after is None) == (before is None):
        raise ValueError("name the message that the fault waits for, either with after= or with before=")
    if count < 1:
        raise ValueError(f"count: expected 1 or more, not {count}")
    pattern = after or before or ""
    known = known_events()
    if not any(fnmatchcase(name, pattern) for name in (*known, *get_args(Sender))):
        close = difflib.get_close_matches(pattern, known, n=1)
        meant = f"did you mean {close[0]!r}?" if close else "name a type, a pattern such as 'response.*', or an end"
        raise ValueError(f"there is no event {pattern!r} in any dialect, so this could never happen; {meant}")
    return Moment(pattern, count, after is not None)


def _check_close(code: int) -> None:
    if code not in CLOSE_CODES or code in (1004, 1005, 1006, 1015):
        raise ValueError(f"close: expected a code that can be sent, 1000 to 4999, not {code}; None drops the line")


@functools.cache
def known_events() -> frozenset[str]:
    """The types of all events, both ends, every dialect and kind of session."""
    from vivavoce.protocol import events, translation
    from vivavoce.protocol.dialects import beta, beta_events, overview_events

    modules = (events, translation, beta_events, overview_events)
    structs = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    ends = (events.ClientEvent, events.ServerEvent)
    tags = {
        str(tag) for struct in structs if issubclass(struct, ends) and (tag := struct.__struct_config__.tag) is not None
    }
    said_by_overview = {"audio.delta", "content_block.delta", "conversation.updated", "function.call"}
    said_by_beta = {*beta.EVENT_NAMES.values(), "transcription_session.created", "transcription_session.updated"}
    said_when_resumed = {"vivavoce.resume", "vivavoce.received"}
    return frozenset(tags | said_by_beta | said_by_overview | said_when_resumed)
