"""A chat on paper: lines that are never changed, for pipes, logs, and terminals that can no more.

Speakers go to standard output; what is said beside the conversation goes to standard error where standard output is no
terminal, so that what a pipe gets is the conversation. No control character is written but colours, and those only
where a terminal shows them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from rich.console import Console
from rich.text import Text

from . import screen
from .foreign import as_words
from .lines import lines
from .story import Kind, Status, Who

LABELS: Mapping[str, str] = {"user": "you", "assistant": "assistant"}
STYLES: Mapping[str, str] = {
    "user": "bold cyan",
    "assistant": "bold magenta",
    "note": "dim",
    "tool": "yellow",
    "problem": "bold red",
    "bar": "magenta",
}
SIGNS: Mapping[str, str] = {"note": "·", "tool": "⚙", "problem": "!"}
INDENT = 12
"""Where texts begin: behind the name of who speaks."""


def is_plain() -> bool:
    """Whether input and output are not both a terminal that can move its cursor."""
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    return not is_terminal or os.environ.get("TERM", "dumb") in ("dumb", "unknown", "")


def label(who: Who) -> Text:
    """The name of who speaks, at the length of the margin."""
    return Text.assemble((f"{LABELS[who]:>{INDENT - 2}}  ", STYLES[who]))


def aside(kind: Kind, text: str) -> Text:
    """A line beside the conversation."""
    return Text.assemble(" " * (INDENT - 2), (f"{SIGNS[kind]} {as_words(text)}", STYLES[kind]))


def waterfall(marks_ms: Mapping[str, float], names: Mapping[str, str]) -> list[Text]:
    """Each stage as a bar from the one before."""
    shown = []
    for line in screen.waterfall(marks_ms, names).splitlines():
        name, bar, rest = line.partition("┃")
        shown.append(Text.assemble(" " * (INDENT - 2), (name + bar, "dim"), (rest, STYLES["bar"])))
    return shown


class PlainPage:
    """Tells a story line by line, answers as they grow."""

    def __init__(self, console: Console | None = None, beside: Console | None = None) -> None:
        self.console = console or Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
        self.beside = beside or (
            self.console
            if self.console.is_terminal
            else Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
        )
        self._echoes = not sys.stdin.isatty()
        """A terminal has shown already what was typed on it."""
        self._who: Who | None = None
        self._text = ""
        self._shown = 0

    async def asked(self) -> AsyncGenerator[str, None]:
        """What the user writes, until the input ends."""
        async with aclosing(lines()) as written:
            async for line in written:
                yield line

    def grow(self, who: Who, text: str) -> None:
        """The user's words are shown when they are sure, the assistant's as they come."""
        if self._who is None and who == "assistant":
            self._print(label(who), end="")
        self._who, self._text = who, (text := as_words(text))
        if who == "assistant":
            self._print(Text(text[self._shown :]), end="")
            self._shown = max(self._shown, len(text))

    def close(self, ending: str = "") -> None:
        """End the line."""
        if self._who == "user" and self._text and (self._echoes or self._is_spoken):
            self._print(label("user"), end="")
            self._print(Text(self._text))
        elif self._who == "assistant":
            self._print(Text.assemble((f" [{ending}]", STYLES["note"]) if ending else ""))
        self._who, self._text, self._shown = None, "", 0

    _is_spoken = False

    def aside(self, kind: Kind, text: str) -> None:
        """A line, on standard error where standard output is a pipe."""
        self.beside.print(aside(kind, text))

    def waterfall(self, marks_ms: Mapping[str, float], names: Mapping[str, str]) -> None:
        """A line for each stage."""
        for line in waterfall(marks_ms, names):
            self.beside.print(line)

    def show(self, status: Status) -> None:
        """There is no line of state on paper."""
        self._is_spoken = status.heard_db is not None

    def _print(self, text: Text, end: str = "\n") -> None:
        self.console.print(text, end=end)
        self.console.file.flush()
