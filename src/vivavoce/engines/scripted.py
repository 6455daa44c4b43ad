"""Engines that do exactly what they are told: for tests, ours and those of our users.

They stand where models would stand and need no weights, no packages and no luck: the same input always gives the same
output, piece by piece. Pace and faults are settings; all waiting is `asyncio.sleep`, so a loop with virtual time runs
hours in no time.

- Transcriber: `audio of N ms`, N being the duration of the audio rounded to 10 ms.
- Language model: see `ScriptedLanguageModel`.
- Synthesizer: a 440 Hz tone, 60 ms for each character at speed 1.0.
- Voice activity: 1.0 for a frame whose level reaches `speech_rms_min`, 0.0 for one below.

Invariant: no state outlives one call (one stream, for voice activity), so sessions never disturb each other.
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import re
import sys
from array import array
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from vivavoce.audio.formats import PCM16_24K
from vivavoce.engines import (
    ArgumentsPiece,
    CallPiece,
    Finish,
    NoiseField,
    Piece,
    Pipeline,
    Prompt,
    SpokenPart,
    TextPiece,
    Traits,
    TranscriptionHints,
)
from vivavoce.engines.options import read_options
from vivavoce.errors import EngineError
from vivavoce.protocol.base import given
from vivavoce.protocol.config import ToolChoiceFunction
from vivavoce.protocol.events import LogProb
from vivavoce.protocol.items import (
    Content,
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputText,
    Item,
    Message,
    OutputAudio,
    OutputText,
)

__all__ = [
    "ScriptedLanguageModel",
    "ScriptedModelSettings",
    "ScriptedNoiseReducer",
    "ScriptedSettings",
    "ScriptedSynthesizer",
    "ScriptedTranscriber",
    "ScriptedTurnDetector",
    "ScriptedTurnSettings",
    "ScriptedVad",
    "ScriptedVadSettings",
    "create_language_model",
    "create_noise_reducer",
    "create_synthesizer",
    "create_transcriber",
    "create_turn_detector",
    "create_vad",
    "scripted_pipeline",
]

FORMAT = PCM16_24K
"""All scripted engines hear and speak in the API's own PCM format, so that nothing needs to be resampled."""

VAD_FRAME_MS = 20
SPEECH_RMS_MIN = 500
"""Of 32,768: about -36 dB of full scale, well below speech and well above the hiss of a quiet room."""

TONE_HZ = 440
TONE_PEAK = 6_000
CHARACTER_MS = 60
CHUNK_MS = 100
ARGUMENTS_PIECES_MAX = 3

_CALL = re.compile(r"\bcall\s+([A-Za-z0-9_-]+)\s+(?=\{)")
_WORD = re.compile(r"\s*\S+(?:\s+\Z)?")


# --- settings ---------------------------------------------------------------------------------------------------------

Seconds = Annotated[float, Meta(ge=0)]
Ordinal = Annotated[int, Meta(ge=1)]


class ScriptedSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pace and faults of one scripted engine; every call of the engine begins anew.

    A wait of 0 seconds still yields to the loop. With `fail_at_piece` n, n - 1 pieces come and the nth is an
    `EngineError` with code `scripted_failure`; a language model's `Finish` counts as a piece. With `ignore_cancel`, the
    first cancellation that meets a call is swallowed and the engine goes on; the second one ends it.
    """

    first_delay_s: Seconds = 0.0
    piece_delay_s: Seconds = 0.0
    fail_at_piece: Ordinal | None = None
    ignore_cancel: bool = False


class ScriptedVadSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Threshold and faults of the scripted voice activity detector.

    With `fail_at_frame` n, the push that completes the nth frame of a stream raises an `EngineError` with code
    `scripted_failure`.
    """

    speech_rms_min: Annotated[int, Meta(ge=1, le=32_768)] = SPEECH_RMS_MIN
    fail_at_frame: Ordinal | None = None


AT_ONCE = ScriptedSettings()
"""No waiting, no faults."""

VAD_DEFAULTS = ScriptedVadSettings()


class _Pace:
    """The tempo of one call: waits before each piece, and fails where the settings say so."""

    def __init__(self, settings: ScriptedSettings) -> None:
        self._settings = settings
        self._begun = 0
        self._deaf = settings.ignore_cancel

    async def next(self) -> None:
        """Wait for the next piece's time. Raises `EngineError` in place of the piece that is to fail."""
        delay_s = self._settings.piece_delay_s if self._begun else self._settings.first_delay_s
        self._begun += 1
        try:
            await asyncio.sleep(delay_s)
        except asyncio.CancelledError:
            if not self._deaf:
                raise
            self._deaf = False
        if self._begun == self._settings.fail_at_piece:
            raise _failure(f"piece {self._begun}")


def _failure(where: str) -> EngineError:
    return EngineError(f"the script says to fail at {where}", code="scripted_failure")


class _Weightless:
    """What every scripted engine has in common: nothing to load, nothing to free."""

    async def warm_up(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to free."""


# --- voice activity ---------------------------------------------------------------------------------------------------


class ScriptedVad(_Weightless):
    """Voice activity by level: a frame is speech (1.0) where its RMS reaches `speech_rms_min`, else 0.0."""

    rate_hz: int = FORMAT.rate_hz
    frame_ms: int = VAD_FRAME_MS

    def __init__(self, settings: ScriptedVadSettings = VAD_DEFAULTS) -> None:
        self._settings = settings

    def open(self) -> _LevelStream:
        """A stream of its own state."""
        return _LevelStream(self._settings)


class _LevelStream:
    """One stream of audio, cut into frames."""

    def __init__(self, settings: ScriptedVadSettings) -> None:
        self._settings = settings
        self._frame_bytes = FORMAT.bytes_of(VAD_FRAME_MS)
        self._power_min = settings.speech_rms_min**2
        self._rest = b""
        self._frames = 0

    def push(self, audio: bytes) -> Sequence[float]:
        """PCM16 mono at 24 kHz in, one probability per completed frame of 20 ms out."""
        audio = self._rest + audio
        whole = len(audio) // self._frame_bytes * self._frame_bytes
        self._rest = audio[whole:]
        return [self._score(audio[at : at + self._frame_bytes]) for at in range(0, whole, self._frame_bytes)]

    def _score(self, frame: bytes) -> float:
        self._frames += 1
        if self._frames == self._settings.fail_at_frame:
            raise _failure(f"frame {self._frames}")
        samples = array("h", frame)
        if sys.byteorder == "big":
            samples.byteswap()
        power = math.hypot(*samples) ** 2 / len(samples)
        return 1.0 if power >= self._power_min else 0.0


# --- noise reduction and end of turn ----------------------------------------------------------------------------------


class ScriptedNoiseReducer(_Weightless):
    """A gate: frames of 20 ms below the level of speech are turned down by `strength`, all else passes unchanged."""

    rate_hz: int = FORMAT.rate_hz

    def __init__(self, settings: ScriptedVadSettings = VAD_DEFAULTS) -> None:
        self._settings = settings

    def open(self, field: NoiseField, strength: float) -> _Gate:
        """A stream of its own state; near and far field are alike."""
        return _Gate(self._settings, strength)


class _Gate:
    def __init__(self, settings: ScriptedVadSettings, strength: float) -> None:
        self._levels = _LevelStream(settings)
        self._strength = strength
        self._frame_bytes = FORMAT.bytes_of(VAD_FRAME_MS)
        self._rest = b""

    def push(self, audio: bytes) -> bytes:
        """PCM16 mono at 24 kHz in, the same frames out, each once it is complete."""
        scores = self._levels.push(audio)
        audio = self._rest + audio
        whole = len(scores) * self._frame_bytes
        self._rest = audio[whole:]
        frames = (audio[at : at + self._frame_bytes] for at in range(0, whole, self._frame_bytes))
        return b"".join(frame if score else self._quiet(frame) for frame, score in zip(frames, scores, strict=True))

    def _quiet(self, frame: bytes) -> bytes:
        samples = array("h", frame)
        if sys.byteorder == "big":
            samples.byteswap()
        quiet = array("h", (round(sample * (1 - self._strength)) for sample in samples))
        if sys.byteorder == "big":
            quiet.byteswap()
        return quiet.tobytes()


class ScriptedTurnSettings(ScriptedSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pace and faults, and from what length on a turn counts as complete."""

    complete_ms_min: Annotated[int, Meta(ge=0)] = 0


TURN_DEFAULTS = ScriptedTurnSettings()


class ScriptedTurnDetector(_Weightless):
    """A turn is complete (1.0) from `complete_ms_min` of audio on, the pause included, before that it is not (0.0)."""

    rate_hz: int = FORMAT.rate_hz

    def __init__(self, settings: ScriptedTurnSettings = TURN_DEFAULTS) -> None:
        self._settings = settings

    async def judge(self, audio: bytes, transcript: str) -> float:
        """PCM16 mono at 24 kHz; the transcript changes nothing."""
        await _Pace(self._settings).next()
        return 1.0 if FORMAT.duration_ms(audio) >= self._settings.complete_ms_min else 0.0


# --- speech recognition -----------------------------------------------------------------------------------------------


class ScriptedTranscriber(_Weightless):
    """Writes `audio of N ms`, word by word; hears the duration and nothing else."""

    rate_hz: int = FORMAT.rate_hz

    def __init__(self, settings: ScriptedSettings = AT_ONCE) -> None:
        self._settings = settings

    async def transcribe(self, audio: bytes, hints: TranscriptionHints) -> AsyncIterator[str]:
        """PCM16 mono at 24 kHz; the hints change nothing."""
        pace = _Pace(self._settings)
        samples = len(audio) // FORMAT.sample_bytes
        tens_of_ms = (samples * 100 + self.rate_hz // 2) // self.rate_hz
        for word in _words(f"audio of {tens_of_ms * 10} ms"):
            await pace.next()
            yield word

    async def transcribe_scored(
        self, audio: bytes, hints: TranscriptionHints
    ) -> AsyncIterator[tuple[str, tuple[LogProb, ...]]]:
        """The same, each word one token of log probability -0.5."""
        async for word in self.transcribe(audio, hints):
            yield word, (LogProb(token=word, bytes=list(word.encode()), logprob=-0.5),)

    async def transcribe_speakers(self, audio: bytes, hints: TranscriptionHints) -> AsyncIterator[SpokenPart]:
        """The same: A says `audio of`, for the first half of the time, and B the rest."""
        words = [word async for word in self.transcribe(audio, hints)]
        end_s = FORMAT.duration_ms(audio) / 1000
        yield SpokenPart("".join(words[:2]), "A", 0.0, end_s / 2)
        yield SpokenPart("".join(words[2:]), "B", end_s / 2, end_s)


# --- language ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    arguments: str


class ScriptedModelSettings(ScriptedSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pace and faults, and what the model is said to be able to do."""

    context_tokens: Annotated[int, Meta(ge=2)] = 32_000
    sees_images: bool = True
    reasons: bool = True


MODEL_DEFAULTS = ScriptedModelSettings()


class ScriptedLanguageModel(_Weightless):
    """Answers by four rules, the first that fits:

    1. After a function's output: `tool said: <output>`.
    2. Where the last user message says `call NAME {json}`, and `tool_choice` is not "none": a call of NAME with that
       JSON as it stands, for each time it says so. Whether NAME is among the tools does not matter.
    3. Where `tool_choice` names a function, a call of it with `{}`; where it is "required", one of the first function.
    4. Otherwise `echo: <text of the last user message>`.

    The text of a message is its text parts and the transcripts of its audio parts, joined by a space.

    A token is a word between white space. Input tokens are the words of the instructions and of everything in the items
    (texts, transcripts, names, arguments, outputs); output tokens are those of the answer, a call's name counting as
    one. An answer of more than `max_output_tokens` is cut there and ends with reason "length".
    An image is the word `[image]`.
    """

    def __init__(self, settings: ScriptedSettings = MODEL_DEFAULTS) -> None:
        self._settings = settings
        able = settings if isinstance(settings, ScriptedModelSettings) else MODEL_DEFAULTS
        self.traits = Traits(
            context_tokens=able.context_tokens,
            output_tokens_max=min(able.context_tokens // 2, Traits().output_tokens_max),
            sees_images=able.sees_images,
            reasons=able.reasons,
            count_tokens=lambda text: len(text.split()),
        )

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        """Text word by word, arguments in up to three pieces, then `Finish`."""
        pace = _Pace(self._settings)
        for piece in _script(prompt):
            await pace.next()
            yield piece


def _script(prompt: Prompt) -> Iterator[Piece]:
    """The whole answer, cut to the limit, and its `Finish`."""
    limit = prompt.max_output_tokens
    written = 0
    cut = False
    for part in _answer(prompt):
        words = _words(part) if isinstance(part, str) else (part.name, *_words(part.arguments))
        kept = words if limit is None else words[: limit - written]
        yield from map(TextPiece, kept) if isinstance(part, str) else _call_pieces(kept)
        written += len(kept)
        cut = cut or len(kept) < len(words)
    yield Finish("length" if cut else "stop", input_tokens=_input_tokens(prompt), output_tokens=written)


def _call_pieces(words: Sequence[str]) -> Iterator[Piece]:
    """A call from its name and the words of its arguments; nothing where not even the name was left."""
    if not words:
        return
    yield CallPiece(words[0])
    arguments = "".join(words[1:])
    size = max(1, math.ceil(len(arguments) / ARGUMENTS_PIECES_MAX))
    for at in range(0, len(arguments), size):
        yield ArgumentsPiece(arguments[at : at + size])


def _answer(prompt: Prompt) -> Sequence[str | _Call]:
    """The answer by the rules of `ScriptedLanguageModel`."""
    if prompt.items and isinstance(prompt.items[-1], FunctionCallOutput):
        return (f"tool said: {prompt.items[-1].output}",)
    said = _last_user_text(prompt.items)
    calls = () if prompt.tool_choice == "none" else tuple(_calls(said)) or _demanded(prompt)
    return calls or (f"echo: {said}",)


def _calls(text: str) -> Iterator[_Call]:
    """Each `call NAME {json}` in the text; where what follows the name is no JSON object, it is no call."""
    at = 0
    while match := _CALL.search(text, at):
        try:
            _, at = json.JSONDecoder().raw_decode(text, match.end())
        except json.JSONDecodeError:
            at = match.end()
        else:
            yield _Call(match[1], text[match.end() : at])


def _demanded(prompt: Prompt) -> Sequence[_Call]:
    """The call that `tool_choice` demands, if it demands one that can be made."""
    if isinstance(prompt.tool_choice, ToolChoiceFunction):
        return (_Call(prompt.tool_choice.name, "{}"),)
    if prompt.tool_choice == "required":
        return tuple(_Call(tool.name, "{}") for tool in prompt.tools)[:1]
    return ()


def _last_user_text(items: Sequence[Item]) -> str:
    for item in reversed(items):
        if isinstance(item, Message) and item.role == "user":
            return " ".join(_texts(item.content))
    return ""


def _texts(content: Sequence[Content]) -> Iterator[str]:
    for part in content:
        if isinstance(part, InputText | OutputText):
            yield part.text
        elif isinstance(part, InputAudio | OutputAudio) and (heard := given(part.transcript, None)):
            yield heard
        elif isinstance(part, InputImage):
            yield "[image]"


def _input_tokens(prompt: Prompt) -> int:
    texts = [prompt.instructions]
    for item in prompt.items:
        if isinstance(item, Message):
            texts.extend(_texts(item.content))
        elif isinstance(item, FunctionCall):
            texts.extend((item.name, item.arguments))
        elif isinstance(item, FunctionCallOutput):
            texts.append(item.output)
    return sum(len(text.split()) for text in texts)


def _words(text: str) -> Sequence[str]:
    """The words with the white space before them; joined they are the text, unless it is white space only."""
    return _WORD.findall(text)


# --- speech synthesis -------------------------------------------------------------------------------------------------


class ScriptedSynthesizer(_Weightless):
    """Speaks every character as 60 ms (divided by `speed`) of a 440 Hz tone, without a seam; all voices are alike."""

    rate_hz: int = FORMAT.rate_hz

    def __init__(self, settings: ScriptedSettings = AT_ONCE) -> None:
        self._settings = settings

    async def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[bytes]:
        """PCM16 mono at 24 kHz in chunks of 100 ms, the last one shorter."""
        pace = _Pace(self._settings)
        left = round(len(text) * FORMAT.samples(CHARACTER_MS) / speed) * FORMAT.sample_bytes
        period = _tone()
        chunk = period * (FORMAT.bytes_of(CHUNK_MS) // len(period))
        while left > 0:
            await pace.next()
            yield chunk[:left]
            left -= len(chunk)


@functools.cache
def _tone() -> bytes:
    """The shortest stretch of tone that is a whole number of samples and of cycles, so that repeats join smoothly."""
    cycles = TONE_HZ // math.gcd(TONE_HZ, FORMAT.rate_hz)
    samples = FORMAT.rate_hz * cycles // TONE_HZ
    wave = array("h", (round(TONE_PEAK * math.sin(math.tau * cycles * n / samples)) for n in range(samples)))
    if sys.byteorder == "big":
        wave.byteswap()
    return wave.tobytes()


# --- construction -----------------------------------------------------------------------------------------------------


def create_vad(options: Mapping[str, object]) -> ScriptedVad:
    """Options: the fields of `ScriptedVadSettings`. Raises `SettingsError`."""
    return ScriptedVad(read_options("scripted", ScriptedVadSettings, options))


def create_transcriber(options: Mapping[str, object]) -> ScriptedTranscriber:
    """Options: the fields of `ScriptedSettings`. Raises `SettingsError`."""
    return ScriptedTranscriber(read_options("scripted", ScriptedSettings, options))


def create_language_model(options: Mapping[str, object]) -> ScriptedLanguageModel:
    """Options: the fields of `ScriptedModelSettings`. Raises `SettingsError`."""
    return ScriptedLanguageModel(read_options("scripted", ScriptedModelSettings, options))


def create_turn_detector(options: Mapping[str, object]) -> ScriptedTurnDetector:
    """Options: the fields of `ScriptedTurnSettings`. Raises `SettingsError`."""
    return ScriptedTurnDetector(read_options("scripted", ScriptedTurnSettings, options))


def create_noise_reducer(options: Mapping[str, object]) -> ScriptedNoiseReducer:
    """Options: the fields of `ScriptedVadSettings`; the gate has no faults. Raises `SettingsError`."""
    return ScriptedNoiseReducer(read_options("scripted", ScriptedVadSettings, options))


def create_synthesizer(options: Mapping[str, object]) -> ScriptedSynthesizer:
    """Options: the fields of `ScriptedSettings`. Raises `SettingsError`."""
    return ScriptedSynthesizer(read_options("scripted", ScriptedSettings, options))


def scripted_pipeline(
    name: str = "scripted",
    *,
    vad: ScriptedVadSettings = VAD_DEFAULTS,
    transcriber: ScriptedSettings = AT_ONCE,
    language_model: ScriptedSettings = MODEL_DEFAULTS,
    synthesizer: ScriptedSettings = AT_ONCE,
    turn_detector: ScriptedTurnSettings = TURN_DEFAULTS,
) -> Pipeline:
    """The scripted engines together, each with its own pace and faults."""
    return Pipeline(
        name,
        ScriptedVad(vad),
        ScriptedTranscriber(transcriber),
        ScriptedLanguageModel(language_model),
        ScriptedSynthesizer(synthesizer),
        ScriptedTurnDetector(turn_detector),
        ScriptedNoiseReducer(vad),
    )
