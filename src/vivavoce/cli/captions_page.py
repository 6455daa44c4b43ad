"""Captions on a terminal: final ones scroll, below them stand the one that grows and how loud it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from vivavoce.audio.levels import FLOOR_DB

from .foreign import as_line
from .listen import Caption
from .screen import meter

METER_CHARS: Final = 12
REDRAW_S: Final = 0.08
"""A level changes fifty times a second, which nobody can see."""


@contextmanager
def captions_page(console: Console | None = None) -> Iterator[CaptionsPage]:
    """A page that leaves the terminal as a list of captions."""
    console = console or Console(highlight=False, markup=False, emoji=False)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield CaptionsPage(console, live)


class CaptionsPage:
    """Writes captions with their time."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console, self._live = console, live
        self._partial: Caption | None = None
        self._level_db = FLOOR_DB
        self._drawn_s = 0.0
        self._draws = not console.is_dumb_terminal

    def write(self, caption: Caption) -> None:
        """For good."""
        self._partial = None
        self._console.print(_line(caption))
        self._draw()

    def partial(self, caption: Caption | None) -> None:
        """For now."""
        self._partial = caption
        self._draw()

    def level(self, level_db: float) -> None:
        """Drawn as often as it can be seen."""
        self._level_db = level_db
        if time.monotonic() - self._drawn_s > REDRAW_S:
            self._draw()

    def _draw(self) -> None:
        if not self._draws:
            return
        self._drawn_s = time.monotonic()
        level = Text.assemble("  ", ("○ listening  ", "bold cyan"), (meter(self._level_db, METER_CHARS), "cyan"))
        shown = [] if self._partial is None else [_line(self._partial)]
        self._live.update(Group(*shown, Text(), level), refresh=True)


def _line(caption: Caption) -> Text:
    seconds = (caption.start_ms or 0) // 1000
    words = (as_line(caption.text), "" if caption.is_final else "dim italic")
    return Text.assemble((f"{seconds // 60:>3}:{seconds % 60:02}  ", "cyan"), words)
