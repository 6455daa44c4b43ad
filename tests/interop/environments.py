"""Runs a program of this folder against the server, in an environment that has the client it is written for.

Python packages come through `uv`, npm packages through `npm` into a cache of their own; both download once. What cannot
be had (no network, no Node) skips the test and says why. A program prints what it heard as one JSON object, last.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SECONDS_MAX = 120
INSTALL_SECONDS_MAX = 300
OF_OURS = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONWARNINGS", "UV_FROZEN", "UV_LOCKED")
"""Variables about our environment, which mean nothing in the others."""


def run_python(program: str, url: str, *packages: str) -> Any:
    """What the Python program of this name told, with these packages installed."""
    where = ["--no-project", "--isolated", "--python", sys.executable]
    for package in packages:
        where += ["--with", package]
    _install([_uv(), "run", *where, "python", "-c", ""])
    return told_by([_uv(), "run", "--offline", *where, "python", str(HERE / program), url])


def told_by(command: list[str]) -> Any:
    """The JSON that the command printed last."""
    done = subprocess.run(
        command, capture_output=True, text=True, env=_environment(), timeout=SECONDS_MAX, check=False, cwd=HERE
    )
    assert done.returncode == 0, f"{done.stdout[-10_000:]}\n{done.stderr[-10_000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def _install(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=_environment(), timeout=INSTALL_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"this client could not be installed within {INSTALL_SECONDS_MAX} s")
    if done.returncode:
        pytest.skip(f"this client could not be installed: {done.stderr.strip()[-500:]}")


def _uv() -> str:
    found = os.environ.get("UV") or shutil.which("uv")
    if found is None:
        pytest.skip("no uv on this machine, which installs the client; run the tests by `uv run pytest`")
    return found


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in OF_OURS}
