"""Speech probabilities to turns, in audio time (reference §5)."""

from __future__ import annotations

import pytest

from vivavoce.core.input_audio import ms_of, ticks_of
from vivavoce.core.turns import ONSET_MS, SpeechStarted, SpeechStopped, Turns, TurnSettings

FRAME_MS = 32


def turns(silence_ms: int = 200, threshold: float = 0.5, start_ms: int = 0) -> Turns:
    return Turns(TurnSettings(threshold, 300, silence_ms), ticks_of(start_ms))


def heard(machine: Turns, *probabilities: float) -> list[tuple[str, int]]:
    """What the frames decided, with positions in ms."""
    return [
        ("start", ms_of(decision.onset)) if isinstance(decision, SpeechStarted) else ("stop", ms_of(decision.end))
        for decision in machine.push(probabilities, FRAME_MS)
    ]


def test_a_turn_begins_where_speech_was_first_heard_and_ends_with_its_silence() -> None:
    machine = turns()
    assert heard(machine, 0, 0, *[0.9] * 4, *[0.0] * 7, 0, 0) == [("start", 64), ("stop", 192 + 224)]


def test_a_click_is_no_turn() -> None:
    assert ONSET_MS == 2 * FRAME_MS
    assert heard(turns(), 0, 0.9, 0, 0.9, 0, 0) == []


def test_a_pause_shorter_than_the_silence_is_part_of_the_turn() -> None:
    machine = turns(silence_ms=200)
    assert heard(machine, *[0.9] * 3, *[0.0] * 6, *[0.9] * 2, *[0.0] * 7) == [("start", 0), ("stop", 18 * 32)]


def test_a_wavering_score_does_not_begin_silence() -> None:
    machine = turns(silence_ms=64)
    assert heard(machine, *[0.9] * 2, *[0.4] * 20) == [("start", 0)]
    assert heard(machine, 0.3, 0.4) == [("stop", 24 * 32)]


def test_the_threshold_counts() -> None:
    assert heard(turns(threshold=0.8), *[0.7] * 5) == []
    assert heard(turns(threshold=0.0), *[0.0] * 5) == []
    assert heard(turns(threshold=0.0), *[0.02] * 2) == [("start", 0)]


def test_no_silence_at_all_ends_a_turn_with_its_first_silent_frame() -> None:
    assert heard(turns(silence_ms=0), *[0.9] * 2, 0.0) == [("start", 0), ("stop", 96)]


def test_positions_count_from_where_the_epoch_began() -> None:
    machine = turns(start_ms=1000)
    assert heard(machine, 0, 0.9, 0.9) == [("start", 1032)]


def test_changed_settings_apply_to_the_turn_that_is_open() -> None:
    machine = turns(silence_ms=10_000)
    heard(machine, 0.9, 0.9, 0.0)
    assert list(machine.change(TurnSettings(0.5, 300, 64))) == []
    assert heard(machine, 0.0) == [("stop", 128)]


def test_a_turn_that_was_stopped_from_outside_can_begin_again() -> None:
    machine = turns()
    heard(machine, 0.9, 0.9)
    machine.stop()
    assert heard(machine, 0.9, 0.9) == [("start", 64)]


@pytest.mark.parametrize("cut", [1, 2, 3, 7])
def test_how_scores_are_cut_does_not_matter(cut: int) -> None:
    scores = [0, 0.9, 0.9, 0.6, *[0.0] * 8, 0.9, 0.9, 0.9, *[0.1] * 9]
    whole, pieces = turns(), turns()
    expected = heard(whole, *scores)
    assert len(expected) == 4
    found = [one for at in range(0, len(scores), cut) for one in heard(pieces, *scores[at : at + cut])]
    assert found == expected


def test_a_turn_may_be_open_from_the_beginning() -> None:
    machine = Turns(TurnSettings(0.5, 300, 64), 0, speaking=True)
    decisions = list(machine.push((0.0, 0.0), FRAME_MS))
    assert decisions == [SpeechStopped(ticks_of(64))]
