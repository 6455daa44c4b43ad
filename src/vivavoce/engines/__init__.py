"""The body: what a model has to be, so that a pipeline can use it.

An engine is built cheaply from its options (see `registry`), made ready by `warm_up`, used by any number of sessions at
once, and ended by `close`. Heavy imports happen in `warm_up`, never at import. What fails raises `EngineError`.
Cancelling the task that iterates an engine must stop its work soon; what it still says is dropped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from vivavoce.protocol.config import FunctionTool, ToolChoice
from vivavoce.protocol.events import LogProb
from vivavoce.protocol.items import Item

from .health import EngineHealth

__all__ = [
    "ROLES",
    "ArgumentsPiece",
    "BatchedVoiceActivityStream",
    "CallPiece",
    "DiarizingTranscriber",
    "Engine",
    "Finish",
    "IncrementalTranscriber",
    "LanguageModel",
    "Listening",
    "NoiseField",
    "NoiseReducer",
    "NoiseReductionStream",
    "Piece",
    "Pipeline",
    "PreparingLanguageModel",
    "Prompt",
    "ScoringTranscriber",
    "SpokenPart",
    "Synthesizer",
    "TextPiece",
    "Traits",
    "Transcriber",
    "TranscriptionHints",
    "TurnDetector",
    "VoiceActivityDetector",
    "VoiceActivityStream",
    "estimated_tokens",
]

# --- voice activity ---------------------------------------------------------------------------------------------------


class VoiceActivityStream(Protocol):
    """Speech detection in one stream of audio."""

    def push(self, audio: bytes) -> Sequence[float]:
        """Take PCM16 mono at the detector's `rate_hz`; give one probability per completed frame of `frame_ms`.

        An incomplete frame is kept for the next call. Runs on the event loop: under a millisecond per 32 ms of audio.
        """
        ...


@runtime_checkable
class BatchedVoiceActivityStream(Protocol):
    """A `VoiceActivityStream` that can be scored together with others, which costs less than each alone."""

    async def score(self, audio: bytes) -> Sequence[float]:
        """What `push` gives, to the bit, together with what other streams are given in the same moment.

        One call at a time; the next audio waits for it.
        """
        ...


class VoiceActivityDetector(Protocol):
    """Tells speech from everything else."""

    rate_hz: int
    frame_ms: int

    async def warm_up(self) -> None:
        """Load, and run once."""
        ...

    def open(self) -> VoiceActivityStream:
        """A stream of its own state."""
        ...

    async def close(self) -> None:
        """Free what `warm_up` took."""
        ...


# --- noise reduction --------------------------------------------------------------------------------------------------

NoiseField = Literal["near_field", "far_field"]
"""A microphone close to the mouth (headset), or away from it (laptop, conference room)."""


class NoiseReductionStream(Protocol):
    """Noise reduction in one stream of audio."""

    def push(self, audio: bytes) -> bytes:
        """Take PCM16 mono at the reducer's `rate_hz`; give what is clean by now, in the same layout.

        The n-th sample that comes out belongs to the n-th that went in, so the stream may lag but never shifts; it lags
        by at most 60 ms, and however the audio is cut into calls, the same samples come out. Runs on the event loop:
        under a millisecond per 32 ms of audio.
        """
        ...


class NoiseReducer(Protocol):
    """Takes noise out of the user's audio, before speech detection and everything else."""

    rate_hz: int

    async def warm_up(self) -> None:
        """Load, and run once."""
        ...

    def open(self, field: NoiseField, strength: float) -> NoiseReductionStream:
        """A stream of its own state. `strength` 0 leaves the audio as it is, 1 is all that can be done."""
        ...

    async def close(self) -> None:
        """Free what `warm_up` took."""
        ...


# --- end of turn ------------------------------------------------------------------------------------------------------


class TurnDetector(Protocol):
    """Tells whether the user, who has paused, has finished."""

    rate_hz: int

    async def warm_up(self) -> None:
        """Load, and run once."""
        ...

    async def judge(self, audio: bytes, transcript: str) -> float:
        """The probability, 0 to 1, that the turn is complete.

        `audio` is PCM16 mono at `rate_hz`, from the turn's begin to a pause of about 200 ms at its end; `transcript` is
        what was heard in it, empty where nothing was.
        """
        ...

    async def close(self) -> None:
        """Free what `warm_up` took."""
        ...


# --- speech recognition -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TranscriptionHints:
    """What the client said about the audio: ISO 639-1 language, free text to lean on, words that may well occur."""

    language: str | None = None
    prompt: str | None = None
    keywords: tuple[str, ...] = ()


class Transcriber(Protocol):
    """Writes down what was said.

    One that has `hears_silence`, and it is true, writes down something else where there is more silence at the end: it
    is never asked before a turn has ended.
    """

    rate_hz: int

    async def warm_up(self) -> None:
        """Load, and run once."""
        ...

    def transcribe(self, audio: bytes, hints: TranscriptionHints) -> AsyncIterator[str]:
        """Pieces of the transcript of PCM16 mono at `rate_hz`; joined they are the transcript. May be none."""
        ...

    async def close(self) -> None:
        """Free what `warm_up` took."""
        ...


Told = Callable[[str, str], None]
"""Takes words of a turn that is being spoken: those that are sure to stay now, behind those that it took before; and
those that probably follow, in place of the last that probably would. Either may be empty."""


class Listening(Protocol):
    """One turn that is heard while it is spoken."""

    def push(self, audio: bytes) -> None:
        """Take PCM16 mono at the transcriber's `rate_hz` that follows. Called on the event loop; returns at once."""
        ...

    async def settle(self) -> str:
        """The transcript of everything pushed; it begins with what was told, but for blanks at its ends.

        At a pause that was long enough to be noticed it is there already, or nearly. More may be pushed afterwards.
        """
        ...

    def cancel(self) -> None:
        """Give the turn up: its work stops soon, and nothing more is told."""
        ...


@runtime_checkable
class IncrementalTranscriber(Protocol):
    """A `Transcriber` that can hear a turn while it is spoken, so that little is left to do at its end.

    One that has `hears_along`, and it is false, does not want to.
    """

    rate_hz: int

    def listen(self, hints: TranscriptionHints, told: Told | None = None) -> Listening:
        """Open a turn; `told` is called on the event loop with what is known of its words."""
        ...


@runtime_checkable
class ScoringTranscriber(Protocol):
    """A `Transcriber` that can say, too, how probable each token was to it."""

    def transcribe_scored(
        self, audio: bytes, hints: TranscriptionHints
    ) -> AsyncIterator[tuple[str, tuple[LogProb, ...]]]:
        """The same pieces as `transcribe`, each with the log probabilities of its tokens."""
        ...


@dataclass(frozen=True, slots=True)
class SpokenPart:
    """What one speaker said without a break; `start_s` and `end_s` are seconds from the begin of the audio."""

    text: str
    speaker: str
    start_s: float
    end_s: float


@runtime_checkable
class DiarizingTranscriber(Protocol):
    """A `Transcriber` that can say, too, who spoke."""

    def transcribe_speakers(self, audio: bytes, hints: TranscriptionHints) -> AsyncIterator[SpokenPart]:
        """The transcript by speakers; the texts joined are the transcript."""
        ...


# --- language ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a language model answers to. Audio parts carry their transcript. `max_output_tokens` None: no limit.

    `effort` and `is_parallel` are None where nobody asked; the first means something to models that reason only.
    """

    instructions: str
    items: tuple[Item, ...]
    tools: tuple[FunctionTool, ...] = ()
    tool_choice: ToolChoice = "auto"
    max_output_tokens: int | None = None
    effort: str | None = None
    is_parallel: bool | None = None
    temperature: float | None = None


def estimated_tokens(text: str) -> int:
    """About how many tokens a text is, where the model's own tokenizer is out of reach: four bytes each."""
    return -(-len(text.encode()) // 4)


@dataclass(frozen=True, slots=True)
class Traits:
    """What a language model is able to do."""

    context_tokens: int = 32_000
    """Tokens of input and output together that it can hold."""
    output_tokens_max: int = 4_096
    """Tokens of one answer, at most."""
    sees_images: bool = False
    reasons: bool = False
    count_tokens: Callable[[str], int] = estimated_tokens
    """Tokens of a text, by the model's tokenizer. Runs on the event loop: fast."""


@dataclass(frozen=True, slots=True)
class TextPiece:
    """More text."""

    text: str


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A function call begins; one that was open is complete."""

    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsPiece:
    """More of the open call's arguments, JSON text."""

    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The last piece. `cached_tokens` is the part of `input_tokens` that was not computed anew."""

    reason: Literal["stop", "length", "content_filter"] = "stop"
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


Piece = TextPiece | CallPiece | ArgumentsPiece | Finish


class LanguageModel(Protocol):
    """Answers. `traits` are final once it is warmed up."""

    traits: Traits

    async def warm_up(self) -> None:
        """Load, and run once."""
        ...

    def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        """The answer piece by piece, as it is written; `Finish` is the last."""
        ...

    async def close(self) -> None:
        """Free what `warm_up` took."""
        ...


@runtime_checkable
class PreparingLanguageModel(Protocol):
    """A `LanguageModel` that can compute the beginning of a prompt before the rest of it is known."""

    async def prepare(self, prompt: Prompt) -> None:
        """Instructions and history, while the user still speaks; `generate` then has that much less to do.

        Cancelling it is harmless at any time, and keeps what was done.
        """
        ...


# --- speech synthesis -------------------------------------------------------------------------------------------------


class Synthesizer(Protocol):
    """Speaks."""

    rate_hz: int

    async def warm_up(self) -> None:
        """Load, and run once."""
        ...

    def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[bytes]:
        """PCM16 mono at `rate_hz`, as it is made. `speed` 1.0 is normal; an unknown voice is the default one."""
        ...

    async def close(self) -> None:
        """Free what `warm_up` took."""
        ...


# --- together ---------------------------------------------------------------------------------------------------------


Engine = VoiceActivityDetector | Transcriber | LanguageModel | Synthesizer | TurnDetector | NoiseReducer
ROLES = ("vad", "transcriber", "language_model", "synthesizer", "turn_detector", "noise_reducer")
"""The roles in a pipeline, in the order in which they are made ready."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The engines that serve one model name."""

    name: str
    vad: VoiceActivityDetector
    transcriber: Transcriber
    language_model: LanguageModel
    synthesizer: Synthesizer
    turn_detector: TurnDetector | None = None
    """None: there is no `semantic_vad`."""
    noise_reducer: NoiseReducer | None = None
    """None: there is no noise reduction."""
    health: EngineHealth = field(default_factory=EngineHealth, compare=False, repr=False)
    """How they are doing; whoever asks them for something notes what became of it."""

    async def warm_up(self) -> None:
        """Make every engine ready, one after the other."""
        for engine in self.engines.values():
            await engine.warm_up()

    async def close(self) -> None:
        """Free every engine."""
        for engine in self.engines.values():
            await engine.close()

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The engines that there are, by role."""
        roles = {role: getattr(self, role) for role in ROLES}
        return {role: engine for role, engine in roles.items() if engine is not None}
