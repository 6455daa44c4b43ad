"""The functions of a Python file as tools of a session.

Those that `vivavoce.tool` made, where there are any; otherwise every public function that the file itself defines.
"""

from __future__ import annotations

import inspect
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vivavoce.client.tools import Tool
from vivavoce.client.tools import tool as made
from vivavoce.errors import VivavoceError

MODULE = "vivavoce_tools"
"""What the file is called while it runs: not `__main__`, so that it can be a program as well."""


def own_tools(path: Path) -> list[Tool]:
    """Run the file and take its tools. Raises `VivavoceError` where it cannot be run, or has none."""
    if not path.is_file():
        raise VivavoceError(f"--tools {path}: there is no such file")
    try:
        names = runpy.run_path(str(path), run_name=MODULE)
    except Exception as error:
        raise VivavoceError(f"--tools {path}: {type(error).__name__}: {error}") from error
    tools = [value for value in names.values() if isinstance(value, Tool)]
    tools = tools or [_made(path, value) for name, value in names.items() if _is_own(name, value)]
    if not tools:
        raise VivavoceError(f"--tools {path}: there is no function in it; expected functions with types and docstrings")
    return tools


def _is_own(name: str, value: object) -> bool:
    return inspect.isfunction(value) and value.__module__ == MODULE and not name.startswith("_")


def _made(path: Path, function: Callable[..., Any]) -> Tool:
    try:
        return made(function)
    except VivavoceError as error:
        raise VivavoceError(f"--tools {path}: {error}") from error
