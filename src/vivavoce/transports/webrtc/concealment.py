"""What is heard in place of packets that are lost: the last sound, repeated by its pitch and dying away.

A stretch of silence in the middle of a word makes it two words to a transcriber and a click to an ear. Invariant:
`fill` gives exactly as many samples as were asked for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FADE_MS = 60
"""Time in which a repeated sound has died away."""

JOIN_MS = 2
"""Length over which real sound takes over from a repeated one."""

PERIOD_MS_MIN, PERIOD_MS_MAX = 3, 15
"""Periods of voices: 330 down to 67 Hz."""

Samples = NDArray[np.float32]


class Concealment:
    """One stream of PCM16 mono at `rate_hz`."""

    def __init__(self, rate_hz: int) -> None:
        self._per_ms = rate_hz // 1000
        self._last = b""
        """The end of what was heard last."""
        self._is_filled = False

    def join(self, audio: bytes) -> bytes:
        """Real sound, made to follow what came before without a click."""
        self._last = (self._last + audio)[-4 * PERIOD_MS_MAX * self._per_ms :]
        if not self._is_filled:
            return audio
        self._is_filled = False
        samples = np.frombuffer(audio, "<i2")
        length = min(JOIN_MS * self._per_ms, len(samples))
        joined = samples.astype(np.float32)
        joined[:length] *= np.linspace(0.0, 1.0, length, dtype=np.float32)
        return bytes(np.rint(joined).astype("<i2").tobytes())

    def fill(self, count: int) -> bytes:
        """So many samples in place of what is lost."""
        self._is_filled = True
        last = np.frombuffer(self._last, "<i2").astype(np.float32)
        self._last = b""  # a fill is never made from a fill
        period = self._period(last)
        if not period:
            return bytes(2 * count)
        repeated = np.resize(last[-period:], count)
        fade = np.clip(1.0 - np.arange(count, dtype=np.float32) / (FADE_MS * self._per_ms), 0.0, 1.0)
        return bytes(np.rint(repeated * fade).astype("<i2").tobytes())

    def _period(self, last: Samples) -> int:
        """The length after which the last sound repeats itself best; 0 where there is too little of it."""
        shortest, longest = PERIOD_MS_MIN * self._per_ms, PERIOD_MS_MAX * self._per_ms
        if len(last) < 2 * longest:
            return 0
        end = last[-longest:]
        lags = range(shortest, longest + 1, 4)
        return max(lags, key=lambda lag: float(np.dot(end, last[-longest - lag : len(last) - lag])))
