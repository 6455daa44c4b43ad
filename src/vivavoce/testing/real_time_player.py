"""A player without a loudspeaker: it plays audio as fast as time passes, and knows where it stands.

What a WebRTC track is to the server, in rehearsals. `now_ms` is whoever's clock it plays by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vivavoce.audio.formats import PCM16_24K, Format
from vivavoce.core.playback import Played
from vivavoce.protocol.events import ResponseOutputAudioDelta

__all__ = ["RealTimePlayer"]


@dataclass(slots=True)
class _Track:
    item_id: str
    begins_at_ms: int
    ends_at_ms: int
    """When what there is of it will have been played."""
    before_ms: int = 0
    """What of it was played before it ran dry."""


class RealTimePlayer:
    """Plays one item after the other, without a gap where there is enough of it."""

    def __init__(self, format: Format = PCM16_24K) -> None:
        self.now_ms: Callable[[], int] = lambda: 0
        self._format = format
        self._tracks: list[_Track] = []

    @property
    def ends_at_ms(self) -> int:
        """When all will have been played."""
        return self._tracks[-1].ends_at_ms if self._tracks else self.now_ms()

    @property
    def is_playing(self) -> bool:
        """Whether there is something left."""
        return self.ends_at_ms > self.now_ms()

    def feed(self, delta: ResponseOutputAudioDelta) -> None:
        """More to play."""
        now, ms = self.now_ms(), self._format.duration_ms(delta.delta)
        last = self._tracks[-1] if self._tracks else None
        if last is None or last.item_id != delta.item_id:
            begin = max(now, self.ends_at_ms)
            self._tracks = [track for track in self._tracks if track.ends_at_ms > now]
            self._tracks.append(_Track(delta.item_id, begin, begin + ms))
            return
        if last.ends_at_ms < now:
            last.before_ms += last.ends_at_ms - last.begins_at_ms
            last.begins_at_ms = last.ends_at_ms = now
        last.ends_at_ms += ms

    def unfinished(self) -> tuple[Played, ...]:
        """The items that are not played to their end."""
        now = self.now_ms()
        return tuple(
            Played(track.item_id, track.before_ms + max(now - track.begins_at_ms, 0))
            for track in self._tracks
            if track.ends_at_ms > now
        )

    def stop(self) -> None:
        """Forget everything that is still to be played."""
        self._tracks.clear()
