"""Speech recognition by Whisper through CTranslate2: cheap because the encoder sees little, sound because of a guard.

Whisper pads every utterance to 30 s, and its encoder's cost falls with less; but a decoder that sees an encoding cut
short may repeat itself. So only the utterance and a second of silence are encoded, and the encoding goes on with that
of silence, computed once at the start. What still looks wrong (`suspicion`) is decoded again with the full context.
Audio over 28 s is cut at quiet places; what is all but silent is not decoded at all.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec

from vivavoce.engines import TranscriptionHints
from vivavoce.engines.options import read_options
from vivavoce.engines.weights import WHISPER, existing, library, verified
from vivavoce.errors import EngineError

__all__ = ["Whisper", "WhisperSettings", "create", "suspicion", "without_repeated_tail"]

RATE_HZ = 16_000
COLUMNS_PER_S = 100
"""Of the log-mel spectrum; the encoder makes one position of two."""
WINDOW_COLUMNS = 3_000
SILENCE_S = 1.0
"""Encoded behind the utterance."""
CONTEXT_S = 15.0
"""What the decoder sees at least, the rest of it the encoding of silence."""
PIECE_S_MAX = 28.0
"""Longer audio is cut, at the quietest place of the last `CUT_SEARCH_S` of a piece."""
CUT_SEARCH_S = 6.0
STRETCH_SAMPLES = 480
"""Loudness is judged over 30 ms."""
QUIET_RMS = 0.002
"""Audio of which no stretch is louder than this, of full scale, holds no speech."""
NO_SPEECH_MAX = 0.6
"""Above this, and unsure of its words, the model has heard no speech."""
UNSURE_SCORE = -0.8
WORDS_PER_S_MAX = 4.6
WORDS_PER_S_MAX_WITH_PAIR = 3.2
"""With a pair of words that comes twice."""
SCORE_MIN = -1.0
TOKENS_PER_S = 8
TOKENS_EXTRA = 12
ALONE_S = 2.0
"""Shorter utterances may say one word three times; longer ones that repeat are suspicious."""

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


class WhisperSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model`: folder of another Whisper model for CTranslate2; None is the packaged tiny.en.

    `workers`: utterances that are decoded at once, each on `threads` threads. `beam_size` 1 is a little faster.
    """

    model: str | None = None
    threads: int = 1
    workers: int = 2
    compute_type: str = "int8"
    beam_size: int = 5


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the model made of a piece of audio. `score` is the mean log probability of a token."""

    text: str
    score: float
    no_speech: float
    is_cut: bool
    """Whether the length limit ended it."""


# --- the guard --------------------------------------------------------------------------------------------------------


def suspicion(decoded: Decoded, seconds: float) -> int:
    """How many signs there are that the text is a loop or an invention; 0 is a text to trust."""
    words = _words(decoded.text)
    rate = len(words) / max(seconds, 0.1)
    signs = (
        _repeats(words, 3),
        _repeats(words, 2) and rate > WORDS_PER_S_MAX_WITH_PAIR,
        rate > WORDS_PER_S_MAX and len(words) > 3,
        decoded.is_cut,
        decoded.score < SCORE_MIN,
    )
    return sum(signs)


def without_repeated_tail(text: str) -> str:
    """The text with an exact repetition at its end taken off: what a loop leaves that nothing else caught."""
    words = text.split()
    for size in range(len(words) // 2, 2, -1):
        while len(words) >= 2 * size and _plain(words[-size:]) == _plain(words[-2 * size : -size]):
            del words[-size:]
    return " ".join(words)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _plain(words: list[str]) -> list[str]:
    return [word.strip(".,;:!?").lower() for word in words]


def _repeats(words: list[str], size: int) -> bool:
    seen: set[tuple[str, ...]] = set()
    for start in range(len(words) - size + 1):
        run = tuple(words[start : start + size])
        if run in seen:
            return True
        seen.add(run)
    return False


# --- the engine -------------------------------------------------------------------------------------------------------


class Whisper:
    """The transcriber. Nothing is loaded before `warm_up`."""

    rate_hz = RATE_HZ

    def __init__(self, settings: WhisperSettings | None = None) -> None:
        self._settings = settings or WhisperSettings()
        self._folder = existing(self._settings.model, "whisper", "model") if self._settings.model else None
        self._model: _Model | None = None
        self._loading = threading.Lock()
        self._threads = ThreadPoolExecutor(self._settings.workers, thread_name_prefix="whisper")

    async def warm_up(self) -> None:
        """Load, and decode once. Raises `EngineMissing`, or `EngineError` where the model cannot be used."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._load)

    async def transcribe(self, audio: bytes, hints: TranscriptionHints) -> AsyncIterator[str]:
        """The transcript, for long audio piece by piece; nothing where nothing was said."""
        model = self._model
        if model is None:
            raise EngineError("whisper: not warmed up", code="engine_not_ready")
        loop = asyncio.get_running_loop()
        is_first = True
        for piece in await loop.run_in_executor(self._threads, model.pieces, audio):
            try:
                text = await loop.run_in_executor(self._threads, model.text, piece, hints)
            except EngineError:
                raise
            except Exception as error:
                raise EngineError(f"whisper: {error}", code="transcription_failed") from error
            if text:
                yield text if is_first else f" {text}"
                is_first = False

    async def close(self) -> None:
        """Free the model, after what is being decoded."""
        self._model = None
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    def _load(self) -> None:
        with self._loading:
            if self._model is not None:
                return
            folder = self._folder or verified(*WHISPER).parent
            try:
                model = _Model(str(folder), self._settings)
            except (RuntimeError, ValueError, OSError) as error:
                raise EngineError(f"whisper: {folder} cannot be used: {error}", code="engine_load_failed") from error
            self._model = model


class _Model:
    """The loaded model; every method runs in a thread."""

    def __init__(self, folder: str, settings: WhisperSettings) -> None:
        self._numpy: Any = library("numpy")
        self._log_mel: Any = library("vivavoce.engines.logmel").log_mel
        self._ctranslate2 = library("ctranslate2")
        self._settings = settings
        self._whisper: Any = self._ctranslate2.models.Whisper(
            folder,
            device="cpu",
            compute_type=settings.compute_type,
            intra_threads=settings.threads,
            inter_threads=settings.workers,
        )
        self._tokens: Any = library("tokenizers").Tokenizer.from_file(f"{folder}/tokenizer.json")
        self._silence: Any = None
        self._silence = self._encode(self._burst(), WINDOW_COLUMNS)
        self._decode(self._burst(), TranscriptionHints(), context_s=CONTEXT_S)

    def pieces(self, audio: bytes) -> list[Any]:
        """The audio as float samples, in pieces that the model can take."""
        samples = self._numpy.frombuffer(audio, "<i2", len(audio) // 2).astype(self._numpy.float32) / 32_768.0
        return list(self._cut(samples))

    def text(self, samples: Any, hints: TranscriptionHints) -> str:
        """What was said in one piece."""
        if self._is_quiet(samples):
            return ""
        seconds = len(samples) / RATE_HZ
        best = self._decode(samples, hints, context_s=CONTEXT_S)
        if (signs := suspicion(best, seconds)) > 0:
            again = self._decode(samples, hints, context_s=WINDOW_COLUMNS / COLUMNS_PER_S)
            if suspicion(again, seconds) <= signs:
                best = again
        if best.no_speech > NO_SPEECH_MAX and best.score < UNSURE_SCORE:
            return ""
        return without_repeated_tail(best.text)

    # --- sound --------------------------------------------------------------------------------------------------------

    def _burst(self) -> Any:
        """Two seconds of faint noise: something for the first run to hear, the same every time."""
        return self._numpy.random.default_rng(1).standard_normal(2 * RATE_HZ).astype(self._numpy.float32) * 0.05

    def _loudness(self, samples: Any) -> Any:
        whole = len(samples) // STRETCH_SAMPLES * STRETCH_SAMPLES
        stretches = samples[:whole].reshape(-1, STRETCH_SAMPLES)
        return self._numpy.sqrt((stretches**2).mean(axis=1))

    def _is_quiet(self, samples: Any) -> bool:
        return len(samples) < STRETCH_SAMPLES or float(self._loudness(samples).max()) < QUIET_RMS

    def _cut(self, samples: Any) -> Iterator[Any]:
        longest, search = int(PIECE_S_MAX * RATE_HZ), int(CUT_SEARCH_S * RATE_HZ)
        while len(samples) > longest:
            quietest = int(self._loudness(samples[longest - search : longest]).argmin())
            end = longest - search + quietest * STRETCH_SAMPLES + STRETCH_SAMPLES // 2
            yield samples[:end]
            samples = samples[end:]
        yield samples

    # --- the network --------------------------------------------------------------------------------------------------

    def _encode(self, samples: Any, columns: int) -> Any:
        features = self._log_mel(samples, columns, self._bands)[None]
        view = self._ctranslate2.StorageView.from_array(self._numpy.ascontiguousarray(features))
        return self._numpy.array(self._whisper.encode(view, to_cpu=True))

    @property
    def _bands(self) -> int:
        return int(self._whisper.n_mels)

    def _decode(self, samples: Any, hints: TranscriptionHints, *, context_s: float) -> Decoded:
        seconds = len(samples) / RATE_HZ
        columns = min(WINDOW_COLUMNS, int((seconds + SILENCE_S) * COLUMNS_PER_S) // 2 * 2)
        encoded = self._encode(samples, columns)
        positions = min(max(encoded.shape[1], int(context_s * COLUMNS_PER_S / 2)), self._silence.shape[1])
        encoded = self._numpy.concatenate([encoded, self._silence[:, encoded.shape[1] : positions]], axis=1)
        tokens_max = int(seconds * TOKENS_PER_S) + TOKENS_EXTRA
        prompt = self._prompt(hints)
        result = self._whisper.generate(
            self._ctranslate2.StorageView.from_array(self._numpy.ascontiguousarray(encoded)),
            [prompt],
            beam_size=self._settings.beam_size,
            max_length=len(prompt) + tokens_max,
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        tokens = result.sequences_ids[0]
        return Decoded(
            self._tokens.decode(tokens).strip(),
            float(result.scores[0]),
            float(result.no_speech_prob),
            len(tokens) >= tokens_max,
        )

    def _prompt(self, hints: TranscriptionHints) -> list[int]:
        begin = ["<|startoftranscript|>"]
        if self._whisper.is_multilingual:
            language = f"<|{hints.language or 'en'}|>"
            if self._tokens.token_to_id(language) is None:
                raise EngineError(f"whisper: the model knows no language {hints.language!r}", code="unknown_language")
            begin += [language, "<|transcribe|>"]
        return [self._tokens.token_to_id(token) for token in (*begin, "<|notimestamps|>")]


def create(options: Mapping[str, object]) -> Whisper:
    """The engine from its options: see `WhisperSettings`. Raises `SettingsError`."""
    return Whisper(read_options("whisper", WhisperSettings, options))
