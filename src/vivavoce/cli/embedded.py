"""A server in this process, with its progress shown while the models load; for commands that need no other."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vivavoce.server import Server, load_settings, running

from . import screen

ROLES = {
    "vad": "voice activity",
    "transcriber": "speech recognition",
    "language_model": "language model",
    "synthesizer": "speech synthesis",
    "turn_detector": "end of turn",
    "noise_reducer": "noise reduction",
}


@asynccontextmanager
async def embedded(pipeline: str, *, quiet: bool = False) -> AsyncIterator[Server]:
    """A warm server on a free port of loopback, that ends with the block."""
    # Without a log of its own a command would show a failure twice: as a bare line of logging, and as what it raises.
    logging.getLogger("vivavoce").addHandler(logging.NullHandler())
    settings = load_settings(host="127.0.0.1", port=0, model=pipeline, environment={})
    async with running(settings, progress=None if quiet else _Progress()) as server:
        yield server


class _Progress:
    """A line for each engine: what is being loaded, and how long it took."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def __call__(self, pipeline: str, role: str, is_ready: bool) -> None:
        if not is_ready:
            self._began = time.perf_counter()
            screen.begin(f"loading {ROLES.get(role, role)} …")
        else:
            screen.finish(f"loaded {ROLES.get(role, role)} in {time.perf_counter() - self._began:.1f} s")
