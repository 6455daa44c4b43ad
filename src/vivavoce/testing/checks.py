"""Assertions on a conversation: what was heard, said, called and spent, how soon, and that nothing went wrong.

    assert_heard(realtime_server, "it is sunny in Oslo")
    assert_answered_within(realtime_server, 800)

Each takes what `evidence` takes, and gives back what it went by. Words are compared without case and punctuation;
`fuzzy` is the share of them that may be missing, added or wrong. A failure tells what there was instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vivavoce.core.account import Bill, Price
from vivavoce.protocol.waterfall import STEPS, Waterfall

from .evidence import Called, Evidence, Spoken, Turn, evidence

__all__ = [
    "assert_answered_within",
    "assert_called",
    "assert_cost_below",
    "assert_heard",
    "assert_no_errors",
    "assert_not_heard",
    "assert_said",
    "assert_steps_within",
    "called",
    "cost",
    "heard",
    "said",
    "turns",
    "waterfalls",
    "words",
]

SHOWN_MAX = 20

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


# --- what there is ----------------------------------------------------------------------------------------------------


def heard(source: Any) -> list[str]:
    """What the user has heard, or read, message by message; of one that was truncated, what came before that.

    Which words those are is reckoned by their share of the audio. Raises `ValueError` where only a conversation is
    given, and one of its messages was truncated: then its words are gone.
    """
    return [_heard(spoken) for spoken in evidence(source).spoken if spoken.by == "assistant"]


def said(source: Any, by: Literal["user", "assistant"] = "user") -> list[str]:
    """What the user said or wrote, as it was understood; or all that the assistant said, heard or not."""
    return [spoken.text for spoken in evidence(source).spoken if spoken.by == by]


def called(source: Any) -> list[Called]:
    """The calls of functions, in order."""
    return evidence(source).called


def turns(source: Any) -> list[Turn]:
    """The user's turns. Raises `TypeError` where the events have no times."""
    found = evidence(source).turns
    if found is None:
        raise TypeError("these events have no times; give the lines of a tape, or what a RealServer has seen")
    return found


def waterfalls(source: Any) -> list[Waterfall]:
    """Where the time of each response went, as the server measured it: of a `RealServer` all, whoever its client is.

    Of events, tapes and conversations those that the server told its client, who has to have asked.
    """
    measured = getattr(source, "waterfalls", None)
    return list(evidence(source).waterfalls if measured is None else measured)


def cost(source: Any, price: Price) -> float:
    """What the responses cost, and the transcription where it is counted by the minute.

    Raises `ValueError` where a response that is done has no usage.
    """
    return _cost(evidence(source), price)


def words(text: str) -> list[str]:
    """The words of a text, in lower case, without punctuation."""
    return [word.replace("’", "'") for word in _WORD.findall(text.casefold())]


# --- assertions -------------------------------------------------------------------------------------------------------


def assert_heard(source: Any, text: str, *, fuzzy: float = 0.0) -> str:
    """The user has heard these words, one after the other. Gives back all that was heard."""
    return _assert_among(heard(source), text, fuzzy, "was not heard; heard was")


def assert_not_heard(source: Any, text: str) -> str:
    """The user has not heard these words, one after the other. Gives back all that was heard."""
    everything = heard(source)
    if _edits(words(text), words(" ".join(everything))) == 0:
        raise AssertionError(f"{text!r} was heard, and should not have been:\n{_listed(everything)}")
    return " ".join(everything)


def assert_said(source: Any, text: str, *, by: Literal["user", "assistant"] = "user", fuzzy: float = 0.0) -> str:
    """The user said these words, as they were understood; or the assistant did, heard or not. Gives back all of it."""
    return _assert_among(said(source, by), text, fuzzy, f"was not said by the {by}; said was")


def assert_answered_within(source: Any, ms: float) -> list[float]:
    """Every turn of the user was answered so soon: from its end to the first audio (or text), tools included.

    The end is the first of `speech_stopped`, `committed`, and the client's `response.create`; the pause by which a
    detector knows that it is the end comes on top. Gives back the time of each turn, in ms.
    """
    found = turns(source)
    if not found:
        raise AssertionError("there was no turn of the user that could have been answered")
    lines, is_late = [], False
    for number, turn in enumerate(found, 1):
        took = None if turn.answered_ms is None else turn.answered_ms - turn.ended_ms
        late = took is None or took > ms
        is_late = is_late or late
        lines.append(f"turn {number}: {'no answer' if took is None else f'{took:.0f} ms'}{'  <- late' if late else ''}")
    if is_late:
        raise AssertionError(f"expected an answer within {ms:g} ms of each turn:\n{_listed(lines)}")
    return [turn.answered_ms - turn.ended_ms for turn in found if turn.answered_ms is not None]


def assert_steps_within(source: Any, **limits_ms: float) -> list[Waterfall]:
    """Every response reached these steps so soon: `assert_steps_within(server, transcript=300, first_sent=800)`.

    The steps are those of `Waterfall`, and count as there: from the end of the user's speech, or what stands for it.
    One that a response has not reached is late. Gives back the waterfalls. Raises `ValueError` for an unknown step.
    """
    if unknown := sorted(limits_ms.keys() - STEPS.keys()):
        raise ValueError(f"there is no step {unknown[0]!r}; there is {', '.join(STEPS)}")
    found = waterfalls(source)
    if not found:
        raise AssertionError("there was no response of which the server told where its time went")
    lines, is_late = [], False
    for number, one in enumerate(found, 1):
        took = {step: one.steps.get(step) for step in limits_ms}
        late = [step for step, ms in took.items() if ms is None or ms > limits_ms[step]]
        is_late = is_late or bool(late)
        told = ", ".join(f"{step} {'not reached' if ms is None else f'{ms} ms'}" for step, ms in took.items())
        lines.append(f"response {number} (from {one.counted_from}): {told}{'  <- late' if late else ''}")
    if is_late:
        wanted = ", ".join(f"{step} within {ms:g} ms" for step, ms in limits_ms.items())
        raise AssertionError(f"expected {wanted}:\n{_listed(lines)}")
    return found


def assert_called(
    source: Any, tool: str, arguments: Mapping[str, Any] | None = None, *, times: int | None = None
) -> Called:
    """The model called this function, with these arguments where they are given, and so often. Gives back a call."""
    everything = called(source)
    fitting = [call for call in everything if call.name == tool and _fits(call, arguments)]
    if not fitting or (times is not None and len(fitting) != times):
        wanted = f"{tool}({'…' if arguments is None else json.dumps(dict(arguments))})"
        often = "" if times is None else f" {times} times, and it was {len(fitting)}"
        calls = [f"{call.name}({call.arguments})" for call in everything]
        raise AssertionError(f"expected a call of {wanted}{often}; called was:\n{_listed(calls)}")
    return fitting[0]


def assert_cost_below(source: Any, limit: float, price: Price) -> float:
    """It has cost less than this. Gives back what it cost."""
    found = evidence(source)
    spent = _cost(found, price)
    if spent >= limit:
        usages = [f"{id}: {_tokens(usage)}" for id, usage in found.usages]
        raise AssertionError(f"expected a cost below {limit:g}, and it was {spent:g}:\n{_listed(usages)}")
    return spent


def assert_no_errors(source: Any) -> None:
    """There was no `error` event, no failed response and no failed transcription."""
    if failures := evidence(source).failures:
        raise AssertionError(f"expected no errors:\n{_listed(failures)}")


# --- inside -----------------------------------------------------------------------------------------------------------


def _heard(spoken: Spoken) -> str:
    if spoken.heard is None:
        raise ValueError(
            "a message was truncated, and a conversation does not keep the words of one that was; give the events "
            "themselves, the lines of a tape, or what a RealServer has seen"
        )
    return spoken.heard


def _assert_among(texts: Sequence[str], text: str, fuzzy: float, complaint: str) -> str:
    wanted = words(text)
    if not wanted:
        raise ValueError(f"{text!r} has no words to look for")
    if not 0 <= fuzzy < 1:
        raise ValueError(f"fuzzy: expected a share of 0 to below 1, not {fuzzy}")
    everything = " ".join(texts)
    edits = _edits(wanted, words(everything))
    if edits > fuzzy * len(wanted):
        closest = f" (the closest differs by {edits} of {len(wanted)} words)" if edits < len(wanted) else ""
        raise AssertionError(f"{text!r} {complaint}{closest}:\n{_listed(texts)}")
    return everything


def _edits(wanted: Sequence[str], there: Sequence[str]) -> int:
    """The fewest words to add, leave out or replace, so that `wanted` is a stretch of `there`."""
    row = [0] * (len(there) + 1)
    for index, word in enumerate(wanted, 1):
        above, row = row, [index]
        for at, other in enumerate(there):
            row.append(min(above[at] + (word != other), above[at + 1] + 1, row[at] + 1))
    return min(row)


def _fits(call: Called, arguments: Mapping[str, Any] | None) -> bool:
    if arguments is None:
        return True
    try:
        return bool(json.loads(call.arguments) == dict(arguments))
    except ValueError:
        return False


def _cost(found: Evidence, price: Price) -> float:
    bill = Bill(price)
    for id, usage in found.usages:
        if usage is None:
            raise ValueError(f"response {id} is done and has no usage, so its cost is not known")
        bill.add(usage)
    bill.transcribed(round(found.transcribed_s * 1000))
    return bill.cost


def _tokens(usage: Any) -> str:
    return "no usage" if usage is None else f"{usage.input_tokens} tokens in, {usage.output_tokens} out"


def _listed(lines: Sequence[str]) -> str:
    shown = [f"  - {line}" for line in lines[:SHOWN_MAX]] or ["  nothing"]
    return "\n".join([*shown, *([f"  … and {len(lines) - SHOWN_MAX} more"] if len(lines) > SHOWN_MAX else [])])
