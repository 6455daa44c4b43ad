"""The dialogue test language: what the session machine hears, and what it must answer, in order.

    with playbook(session) as play:
        play >> Opened() << sends("session.created")
        play >> ResponseCreate() << sends("response.created", response={"id": resp}) << asks(Generate, response_id=resp)
        play.after(60_000) << sends("response.done", response={"status": "failed"})

`>>` hands over an input at once, `<<` takes the next effect and compares. Effects that nobody expected fail at the next
`>>`, at the next move of time or at the end of the block; so does a block in which nothing was said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import EllipsisType, TracebackType
from typing import Protocol

import msgspec

from vivavoce.core.messages import Effect, Input, Send, WakeUp
from vivavoce.protocol.events import ServerEvent, Unknown

from .matching import Id, Match, brief, filled, match

__all__ = ["Expected", "Machine", "Moment", "Playbook", "PlaybookFailed", "asks", "counting_ids", "playbook", "sends"]

WAKE_UPS_MAX = 1_000
"""Wake-ups at one moment of time: a machine that wants more has a deadline that never moves."""


class Machine(Protocol):
    """What a playbook talks to."""

    def handle(self, input: Input, now_ms: int) -> list[Effect]:
        """Take one input; say what is to be done."""
        ...

    def deadline(self) -> int | None:
        """When to be woken next, in the clock of `handle`."""
        ...


class PlaybookFailed(AssertionError):
    """The machine did not follow the playbook; the message says where and how."""


def counting_ids() -> Callable[[str], str]:
    """A source of ids that counts for each prefix: item_1, item_2, resp_1."""
    counts: Counter[str] = Counter()

    def next_id(prefix: str) -> str:
        counts[prefix] += 1
        return f"{prefix}_{counts[prefix]}"

    return next_id


# --- expectations -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """An effect of which only the named fields are compared."""

    name: str
    fields: dict[str, object]

    def __repr__(self) -> str:
        return f"{self.name} {brief(self.fields)}" if self.fields else self.name


def sends(event_type: str, /, **fields: object) -> Expected:
    """A `Send` of an event of this type with these fields: dicts are compared partly, lists entry by entry."""
    return Expected(f"send {event_type}", fields)


def asks(effect: type[msgspec.Struct], /, **fields: object) -> Expected:
    """An effect of this class with these fields, compared as in `sends`."""
    return Expected(effect.__name__, fields)


Expectation = Expected | ServerEvent | msgspec.Struct | EllipsisType


def _name(effect: msgspec.Struct) -> str:
    return f"send {effect.event.type}" if isinstance(effect, Send) else type(effect).__name__


def _describe(effect: msgspec.Struct) -> str:
    return f"send {brief(effect.event)}" if isinstance(effect, Send) else brief(effect)


def _match(expected: Expected | msgspec.Struct, came: Effect, known: dict[str, Id]) -> Match:
    if isinstance(expected, Expected):
        if _name(came) != expected.name:
            return Match([f"expected {expected!r}, came {_describe(came)}"])
        return match(expected.fields, came.event if isinstance(came, Send) else came, known)
    if isinstance(expected, ServerEvent | Unknown):
        expected = Send(expected)  # type: ignore[arg-type]  # Unknown can be expected, though the machine sends none.
    if _name(expected) != _name(came):
        return Match([f"expected {_describe(expected)}, came {_describe(came)}"])
    if isinstance(expected, Send) and isinstance(came, Send) and not expected.event.event_id:
        return match(expected.event, msgspec.structs.replace(came.event, event_id=""), known)
    return match(expected, came, known)


# --- the dialogue -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """One entry of the record: an input or an effect, and when."""

    t_ms: int
    message: Input | Effect


@dataclass
class _Step:
    """One input (or move of time) with the effects that it had."""

    number: int
    t_ms: int
    said: str
    effects: list[Effect] = field(default_factory=list)
    taken: int = 0
    passing: bool = False


class Playbook:
    """A dialogue under way. Use it as a context manager; see the module."""

    def __init__(self, machine: Machine, now_ms: int = 0) -> None:
        self.machine = machine
        self.now_ms = now_ms
        self.record: list[Moment] = []
        self._known: dict[str, Id] = {}
        self._step = _Step(0, now_ms, "(nothing was said yet)")
        self._open = False
        self._has_failed = False

    def __enter__(self) -> Playbook:
        self._open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open = False
        if kind is not None or self._has_failed:  # it was said already
            return
        if self._step.number == 0:
            raise PlaybookFailed("the playbook was never run: nothing was said in its block")
        self._finish_step()

    def __rshift__(self, input: Input) -> Playbook:
        """Hand an input to the machine. Ids in it stand for the values that they took."""
        input = filled(input)
        self._begin(brief(input))
        self._hand(input)
        return self

    def __lshift__(self, expected: Expectation) -> Playbook:
        """Take the next effect and compare. `...` passes over all effects until the next expectation fits."""
        if isinstance(expected, EllipsisType):
            self._step.passing = True
            return self
        self._take(expected)
        return self

    def after(self, ms: int) -> Playbook:
        """Let `ms` milliseconds pass, with the wake-ups that fall into them."""
        return self.at(self.now_ms + ms)

    def at(self, t_ms: int) -> Playbook:
        """Let time pass until `t_ms`, with the wake-ups that fall into it."""
        if t_ms < self.now_ms:
            raise PlaybookFailed(f"time does not go back: it is {self.now_ms} ms, asked for {t_ms} ms")
        self._begin(f"(time passes until {t_ms} ms)")
        woken = 0
        while (deadline := self.machine.deadline()) is not None and deadline <= t_ms:
            woken = woken + 1 if deadline <= self.now_ms else 0
            if woken > WAKE_UPS_MAX:
                raise self._failure(f"the machine was woken {woken} times at {self.now_ms} ms and asks for more")
            self.now_ms = max(self.now_ms, deadline)
            self._hand(WakeUp())
        self.now_ms = t_ms
        return self

    def _begin(self, said: str) -> None:
        if not self._open:
            raise PlaybookFailed("a playbook is run inside its `with` block, which checks that nothing is left over")
        self._finish_step()
        self._step = _Step(self._step.number + 1, self.now_ms, said)

    def _hand(self, input: Input) -> None:
        self.record.append(Moment(self.now_ms, input))
        effects = self.machine.handle(input, self.now_ms)
        self.record.extend(Moment(self.now_ms, effect) for effect in effects)
        self._step.effects.extend(effects)

    def _finish_step(self) -> None:
        step = self._step
        if not step.passing and step.taken < len(step.effects):
            extra = step.effects[step.taken]
            raise self._failure(f"effect {step.taken + 1} was not expected: {_describe(extra)}")

    def _take(self, expected: Expected | msgspec.Struct) -> None:
        if not self._open:
            raise PlaybookFailed("a playbook is run inside its `with` block, which checks that nothing is left over")
        step = self._step
        if step.passing:
            self._pass_to(expected)
        if step.taken >= len(step.effects):
            raise self._failure(f"effect {step.taken + 1}: expected {_wanted(expected)}, and nothing more came")
        outcome = _match(expected, step.effects[step.taken], self._known)
        if not outcome:
            raise self._failure(f"effect {step.taken + 1} differs:\n    " + "\n    ".join(outcome.differences))
        self._learn(outcome)
        step.taken += 1

    def _pass_to(self, expected: Expected | msgspec.Struct) -> None:
        """Pass over effects until one fits; where none does, leave the position to be reported."""
        step = self._step
        step.passing = False
        for index in range(step.taken, len(step.effects)):
            if _match(expected, step.effects[index], self._known):
                step.taken = index
                return
        raise self._failure(f"none of the effects from {step.taken + 1} on is {_wanted(expected)}")

    def _learn(self, outcome: Match) -> None:
        for one, value in outcome.learned.items():
            one.value = value
            self._known[value] = one

    def _failure(self, why: str) -> PlaybookFailed:
        self._has_failed = True
        step = self._step
        lines = [f"step {step.number} at {step.t_ms} ms: >> {step.said}", f"  {why}", "  effects of this step:"]
        for index, effect in enumerate(step.effects):
            mark = "ok" if index < step.taken else "->" if index == step.taken else "  "
            lines.append(f"   {mark} {index + 1:2} {_describe(effect)}")
        if not step.effects:
            lines.append("      none")
        return PlaybookFailed("\n".join(lines))


def _wanted(expected: Expected | msgspec.Struct) -> str:
    return repr(expected) if isinstance(expected, Expected) else brief(expected)


def playbook(machine: Machine, now_ms: int = 0) -> Playbook:
    """A dialogue with `machine`, its clock at `now_ms`. To be used in a `with` statement."""
    return Playbook(machine, now_ms)
