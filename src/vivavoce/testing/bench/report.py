"""Figures for people: lines while it is measured, tables at the end, the stages of a turn as bars.

Takes what `figures` gives; plain text that reads the same on a terminal and in a log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .turn import FIRST_AUDIO, STAGES, BargeIn, Turn

__all__ = ["barge_in_line", "heading", "load_table", "table", "turn_line", "waterfall"]

BAR_CHARS = 46
LABEL_CHARS = 34
CELL_CHARS = 18
NAME_CHARS_MAX = 34
REMARK_CHARS_MAX = 60
LATE_MS_MAX = 20.0
"""A microphone that is later than this makes figures that say more about this machine than about the endpoint."""

SHOWN = ("speech_stopped", "created", "transcript", "first_text", "first_audio", "done")

Figures = Mapping[str, Any]


def _row(cells: Sequence[str], name: str, letter: str) -> str:
    return f"{letter:2}" + "".join(f"{cell:>9}" for cell in cells) + f"  {name}"


def heading() -> str:
    """The names above the columns of `turn_line`."""
    return _row(["speech", "stopped", "created", "heard", "text", "audio", "done"], "ms after the end of speech", "")


def turn_line(turn: Turn, letter: str = "") -> str:
    """One turn as a line; `letter` is its endpoint."""
    cells = [f"{turn.spoken_ms / 1000:.1f} s"]
    cells += [f"{turn.stages[stage]:.0f}" if stage in turn.stages else "-" for stage in SHOWN]
    remark = turn.error or ("cut early; " if turn.was_cut else "") + f"{turn.heard.strip()!r}"
    return _row(cells, f"{turn.name[:NAME_CHARS_MAX]}: {remark[:REMARK_CHARS_MAX]}", letter)


def barge_in_line(barge_in: BargeIn, letter: str = "") -> str:
    """One interruption as a line."""
    shown = {key: name for key, name in REACTION.items() if key == "speech_started" or not barge_in.was_late}
    times = [f"{name} {barge_in.stages[key]:.0f} ms" for key, name in shown.items() if key in barge_in.stages]
    how = "the answer was complete before" if barge_in.was_late else barge_in.status or "the answer has not ended"
    return f"{letter:2}  interrupted, after the onset: {', '.join(times) or 'nothing'}; {how}"


REACTION = {"speech_started": "speech found", "last_audio": "last audio", "done": "answer ended"}


# --- tables -----------------------------------------------------------------------------------------------------------


def table(endpoints: Sequence[Figures], compared: Figures | None = None) -> Iterator[str]:
    """All figures of the endpoints, a column each. Each has `letter`, `name`, and `turns` or `barge_in` or both."""
    for one in endpoints:
        yield f"{one['letter']}  {one['name']}"
    if any(one.get("turns") for one in endpoints):
        yield ""
        yield from _turns([one["turns"] for one in endpoints], [one["letter"] for one in endpoints])
    if compared is not None:
        yield from ("", _compared(compared, endpoints))
    if any(one.get("barge_in") for one in endpoints):
        yield ""
        yield from _barge_ins([one["barge_in"] for one in endpoints], [one["letter"] for one in endpoints])
    for one in endpoints:
        if one.get("turns") and one["turns"]["stages"]:
            yield from ("", f"{one['letter']}  where the time goes (medians, ms after the end of speech)")
            yield from waterfall(one["turns"]["stages"])
    late = [one["turns"]["microphone_late_p99_ms"] or 0.0 for one in endpoints if one.get("turns")]
    if late:
        doubt = "" if max(late) <= LATE_MS_MAX else "; this machine is too busy for its figures to be trusted"
        yield from ("", f"The microphone was late by {max(late):.1f} ms (p99){doubt}.")


def _line(label: str, cells: Sequence[str]) -> str:
    return f"  {label:{LABEL_CHARS}}" + "".join(f"{cell:>{CELL_CHARS}}" for cell in cells)


def _cell(figures: Figures | None) -> str:
    return f"{figures['median_ms']:.0f} ({figures['p95_ms']:.0f})" if figures else "-"


def _turns(of: Sequence[Figures], letters: Sequence[str]) -> Iterator[str]:
    yield _line("ms, median (p95)", letters)
    for stage, name in STAGES.items():
        if any(stage in one["stages"] for one in of):
            yield _line(f"end of speech → {name}", [_cell(one["stages"].get(stage)) for one in of])
    yield _line("commit → first audio", [_cell(one["commit_to_first_audio"]) for one in of])
    yield _line("first turn: → first audio", [_first(one) for one in of])
    yield _line("gaps in answers", [f"{one['gaps']} ({one['gap_ms']:.0f} ms)" for one in of])
    yield _line("turns counted", [f"{one['counted']} of {one['turns']}" for one in of])
    if any(one["cut"] or one["failed"] for one in of):
        yield _line("cut early, failed", [f"{one['cut']}, {one['failed']}" for one in of])


def _first(figures: Figures) -> str:
    if FIRST_AUDIO not in figures["first_turn"]:
        return "-"
    ratio = figures["first_turn_ratio"]
    return f"{figures['first_turn'][FIRST_AUDIO]:.0f}" + (f" ({ratio:.2f} ×)" if ratio is not None else "")


def _compared(compared: Figures, endpoints: Sequence[Figures]) -> str:
    one, other = (figures["letter"] for figures in endpoints)
    ratio = compared["first_audio_ratio"]
    by = f", {one} / {other} = {ratio:.2f}" if ratio is not None else ""
    return (
        f"  first audio{by}; {one} was sooner in {compared['sooner_in']} of {compared['rounds']} rounds, "
        f"by {-compared['difference_median_ms']:.0f} ms in the median"
    )


def _barge_ins(of: Sequence[Figures], letters: Sequence[str]) -> Iterator[str]:
    yield _line("interruption: ms, median (p95)", letters)
    for key, name in REACTION.items():
        yield _line(f"onset of speech → {name}", [_cell(one[key]) for one in of])
    yield _line("interruptions counted", [f"{one['counted']} of {one['interruptions']}" for one in of])
    if any(one["sent_nothing"] for one in of):
        yield _line("of these, nothing sent after", [str(one["sent_nothing"]) for one in of])
    if any(one["too_late"] or one["failed"] for one in of):
        yield _line("answer complete before, failed", [f"{one['too_late']}, {one['failed']}" for one in of])


def load_table(loads: Sequence[Figures]) -> Iterator[str]:
    """What the server took, a line for each number of sessions."""
    heads = ("sessions", "cores", "per core", "first audio", "from commit", "gaps", "turns", "late p99")
    yield "".join(f"{head:>14}" for head in heads)
    for one in loads:
        per_core, late = one["sessions_per_core"], one["load_late_p99_ms"]
        cells = (
            str(one["sessions"]),
            f"{one['cores']:.2f}",
            "-" if per_core is None else f"{per_core:.1f}",
            _cell(one["first_audio"]),
            _cell(one["commit_to_first_audio"]),
            str(one["gaps"]),
            f"{one['counted']} of {one['turns']}",
            "-" if late is None else f"{late:.1f} ms",
        )
        yield "".join(f"{cell:>14}" for cell in cells)
    if any((one["load_late_p99_ms"] or 0.0) > LATE_MS_MAX for one in loads):
        yield "The sessions themselves were late: this machine is too busy for the figures to be trusted."


def waterfall(stages: Mapping[str, Figures]) -> Iterator[str]:
    """The stages up to the first sound as bars, each from the one before it to its own median."""
    reached = sorted((of["median_ms"], stage) for stage, of in stages.items() if stage != "done")
    whole = max(reached[-1][0], 1.0) if reached else 1.0
    before = 0.0
    for median, stage in reached:
        begin, end = (round(max(ms, 0.0) / whole * BAR_CHARS) for ms in (before, median))
        bar = " " * begin + "█" * max(end - begin, 0) + "▏" * (begin >= end)
        yield f"  {STAGES[stage]:18} {bar:{BAR_CHARS + 1}} {median:6.0f}  (+{median - before:.0f})"
        before = median
