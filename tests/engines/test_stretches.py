"""Where somebody speaks: long pauses divide, short ones do not; nothing exceeds the window or is heard twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.stretches import (
    MARGIN_MS,
    STRETCH_MS_MAX,
    STRETCH_MS_MIN,
    Stretch,
    find_stretches,
)

FRAME_MS = 32


def speech(*parts: tuple[float, int]) -> list[float]:
    """Probabilities: each part a value and for how many frames."""
    return [value for value, frames in parts for _ in range(frames)]


def test_nobody_speaks_in_silence() -> None:
    assert find_stretches([], FRAME_MS) == []
    assert find_stretches(speech((0.3, 200)), FRAME_MS) == []


def test_speech_is_found_with_margins() -> None:
    found = find_stretches(speech((0.0, 50), (0.9, 20), (0.0, 50)), FRAME_MS)
    margin = MARGIN_MS // FRAME_MS
    assert found == [Stretch((50 - margin) * FRAME_MS, (70 + margin) * FRAME_MS, 20 * FRAME_MS)]


def test_margins_end_with_the_audio() -> None:
    assert find_stretches(speech((0.9, 20)), FRAME_MS) == [Stretch(0, 20 * FRAME_MS, 20 * FRAME_MS)]


def test_a_short_pause_does_not_divide_and_a_long_one_does() -> None:
    for frames, count in ((20, 1), (40, 2)):
        found = find_stretches(speech((0.9, 20), (0.0, frames), (0.9, 20)), FRAME_MS)
        assert len(found) == count
        assert sum(stretch.speech_ms for stretch in found) == 40 * FRAME_MS


def test_a_dip_that_is_not_silence_goes_on() -> None:
    assert len(find_stretches(speech((0.9, 20), (0.25, 60), (0.9, 20)), FRAME_MS)) == 1


def test_speech_longer_than_the_window_is_cut_in_its_lull() -> None:
    before = (STRETCH_MS_MIN + 4_000) // FRAME_MS
    found = find_stretches(speech((0.9, before), (0.4, 10), (0.9, 600)), FRAME_MS)
    assert len(found) == 2
    assert before * FRAME_MS <= found[0].end_ms <= (before + 10) * FRAME_MS
    assert found[1].start_ms == found[0].end_ms


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.9]), st.integers(1, 900)), max_size=12))
def test_stretches_are_in_order_apart_and_within_the_window(parts: list[tuple[float, int]]) -> None:
    probabilities = speech(*parts)
    found = find_stretches(probabilities, FRAME_MS)
    assert bool(found) == any(value >= 0.35 for value in probabilities)
    end_ms = 0
    for stretch in found:
        assert end_ms <= stretch.start_ms < stretch.end_ms <= len(probabilities) * FRAME_MS
        assert stretch.end_ms - stretch.start_ms <= STRETCH_MS_MAX + 2 * MARGIN_MS <= 30_000
        assert stretch.speech_ms <= stretch.end_ms - stretch.start_ms
        end_ms = stretch.end_ms
    heard = [range(stretch.start_ms // FRAME_MS, stretch.end_ms // FRAME_MS) for stretch in found]
    assert all(any(i in frames for frames in heard) for i, p in enumerate(probabilities) if p >= 0.35)
