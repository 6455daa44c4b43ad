"""`openai` 1.60, from the time of the preview, unmodified, against the server: the service's client and Azure's.

It cannot share an environment with the current package, so `uv` gives it one of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from heard import Heard
from strictness import BETA_1_60
from test_openai import check_calling, check_spoken, check_written

pytestmark = pytest.mark.interop

VERSION = "1.60.0"
SECONDS_MAX = 180
"""The first run downloads the package; later ones find it in uv's cache."""
OF_OURS = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONWARNINGS", "UV_FROZEN", "UV_LOCKED")
"""Variables about our environment, which mean nothing in the other."""


def uv() -> str:
    found = os.environ.get("UV") or shutil.which("uv")
    if found is None:
        pytest.fail(
            "uv is needed to run another version of openai; run the tests by `uv run pytest`, or leave them out"
        )
    return found


@pytest.fixture(scope="module")
def told(server_url: str) -> dict[str, dict[str, Any]]:
    """What both clients heard in all turns, held by the program in an environment of its own."""
    program = Path(__file__).with_name("beta_client.py")
    environment = ["--no-project", "--isolated", "--python", sys.executable, "--with", f"openai[realtime]=={VERSION}"]
    command = [uv(), "run", *environment, "python", str(program), server_url]
    env = {name: value for name, value in os.environ.items() if name not in OF_OURS}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=SECONDS_MAX, check=False)
    assert done.returncode == 0, done.stderr
    heard: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return heard


@pytest.fixture(params=["openai", "azure"])
def heard_in(request: pytest.FixtureRequest, told: dict[str, dict[str, Any]]) -> Callable[[str], Heard]:
    """What one of the clients heard in the turn of this name."""

    def find(turn: str) -> Heard:
        of_turn = told[request.param][turn]
        return Heard(**{**of_turn, "audio": bytearray(of_turn["audio"])})

    return find


def test_written_turn(heard_in: Callable[[str], Heard]) -> None:
    check_written(heard_in("written"))


def test_spoken_turn(heard_in: Callable[[str], Heard]) -> None:
    check_spoken(heard_in("spoken"))


def test_function_call(heard_in: Callable[[str], Heard]) -> None:
    check_calling(heard_in("calling"))


@pytest.mark.parametrize("turn", ["written", "spoken", "calling"])
def test_every_event_has_the_class_of_its_type(turn: str, heard_in: Callable[[str], Heard]) -> None:
    """The package makes an object of some class even of what it does not know; the class shows that it knew."""
    heard = heard_in(turn)
    known = [
        (name, held) for name, held in zip(heard.types, heard.classes, strict=True) if name not in BETA_1_60.events
    ]
    assert known[0] == ("session.created", "SessionCreatedEvent")
    for name, held in known:
        expected = "".join(word.capitalize() for word in name.replace(".", "_").split("_")) + "Event"
        assert held == expected
