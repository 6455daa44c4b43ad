"""What the commands show."""

from __future__ import annotations

from vivavoce.cli.screen import METER_CHARS, WATERFALL_CHARS, meter, waterfall


def test_each_stage_of_the_waterfall_begins_where_the_one_before_ended() -> None:
    lines = waterfall({"turn_found": 500, "transcript": 750, "first_audio": 1000}).splitlines()
    bars = [line.split("┃")[1] for line in lines]
    assert [len(bar) for bar in bars] == [20, 30, 40]
    assert [bar.count(" ") for bar in bars] == [0, 20, 30]
    assert "turn end found    500 ms" in lines[0]


def test_a_waterfall_shows_stages_in_the_order_in_which_they_happened() -> None:
    lines = waterfall({"transcript": 900, "first_audio": 300}).splitlines()
    assert "first audio" in lines[0]
    assert len(lines[1].split("┃")[1]) == WATERFALL_CHARS


def test_nothing_timed_is_nothing_shown() -> None:
    assert waterfall({}) == ""


def test_the_meter_is_full_at_full_scale_and_empty_at_the_floor() -> None:
    assert meter(0.0) == "▮" * METER_CHARS
    assert meter(-60.0) == meter(-120.0) == "▯" * METER_CHARS
    assert meter(-30.0).count("▮") == METER_CHARS // 2
