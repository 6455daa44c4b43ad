"""The scripted language model, and the rules by which it answers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from vivavoce.engines import ArgumentsPiece, CallPiece, Finish, Piece, Prompt, TextPiece, Traits
from vivavoce.protocol.base import given
from vivavoce.protocol.config import ToolChoiceFunction
from vivavoce.protocol.items import (
    Content,
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputText,
    Item,
    Message,
    OutputAudio,
    OutputText,
)

from .pace import Pace, ScriptedSettings, Weightless, words_of

ARGUMENTS_PIECES_MAX = 3

_CALL = re.compile(r"\bcall\s+([A-Za-z0-9_-]+)\s+(?=\{)")


@dataclass(frozen=True, slots=True)
class Call:
    """A function call; `arguments` is JSON text."""

    name: str
    arguments: str


Answer = Sequence[str | Call]
"""What a model says: texts and calls, in order."""


class ScriptedModelSettings(ScriptedSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pace and faults, and what the model is said to be able to do."""

    context_tokens: Annotated[int, Meta(ge=2)] = 32_000
    sees_images: bool = True
    reasons: bool = True


MODEL_DEFAULTS = ScriptedModelSettings()


class ScriptedLanguageModel(Weightless):
    """Answers by four rules, the first that fits:

    1. After a function's output: `tool said: <output>`.
    2. Where the last user message says `call NAME {json}`, and `tool_choice` is not "none": a call of NAME with that
       JSON as it stands, for each time it says so. Whether NAME is among the tools does not matter.
    3. Where `tool_choice` names a function, a call of it with `{}`; where it is "required", one of the first function.
    4. Otherwise `echo: <text of the last user message>`.

    The text of a message is its text parts and the transcripts of its audio parts, joined by a space.

    A token is a word between white space. Input tokens are the words of the instructions and of everything in the items
    (texts, transcripts, names, arguments, outputs); output tokens are those of the answer, a call's name counting as
    one. An answer of more than `max_output_tokens` is cut there and ends with reason "length".
    An image is the word `[image]`.

    With a `script` it answers what that says instead.
    """

    def __init__(
        self, settings: ScriptedSettings = MODEL_DEFAULTS, script: Callable[[Prompt], Answer] | None = None
    ) -> None:
        self._settings = settings
        self._script = script or answer_by_rules
        able = settings if isinstance(settings, ScriptedModelSettings) else MODEL_DEFAULTS
        self.traits = Traits(
            context_tokens=able.context_tokens,
            output_tokens_max=min(able.context_tokens // 2, Traits().output_tokens_max),
            sees_images=able.sees_images,
            reasons=able.reasons,
            count_tokens=lambda text: len(text.split()),
        )

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        """Text word by word, arguments in up to three pieces, then `Finish`."""
        pace = Pace(self._settings)
        for piece in _pieces(prompt, self._script(prompt)):
            await pace.next()
            yield piece


def _pieces(prompt: Prompt, answer: Answer) -> Iterator[Piece]:
    """The whole answer, cut to the limit, and its `Finish`."""
    limit = prompt.max_output_tokens
    written = 0
    cut = False
    for part in answer:
        words = words_of(part) if isinstance(part, str) else (part.name, *words_of(part.arguments))
        kept = words if limit is None else words[: limit - written]
        yield from map(TextPiece, kept) if isinstance(part, str) else _call_pieces(kept)
        written += len(kept)
        cut = cut or len(kept) < len(words)
    yield Finish("length" if cut else "stop", input_tokens=_input_tokens(prompt), output_tokens=written)


def _call_pieces(words: Sequence[str]) -> Iterator[Piece]:
    """A call from its name and the words of its arguments; nothing where not even the name was left."""
    if not words:
        return
    yield CallPiece(words[0])
    arguments = "".join(words[1:])
    size = max(1, math.ceil(len(arguments) / ARGUMENTS_PIECES_MAX))
    for at in range(0, len(arguments), size):
        yield ArgumentsPiece(arguments[at : at + size])


def answer_by_rules(prompt: Prompt) -> Answer:
    """The answer by the rules of `ScriptedLanguageModel`."""
    if prompt.items and isinstance(prompt.items[-1], FunctionCallOutput):
        return (f"tool said: {prompt.items[-1].output}",)
    said = _last_user_text(prompt.items)
    calls = () if prompt.tool_choice == "none" else tuple(_calls(said)) or _demanded(prompt)
    return calls or (f"echo: {said}",)


def _calls(text: str) -> Iterator[Call]:
    """Each `call NAME {json}` in the text; where what follows the name is no JSON object, it is no call."""
    at = 0
    while match := _CALL.search(text, at):
        try:
            _, at = json.JSONDecoder().raw_decode(text, match.end())
        except json.JSONDecodeError:
            at = match.end()
        else:
            yield Call(match[1], text[match.end() : at])


def _demanded(prompt: Prompt) -> Sequence[Call]:
    """The call that `tool_choice` demands, if it demands one that can be made."""
    if isinstance(prompt.tool_choice, ToolChoiceFunction):
        return (Call(prompt.tool_choice.name, "{}"),)
    if prompt.tool_choice == "required":
        return tuple(Call(tool.name, "{}") for tool in prompt.tools)[:1]
    return ()


def _last_user_text(items: Sequence[Item]) -> str:
    for item in reversed(items):
        if isinstance(item, Message) and item.role == "user":
            return " ".join(_texts(item.content))
    return ""


def _texts(content: Sequence[Content]) -> Iterator[str]:
    for part in content:
        if isinstance(part, InputText | OutputText):
            yield part.text
        elif isinstance(part, InputAudio | OutputAudio) and (heard := given(part.transcript, None)):
            yield heard
        elif isinstance(part, InputImage):
            yield "[image]"


def _input_tokens(prompt: Prompt) -> int:
    texts = [prompt.instructions]
    for item in prompt.items:
        if isinstance(item, Message):
            texts.extend(_texts(item.content))
        elif isinstance(item, FunctionCall):
            texts.extend((item.name, item.arguments))
        elif isinstance(item, FunctionCallOutput):
            texts.append(item.output)
    return sum(len(text.split()) for text in texts)
