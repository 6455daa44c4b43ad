"""Speech recognition by Whisper through CTranslate2: quick because the encoder sees little, sound because of doubt.

Whisper pads every utterance to 30 s, and its encoder's cost falls with less; but a decoder that sees an encoding cut
short repeats itself. So only the speech and some silence are encoded, and the encoding goes on with that of
silence, computed once at the start. What still looks wrong (see `doubt`) is decoded again over the whole window.
Only stretches of speech are decoded at all (see `stretches`): noise gives no text, a long pause loses none.
"""

from __future__ import annotations

import math
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from vivavoce.engines import Told, TranscriptionHints
from vivavoce.engines.cores import Cores, Urgency
from vivavoce.engines.doubt import Draft, doubtful, noise, plain, without_repetition
from vivavoce.engines.incremental import Care, IncrementalListening, Sketch, Sound
from vivavoce.engines.options import read_options
from vivavoce.engines.silero import Silero
from vivavoce.engines.stretches import Stretch, find_stretches
from vivavoce.engines.weights import WHISPER, existing, library, verified
from vivavoce.errors import EngineError
from vivavoce.protocol.events import LogProb

__all__ = ["Whisper", "WhisperSettings", "create"]

RATE_HZ = 16_000
BYTES_PER_MS = RATE_HZ * 2 // 1000
COLUMNS_PER_S = 100
"""Of the log-mel spectrum; the encoder makes one position of two."""
WINDOW_COLUMNS = 3_000
SILENCE_S = 1.3
"""Encoded behind the speech, with it. With less a short utterance is heard twice, "five five five" for "five five"."""
SILENCE_LEVEL = -0.7
"""Log-mel value of digital silence beside speech of usual loudness."""
REPETITION_PENALTY_AGAIN = 1.1
"""Of the second decoding: it costs a little accuracy, and what it is for is a loop."""
UNSURE = -0.45
"""Mean log-probability below which a wider search often finds other words: in one of seven recordings of the kind that
people make at a counter, of which it mends every fourth."""
TOKENS_EXTRA = 12
TOKENS_PER_S_MAX = {"en": 8.0}
"""Length limit by language; a language that is not here may need several tokens for a character."""
TOKENS_PER_S_MAX_OTHER = 24.0
TOKENS_MAX = 448
"""Prompt and text together; the model has no more positions."""
PROMPT_TOKENS_MAX = 100
"""Of what the client gives as a prompt, its end is used."""
VAD_BLOCK_BYTES = RATE_HZ * 2
"""Voice activity is looked for second by second, so that a cancelled call stops soon."""
ALIGNED_COLUMNS = 2
"""Scoring a text also aligns it in time, which nobody asks for: with so little of it."""
PROBABILITY_MIN = 1e-30
"""Of a token; a logarithm of less could not be written as a number."""
WAITING_MAX = 64
"""Calls at once, those waiting for a thread included."""

Positive = Annotated[int, Meta(ge=1)]


class WhisperSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model`: folder of another Whisper model for CTranslate2, with its tokenizer.json; None is the packaged tiny.en.

    `workers`: utterances that are decoded at once, each on `threads` threads. `beam_size` 1 is a little faster.
    A multilingual model writes the language that the client names, or the one that it hears. `hears_along` False:
    nothing is done before a turn has ended, which takes half the CPU and answers later.
    """

    model: str | None = None
    threads: Positive = 1
    workers: Positive = 2
    compute_type: str = "int8"
    beam_size: Positive = 5
    hears_along: bool = True


class Whisper:
    """The transcriber. Nothing is loaded before `warm_up`."""

    rate_hz = RATE_HZ

    def __init__(self, settings: WhisperSettings | None = None) -> None:
        self._settings = settings or WhisperSettings()
        self.hears_along = self._settings.hears_along
        self._folder = existing(self._settings.model, "whisper", "model") if self._settings.model else None
        self._model: _Model | None = None
        self._vad = Silero()
        self._loading = threading.Lock()
        self._waiting = 0
        self.share(Cores())

    def share(self, cores: Cores) -> None:
        """Compute on these cores, which others use too."""
        self._threads = cores.share("whisper", self._settings.workers)

    async def warm_up(self) -> None:
        """Load, and decode once. Raises `EngineMissing`, or `EngineError` where the model cannot be used."""
        await self._vad.warm_up()
        await self._threads.run(Urgency.NOW, self._load)

    async def transcribe(self, audio: bytes, hints: TranscriptionHints) -> AsyncIterator[str]:
        """The transcript, one piece for each stretch of speech; nothing where nothing was said.

        Raises `EngineError`: `engine_not_ready`, `engine_busy`, `unsupported_language`, `transcription_failed`.
        """
        async with aclosing(self._pieces(audio, hints, is_scored=False)) as pieces:
            async for text, _ in pieces:
                yield text

    async def transcribe_scored(
        self, audio: bytes, hints: TranscriptionHints
    ) -> AsyncIterator[tuple[str, tuple[LogProb, ...]]]:
        """The same pieces, each with its tokens and how probable each was to the model; raises the same.

        The tokens of a piece joined are the piece; one may be part of a character, then only its `bytes` tell. Costs
        another pass of the decoder over the text.
        """
        async with aclosing(self._pieces(audio, hints, is_scored=True)) as pieces:
            async for piece in pieces:
                yield piece

    def listen(self, hints: TranscriptionHints, told: Told | None = None) -> IncrementalListening:
        """A turn that is heard while it is spoken; `told` is called with its words, see `Told`.

        Raises `EngineError`: `engine_not_ready`.
        """
        if self._model is None:
            raise EngineError("whisper: not warmed up", code="engine_not_ready")
        sound = Sound(self._vad.open(), self._vad.frame_ms, BYTES_PER_MS)
        return IncrementalListening(self._model, self._threads, sound, hints, told)

    async def _pieces(
        self, audio: bytes, hints: TranscriptionHints, *, is_scored: bool
    ) -> AsyncGenerator[tuple[str, tuple[LogProb, ...]], None]:
        model = self._model
        if model is None:
            raise EngineError("whisper: not warmed up", code="engine_not_ready")
        if self._waiting >= WAITING_MAX:
            raise EngineError(f"whisper: {WAITING_MAX} transcriptions are waiting", code="engine_busy")
        run = self._threads.run
        cancelled = threading.Event()
        self._waiting += 1
        try:
            is_first = True
            for stretch in await run(Urgency.NOW, self._stretches, audio, cancelled):
                part = audio[stretch.start_ms * BYTES_PER_MS : stretch.end_ms * BYTES_PER_MS]
                heard = await run(Urgency.NOW, model.hear, part, stretch.speech_ms / 1000, hints, cancelled)
                if heard is None or not heard.draft.text.strip():
                    continue
                text = heard.draft.text.lstrip() if is_first else heard.draft.text
                yield text, await run(Urgency.NOW, model.scores, heard, text) if is_scored else ()
                is_first = False
        finally:
            cancelled.set()
            self._waiting -= 1

    async def close(self) -> None:
        """Free the model, after what is being decoded."""
        self._model = None
        await self._threads.close()
        await self._vad.close()

    def _load(self) -> None:
        with self._loading:
            if self._model is not None:
                return
            folder = self._folder or verified(*WHISPER).parent
            try:
                model = _Model(str(folder), self._settings)
            except EngineError:
                raise
            except Exception as error:  # the tokenizer's own errors have no common class
                raise EngineError(f"whisper: {folder} cannot be used: {error}", code="engine_load_failed") from error
            self._model = model

    def _stretches(self, audio: bytes, cancelled: threading.Event) -> list[Stretch]:
        """In a thread: where somebody speaks."""
        stream = self._vad.open()
        probabilities: list[float] = []
        for start in range(0, len(audio), VAD_BLOCK_BYTES):
            if cancelled.is_set():
                return []
            probabilities += stream.push(audio[start : start + VAD_BLOCK_BYTES])
        # The last, incomplete frame is filled with silence.
        probabilities += stream.push(bytes(self._vad.frame_ms * BYTES_PER_MS - 1))
        return find_stretches(probabilities, self._vad.frame_ms)


@dataclass(frozen=True, slots=True)
class _Heard:
    """A draft, its language, what it was decoded from (the encoding and the prompt's tokens), and its tokens."""

    draft: Draft
    language: str
    view: Any
    prompt: Sequence[int]
    tokens: Sequence[int]


class _Model:
    """The loaded model; every method runs in a thread."""

    def __init__(self, folder: str, settings: WhisperSettings) -> None:
        self._numpy: Any = library("numpy")
        logmel = library("vivavoce.engines.logmel")
        logmel.compute_on_one_thread()
        self._log_mel: Any = logmel.log_mel
        self._ctranslate2 = library("ctranslate2")
        self._beam_size = settings.beam_size
        self._whisper: Any = self._ctranslate2.models.Whisper(
            folder,
            device="cpu",
            compute_type=settings.compute_type,
            intra_threads=settings.threads,
            inter_threads=settings.workers,
        )
        self._bands = int(self._whisper.n_mels)
        self._tokens: Any = library("tokenizers").Tokenizer.from_file(f"{folder}/tokenizer.json")
        level = self._numpy.full((1, self._bands, WINDOW_COLUMNS), SILENCE_LEVEL, self._numpy.float32)
        self._silence: Any = self._encoded(level)
        self._decoder: Any = self._own_decoder(folder)
        self._silence_memory: Any = self._decoder and self._decoder.memory(self._silence[0])
        # Two seconds of faint noise, the same every time: every library allocates what it needs.
        burst = self._numpy.random.default_rng(1).standard_normal(2 * RATE_HZ).astype(self._numpy.float32) * 0.05
        self._decode(burst, TranscriptionHints(language="en"))

    def hear(
        self, audio: bytes, speech_s: float, hints: TranscriptionHints, cancelled: threading.Event
    ) -> _Heard | None:
        """What was said in one stretch, of which `speech_s` is voice; None for what was only noise."""
        if cancelled.is_set():
            return None
        samples = self._numpy.frombuffer(audio, "<i2", len(audio) // 2).astype(self._numpy.float32) / 32_768.0
        try:
            heard = self._decode(samples, hints)
            if noise(heard.draft):
                return None
            if doubtful(heard.draft, speech_s, heard.language) and not cancelled.is_set():
                again = self._decode(samples, hints, is_second=True)
                heard = replace(again, draft=_better(heard.draft, again.draft, speech_s, again.language))
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"whisper: {error}", code="transcription_failed") from error
        return None if noise(heard.draft) else heard

    def scores(self, heard: _Heard, text: str) -> tuple[LogProb, ...]:
        """The tokens of `text`, which is what was heard, with their log probabilities after one another.

        The search itself keeps none, so the decoder is led through the text once more.
        """
        names = self._tokens.encode(heard.draft.text, add_special_tokens=False)
        try:
            found = self._whisper.align(heard.view, heard.prompt[:-1], [names.ids], ALIGNED_COLUMNS)[0]
        except Exception as error:
            raise EngineError(f"whisper: {error}", code="transcription_failed") from error
        pieces = [bytes(_byte_of()[character] for character in token) for token in names.tokens]
        # What is left out at the begin of the first piece is left out of its tokens.
        excess = len(heard.draft.text.encode()) - len(text.encode())
        scored = []
        for piece, probability in zip(pieces, found.text_token_probs, strict=True):
            kept, excess = piece[excess:], max(0, excess - len(piece))
            if kept:
                token = kept.decode(errors="replace")
                logprob = math.log(min(1.0, max(PROBABILITY_MIN, probability)))
                scored.append(LogProb(token=token, bytes=list(kept), logprob=logprob))
        return tuple(scored)

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
        """The speech of one stretch, which begins with `known` and probably goes on with `guess`; see `incremental`."""
        nothing = Sketch(tuple(known), self.text(known), is_sure=False)
        if cancelled.is_set():
            return nothing
        samples = self._numpy.frombuffer(audio, "<i2", len(audio) // 2).astype(self._numpy.float32) / 32_768.0
        try:
            heard = self._guessed(samples, hints, known, guess, cancelled)
            if heard is None:
                return nothing
            if care is not Care.SPOKEN and heard.draft.score < UNSURE and not cancelled.is_set():
                heard = self._likelier(heard, len(samples) / RATE_HZ, hints, known)
            is_in_doubt = not noise(heard.draft) and doubtful(heard.draft, speech_s, heard.language)
            if care is Care.END and is_in_doubt and not cancelled.is_set():
                again = self._decode(samples, hints, is_second=True, known=known)
                best = _better(heard.draft, again.draft, speech_s, again.language)
                tokens = self._tokens.encode(best.text, add_special_tokens=False).ids
                heard = replace(heard, draft=best, tokens=tokens)
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"whisper: {error}", code="transcription_failed") from error
        if noise(heard.draft) or (is_in_doubt and care is not Care.END):
            return replace(nothing, is_sure=not is_in_doubt)
        if known and list(heard.tokens[: len(known)]) != list(known):
            # The guard cut a repetition out of what was told; the rest of it is not better.
            return nothing
        return Sketch(tuple(heard.tokens), heard.draft.text)

    def _guessed(
        self,
        samples: Any,
        hints: TranscriptionHints,
        known: Sequence[int],
        guess: Sequence[int],
        cancelled: threading.Event,
    ) -> _Heard | None:
        """A draft that begins with `known`: quick if it goes on like `guess`. None if it was stopped on the way."""
        if self._decoder is None:
            return self._decode(samples, hints, known=known)
        seconds = len(samples) / RATE_HZ
        encoded = self._encoded(self._log_mel(samples, _columns(seconds), self._bands)[None])
        language = self._language(self._view(encoded), hints)
        prompt = self._prompt(language, hints)
        if cancelled.is_set():
            return None
        memory = self._decoder.memory(encoded[0]).followed_by(self._silence_memory)
        limit = _limit(seconds, language, prompt)
        rest = max(1, limit - len(known))
        reading = self._decoder.read(memory, prompt, known, guess, rest, cancelled.is_set)
        tokens = [*known, *reading.tokens]
        draft = Draft(self.text(tokens), len(tokens), reading.score, reading.no_speech, reading.complete)
        return _Heard(draft, language, encoded, prompt, tokens)

    def _likelier(self, heard: _Heard, seconds: float, hints: TranscriptionHints, known: Sequence[int]) -> _Heard:
        """What was read greedily, or what a wider search finds, if that is likelier as a whole."""
        if self._decoder is None:
            return heard  # that was the wider search
        found = self._search(heard.view, seconds, hints, known)
        # The mean of a reading is that of its new tokens; a search counts the known ones as certain.
        read = heard.draft.score * (heard.draft.tokens - len(known))
        return found if found.draft.score * found.draft.tokens > read else heard

    def starts_word(self, token: int) -> bool:
        """Whether `token` begins with a space."""
        return str(self._tokens.id_to_token(token)).startswith("Ġ")

    def text(self, tokens: Sequence[int]) -> str:
        """What the tokens say."""
        return str(self._tokens.decode(list(tokens))).rstrip()

    def _own_decoder(self, folder: str) -> Any:
        """The decoder that takes a guess; None where it cannot read the model, or the model is large."""
        module = library("vivavoce.engines.whisper_decoder")
        found = {name: self._tokens.token_to_id(f"<|{name}|>") for name in ("nospeech", "nocaptions", "endoftext")}
        no_speech = found["nospeech"] if found["nospeech"] is not None else found["nocaptions"]
        try:
            return module.WhisperDecoder(folder, found["endoftext"], no_speech)
        except (ValueError, KeyError):
            return None

    def _view(self, encoded: Any) -> Any:
        return self._ctranslate2.StorageView.from_array(self._numpy.ascontiguousarray(encoded))

    def _decode(
        self, samples: Any, hints: TranscriptionHints, *, is_second: bool = False, known: Sequence[int] = ()
    ) -> _Heard:
        """A draft that begins with `known`. The second time, nothing is spared and repetition is discouraged."""
        seconds = len(samples) / RATE_HZ
        columns = WINDOW_COLUMNS if is_second else _columns(seconds)
        encoded = self._encoded(self._log_mel(samples, columns, self._bands)[None])
        return self._search(encoded, seconds, hints, known, is_second=is_second)

    def _search(
        self,
        encoded: Any,
        seconds: float,
        hints: TranscriptionHints,
        known: Sequence[int],
        *,
        is_second: bool = False,
    ) -> _Heard:
        """The likeliest text of what was encoded, by beam search."""
        encoded = self._numpy.concatenate([encoded, self._silence[:, encoded.shape[1] :]], axis=1)
        view = self._view(encoded)
        language = self._language(view, hints)
        prompt = self._prompt(language, hints)
        limit = _limit(seconds, language, prompt)
        result = self._whisper.generate(
            view,
            [[*prompt, *known]],
            beam_size=self._beam_size,
            # CTranslate2 takes the lesser of half of this and this without the prompt for the text.
            max_length=max(2 * limit, limit + len(prompt)),
            repetition_penalty=REPETITION_PENALTY_AGAIN if is_second else 1.0,
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        tokens: Sequence[int] = result.sequences_ids[0]
        text = self._tokens.decode(list(tokens)).rstrip()
        is_complete = len(tokens) < limit
        draft = Draft(text, len(tokens), float(result.scores[0]), float(result.no_speech_prob), is_complete)
        return _Heard(draft, language, view, prompt, tokens)

    def _encoded(self, features: Any) -> Any:
        return self._numpy.array(self._whisper.encode(self._view(features), to_cpu=True))

    def _language(self, view: Any, hints: TranscriptionHints) -> str:
        """ISO 639-1; what follows a hyphen does not matter."""
        wanted = (hints.language or "").replace("_", "-").partition("-")[0].lower()
        if not self._whisper.is_multilingual:
            if wanted not in ("", "en"):
                raise EngineError(
                    f"whisper: this model writes English only, not {hints.language!r}; "
                    "give the engine the folder of a multilingual one as its option 'model'",
                    code="unsupported_language",
                )
            return "en"
        if not wanted:
            return str(self._whisper.detect_language(view)[0][0][0]).strip("<|>")
        if self._tokens.token_to_id(f"<|{wanted}|>") is None:
            raise EngineError(f"whisper: the model knows no language {hints.language!r}", code="unsupported_language")
        return wanted

    def _prompt(self, language: str, hints: TranscriptionHints) -> list[int]:
        """The tokens that the text follows: what the client gave to lean on, then language and task."""
        named = [f"<|{language}|>", "<|transcribe|>"] if self._whisper.is_multilingual else []
        begin = [self._tokens.token_to_id(name) for name in ("<|startoftranscript|>", *named, "<|notimestamps|>")]
        if not (hints.prompt and hints.prompt.strip()):
            return begin
        before = self._tokens.encode(f" {hints.prompt.strip()}", add_special_tokens=False).ids
        return [self._tokens.token_to_id("<|startofprev|>"), *before[-PROMPT_TOKENS_MAX:], *begin]


@lru_cache(maxsize=1)
def _byte_of() -> Mapping[str, int]:
    """The byte that each character of a token's name stands for: itself if it can be printed, else one from 256 on."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + at): byte for at, byte in enumerate(others)}


def _columns(seconds: float) -> int:
    """How much is encoded of so much speech."""
    return min(WINDOW_COLUMNS, int((seconds + SILENCE_S) * COLUMNS_PER_S) // 2 * 2)


def _limit(seconds: float, language: str, prompt: Sequence[int]) -> int:
    """How many tokens may be written about so much speech."""
    limit = TOKENS_EXTRA + int(seconds * TOKENS_PER_S_MAX.get(language, TOKENS_PER_S_MAX_OTHER))
    return min(limit, TOKENS_MAX // 2, TOKENS_MAX - len(prompt))


def _better(first: Draft, again: Draft, speech_s: float, language: str) -> Draft:
    """The draft to keep. Two that agree are believed; two that are both doubtful lose what they repeat."""
    if plain(first.text) == plain(again.text) or not doubtful(again, speech_s, language):
        return again
    best = max(first, again, key=lambda draft: (draft.complete, draft.score))
    return replace(best, text=without_repetition(best.text))


def create(options: Mapping[str, object]) -> Whisper:
    """The engine from its options: see `WhisperSettings`. Raises `SettingsError`."""
    return Whisper(read_options("whisper", WhisperSettings, options))
