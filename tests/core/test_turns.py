"""Speech probabilities to turns, in audio time (reference §5)."""

from __future__ import annotations

from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.core.input_audio import ms_of, ticks_of
from vivavoce.core.turns import (
    ONSET_MS,
    PAUSE_MS,
    UNDECIDED,
    Decision,
    Paused,
    SpeechStarted,
    SpeechStopped,
    Turns,
    TurnSettings,
    Waits,
)

FRAME_MS = 32


def turns(silence_ms: int = 200, threshold: float = 0.5, start_ms: int = 0, longest_ms: int | None = None) -> Turns:
    return Turns(TurnSettings(threshold, 300, silence_ms), ticks_of(start_ms), longest_ms=longest_ms)


def heard(machine: Turns, *probabilities: float) -> list[tuple[str, int]]:
    """What the frames decided, with positions in ms."""
    return [said(decision) for decision in machine.push(probabilities, FRAME_MS)]


def said(decision: Decision) -> tuple[str, int]:
    match decision:
        case SpeechStarted():
            return "start", ms_of(decision.onset)
        case Paused():
            return "pause", ms_of(decision.at)
        case SpeechStopped():
            return "stop", ms_of(decision.end)


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


def test_a_turn_ends_at_its_longest_and_the_next_begins_there() -> None:
    machine = turns(longest_ms=128)
    assert heard(machine, 0.0, *[0.9] * 7) == [("start", 32), ("stop", 160), ("start", 160)]


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


# --- semantic_vad: a pause is judged (§5.2) ---------------------------------------------------------------------------

WAITS = Waits(300, 1_000)
PAUSE_FRAMES = -(-PAUSE_MS // FRAME_MS)


def semantic(longest_ms: int | None = None) -> Turns:
    return Turns(TurnSettings(0.5, 300, 500, WAITS), 0, longest_ms=longest_ms)


def judged(machine: Turns, probability: float | None) -> list[tuple[str, int]]:
    return [said(decision) for decision in machine.judged(probability)]


@pytest.mark.parametrize(
    ("probability", "wait_ms"), [(1.0, 300), (0.0, 1_000), (0.5, 475), (None, WAITS.after(UNDECIDED))]
)
def test_how_long_silence_lasts_depends_on_the_judgement(probability: float | None, wait_ms: int) -> None:
    machine, frames = semantic(), -(-wait_ms // FRAME_MS)
    pause = (2 + PAUSE_FRAMES) * FRAME_MS
    assert heard(machine, 0.9, 0.9, *[0.0] * PAUSE_FRAMES) == [("start", 0), ("pause", pause)]
    assert judged(machine, probability) == []
    assert heard(machine, *[0.0] * (frames - PAUSE_FRAMES - 1)) == []
    assert heard(machine, 0.0) == [("stop", (2 + frames) * FRAME_MS)]


def test_scores_that_come_before_the_judgement_wait_for_it() -> None:
    machine = semantic()
    heard(machine, 0.9, 0.9, *[0.0] * PAUSE_FRAMES)
    assert machine.is_judging
    assert heard(machine, *[0.0] * 40) == []
    assert judged(machine, 1.0) == [("stop", (2 + -(-300 // FRAME_MS)) * FRAME_MS)]


def test_speech_that_resumes_before_the_judgement_is_no_end() -> None:
    machine = semantic()
    heard(machine, 0.9, 0.9, *[0.0] * PAUSE_FRAMES)
    assert heard(machine, *[0.9] * 3, *[0.0] * PAUSE_FRAMES) == []
    assert judged(machine, 1.0) == [("pause", (5 + 2 * PAUSE_FRAMES) * FRAME_MS)]
    assert judged(machine, 1.0) == []
    assert heard(machine, *[0.0] * 3) == [("stop", (5 + PAUSE_FRAMES + -(-300 // FRAME_MS)) * FRAME_MS)]


def test_a_judgement_that_nobody_waits_for_means_nothing() -> None:
    machine = semantic()
    assert judged(machine, 1.0) == []
    heard(machine, 0.9, 0.9)
    assert judged(machine, 1.0) == []
    assert heard(machine, *[0.0] * PAUSE_FRAMES) == [("pause", (2 + PAUSE_FRAMES) * FRAME_MS)]


def test_other_settings_end_the_wait_for_a_judgement() -> None:
    machine = semantic()
    heard(machine, 0.9, 0.9, *[0.0] * PAUSE_FRAMES)
    heard(machine, *[0.0] * 2)
    silence_ms = (PAUSE_FRAMES + 2) * FRAME_MS
    assert [said(one) for one in machine.change(TurnSettings(0.5, 300, silence_ms))] == [("stop", 64 + silence_ms)]
    assert judged(machine, 1.0) == []


def test_other_waits_have_the_pause_judged_anew() -> None:
    machine = semantic()
    heard(machine, 0.9, 0.9, *[0.0] * PAUSE_FRAMES)
    assert list(machine.change(TurnSettings(0.5, 300, 500, Waits(1, 2)))) == []
    assert heard(machine, 0.0) == [("pause", (3 + PAUSE_FRAMES) * FRAME_MS)]
    assert judged(machine, 1.0) == []
    assert heard(machine, 0.0) == [("stop", (4 + PAUSE_FRAMES) * FRAME_MS)]


SCORES = st.lists(
    st.sampled_from([0.0, 0.4, 0.9]).flatmap(lambda score: st.lists(st.just(score), min_size=1, max_size=20))
)
JUDGEMENTS = st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=5)


def decisions(
    scores: list[float], judgements: list[float | None], cuts: list[int], delays: list[int]
) -> list[tuple[str, int]]:
    """What is decided where scores come in pieces of these sizes, judgements so many pieces after the question."""
    machine, said_so_far, pauses = semantic(longest_ms=800), list[tuple[str, int]](), 0
    size, delay, at, due = cycle(cuts), cycle(delays), 0, 0
    while at < len(scores) or machine.is_judging:
        piece = scores[at : at + next(size)]
        at += len(piece)
        said_so_far += heard(machine, *piece)
        due = due - 1 if due else next(delay)
        while machine.is_judging and (not due or at >= len(scores)):
            pauses += 1
            said_so_far += judged(machine, judgements[pauses % len(judgements)])
    return said_so_far


@given(
    SCORES.map(lambda runs: [score for run in runs for score in run]),
    JUDGEMENTS,
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.lists(st.integers(0, 6), min_size=1, max_size=5),
)
def test_decisions_depend_on_scores_and_judgements_alone(
    scores: list[float], judgements: list[float | None], cuts: list[int], delays: list[int]
) -> None:
    found = decisions(scores, judgements, cuts, delays)
    assert found == decisions(scores, judgements, [1], [0])
    assert found == decisions(scores, judgements, [len(scores) + 1], [0])
    turns_said = [kind for kind, _ in found if kind != "pause"]
    assert turns_said == ["start", "stop"] * (len(turns_said) // 2) + ["start"] * (len(turns_said) % 2)
