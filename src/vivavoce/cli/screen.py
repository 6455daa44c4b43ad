"""What the commands show: lines, level meters, progress and the latency waterfall.

Colour only where a terminal shows it; everything is plain text that reads the same in a log.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from .foreign import as_words
from .turn import STAGES

WATERFALL_CHARS = 40
METER_CHARS = 24
METER_FLOOR_DB = -60.0

_COLOURS = {"user": "36", "assistant": "35", "dim": "2", "good": "32", "bad": "31", "bold": "1"}


def paint(text: str, colour: str) -> str:
    """The text in a colour, where standard output is a terminal and `NO_COLOR` is not set."""
    text = as_words(text)
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def say(text: str = "") -> None:
    """One line."""
    print(text, flush=True)


def begin(text: str) -> None:
    """Something that takes a while; on a terminal the line is replaced by `finish`."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K  {text}", end="", flush=True)


def finish(text: str) -> None:
    """It is done."""
    print(f"\r\x1b[K  {text}" if sys.stdout.isatty() else f"  {text}", flush=True)


def speech(who: str, text: str) -> None:
    """What somebody said; `who` is `user` or `assistant`."""
    label = {"user": "you", "assistant": "assistant"}[who]
    say(f"  {paint(f'{label:>9}', who)}  {as_words(text)}")


def note(text: str) -> None:
    """An aside."""
    say(f"  {'':>9}  {paint(text, 'dim')}")


def waterfall(marks_ms: Mapping[str, float], names: Mapping[str, str] = STAGES) -> str:
    """Each stage as a bar from the one before, on one scale. Empty where nothing was timed."""
    reached = [(name, marks_ms[key]) for key, name in names.items() if key in marks_ms]
    reached.sort(key=lambda stage: stage[1])
    if not reached:
        return ""
    longest = max(reached[-1][1], 1.0)
    lines, before = [], 0
    for name, ms in reached:
        until = round(max(ms, 0.0) / longest * WATERFALL_CHARS)
        bar = " " * before + "█" * max(until - before, 1)
        lines.append(f"  {name:>16} {ms:6.0f} ms ┃{bar}")
        before = until
    return "\n".join(lines)


def meter(level_db: float, chars: int = METER_CHARS) -> str:
    """A level in dBFS as a bar."""
    share = min(max(1 - level_db / METER_FLOOR_DB, 0.0), 1.0)
    full = round(share * chars)
    return "▮" * full + "▯" * (chars - full)
