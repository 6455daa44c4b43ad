"""Acoustic echo cancellation: takes what the loudspeaker plays out of what the microphone hears.

    loudspeaker ─push_far→ EchoCanceller ←─ microphone ─clean→ the near voice alone

With it a user may interrupt at an open loudspeaker without the assistant interrupting itself. The work is done by the
canceller of WebRTC (extra `echo`), which finds the delay between both by itself. Both sides are called as their devices
go, each from its own thread; each pushed block is compared with what is cleaned next.
"""

from __future__ import annotations

import threading
from typing import Final

from vivavoce.errors import EngineMissing

__all__ = ["EchoCanceller"]

FRAME_MS: Final = 10
"""What is cleaned at a time."""
FAR_WAITS_MS_MAX: Final = 60
"""Played audio that may wait to be compared when more comes. The oldest beyond it is dropped: the canceller can follow
an echo that comes late, and none that comes before its cause."""


class EchoCanceller:
    """Cancels the echo of one loudspeaker in one microphone; PCM16 mono at `rate_hz` on both sides.

    `delay_ms` is a first guess of the time from a block's push to its echo, 0 where it is not known. What is cleaned
    comes out some 10 ms later than it went in. Raises `EngineMissing` without the extra `echo`.
    """

    def __init__(self, rate_hz: int = 24_000, *, delay_ms: int = 0) -> None:
        try:
            import numpy as np
            from pywebrtc_audio import AudioProcessor
        except ImportError as error:
            raise EngineMissing(
                f'echo cancellation needs the package pywebrtc-audio ({error}): pip install "vivavoce[echo]"'
            ) from error
        if rate_hz < 8_000 or rate_hz % 100:
            raise ValueError(f"rate_hz must be a multiple of 100 from 8000 on, not {rate_hz}")
        self.rate_hz = rate_hz
        self._np = np
        self._canceller = AudioProcessor(sample_rate=rate_hz, echo_cancellation=True, stream_delay_ms=delay_ms)
        self._frame_bytes = rate_hz * FRAME_MS // 1000 * 2
        self._far = bytearray()
        self._near = bytearray()
        self._far_lock = threading.Lock()
        self._near_lock = threading.Lock()

    def push_far(self, pcm16: bytes) -> None:
        """What is being played, silence included, at the pace of the device."""
        whole = FAR_WAITS_MS_MAX // FRAME_MS * self._frame_bytes
        with self._far_lock:
            del self._far[: max(len(self._far) - whole, 0)]
            self._far += pcm16

    def clean(self, pcm16: bytes) -> bytes:
        """What was recorded, without what was played; whole frames of 10 ms, the rest waits for the next call."""
        with self._near_lock:
            self._near += pcm16
            size = len(self._near) // self._frame_bytes * self._frame_bytes
            near = bytes(self._near[:size])
            del self._near[:size]
            if not near:
                return b""
            near_samples = self._np.frombuffer(near, "<i2")
            far_samples = self._np.frombuffer(self._take_far(size), "<i2")
            return bytes(self._canceller.process(near_samples, far_samples).tobytes())

    def _take_far(self, size: int) -> bytes:
        with self._far_lock:
            far = bytes(self._far[:size])
            del self._far[:size]
        return far + bytes(size - len(far))

    def reset(self) -> None:
        """Forget the room and what is waiting: for another device, or another place."""
        with self._near_lock, self._far_lock:
            self._near.clear()
            self._far.clear()
            self._canceller.reset()
