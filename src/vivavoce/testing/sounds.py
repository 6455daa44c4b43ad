"""Sounds that a description says in full, so that a trace can hold the description in place of the samples.

`tone(200) + silence(500)` is audio, PCM16 mono at 24 kHz; `describe` says of it "tone 200 ms + silence 500 ms", and
`sound` makes it again from that.
"""

from __future__ import annotations

import math
import re
import sys
from array import array
from functools import cache

from vivavoce.audio.formats import PCM16_24K

__all__ = ["describe", "silence", "sound", "tone"]

TONE_HZ = 300
TONE_PEAK = 6_000
"""Loud enough for every detector of voice activity by level."""
SOUND_MS_MAX = 60 * 60 * 1000

_PART = re.compile(r"(tone|silence) (\d+) ms")
_BLOCK = PCM16_24K.bytes_of(1)


def tone(ms: int) -> bytes:
    """`ms` milliseconds that a detector of voice activity by level takes for speech."""
    length = PCM16_24K.bytes_of(ms)
    period = _period()
    return (period * (length // len(period) + 1))[:length]


def silence(ms: int) -> bytes:
    """`ms` milliseconds of nothing."""
    return bytes(PCM16_24K.bytes_of(ms))


def sound(description: str) -> bytes:
    """The sound with this description. Raises `ValueError` where it describes none."""
    audio = b""
    for text in description.split(" + "):
        found = _PART.fullmatch(text)
        if found is None or int(found[2]) > SOUND_MS_MAX:
            raise ValueError(f"{text!r} describes no sound; write 'tone 200 ms' or 'silence 200 ms', joined by ' + '")
        audio += tone(int(found[2])) if found[1] == "tone" else silence(int(found[2]))
    return audio


def describe(audio: bytes) -> str | None:
    """The description of a sound that was made here; None for any other audio."""
    parts: list[tuple[str, int]] = []
    for at in range(0, len(audio), _BLOCK):
        block = audio[at : at + _BLOCK]
        kind, ms = parts[-1] if parts else ("", 0)
        if kind == "tone" and block == _tone_ms(ms):
            parts[-1] = (kind, ms + 1)
        elif block == _tone_ms(0):
            parts.append(("tone", 1))
        elif len(block) < _BLOCK or any(block):
            return None
        elif kind == "silence":
            parts[-1] = (kind, ms + 1)
        else:
            parts.append(("silence", 1))
    return " + ".join(f"{kind} {ms} ms" for kind, ms in parts) or None


def _tone_ms(ms: int) -> bytes:
    """The millisecond of a tone that comes after its first `ms`."""
    period = _period()
    at = ms * _BLOCK % len(period)
    return (period * 2)[at : at + _BLOCK]


@cache
def _period() -> bytes:
    samples = PCM16_24K.rate_hz // TONE_HZ
    wave = array("h", (round(TONE_PEAK * math.sin(math.tau * n / samples)) for n in range(samples)))
    if sys.byteorder == "big":
        wave.byteswap()
    return wave.tobytes()
