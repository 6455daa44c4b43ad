"""User code as type checkers see it: `accepted/` has no errors, in `refused/` every line marked `# error` has one.

Both checkers are strict and look at the package as an installed one, from outside and without its own settings.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CACHE = HERE.parent.parent / ".mypy_cache" / "user_code"
TIMEOUT_S = 300.0
MARK = "  # error"

Check = Callable[[], dict[str, str]]


@cache
def mypy() -> dict[str, str]:
    """Each place with an error, such as `refused/mistakes.py:6`, and the first error there."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={CACHE}"]
    done = subprocess.run([*command, str(HERE)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = re.findall(r"^(.+?):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    return {place(file, int(line)): message for file, line, message in reversed(found)}


@cache
def pyright() -> dict[str, str]:
    """The same of the other."""
    pytest.importorskip("pyright", reason="pyright is not installed; it is in the extra `dev`")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--project", str(HERE), "--pythonpath", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = [one for one in json.loads(done.stdout)["generalDiagnostics"] if one["severity"] == "error"]
    return {place(one["file"], one["range"]["start"]["line"] + 1): one["message"] for one in reversed(found)}


def place(file: str, line: int) -> str:
    return f"{Path(file).resolve().relative_to(HERE).as_posix()}:{line}"


def marked() -> set[str]:
    return {
        place(str(file), number)
        for file in HERE.rglob("*.py")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if line.endswith(MARK)
    }


@pytest.mark.parametrize("check", [mypy, pyright])
def test_user_code_is_accepted(check: Check) -> None:
    assert {where: what for where, what in check().items() if not where.startswith("refused/")} == {}


@pytest.mark.parametrize("check", [mypy, pyright])
def test_mistakes_of_users_are_found_where_they_are(check: Check) -> None:
    assert len(marked()) > 20
    assert {where for where in check() if where.startswith("refused/")} == marked()
