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
TURN_TOKENS = 64
"""Kept for what a user is about to say, where the context is made ready for it: a few sentences …"""
SPARE_PART = 8
"""… but one part of so many at most."""
IMAGE_TOKENS = {"low": 85, "auto": 765, "high": 765}
"""About what an image costs, by detail; models differ, none tells beforehand."""


class ContextFull(Exception):
    """What has to be in the context does not fit."""

    def __init__(self, needed: int, available: int) -> None:
        super().__init__(f"The context has {needed} tokens, and {available} fit into the language model's window.")


class Window:
    """The view of one session's conversation."""

    _left_out: frozenset[str] = frozenset()  # of the class until something is: an empty set takes 200 bytes

    def __init__(self, abilities: Abilities) -> None:
        self._abilities = abilities

    def copy(self) -> Window:
        """The same view, to try something on."""
        window = Window(self._abilities)
        window._left_out = self._left_out
        return window

    def fit(
        self,
        items: tuple[Item, ...],
        *,
        instructions: str,
        tools: tuple[FunctionTool, ...],
        output_tokens: int | None,
        truncation: Truncation,
        is_conversation: bool,
        spare: int = 0,
    ) -> tuple[tuple[Item, ...], int]:
        """The items to show, and how many tokens the whole context has. Raises `ContextFull`.

        `output_tokens` is what the answer may take, None for as much as the model writes at most. `spare` is left free
        beside it, where it is up to us how much is left out.
        """
        count = self._abilities.count_tokens
        fixed = count(instructions) + ITEM_TOKENS + (count(_described(tools)) if tools else 0)
        window = self._window(output_tokens)
        if fixed > window:
            raise ContextFull(fixed, window)
        available, ratio = window - fixed, AUTO_RETENTION
        if truncation == "auto":
            available -= min(spare, available // SPARE_PART)
        if isinstance(truncation, RetentionRatio):
            ratio = truncation.retention_ratio
            available = min(
                available, given(given(truncation.token_limits, TokenLimits()).post_instructions, available)
            )
        if is_conversation and truncation != "disabled":
            items = self._remaining(items)
        sizes = [tokens_of(item, count) for item in items]
        held = sum(sizes)
        if held > available and truncation != "disabled":
            cut = _cut(items, sizes, int(available * ratio))
            held -= sum(sizes[index] for index in cut)
            if is_conversation and held <= available:
                self._left_out |= {_key(items[index]) for index in cut}
            items = tuple(item for index, item in enumerate(items) if index not in cut)
        if held > available:
            raise ContextFull(held + fixed, available + fixed)
        return items, held + fixed

    def _remaining(self, items: tuple[Item, ...]) -> tuple[Item, ...]:
        """What was not left out before. Calls come back where the model is asked about their outputs."""
        asked = _asked(items)
        out = {key for item in items if (key := _key(item)) in self._left_out and _call_id(item) not in asked}
        parted = {_call_id(item) for item in items if _key(item) in out} - {""}
        self._left_out = frozenset(_key(item) for item in items if _key(item) in out or _call_id(item) in parted)
        return tuple(item for item in items if _key(item) not in self._left_out)

    def _window(self, output_tokens: int | None) -> int:
        """The tokens that input may have: room is kept for the answer, but never more than half of all there is."""
        able = self._abilities
        most = min(able.output_tokens_max, able.context_tokens // 2)
        return able.context_tokens - (most if output_tokens is None else min(output_tokens, most))


def _key(item: Item) -> str:
    """The item's id; the output of an MCP call goes by the id of the call."""
    return given(item.id, "") or _call_id(item)


def _call_id(item: Item) -> str:
    return given(item.call_id, "") if isinstance(item, FunctionCall | FunctionCallOutput) else ""


def _newest(items: tuple[Item, ...]) -> int:
    """Where the newest begins: the last item, or the one before the outputs at the end."""
    newest = len(items) - 1
    while newest > 0 and isinstance(items[newest], FunctionCallOutput):
        newest -= 1
    return newest


def _asked(items: tuple[Item, ...]) -> set[str]:
    """The calls about whose outputs the model is asked: those at the end."""
    return {_call_id(item) for item in items[max(_newest(items), 0) :]} - {""}


def _cut(items: tuple[Item, ...], sizes: list[int], budget: int) -> set[int]:
    """The indexes of the oldest items that are too much, and of what makes no sense without them.

    A call and its output are left out together. The last item stays in any case; outputs at the end stay with the
    calls that they answer, because it is these that the model is asked about.
    """
    asked = _asked(items)
    held, cut, parted = sum(sizes), set[int](), set[str]()
    for index, item in enumerate(items[: _newest(items)]):
        if _call_id(item) in asked:
            continue
        if held > budget or _call_id(item) in parted:
            cut.add(index)
            held -= sizes[index]
            parted |= {_call_id(item)} - {""}
    return cut | _rest_of_exchange(items, cut)


def _rest_of_exchange(items: tuple[Item, ...], cut: set[int]) -> set[int]:
    """What follows the oldest items, up to where the user begins to speak again; nothing where that is not told apart.

    An answer makes little sense without its question. And what a user said in several items is one line to some models:
    half of it is another line, behind which an engine may have to compute everything anew. Between a call and its
    output no exchange begins, though outputs are said to the model as by the user.
    """
    first = next((index for index in range(len(items)) if index not in cut), 0)
    if first == 0 or len(cut) > first:
        return set()
    last = {_call_id(item): index for index, item in enumerate(items) if _call_id(item)}
    together = 0
    """What follows is not parted from what comes before, up to here."""
    for index in range(first, _newest(items)):
        if index > together and _is_users(items[index]) and not _is_users(items[index - 1]):
            return set(range(first, index))
        together = max(together, last.get(_call_id(items[index]), 0))
    return set()


def _is_users(item: Item) -> bool:
    return isinstance(item, FunctionCallOutput) or (isinstance(item, Message) and item.role == "user")


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
