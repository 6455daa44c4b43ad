"""A conversation as the messages of OpenAI's `/chat/completions`.

What of a conversation cannot be said there is left out, because servers refuse a whole request for one wrong message.
Invariant: each call of a function is followed by its output, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vivavoce.engines import Prompt
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

__all__ = ["choice_of", "content_of", "described", "messages", "tools_of"]

Json = dict[str, Any]


def messages(prompt: Prompt, *, sees_images: bool) -> Iterator[Json]:
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
        if isinstance(item, Message) and (content := content_of(item, sees_images=sees_images)):
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


def content_of(message: Message, *, sees_images: bool) -> str | list[Json]:
    """Plain text where there is only text, since not every server takes a list of parts; empty where there is none."""
    parts = (part for part in message.content if sees_images or not isinstance(part, InputImage))
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


def tools_of(tools: Sequence[FunctionTool]) -> list[Json]:
    """The functions as a request names them."""
    return [{"type": "function", "function": described(tool)} for tool in tools]


def described(tool: FunctionTool) -> Json:
    """The function as the API describes one."""
    function: Json = {"name": tool.name}
    if description := given(tool.description, None):
        function["description"] = description
    if (parameters := given(tool.parameters, None)) is not None:
        function["parameters"] = parameters
    return function


def choice_of(choice: ToolChoice) -> str | Json:
    """Tools of MCP servers cannot be passed on; a choice of one leaves the model free."""
    if isinstance(choice, str):
        return choice
    if isinstance(choice, ToolChoiceFunction):
        return {"type": "function", "function": {"name": choice.name}}
    return "auto"
