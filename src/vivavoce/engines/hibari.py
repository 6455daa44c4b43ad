"""The embedded voice: hibari, 24 kHz, English, each phrase on one thread.

A sentence takes some 60 ms, so a phrase is synthesized whole and handed over in pieces. There is one voice in the
package; the API's other voices are made from it (see `voices`), and a name that is not known is the default voice.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from vivavoce.engines.cores import URGENCY, Cores
from vivavoce.engines.options import read_options
from vivavoce.engines.phrase_cache import BYTES_MAX, PhraseCache
from vivavoce.engines.weights import HIBARI, library, verified
from vivavoce.errors import EngineError

__all__ = ["Hibari", "HibariSettings", "create"]

RATE_HZ = 24_000
PIECE_MS = 100
SILENCE_AMPLITUDE = 0.004
"""What is quieter than this, of full scale, at the ends of a phrase is cut off, but for the margin."""
MARGIN_BEFORE_MS = 10
MARGIN_AFTER_MS = 120
"""Kept behind a phrase at speed 1.0, because the next one follows at once and speech needs the pause."""
PEAK_MAX = 0.9
SPEED_MIN, SPEED_MAX = 0.25, 2.0
PHONEMES_MAX = 400
"""Some 30 s of speech in one run of the network; its memory grows with this, and so does the wait for a first sound."""
PHONEMES_SHARE_MIN = 0.5
"""Slow speech lasts longer, so fewer go into a run; but no fewer than this share, for a cut is heard as a pause."""

SLOW_MAX = 0.75
"""Up to this speed the network itself speaks slower, which sounds better than what is stretched. Above it, and faster
than usual, it misses the wanted length by up to a tenth and swallows sounds: what it says at 1.0 is stretched."""


class HibariSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`workers`: phrases that are synthesized at once, each on one thread. `cache_bytes`: audio of phrases that is kept
    in case that they are said again; 0 keeps none."""

    workers: Annotated[int, Meta(ge=1)] = 2
    cache_bytes: Annotated[int, Meta(ge=0)] = BYTES_MAX


class Hibari:
    """The synthesizer. Nothing is loaded before `warm_up`."""

    rate_hz = RATE_HZ

    def __init__(self, settings: HibariSettings | None = None) -> None:
        settings = settings or HibariSettings()
        self._cache = PhraseCache(settings.cache_bytes)
        self._voice: Any = None
        self._synth: Any = None
        self._run_options: Any = None
        self._numpy: Any = None
        self._voices: Any = None
        self._loading = threading.Lock()
        self._workers = settings.workers
        self.share(Cores())

    def share(self, cores: Cores) -> None:
        """Compute on these cores, which others use too."""
        self._threads = cores.share("hibari", self._workers)

    async def warm_up(self) -> None:
        """Load, and speak once. Raises `EngineMissing`, or `EngineError` where the voice cannot be used."""
        await self._threads.run(URGENCY.get(), self._load)

    async def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[bytes]:
        """PCM16 in pieces of 100 ms; nothing for a text without a word in it. Left early, it stops within a step."""
        if self._voice is None:
            raise EngineError("hibari: not warmed up", code="engine_not_ready")
        async with aclosing(self._cache.spoken(voice, speed, text, lambda: self._fresh(text, voice, speed))) as pieces:
            async for piece in pieces:
                yield piece

    async def _fresh(self, text: str, voice: str, speed: float) -> AsyncGenerator[bytes]:
        size = RATE_HZ * PIECE_MS // 1000 * 2
        left = self._run_options()  # of the network, which looks at them between its layers
        try:
            for sentence in await self._threads.run(URGENCY.get(), self._phonemes, text, speed):
                audio = await self._threads.run(URGENCY.get(), self._speech, sentence, voice, speed, left)
                for start in range(0, len(audio), size):
                    yield audio[start : start + size]
        finally:
            left.terminate = True

    async def close(self) -> None:
        """Free the voice, after what is being spoken."""
        self._voice = None
        await self._threads.close()

    def _load(self) -> None:
        with self._loading:
            if self._voice is not None:
                return
            path = verified(HIBARI)
            hibari, self._numpy = library("hibari"), library("numpy")
            self._run_options = library("onnxruntime").RunOptions
            self._voices = library("vivavoce.engines.voices")
            try:
                loaded = hibari.Hibari(model=str(path), threads=1)
                self._synth = hibari.dsp.synth
                self._render(loaded, loaded.phonemize("Ready to speak.")[0], "", 1.0, self._run_options())
            except Exception as error:  # onnxruntime has an exception class for each status code
                raise EngineError(f"hibari: {path} cannot be used: {error}", code="engine_load_failed") from error
            self._voice = loaded

    def _phonemes(self, text: str, speed: float) -> list[str]:
        voice = self._voice
        if voice is None or not any(char.isalnum() for char in text):
            return []
        most = round(PHONEMES_MAX * min(max(speed, PHONEMES_SHARE_MIN), 1.0))
        try:
            return [part for sentence in voice.phonemize(text) for part in short_enough(str(sentence), most)]
        except Exception as error:
            raise EngineError(f"hibari: cannot read {text[:80]!r}: {error}", code="synthesis_failed") from error

    def _speech(self, phonemes: str, voice: str, speed: float, left: Any) -> bytes:
        loaded = self._voice
        if loaded is None:
            return b""
        try:
            return self._render(loaded, phonemes, voice, speed, left)
        except Exception as error:
            if left.terminate:
                return b""  # that is how the network ends then
            raise EngineError(f"hibari: synthesis failed: {error}", code="synthesis_failed") from error

    def _render(self, loaded: Any, phonemes: str, voice: str, speed: float, left: Any) -> bytes:
        """Nothing once nobody wants it: that is looked at between the steps, and within the longest."""
        numpy = self._numpy
        ids = loaded.ids(phonemes)
        if len(ids) < 3 or left.terminate:
            return b""
        shape = self._voices.shape_of(voice)
        pace = min(max(speed * shape.pace, SPEED_MIN), SPEED_MAX)
        *spectrum, f0 = self._voices.coloured(self._spoken(loaded, ids, pace if pace <= SLOW_MAX else 1.0, left), shape)
        if left.terminate:
            return b""
        audio = self._synth(*spectrum, f0, numpy.random.default_rng(len(ids)))
        stretch, lift = 1.0 / pace, 1.0
        if left.terminate:
            return b""
        if pace <= SLOW_MAX:  # almost right by itself, but for a voice that falls as it slows down
            usual_f0 = self._spoken(loaded, ids, 1.0, left)[-1]
            stretch *= len(usual_f0) / len(f0)
            lift = self._voices.middle_hz(usual_f0) / self._voices.middle_hz(f0)
        audio = self._voices.reshaped(audio, f0, shape, stretch, lift)
        return bytes(self._level(self._trimmed(audio, pace)).tobytes())

    def _spoken(self, loaded: Any, ids: list[int], speed: float, left: Any) -> tuple[Any, ...]:
        """What the network gives: five parts of the spectrum, and F0, a column per 12.5 ms."""
        numpy = self._numpy
        given = {"ids": numpy.asarray([ids], numpy.int64), "speed": numpy.asarray([speed], numpy.float32)}
        return tuple(output[0] for output in loaded.sess.run(None, given, left))

    def _trimmed(self, audio: Any, pace: float) -> Any:
        loud = self._numpy.flatnonzero(self._numpy.abs(audio) > SILENCE_AMPLITUDE)
        if not len(loud):
            return audio[:0]
        before, after = (round(RATE_HZ * margin / 1000 / pace) for margin in (MARGIN_BEFORE_MS, MARGIN_AFTER_MS))
        return audio[max(int(loud[0]) - before, 0) : int(loud[-1]) + after]

    def _level(self, audio: Any) -> Any:
        peak = float(self._numpy.abs(audio).max(initial=0.0))
        scale = 32_767.0 * min(1.0, PEAK_MAX / peak if peak else 1.0)
        return (audio * scale).astype("<i2")


def short_enough(phonemes: str, most: int = PHONEMES_MAX) -> Iterator[str]:
    """Parts of at most `most`, cut between words where there are any: hibari cuts at punctuation only."""
    while len(phonemes) > most:
        space = phonemes.rfind(" ", 1, most + 1)
        cut = space if space > 0 else most
        yield phonemes[:cut]
        phonemes = phonemes[cut:].lstrip(" ")
    yield phonemes


def create(options: Mapping[str, object]) -> Hibari:
    """The engine from its options: see `HibariSettings`. Raises `SettingsError`."""
    return Hibari(read_options("hibari", HibariSettings, options))
