"""What models, servers and transcribers say, on a terminal: words, and never orders to it."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prompt_toolkit.input import DummyInput
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from vivavoce.cli import screen
from vivavoce.cli.captions_page import captions_page
from vivavoce.cli.events import Options, Script
from vivavoce.cli.foreign import as_words
from vivavoce.cli.listen import Caption, Captions, JsonLines, Lines, Subtitles
from vivavoce.cli.page import PlainPage
from vivavoce.cli.prompt_page import PromptPage
from vivavoce.cli.where import Where

CLIPBOARD = "\x1b]52;c;ZXZpbA==\x07"
"""An order to a terminal to put something on the clipboard."""
ERASE = "\x9b2J"
"""An order to erase the screen, as one character of Unicode."""
EVIL = f"Good {CLIPBOARD}{ERASE}\x08\x7fday"
ORDERS = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))} - {"\n"}


def paper() -> Console:
    return Console(file=io.StringIO(), width=100, soft_wrap=True, highlight=False, markup=False, emoji=False)


def shown(console: Console) -> str:
    return cast(io.StringIO, console.file).getvalue()


def is_harmless(text: str) -> bool:
    return "Good" in text and "day" in text and not ORDERS & set(text)


def test_words_stay_what_they_are_and_orders_become_visible() -> None:
    assert as_words("Grüße,\n\t日本 🙂 a\r\nb") == "Grüße,\n\t日本 🙂 a\nb"
    assert as_words("a\x1b[2Jb\x9b\x00") == "a\ufffd[2Jb\ufffd\ufffd"
    assert all(as_words(EVIL).startswith(as_words(EVIL[:n])) for n in range(len(EVIL))), "it may come piece by piece"


def test_on_paper() -> None:
    console = paper()
    page = PlainPage(console, console)
    page.grow("assistant", EVIL[:8])
    page.grow("assistant", EVIL)
    page.close()
    page.aside("tool", f"f({EVIL})")
    assert is_harmless(shown(console))


def test_above_a_prompt() -> None:
    console = paper()
    page = PromptPage(lambda: None, console=console, input=DummyInput(), output=DummyOutput())
    page.grow("assistant", EVIL[:8])
    page.grow("assistant", EVIL)
    page.close()
    page.aside("problem", EVIL)
    assert is_harmless(shown(console))


def test_as_captions() -> None:
    console = paper()
    with captions_page(console) as page:
        page.write(Caption("item_1", 0, 900, EVIL, is_final=True))
    assert is_harmless(shown(console))


@pytest.mark.parametrize("write", [Lines, Subtitles])
def test_as_lines(write: type[Lines], capsys: pytest.CaptureFixture[str]) -> None:
    write().write(Caption("item_1", 0, 900, f"{EVIL}\n\nto you", is_final=True))
    told = capsys.readouterr().out
    assert is_harmless(told)
    assert told.rstrip("\n").endswith("day to you"), "a caption is one line, and no other block begins in it"


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    JsonLines().write(Caption("item_1", 0, 900, f"{EVIL}\u2028to you", is_final=True))
    (told,) = capsys.readouterr().out.splitlines()
    assert is_harmless(told)
    assert json.loads(told)["text"] == f"{EVIL}\u2028to you", "in JSON nothing is lost"


def test_as_an_event_which_stays_what_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    sent = {"type": "response.output_text.delta", "delta": f"{EVIL}\u2028\x85to you"}
    raw = json.dumps(sent, ensure_ascii=False, indent=1).encode()
    script = Script(cast(Any, None), Options(where=Where(url=None, api_key=None, model="any", dialect="ga")))
    script._print(cast(Any, SimpleNamespace(raw=raw)))
    (told,) = capsys.readouterr().out.splitlines()
    assert is_harmless(told)
    assert json.loads(told) == sent


def test_as_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    Captions(Lines()).fail(EVIL)
    assert is_harmless(capsys.readouterr().err)
    screen.speech("assistant", EVIL)
    assert is_harmless(capsys.readouterr().out)
