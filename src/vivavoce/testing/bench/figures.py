"""From turns to figures: medians and the 95th percentile, the first turn apart, and one endpoint against another.

Everything here is plain values, as they go into JSON; times are ms. Turns that failed, or that the endpoint took for
ended while they were still spoken, are counted and left out.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .load import Loaded
from .rounds import Held, Interrupted
from .turn import FIRST_AUDIO, STAGES, BargeIn, Turn

__all__ = ["comparison", "counted", "of_barge_ins", "of_load", "of_turns", "percentile", "spread", "stopped"]

Figures = dict[str, Any]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not exceeded by this share of them; of at least one."""
    ranked = sorted(values)
    return ranked[max(int(-(-len(ranked) * share // 1)) - 1, 0)]


def spread(values: Iterable[float | None]) -> Figures | None:
    """Median, 95th percentile and number of those that are there; None where none is."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    return {
        "median_ms": round(statistics.median(there), 1),
        "p95_ms": round(percentile(there, 0.95), 1),
        "n": len(there),
    }


def counted(turns: Sequence[Turn]) -> list[Turn]:
    """Those that say something about how long one waits."""
    return [turn for turn in turns if turn.error is None and not turn.was_cut]


def of_turns(held: Held) -> Figures:
    """What the turns at an endpoint have shown. The first of all stands apart."""
    first, later = held.turns[0], held.turns[1:]
    good = counted(later)
    stages = {stage: spread(turn.stages.get(stage) for turn in good) for stage in STAGES}
    waited = stages[FIRST_AUDIO]
    of_first = first.stages.get(FIRST_AUDIO) if counted([first]) else None
    return {
        "turns": len(later),
        "counted": len(good),
        "cut": sum(turn.was_cut for turn in later),
        "failed": sum(turn.error is not None for turn in later),
        "stages": {stage: figures for stage, figures in stages.items() if figures is not None},
        "commit_to_first_audio": spread(turn.after_commit_ms for turn in good),
        "gaps": sum(turn.gaps for turn in good),
        "gap_ms": round(sum(turn.gap_ms for turn in good), 1),
        "first_turn": _rounded(first.stages),
        "first_turn_error": first.error,
        "first_turn_ratio": round(of_first / waited["median_ms"], 3)
        if of_first and waited and waited["median_ms"] > 0
        else None,
        "microphone_late_p99_ms": round(percentile(held.late_ms, 0.99), 1) if held.late_ms else None,
        "each": [_plain(turn) for turn in held.turns],
    }


def _plain(turn: Turn) -> Figures:
    kept = ("name", "spoken_ms", "heard", "answer", "gaps", "error", "was_cut")
    values = asdict(turn)
    after_commit_ms = None if turn.after_commit_ms is None else round(turn.after_commit_ms, 1)
    return {
        **{name: values[name] for name in kept},
        "audio_ms": round(turn.audio_ms),
        "gap_ms": round(turn.gap_ms, 1),
        "stages": _rounded(turn.stages),
        "commit_to_first_audio": after_commit_ms,
    }


def _rounded(stages: Mapping[str, float]) -> Figures:
    return {stage: round(ms, 1) for stage, ms in stages.items()}


def stopped(barge_ins: Sequence[BargeIn]) -> list[BargeIn]:
    """Those that stopped something."""
    return [one for one in barge_ins if not one.was_late and one.status]


def of_barge_ins(interrupted: Interrupted) -> Figures:
    """How soon an endpoint fell silent, where it was sending when the user began to speak.

    Counted apart are answers that were complete before, and those of which nothing was sent at that time.
    """
    there = interrupted.barge_ins
    good = stopped(there)
    return {
        "interruptions": interrupted.asked,
        "counted": len(good),
        "too_late": sum(one.was_late for one in there),
        "failed": interrupted.asked - len(good) - sum(one.was_late for one in there),
        "sent_nothing": sum("last_audio" not in one.stages for one in good),
        "cancelled": sum(one.status == "cancelled" for one in good),
        "speech_started": spread(one.stages.get("speech_started") for one in there),
        "last_audio": spread(one.stages.get("last_audio") for one in good),
        "done": spread(one.stages.get("done") for one in good),
        "each": [
            {"name": one.name, "status": one.status, "was_late": one.was_late, "stages": _rounded(one.stages)}
            for one in there
        ],
    }


def of_load(loaded: Loaded) -> Figures:
    """What a server takes for so many sessions, and how long each waits meanwhile."""
    good = counted(loaded.turns)
    per_core = loaded.sessions_per_core
    return {
        "sessions": loaded.sessions,
        "seconds": round(loaded.seconds, 1),
        "cores": round(loaded.cores, 3),
        "sessions_per_core": None if per_core is None else round(per_core, 1),
        "turns": len(loaded.turns),
        "counted": len(good),
        "failed": sum(turn.error is not None for turn in loaded.turns),
        "first_audio": spread(turn.stages.get(FIRST_AUDIO) for turn in good),
        "commit_to_first_audio": spread(turn.after_commit_ms for turn in good),
        "gaps": sum(turn.gaps for turn in good),
        "load_late_p99_ms": round(percentile(loaded.late_ms, 0.99), 1) if loaded.late_ms else None,
    }


def comparison(one: Held, other: Held) -> Figures | None:
    """The medians of `one` by those of `other`, over the rounds that count at both; None where there are none."""
    rounds = list(zip(one.turns[1:], other.turns[1:], strict=True))
    pairs = [(a, b) for a, b in rounds if len(counted([a, b])) == 2]
    waits = [(a.stages[FIRST_AUDIO], b.stages[FIRST_AUDIO]) for a, b in pairs]
    if not waits:
        return None
    of_one, of_other = (statistics.median(wait[side] for wait in waits) for side in (0, 1))
    return {
        "rounds": len(waits),
        "first_audio_ratio": round(of_one / of_other, 3) if of_other > 0 else None,
        "sooner_in": sum(a < b for a, b in waits),
        "difference_median_ms": round(statistics.median(a - b for a, b in waits), 1),
    }
