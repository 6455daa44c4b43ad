"""An answer of OpenAI's `/chat/completions`, chunk by chunk, as the pieces that it brings.

It reads what servers send, not only what they should: calls without index or id, no `[DONE]`, errors in the middle of
the stream. Invariant: `Finish` comes only after an answer that came to its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from vivavoce.engines import ArgumentsPiece, CallPiece, Finish, Piece, TextPiece
from vivavoce.engines.openai_http import Endpoint

__all__ = ["Answer"]


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


_REASONS: Mapping[str, Literal["length", "content_filter"]] = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}
"""Why an answer ended early; every other reason is its end."""
_CHUNKS = msgspec.json.Decoder(_Chunk)


@dataclass(slots=True)
class _OpenCall:
    index: int | None
    id: str | None
    has_arguments: bool = False


class Answer:
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
        yield from self._complete_call()
        details = self._usage.prompt_tokens_details
        yield Finish(
            _REASONS.get(self._reason, "stop"),
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
