"""Sounds that a name describes in full, so that a trace can hold the name in place of the samples.

`tone(200) + silence(500)` is audio (`bytes`, PCM16 mono at 24 kHz) that knows how it was made; `sound` makes it again
from `str(...)` of it, "tone 200 ms + silence 500 ms".
"""

from __future__ import annotations

import math
import re
import sys
from array import array
from functools import cache

from vivavoce.audio.formats import PCM16_24K

__all__ = ["Sound", "silence", "sound", "tone"]

TONE_HZ = 300
TONE_PEAK = 6_000
"""Loud enough for every detector of voice activity by level."""
SOUND_MS_MAX = 60 * 60 * 1000

_PART = re.compile(r"(tone|silence) (\d+) ms")


class Sound(bytes):
    """Audio and its description."""

    description: str

    def __new__(cls, audio: bytes, description: str) -> Sound:
        """`audio` is what `description` says; use `tone`, `silence` and `sound`."""
        self = super().__new__(cls, audio)
        self.description = description
        return self

    def __str__(self) -> str:
        return self.description

    def __add__(self, other: object) -> Sound:
        if not isinstance(other, Sound):
            return NotImplemented
        return Sound(bytes(self) + bytes(other), f"{self} + {other}")


def tone(ms: int) -> Sound:
    """`ms` milliseconds that a detector takes for speech."""
    length = PCM16_24K.bytes_of(ms)
    period = _period()
    return Sound((period * (length // len(period) + 1))[:length], f"tone {ms} ms")


def silence(ms: int) -> Sound:
    """`ms` milliseconds of nothing."""
    return Sound(bytes(PCM16_24K.bytes_of(ms)), f"silence {ms} ms")


def sound(description: str) -> Sound:
    """The sound with this description. Raises `ValueError` where it describes none."""
    made = None
    for text in description.split(" + "):
        found = _PART.fullmatch(text)
        if found is None or int(found[2]) > SOUND_MS_MAX:
            raise ValueError(f"{text!r} describes no sound; write 'tone 200 ms' or 'silence 200 ms', joined by ' + '")
        part = tone(int(found[2])) if found[1] == "tone" else silence(int(found[2]))
        made = part if made is None else made + part
    assert made is not None
    return made


@cache
def _period() -> bytes:
    samples = PCM16_24K.rate_hz // TONE_HZ
    wave = array("h", (round(TONE_PEAK * math.sin(math.tau * n / samples)) for n in range(samples)))
    if sys.byteorder == "big":
        wave.byteswap()
    return wave.tobytes()
