"""A language model behind any server with OpenAI's `/chat/completions`, streamed.

Items of the conversation become chat messages, and chunks of the answer become pieces. It reads what servers send, not
only what they should: calls without index or id, no `[DONE]`, errors in the middle of the stream. See `openai_http` for
what happens when something fails. Invariant: `Finish` comes only after an answer that came to its end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from vivavoce.engines import ArgumentsPiece, CallPiece, Finish, Piece, Prompt, TextPiece, Traits
from vivavoce.engines.openai_http import Endpoint, EndpointSettings, events
from vivavoce.engines.options import read_options
from vivavoce.errors import EngineError
from vivavoce.protocol.base import given
from vivavoce.protocol.config import FunctionTool, ToolChoice, ToolChoiceFunction
from vivavoce.protocol.items import (
    Content,
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputText,
    Message,
    OutputAudio,
    OutputText,
)

__all__ = ["ChatSettings", "OpenAIChat", "create"]

Json = dict[str, Any]


class ChatSettings(EndpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`parameters` are further fields of the request, such as `{"temperature": 0.3}`.

    `limit_field` is the name of the token limit: OpenAI's newer models take only `max_completion_tokens`, most other
    servers know only `max_tokens`.
    """

    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"


class OpenAIChat:
    """The language model; any number of answers at once."""

    def __init__(self, settings: ChatSettings) -> None:
        self._settings = settings
        self.traits = Traits()
        self._endpoint = Endpoint("openai-chat", settings)

    async def warm_up(self) -> None:
        """See whether the server is there. Raises `EngineError`."""
        await self._endpoint.check()

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        """The answer as it is written. A filtered or broken-off answer ends with an `EngineError`, not with `Finish`.

        Token counts are 0 where the server does not tell them.
        """
        async with self._endpoint.post("/chat/completions", json=self._request(prompt)) as response:
            answer = _Answer(self._endpoint)
            async for event in events(response):
                if event == b"[DONE]":
                    break
                for piece in answer.read(event):
                    yield piece
            for piece in answer.end():
                yield piece

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    def _request(self, prompt: Prompt) -> Json:
        request: Json = {
            "model": self._endpoint.model,
            "messages": list(_messages(prompt)),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if prompt.max_output_tokens is not None:
            request[self._settings.limit_field] = prompt.max_output_tokens
        if tools := _tools(prompt.tools):
            request["tools"] = tools
            request["tool_choice"] = _tool_choice(prompt.tool_choice)
        return request | self._settings.parameters


def create(options: Mapping[str, object]) -> OpenAIChat:
    """Options: the fields of `ChatSettings`. Raises `SettingsError`."""
    return OpenAIChat(read_options("openai-chat", ChatSettings, options))


# --- the question: items → messages -----------------------------------------------------------------------------------


def _messages(prompt: Prompt) -> Iterator[Json]:
    """The conversation as this API wants it: each call of a function followed by its output.

    A call whose output is not there yet, an output whose call is gone, and messages without text or image are left out,
    because servers refuse them.
    """
    if prompt.instructions:
        yield {"role": "system", "content": prompt.instructions}
    outputs = {item.call_id: item.output for item in prompt.items if isinstance(item, FunctionCallOutput)}
    calls: list[FunctionCall] = []
    for item in prompt.items:
        if isinstance(item, FunctionCall):
            if given(item.call_id, "") in outputs:
                calls.append(item)
            continue
        yield from _called(calls, outputs)
        calls.clear()
        if isinstance(item, Message) and (content := _content(item.content)):
            yield {"role": item.role, "content": content}
    yield from _called(calls, outputs)


def _called(calls: Sequence[FunctionCall], outputs: Mapping[str, str]) -> Iterator[Json]:
    """Calls that were made together, and their outputs."""
    if not calls:
        return
    ids = [given(call.call_id, "") for call in calls]
    functions = [{"name": call.name, "arguments": call.arguments} for call in calls]
    named = zip(ids, functions, strict=True)
    yield {
        "role": "assistant",
        "tool_calls": [{"id": call_id, "type": "function", "function": function} for call_id, function in named],
    }
    for call_id in ids:
        yield {"role": "tool", "tool_call_id": call_id, "content": outputs[call_id]}


def _content(parts: Sequence[Content]) -> str | list[Json]:
    """Plain text where there is only text, since not every server takes a list of parts."""
    contents = [content for part in parts if (content := _part(part)) is not None]
    if all(content["type"] == "text" for content in contents):
        return "\n".join(content["text"] for content in contents)
    return contents


def _part(part: Content) -> Json | None:
    match part:
        case InputText(text=text) | OutputText(text=text) if text:
            return {"type": "text", "text": text}
        case InputAudio() | OutputAudio() if heard := given(part.transcript, None):
            return {"type": "text", "text": heard}
        case InputImage(image_url=url, detail=detail):
            return {"type": "image_url", "image_url": {"url": url, "detail": given(detail, "auto")}}
    return None


def _tools(tools: Sequence[FunctionTool]) -> list[Json]:
    return [{"type": "function", "function": _function(tool)} for tool in tools]


def _function(tool: FunctionTool) -> Json:
    function: Json = {"name": tool.name}
    if description := given(tool.description, None):
        function["description"] = description
    if (parameters := given(tool.parameters, None)) is not None:
        function["parameters"] = parameters
    return function


def _tool_choice(choice: ToolChoice) -> str | Json:
    """Tools of MCP servers cannot be passed on; a choice of one leaves the model free."""
    if isinstance(choice, str):
        return choice
    if isinstance(choice, ToolChoiceFunction):
        return {"type": "function", "function": {"name": choice.name}}
    return "auto"


# --- the answer: chunks → pieces --------------------------------------------------------------------------------------


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Delta(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_CHUNKS = msgspec.json.Decoder(_Chunk)


@dataclass(slots=True)
class _OpenCall:
    index: int | None
    id: str | None
    has_arguments: bool = False


class _Answer:
    """One answer, read chunk by chunk."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._call: _OpenCall | None = None
        self._reason: str | None = None
        self._usage = _Usage()

    def read(self, event: bytes) -> Iterator[Piece]:
        """The pieces of one chunk. Raises `EngineError`."""
        try:
            chunk = _CHUNKS.decode(event)
        except msgspec.MsgspecError as error:
            raise self._endpoint.broken(f"a chunk of the answer cannot be read ({error})") from error
        if chunk.error is not None:
            raise self._endpoint.failure({"error": chunk.error})
        self._usage = chunk.usage or self._usage
        for choice in (chunk.choices or ())[:1]:
            self._reason = choice.finish_reason or self._reason
            delta = choice.delta or _Delta()
            if delta.content:
                yield from self._complete_call()
                yield TextPiece(delta.content)
            for call in delta.tool_calls or ():
                yield from self._read_call(call)

    def end(self) -> Iterator[Piece]:
        """`Finish`, if the answer came to its end. Raises `EngineError`."""
        if self._reason is None:
            raise self._endpoint.broken("the answer broke off")
        if self._reason == "content_filter":
            raise EngineError("openai-chat: the server's content filter stopped the answer", code="content_filter")
        yield from self._complete_call()
        details = self._usage.prompt_tokens_details
        yield Finish(
            "length" if self._reason == "length" else "stop",
            input_tokens=self._usage.prompt_tokens,
            cached_tokens=(details.cached_tokens or 0) if details is not None else 0,
            output_tokens=self._usage.completion_tokens,
        )

    def _read_call(self, call: _Call) -> Iterator[Piece]:
        if self._begins(call):
            if not call.function.name:
                raise self._endpoint.broken("a function call in the answer has no name")
            yield from self._complete_call()
            self._call = _OpenCall(call.index, call.id)
            yield CallPiece(call.function.name)
        if call.function.arguments and self._call is not None:
            self._call.has_arguments = True
            yield ArgumentsPiece(call.function.arguments)

    def _begins(self, call: _Call) -> bool:
        """Whether this is another call than the open one: by index, by id, and where there is neither, by a name."""
        if self._call is None or (call.index is not None and call.index != self._call.index):
            return True
        if call.id:
            return call.id != self._call.id
        return call.index is None and bool(call.function.name)

    def _complete_call(self) -> Iterator[Piece]:
        """Arguments are JSON text, also of a call that was given none."""
        if self._call is not None and not self._call.has_arguments:
            yield ArgumentsPiece("{}")
        self._call = None
