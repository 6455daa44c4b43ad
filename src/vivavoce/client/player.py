"""Who plays the assistant's audio and owns the playhead: the one that knows what the user has really heard.

`Player` is all that a session needs of it: play, stop, and whether it plays. `VirtualPlayer` plays in time on a clock,
without a device, for tests, servers and rehearsals; `loudspeaker.py` has the one with a device. Invariant: what `stop`
says was heard of an item is a beginning of it, to the sample, and nothing of a stopped item is played afterwards.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final, Protocol

from vivavoce.audio.formats import Format
from vivavoce.core.caller.messages import Heard

from .playlist import QUEUED_S_MAX, Piece, Playlist

__all__ = ["QUEUED_S_MAX", "Heard", "Player", "VirtualPlayer"]

TICKS_HZ: Final = 24_000
"""The virtual player counts time in ticks of which a sample of every format of the API is a whole number."""
_ROUNDING_TICKS: Final = 1e-3  # a clock in floating point may stand this much before a tick and still mean it


class Player(Protocol):
    """Plays items one after the other. May be asked from any thread."""

    def play(self, item_id: str, audio: bytes, format: Format) -> None:
        """Queue more of an item behind what is playing; audio of an item that was stopped is dropped."""
        ...

    def stop(self) -> tuple[Heard, ...]:
        """Be silent at once; the items that were not played to their end, the one that was playing first."""
        ...

    @property
    def is_playing(self) -> bool:
        """Whether there is something left to be heard."""
        ...


class VirtualPlayer:
    """Plays as fast as time passes, to the sample, and is heard by nobody.

    `clock` gives seconds and never runs backwards; the running event loop's time where it is None. Audio that comes
    after the queue ran dry begins when it comes. At most `queued_s_max` seconds wait: what comes beyond is dropped with
    the rest of its item, and counted in `dropped_samples`. `played` keeps the first `keep_s_max` seconds of what was
    played. Takes formats of which a sample lasts a whole number of 1/24000 s: PCM16 at 24 kHz, G.711.
    """

    def __init__(
        self,
        clock: Callable[[], float] | None = None,
        *,
        queued_s_max: float = QUEUED_S_MAX,
        keep_s_max: float = 0.0,
    ) -> None:
        self._clock = clock
        self._playlist = Playlist(queued_s_max)
        self._lock = threading.Lock()
        self._began_s: float | None = None
        self._at = 0  # the tick up to which all has been played
        self._keep_ticks = round(keep_s_max * TICKS_HZ)
        self._kept: dict[str, bytearray] = {}

    @property
    def dropped_samples(self) -> int:
        """Samples for which there was no room."""
        return self._playlist.dropped_samples

    @property
    def is_playing(self) -> bool:
        """Whether there is something left to be heard."""
        with self._lock:
            self._advance()
            return self._playlist.head is not None

    @property
    def remaining_s(self) -> float:
        """Seconds of audio that are still to be played, to the sample."""
        with self._lock:
            self._advance()
            return self._playlist.queued_s

    @property
    def played(self) -> dict[str, bytes]:
        """What was played so far, by item, each in its own format; up to `keep_s_max` in all."""
        with self._lock:
            self._advance()
            return {item_id: bytes(audio) for item_id, audio in self._kept.items()}

    def play(self, item_id: str, audio: bytes, format: Format) -> None:
        """Queue more of an item behind what is playing; audio of an item that was stopped is dropped.

        `audio` may be cut anywhere. Raises `ValueError` for a format that cannot be played, or not the item's own.
        """
        if TICKS_HZ % format.rate_hz:
            raise ValueError(f"a virtual player takes rates of which {TICKS_HZ} is a multiple, not {format.rate_hz} Hz")
        if self._clock is None:
            self._clock = asyncio.get_running_loop().time
        with self._lock:
            self._advance()
            self._playlist.add(item_id, audio, format)

    def stop(self) -> tuple[Heard, ...]:
        """Be silent at once; the items that were not played to their end, the one that was playing first."""
        with self._lock:
            self._advance()
            return tuple(Heard(item_id, self._playlist.taken(item_id)) for item_id in self._playlist.stop())

    def heard(self, item_id: str) -> int:
        """Samples of an item that have been played, also of one that is over; 0 for one that is not known."""
        with self._lock:
            self._advance()
            return self._playlist.taken(item_id)

    def _advance(self) -> None:
        """Play what was due until now. A sample counts as played when it has been played to its end."""
        if self._clock is None:
            return  # nothing to play has come yet
        now_s = self._clock()
        if self._began_s is None:
            self._began_s = now_s
        now = int((now_s - self._began_s) * TICKS_HZ + _ROUNDING_TICKS)
        while (format := self._playlist.head) is not None:
            sample_ticks = TICKS_HZ // format.rate_hz
            piece = self._playlist.take((now - self._at) // sample_ticks)
            if piece is None:
                return
            ticks = len(piece.audio) // format.sample_bytes * sample_ticks
            self._at += ticks
            self._keep(piece, ticks)
        self._at = now

    def _keep(self, piece: Piece, ticks: int) -> None:
        kept = min(ticks, self._keep_ticks) * piece.format.rate_hz // TICKS_HZ
        self._keep_ticks -= ticks
        if kept > 0:
            self._kept.setdefault(piece.item_id, bytearray()).extend(piece.audio[: kept * piece.format.sample_bytes])
