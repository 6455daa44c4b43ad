"""Calls of functions by a model that has none of its own: its answer is kept to a schema, and read back as pieces.

The model is told of the functions in words, and answers with one JSON object: `{"text": …}`, or `{"tool": …,
"arguments": …}`. A server that decodes by a grammar makes sure of that. Text is passed on while it is written, a call
once it is whole. Invariant: what is yielded as a call names a function that was offered, with an object as arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vivavoce.engines import ArgumentsPiece, CallPiece, Finish, Piece, Prompt, TextPiece
from vivavoce.engines.openai_http import Endpoint
from vivavoce.engines.openai_messages import content_of, described
from vivavoce.engines.schemas import arguments_schema
from vivavoce.errors import EngineError
from vivavoce.protocol.config import FunctionTool, ToolChoiceFunction
from vivavoce.protocol.items import FunctionCall, FunctionCallOutput, Message

__all__ = ["Reader", "answer_schema", "messages", "offered"]

CALL_CHARS_MAX = 256 * 1024
"""Longest call that is gathered."""
KEY_CHARS_MAX = 64
"""Within so many characters the answer has to show what it is."""

_KEY = re.compile(r'\s*\{\s*"(\w+)"\s*:\s*("?)')
_WHOLE = re.compile(
    r'(?:[^"\\]|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*'
)
"""The characters of a JSON string that are there in whole: no half escape, no half pair of them."""

Json = dict[str, Any]


# --- the question -----------------------------------------------------------------------------------------------------


def offered(prompt: Prompt) -> Sequence[FunctionTool]:
    """The functions that the answer may call."""
    choice = prompt.tool_choice
    if choice == "none":
        return ()
    if isinstance(choice, ToolChoiceFunction):
        return [tool for tool in prompt.tools if tool.name == choice.name]
    return prompt.tools


def messages(prompt: Prompt, *, sees_images: bool) -> Iterator[Json]:
    """The conversation in messages of text and images: calls and their outputs are told in words."""
    if system := "\n\n".join(part for part in (prompt.instructions, _task(prompt)) if part):
        yield {"role": "system", "content": system}
    names: dict[object, str] = {}
    for item in prompt.items:
        match item:
            case FunctionCall():
                names[item.call_id] = item.name
                yield {"role": "assistant", "content": _call_text(item)}
            case FunctionCallOutput():
                who = f"Tool {names[item.call_id]!r}" if item.call_id in names else "A tool"
                yield {"role": "user", "content": f"{who} gave: {item.output}"}
            case Message():
                if content := content_of(item, sees_images=sees_images):
                    yield {"role": item.role, "content": content}


def answer_schema(prompt: Prompt) -> Json:
    """What an answer has to be: a call, or where it is free, a call or text. Raises `EngineError`, see `schemas`."""
    shapes: list[Json] = []
    definitions: Json = {}
    for tool in offered(prompt):
        arguments = arguments_schema(tool, is_bounded=False)
        if "$ref" in json.dumps(arguments):
            # References count from the root, which the function's schema is no more.
            definitions[tool.name] = _moved(arguments, f"#/$defs/{_step(tool.name)}")
            arguments = {"$ref": f"#/$defs/{_step(tool.name)}"}
        shapes.append(_object(tool={"type": "string", "enum": [tool.name]}, arguments=arguments))
    if _is_free(prompt):
        shapes.append(_object(text={"type": "string"}))
    schema = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
    return {**schema, "$defs": definitions} if definitions else schema


def _is_free(prompt: Prompt) -> bool:
    return prompt.tool_choice != "required" and not isinstance(prompt.tool_choice, ToolChoiceFunction)


def _task(prompt: Prompt) -> str:
    """What the model has to know about its tools and its answer's shape."""
    tools = offered(prompt)
    if not tools:
        return ""
    shapes = ['{"tool": "NAME", "arguments": {...}} to use a tool']
    if _is_free(prompt):
        shapes.append('{"text": "..."} to say something to the user, which needs no tool')
    listed = "\n".join(json.dumps(described(tool), ensure_ascii=False) for tool in tools)
    return f"Your tools:\n{listed}\n\nAnswer with one JSON object: {', or '.join(shapes)}."


def _call_text(call: FunctionCall) -> str:
    return f'{{"tool": {json.dumps(call.name)}, "arguments": {call.arguments or "{}"}}}'


def _object(**properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _step(name: str) -> str:
    """A name as one step of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _moved(part: Any, root: str) -> Any:
    """The schema with its references counted from `root`."""
    if isinstance(part, Mapping):
        return {
            key: root + value[1:] if key == "$ref" and isinstance(value, str) else _moved(value, root)
            for key, value in part.items()
        }
    return [_moved(one, root) for one in part] if isinstance(part, list | tuple) else part


# --- the answer -------------------------------------------------------------------------------------------------------


class Reader:
    """Reads one answer: the JSON text in its text pieces becomes the pieces that it means."""

    def __init__(self, prompt: Prompt, endpoint: Endpoint) -> None:
        self._names = {tool.name for tool in offered(prompt)}
        self._is_free = _is_free(prompt)
        self._endpoint = endpoint
        self._key: str | None = None
        self._rest = ""
        self._is_said = False

    def read(self, piece: Piece) -> Iterator[Piece]:
        """What this piece brings. Raises `EngineError` where the server did not keep the answer to the schema."""
        if isinstance(piece, TextPiece):
            self._rest += piece.text
            if self._key is None:
                self._begin()
            if self._key == "text":
                yield from self._text()
            elif self._key == "":
                yield TextPiece(self._rest)
                self._rest = ""
            elif len(self._rest) > CALL_CHARS_MAX:
                raise self._endpoint.broken(f"a call in the answer exceeds {CALL_CHARS_MAX} characters")
            return
        if isinstance(piece, Finish):
            yield from self._end(piece)
        yield piece

    def _begin(self) -> None:
        """Find out what the answer is, by its first key: text, a call, or (no key) nothing of what was asked for."""
        if (key := _KEY.match(self._rest)) and (key[1] != "text" or key[2]):
            self._key = key[1]
            if key[1] == "text":
                self._rest = self._rest[key.end() :]
        elif (self._rest.strip() and not self._rest.lstrip().startswith("{")) or len(self._rest) > KEY_CHARS_MAX:
            self._key = ""
        if self._key in ("text", "") and not self._is_free:
            raise self._unkept("a call was required, and the answer is none")

    def _text(self) -> Iterator[Piece]:
        """The characters of the text that are there by now."""
        if self._is_said:
            self._rest = ""
            return
        whole = _WHOLE.match(self._rest)
        assert whole is not None, "it matches nothing at least"
        self._rest = self._rest[whole.end() :]
        self._is_said = self._rest.startswith('"')
        if whole[0]:
            try:
                yield TextPiece(json.loads(f'"{whole[0]}"', strict=False))
            except ValueError as error:
                raise self._unkept(f"the text in the answer is no JSON ({error})") from error

    def _end(self, finish: Finish) -> Iterator[Piece]:
        """The call, if the answer is one. Of one that was cut off nothing can be used."""
        if self._key in ("text", ""):
            return
        if not self._rest.strip():
            if finish.reason == "stop" and not self._is_free:
                raise self._unkept("a call was required, and the answer is empty")
            return
        try:
            call = json.loads(self._rest)
        except (ValueError, RecursionError) as error:
            if finish.reason != "stop":
                return
            raise self._unkept(f"the call in the answer is no JSON ({error})") from error
        name, arguments = call.get("tool"), call.get("arguments")
        if not isinstance(name, str) or name not in self._names or not isinstance(arguments, dict):
            raise self._unkept(f"the answer is no call of {' or '.join(sorted(self._names))}")
        yield CallPiece(name)
        yield ArgumentsPiece(json.dumps(arguments, ensure_ascii=False))

    def _unkept(self, what: str) -> EngineError:
        return self._endpoint.broken(f"{what}; does the server keep answers to a schema (option schema_field)?")
