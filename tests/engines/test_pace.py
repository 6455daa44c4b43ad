"""How many answers are written at once: as many as the machine writes faster than they are spoken."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vivavoce.engines.pace import STEP_S_MAX, TRIED_S_MAX, TRIED_TOKENS, Pace

Machine = Callable[[int], float]
"""What a step takes on it, in seconds, by the number of answers."""


def after(pace: Pace, step_s: float, answers: int, steps: int = 100) -> int:
    for _ in range(steps):
        pace.wrote(step_s, answers)
    return pace.most


def crowded(pace: Pace, machine: Machine, steps: int = 1000, answer_steps: int = 60) -> list[int]:
    """More want an answer than can have one, each of so many steps: how many were written in each step."""
    counts: list[int] = []
    left: list[int] = []
    for _ in range(steps):
        left = [one - 1 for one in left if one > 1]
        left += [answer_steps] * (pace.most - len(left))
        for _ in left:
            pace.wrote(machine(len(left)), len(left))
        counts.append(len(left))
    return counts


def alone(pace: Pace, machine: Machine, steps: int = 100) -> int:
    return after(pace, machine(1), 1, steps)


def test_a_quick_machine_writes_all_and_a_slow_one_each_in_turn() -> None:
    assert after(Pace(8), 0.005, 1) == 8
    assert after(Pace(8), 0.3, 1) == 1
    assert after(Pace(1), 0.005, 1) == 1


def test_what_a_step_takes_is_shared_by_those_who_write() -> None:
    pace = Pace(8)
    assert after(pace, 0.03, 1) == 3
    assert after(pace, 0.055, 3) == 5, "together they take less than one after the other"
    assert after(pace, 2 * STEP_S_MAX, 5) == 2, "somebody else uses the machine"


def test_one_long_wait_is_soon_forgotten() -> None:
    pace = Pace(8)
    assert after(pace, 0.02, 1) == 4
    pace.wrote(3600.0, 1)
    assert pace.most < 3
    assert after(pace, 0.02, 1, steps=40) == 4


def test_an_answer_that_takes_long_alone_keeps_the_others_out_only_until_one_has_been_tried() -> None:
    def machine(answers: int) -> float:
        return 0.05 + 0.01 * answers

    pace = Pace(8)
    after(pace, 0.3, 1)
    assert alone(pace, machine) == 2, "as far as is known two take 120 ms, which is still faster than speech"
    counts = crowded(pace, machine)
    assert machine(5) <= STEP_S_MAX < machine(6)
    assert 5 in counts[:400]
    assert alone(pace, machine) == 5, "what was learned is kept"


@pytest.mark.parametrize("token_s", [0.02, 0.03, 0.045, 0.07, 0.12, 0.4])
def test_where_answers_gain_nothing_by_each_other_no_more_are_written_than_fast_enough(token_s: float) -> None:
    counts = crowded(Pace(8), lambda answers: token_s * answers)
    fast_enough = max(int(STEP_S_MAX / token_s + 1e-9), 1)
    settled = counts[200:]
    assert fast_enough in settled
    assert all(count == 1 or token_s * count <= TRIED_S_MAX for count in settled), "a trial is no gap"
    trials = sum(one > fast_enough for one in settled)
    assert trials <= len(settled) * (60 + 10) / (TRIED_TOKENS / (fast_enough + 1)), "and they are few"


def test_a_machine_that_gets_quick_again_is_used_again() -> None:
    pace = Pace(8)

    def machine(answers: int) -> float:
        return 0.02 + 0.008 * answers

    assert 8 in crowded(pace, machine)
    assert set(crowded(pace, lambda answers: 8 * machine(answers))[200:]) == {1}, "somebody else uses it"
    assert 8 in crowded(pace, machine, steps=300)


def test_a_clock_that_stands_still_breaks_nothing() -> None:
    pace = Pace(4)
    assert after(pace, 0.0, 1, steps=10_000) == 4
    assert after(pace, 0.3, 9) == 1, "as with four, which is all that it has places for"
