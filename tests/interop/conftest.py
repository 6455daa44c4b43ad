"""The real command, `vivavoce serve --model scripted`, in a process of its own for as long as these tests run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 15

_URL = re.compile(r"ws://127\.0\.0\.1:\d+")


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """`ws://127.0.0.1:PORT` of a server with the scripted pipeline."""
    command = [sys.executable, "-m", "vivavoce", "serve", "--model", "scripted", "--port", "0"]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as process:
        alarm = threading.Timer(START_SECONDS_MAX, process.kill)
        alarm.start()
        said: list[str] = []
        try:
            url = _url_in(process, said)
            alarm.cancel()
            drain = threading.Thread(target=_keep_reading, args=(process, said), daemon=True)
            drain.start()
            yield url
            process.terminate()
            code = process.wait(STOP_SECONDS_MAX)
            drain.join(STOP_SECONDS_MAX)
            assert code in (0, -15), f"the server ended with {code}:\n{''.join(said)}"
            assert "Traceback" not in "".join(said), "".join(said)
        finally:
            alarm.cancel()
            process.kill()


def _url_in(process: subprocess.Popen[str], said: list[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if found := _URL.search(line):
            return found[0]
    raise RuntimeError(f"the server ended, or said no address for {START_SECONDS_MAX} s:\n{''.join(said)}")


def _keep_reading(process: subprocess.Popen[str], said: list[str]) -> None:
    """A server whose output nobody reads would stop at a full pipe."""
    assert process.stdout is not None
    said.extend(process.stdout)
