"""How many answers are written at once: as many as the machine writes faster than they are spoken."""

from __future__ import annotations

from vivavoce.engines.pace import STEP_S_MAX, TOKEN_S_MAX, Pace


def after(pace: Pace, step_s: float, answers: int, steps: int = 100) -> int:
    for _ in range(steps):
        pace.wrote(step_s, answers)
    return pace.most


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
    after(pace, 0.02, 1)
    pace.wrote(3600.0, 1)
    assert pace.most == int(STEP_S_MAX / (0.02 + 0.1 * (TOKEN_S_MAX - 0.02)))
    assert after(pace, 0.02, 1, steps=40) >= 4
