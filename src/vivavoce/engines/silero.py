"""Voice activity by Silero VAD v6: the probability of speech in each 32 ms of 16 kHz audio.

One network on one thread serves every stream; what a stream remembers (recurrent state, the end of its last frame, an
incomplete frame) is its own. Runs on the event loop: about a quarter of a millisecond for a frame, and for several
streams' frames at once little more. Invariant: scores do not depend on what else was in the batch.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from vivavoce.engines.onnx import loaded
from vivavoce.engines.options import read_options
from vivavoce.engines.weights import SILERO, existing, library, verified
from vivavoce.errors import EngineError

__all__ = ["Silero", "SileroBatch", "SileroSettings", "SileroStream", "create"]

RATE_HZ = 16_000
FRAME_MS = 32
FRAME_SAMPLES = RATE_HZ * FRAME_MS // 1000
FRAME_BYTES = FRAME_SAMPLES * 2
CONTEXT_SAMPLES = 64
"""How much of the frame before the network wants to see again in front of each frame."""

STATE_SHAPE = (2, 1, 128)
FULL_SCALE = 32_768.0
APART_MS = 8
"""Between two runs of the network for several streams; what that adds to the end of a turn nobody hears."""
BATCH_MAX = 16
"""Frames in one run, under two milliseconds of the event loop's time; of more streams the rest is next."""


class SileroSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model`: path of another Silero v5 or v6 ONNX file for 16 kHz; None is the packaged one."""

    model: str | None = None


class Silero:
    """The detector. Nothing is loaded before `warm_up`."""

    rate_hz = RATE_HZ
    frame_ms = FRAME_MS

    def __init__(self, settings: SileroSettings | None = None) -> None:
        settings = settings or SileroSettings()
        self._model = existing(settings.model, "silero", "model") if settings.model else None
        self._network: Any = None
        self._batch: SileroBatch | None = None
        self._loading = threading.Lock()

    async def warm_up(self) -> None:
        """Load, and run once. Raises `EngineMissing`, or `EngineError` where the file cannot be used."""
        await asyncio.to_thread(self._load)

    def open(self) -> SileroStream:
        """A stream of its own state. Raises `EngineError` before `warm_up` and after `close`."""
        if self._batch is None:
            raise EngineError("silero: not warmed up", code="engine_not_ready")
        return SileroStream(self._network, self._batch)

    async def close(self) -> None:
        """Let go of the network; it is freed with the last stream."""
        self._network = self._batch = None

    def _load(self) -> None:
        with self._loading:
            if self._network is not None:
                return
            path = self._model or verified(SILERO)
            network = loaded("silero", path, _try)
            self._network, self._batch = network, SileroBatch(network)


class SileroStream:
    """Speech detection in one stream of audio."""

    def __init__(self, network: Any, batch: SileroBatch) -> None:
        self._numpy: Any = library("numpy")
        self._network = network
        self._batch = batch
        self._rate = self._numpy.array(RATE_HZ, self._numpy.int64)
        self._rest = b""
        self.state = self._numpy.zeros(STATE_SHAPE, self._numpy.float32)
        self.input = self._numpy.zeros((1, CONTEXT_SAMPLES + FRAME_SAMPLES), self._numpy.float32)

    def push(self, audio: bytes) -> Sequence[float]:
        """PCM16 mono at 16 kHz to one probability per completed frame; the rest is kept for the next call."""
        return [self._frame(frame) for frame in self._frames(audio)]

    async def score(self, audio: bytes) -> Sequence[float]:
        """As `push`, in one run of the network with what other streams are given in the same moment.

        A stream takes one call at a time.
        """
        frames = self._frames(audio)
        return await self._batch.scores(self, frames) if frames else []

    def load(self, frame: bytes) -> None:
        """Put a frame where the network is to see it, behind the end of the one before."""
        samples = self._numpy.frombuffer(frame, "<i2")
        self.input[0, :CONTEXT_SAMPLES] = self.input[0, -CONTEXT_SAMPLES:]
        self._numpy.divide(samples, FULL_SCALE, out=self.input[0, CONTEXT_SAMPLES:])

    def _frames(self, audio: bytes) -> list[bytes]:
        pending = self._rest + audio if self._rest else audio
        whole = len(pending) - len(pending) % FRAME_BYTES
        self._rest = pending[whole:]
        return [pending[start : start + FRAME_BYTES] for start in range(0, whole, FRAME_BYTES)]

    def _frame(self, frame: bytes) -> float:
        self.load(frame)
        probability, self.state = self._network.run(None, {"input": self.input, "state": self.state, "sr": self._rate})
        return float(probability[0, 0])


class _Waiting:
    """A stream whose frames are to be scored, one after the other."""

    def __init__(self, stream: SileroStream, frames: list[bytes]) -> None:
        self.stream = stream
        self.frames = deque(frames)
        self.scores: list[float] = []
        self.done: asyncio.Future[Sequence[float]] = asyncio.get_running_loop().create_future()


class SileroBatch:
    """One run of the network for the next frame of every stream that has one; who comes meanwhile joins the next.

    While other streams are about, runs keep a distance of `APART_MS`, in which frames gather: a lone stream never
    waits, and nobody longer than that. Between runs the event loop does what else there is. Bounded by the streams,
    each of which has one call in it.
    """

    def __init__(self, network: Any) -> None:
        self._numpy: Any = library("numpy")
        self._network = network
        self._rate = self._numpy.array(RATE_HZ, self._numpy.int64)
        self._waiting: deque[_Waiting] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_due = False
        self._lone: SileroStream | None = None
        """The stream that had the last run for itself."""
        self._ran_s = -math.inf
        self.runs = self.frames = 0
        """How often the network ran for this, and of how many frames."""

    async def scores(self, stream: SileroStream, frames: list[bytes]) -> Sequence[float]:
        """The probabilities of these frames. Raises what the network raises."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # Engines outlive event loops; what waited on another one is gone with it.
            self._loop, self._is_due, self._ran_s = loop, False, -math.inf
            self._waiting.clear()
        waiting = _Waiting(stream, frames)
        self._waiting.append(waiting)
        if not self._is_due:
            due_s = self._ran_s + APART_MS / 1000
            self._schedule(loop, 0.0 if self._lone is stream else due_s - loop.time())
        return await waiting.done

    def _schedule(self, loop: asyncio.AbstractEventLoop, wait_s: float) -> None:
        self._is_due = True
        if wait_s > 0:
            loop.call_later(wait_s, self._run, loop)
        else:
            loop.call_soon(self._run, loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """The next frame of up to `BATCH_MAX` streams, those that wait longest first."""
        self._is_due = False
        wanted = [one for one in self._waiting if not one.done.done()]  # the others were cancelled
        chosen = wanted[:BATCH_MAX]
        self._waiting = deque(wanted[BATCH_MAX:])
        try:
            if chosen:
                self._score(chosen)
        except Exception as error:
            for one in chosen:
                one.done.set_exception(error)
            chosen = []
        for one in chosen:
            if one.frames:
                self._waiting.append(one)
            else:
                one.done.set_result(one.scores)
        self._ran_s = loop.time()
        if self._waiting:
            self._schedule(loop, 0.0)

    def _score(self, chosen: list[_Waiting]) -> None:
        for one in chosen:
            one.stream.load(one.frames.popleft())
        inputs = self._numpy.concatenate([one.stream.input for one in chosen])
        states = self._numpy.concatenate([one.stream.state for one in chosen], axis=1)
        probabilities, states = self._network.run(None, {"input": inputs, "state": states, "sr": self._rate})
        for number, one in enumerate(chosen):
            one.stream.state = states[:, number : number + 1]
            one.scores.append(float(probabilities[number, 0]))
        self.runs += 1
        self.frames += len(chosen)
        self._lone = chosen[0].stream if len(chosen) == 1 else None


def _try(network: Any) -> None:
    SileroStream(network, SileroBatch(network)).push(bytes(FRAME_BYTES))


def create(options: Mapping[str, object]) -> Silero:
    """The engine from its options: see `SileroSettings`. Raises `SettingsError`."""
    return Silero(read_options("silero", SileroSettings, options))
