"""Voice activity by Silero VAD v6: the probability of speech in each 32 ms of 16 kHz audio.

One network on one thread serves every stream; what a stream remembers (recurrent state, the end of its last frame, an
incomplete frame) is its own. Runs on the event loop: about a quarter of a millisecond for each frame.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from vivavoce.engines.onnx import loaded
from vivavoce.engines.options import read_options
from vivavoce.engines.weights import SILERO, existing, library, verified
from vivavoce.errors import EngineError

__all__ = ["Silero", "SileroSettings", "SileroStream", "create"]

RATE_HZ = 16_000
FRAME_MS = 32
FRAME_SAMPLES = RATE_HZ * FRAME_MS // 1000
FRAME_BYTES = FRAME_SAMPLES * 2
CONTEXT_SAMPLES = 64
"""How much of the frame before the network wants to see again in front of each frame."""

STATE_SHAPE = (2, 1, 128)
FULL_SCALE = 32_768.0


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
        self._loading = threading.Lock()

    async def warm_up(self) -> None:
        """Load, and run once. Raises `EngineMissing`, or `EngineError` where the file cannot be used."""
        await asyncio.to_thread(self._load)

    def open(self) -> SileroStream:
        """A stream of its own state. Raises `EngineError` before `warm_up` and after `close`."""
        if self._network is None:
            raise EngineError("silero: not warmed up", code="engine_not_ready")
        return SileroStream(self._network)

    async def close(self) -> None:
        """Let go of the network; it is freed with the last stream."""
        self._network = None

    def _load(self) -> None:
        with self._loading:
            if self._network is not None:
                return
            path = self._model or verified(SILERO)
            self._network = loaded("silero", path, lambda network: SileroStream(network).push(bytes(FRAME_BYTES)))


class SileroStream:
    """Speech detection in one stream of audio."""

    def __init__(self, network: Any) -> None:
        self._numpy: Any = library("numpy")
        self._network = network
        self._state = self._numpy.zeros(STATE_SHAPE, self._numpy.float32)
        self._input = self._numpy.zeros((1, CONTEXT_SAMPLES + FRAME_SAMPLES), self._numpy.float32)
        self._rate = self._numpy.array(RATE_HZ, self._numpy.int64)
        self._rest = b""

    def push(self, audio: bytes) -> Sequence[float]:
        """PCM16 mono at 16 kHz to one probability per completed frame; the rest is kept for the next call."""
        pending = self._rest + audio if self._rest else audio
        whole = len(pending) - len(pending) % FRAME_BYTES
        self._rest = pending[whole:]
        return [self._frame(pending, start) for start in range(0, whole, FRAME_BYTES)]

    def _frame(self, audio: bytes, start: int) -> float:
        samples = self._numpy.frombuffer(audio, "<i2", FRAME_SAMPLES, start)
        self._input[0, :CONTEXT_SAMPLES] = self._input[0, -CONTEXT_SAMPLES:]
        self._numpy.divide(samples, FULL_SCALE, out=self._input[0, CONTEXT_SAMPLES:])
        probability, self._state = self._network.run(
            None, {"input": self._input, "state": self._state, "sr": self._rate}
        )
        return float(probability[0, 0])


def create(options: Mapping[str, object]) -> Silero:
    """The engine from its options: see `SileroSettings`. Raises `SettingsError`."""
    return Silero(read_options("silero", SileroSettings, options))
