"""Which part of a conversation fits into the language model's context (reference §6.5).

Counts by the model's own tokenizer, what the model will see: transcripts, not audio. Oldest items are left out first,
and stay in the conversation all the same. Invariant: what was left out once stays out, so that the prefix which the
model keeps computed is the same from response to response.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec

from vivavoce.protocol.base import given
from vivavoce.protocol.config import FunctionTool, RetentionRatio, TokenLimits, Truncation
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

from .abilities import Abilities

ITEM_TOKENS = 4
"""What a message costs beside its text: role and separators."""
AUTO_RETENTION = 0.8
"""To what part of the window `auto` cuts: with 1 every further turn would drop an item, and the model would compute the
whole prompt anew each time."""
IMAGE_TOKENS = {"low": 85, "auto": 765, "high": 765}
"""About what an image costs, by detail; models differ, none tells beforehand."""


class ContextFull(Exception):
    """What has to be in the context does not fit."""

    def __init__(self, needed: int, available: int) -> None:
        super().__init__(f"The context has {needed} tokens, and {available} fit into the language model's window.")


class Window:
    """The view of one session's conversation."""

    def __init__(self, abilities: Abilities) -> None:
        self._abilities = abilities
        self._first: str | None = None
        """The oldest item that is still shown."""

    def fit(
        self,
        items: tuple[Item, ...],
        *,
        instructions: str,
        tools: tuple[FunctionTool, ...],
        output_tokens: int | None,
        truncation: Truncation,
        is_conversation: bool,
    ) -> tuple[tuple[Item, ...], int]:
        """The items to show, and how many tokens the whole context has. Raises `ContextFull`.

        `output_tokens` is what the answer may take, None for as much as the model writes at most.
        """
        count = self._abilities.count_tokens
        fixed = count(instructions) + ITEM_TOKENS + (count(_described(tools)) if tools else 0)
        output = self._abilities.output_tokens_max if output_tokens is None else output_tokens
        available = max(self._abilities.context_tokens - output - fixed, 0)
        ratio = AUTO_RETENTION
        if isinstance(truncation, RetentionRatio):
            ratio = truncation.retention_ratio
            available = min(
                available, given(given(truncation.token_limits, TokenLimits()).post_instructions, available)
            )
        sizes = [tokens_of(item, count) for item in items]
        begin = self._begin(items) if is_conversation and truncation != "disabled" else 0
        held = sum(sizes[begin:])
        if held > available:
            if truncation == "disabled":
                raise ContextFull(held + fixed, available + fixed)
            begin = _cut(items, sizes, begin, int(available * ratio))
            held = sum(sizes[begin:])
            if held > available:
                raise ContextFull(held + fixed, available + fixed)
            if is_conversation:
                self._first = given(items[begin].id, None)
        return items[begin:], held + fixed

    def _begin(self, items: tuple[Item, ...]) -> int:
        """Where the last view began; at the start again where that item is gone."""
        if self._first is None:
            return 0
        return next((index for index, item in enumerate(items) if given(item.id, "") == self._first), 0)


def _cut(items: tuple[Item, ...], sizes: list[int], begin: int, budget: int) -> int:
    """The first index from which on the items fit; the last item stays in any case.

    An output whose call is left out says nothing, so it is left out as well.
    """
    held = sum(sizes[begin:])
    while begin < len(items) - 1 and (held > budget or isinstance(items[begin], FunctionCallOutput)):
        held -= sizes[begin]
        begin += 1
    return begin


def tokens_of(item: Item, count: Callable[[str], int]) -> int:
    """About how many tokens an item is for the language model."""
    match item:
        case Message():
            return ITEM_TOKENS + sum(_tokens_of_part(part, count) for part in item.content)
        case FunctionCall():
            return ITEM_TOKENS + count(item.name) + count(item.arguments)
        case FunctionCallOutput():
            return ITEM_TOKENS + count(item.output)
        case _:
            return 0


def image_tokens(items: tuple[Item, ...]) -> int:
    """About how many of the tokens are those of images."""
    return sum(
        IMAGE_TOKENS[given(part.detail, "auto")]
        for item in items
        if isinstance(item, Message)
        for part in item.content
        if isinstance(part, InputImage)
    )


def _tokens_of_part(part: Content, count: Callable[[str], int]) -> int:
    match part:
        case InputText() | OutputText():
            return count(part.text)
        case InputAudio() | OutputAudio():
            return count(given(part.transcript, None) or "")
        case InputImage():
            return IMAGE_TOKENS[given(part.detail, "auto")]
        case _:
            return 0


def _described(tools: tuple[FunctionTool, ...]) -> str:
    return json.dumps([msgspec.to_builtins(tool) for tool in tools])
