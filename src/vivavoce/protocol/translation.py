"""The translation session's own small vocabulary: an endless stream without turns, items or responses.

Reference §2.5, §3.14, §4.2 (translation server events), trace T18.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .base import UNSET, Maybe, Strict
from .events import ClientEvent, ErrorEvent, ServerEvent

# --- session ----------------------------------------------------------------------------------------------------------


class TranslationTranscription(Strict, frozen=True, kw_only=True):
    """Transcription of the source language."""

    model: str


class TranslationNoiseReduction(Strict, frozen=True, kw_only=True):
    """Noise reduction of the input."""

    type: Literal["near_field", "far_field"]
    strength: Maybe[Annotated[float, Meta(ge=0, le=1)]] = UNSET


class TranslationInput(Strict, frozen=True, kw_only=True):
    """The audio to translate."""

    transcription: Maybe[TranslationTranscription | None] = UNSET
    noise_reduction: Maybe[TranslationNoiseReduction | None] = UNSET


class TranslationOutput(Strict, frozen=True, kw_only=True):
    """The translated speech; `language` is ISO 639-1."""

    language: Maybe[str] = UNSET


class TranslationAudio(Strict, frozen=True, kw_only=True):
    """Audio of a translation session."""

    input: Maybe[TranslationInput] = UNSET
    output: Maybe[TranslationOutput] = UNSET


class TranslationSession(Strict, frozen=True, kw_only=True):
    """What `session.update` may change; model and type it may not."""

    audio: Maybe[TranslationAudio] = UNSET


class TranslationSessionResource(Strict, frozen=True, kw_only=True):
    """A translation session as the server states it."""

    id: str
    type: Literal["translation"]
    model: str
    expires_at: int
    audio: TranslationAudio


# --- client events ----------------------------------------------------------------------------------------------------


class TranslationSessionUpdate(ClientEvent, frozen=True, kw_only=True, tag="session.update"):
    """Change the target language, the source transcription or the noise reduction."""

    session: TranslationSession


class SessionInputAudioBufferAppend(ClientEvent, frozen=True, kw_only=True, tag="session.input_audio_buffer.append"):
    """More audio to translate: PCM16 mono 24 kHz, silence included."""

    audio: bytes


class SessionClose(ClientEvent, frozen=True, kw_only=True, tag="session.close"):
    """No more input; what is pending is still sent."""


TranslationClientEvent = TranslationSessionUpdate | SessionInputAudioBufferAppend | SessionClose

# --- server events ----------------------------------------------------------------------------------------------------


class TranslationSessionCreated(ServerEvent, frozen=True, kw_only=True, tag="session.created"):
    """The first event of a connection."""

    session: TranslationSessionResource


class TranslationSessionUpdated(ServerEvent, frozen=True, kw_only=True, tag="session.updated"):
    """The full configuration now in force."""

    session: TranslationSessionResource


class SessionClosed(ServerEvent, frozen=True, kw_only=True, tag="session.closed"):
    """Everything pending has been sent."""


class SessionInputTranscriptDelta(ServerEvent, frozen=True, kw_only=True, tag="session.input_transcript.delta"):
    """A piece of the source transcript."""

    delta: str
    elapsed_ms: Maybe[int | None] = UNSET


class SessionOutputTranscriptDelta(ServerEvent, frozen=True, kw_only=True, tag="session.output_transcript.delta"):
    """A piece of the translation."""

    delta: str
    elapsed_ms: Maybe[int | None] = UNSET


class SessionOutputAudioDelta(ServerEvent, frozen=True, kw_only=True, tag="session.output_audio.delta"):
    """A piece of the translated speech."""

    delta: bytes
    channels: Maybe[int] = UNSET
    elapsed_ms: Maybe[int | None] = UNSET
    format: Maybe[Literal["pcm16"]] = UNSET
    sample_rate: Maybe[int] = UNSET


TranslationServerEvent = (
    ErrorEvent
    | TranslationSessionCreated
    | TranslationSessionUpdated
    | SessionClosed
    | SessionInputTranscriptDelta
    | SessionOutputTranscriptDelta
    | SessionOutputAudioDelta
)
