"""One call of an engine: what it is asked, and what it says, as reports to the session machine.

Effect → the engine's own stream → reports, or audio in the client's format. Who calls decides when, and what becomes of
failures (`work`). Invariant: a stream that is left early is closed, and the engine's with it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from vivavoce.audio.convert import Converter
from vivavoce.audio.formats import Format, pcm16
from vivavoce.core.messages import (
    CallArguments,
    CallStarted,
    EngineReport,
    Generate,
    GenerationEnded,
    Speak,
    TextGenerated,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
    TranscriptSegment,
)
from vivavoce.engines import (
    ArgumentsPiece,
    CallPiece,
    DiarizingTranscriber,
    Finish,
    LanguageModel,
    Piece,
    Prompt,
    ScoringTranscriber,
    SpokenPart,
    Synthesizer,
    TextPiece,
    Transcriber,
    TranscriptionHints,
)

from .detection import SLICE_MS, converted, slices

CHUNK_MS = 100
"""Length of the audio deltas that a client gets (reference §8.26)."""

T = TypeVar("T")


@asynccontextmanager
async def closing(engine: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """The iterator, closed for sure when it is left early; an engine may give one that cannot be closed."""
    try:
        yield engine
    finally:
        if (close := getattr(engine, "aclose", None)) is not None:
            await close()


async def transcription(transcriber: Transcriber, wanted: Transcribe) -> AsyncGenerator[EngineReport]:
    """What was said, with the details that are wanted where the transcriber has them. Raises `EngineError`."""
    audio = await converted(wanted.audio, wanted.format, transcriber.rate_hz)
    hints, item_id = TranscriptionHints(wanted.language, wanted.prompt, wanted.keywords), wanted.item_id
    if wanted.with_speakers and isinstance(transcriber, DiarizingTranscriber):
        async with closing(transcriber.transcribe_speakers(audio, hints)) as parts:
            async for part in parts:
                for report in spoken_part(item_id, part):
                    yield report
    elif wanted.with_logprobs and isinstance(transcriber, ScoringTranscriber):
        async with closing(transcriber.transcribe_scored(audio, hints)) as pieces:
            async for text, logprobs in pieces:
                yield TranscriptDelta(item_id, text, logprobs)
    else:
        async with closing(transcriber.transcribe(audio, hints)) as texts:
            async for text in texts:
                yield TranscriptDelta(item_id, text)
    yield TranscriptEnded(item_id)


async def generation(model: LanguageModel, wanted: Generate) -> AsyncGenerator[EngineReport]:
    """The answer as it is written, to its end. Raises `EngineError`."""
    async with closing(model.generate(prompt_of(wanted))) as pieces:
        async for piece in pieces:
            yield report_of(wanted.response_id, piece)
            if isinstance(piece, Finish):
                return
    yield GenerationEnded(wanted.response_id, "stop")


async def speech(synthesizer: Synthesizer, wanted: Speak) -> AsyncGenerator[bytes]:
    """The phrase in the client's format: the first audio as soon as there is any, then in chunks."""
    source = pcm16(synthesizer.rate_hz)
    slice_bytes = source.bytes_of(SLICE_MS)
    converter = Converter(source, wanted.format)
    chunks = _Chunks(wanted.format)
    async with closing(synthesizer.speak(wanted.text, wanted.voice, wanted.speed)) as pieces:
        async for piece in pieces:
            for part in (piece,) if len(piece) <= slice_bytes else slices(piece, source):
                for chunk in chunks.push(converter.push(part)):
                    yield chunk
    for chunk in chunks.push(converter.flush()):
        yield chunk
    if rest := chunks.rest():
        yield rest


class _Chunks:
    """Cuts a stream of audio into chunks of `CHUNK_MS`; the first may be shorter, since somebody waits for it."""

    def __init__(self, format: Format) -> None:
        self._chunk_bytes = format.bytes_of(CHUNK_MS)
        self._held = bytearray()
        self._has_begun = False

    def push(self, audio: bytes) -> list[bytes]:
        if len(audio) == self._chunk_bytes and not self._held:
            self._has_begun = True
            return [audio]
        self._held += audio
        if not self._has_begun and self._held:
            self._has_begun = True
            if len(self._held) < self._chunk_bytes:
                return [self.rest()]
        whole = len(self._held) // self._chunk_bytes * self._chunk_bytes
        chunks = [bytes(self._held[at : at + self._chunk_bytes]) for at in range(0, whole, self._chunk_bytes)]
        del self._held[:whole]
        return chunks

    def rest(self) -> bytes:
        rest = bytes(self._held)
        self._held.clear()
        return rest


def spoken_part(item_id: str, part: SpokenPart) -> tuple[EngineReport, ...]:
    """What one speaker said, as reports."""
    segment = TranscriptSegment(item_id, part.text.strip(), part.speaker, part.start_s, part.end_s)
    return TranscriptDelta(item_id, part.text), segment


def prompt_of(wanted: Generate) -> Prompt:
    """What the language model is asked."""
    return Prompt(
        wanted.instructions,
        wanted.items,
        wanted.tools,
        wanted.tool_choice,
        wanted.max_output_tokens,
        wanted.effort,
        wanted.is_parallel,
        wanted.temperature,
    )


def report_of(response_id: str, piece: Piece) -> EngineReport:
    """What the language model says."""
    match piece:
        case TextPiece():
            return TextGenerated(response_id, piece.text)
        case CallPiece():
            return CallStarted(response_id, piece.name)
        case ArgumentsPiece():
            return CallArguments(response_id, piece.text)
        case Finish():
            return GenerationEnded(
                response_id, piece.reason, piece.input_tokens, piece.cached_tokens, piece.output_tokens
            )
