"""The scripted voice."""

from __future__ import annotations

import functools
import math
import sys
from array import array
from collections.abc import AsyncIterator

from .pace import AT_ONCE, FORMAT, Pace, ScriptedSettings, Weightless

TONE_HZ = 440
TONE_PEAK = 6_000
CHARACTER_MS = 60
CHUNK_MS = 100


class ScriptedSynthesizer(Weightless):
    """Speaks every character as 60 ms (divided by `speed`) of a 440 Hz tone, without a seam; all voices are alike."""

    rate_hz: int = FORMAT.rate_hz

    def __init__(self, settings: ScriptedSettings = AT_ONCE) -> None:
        self._settings = settings

    async def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[bytes]:
        """PCM16 mono at 24 kHz in chunks of 100 ms, the last one shorter."""
        pace = Pace(self._settings)
        left = round(len(text) * FORMAT.samples(CHARACTER_MS) / speed) * FORMAT.sample_bytes
        period = _tone()
        chunk = period * (FORMAT.bytes_of(CHUNK_MS) // len(period))
        while left > 0:
            await pace.next()
            yield chunk[:left]
            left -= len(chunk)


@functools.cache
def _tone() -> bytes:
    """The shortest stretch of tone that is a whole number of samples and of cycles, so that repeats join smoothly."""
    cycles = TONE_HZ // math.gcd(TONE_HZ, FORMAT.rate_hz)
    samples = FORMAT.rate_hz * cycles // TONE_HZ
    wave = array("h", (round(TONE_PEAK * math.sin(math.tau * cycles * n / samples)) for n in range(samples)))
    if sys.byteorder == "big":
        wave.byteswap()
    return wave.tobytes()
