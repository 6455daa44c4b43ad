"""The body: what a model has to be, so that a pipeline can use it.

An engine is built cheaply from its options (see `registry`), made ready by `warm_up`, used by any number of sessions at
once, and ended by `close`. Heavy imports happen in `warm_up`, never at import. What fails raises `EngineError`.
Cancelling the task that iterates an engine must stop its work soon; what it still says is dropped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from vivavoce.protocol.config import Tool, ToolChoice
from vivavoce.protocol.items import Item

__all__ = [
    "ArgumentsPiece",
    "CallPiece",
    "Finish",
    "LanguageModel",
    "Piece",
    "Pipeline",
    "Prompt",
    "Synthesizer",
    "TextPiece",
    "Transcriber",
    "TranscriptionHints",
    "VoiceActivityDetector",
    "VoiceActivityStream",
]

# --- voice activity ---------------------------------------------------------------------------------------------------


class VoiceActivityStream(Protocol):
    """Speech detection in one stream of audio."""

    def push(self, audio: bytes) -> Sequence[float]:
        """Take PCM16 mono at the detector's `rate_hz`; give one probability per completed frame of `frame_ms`.

        An incomplete frame is kept for the next call. Runs on the event loop: under a millisecond per 32 ms of audio.
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


# --- speech recognition -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TranscriptionHints:
    """What the client said about the audio: ISO 639-1 language, free text to lean on."""

    language: str | None = None
    prompt: str | None = None


class Transcriber(Protocol):
    """Writes down what was said."""

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


# --- language ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a language model answers to. Audio parts carry their transcript. `max_output_tokens` None: no limit."""

    instructions: str
    items: tuple[Item, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    max_output_tokens: int | None = None


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

    reason: Literal["stop", "length"] = "stop"
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


Piece = TextPiece | CallPiece | ArgumentsPiece | Finish


class LanguageModel(Protocol):
    """Answers."""

    async def warm_up(self) -> None:
        """Load, and run once."""
        ...

    def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        """The answer piece by piece, as it is written; `Finish` is the last."""
        ...

    async def close(self) -> None:
        """Free what `warm_up` took."""
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


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The engines that serve one model name."""

    name: str
    vad: VoiceActivityDetector
    transcriber: Transcriber
    language_model: LanguageModel
    synthesizer: Synthesizer

    async def warm_up(self) -> None:
        """Make every engine ready, one after the other."""
        for engine in (self.vad, self.transcriber, self.language_model, self.synthesizer):
            await engine.warm_up()

    async def close(self) -> None:
        """Free every engine."""
        for engine in (self.vad, self.transcriber, self.language_model, self.synthesizer):
            await engine.close()
