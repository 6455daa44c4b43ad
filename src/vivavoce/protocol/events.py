"""Every event of the GA dialect: what a client may send and what a server may say. Reference §3 and §4.

Audio is `bytes` here; base64 exists only on the wire. Client events refuse unknown fields, server events ignore them
(the whole frame stays in `raw`). `Unknown` stands for a server event that this version has no struct for.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from .base import UNSET, Maybe, Strict
from .config import (
    TEMPERATURE,
    MaxOutputTokens,
    Metadata,
    OutputModalities,
    Prompt,
    Reasoning,
    ResponseAudioConfig,
    SessionConfig,
    SessionResource,
    Tool,
    ToolChoice,
)
from .items import InputItem, Item, Response

EventId = Annotated[str, Meta(max_length=512)]


def _event_type(cls: type[msgspec.Struct]) -> str:
    return str(cls.__struct_config__.tag)


class ClientEvent(Strict, frozen=True, kw_only=True, tag_field="type"):
    """What a client sends. `event_id` comes back in `error.event_id` when the event is refused, and nowhere else."""

    event_id: Maybe[EventId] = UNSET

    @property
    def type(self) -> str:
        """The event's name on the wire."""
        return _event_type(type(self))


class ServerEvent(msgspec.Struct, frozen=True, kw_only=True, dict=True, repr_omit_defaults=True, tag_field="type"):
    """What a server says. `raw` is the frame that it was decoded from, empty for one that was made here."""

    event_id: str = ""

    @property
    def type(self) -> str:
        """The event's name on the wire."""
        return _event_type(type(self))

    @property
    def raw(self) -> bytes:
        """The frame as it came, with every field that this version does not know."""
        frame = self.__dict__.get("raw_frame", b"")
        return frame.encode(errors="surrogatepass") if isinstance(frame, str) else bytes(frame)


# --- client events (§3) -----------------------------------------------------------------------------------------------


class SessionUpdate(ClientEvent, frozen=True, kw_only=True, tag="session.update"):
    """Change the given fields of the session (§3.3)."""

    session: SessionConfig


class InputAudioBufferAppend(ClientEvent, frozen=True, kw_only=True, tag="input_audio_buffer.append"):
    """More of the user's audio, raw samples in the session's input format (§3.4)."""

    audio: bytes


class InputAudioBufferCommit(ClientEvent, frozen=True, kw_only=True, tag="input_audio_buffer.commit"):
    """Make a user item of the buffer (§3.5)."""


class InputAudioBufferClear(ClientEvent, frozen=True, kw_only=True, tag="input_audio_buffer.clear"):
    """Forget the buffer (§3.6)."""


class OutputAudioBufferClear(ClientEvent, frozen=True, kw_only=True, tag="output_audio_buffer.clear"):
    """Stop playback; WebRTC and SIP only (§3.7)."""


class ConversationItemCreate(ClientEvent, frozen=True, kw_only=True, tag="conversation.item.create"):
    """Put an item into the conversation (§3.8). `previous_item_id`: an id, "root", or absent for the end."""

    item: Item
    previous_item_id: Maybe[str | None] = UNSET


class ConversationItemDelete(ClientEvent, frozen=True, kw_only=True, tag="conversation.item.delete"):
    """Take an item out of the conversation (§3.9)."""

    item_id: str


class ConversationItemRetrieve(ClientEvent, frozen=True, kw_only=True, tag="conversation.item.retrieve"):
    """Ask for the server's copy of an item (§3.10)."""

    item_id: str


class ConversationItemTruncate(ClientEvent, frozen=True, kw_only=True, tag="conversation.item.truncate"):
    """Cut an assistant's speech at what was heard (§3.11)."""

    item_id: str
    content_index: Annotated[int, Meta(ge=0)]
    audio_end_ms: Annotated[int, Meta(ge=0)]


class ResponseParams(Strict, frozen=True, kw_only=True):
    """What one response does otherwise than the session says (§3.12)."""

    conversation: Maybe[Literal["auto", "none"]] = UNSET
    input: Maybe[tuple[InputItem, ...]] = UNSET
    instructions: Maybe[str] = UNSET
    tools: Maybe[tuple[Tool, ...]] = UNSET
    tool_choice: Maybe[ToolChoice] = UNSET
    output_modalities: Maybe[OutputModalities] = UNSET
    max_output_tokens: Maybe[MaxOutputTokens] = UNSET
    prompt: Maybe[Prompt | None] = UNSET
    parallel_tool_calls: Maybe[bool] = UNSET
    reasoning: Maybe[Reasoning] = UNSET
    audio: Maybe[ResponseAudioConfig] = UNSET
    metadata: Maybe[Metadata | None] = UNSET
    temperature: Maybe[float] = msgspec.field(default=UNSET, name=TEMPERATURE)


class ResponseCreate(ClientEvent, frozen=True, kw_only=True, tag="response.create"):
    """Ask for an answer (§3.12)."""

    response: Maybe[ResponseParams] = UNSET


class ResponseCancel(ClientEvent, frozen=True, kw_only=True, tag="response.cancel"):
    """Stop an answer (§3.13)."""

    response_id: Maybe[str] = UNSET


AnyClientEvent = (
    SessionUpdate
    | InputAudioBufferAppend
    | InputAudioBufferCommit
    | InputAudioBufferClear
    | OutputAudioBufferClear
    | ConversationItemCreate
    | ConversationItemDelete
    | ConversationItemRetrieve
    | ConversationItemTruncate
    | ResponseCreate
    | ResponseCancel
)

# --- parts of server events -------------------------------------------------------------------------------------------


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong. `param` is the dotted path of the field, `event_id` that of the client event to blame."""

    type: str
    code: Maybe[str | None] = None
    message: str
    param: Maybe[str | None] = None
    event_id: Maybe[str | None] = None


class ErrorInOwnWords(ErrorDetail, frozen=True, kw_only=True):
    """An error that speaks the client's dialect already: its `param` is a path that the client itself has used."""


class ConversationResource(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as such."""

    id: Maybe[str] = UNSET
    object: Maybe[str] = UNSET


class ContentPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part as the `content_part` events state it: type `text` or `audio` in both dialects."""

    type: Maybe[Literal["text", "audio"]] = UNSET
    text: Maybe[str] = UNSET
    audio: Maybe[bytes] = UNSET
    transcript: Maybe[str] = UNSET


class LogProb(msgspec.Struct, frozen=True, kw_only=True):
    """Log probability of one token."""

    token: str
    bytes: list[int]
    logprob: float


class DetectedLanguage(msgspec.Struct, frozen=True, kw_only=True):
    """A language that was heard."""

    code: str


class TranscriptionTokenDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Input tokens of a transcription by modality."""

    text_tokens: Maybe[int] = UNSET
    audio_tokens: Maybe[int] = UNSET


class TokensUsage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="tokens"):
    """A transcription counted in tokens."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_token_details: Maybe[TranscriptionTokenDetails] = UNSET


class DurationUsage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="duration"):
    """A transcription counted in seconds of audio."""

    seconds: float


TranscriptionUsage = TokensUsage | DurationUsage


class TranscriptionError(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no transcript."""

    type: Maybe[str] = UNSET
    code: Maybe[str | None] = UNSET
    message: Maybe[str | None] = UNSET
    param: Maybe[str | None] = UNSET


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit."""

    name: Maybe[Literal["requests", "tokens"]] = UNSET
    limit: Maybe[int] = UNSET
    remaining: Maybe[int] = UNSET
    reset_seconds: Maybe[float] = UNSET


# --- server events (§4.2) ---------------------------------------------------------------------------------------------


class ErrorEvent(ServerEvent, frozen=True, kw_only=True, tag="error"):
    """A client's mistake or the server's failure; the session goes on (§3.2)."""

    error: ErrorDetail


class SessionCreated(ServerEvent, frozen=True, kw_only=True, tag="session.created"):
    """The first event of a connection."""

    session: SessionResource


class SessionUpdated(ServerEvent, frozen=True, kw_only=True, tag="session.updated"):
    """The full configuration now in force."""

    session: SessionResource


class ConversationCreated(ServerEvent, frozen=True, kw_only=True, tag="conversation.created"):
    """Beta only, right after `session.created`."""

    conversation: ConversationResource


class ConversationItemCreated(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.created"):
    """Beta's single announcement of an item; GA says added and done."""

    item: Item
    previous_item_id: Maybe[str | None] = UNSET


class ConversationItemAdded(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.added"):
    """An item entered the default conversation."""

    item: Item
    previous_item_id: Maybe[str | None] = UNSET


class ConversationItemDone(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.done"):
    """An item is final, late input transcripts aside."""

    item: Item
    previous_item_id: Maybe[str | None] = UNSET


class ConversationItemDeleted(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.deleted"):
    """Answer to delete."""

    item_id: str


class ConversationItemRetrieved(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.retrieved"):
    """Answer to retrieve; carries the stored audio."""

    item: Item


class ConversationItemTruncated(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.truncated"):
    """Audio behind `audio_end_ms` and the whole transcript of the part are gone."""

    item_id: str
    content_index: int
    audio_end_ms: int


class ConversationItemInputAudioTranscriptionDelta(
    ServerEvent, frozen=True, kw_only=True, tag="conversation.item.input_audio_transcription.delta"
):
    """A piece of the transcript of the user's audio."""

    item_id: str
    content_index: Maybe[int] = UNSET
    delta: Maybe[str] = UNSET
    logprobs: Maybe[tuple[LogProb, ...] | None] = UNSET


class ConversationItemInputAudioTranscriptionCompleted(
    ServerEvent, frozen=True, kw_only=True, tag="conversation.item.input_audio_transcription.completed"
):
    """The transcript of the user's audio."""

    item_id: str
    content_index: int
    transcript: str
    usage: TranscriptionUsage
    logprobs: Maybe[tuple[LogProb, ...] | None] = UNSET
    languages: Maybe[tuple[DetectedLanguage, ...] | None] = UNSET


class ConversationItemInputAudioTranscriptionFailed(
    ServerEvent, frozen=True, kw_only=True, tag="conversation.item.input_audio_transcription.failed"
):
    """There will be no transcript of this item."""

    item_id: str
    content_index: int
    error: TranscriptionError


class ConversationItemInputAudioTranscriptionSegment(
    ServerEvent, frozen=True, kw_only=True, tag="conversation.item.input_audio_transcription.segment"
):
    """A diarized stretch; `start` and `end` in seconds."""

    id: str
    item_id: str
    content_index: int
    text: str
    speaker: str
    start: float
    end: float


class InputAudioBufferCommitted(ServerEvent, frozen=True, kw_only=True, tag="input_audio_buffer.committed"):
    """The buffer became a user item."""

    item_id: str
    previous_item_id: Maybe[str | None] = UNSET


class InputAudioBufferCleared(ServerEvent, frozen=True, kw_only=True, tag="input_audio_buffer.cleared"):
    """Answer to clear."""


class InputAudioBufferSpeechStarted(ServerEvent, frozen=True, kw_only=True, tag="input_audio_buffer.speech_started"):
    """A turn began; `item_id` is the id that its item will have."""

    item_id: str
    audio_start_ms: int


class InputAudioBufferSpeechStopped(ServerEvent, frozen=True, kw_only=True, tag="input_audio_buffer.speech_stopped"):
    """A turn ended."""

    item_id: str
    audio_end_ms: int


class InputAudioBufferTimeoutTriggered(
    ServerEvent, frozen=True, kw_only=True, tag="input_audio_buffer.timeout_triggered"
):
    """Nobody spoke for `idle_timeout_ms`."""

    item_id: str
    audio_start_ms: int
    audio_end_ms: int


class OutputAudioBufferStarted(ServerEvent, frozen=True, kw_only=True, tag="output_audio_buffer.started"):
    """WebRTC and SIP: playback of the response began."""

    response_id: str


class OutputAudioBufferStopped(ServerEvent, frozen=True, kw_only=True, tag="output_audio_buffer.stopped"):
    """WebRTC and SIP: playback drained."""

    response_id: str


class OutputAudioBufferCleared(ServerEvent, frozen=True, kw_only=True, tag="output_audio_buffer.cleared"):
    """WebRTC and SIP: playback was cut."""

    response_id: str


class ResponseCreated(ServerEvent, frozen=True, kw_only=True, tag="response.created"):
    """The first event of a response."""

    response: Response


class ResponseDone(ServerEvent, frozen=True, kw_only=True, tag="response.done"):
    """The last event of a response, whatever the outcome; without audio bytes."""

    response: Response


class ResponseOutputItemAdded(ServerEvent, frozen=True, kw_only=True, tag="response.output_item.added"):
    """A new item in the response."""

    response_id: str
    output_index: int
    item: Item


class ResponseOutputItemDone(ServerEvent, frozen=True, kw_only=True, tag="response.output_item.done"):
    """The item is final."""

    response_id: str
    output_index: int
    item: Item


class ResponseContentPartAdded(ServerEvent, frozen=True, kw_only=True, tag="response.content_part.added"):
    """A new part in the item."""

    response_id: str
    item_id: str
    output_index: int
    content_index: int
    part: ContentPart


class ResponseContentPartDone(ServerEvent, frozen=True, kw_only=True, tag="response.content_part.done"):
    """The part is final."""

    response_id: str
    item_id: str
    output_index: int
    content_index: int
    part: ContentPart


class ResponseOutputTextDelta(ServerEvent, frozen=True, kw_only=True, tag="response.output_text.delta"):
    """A piece of text."""

    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: str


class ResponseOutputTextDone(ServerEvent, frozen=True, kw_only=True, tag="response.output_text.done"):
    """The whole text."""

    response_id: str
    item_id: str
    output_index: int
    content_index: int
    text: str


class ResponseOutputAudioDelta(ServerEvent, frozen=True, kw_only=True, tag="response.output_audio.delta"):
    """A piece of speech, raw samples in the output format."""

    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: bytes


class ResponseOutputAudioDone(ServerEvent, frozen=True, kw_only=True, tag="response.output_audio.done"):
    """The speech is complete."""

    response_id: str
    item_id: str
    output_index: int
    content_index: int


class ResponseOutputAudioTranscriptDelta(
    ServerEvent, frozen=True, kw_only=True, tag="response.output_audio_transcript.delta"
):
    """A piece of what the speech says."""

    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: str


class ResponseOutputAudioTranscriptDone(
    ServerEvent, frozen=True, kw_only=True, tag="response.output_audio_transcript.done"
):
    """All that the speech says."""

    response_id: str
    item_id: str
    output_index: int
    content_index: int
    transcript: str


class ResponseFunctionCallArgumentsDelta(
    ServerEvent, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"
):
    """A piece of the arguments' JSON text."""

    response_id: str
    item_id: str
    output_index: int
    call_id: str
    delta: str


class ResponseFunctionCallArgumentsDone(
    ServerEvent, frozen=True, kw_only=True, tag="response.function_call_arguments.done"
):
    """The whole JSON text; `name` is absent in beta."""

    response_id: str
    item_id: str
    output_index: int
    call_id: str
    arguments: str
    name: Maybe[str] = UNSET


class ResponseMcpCallArgumentsDelta(ServerEvent, frozen=True, kw_only=True, tag="response.mcp_call_arguments.delta"):
    """A piece of an MCP call's arguments."""

    response_id: str
    item_id: str
    output_index: int
    delta: str
    obfuscation: Maybe[str | None] = UNSET


class ResponseMcpCallArgumentsDone(ServerEvent, frozen=True, kw_only=True, tag="response.mcp_call_arguments.done"):
    """An MCP call's whole arguments."""

    response_id: str
    item_id: str
    output_index: int
    arguments: str


class ResponseMcpCallInProgress(ServerEvent, frozen=True, kw_only=True, tag="response.mcp_call.in_progress"):
    """The MCP call runs."""

    item_id: str
    output_index: int


class ResponseMcpCallCompleted(ServerEvent, frozen=True, kw_only=True, tag="response.mcp_call.completed"):
    """The MCP call succeeded."""

    item_id: str
    output_index: int


class ResponseMcpCallFailed(ServerEvent, frozen=True, kw_only=True, tag="response.mcp_call.failed"):
    """The MCP call failed."""

    item_id: str
    output_index: int


class McpListToolsInProgress(ServerEvent, frozen=True, kw_only=True, tag="mcp_list_tools.in_progress"):
    """The tools are being listed."""

    item_id: str


class McpListToolsCompleted(ServerEvent, frozen=True, kw_only=True, tag="mcp_list_tools.completed"):
    """The tools are known."""

    item_id: str


class McpListToolsFailed(ServerEvent, frozen=True, kw_only=True, tag="mcp_list_tools.failed"):
    """The tools could not be listed."""

    item_id: str


class RateLimitsUpdated(ServerEvent, frozen=True, kw_only=True, tag="rate_limits.updated"):
    """What is left of the limits."""

    rate_limits: tuple[RateLimit, ...]


class InputAudioBufferDtmfEventReceived(
    ServerEvent, frozen=True, kw_only=True, omit_defaults=True, tag="input_audio_buffer.dtmf_event_received"
):
    """SIP: a key was pressed. The one event without an `event_id`; `received_at` is in unix seconds."""

    event: str
    received_at: int


class Unknown(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A server event of a type, or in a shape, that this version does not know; `fields` is the whole of it."""

    kind: str
    fields: dict[str, Any]
    event_id: str = ""
    raw: bytes = b""

    @property
    def type(self) -> str:
        """The event's name on the wire."""
        return self.kind


AnyServerEvent = (
    ErrorEvent
    | SessionCreated
    | SessionUpdated
    | ConversationCreated
    | ConversationItemCreated
    | ConversationItemAdded
    | ConversationItemDone
    | ConversationItemDeleted
    | ConversationItemRetrieved
    | ConversationItemTruncated
    | ConversationItemInputAudioTranscriptionDelta
    | ConversationItemInputAudioTranscriptionCompleted
    | ConversationItemInputAudioTranscriptionFailed
    | ConversationItemInputAudioTranscriptionSegment
    | InputAudioBufferCommitted
    | InputAudioBufferCleared
    | InputAudioBufferSpeechStarted
    | InputAudioBufferSpeechStopped
    | InputAudioBufferTimeoutTriggered
    | OutputAudioBufferStarted
    | OutputAudioBufferStopped
    | OutputAudioBufferCleared
    | ResponseCreated
    | ResponseDone
    | ResponseOutputItemAdded
    | ResponseOutputItemDone
    | ResponseContentPartAdded
    | ResponseContentPartDone
    | ResponseOutputTextDelta
    | ResponseOutputTextDone
    | ResponseOutputAudioDelta
    | ResponseOutputAudioDone
    | ResponseOutputAudioTranscriptDelta
    | ResponseOutputAudioTranscriptDone
    | ResponseFunctionCallArgumentsDelta
    | ResponseFunctionCallArgumentsDone
    | ResponseMcpCallArgumentsDelta
    | ResponseMcpCallArgumentsDone
    | ResponseMcpCallInProgress
    | ResponseMcpCallCompleted
    | ResponseMcpCallFailed
    | McpListToolsInProgress
    | McpListToolsCompleted
    | McpListToolsFailed
    | RateLimitsUpdated
    | InputAudioBufferDtmfEventReceived
)
