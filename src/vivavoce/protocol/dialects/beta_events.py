"""What a beta client may send, where it differs from GA: the schema of the beta dialect. Reference §2.6, §3.

Flat sessions, `text` and `audio` as an assistant's parts, functions as the only tools. Unknown fields are errors here
as in GA, so that a GA name in a beta session is refused. `beta` translates what has passed this schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from vivavoce.protocol import config, items
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, Maybe, Strict

# --- sessions -------------------------------------------------------------------------------------------------

Format = Literal["pcm16", "g711_ulaw", "g711_alaw"]
Modalities = tuple[Literal["text", "audio"], ...]
Temperature = Annotated[float, Meta(ge=0.6, le=1.2)]


class Transcription(Strict, frozen=True, kw_only=True):
    """Transcription of the user's audio."""

    model: Maybe[str] = UNSET
    language: Maybe[str | None] = UNSET
    prompt: Maybe[str | None] = UNSET


class NoiseReduction(Strict, frozen=True, kw_only=True):
    """Noise reduction of the input."""

    type: Literal["near_field", "far_field"]


class TurnDetection(Strict, frozen=True, kw_only=True):
    """One object for every kind; what does not concern its kind has no effect. `none` means null (§5.4)."""

    type: Maybe[Literal["server_vad", "semantic_vad", "none"]] = UNSET
    threshold: Maybe[Annotated[float, Meta(ge=0, le=1)]] = UNSET
    prefix_padding_ms: Maybe[Annotated[int, Meta(ge=0)]] = UNSET
    silence_duration_ms: Maybe[Annotated[int, Meta(ge=0)]] = UNSET
    idle_timeout_ms: Maybe[Annotated[int, Meta(ge=5_000, le=30_000)] | None] = UNSET
    eagerness: Maybe[Literal["auto", "low", "medium", "high"]] = UNSET
    create_response: Maybe[bool] = UNSET
    interrupt_response: Maybe[bool] = UNSET


class FunctionName(Strict, frozen=True, kw_only=True):
    """The name inside a tool choice."""

    name: str


class ToolChoice(Strict, frozen=True, kw_only=True, tag_field="type", tag="function"):
    """Call this function: its name nested, or flat as GA has it."""

    function: Maybe[FunctionName] = UNSET
    name: Maybe[str] = UNSET


class TranscriptionSession(Strict, frozen=True, kw_only=True):
    """What `transcription_session.update` may set."""

    modalities: Maybe[Modalities] = UNSET
    input_audio_format: Maybe[Format] = UNSET
    input_audio_transcription: Maybe[Transcription | None] = UNSET
    input_audio_noise_reduction: Maybe[NoiseReduction | None] = UNSET
    turn_detection: Maybe[TurnDetection | None] = UNSET
    include: Maybe[tuple[config.Include, ...] | None] = UNSET
    client_secret: Maybe[dict[str, Any] | None] = UNSET


class Session(Strict, frozen=True, kw_only=True):
    """What `session.update` may set."""

    model: Maybe[str] = UNSET
    modalities: Maybe[Modalities] = UNSET
    instructions: Maybe[str] = UNSET
    voice: Maybe[str] = UNSET
    input_audio_format: Maybe[Format] = UNSET
    output_audio_format: Maybe[Format] = UNSET
    input_audio_transcription: Maybe[Transcription | None] = UNSET
    input_audio_noise_reduction: Maybe[NoiseReduction | None] = UNSET
    turn_detection: Maybe[TurnDetection | None] = UNSET
    tools: Maybe[tuple[config.FunctionTool, ...]] = UNSET
    tool_choice: Maybe[Literal["auto", "none", "required"] | ToolChoice] = UNSET
    temperature: Maybe[Temperature] = UNSET
    max_response_output_tokens: Maybe[config.MaxOutputTokens] = UNSET
    speed: Maybe[Annotated[float, Meta(ge=0.25, le=1.5)]] = UNSET
    tracing: Maybe[config.Tracing | None] = UNSET
    prompt: Maybe[config.Prompt | None] = UNSET
    truncation: Maybe[config.Truncation] = UNSET
    include: Maybe[tuple[config.Include, ...] | None] = UNSET
    client_secret: Maybe[dict[str, Any] | None] = UNSET


# --- items and client events ----------------------------------------------------------------------------------


class Text(Strict, frozen=True, kw_only=True, tag_field="type", tag="text"):
    """Text of an assistant message."""

    text: str


class Audio(Strict, frozen=True, kw_only=True, tag_field="type", tag="audio"):
    """Speech of an assistant message."""

    audio: Maybe[bytes | None] = UNSET
    transcript: Maybe[str | None] = UNSET


class Message(Strict, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """Something said by a role. GA's names for an assistant's parts are understood as well."""

    id: Maybe[str] = UNSET
    object: Maybe[Literal["realtime.item"]] = UNSET
    status: Maybe[items.ItemStatus] = UNSET
    role: items.Role
    content: tuple[items.InputText | items.InputAudio | Text | Audio | items.OutputText | items.OutputAudio, ...]


Item = Message | items.FunctionCall | items.FunctionCallOutput


class ResponseParams(Strict, frozen=True, kw_only=True):
    """What one response does otherwise than the session says. The token limit goes by two names, of which one."""

    conversation: Maybe[Literal["auto", "none"]] = UNSET
    input: Maybe[tuple[Item | items.ItemReference, ...]] = UNSET
    instructions: Maybe[str] = UNSET
    modalities: Maybe[Modalities] = UNSET
    voice: Maybe[str] = UNSET
    output_audio_format: Maybe[Format] = UNSET
    tools: Maybe[tuple[config.FunctionTool, ...]] = UNSET
    tool_choice: Maybe[Literal["auto", "none", "required"] | ToolChoice] = UNSET
    temperature: Maybe[Temperature] = UNSET
    max_response_output_tokens: Maybe[config.MaxOutputTokens] = UNSET
    max_output_tokens: Maybe[config.MaxOutputTokens] = UNSET
    prompt: Maybe[config.Prompt | None] = UNSET
    metadata: Maybe[config.Metadata | None] = UNSET


class SessionUpdate(ev.ClientEvent, frozen=True, kw_only=True, tag="session.update"):
    """Change the given fields of the session."""

    session: Session


class TranscriptionSessionUpdate(ev.ClientEvent, frozen=True, kw_only=True, tag="transcription_session.update"):
    """Change the given fields of a transcription session."""

    session: TranscriptionSession


class ConversationItemCreate(ev.ClientEvent, frozen=True, kw_only=True, tag="conversation.item.create"):
    """Put an item into the conversation."""

    item: Item
    previous_item_id: Maybe[str | None] = UNSET


class ResponseCreate(ev.ClientEvent, frozen=True, kw_only=True, tag="response.create"):
    """Ask for an answer."""

    response: Maybe[ResponseParams] = UNSET


ClientEvent = (
    SessionUpdate
    | TranscriptionSessionUpdate
    | ev.InputAudioBufferAppend
    | ev.InputAudioBufferCommit
    | ev.InputAudioBufferClear
    | ConversationItemCreate
    | ev.ConversationItemTruncate
    | ev.ConversationItemDelete
    | ev.ConversationItemRetrieve
    | ResponseCreate
    | ev.ResponseCancel
    | ev.OutputAudioBufferClear
)
Translated = SessionUpdate | TranscriptionSessionUpdate | ConversationItemCreate | ResponseCreate
PARTS_OF_ROLE: Final = {
    "user": ("input_text", "input_audio"),
    "system": ("input_text",),
    "assistant": ("text", "audio", "output_text", "output_audio"),
}
