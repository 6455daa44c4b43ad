"""Conversation items and their content parts, and the response resource that lists them.

Items are frozen snapshots: what is said about an item at one moment. Reference §2.7 (items), §4.3 (response).
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from .base import UNSET, Maybe, Strict, given
from .config import TEMPERATURE, AudioFormat, Metadata, StatedMaxOutputTokens, Voice

if TYPE_CHECKING:
    from .waterfall import Waterfall

ItemStatus = Literal["completed", "incomplete", "in_progress"]
Role = Literal["user", "assistant", "system"]

# --- content parts ----------------------------------------------------------------------------------------------------


class InputText(Strict, frozen=True, kw_only=True, tag_field="type", tag="input_text"):
    """Text of a user or system message."""

    text: str


class InputAudio(Strict, frozen=True, kw_only=True, tag_field="type", tag="input_audio"):
    """Audio of a user message, raw samples in the session's input format."""

    audio: Maybe[bytes | None] = UNSET
    transcript: Maybe[str | None] = UNSET


class InputImage(Strict, frozen=True, kw_only=True, tag_field="type", tag="input_image"):
    """An image as a data URI (PNG or JPEG)."""

    image_url: str
    detail: Maybe[Literal["auto", "low", "high"]] = UNSET


class OutputText(Strict, frozen=True, kw_only=True, tag_field="type", tag="output_text"):
    """Text of an assistant message."""

    text: str


class OutputAudio(Strict, frozen=True, kw_only=True, tag_field="type", tag="output_audio"):
    """Speech of an assistant message: audio in the output format, and what it says."""

    audio: Maybe[bytes | None] = UNSET
    transcript: Maybe[str | None] = UNSET


class UnknownPart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="vivavoce.unknown_part"):
    """A content part of a type that this version does not know; `fields` is the whole of it."""

    fields: dict[str, Any] = {}


Content = InputText | InputAudio | InputImage | OutputText | OutputAudio | UnknownPart

# --- items ------------------------------------------------------------------------------------------------------------


class Message(Strict, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """Something said by a role."""

    id: Maybe[str] = UNSET
    object: Maybe[Literal["realtime.item"]] = UNSET
    status: Maybe[ItemStatus] = UNSET
    role: Role
    content: tuple[Content, ...]


class FunctionCall(Strict, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    """The model calls a function of the client; `arguments` is JSON text."""

    id: Maybe[str] = UNSET
    object: Maybe[Literal["realtime.item"]] = UNSET
    status: Maybe[ItemStatus] = UNSET
    call_id: Maybe[Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]+$")]] = UNSET
    name: str
    arguments: str


class FunctionCallOutput(Strict, frozen=True, kw_only=True, tag_field="type", tag="function_call_output"):
    """What the function answered."""

    id: Maybe[str] = UNSET
    object: Maybe[Literal["realtime.item"]] = UNSET
    status: Maybe[ItemStatus] = UNSET
    call_id: str
    output: str


class McpListedTool(Strict, frozen=True, kw_only=True):
    """One tool of an MCP server."""

    name: str
    input_schema: Any
    description: Maybe[str | None] = UNSET
    annotations: Maybe[Any] = UNSET


class McpListTools(Strict, frozen=True, kw_only=True, tag_field="type", tag="mcp_list_tools"):
    """The tools that an MCP server offers."""

    id: Maybe[str] = UNSET
    server_label: str
    tools: tuple[McpListedTool, ...]


class McpProtocolError(Strict, frozen=True, kw_only=True, tag_field="type", tag="protocol_error"):
    """The MCP server broke its protocol."""

    code: int
    message: str


class McpToolExecutionError(Strict, frozen=True, kw_only=True, tag_field="type", tag="tool_execution_error"):
    """The tool itself failed."""

    message: str


class McpHttpError(Strict, frozen=True, kw_only=True, tag_field="type", tag="http_error"):
    """The MCP server answered with an HTTP error."""

    code: int
    message: str


McpError = McpProtocolError | McpToolExecutionError | McpHttpError


class McpCall(Strict, frozen=True, kw_only=True, tag_field="type", tag="mcp_call"):
    """A call of an MCP tool, made by the server."""

    id: Maybe[str] = UNSET
    server_label: str
    name: str
    arguments: str
    output: Maybe[str | None] = UNSET
    error: Maybe[McpError | None] = UNSET
    approval_request_id: Maybe[str | None] = UNSET


class McpApprovalRequest(Strict, frozen=True, kw_only=True, tag_field="type", tag="mcp_approval_request"):
    """The server asks whether it may call an MCP tool."""

    id: Maybe[str] = UNSET
    server_label: str
    name: str
    arguments: str


class McpApprovalResponse(Strict, frozen=True, kw_only=True, tag_field="type", tag="mcp_approval_response"):
    """The client's answer to an approval request."""

    id: Maybe[str] = UNSET
    approval_request_id: str
    approve: bool
    reason: Maybe[str | None] = UNSET


class UnknownItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="vivavoce.unknown_item"):
    """An item of a type that this version does not know; `fields` is the whole of it."""

    id: Maybe[str] = UNSET
    fields: dict[str, Any] = {}


class ItemReference(Strict, frozen=True, kw_only=True, tag_field="type", tag="item_reference"):
    """Stands for an item of the conversation in `response.create.input`."""

    id: str


Item = (
    Message
    | FunctionCall
    | FunctionCallOutput
    | McpListTools
    | McpCall
    | McpApprovalRequest
    | McpApprovalResponse
    | UnknownItem
)
InputItem = Item | ItemReference

# --- response resource (§4.3, §6.4) -----------------------------------------------------------------------------------

ResponseStatus = Literal["in_progress", "completed", "cancelled", "incomplete", "failed"]


class ResponseError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a response failed."""

    type: Maybe[str] = UNSET
    code: Maybe[str | None] = UNSET
    message: Maybe[str | None] = UNSET


class StatusDetails(msgspec.Struct, frozen=True, kw_only=True):
    """More about a final status. `reason` for cancelled and incomplete, `error` for failed."""

    type: Maybe[str] = UNSET
    reason: Maybe[str] = UNSET
    error: Maybe[ResponseError | None] = UNSET


class CachedTokenDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Cached input tokens by modality."""

    text_tokens: Maybe[int] = UNSET
    audio_tokens: Maybe[int] = UNSET
    image_tokens: Maybe[int] = UNSET


class InputTokenDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Input tokens by modality; cached ones are a subset."""

    text_tokens: Maybe[int] = UNSET
    audio_tokens: Maybe[int] = UNSET
    image_tokens: Maybe[int] = UNSET
    cached_tokens: Maybe[int] = UNSET
    cached_tokens_details: Maybe[CachedTokenDetails] = UNSET


class OutputTokenDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Output tokens by modality."""

    text_tokens: Maybe[int] = UNSET
    audio_tokens: Maybe[int] = UNSET


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one response: total = input + output."""

    total_tokens: Maybe[int] = UNSET
    input_tokens: Maybe[int] = UNSET
    output_tokens: Maybe[int] = UNSET
    input_token_details: Maybe[InputTokenDetails] = UNSET
    output_token_details: Maybe[OutputTokenDetails] = UNSET


class AudioOutputResource(msgspec.Struct, frozen=True, kw_only=True):
    """Audio settings that a response ran with."""

    format: Maybe[AudioFormat] = UNSET
    voice: Maybe[Voice] = UNSET


class ResponseAudioResource(msgspec.Struct, frozen=True, kw_only=True):
    """Audio settings that a response ran with."""

    output: Maybe[AudioOutputResource] = UNSET


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of the assistant, as `response.created` and `response.done` state it."""

    object: Literal["realtime.response"] = "realtime.response"
    id: str
    status: Maybe[ResponseStatus] = UNSET
    status_details: Maybe[StatusDetails | None] = UNSET
    output: tuple[Item, ...] = ()
    conversation_id: Maybe[str | None] = UNSET
    output_modalities: Maybe[tuple[Literal["audio", "text"], ...]] = UNSET
    max_output_tokens: Maybe[StatedMaxOutputTokens] = UNSET
    audio: Maybe[ResponseAudioResource] = UNSET
    usage: Maybe[Usage | None] = UNSET
    metadata: Maybe[Metadata | None] = UNSET
    temperature: Maybe[float] = msgspec.field(default=UNSET, name=TEMPERATURE)

    @property
    def waterfall(self) -> Waterfall | None:
        """Where its time went, as the server measured it; None where it was not asked to tell, or cannot."""
        from .waterfall import waterfall_of

        return waterfall_of(given(self.metadata, None))


# --- factories --------------------------------------------------------------------------------------------------------


def user_message(*parts: str | bytes | Content, id: Maybe[str] = UNSET) -> Message:
    """What the user said: text, speech as raw samples in the session's input format, or any part."""
    return Message(id=id, role="user", content=tuple(map(_input_part, parts)))


def system_message(text: str, *, id: Maybe[str] = UNSET) -> Message:
    """What the model is told by the application."""
    return Message(id=id, role="system", content=(InputText(text=text),))


def assistant_message(text: str, *, id: Maybe[str] = UNSET) -> Message:
    """What the assistant is to have said."""
    return Message(id=id, role="assistant", content=(OutputText(text=text),))


def function_call(name: str, arguments: str, *, call_id: str, id: Maybe[str] = UNSET) -> FunctionCall:
    """A call that the model is to have made; `arguments` is JSON text."""
    return FunctionCall(id=id, call_id=call_id, name=name, arguments=arguments)


def function_output(call_id: str, output: str, *, id: Maybe[str] = UNSET) -> FunctionCallOutput:
    """What a function has answered."""
    return FunctionCallOutput(id=id, call_id=call_id, output=output)


def image(data: str | bytes, *, detail: Maybe[Literal["auto", "low", "high"]] = UNSET) -> InputImage:
    """An image: a data URI, or the bytes of a PNG or JPEG file."""
    if isinstance(data, bytes):
        kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
        data = f"data:image/{kind};base64,{b2a_base64(data, newline=False).decode()}"
    return InputImage(image_url=data, detail=detail)


def _input_part(part: str | bytes | Content) -> Content:
    if isinstance(part, str):
        return InputText(text=part)
    return InputAudio(audio=part) if isinstance(part, bytes) else part
