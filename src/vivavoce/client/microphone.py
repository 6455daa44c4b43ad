"""A microphone as an asynchronous stream of PCM16 mono at 24 kHz, in chunks.

    device's thread → 24 kHz → gate or echo cancellation → chunks ─bounded queue→ async for

All work on the audio is done on the device's thread; the event loop only takes chunks. A reader that is too slow loses
the oldest chunks, which are counted: what comes next is what is said now. Invariant: the queue never grows beyond
`QUEUED_MS_MAX`, however long the event loop stands still.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final

from vivavoce.audio.formats import PCM16_24K
from vivavoce.audio.levels import FLOOR_DB, rms_db
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

if TYPE_CHECKING:
    from vivavoce.audio.resample import Resampler

    from .echo import EchoCanceller
    from .player import Player

__all__ = ["Microphone", "devices", "record", "record_as_stream"]

QUEUED_MS_MAX: Final = 2_000
"""Audio that waits for its reader; beyond it the oldest is dropped."""
CHUNK_MS: Final = (20, 100)
"""How short and how long a chunk may be."""
GATE_TAIL_MS: Final = 250
"""How long after the end of playback a gate stays shut, for the room and for what the devices hold."""
RECORD_S_MAX: Final = 3_600.0
"""The longest single recording that `record` takes into memory."""


class Microphone:
    """Records from a sound device, as an async context manager and an async iterator of chunks of `chunk_ms`.

    `device` is an index or a part of a name, None the system's choice. For open loudspeakers: with `gate` chunks are
    silence while that player plays and `gate_tail_ms` longer, so that nobody hears himself and nobody can interrupt;
    with `echo` what is played is cancelled instead, given that the loudspeaker has the same `EchoCanceller`.
    Raises `ValueError` for `chunk_ms`, `EngineMissing` without sounddevice or PortAudio; opening raises `SettingsError`
    for a device that there is not, and `EngineError` for one that cannot be opened.
    """

    format = PCM16_24K

    def __init__(
        self,
        device: int | str | None = None,
        *,
        chunk_ms: int = 20,
        gate: Player | None = None,
        gate_tail_ms: int = GATE_TAIL_MS,
        echo: EchoCanceller | None = None,
        latency: Latency = "low",
        sound: SoundLibrary | None = None,
    ) -> None:
        if not CHUNK_MS[0] <= chunk_ms <= CHUNK_MS[1]:
            raise ValueError(f"chunk_ms must be from {CHUNK_MS[0]} to {CHUNK_MS[1]}, not {chunk_ms}")
        if echo is not None and echo.rate_hz != PCM16_24K.rate_hz:
            raise ValueError(f"echo must be an EchoCanceller at {PCM16_24K.rate_hz} Hz, not {echo.rate_hz} Hz")
        self._sound = sound or sound_library()
        import_numeric()
        self._wanted, self._latency, self._chunk_ms = device, latency, chunk_ms
        self._gate, self._gate_tail, self._shut_for = gate, PCM16_24K.samples(gate_tail_ms), 0
        self._echo = echo
        self._opened: Opened | None = None
        self._resampler: Resampler | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rest = bytearray()
        self._lock = threading.Lock()
        self._chunks: deque[bytes] = deque()
        self._last = b""
        self._has_ended = False
        self._woken = asyncio.Event()
        self.dropped_chunks = 0

    # --- the device ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Microphone:
        if self._opened is not None:
            raise EngineError("this microphone is open already", code="device_failed")
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()  # the last event loop may have been another
        self._chunks.clear()
        self._rest.clear()
        self._has_ended = False
        await opened_in_thread(self._open, self._close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._close)

    def _open(self) -> None:
        from vivavoce.audio.resample import Resampler

        opened = open_stream(
            self._sound,
            choose(self._sound, self._wanted, "input"),
            "input",
            rate_hz=None,
            block_ms=self._chunk_ms,
            latency=self._latency,
            callback=self._record,
            finished=self._end,
        )
        self._resampler = Resampler(opened.rate_hz, PCM16_24K.rate_hz, "LQ")
        self._opened = opened
        try:
            start(self._sound, opened, "input")
        except EngineError:
            self._opened = None
            raise

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.stream.abort()
            opened.stream.close()
        self._end()

    # --- on the device's thread ---------------------------------------------------------------------------------------

    def _record(self, indata: Any, frames: int, times: Times, status: object) -> None:
        opened, resampler = self._opened, self._resampler
        if opened is None or resampler is None:
            return
        audio = self._unechoed(resampler.push(first_channel(bytes(indata), opened.channels)))
        self._rest += audio
        size = PCM16_24K.bytes_of(self._chunk_ms)
        while len(self._rest) >= size:
            self._put(bytes(self._rest[:size]))
            del self._rest[:size]

    def _unechoed(self, audio: bytes) -> bytes:
        if self._gate is not None:
            if self._gate.is_playing:
                self._shut_for = self._gate_tail
                return bytes(len(audio))
            if self._shut_for > 0:
                self._shut_for -= len(audio) // 2
                return bytes(len(audio))
        return audio if self._echo is None else self._echo.clean(audio)

    def _put(self, chunk: bytes) -> None:
        with self._lock:
            self._last = chunk
            self._chunks.append(chunk)
            if len(self._chunks) > QUEUED_MS_MAX // self._chunk_ms:
                self._chunks.popleft()
                self.dropped_chunks += 1
            is_first = len(self._chunks) == 1
        if is_first:  # one wake-up is enough, so that they do not pile up where the event loop stands still
            self._wake()

    def _end(self) -> None:
        self._has_ended = True
        self._wake()

    def _wake(self) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and nobody reads any more
                self._loop.call_soon_threadsafe(self._woken.set)

    # --- on the event loop --------------------------------------------------------------------------------------------

    @property
    def level(self) -> float:
        """How loud the last chunk is, in dBFS; a gate that is shut is silence."""
        with self._lock:
            last = self._last
        return rms_db(last) if last else FLOOR_DB

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next chunk. Ends when the microphone is closed; raises `EngineError` where the device is lost."""
        while True:
            self._woken.clear()
            with self._lock:
                if self._chunks:
                    return self._chunks.popleft()
            if self._has_ended:
                if self._opened is None:
                    raise StopAsyncIteration
                raise EngineError("the microphone does not record any more: is it still there?", code="device_failed")
            if self._loop is None:
                raise EngineError(
                    "open the microphone first: async with Microphone() as microphone", code="device_failed"
                )
            await self._woken.wait()


def first_channel(pcm16: bytes, channels: int) -> bytes:
    """PCM16 mono from so many channels. Microphones that cannot do mono give the same on each, or silence on others."""
    if channels == 1:
        return pcm16
    import numpy as np

    return bytes(np.frombuffer(pcm16, "<i2").reshape(-1, channels)[:, 0].tobytes())


async def record_as_stream(
    device: int | str | None = None, *, chunk_ms: int = 20, sound: SoundLibrary | None = None
) -> AsyncGenerator[bytes, None]:
    """Chunks of PCM16 mono at 24 kHz from the microphone, for as long as they are asked for.

    The device is given back when the iteration is closed. Raises what `Microphone` raises.
    """
    async with Microphone(device, chunk_ms=chunk_ms, sound=sound) as microphone:
        async for chunk in microphone:
            yield chunk


async def record(seconds: float, device: int | str | None = None, *, sound: SoundLibrary | None = None) -> bytes:
    """PCM16 mono at 24 kHz, so many seconds of it. Raises `ValueError` for `seconds`, and what `Microphone` raises."""
    if not 0 < seconds <= RECORD_S_MAX:
        raise ValueError(f"seconds must be more than 0 and at most {RECORD_S_MAX:.0f}, not {seconds}")
    size, audio = PCM16_24K.bytes_of(round(seconds * 1000)), bytearray()
    async with aclosing(record_as_stream(device, sound=sound)) as stream:
        async for chunk in stream:
            audio += chunk
            if len(audio) >= size:
                break
    return bytes(audio[:size])
