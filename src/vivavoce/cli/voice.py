"""What a spoken chat hears and says with: devices, or a file and a virtual loudspeaker where there are none.

    microphone or file → Ear → session → Mouth → loudspeaker

`Ear` and `Mouth` pass sound through and remember what the terminal shows of it: levels, when the user fell silent, what
was really heard and when. All audio is PCM16 mono at 24 kHz on the way in, in the session's format on the way out.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from vivavoce.audio.formats import PCM16_24K, Format
from vivavoce.audio.levels import FLOOR_DB, rms_db
from vivavoce.client.echo import EchoCanceller
from vivavoce.client.loudspeaker import Loudspeaker
from vivavoce.client.microphone import Microphone
from vivavoce.client.player import Heard, Player, VirtualPlayer
from vivavoce.client.sources import chunks
from vivavoce.core.spoken import CHAR_MS, heard
from vivavoce.errors import EngineError, EngineMissing, SettingsError, VivavoceError

from .room import room_noise

STEP_MS = 20
"""Length of a chunk from the microphone, and of what a level is measured over."""
REMEMBERED_MS = 60_000
"""How far back the ear knows how loud it was."""
ITEMS_MAX = 64
"""Items of which the mouth knows what was heard."""
SPEECH_ABOVE_MEAN_DB = 15.0
"""What is this much quieter than the turn as a whole is not speech any more."""
NOISE_MS = 1_000


class Ear:
    """Passes the user's audio on. `level_db` is that of the last chunk; a muted ear hears silence."""

    format = PCM16_24K

    def __init__(self, source: AsyncIterator[bytes], clock: Callable[[], float]) -> None:
        self.level_db = FLOOR_DB
        self.is_muted = False
        self._source, self._clock = source, clock
        self._samples = 0
        self._levels: deque[tuple[int, float, float]] = deque(maxlen=REMEMBERED_MS // STEP_MS)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._source:
            audio = bytes(len(chunk)) if self.is_muted else chunk
            self.level_db = rms_db(audio)
            self._samples += len(audio) // PCM16_24K.sample_bytes
            self._levels.append((PCM16_24K.ms(self._samples), self._clock(), self.level_db))
            yield audio

    def begin_anew(self) -> None:
        """Another session, which counts from 0."""
        self._samples = 0
        self._levels.clear()

    def speech_ended_at(self, start_ms: int, end_ms: int) -> float:
        """When the last loud sound of a turn was recorded, on the clock; positions are the session's."""
        turn = [(at, db) for ms, at, db in self._levels if start_ms < ms <= end_ms]
        if not turn:
            return self._clock()
        power = sum(10 ** (db / 10) for _, db in turn) / len(turn)
        loud = [at for at, db in turn if 10 ** (db / 10) >= power / 10 ** (SPEECH_ABOVE_MEAN_DB / 10)]
        return loud[-1]


class Measured(Protocol):
    """A player that knows its playhead."""

    def play(self, item_id: str, audio: bytes, format: Format) -> None: ...
    def stop(self) -> tuple[Heard, ...]: ...
    @property
    def is_playing(self) -> bool: ...
    def heard(self, item_id: str) -> int: ...


@dataclass(slots=True)
class _Spoken:
    """What is known of an item's sound."""

    format: Format
    samples: int = 0
    levels: list[tuple[int, float]] = field(default_factory=list)
    """Where each piece ends, in samples, and how loud it is."""
    is_stopped: bool = False


class Mouth:
    """A player around a player: knows what of each item was heard, and how loud it is just now."""

    def __init__(self, player: Measured, clock: Callable[[], float]) -> None:
        self._player, self._clock = player, clock
        self._items: OrderedDict[str, _Spoken] = OrderedDict()

    def play(self, item_id: str, audio: bytes, format: Format) -> None:
        """As every player."""
        self._player.play(item_id, audio, format)
        spoken = self._items.setdefault(item_id, _Spoken(format))
        step = format.bytes_of(STEP_MS)
        for start in range(0, len(audio), step):
            piece = audio[start : start + step]
            spoken.samples += len(piece) // format.sample_bytes
            spoken.levels.append((spoken.samples, rms_db(_linear(piece, format))))
        while len(self._items) > ITEMS_MAX:
            self._items.popitem(last=False)

    def stop(self) -> tuple[Heard, ...]:
        """As every player."""
        unfinished = self._player.stop()
        for heard_of in unfinished:
            if (spoken := self._items.get(heard_of.item_id)) is not None:
                spoken.is_stopped = True
        return unfinished

    @property
    def is_playing(self) -> bool:
        """As every player."""
        return self._player.is_playing

    @property
    def level_db(self) -> float:
        """How loud it is where the playhead is."""
        if not self._player.is_playing:
            return FLOOR_DB
        for item_id, spoken in self._items.items():
            at = self._player.heard(item_id)
            if at < spoken.samples:
                return next((db for end, db in spoken.levels if end > at), FLOOR_DB)
        return FLOOR_DB

    def began_at(self, item_id: str) -> float | None:
        """When the first of an item was heard, on the clock, as seen now; None before that."""
        spoken, samples = self._items.get(item_id), self._player.heard(item_id)
        return None if spoken is None or not samples else self._clock() - samples / spoken.format.rate_hz

    def is_stopped(self, item_id: str) -> bool:
        """Whether it was stopped before its end."""
        spoken = self._items.get(item_id)
        return spoken is not None and spoken.is_stopped

    def is_heard_out(self, item_id: str) -> bool:
        """Whether there is nothing left of it to be heard."""
        spoken = self._items.get(item_id)
        return spoken is None or self._player.heard(item_id) >= spoken.samples or not self._player.is_playing

    def words(self, item_id: str, text: str, *, is_whole: bool, samples: int | None = None) -> str:
        """Of what an item says, the words that were heard until now, or in its first `samples`.

        Speech is taken to be even; that of which only a part has come, to last as long as such words do.
        """
        spoken = self._items.get(item_id)
        if spoken is None:
            return ""
        at = self._player.heard(item_id) if samples is None else samples
        total = spoken.samples if is_whole else max(spoken.samples, spoken.format.samples(len(text) * CHAR_MS))
        return heard([(text, total)], at)


def _linear(audio: bytes, format: Format) -> bytes:
    if format.encoding == "pcm16":
        return audio
    from vivavoce.audio import g711

    return g711.decode(audio, format.encoding)


# --- where it comes from, where it goes -------------------------------------------------------------------------------


class FileMicrophone:
    """Speaks a file in real time, and then records an empty room until nobody listens any more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_waited_out = asyncio.Event()
        self._room_ms_max = 0

    async def room(self, ms: int) -> None:
        """The file has been spoken, and since then there was nothing but the room for so long."""
        self._room_ms_max = ms
        await self._is_waited_out.wait()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in chunks(self._sound(), chunk_ms=STEP_MS, pace=1.0):
            yield chunk

    async def _sound(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in chunks(self._path, chunk_ms=STEP_MS):
                yield chunk.ljust(PCM16_24K.bytes_of(STEP_MS), b"\0")
        except (OSError, ValueError) as error:
            raise VivavoceError(f"{self._path}: {getattr(error, 'strerror', None) or error}") from error
        noise, step, room_ms = room_noise(NOISE_MS), PCM16_24K.bytes_of(STEP_MS), 0
        while True:
            for start in range(0, len(noise), step):
                yield noise[start : start + step]
                room_ms += STEP_MS
                if room_ms >= self._room_ms_max:
                    self._is_waited_out.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which devices are asked for."""

    file: Path | None = None
    microphone: int | str | None = None
    loudspeaker: int | str | None = None
    has_headphones: bool = False


@dataclass(slots=True)
class Voice:
    """An open ear and mouth; `file` where a file is spoken, `notes` what the user should know."""

    ear: Ear
    mouth: Mouth
    file: FileMicrophone | None = None
    notes: list[str] = field(default_factory=list)


async def open_voice(wanted: Wanted, stack: AsyncExitStack) -> Voice:
    """Open what is there. Raises what `Microphone` raises where there is none and no file speaks."""
    clock = asyncio.get_running_loop().time
    notes: list[str] = []
    echo = None if wanted.file is not None or wanted.has_headphones else _echo()
    player: Player = await _loudspeaker(wanted, echo, stack, notes)
    mouth = Mouth(cast(Measured, player), clock)
    if wanted.file is not None:
        file = FileMicrophone(wanted.file)
        return Voice(Ear(aiter(file), clock), mouth, file, notes)
    is_open = isinstance(player, Loudspeaker) and not wanted.has_headphones
    gate = player if is_open and echo is None else None
    if gate is not None:
        notes.append("the microphone is off while the answer is played; --headphones, or the extra echo, keep it on")
    microphone = Microphone(wanted.microphone, chunk_ms=STEP_MS, gate=gate, echo=echo if is_open else None)
    await stack.enter_async_context(microphone)
    return Voice(Ear(aiter(cast(Any, microphone)), clock), mouth, None, notes)


def _echo() -> EchoCanceller | None:
    try:
        return EchoCanceller()
    except EngineMissing:
        return None


async def _loudspeaker(wanted: Wanted, echo: EchoCanceller | None, stack: AsyncExitStack, notes: list[str]) -> Player:
    try:
        return await stack.enter_async_context(Loudspeaker(wanted.loudspeaker, echo=echo))
    except (EngineMissing, EngineError, SettingsError) as error:
        if wanted.loudspeaker is not None:
            raise
        notes.append(f"answers are timed, and not heard: {str(error).partition('. ')[0]}")
        return VirtualPlayer()
