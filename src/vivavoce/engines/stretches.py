"""Where somebody speaks in a recording, cut into pieces that a transcriber can take whole.

Whisper was trained on 30 s windows; given silence it invents text, and given two sentences with a long pause between
them it often writes down one. So the transcriber hears stretches of speech only, cut at long pauses, and at the
quietest place where somebody speaks for longer than a window. Pure arithmetic over speech probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Stretch", "find_stretches"]

SPEECH_BEGINS = 0.35
"""Speech begins at this probability. Lower than a turn detector's 0.5: a turn was found here already."""
SPEECH_ENDS = 0.2
PAUSE_MS_MIN = 1_300
"""A shorter pause does not divide a stretch: words around it explain each other."""
MARGIN_MS = 400
"""Audio kept on both sides of speech, because its probability rises late and falls early."""
STRETCH_MS_MAX = 27_000
"""Longest stretch; with its margins it stays within the window of 30 s."""
STRETCH_MS_MIN = 14_000
"""A stretch that is too long is not cut before this point."""
LULL_MS = 256
"""A quiet place is one where speech is improbable for this long."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Speech from `start_ms` to `end_ms`, margins included; `speech_ms` of it is voice."""

    start_ms: int
    end_ms: int
    speech_ms: int


def find_stretches(probabilities: Sequence[float], frame_ms: int) -> list[Stretch]:
    """The stretches in which speech is probable, in order; none where nobody speaks.

    `probabilities` holds one number for each frame of `frame_ms`. Stretches do not overlap.
    """
    spoken = [
        part
        for first, last in _joined(_runs(probabilities), PAUSE_MS_MIN // frame_ms)
        for part in _cut(probabilities, first, last, frame_ms)
    ]
    margin = MARGIN_MS // frame_ms
    stretches = []
    for position, (first, last) in enumerate(spoken):
        # Margins stop halfway to the neighbour, so that nothing is heard twice.
        low = (spoken[position - 1][1] + first + 1) // 2 if position else 0
        high = (last + spoken[position + 1][0] + 1) // 2 if position + 1 < len(spoken) else len(probabilities)
        speech = sum(p >= SPEECH_BEGINS for p in probabilities[first:last])
        stretches.append(
            Stretch(max(low, first - margin) * frame_ms, min(high, last + margin) * frame_ms, speech * frame_ms)
        )
    return stretches


def _runs(probabilities: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Frames [first, last) between a rise to `SPEECH_BEGINS` and the next fall below `SPEECH_ENDS`."""
    first: int | None = None
    for index, probability in enumerate(probabilities):
        if first is None and probability >= SPEECH_BEGINS:
            first = index
        elif first is not None and probability < SPEECH_ENDS:
            yield first, index
            first = None
    if first is not None:
        yield first, len(probabilities)


def _joined(runs: Iterator[tuple[int, int]], pause: int) -> list[tuple[int, int]]:
    """Runs with fewer than `pause` frames between them become one."""
    joined: list[tuple[int, int]] = []
    for first, last in runs:
        if joined and first - joined[-1][1] < pause:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


def _cut(probabilities: Sequence[float], first: int, last: int, frame_ms: int) -> Iterator[tuple[int, int]]:
    """Parts of [first, last) that are short enough, cut in the middle of the least probable lull."""
    longest, earliest, lull = STRETCH_MS_MAX // frame_ms, STRETCH_MS_MIN // frame_ms, LULL_MS // frame_ms
    while last - first > longest:
        starts = range(first + earliest, first + longest - lull)
        quietest = min(starts, key=lambda start: sum(probabilities[start : start + lull]))
        yield first, quietest + lull // 2
        first = quietest + lull // 2
    yield first, last
