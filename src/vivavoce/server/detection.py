"""Noise reduction and speech detection for one session: the client's audio to clean audio, and to probabilities.

Cheap enough to run inline, so that what is said about audio and audio keep one order. Who has much audio hands it in by
`slices` and lets the event loop breathe between them. Invariant: within an epoch every
sample is taken once, in order, or the engine has failed and stays silent until the next epoch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from vivavoce.audio.convert import Converter
from vivavoce.audio.formats import Format, pcm16
from vivavoce.core.messages import ReduceNoise, SpeechScored
from vivavoce.engines import (
    BatchedVoiceActivityStream,
    NoiseReducer,
    VoiceActivityDetector,
    VoiceActivityStream,
)
from vivavoce.errors import EngineError
from vivavoce.protocol.events import ErrorDetail

SLICE_MS = 400
"""Audio that is converted or scored without letting others run: a few milliseconds of CPU."""


def slices(audio: bytes, format: Format) -> Iterable[bytes]:
    """`audio` in slices of `SLICE_MS`."""
    step = format.bytes_of(SLICE_MS)
    if len(audio) <= step:
        return (audio,)  # which it nearly always is
    return (audio[start : start + step] for start in range(0, len(audio), step))


async def converted(audio: bytes, source: Format, rate_hz: int) -> bytes:
    """`audio` as PCM16 at `rate_hz`, whole; others run meanwhile."""
    converter = Converter(source, pcm16(rate_hz))
    pieces = []
    for piece in slices(audio, source):
        pieces.append(converter.push(piece))
        await asyncio.sleep(0)
    return b"".join((*pieces, converter.flush()))


class Coming(NamedTuple):
    """Audio at the detector's rate, whose scores have to be waited for."""

    epoch: int
    audio: bytes


class SpeechDetection:
    """The stream that is being scored, anew for every epoch."""

    def __init__(self, detector: VoiceActivityDetector) -> None:
        self._detector = detector
        self.epoch: int | None = None
        """The one that is being scored."""
        self.at_once_bytes = 0
        """So much of its audio `push` takes whole, and says at once what there is to say."""
        self._converter: Converter | None = None
        self._stream: VoiceActivityStream | None = None
        self._batched: BatchedVoiceActivityStream | None = None

    def push(self, epoch: int, audio: bytes, format: Format) -> SpeechScored | Coming | None:
        """Scores of the frames that this audio completes, if any.

        Where they are cheaper to have together with other sessions', they are `Coming`: to be had by `score`, before
        more is pushed. Raises what the detector raises, once an epoch; after that the epoch has no scores.
        """
        if epoch != self.epoch:
            self._begin(epoch, format)
        if self._stream is None:
            return None
        try:
            ready = audio if self._converter is None else self._converter.push(audio)
            if self._batched is not None:
                return Coming(epoch, ready)
            probabilities = self._stream.push(ready)
        except Exception:
            self._stream = None
            raise
        return SpeechScored(epoch, self._detector.frame_ms, tuple(probabilities)) if probabilities else None

    async def score(self, coming: Coming) -> SpeechScored | None:
        """What `push` could not say at once. Raises likewise."""
        if self._batched is None or self._stream is None:
            return None
        try:
            probabilities = await self._batched.score(coming.audio)
        except Exception:
            self._stream = None
            raise
        return SpeechScored(coming.epoch, self._detector.frame_ms, tuple(probabilities)) if probabilities else None

    def _begin(self, epoch: int, format: Format) -> None:
        self.epoch = epoch
        self._stream = None
        inner = pcm16(self._detector.rate_hz)
        # Telling speech from silence needs no clean spectrum; interpolation holds nothing back, and the end of a turn
        # is found that much sooner.
        self._converter = None if format == inner else Converter(format, inner, "QQ")
        self._stream = stream = self._detector.open()
        self._batched = stream if isinstance(stream, BatchedVoiceActivityStream) else None
        self.at_once_bytes = format.bytes_of(SLICE_MS) if self._batched is None else 0


class NoiseReduction:
    """The stream that is being cleaned, anew for every epoch."""

    def __init__(self, reducer: NoiseReducer | None) -> None:
        self._reducer = reducer
        self._epoch: int | None = None
        self._stream: _Cleaner | None = None

    def push(self, wanted: ReduceNoise, audio: bytes) -> bytes:
        """What is clean by now, in the client's format; the n-th sample out belongs to the n-th in.

        Raises what the reducer raises, once an epoch; after that nothing comes.
        """
        if wanted.epoch != self._epoch:
            self._epoch = wanted.epoch
            self._stream = _Cleaner(self._reducer, wanted) if self._reducer is not None else None
        if self._stream is None:
            return b""
        try:
            return self._stream.push(audio)
        except Exception:
            self._stream = None
            raise


class _Cleaner:
    """To the reducer's rate, through it, and back."""

    def __init__(self, reducer: NoiseReducer, wanted: ReduceNoise) -> None:
        inner = pcm16(reducer.rate_hz)
        # What a better resampler holds back, the end of every turn is found later, twice: there and back.
        self._into = Converter(wanted.format, inner, "LQ")
        self._stream = reducer.open(wanted.field, wanted.strength)
        self._back = Converter(inner, wanted.format, "LQ")

    def push(self, audio: bytes) -> bytes:
        return self._back.push(self._stream.push(self._into.push(audio)))


# --- what a client is told of an engine that failed -------------------------------------------------------------------


def undetected(error: Exception) -> ErrorDetail:
    """The detector has failed."""
    consequence = "Turns are not found any more; commit them, or clear the buffer to begin anew."
    return _failed(error, "Turn detection", consequence)


def uncleaned(error: Exception) -> ErrorDetail:
    """The noise reducer has failed."""
    return _failed(error, "Noise reduction", "Audio is taken as it comes.")


def _failed(error: Exception, what: str, consequence: str) -> ErrorDetail:
    code, said = (
        (error.code, error.message) if isinstance(error, EngineError) else ("engine_error", type(error).__name__)
    )
    return ErrorDetail(type="server_error", code=code, message=f"{what} has failed: {said}. {consequence}")
