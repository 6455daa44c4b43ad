"""Session configuration: what a client may set, and what the server says is in force.

One struct serves both directions; every field may be absent, because an update names only what it changes. The
`*Resource` structs add what only the server may say. Reference §2.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, field

from .base import UNSET, Maybe, Strict

TEMPERATURE: Final = "vivavoce.temperature"
"""The name of the fields for what beta calls `temperature`. No message has it: GA knows no temperature (§2.1)."""

# --- audio formats (§6.1) ---------------------------------------------------------------------------------------------


class PcmFormat(Strict, frozen=True, kw_only=True, tag_field="type", tag="audio/pcm"):
    """Signed 16-bit little-endian mono PCM; 24 kHz is the only rate."""

    rate: Annotated[int, Meta(ge=24_000, le=24_000)] = 24_000


class PcmuFormat(Strict, frozen=True, kw_only=True, tag_field="type", tag="audio/pcmu"):
    """G.711 µ-law, 8 kHz."""


class PcmaFormat(Strict, frozen=True, kw_only=True, tag_field="type", tag="audio/pcma"):
    """G.711 A-law, 8 kHz."""


AudioFormat = PcmFormat | PcmuFormat | PcmaFormat

# --- audio in (§2.3, §5) ----------------------------------------------------------------------------------------------


class Transcription(Strict, frozen=True, kw_only=True):
    """Transcription of the user's audio. `model` may be any string; `language` is ISO 639-1."""

    model: Maybe[str] = UNSET
    language: Maybe[str | None] = UNSET
    languages: Maybe[Annotated[tuple[str, ...], Meta(min_length=1)]] = UNSET
    keywords: Maybe[tuple[str, ...]] = UNSET
    prompt: Maybe[str | None] = UNSET
    delay: Maybe[Literal["minimal", "low", "medium", "high", "xhigh"]] = UNSET


class NoiseReduction(Strict, frozen=True, kw_only=True):
    """Applied to the input before turn detection. `strength` keeps its value where an update leaves it out."""

    type: Literal["near_field", "far_field"]
    strength: Maybe[Annotated[float, Meta(ge=0, le=1)]] = UNSET


class ServerVad(Strict, frozen=True, kw_only=True, tag_field="type", tag="server_vad"):
    """Turns by voice activity and silence (§5.1)."""

    threshold: Maybe[Annotated[float, Meta(ge=0, le=1)]] = UNSET
    prefix_padding_ms: Maybe[Annotated[int, Meta(ge=0)]] = UNSET
    silence_duration_ms: Maybe[Annotated[int, Meta(ge=0)]] = UNSET
    idle_timeout_ms: Maybe[Annotated[int, Meta(ge=5_000, le=30_000)] | None] = UNSET
    create_response: Maybe[bool] = UNSET
    interrupt_response: Maybe[bool] = UNSET


class SemanticVad(Strict, frozen=True, kw_only=True, tag_field="type", tag="semantic_vad"):
    """Turns by whether the user seems to have finished (§5.2)."""

    eagerness: Maybe[Literal["auto", "low", "medium", "high"]] = UNSET
    create_response: Maybe[bool] = UNSET
    interrupt_response: Maybe[bool] = UNSET


TurnDetection = ServerVad | SemanticVad


class AudioInput(Strict, frozen=True, kw_only=True):
    """Everything about the user's audio."""

    format: Maybe[AudioFormat] = UNSET
    transcription: Maybe[Transcription | None] = UNSET
    noise_reduction: Maybe[NoiseReduction | None] = UNSET
    turn_detection: Maybe[TurnDetection | None] = UNSET


# --- audio out --------------------------------------------------------------------------------------------------------


class VoiceRef(Strict, frozen=True, kw_only=True):
    """A custom voice by id."""

    id: str


Voice = str | VoiceRef


class AudioOutput(Strict, frozen=True, kw_only=True):
    """Everything about the assistant's audio."""

    format: Maybe[AudioFormat] = UNSET
    voice: Maybe[Voice] = UNSET
    speed: Maybe[Annotated[float, Meta(ge=0.25, le=1.5)]] = UNSET


class AudioConfig(Strict, frozen=True, kw_only=True):
    """Audio in and out."""

    input: Maybe[AudioInput] = UNSET
    output: Maybe[AudioOutput] = UNSET


class TranscriptionAudioConfig(Strict, frozen=True, kw_only=True):
    """A transcription session has no output."""

    input: Maybe[AudioInput] = UNSET


# --- tools (§2.4) -----------------------------------------------------------------------------------------------------


class FunctionTool(Strict, frozen=True, kw_only=True, tag_field="type", tag="function"):
    """A function of the client. `parameters` is a JSON Schema object."""

    name: str
    description: Maybe[str | None] = UNSET
    parameters: Maybe[dict[str, Any] | None] = UNSET


class McpToolFilter(Strict, frozen=True, kw_only=True):
    """Some of an MCP server's tools."""

    tool_names: Maybe[tuple[str, ...]] = UNSET
    read_only: Maybe[bool] = UNSET


class McpApprovalFilter(Strict, frozen=True, kw_only=True):
    """Which tools always need an approval and which never do."""

    always: Maybe[McpToolFilter] = UNSET
    never: Maybe[McpToolFilter] = UNSET


class McpTool(Strict, frozen=True, kw_only=True, tag_field="type", tag="mcp"):
    """The tools of a remote MCP server."""

    server_label: str
    server_url: Maybe[str] = UNSET
    connector_id: Maybe[str] = UNSET
    tunnel_id: Maybe[Annotated[str, Meta(pattern=r"^tunnel_[a-z0-9]{32}$")]] = UNSET
    authorization: Maybe[str] = UNSET
    headers: Maybe[dict[str, str] | None] = UNSET
    allowed_tools: Maybe[tuple[str, ...] | McpToolFilter | None] = UNSET
    require_approval: Maybe[Literal["always", "never"] | McpApprovalFilter | None] = UNSET
    server_description: Maybe[str] = UNSET
    defer_loading: Maybe[bool] = UNSET
    allowed_callers: Maybe[tuple[Literal["direct", "programmatic"], ...]] = UNSET


Tool = FunctionTool | McpTool


class ToolChoiceFunction(Strict, frozen=True, kw_only=True, tag_field="type", tag="function"):
    """Call this function."""

    name: str


class ToolChoiceMcp(Strict, frozen=True, kw_only=True, tag_field="type", tag="mcp"):
    """Call a tool of this MCP server."""

    server_label: str
    name: Maybe[str | None] = UNSET


ToolChoice = Literal["auto", "none", "required"] | ToolChoiceFunction | ToolChoiceMcp

# --- the rest of a session --------------------------------------------------------------------------------------------

OutputModalities = Annotated[tuple[Literal["audio", "text"], ...], Meta(min_length=1, max_length=1)]
MaxOutputTokens = Annotated[int, Meta(ge=1, le=4_096)] | Literal["inf"]
StatedMaxOutputTokens = int | Literal["inf"]  # what a server states: newer models allow more than may be asked for here
Include = Literal["item.input_audio_transcription.logprobs"]


class Reasoning(Strict, frozen=True, kw_only=True):
    """For reasoning models only."""

    effort: Maybe[Literal["minimal", "low", "medium", "high", "xhigh"]] = UNSET


class TokenLimits(Strict, frozen=True, kw_only=True):
    """Own limits for the conversation's tokens."""

    post_instructions: Maybe[Annotated[int, Meta(ge=0)]] = UNSET


class RetentionRatio(Strict, frozen=True, kw_only=True, tag_field="type", tag="retention_ratio"):
    """How much of the context to keep when it has to be cut (§6.5)."""

    retention_ratio: Annotated[float, Meta(ge=0, le=1)]
    token_limits: Maybe[TokenLimits] = UNSET


Truncation = Literal["auto", "disabled"] | RetentionRatio


class TracingConfig(Strict, frozen=True, kw_only=True):
    """Names under which a session is traced."""

    workflow_name: Maybe[str] = UNSET
    group_id: Maybe[str] = UNSET
    metadata: Maybe[Any] = UNSET


Tracing = Literal["auto"] | TracingConfig


class Prompt(Strict, frozen=True, kw_only=True):
    """A stored prompt by id, with values for its variables."""

    id: str
    version: Maybe[str | None] = UNSET
    variables: Maybe[dict[str, Any] | None] = UNSET


class RealtimeSession(Strict, frozen=True, kw_only=True, tag_field="type", tag="realtime"):
    """A conversation session as a client may configure it (§2.1)."""

    model: Maybe[str] = UNSET
    output_modalities: Maybe[OutputModalities] = UNSET
    instructions: Maybe[str] = UNSET
    audio: Maybe[AudioConfig] = UNSET
    tools: Maybe[tuple[Tool, ...]] = UNSET
    tool_choice: Maybe[ToolChoice] = UNSET
    parallel_tool_calls: Maybe[bool] = UNSET
    reasoning: Maybe[Reasoning] = UNSET
    max_output_tokens: Maybe[MaxOutputTokens] = UNSET
    truncation: Maybe[Truncation] = UNSET
    tracing: Maybe[Tracing | None] = UNSET
    prompt: Maybe[Prompt | None] = UNSET
    include: Maybe[tuple[Include, ...] | None] = UNSET
    temperature: Maybe[float] = field(default=UNSET, name=TEMPERATURE)


class RealtimeSessionResource(RealtimeSession, frozen=True, kw_only=True, tag_field="type", tag="realtime"):
    """A conversation session as the server states it. `expires_at` is in unix seconds."""

    max_output_tokens: Maybe[StatedMaxOutputTokens] = UNSET
    id: Maybe[str] = UNSET
    object: Maybe[Literal["realtime.session"]] = UNSET
    expires_at: Maybe[int] = UNSET


class TranscriptionSession(Strict, frozen=True, kw_only=True, tag_field="type", tag="transcription"):
    """A transcription-only session as a client may configure it (§2.2)."""

    audio: Maybe[TranscriptionAudioConfig] = UNSET
    include: Maybe[tuple[Include, ...] | None] = UNSET


class TranscriptionSessionResource(
    TranscriptionSession, frozen=True, kw_only=True, tag_field="type", tag="transcription"
):
    """A transcription-only session as the server states it."""

    id: Maybe[str] = UNSET
    object: Maybe[Literal["realtime.transcription_session"]] = UNSET
    expires_at: Maybe[int] = UNSET


SessionConfig = RealtimeSession | TranscriptionSession
SessionResource = RealtimeSessionResource | TranscriptionSessionResource

# --- one response -----------------------------------------------------------------------------------------------------


class ResponseAudioOutput(Strict, frozen=True, kw_only=True):
    """What one response may say about its audio (no speed)."""

    format: Maybe[AudioFormat] = UNSET
    voice: Maybe[Voice] = UNSET


class ResponseAudioConfig(Strict, frozen=True, kw_only=True):
    """Audio of one response."""

    output: Maybe[ResponseAudioOutput] = UNSET


MetadataKey = Annotated[str, Meta(max_length=64)]
MetadataValue = Annotated[str, Meta(max_length=512)]
METADATA_PAIRS_MAX = 16
"""Pairs that the metadata of a response may have (reference §1.8)."""
Metadata = Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=METADATA_PAIRS_MAX)]
