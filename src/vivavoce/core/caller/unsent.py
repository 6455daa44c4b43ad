"""What is to be sent while there is no connection: kept in order, within limits.

Invariants: events of the application are never dropped, only refused when they come; audio beyond its limit is dropped
from its beginning, for what was said last is what matters. What the caller itself has to send is never refused: there
is no more of it than there are calls that run and items that play.
"""

from __future__ import annotations

from collections import deque

from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import events as ev

from .limits import CallerLimits
from .messages import Ask, ToolEnded

Kept = Ask | ToolEnded


class Unsent:
    """Events that wait for a connection. `bytes_a_second` is that of the session's input format."""

    def __init__(self, limits: CallerLimits) -> None:
        self._limits = limits
        self._kept: deque[Kept] = deque()
        self._audio_bytes = 0
        self._events = 0
        self.dropped_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, asked: Ask, bytes_a_second: int, *, is_own: bool) -> None:
        """Keep it. Raises `LocalProtocolError` where the application has too much kept already."""
        if isinstance(asked.event, ev.InputAudioBufferAppend):
            if asked.event.audio:
                self._kept.append(asked)
                self._audio_bytes += len(asked.event.audio)
                self._shorten(bytes_a_second * self._limits.unsent_audio_ms_max // 1000)
            return
        if not is_own:
            if self._events >= self._limits.unsent_max:
                raise LocalProtocolError(
                    f"there is no connection, and {self._events} events wait for one already; "
                    "connect before sending more"
                )
            self._events += 1
        self._kept.append(asked)

    def answer(self, ended: ToolEnded) -> None:
        """Keep the answer of a tool: with it goes the question what the model says to that."""
        self._kept.append(ended)

    def _shorten(self, bytes_max: int) -> None:
        """Drop the oldest audio until the rest fits."""
        while self._audio_bytes > bytes_max:
            index, audio = next((index, audio) for index, kept in enumerate(self._kept) if (audio := _audio_of(kept)))
            del self._kept[index]
            self._audio_bytes -= len(audio)
            self.dropped_bytes += len(audio)

    def take_all(self) -> list[Kept]:
        """All of it, in order; nothing is kept any more."""
        kept = list(self._kept)
        self._kept.clear()
        self._audio_bytes = self._events = 0
        return kept


def _audio_of(kept: Kept) -> bytes:
    if isinstance(kept, Ask) and isinstance(kept.event, ev.InputAudioBufferAppend):
        return kept.event.audio
    return b""
