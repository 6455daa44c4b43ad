"""Rules for the tests themselves: they wait for events, never for time to pass."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = sorted(TESTS.rglob("*.py"))


def sleeps(tree: ast.Module) -> Iterator[ast.Call]:
    """Calls of anything named `sleep` with anything but 0; on virtual time an asyncio.sleep waits for nobody."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        is_zero = bool(node.args) and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
        if name == "sleep" and not is_zero and not (is_virtual(tree) and ast.unparse(node.func) == "asyncio.sleep"):
            yield node


def is_virtual(tree: ast.Module) -> bool:
    """Whether all that the module runs, it runs on virtual time."""
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    runs_real = any(isinstance(node, ast.Call) and ast.unparse(node.func) == "asyncio.run" for node in ast.walk(tree))
    return not runs_real and any(node.module == "vivavoce.testing.virtual_time" for node in imports)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_sleeps(path: Path) -> None:
    found = [f"{path.name}:{call.lineno}: {ast.unparse(call)}" for call in sleeps(ast.parse(path.read_text("utf-8")))]
    assert not found, "wait for what is to happen, or run on virtual time"


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("await asyncio.sleep(0)", 0),
        ("await asyncio.sleep(0.1)", 1),
        ("time.sleep(1)", 1),
        ("sleep(delay)", 1),
        ("from vivavoce.testing.virtual_time import run\nawait asyncio.sleep(1)", 0),
        ("from vivavoce.testing.virtual_time import run\ntime.sleep(1)", 1),
        ("from vivavoce.testing.virtual_time import run\nawait asyncio.sleep(1)\nasyncio.run(main())", 1),
    ],
)
def test_sleeping_is_found(source: str, count: int) -> None:
    assert len(list(sleeps(ast.parse(source)))) == count
