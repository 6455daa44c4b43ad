"""A chat on a terminal: the conversation scrolls; below it are what is being said, a line to write on, and the state.

Full lines of what is said go above, where the terminal keeps them; the rest of it is drawn with the line of input, so
that one may write, and interrupt, while the answer comes. Invariant: what is above is never drawn again.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.styles import Style
from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.text import Text

from .foreign import as_words
from .page import INDENT, LABELS, aside, label, waterfall
from .screen import meter
from .story import Kind, Status, Who

WIDTH_MAX = 100
"""Longer lines than this are hard to read."""
LIVE_LINES_MAX = 6
METER_CHARS = 8
SIGN = "› "
STATES: Mapping[str, tuple[str, str]] = {
    "listening": ("class:listening", "○"),
    "thinking": ("class:thinking", "◌"),
    "speaking": ("class:speaking", "●"),
}
STYLE = Style.from_dict(
    {
        "bottom-toolbar": "noreverse",
        "user": "bold ansicyan",
        "assistant": "bold ansimagenta",
        "sign": "bold ansicyan",
        "listening": "bold ansicyan",
        "thinking": "bold ansiyellow",
        "speaking": "bold ansimagenta",
        "dim": "ansibrightblack",
    }
)


class PromptPage:
    """Tells a story above a line of input. `interrupted` is called at Ctrl-C."""

    def __init__(
        self,
        interrupted: Callable[[], None],
        commands: Sequence[str] = (),
        *,
        console: Console | None = None,
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        self.console = console or Console(highlight=False, markup=False, emoji=False)
        self._prompt: PromptSession[str] = PromptSession(
            message=self._above,
            bottom_toolbar=self._below,
            style=STYLE,
            history=InMemoryHistory(),
            key_bindings=_keys(interrupted),
            completer=WordCompleter([f"/{name}" for name in commands], sentence=True),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            reserve_space_for_menu=0,
            erase_when_done=True,
            input=input,
            output=output,
        )
        self._who: Who | None = None
        self._begun = False
        self._length = 0
        """How much of what is being said stands above already, in characters."""
        self._live: list[str] = []
        self._waiting: list[Text] = []
        self._status = Status("listening")
        self._seen: object = None

    async def asked(self) -> AsyncGenerator[str, None]:
        """What the user writes, until Ctrl-D."""
        # All the while, so that a key pressed between two lines is neither lost nor echoed.
        with self._prompt.input.raw_mode():
            while True:
                try:
                    yield await self._prompt.prompt_async(handle_sigint=False)
                except (EOFError, KeyboardInterrupt):
                    return

    # --- the story ----------------------------------------------------------------------------------------------------

    def grow(self, who: Who, text: str) -> None:
        """Full lines go above, the last one stays."""
        self._who = who
        lines, begun = wrapped(as_words(text)[self._length :], self._width), 0
        if who == "assistant":
            for line, length in lines[:-1]:
                self._say(line.rstrip())
                begun += length
        self._length += begun
        self._live = [line.rstrip() for line, _ in (lines[-1:] if who == "assistant" else lines)]
        self._refresh()

    def close(self, ending: str = "") -> None:
        """All of it goes above."""
        if self._who is None:
            return
        for line in self._live:
            if line or not self._begun:
                self._say(line)
        if ending:
            self._waiting.append(aside("note", ending))
        self._who, self._begun, self._length, self._live = None, False, 0, []
        self._refresh()

    def aside(self, kind: Kind, text: str) -> None:
        """A line, or as many as it takes."""
        for number, (line, _) in enumerate(wrapped(as_words(text), self._width)):
            shown = aside(kind, line.rstrip())
            self._waiting.append(Text(" " * INDENT + line.rstrip(), style=shown.spans[0].style) if number else shown)
        self._refresh()

    def waterfall(self, marks_ms: Mapping[str, float], names: Mapping[str, str]) -> None:
        """A line for each stage."""
        self._waiting.extend(waterfall(marks_ms, names))
        self._refresh()

    def show(self, status: Status) -> None:
        """Draw the line of state again, where it has changed."""
        self._status = status
        self._refresh()

    def _say(self, line: str) -> None:
        assert self._who is not None
        margin = Text(" " * INDENT) if self._begun else label(self._who)
        if not self._begun and self._who == "user":
            self._waiting.append(Text())
        self._begun = True
        self._waiting.append(Text.assemble(margin, line))

    # --- the terminal -------------------------------------------------------------------------------------------------

    @property
    def _width(self) -> int:
        return max(min(self.console.width, WIDTH_MAX) - INDENT - 1, 10)

    def _refresh(self) -> None:
        if self._waiting:
            self._print()
        elif self._seen != (seen := (self._above(), self._below())):
            self._seen = seen
            self._prompt.app.invalidate()

    def _print(self) -> None:
        """What waits, above the input, which is drawn again below it.

        `run_in_terminal` would do it as well, and hand the keyboard back to the terminal for the time: keys would be
        echoed, and Ctrl-D lost.
        """
        app = self._prompt.app
        if app.is_running:
            app.renderer.erase()
        for line in self._waiting:
            self.console.print(line, soft_wrap=True)
        self._waiting.clear()
        self.console.file.flush()
        if app.is_running:
            app.renderer.request_absolute_cursor_position()
            app.invalidate()

    def _above(self) -> StyleAndTextTuples:
        shown: StyleAndTextTuples = []
        if self._who is not None and any(self._live):
            for number, line in enumerate(self._live[-LIVE_LINES_MAX:]):
                is_first = not self._begun and not number
                name = f"{LABELS[self._who]:>{INDENT - 2}}  " if is_first else " " * INDENT
                shown += [(f"class:{self._who}", name), ("", f"{line}\n")]
        return [*shown, ("", "\n"), ("class:sign", " " * (INDENT - len(SIGN)) + SIGN)]

    def _below(self) -> StyleAndTextTuples:
        status = self._status
        style, sign = STATES[status.state]
        shown: StyleAndTextTuples = [("", " " * (INDENT - 2)), (style, f"{sign} {status.state:<9}")]
        if status.heard_db is not None:
            heard = "muted".ljust(METER_CHARS) if status.is_muted else meter(status.heard_db, METER_CHARS)
            shown += [("class:dim", "  you "), ("class:user", heard)]
        if status.said_db is not None:
            shown += [("class:dim", "  answer "), ("class:assistant", meter(status.said_db, METER_CHARS))]
        if status.summary:
            shown += [("class:dim", f"  {status.summary}")]
        return shown


def _keys(interrupted: Callable[[], None]) -> KeyBindings:
    keys = KeyBindings()

    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        buffer: Any = event.current_buffer
        if buffer.text:
            buffer.reset()
        else:
            interrupted()

    return keys


def wrapped(text: str, width: int) -> list[tuple[str, int]]:
    """The text in lines of at most `width` cells, each with the number of characters it takes up; at least one line.

    When the text grows, all lines but the last stay what they are.
    """
    lines: list[tuple[str, int]] = []
    for paragraph in text.split("\n"):
        line, length = "", 0
        for word in re.findall(r"\S+\s*|^\s+", paragraph):
            for piece in chop_cells(word, width) if cell_len(word.rstrip()) > width else [word]:
                if line and cell_len(line + piece.rstrip()) > width:
                    lines.append((line, length))
                    line, length = "", 0
                line, length = line + piece, length + len(piece)
        lines.append((line, length + 1))  # with the end of the paragraph
    last, length = lines.pop()
    return [*lines, (last, length - 1)]
