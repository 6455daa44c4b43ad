"""What a sound device is given to play, and how much of it has been heard.

    Playlist → conversion to the device's rate → blocks for the device, with the time at which each is heard

One endless line of samples at the device's rate: silence where nothing waits, so that conversion never breaks off. Each
piece of an item is remembered with its place on the line until it has been heard. No thread safety: the loudspeaker has
the lock.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final, NamedTuple

from vivavoce.audio.convert import Converter
from vivavoce.audio.formats import PCM16_24K, Format, pcm16
from vivavoce.core.caller.messages import Heard

from .playlist import ITEMS_MAX, Playlist

_SILENCE: Final = {"pcm16": b"\0\0", "ulaw": b"\xff", "alaw": b"\xd5"}
_ROUNDING: Final = 1e-6  # of a sample: times are in floating point


class _Given(NamedTuple):
    """A piece of an item on its way: `first` is its first sample's number in the item, `at` its place on the line."""

    item_id: str
    first: int
    samples: int
    at: float
    places: float
    """Places on the line that one sample takes."""


class Feed:
    """The way from the playlist to one open device."""

    def __init__(self, playlist: Playlist, rate_hz: int, before: Feed | None = None) -> None:
        """`before` is that of a device which was lost: what was heard on it was heard."""
        self.rate_hz = rate_hz
        self._playlist = playlist
        self._ready = bytearray()
        self._out = 0  # places that the device was given
        self._anchor = (0, 0.0)  # the first place of the last block, and when it is heard
        self._place = 0.0  # up to where all has been heard
        self._given: deque[_Given] = deque()
        self._heard: OrderedDict[str, int] = OrderedDict() if before is None else before._heard
        self._begin(PCM16_24K)

    def _begin(self, format: Format) -> None:
        """From here on audio goes in in this format."""
        self._format = format
        self._base = self._out + len(self._ready) // 2
        self._in = 0  # samples that went in since
        self._converter = Converter(format, pcm16(self.rate_hz), "LQ")

    def block(self, frames: int, heard_at_s: float) -> bytes:
        """The next `frames` places as PCM16 mono; the first of them is heard at `heard_at_s`."""
        self._anchor = (self._out, heard_at_s)
        while len(self._ready) < 2 * frames:
            head = self._playlist.head
            if head is not None and head != self._format:
                self._ready += self._converter.flush()
                self._begin(head)
            missing = frames - len(self._ready) // 2
            self._ready += self._converter.push(self._next(max(missing * self._format.rate_hz // self.rate_hz, 1)))
        audio = bytes(self._ready[: 2 * frames])
        del self._ready[: 2 * frames]
        self._out += frames
        return audio

    def _next(self, wanted: int) -> bytes:
        piece = self._playlist.take(wanted)
        if piece is None:
            self._in += wanted
            return _SILENCE[self._format.encoding] * wanted
        samples = len(piece.audio) // piece.format.sample_bytes
        places = self.rate_hz / self._format.rate_hz
        first = self._playlist.taken(piece.item_id) - samples
        self._given.append(_Given(piece.item_id, first, samples, self._base + self._in * places, places))
        self._in += samples
        return piece.audio

    def settle(self, now_s: float) -> None:
        """Note what has been heard by now; what the device was not given yet has not."""
        first, heard_at_s = self._anchor
        self._place = max(self._place, min(first + (now_s - heard_at_s) * self.rate_hz, self._out))
        while self._given:
            given = self._given[0]
            heard = int((self._place - given.at) / given.places + _ROUNDING)
            if heard <= 0:
                return
            self._note(given.item_id, given.first + min(heard, given.samples))
            if heard < given.samples:
                return
            self._given.popleft()

    def _note(self, item_id: str, samples: int) -> None:
        self._heard[item_id] = samples
        self._heard.move_to_end(item_id)
        if len(self._heard) > ITEMS_MAX:
            self._heard.popitem(last=False)

    def heard(self, item_id: str) -> int:
        """Samples of an item that were heard, as of the last `settle`."""
        return self._heard.get(item_id, 0)

    @property
    def is_heard_out(self) -> bool:
        """Whether all that the device was given of items has been heard."""
        return not self._given

    @property
    def remaining_s(self) -> float:
        """Seconds until the last of what waits, or was given, is heard."""
        ahead_s = 0.0
        if self._given:
            last = self._given[-1]
            ahead_s = max(last.at + last.samples * last.places - self._place, 0.0) / self.rate_hz
        return ahead_s + self._playlist.queued_s

    def stop(self) -> tuple[Heard, ...]:
        """Give nothing but silence from here on; the items that were not heard to their end."""
        cut = dict.fromkeys(given.item_id for given in self._given) | dict.fromkeys(self._playlist.stop())
        self._given.clear()
        self._ready.clear()
        self._begin(self._format)
        return tuple(Heard(item_id, self.heard(item_id)) for item_id in cut)
