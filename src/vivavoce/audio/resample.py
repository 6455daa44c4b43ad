"""From one sample rate to another, in a stream or at once.

Band-limited interpolation by soxr, in floating point: silence stays silence, and what comes out in all does not depend
on how the audio was cut. Output comes late, by up to `HELD_MS_MAX` of the quality; `flush` gives the rest.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import soxr

Quality = Literal["QQ", "LQ", "MQ", "HQ"]

# Measured ms by ms between 8, 16, 24 and 48 kHz: audio that a stream has taken and not yet given back. Most of it from
# 8 kHz and to 8 kHz; between 16 and 24 kHz it is a third.
HELD_MS_MAX: Final[dict[Quality, int]] = {"QQ": 1, "LQ": 62, "MQ": 119, "HQ": 176}

_NOTHING = np.zeros(0, np.float32)


class Resampler:
    """One stream of PCM16 mono on its way from `from_hz` to `to_hz`. Equal rates pass through."""

    def __init__(self, from_hz: int, to_hz: int, quality: Quality = "HQ") -> None:
        if from_hz <= 0 or to_hz <= 0:
            raise ValueError(f"a sample rate must be positive, not {min(from_hz, to_hz)} Hz")
        self.from_hz = from_hz
        self.to_hz = to_hz
        self._stream = None if from_hz == to_hz else soxr.ResampleStream(from_hz, to_hz, 1, "float32", quality)
        self._odd = b""  # half a sample, waiting for its other half

    def push(self, pcm16: bytes) -> bytes:
        """Take more audio, cut anywhere, also within a sample; give what is ready, always whole samples."""
        if self._stream is None and not self._odd and not len(pcm16) % 2:
            return pcm16
        if self._odd:
            pcm16 = self._odd + pcm16
        whole = len(pcm16) & ~1
        self._odd = pcm16[whole:]
        return self._run(pcm16[:whole], last=False)

    def flush(self) -> bytes:
        """The rest: all output together lasts as long as all input, to the nearest sample. Then a new stream begins.

        Half a sample at the very end is dropped.
        """
        self._odd = b""
        rest = self._run(b"", last=True)
        if self._stream is not None:
            self._stream.clear()
        return rest

    def _run(self, pcm16: bytes, *, last: bool) -> bytes:
        if self._stream is None:
            return pcm16
        samples = np.frombuffer(pcm16, "<i2").astype(np.float32) if pcm16 else _NOTHING
        out = self._stream.resample_chunk(samples, last=last)
        return bytes(np.rint(out).clip(-32_768, 32_767).astype("<i2").tobytes())


def resample(pcm16: bytes, from_hz: int, to_hz: int, quality: Quality = "HQ") -> bytes:
    """PCM16 mono at another rate, all at once."""
    resampler = Resampler(from_hz, to_hz, quality)
    return resampler.push(pcm16) + resampler.flush()
