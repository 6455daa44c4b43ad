"""A player with a device: what it says was heard is what the device has really played.

    play → Playlist ─device's thread→ Feed → device

The device takes blocks ahead of what is heard; the feed knows when each block will be heard, on the device's own clock.
Everything that both threads touch is behind one lock, which is never held while the device is opened or closed.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from typing import TYPE_CHECKING, Any, Final

from vivavoce.audio.formats import PCM16_24K, Format
from vivavoce.audio.levels import FLOOR_DB, rms_db
from vivavoce.core.caller.messages import Heard
from vivavoce.errors import EngineError

from .devices import (
    Latency,
    Opened,
    SoundLibrary,
    Times,
    choose,
    devices,
    import_numeric,
    open_stream,
    opened_in_thread,
    sound_library,
    start,
)
from .playlist import QUEUED_S_MAX, Playlist
from .sources import Source, chunks

if TYPE_CHECKING:
    from vivavoce.audio.resample import Resampler

    from .echo import EchoCanceller
    from .feed import Feed
    from .player import VirtualPlayer

__all__ = ["Loudspeaker", "devices", "play"]

BLOCK_MS: Final = 10
"""What the device asks for at a time: `stop` is silent within as much, beside what the device holds itself."""
LATENCY_S_MAX: Final = 2.0
"""A device that says a block is heard later than this, or in the past, is not believed: its stated latency counts."""
STALLED_S_MAX: Final = 5.0
"""How much longer than its length `play` waits for the end before it takes the device for dead."""
PLAY_AHEAD_S: Final = 5.0
"""How far `play` reads ahead of what is heard."""


class Loudspeaker:
    """Plays on a sound device.

    `device` is an index or a part of a name (`devices("output")` lists them), None the system's choice; `rate_hz`
    forces the device's rate, else 24 kHz is tried first. `echo` is told what is played. Opened by `open`, `with`,
    `async with`, or by the first `play`, which then blocks for as long as the device takes. At most `queued_s_max`
    seconds wait: what comes beyond is dropped with the rest of its item, and counted in `dropped_samples`.
    Raises `EngineMissing` without sounddevice or PortAudio; `open` raises `SettingsError` for a device that there is
    not and `EngineError` for one that cannot be opened.
    """

    def __init__(
        self,
        device: int | str | None = None,
        *,
        rate_hz: int | None = None,
        latency: Latency = "low",
        echo: EchoCanceller | None = None,
        queued_s_max: float = QUEUED_S_MAX,
        sound: SoundLibrary | None = None,
    ) -> None:
        self._sound = sound or sound_library()
        import_numeric()
        self._wanted = device
        self._rate_hz = rate_hz
        self._latency: Latency = latency
        self._echo = echo
        self._playlist = Playlist(queued_s_max)
        self._lock = threading.Lock()
        self._opened: Opened | None = None
        self._feed: Feed | None = None
        self._far: Resampler | None = None
        self._last_block = b""

    # --- the device ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the device and begin to play silence. Where it is open already, nothing happens."""
        from vivavoce.audio.resample import Resampler

        from .feed import Feed

        if self._is_open:
            return
        self._release()
        opened = open_stream(
            self._sound,
            choose(self._sound, self._wanted, "output"),
            "output",
            rate_hz=self._rate_hz,
            block_ms=BLOCK_MS,
            latency=self._latency,
            callback=self._fill,
        )
        with self._lock:
            self._feed = Feed(self._playlist, opened.rate_hz, self._feed)
            # What is played has nothing above 12 kHz, so that the quickest quality is good enough.
            self._far = None if self._echo is None else Resampler(opened.rate_hz, self._echo.rate_hz, "QQ")
            self._opened = opened
        try:
            start(self._sound, opened, "output")
        except EngineError:
            self._opened = None
            raise

    @property
    def _is_open(self) -> bool:
        return self._opened is not None and self._opened.stream.active

    def close(self) -> None:
        """Stop, and give the device back. A later `play` opens it again."""
        self.stop()
        self._release()

    def _release(self) -> None:
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:  # the device waits for its thread, which may wait for the lock
            opened.stream.abort()
            opened.stream.close()

    def __enter__(self) -> Loudspeaker:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Loudspeaker:
        await opened_in_thread(self.open, self.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def _fill(self, outdata: Any, frames: int, times: Times, status: object) -> None:
        """The device's thread asks for the next block."""
        with self._lock:
            opened, feed = self._opened, self._feed
            if opened is None or feed is None:
                outdata[:] = bytes(len(outdata))
                return
            now_s = opened.stream.time
            ahead_s = times.outputBufferDacTime - now_s
            if not 0 <= ahead_s <= LATENCY_S_MAX:
                ahead_s = opened.stream.latency
            feed.settle(now_s)
            block = self._last_block = feed.block(frames, now_s + ahead_s)
        outdata[:] = spread(block, opened.channels)
        if self._echo is not None and self._far is not None:
            self._echo.push_far(self._far.push(block))

    # --- the player ---------------------------------------------------------------------------------------------------

    def play(self, item_id: str, audio: bytes, format: Format) -> None:
        """Queue more of an item behind what is playing; audio of an item that was stopped is dropped.

        Raises `ValueError` for another format than the item began in, and what `open` raises.
        """
        self.open()
        with self._lock:
            self._playlist.add(item_id, audio, format)

    def stop(self) -> tuple[Heard, ...]:
        """Be silent within a block; the items that were not heard to their end, the one that is being heard first.

        What the device holds already (its latency) still sounds, and is not counted as heard.
        """
        with self._lock:
            self._settle()
            if self._feed is not None:
                return self._feed.stop()
            return tuple(Heard(item_id, 0) for item_id in self._playlist.stop())

    @property
    def is_playing(self) -> bool:
        """Whether there is something left to be heard, and a device that plays it."""
        with self._lock:
            self._settle()
            if self._feed is None or not self._is_open:
                return False
            return self._playlist.head is not None or not self._feed.is_heard_out

    @property
    def remaining_s(self) -> float:
        """Seconds until the last of what there is will have been heard."""
        with self._lock:
            self._settle()
            return self._playlist.queued_s if self._feed is None else self._feed.remaining_s

    @property
    def dropped_samples(self) -> int:
        """Samples for which there was no room."""
        return self._playlist.dropped_samples

    @property
    def level(self) -> float:
        """How loud the block is that was last given to the device, in dBFS."""
        return rms_db(self._last_block) if self._last_block else FLOOR_DB

    def heard(self, item_id: str) -> int:
        """Samples of an item that were heard, also of one that is over; 0 for one that is not known."""
        with self._lock:
            self._settle()
            return 0 if self._feed is None else self._feed.heard(item_id)

    def _settle(self) -> None:
        if self._feed is not None and self._opened is not None and self._is_open:
            self._feed.settle(self._opened.stream.time)


def spread(mono: bytes, channels: int) -> bytes:
    """PCM16 mono on so many channels, the same on each."""
    if channels == 1:
        return mono
    import numpy as np

    return bytes(np.repeat(np.frombuffer(mono, "<i2"), channels).tobytes())


async def play(
    source: Source, *, source_format: Format | None = None, player: Loudspeaker | VirtualPlayer | None = None
) -> None:
    """Play audio to its end: anything that `chunks` takes, on `player` or else on the system's loudspeaker.

    Cancelling it is silence. Raises what `Loudspeaker` and `chunks` raise, and `EngineError` for a device that stalls.
    """
    if player is None:
        async with Loudspeaker() as loudspeaker:
            await play(source, source_format=source_format, player=loudspeaker)
        return
    item_id = f"played_{uuid.uuid4().hex}"
    try:
        async for chunk in chunks(source, source_format=source_format):
            player.play(item_id, chunk, PCM16_24K)
            await _until_remaining(player, PLAY_AHEAD_S)
        await _until_remaining(player, 0.0)
    finally:
        player.stop()


async def _until_remaining(player: Loudspeaker | VirtualPlayer, rest_s: float) -> None:
    now_s = asyncio.get_running_loop().time
    deadline_s = now_s() + max(player.remaining_s - rest_s, 0.0) + STALLED_S_MAX
    while (over_s := player.remaining_s - rest_s) > 0:
        is_over = not player.is_playing and player.remaining_s > rest_s
        if is_over or now_s() > deadline_s:
            raise EngineError(
                "the loudspeaker does not play any more: is the device still there?", code="device_failed"
            )
        await asyncio.sleep(max(over_s, BLOCK_MS / 1000))
