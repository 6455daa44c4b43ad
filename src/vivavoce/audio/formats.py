"""What a stream of audio bytes means: encoding, sample rate, and the arithmetic between ms, samples and bytes.

Pure and without dependencies: the session machine counts audio time with it. All audio is mono. Positions are counted
in samples, because milliseconds lose the rest; they become milliseconds only where an event says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Encoding = Literal["pcm16", "ulaw", "alaw"]


@dataclass(frozen=True, slots=True)
class Format:
    """Layout of mono audio. `sample_bytes` is 2 for little-endian signed 16-bit PCM, 1 for G.711."""

    encoding: Encoding
    rate_hz: int
    sample_bytes: int

    def samples(self, ms: int) -> int:
        """How many samples `ms` milliseconds hold, rounded down."""
        return ms * self.rate_hz // 1000

    def ms(self, samples: int) -> int:
        """How many whole milliseconds `samples` samples last."""
        return samples * 1000 // self.rate_hz

    def duration_ms(self, audio: bytes | bytearray | memoryview) -> int:
        """How many whole milliseconds `audio` lasts."""
        return self.ms(len(audio) // self.sample_bytes)

    def bytes_of(self, ms: int) -> int:
        """How many bytes `ms` milliseconds take, always whole samples."""
        return ms * self.rate_hz // 1000 * self.sample_bytes


def pcm16(rate_hz: int) -> Format:
    """Signed 16-bit little-endian PCM at `rate_hz`."""
    return Format("pcm16", rate_hz, 2)


PCM16_24K = pcm16(24_000)
ULAW_8K = Format("ulaw", 8_000, 1)
ALAW_8K = Format("alaw", 8_000, 1)
