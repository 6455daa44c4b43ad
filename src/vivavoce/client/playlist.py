"""What is still to be played: items in the order of their first audio, cut anywhere, each in its own format.

The queue inside every player. It counts how many samples of each item have been taken to be played, in samples of the
item's own format. What is taken of an item is always its beginning: where audio had to be dropped, for want of room or
because the item was stopped, nothing later of that item is played either. Its player has the lock: no thread safety.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from vivavoce.audio.formats import Format

QUEUED_S_MAX: Final = 600.0
"""Seconds of audio that wait to be played. What comes beyond is dropped, with the rest of its item, and counted."""
ITEMS_MAX: Final = 1_000
"""Items that wait: a further one is dropped. Items that are remembered: the oldest that do not wait are forgotten."""

_log = logging.getLogger(__name__)


class Piece(NamedTuple):
    """Some of an item's audio, in its format, taken to be played now."""

    item_id: str
    audio: bytes
    format: Format


@dataclass(slots=True)
class _Track:
    format: Format
    waiting: bytearray = field(default_factory=bytearray)
    taken: int = 0
    """Samples taken to be played."""
    is_closed: bool = False
    """Nothing more of this item is to be played than what is waiting."""

    @property
    def samples(self) -> int:
        return len(self.waiting) // self.format.sample_bytes


class Playlist:
    """Audio of several items, waiting in line. `dropped_samples` counts what was refused for want of room."""

    def __init__(self, queued_s_max: float = QUEUED_S_MAX) -> None:
        if queued_s_max <= 0:
            raise ValueError(f"queued_s_max is in seconds and must be positive, not {queued_s_max}")
        self._queued_s_max = queued_s_max
        self._tracks: OrderedDict[str, _Track] = OrderedDict()
        self._line: list[str] = []  # items with something to play
        self.dropped_samples = 0

    @property
    def queued_s(self) -> float:
        """Seconds of audio that wait."""
        return sum(track.samples / track.format.rate_hz for track in map(self._tracks.__getitem__, self._line))

    @property
    def head(self) -> Format | None:
        """The format of the item whose turn it is; None where nothing waits."""
        return self._tracks[self._line[0]].format if self._line else None

    def add(self, item_id: str, audio: bytes, format: Format) -> None:
        """Put audio behind what there is of its item, and a new item behind all others.

        Raises `ValueError` where the item began in another format.
        """
        track = self._track(item_id, format)
        if track.is_closed:
            return
        room_s = self._queued_s_max - self.queued_s if len(self._line) < ITEMS_MAX or track.samples else 0.0
        kept = max(int(room_s * format.rate_hz) * format.sample_bytes - len(track.waiting) % format.sample_bytes, 0)
        if len(audio) > kept:
            self._refuse(item_id, track, (len(audio) - kept) // format.sample_bytes)
        track.waiting += audio[:kept]
        if track.samples and item_id not in self._line:
            self._line.append(item_id)

    def _track(self, item_id: str, format: Format) -> _Track:
        track = self._tracks.get(item_id)
        if track is None:
            self._forget()
            track = self._tracks[item_id] = _Track(format)
        elif track.format != format and not track.is_closed:
            raise ValueError(f"the audio of {item_id} began as {track.format}, and cannot go on as {format}")
        return track

    def _forget(self) -> None:
        done = (item_id for item_id in self._tracks if item_id not in self._line)
        if len(self._tracks) >= ITEMS_MAX and (oldest := next(done, None)) is not None:
            del self._tracks[oldest]

    def _refuse(self, item_id: str, track: _Track, samples: int) -> None:
        track.is_closed = True
        self.dropped_samples += samples
        _log.warning("no room for more of %s: %.0f s of audio are waiting to be played", item_id, self.queued_s)

    def take(self, samples_max: int) -> Piece | None:
        """Audio of the item whose turn it is, at most so many samples, never of two items; None where nothing waits."""
        if not self._line or samples_max <= 0:
            return None
        item_id = self._line[0]
        track = self._tracks[item_id]
        samples = min(samples_max, track.samples)
        size = samples * track.format.sample_bytes
        audio = bytes(track.waiting[:size])
        del track.waiting[:size]
        track.taken += samples
        if not track.samples:
            del self._line[0]
        return Piece(item_id, audio, track.format)

    def taken(self, item_id: str) -> int:
        """Samples of an item that were taken; 0 for one that is not known or was forgotten."""
        track = self._tracks.get(item_id)
        return 0 if track is None else track.taken

    def stop(self) -> tuple[str, ...]:
        """Forget all that waits; the items it was of, in order. Nothing later of any item so far is taken up again."""
        line, self._line = tuple(self._line), []
        for track in self._tracks.values():
            track.is_closed = True
            track.waiting.clear()
        return line
