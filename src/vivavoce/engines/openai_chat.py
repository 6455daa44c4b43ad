"""A language model behind any server with OpenAI's `/chat/completions`, streamed.

`openai_messages` makes the question, `openai_answer` reads the answer, and `openai_http` tells what happens when
something fails. A server whose model cannot call functions, but which keeps answers to a schema, is asked as
`constrained_calls` says. Invariant: `Finish` comes only after an answer that came to its end.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from vivavoce.engines import Piece, Prompt, Traits
from vivavoce.engines import constrained_calls as constrained
from vivavoce.engines.openai_answer import Answer
from vivavoce.engines.openai_http import Endpoint, EndpointSettings, events
from vivavoce.engines.openai_messages import choice_of, messages, tools_of
from vivavoce.engines.options import read_options
from vivavoce.engines.tokens import TokenCounter, json_tokenizer, tiktoken_encoding
from vivavoce.engines.weights import existing
from vivavoce.errors import EngineError

__all__ = ["ChatSettings", "OpenAIChat", "create"]

TIKTOKEN = "tiktoken:"

Json = dict[str, Any]


class ChatSettings(EndpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`parameters` are further fields of the request, such as `{"top_p": 0.9}`; what a client asks for comes before.

    `limit_field` is the name of the token limit: OpenAI's newer models take only `max_completion_tokens`, most other
    servers know only `max_tokens`.

    What the server's model can do, since no server says: `context_tokens`, for input and output together;
    `output_tokens_max`; `sees_images`, else they are left out; `reasons`, so that it takes an effort, and no
    temperature. `tokenizer` counts its tokens: the path of a `tokenizer.json`, or `tiktoken:` and an encoding's name;
    without one they are estimated.

    `tools`: "constrained" is for models without calls of their own, on servers that keep an answer to a JSON Schema
    given in `schema_field`.
    """

    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    context_tokens: Annotated[int, Meta(ge=256)] = 128_000
    output_tokens_max: Annotated[int, Meta(ge=1)] = 4_096
    sees_images: bool = True
    reasons: bool = False
    tokenizer: str | None = None
    tools: Literal["native", "constrained"] = "native"
    schema_field: Literal["response_format", "guided_json"] = "response_format"


class OpenAIChat:
    """The language model; any number of answers at once."""

    def __init__(self, settings: ChatSettings) -> None:
        self._settings = settings
        self.traits = Traits(
            context_tokens=settings.context_tokens,
            output_tokens_max=min(settings.output_tokens_max, settings.context_tokens),
            sees_images=settings.sees_images,
            reasons=settings.reasons,
        )
        if settings.tokenizer is not None and not settings.tokenizer.startswith(TIKTOKEN):
            existing(settings.tokenizer, "openai-chat", "tokenizer")
        self._endpoint = Endpoint("openai-chat", settings)

    async def warm_up(self) -> None:
        """Load the tokenizer, and see whether the server is there. Raises `EngineError`."""
        if (tokenizer := self._settings.tokenizer) is not None:
            counter = await asyncio.to_thread(_counter, tokenizer)
            self.traits = dataclasses.replace(self.traits, count_tokens=counter)
        await self._endpoint.check()

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        """The answer as it is written. One that broke off ends with an `EngineError`, not with `Finish`.

        Token counts are 0 where the server does not tell them.
        """
        async with self._endpoint.post("/chat/completions", json=self._request(prompt)) as response:
            answer = Answer(self._endpoint)
            calls = constrained.Reader(prompt, self._endpoint) if self._is_constrained(prompt) else None
            async for event in events(response):
                if event == b"[DONE]":
                    break
                for piece in answer.read(event):
                    for read in calls.read(piece) if calls else (piece,):
                        yield read
            for piece in answer.end():
                for read in calls.read(piece) if calls else (piece,):
                    yield read

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    def _is_constrained(self, prompt: Prompt) -> bool:
        return self._settings.tools == "constrained" and bool(constrained.offered(prompt))

    def _request(self, prompt: Prompt) -> Json:
        settings = self._settings
        in_lines = settings.tools == "constrained"
        conversation = constrained.messages if in_lines else messages
        request: Json = {
            "model": self._endpoint.model,
            "messages": list(conversation(prompt, sees_images=settings.sees_images)),
            "stream": True,
            "stream_options": {"include_usage": True},
            **settings.parameters,
        }
        if prompt.max_output_tokens is not None:
            request[settings.limit_field] = min(prompt.max_output_tokens, self.traits.output_tokens_max)
        if settings.reasons and prompt.effort is not None:
            request["reasoning_effort"] = prompt.effort
        if not settings.reasons and prompt.temperature is not None:
            request["temperature"] = prompt.temperature
        if self._is_constrained(prompt):
            request |= _kept_to(constrained.answer_schema(prompt), settings.schema_field)
        elif not in_lines and (tools := tools_of(prompt.tools)):
            request |= {"tools": tools, "tool_choice": choice_of(prompt.tool_choice)}
            if prompt.is_parallel is not None:
                request["parallel_tool_calls"] = prompt.is_parallel
        return request


def _kept_to(schema: Json, field: str) -> Json:
    """The fields that keep an answer to the schema."""
    if field == "guided_json":
        return {"guided_json": schema}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


def _counter(tokenizer: str) -> TokenCounter:
    try:
        if tokenizer.startswith(TIKTOKEN):
            return TokenCounter(tiktoken_encoding(tokenizer.removeprefix(TIKTOKEN)))
        return TokenCounter(json_tokenizer(existing(tokenizer, "openai-chat", "tokenizer")))
    except ValueError as error:
        raise EngineError(f"openai-chat: option 'tokenizer': {error}", code="engine_load_failed") from error


def create(options: Mapping[str, object]) -> OpenAIChat:
    """Options: the fields of `ChatSettings`. Raises `SettingsError`."""
    return OpenAIChat(read_options("openai-chat", ChatSettings, options))
