"""How a benchmark is told: the tables, the lines, the picture."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Any

import pytest

from vivavoce.testing.bench import figures, report
from vivavoce.testing.bench.conversation import Endpoint
from vivavoce.testing.bench.load import Loaded
from vivavoce.testing.bench.plot import Curve, Panel, svg
from vivavoce.testing.bench.rounds import Held, Interrupted
from vivavoce.testing.bench.turn import BargeIn, Turn

SVG = "{http://www.w3.org/2000/svg}"


def a_turn(first_audio: float, **how: Any) -> Turn:
    stages = {
        "speech_stopped": 500.0,
        "committed": 502.0,
        "created": 503.0,
        "first_audio": first_audio,
        "done": first_audio + 90,
    }
    return Turn("q", 1_200, 0.0, stages=stages, heard=" Hello. ", **how)


def a_column(letter: str, times: Sequence[float], **how: Any) -> dict[str, Any]:
    held = Held(Endpoint(f"endpoint {letter}"), [a_turn(ms) for ms in times], late_ms=[0.5])
    return {"letter": letter, "name": held.endpoint.name, "turns": figures.of_turns(held), **how}


def lines(text: object) -> str:
    return "\n".join(text)  # type: ignore[arg-type]


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_has_a_column_for_each_endpoint() -> None:
    shown = lines(report.table([a_column("A", [700, 600, 620, 640]), a_column("B", [900, 800, 800, 800])]))
    assert re.search(r"^A  endpoint A\nB  endpoint B$", shown, re.MULTILINE)
    for row in (
        r"ms, median \(p95\) +A +B",
        r"end of speech → first audio +620 \(640\) +800 \(800\)",
        r"commit → first audio +118 \(138\) +298 \(298\)",
        r"first turn: → first audio +700 \(1\.13 ×\) +900 \(1\.12 ×\)",
        r"gaps in answers +0 \(0 ms\) +0 \(0 ms\)",
        r"turns counted +3 of 3 +3 of 3",
    ):
        assert re.search(rf"^  {row}$", shown, re.MULTILINE), row
    assert "transcript" not in shown, "nobody had one"
    assert "cut early" not in shown
    assert "where the time goes" in shown
    assert "late by 0.5 ms (p99)." in shown


def test_what_went_wrong_is_in_the_table() -> None:
    held = Held(Endpoint("x"), [a_turn(700), a_turn(1, error="no answer"), a_turn(600, was_cut=True)], [30.0])
    shown = lines(report.table([{"letter": "A", "name": "x", "turns": figures.of_turns(held)}]))
    assert re.search(r"turns counted +0 of 2", shown)
    assert re.search(r"cut early, failed +1, 1", shown)
    assert "too busy" in shown


def test_two_endpoints_are_compared_round_by_round() -> None:
    one, other = ([a_turn(ms) for ms in times] for times in ((1, 600, 620, 900), (1, 800, 830, 850)))
    compared = figures.comparison(Held(Endpoint("a"), one), Held(Endpoint("b"), other))
    shown = lines(report.table([a_column("A", [1, 2]), a_column("B", [1, 2])], compared))
    assert "first audio, A / B = 0.75; A was sooner in 2 of 3 rounds, by 200 ms in the median" in shown


def test_interruptions_are_in_the_table() -> None:
    stages = {"speech_started": 80.0, "last_audio": 90.0, "done": 120.0}
    done = [BargeIn("q", "r", 0.0, stages, "cancelled"), BargeIn("q", "r", 0.0, was_late=True)]
    of = figures.of_barge_ins(Interrupted(Endpoint("x"), 3, done))
    shown = lines(report.table([{"letter": "A", "name": "x", "barge_in": of}]))
    assert re.search(r"onset of speech → last audio +90 \(90\)", shown)
    assert re.search(r"interruptions counted +1 of 3", shown)
    assert re.search(r"answer complete before, failed +1, 1", shown)
    assert "nothing sent after" not in shown
    between = BargeIn("q", "r", 0.0, {"speech_started": 80.0, "done": 120.0}, "cancelled")
    of = figures.of_barge_ins(Interrupted(Endpoint("x"), 4, [*done, between]))
    shown = lines(report.table([{"letter": "A", "name": "x", "barge_in": of}]))
    assert re.search(r"onset of speech → last audio +90 \(90\)", shown)
    assert re.search(r"of these, nothing sent after +1", shown)


def test_a_line_says_what_happened_in_a_turn() -> None:
    assert report.turn_line(
        a_turn(612.4), "A"
    ) == "A     1.2 s      500      503        -        -      612      702" + ("  q: 'Hello.'")
    assert report.turn_line(a_turn(1, error="no answer"), "B").endswith("q: no answer")
    assert "cut early; 'Hello.'" in report.turn_line(a_turn(1, was_cut=True))
    assert len(report.heading()) > 60


def test_a_line_says_what_happened_at_an_interruption() -> None:
    stopped = BargeIn("q", "r", 0.0, {"speech_started": 80.0, "last_audio": 90.0, "done": 120.0}, "cancelled")
    assert report.barge_in_line(stopped, "A") == (
        "A   interrupted, after the onset: speech found 80 ms, last audio 90 ms, answer ended 120 ms; cancelled"
    )
    late = BargeIn("q", "r", 0.0, {"speech_started": 80.0, "last_audio": 0.0}, was_late=True)
    assert report.barge_in_line(late).endswith("speech found 80 ms; the answer was complete before")
    assert report.barge_in_line(BargeIn("q", "r", 0.0)).endswith("nothing; the answer has not ended")


def test_sessions_are_a_line_for_each_number() -> None:
    loads = [Loaded(4, 10.0, 0.5, [a_turn(600), a_turn(700)], [1.0]), Loaded(8, 10.0, 0.0, [], [40.0])]
    rows = list(report.load_table([figures.of_load(one) for one in loads]))
    assert rows[1].split() == ["4", "0.50", "8.0", "650", "(700)", "148", "(198)", "0", "2", "of", "2", "1.0", "ms"]
    assert rows[2].split() == ["8", "0.00", "-", "-", "-", "0", "0", "of", "0", "40.0", "ms"]
    assert "too busy" in rows[3]


def test_a_waterfall_has_a_bar_for_each_stage_from_the_one_before() -> None:
    stages = {"speech_stopped": 100.0, "first_audio": 200.0, "done": 900.0}
    first, second = report.waterfall({stage: {"median_ms": ms} for stage, ms in stages.items()})
    assert first.count("█") == second.count("█") == report.BAR_CHARS // 2
    assert second.index("█") == first.index("█") + report.BAR_CHARS // 2
    assert second.endswith("200  (+100)")


# --- the picture ------------------------------------------------------------------------------------------------------


def texts(drawing: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def curves(drawing: str) -> list[list[tuple[float, float]]]:
    found = ElementTree.fromstring(drawing).iter(f"{SVG}polyline")
    return [[(float(x), float(y)) for x, y in (at.split(",") for at in one.get("points", "").split())] for one in found]


def test_a_picture_has_title_legend_axes_and_a_curve_for_each_endpoint() -> None:
    panels = [
        Panel("first audio", [Curve("a", [600, 620, 640]), Curve("b <&>", [800])]),
        Panel("commit", [Curve("a", [5]), Curve("b <&>", [])]),
        Panel("nothing", [Curve("a", [])]),
    ]
    drawing = svg("how soon", panels)
    shown = texts(drawing)
    for label in ("how soon", "a", "b <&>", "first audio", "commit", "ms", "0%", "50%", "95%", "600", "800"):
        assert label in shown, label
    assert "nothing" not in shown
    assert len(curves(drawing)) == 3


def test_a_curve_rises_to_all_from_left_to_right_within_the_picture() -> None:
    drawing = svg("t", [Panel("p", [Curve("a", [300, 100, 200, 200]), Curve("b", [1_234.5])])])
    width, height = map(float, (ElementTree.fromstring(drawing).get("viewBox") or "").split()[2:])
    for curve in curves(drawing):
        assert [x for x, _ in curve] == sorted(x for x, _ in curve)
        assert [y for _, y in curve] == sorted((y for _, y in curve), reverse=True), "up is less in SVG"
        assert all(0 <= x <= width and 0 <= y <= height for x, y in curve)
    one, other = curves(drawing)
    assert one[-1] == other[-1], "both reach all"
    assert len({y for _, y in one}) == 5, "a step for each of four"


def test_there_must_be_something_to_draw() -> None:
    with pytest.raises(ValueError, match="no times"):
        svg("t", [Panel("p", [Curve("a", [])])])


@pytest.mark.parametrize("longest", [0.0, 0.4, 9, 17, 99, 650, 12_345])
def test_ticks_are_few_and_round(longest: float) -> None:
    ticks = [text for text in texts(svg("t", [Panel("p", [Curve("a", [longest])])])) if re.fullmatch(r"[\d.]+", text)]
    assert 2 <= len(ticks) <= 11
    assert float(ticks[0]) == 0
    assert float(ticks[-1]) >= longest
