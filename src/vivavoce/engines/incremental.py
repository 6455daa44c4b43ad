"""Hearing a turn while it is spoken: drafts of the speech so far, so that at its end little is left to do.

Audio is pushed as it comes; voice activity and level say when a draft is worth its cost: at a pause, because the turn
may be over, and otherwise now and then. Each draft is the guess of the next; words on which three drafts agree are
told, the others as what may follow. `settle` gives the text of everything pushed: at a pause that was seen, the draft
is there already. Invariant: what was told is the begin of what `settle` gives.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Protocol

from vivavoce.audio.levels import rms_db
from vivavoce.engines import Told, TranscriptionHints, VoiceActivityStream
from vivavoce.engines.cores import ThreadShare, Urgency
from vivavoce.engines.stretches import SPEECH_BEGINS, SPEECH_ENDS, STRETCH_MS_MIN, Stretch, find_stretches
from vivavoce.errors import EngineError

__all__ = ["Ear", "IncrementalListening", "Sketch", "Sound", "agreed"]

LEVELS_MAX = 96
"""Frames, three seconds of them, whose levels tell the voice from what is behind it."""
QUIET_BELOW_VOICE_DB = 35.0
QUIET_ABOVE_NOISE_DB = 6.0
"""As much as a frame that is so far below the voice, or so little above the quietest, is silence whatever voice
activity says: that falls 100 ms late, half of it can be saved."""
VOICE_ABOVE_QUIET_DB = 25.0
"""Where the noise is nearer to the voice than this, levels say nothing."""
VOICE_FRAMES = 8
"""The level that so many frames reach is the voice's: something that falls is over sooner."""
LEVELS_PER_FRAME = 3
DRAFT_SPEECH_MS = 600
"""Where nobody pauses, a draft is made after so much new speech …"""
DRAFT_SPEECH_IDLE_MS = 400
"""… or so much, while nobody else computes …"""
DRAFT_SPEECH_SHARE = 8
"""… and one part of so many of what was said before: a longer stretch costs more each time."""
UNTOLD_WORDS = 2
"""The last words on which drafts agree are not told yet: what follows may change them."""
TURN_MS_MAX = 30 * 60_000
"""What is pushed beyond it is not heard."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """A draft of one stretch: its tokens and its text; empty where nothing was said.

    One that is not `is_sure` may be better, or may be something at all, with `is_final`.
    """

    tokens: tuple[int, ...]
    text: str
    is_sure: bool = True


class Care(IntEnum):
    """How much trouble a draft is worth."""

    SPOKEN = 0
    """The speech goes on, and so does what is written down of it."""
    PAUSE = 1
    """This may be all: an answer is prepared from it. Where the quick reading is unsure, search for a likelier one."""
    END = 2
    """This is all. In doubt, decode again without sparing anything."""


class Ear(Protocol):
    """What reads a stretch of speech; runs in a thread."""

    def sketch(
        self,
        audio: bytes,
        speech_s: float,
        hints: TranscriptionHints,
        known: Sequence[int],
        guess: Sequence[int],
        cancelled: threading.Event,
        care: Care,
    ) -> Sketch:
        """The speech in PCM16, which begins with the tokens `known` and probably goes on as `guess` does."""
        ...

    def starts_word(self, token: int) -> bool:
        """Whether `token` begins a new word."""
        ...

    def text(self, tokens: Sequence[int]) -> str:
        """What the tokens say."""
        ...


@dataclass(slots=True)
class _Live:
    """What is known of the stretch that is being spoken."""

    start_ms: int
    sketch: Sketch | None = None
    speech_ms: int = 0
    """How much voice the sketch has heard."""
    likely: tuple[int, ...] = ()
    """On what the sketch and the one before agree."""
    told: tuple[int, ...] = ()

    def covers(self, stretch: Stretch, *, is_final: bool) -> bool:
        """Whether the sketch has heard all that was said in `stretch`, and need not be better."""
        sketch = self.sketch
        return sketch is not None and self.speech_ms == stretch.speech_ms and (sketch.is_sure or not is_final)


@dataclass(frozen=True, slots=True)
class _Reading:
    """A draft that is being made, or waits for a core."""

    task: asyncio.Task[Sketch]
    stopped: threading.Event
    is_urgent: bool
    is_final: bool
    speech_ms: int

    def stop(self) -> None:
        """At once where it waits; else its thread ends soon, and nobody waits for that."""
        self.stopped.set()
        if not self.task.cancel() and not self.task.cancelled():
            self.task.exception()  # nobody asks for it any more


@dataclass(slots=True)
class Sound:
    """The audio so far and where in it somebody speaks."""

    activity: VoiceActivityStream
    frame_ms: int
    bytes_per_ms: int
    audio: bytearray = field(default_factory=bytearray)
    probabilities: list[float] = field(default_factory=list)
    """Of speech, one for each frame."""
    levels: deque[float] = field(default_factory=lambda: deque(maxlen=LEVELS_MAX))
    is_quiet: bool = False
    """Whether the turn may be over: as much as one frame without speech is enough to draft what was said."""

    def push(self, audio: bytes) -> bool:
        """Whether there is news: a frame was completed, or a silence has begun."""
        was_quiet = self.is_quiet
        room = TURN_MS_MAX * self.bytes_per_ms - len(self.audio)
        self.audio += audio[: max(room, 0)]
        found = self.activity.push(audio[: max(room, 0)])
        for probability in found:
            level = self._level(len(self.probabilities) * self._frame_bytes)
            self.levels.append(level)
            self.probabilities.append(probability if self._is_loud(level) else 0.0)
        self.is_quiet = self._ends_quiet()
        return bool(found) or (self.is_quiet and not was_quiet)

    @property
    def _frame_bytes(self) -> int:
        return self.frame_ms * self.bytes_per_ms

    def _level(self, begin: int) -> float:
        """Of as much as a frame: that of its loudest part."""
        part = self._frame_bytes // LEVELS_PER_FRAME // 2 * 2
        starts = range(begin, begin + part * LEVELS_PER_FRAME, part)
        return max(rms_db(bytes(self.audio[start : start + part])) for start in starts)

    def _is_loud(self, level: float) -> bool:
        """Whether somebody may be speaking at this level; True where that cannot be told."""
        if len(self.levels) < VOICE_FRAMES:
            return True
        voice = sorted(self.levels)[-VOICE_FRAMES]
        quiet = max(voice - QUIET_BELOW_VOICE_DB, min(self.levels) + QUIET_ABOVE_NOISE_DB)
        return level >= quiet or quiet > voice - VOICE_ABOVE_QUIET_DB

    def _ends_quiet(self) -> bool:
        """By the last frame, or by the level of the last audio, wherever frames begin: of what is not a whole frame
        yet, nothing is loud then."""
        if not self.probabilities or self.probabilities[-1] < SPEECH_ENDS:
            return bool(self.probabilities)
        return not self._is_loud(self._level(len(self.audio) // 2 * 2 - self._frame_bytes))

    def part(self, stretch: Stretch) -> bytes:
        return bytes(self.audio[stretch.start_ms * self.bytes_per_ms : stretch.end_ms * self.bytes_per_ms])


class IncrementalListening:
    """One open turn. Used from the event loop; drafts are made in `threads`, at most one at a time."""

    def __init__(
        self,
        ear: Ear,
        threads: ThreadShare,
        sound: Sound,
        hints: TranscriptionHints,
        told: Told | None,
    ) -> None:
        self._ear, self._threads, self._sound, self._hints, self._told = ear, threads, sound, hints, told
        self._done: dict[int, str] = {}
        self._live: _Live | None = None
        self._drafted_ms = 0
        self._job: asyncio.Task[None] | None = None
        self._drafting = asyncio.Lock()
        self._wanted = False
        self._is_cancelled = False
        self._in_thread: _Reading | None = None
        self._told_any = False
        self._guess = ""

    def push(self, audio: bytes) -> None:
        """Take PCM16 mono that follows; returns at once."""
        if self._is_cancelled or not self._sound.push(audio) or not self._is_worth_a_draft():
            return
        self._wanted = True
        if self._sound.is_quiet:
            self._make_way()
        if self._job is None or self._job.done():
            self._job = asyncio.get_running_loop().create_task(self._drafts())

    async def settle(self) -> str:
        """The text of everything pushed; empty where nobody spoke. More may be pushed afterwards, and settled again.

        Raises `EngineError` where the model fails.
        """
        self._wanted = False
        self._make_way()
        await self._draft(is_final=True)
        texts = [self._done[start] for start in sorted(self._done)]
        if self._live is not None and self._live.sketch is not None:
            texts.append(self._live.sketch.text)
        return "".join(texts).strip()

    def cancel(self) -> None:
        """Give the turn up: what is being drafted stops soon, and nothing more is told."""
        self._is_cancelled = True
        self._wanted = False
        if self._in_thread is not None:
            self._in_thread.stop()

    async def idle(self) -> None:
        """Wait until every draft that was worth making is made."""
        while self._job is not None and not self._job.done():
            await asyncio.wait([self._job])

    def _make_way(self) -> None:
        """Stop a draft that was begun before all was said: now one of the whole is wanted, and soon."""
        reading, sound = self._in_thread, self._sound
        if reading is None or reading.is_final:
            return
        stretches = find_stretches(sound.probabilities, sound.frame_ms)
        said_ms = stretches[-1].speech_ms if stretches else 0
        if not reading.is_urgent or reading.speech_ms != said_ms:
            reading.stop()

    def _is_worth_a_draft(self) -> bool:
        sound = self._sound
        new = sum(p >= SPEECH_BEGINS for p in sound.probabilities[self._drafted_ms // sound.frame_ms :])
        old_ms = self._live.speech_ms if self._live else 0
        often = DRAFT_SPEECH_IDLE_MS if self._threads.cores_are_idle else DRAFT_SPEECH_MS
        return new * sound.frame_ms >= often + old_ms // DRAFT_SPEECH_SHARE or (new > 0 and sound.is_quiet)

    async def _drafts(self) -> None:
        while self._wanted and not self._is_cancelled:
            self._wanted = False
            # A draft that fails is not missed: `settle` tries again, and says why.
            with suppress(EngineError):
                await self._draft()

    async def _draft(self, *, is_final: bool = False) -> None:
        """Bring the drafts up to what was pushed. `is_final`: whatever it takes, since no better one will follow."""
        async with self._drafting:
            sound = self._sound
            is_urgent = is_final or sound.is_quiet
            self._drafted_ms = len(sound.probabilities) * sound.frame_ms
            stretches = find_stretches(sound.probabilities, sound.frame_ms)
            for stretch in stretches[:-1]:
                await self._complete(stretch, is_urgent)
            if stretches and not self._is_cancelled:
                await self._sketch_live(stretches[-1], is_urgent, is_final)

    async def _complete(self, stretch: Stretch, is_urgent: bool) -> None:
        """Write down a stretch behind which another has begun: once."""
        if stretch.start_ms in self._done or self._is_cancelled:
            return
        live = self._live_of(stretch)
        sketch = live.sketch
        if sketch is None or not live.covers(stretch, is_final=True):
            sketch = await self._sketched(stretch, live, is_urgent=is_urgent, is_final=True)
        if sketch is None:
            return
        self._done[stretch.start_ms] = sketch.text
        self._tell(sketch.tokens[len(live.told) :])
        self._live = None

    async def _sketch_live(self, stretch: Stretch, is_urgent: bool, is_final: bool) -> None:
        live = self._live_of(stretch)
        if live.covers(stretch, is_final=is_final):
            return
        before = live.sketch
        sketch = await self._sketched(stretch, live, is_urgent=is_urgent, is_final=is_final)
        if sketch is None:
            return
        if is_final:
            sketch = replace(sketch, is_sure=True)
        live.sketch, live.speech_ms = sketch, stretch.speech_ms
        count = known = len(live.told)
        # A stretch that becomes too long is cut, not before this length; what was told must lie in front of the cut.
        if before is not None and stretch.end_ms - stretch.start_ms <= STRETCH_MS_MIN:
            count = max(known, self._agreed(live.likely, sketch.tokens))
            live.likely = sketch.tokens[: self._agreed(before.tokens, sketch.tokens)]
        # The last word may still be half of one, unless nobody speaks any more.
        end = len(sketch.tokens) if is_urgent else self._last_word(sketch.tokens)
        self._tell(sketch.tokens[known:count], sketch.tokens[count : max(count, end)])
        if self._told is not None:
            live.told = sketch.tokens[:count]

    def _agreed(self, before: Sequence[int], now: Sequence[int]) -> int:
        return agreed(before, now, self._ear.starts_word, UNTOLD_WORDS)

    def _last_word(self, tokens: Sequence[int]) -> int:
        """Where the last word of them begins."""
        return max((index for index, token in enumerate(tokens) if self._ear.starts_word(token)), default=0)

    async def _sketched(self, stretch: Stretch, live: _Live, *, is_urgent: bool, is_final: bool) -> Sketch | None:
        """None where it was stopped."""
        guess = live.sketch.tokens[len(live.told) :] if live.sketch else ()
        stopped = threading.Event()
        urgency = Urgency.NOW if is_urgent else Urgency.SPARE
        care = Care.END if is_final else Care.PAUSE if is_urgent else Care.SPOKEN
        part, speech_s = self._sound.part(stretch), stretch.speech_ms / 1000
        call = self._threads.run(
            urgency, self._ear.sketch, part, speech_s, self._hints, live.told, guess, stopped, care
        )
        self._in_thread = reading = _Reading(
            asyncio.ensure_future(call), stopped, is_urgent, is_final, stretch.speech_ms
        )
        try:
            await asyncio.wait([reading.task])
            return None if stopped.is_set() else reading.task.result()
        finally:
            # Where the caller was cancelled, the thread must not go on for nobody.
            reading.stop()
            self._in_thread = None

    def _live_of(self, stretch: Stretch) -> _Live:
        if self._live is None or self._live.start_ms != stretch.start_ms:
            self._live = _Live(stretch.start_ms)
        return self._live

    def _tell(self, tokens: Sequence[int], guessed: Sequence[int] = ()) -> None:
        if self._told is None or self._is_cancelled:
            return
        words, guess = self._ear.text(tokens), self._ear.text(guessed)
        if not self._told_any:
            words, guess = (words.lstrip(), guess) if words else ("", guess.lstrip())
        if words or guess != self._guess:
            self._told(words, guess)
        self._guess = guess
        self._told_any = self._told_any or bool(words)


def agreed(before: Sequence[int], now: Sequence[int], starts_word: Callable[[int], bool], untold_words: int) -> int:
    """How many tokens of `now` are whole words that `before` has too, the last `untold_words` of `now` left out."""
    common = 0
    while common < min(len(before), len(now)) and before[common] == now[common]:
        common += 1
    starts = [index for index, token in enumerate(now) if starts_word(token)]
    ends = [*starts[1:], len(now)][: max(0, len(starts) - untold_words)]
    return max((end for end in ends if end <= common), default=0)
