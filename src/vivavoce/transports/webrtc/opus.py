"""Opus as this package speaks it: packets of 20 ms, mono; PCM16 at 24 kHz goes in, at 48 kHz it comes out.

FFmpeg's libopus by way of PyAV, with the encoder at 24 kHz: that costs half of what 48 kHz stereo would.
"""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext

from vivavoce.audio.formats import PCM16_24K

PACKET_MS = 20
PACKET_BYTES = PCM16_24K.bytes_of(PACKET_MS)
PACKET_SAMPLES = PCM16_24K.samples(PACKET_MS)

BITS_PER_SECOND = 32_000
LOSS_PERCENT = 5
"""The loss that packets are made for: each carries a coarse copy of the one before."""

COMPLEXITY = 5
"""Of 10. Beyond it the encoder costs half as much again, for speech that sounds the same."""

DECODED_HZ = 48_000
"""The rate of FFmpeg's decoder, and of RTP timestamps of Opus (RFC 7587)."""

TIME_BASE = Fraction(1, DECODED_HZ)
PACKET_TICKS = DECODED_HZ * PACKET_MS // 1000


class OpusEncoder:
    """One stream of packets."""

    def __init__(self) -> None:
        codec = av.CodecContext.create("libopus", "w")
        assert isinstance(codec, AudioCodecContext)
        codec.sample_rate = PCM16_24K.rate_hz
        codec.layout = "mono"
        codec.format = "s16"
        codec.bit_rate = BITS_PER_SECOND
        codec.options = {
            "application": "voip",
            "frame_duration": str(PACKET_MS),
            "compression_level": str(COMPLEXITY),
            "packet_loss": str(LOSS_PERCENT),
            "fec": "1",
        }
        self._codec = codec
        self._at = 0

    def encode(self, pcm: bytes) -> bytes:
        """20 ms of PCM16 at 24 kHz as one packet."""
        samples = np.frombuffer(pcm, "<i2").reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = PCM16_24K.rate_hz
        frame.pts = self._at
        self._at += PACKET_SAMPLES
        (packet,) = self._codec.encode(frame)
        return bytes(packet)


class OpusDecoder:
    """One stream of packets, whatever their length; stereo is mixed."""

    def __init__(self) -> None:
        codec = av.CodecContext.create("libopus", "r")
        assert isinstance(codec, AudioCodecContext)
        codec.sample_rate = DECODED_HZ
        codec.layout = "mono"
        codec.format = "s16"
        self._codec = codec

    def decode(self, payload: bytes) -> bytes:
        """A packet as PCM16 at 48 kHz. Raises `ValueError` where it is none."""
        try:
            frames = self._codec.decode(av.Packet(payload))
        except av.FFmpegError as error:
            raise ValueError(f"this is no Opus packet: {error}") from None
        return b"".join(bytes(frame.planes[0])[: frame.samples * 2] for frame in frames)
