"""From one audio format to another: what the wire carries to what an engine wants, and back.

`decode` and `encode` change the encoding alone and keep the rate; `Converter` is a stream that changes both.
"""

from __future__ import annotations

from . import g711
from .formats import Format
from .resample import Quality, Resampler


def decode(audio: bytes, source: Format) -> bytes:
    """Audio in the format `source` as PCM16 at the same rate. Raises `ValueError` for half a sample of PCM16."""
    if source.encoding == "pcm16":
        return _whole(audio)
    return g711.decode(audio, source.encoding)


def encode(pcm16: bytes, target: Format) -> bytes:
    """PCM16 at the rate of `target` in its encoding. Raises `ValueError` for half a sample."""
    return _whole(pcm16) if target.encoding == "pcm16" else g711.encode(_whole(pcm16), target.encoding)


def _whole(pcm16: bytes) -> bytes:
    if len(pcm16) % 2:
        raise ValueError(f"PCM16 comes in samples of 2 bytes, and {len(pcm16)} bytes are not whole samples")
    return pcm16


class Converter:
    """One stream of audio on its way from one format to another."""

    def __init__(self, source: Format, target: Format, quality: Quality = "HQ") -> None:
        self.source = source
        self.target = target
        self._resampler = Resampler(source.rate_hz, target.rate_hz, quality)

    def push(self, audio: bytes) -> bytes:
        """Take more audio, cut anywhere, also within a sample; give what is ready, always whole samples."""
        pcm16 = audio if self.source.encoding == "pcm16" else g711.decode(audio, self.source.encoding)
        ready = self._resampler.push(pcm16)
        return ready if self.target.encoding == "pcm16" else g711.encode(ready, self.target.encoding)

    def flush(self) -> bytes:
        """The rest of the stream. Then a new one begins."""
        return encode(self._resampler.flush(), self.target)
