"""What the application wants to send while there is no connection: kept in order, within limits.

Invariant: events are never dropped, only refused when they come; audio beyond its limit is dropped from its beginning,
for what was said last is what matters.
"""

from __future__ import annotations

from collections import deque

from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import events as ev

from .limits import CallerLimits
from .messages import Ask


class Unsent:
    """Events that wait for a connection. `bytes_a_second` is that of the session's input format."""

    def __init__(self, limits: CallerLimits) -> None:
        self._limits = limits
        self._asks: deque[Ask] = deque()
        self._audio_bytes = 0
        self._events = 0
        self.dropped_bytes = 0

    def __len__(self) -> int:
        return len(self._asks)

    def add(self, asked: Ask, bytes_a_second: int) -> None:
        """Keep it. Raises `LocalProtocolError` where too many are kept already."""
        if isinstance(asked.event, ev.InputAudioBufferAppend):
            self._asks.append(asked)
            self._audio_bytes += len(asked.event.audio)
            self._shorten(bytes_a_second * self._limits.unsent_audio_ms_max // 1000)
            return
        if self._events >= self._limits.unsent_max:
            raise LocalProtocolError(
                f"there is no connection, and {self._events} events wait for one already; connect before sending more"
            )
        self._events += 1
        self._asks.append(asked)

    def _shorten(self, bytes_max: int) -> None:
        """Drop the oldest audio until the rest fits."""
        while self._audio_bytes > bytes_max:
            oldest = next(ask for ask in self._asks if isinstance(ask.event, ev.InputAudioBufferAppend))
            assert isinstance(oldest.event, ev.InputAudioBufferAppend)
            self._asks.remove(oldest)
            self._audio_bytes -= len(oldest.event.audio)
            self.dropped_bytes += len(oldest.event.audio)

    def take_all(self) -> list[Ask]:
        """All of them, in order; none is kept any more."""
        asks = list(self._asks)
        self._asks.clear()
        self._audio_bytes = self._events = 0
        return asks
