"""Noise reduction by the first network of DTLN: 16 kHz audio in, a gain for each frequency every 8 ms, audio out.

Every 8 ms the last 32 ms go through a Fourier transform, a recurrent network tells how much of each frequency is
speech, and overlapping windows put the pieces together, in time with the input. Networks of this kind please people
and hurt recognition, which misses what they take from speech more than it is helped by silence. So no frequency is
turned down by more than a floor. In the near field, where speech is strong and words count, the floor is high and a
doubtful frequency counts as speech; in the far field, where pauses are full of room, neither. DTLN's second network is
left out: it gives 2 dB, and costs more than the first. Voices in the background stay voices: this takes out
noise, not people. Invariant: the same samples come out however the audio is cut, 24 to 32 ms after they went in.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

import msgspec

from vivavoce.engines import NoiseField, NoiseReductionStream
from vivavoce.engines.onnx import loaded
from vivavoce.engines.options import read_options
from vivavoce.engines.weights import DTLN, existing, library, verified
from vivavoce.errors import EngineError

__all__ = ["Dtln", "DtlnSettings", "DtlnStream", "create"]

RATE_HZ = 16_000
HOP_SAMPLES = 128
HOP_BYTES = HOP_SAMPLES * 2
WINDOW_SAMPLES = 512
HELD_SAMPLES = WINDOW_SAMPLES - HOP_SAMPLES
"""Samples that later windows still add to: 24 ms."""

STATE_SHAPE = (1, 2, 128, 2)
FULL_SCALE = 32_768.0

# The network takes speech for noise where it is soft, and noise for speech where it is loud: it hears everything at
# the level at which it errs least, found by trying. What comes out keeps its own level.
LEVEL = 0.045
LEVEL_MIN = 1e-4
RECENT_HOPS = 16
RELEASE_S = 3.0

DOUBT: Mapping[NoiseField, float] = MappingProxyType({"near_field": 0.5, "far_field": 1.0})
"""How much the odds that the network sees against speech count."""

Decibel = Annotated[float, msgspec.Meta(ge=-60.0, le=0.0)]


class DtlnSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far noise is turned down at most, in dB from -60 to 0, for a microphone close by and for one far away.

    Further down there is more quiet, fewer words are understood, and loud clatter begins to pass for speech.

    `model`: path of another file for DTLN's first network (ONNX); None is the packaged one.
    """

    near_field_db: Decibel = -9.0
    far_field_db: Decibel = -12.0
    model: str | None = None


class Dtln:
    """The reducer. Nothing is loaded before `warm_up`."""

    rate_hz = RATE_HZ

    def __init__(self, settings: DtlnSettings | None = None) -> None:
        settings = settings or DtlnSettings()
        self._model = existing(settings.model, "dtln", "model") if settings.model else None
        self._floors_db: Mapping[NoiseField, float] = {
            "near_field": settings.near_field_db,
            "far_field": settings.far_field_db,
        }
        self._network: Any = None
        self._loading = threading.Lock()

    async def warm_up(self) -> None:
        """Load, and run once. Raises `EngineMissing`, or `EngineError` where the file cannot be used."""
        await asyncio.to_thread(self._load)

    def open(self, field: NoiseField, strength: float) -> NoiseReductionStream:
        """A stream of its own state; `strength` mixes the audio as it was (0) with the reduced (1).

        Raises `EngineError` before `warm_up` and after `close`, `ValueError` where `strength` is not from 0 to 1.
        """
        if self._network is None:
            raise EngineError("dtln: not warmed up", code="engine_not_ready")
        if not 0 <= strength <= 1:
            raise ValueError(f"the strength of noise reduction is from 0 to 1, not {strength}")
        if strength == 0:
            return _Unchanged()
        return DtlnStream(self._network, self._floors_db[field], DOUBT[field], strength)

    async def close(self) -> None:
        """Let go of the network; it is freed with the last stream."""
        self._network = None

    def _load(self) -> None:
        with self._loading:
            if self._network is not None:
                return
            path = self._model or verified(DTLN)
            self._network = loaded(
                "dtln", path, lambda network: DtlnStream(network, 0.0, 1.0, 1.0).push(bytes(HOP_BYTES))
            )


class DtlnStream:
    """Noise reduction in one stream of audio."""

    def __init__(self, network: Any, floor_db: float, doubt: float, strength: float) -> None:
        numpy = self._numpy = library("numpy")
        self._network = network
        self._spectrum_in, self._state_in = (put.name for put in network.get_inputs())
        self._floor = numpy.float32(10 ** (floor_db / 20))
        self._doubt = numpy.float32(doubt)
        self._strength = numpy.float32(strength)
        self._state = numpy.zeros(STATE_SHAPE, numpy.float32)
        self._level = _Level()
        self._heard = numpy.zeros(WINDOW_SAMPLES, numpy.float32)
        self._made = numpy.zeros(WINDOW_SAMPLES, numpy.float32)
        # Four of these overlap at each sample, and add up to one.
        turns = (numpy.arange(WINDOW_SAMPLES) + 0.5) / WINDOW_SAMPLES
        self._window = (numpy.sin(math.pi * turns) ** 2 / 2).astype(numpy.float32)
        self._rest = b""
        self._early = HELD_SAMPLES // HOP_SAMPLES
        """Hops that begin before the stream does, and are dropped."""

    def push(self, audio: bytes) -> bytes:
        """PCM16 mono at 16 kHz in and out; up to 32 ms are kept back until more comes."""
        pending = self._rest + audio if self._rest else audio
        whole = len(pending) - len(pending) % HOP_BYTES
        self._rest = pending[whole:]
        hops = [self._hop(pending, start) for start in range(0, whole, HOP_BYTES)]
        early = min(self._early, len(hops))
        self._early -= early
        return b"".join(hops[early:])

    def _hop(self, audio: bytes, start: int) -> bytes:
        """Hear the next 8 ms; give the 8 ms that began three hops before."""
        numpy, heard, made = self._numpy, self._heard, self._made
        heard[:HELD_SAMPLES] = heard[HOP_SAMPLES:]
        heard[HELD_SAMPLES:] = numpy.frombuffer(audio, "<i2", HOP_SAMPLES, start)
        made[:HELD_SAMPLES] = made[HOP_SAMPLES:]
        made[HELD_SAMPLES:] = 0
        spectrum = numpy.fft.rfft(heard)
        made += numpy.fft.irfft(spectrum * self._gains(spectrum)) * self._window
        return bytes(numpy.rint(made[:HOP_SAMPLES]).clip(-32_768, 32_767).astype("<i2").tobytes())

    def _gains(self, spectrum: Any) -> Any:
        """How much of each frequency to keep, 0 to 1."""
        numpy = self._numpy
        newest = self._heard[HELD_SAMPLES:]
        level = self._level.after(float(numpy.dot(newest, newest)) / HOP_SAMPLES / FULL_SCALE**2)
        loudness = (numpy.abs(spectrum) * (LEVEL / level / FULL_SCALE)).astype(numpy.float32)
        found, self._state = self._network.run(
            None, {self._spectrum_in: loudness[None, None], self._state_in: self._state}
        )
        speech = found[0, 0]
        gains = speech / (speech + self._doubt * (1 - speech))
        return 1 - self._strength * (1 - numpy.maximum(gains, self._floor))


class _Level:
    """How loud the stream is where it is loud: up when it lasts, as a click does not; down over seconds."""

    def __init__(self) -> None:
        self._power = 0.0
        self._recent: deque[float] = deque(maxlen=RECENT_HOPS)
        self._fall = math.exp(-HOP_SAMPLES / RATE_HZ / RELEASE_S)

    def after(self, power: float) -> float:
        """The level, full scale being 1, after 8 ms of this power."""
        self._recent.append(power)
        lasting = sorted(self._recent)[len(self._recent) // 2]
        self._power = max(lasting, self._power * self._fall, LEVEL_MIN**2)
        return math.sqrt(self._power)


class _Unchanged:
    """No reduction at all."""

    def push(self, audio: bytes) -> bytes:
        return audio


def create(options: Mapping[str, object]) -> Dtln:
    """The engine from its options: see `DtlnSettings`. Raises `SettingsError`."""
    return Dtln(read_options("dtln", DtlnSettings, options))
