"""A conversation as plain lines of taking turns, for models that know nothing of calls and images.

The embedded language model is given this. Calls and what they brought become sentences. Invariant: the system message
comes first, and no two lines of one role follow each other in what `joined` gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from vivavoce.engines import Prompt
from vivavoce.protocol.base import given
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputText,
    Message,
    OutputAudio,
    OutputText,
)

__all__ = ["Chat", "Line", "Marks", "chat_of", "fitting", "joined", "line", "tokens_of"]

Line = dict[str, str]
Chat = list[Line]

LINE_TOKENS = 8
"""What a chat template puts around a line, cautiously: ChatML takes five."""


class Marks:
    """A model's marks, such as `<|im_start|>`: what only its chat template may write.

    llama.cpp reads them wherever they stand, so that a text with marks in it could end its own line, and begin one of
    the system's. `broken` puts a space into each, which makes words of them.
    """

    def __init__(self, words: Iterable[str] = ()) -> None:
        marks = sorted((word for word in words if len(word) > 2 and word[0] in "<["), key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, marks))) if marks else None

    def broken(self, text: str) -> str:
        """The text without a whole mark in it."""
        while self._any is not None and self._any.search(text):
            # More than once, where one mark begins within another.
            text = self._any.sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", text)
        return text


def chat_of(prompt: Prompt) -> Chat:
    """System message first, then the items."""
    chat = [line("system", prompt.instructions)] if prompt.instructions else []
    for item in prompt.items:
        match item:
            case Message():
                if text := "".join(_texts(item)).strip():
                    chat.append(line(item.role, text))
            case FunctionCall():
                chat.append(line("assistant", f"I call {item.name} with {item.arguments}."))
            case FunctionCallOutput():
                chat.append(line("user", f"The function answered: {item.output}\nTell me what that means."))
    return chat


def line(role: str, text: str) -> dict[str, str]:
    """One line of a chat."""
    return {"role": role, "content": text}


def tokens_of(chat: Chat, count: Callable[[str], int]) -> int:
    """Tokens of the lines' own texts."""
    return sum(count(one["content"]) for one in chat)


def fitting(chat: Chat, tokens_max: int, count: Callable[[str], int]) -> Chat:
    """Without the oldest lines that do not fit. The system message stays, and of the last line what fits."""
    head = chat[:1] if chat and chat[0]["role"] == "system" else []
    rest = chat[len(head) :]
    left = tokens_max - sum(_sizes(head, count))
    sizes = list(_sizes(rest, count))
    first = 0
    while first < len(rest) - 1 and sum(sizes[first:]) > left:
        first += 1
    kept = rest[first:]
    if len(kept) == 1 and sizes[first] > left:
        text = kept[0]["content"]
        chars = max(left - LINE_TOKENS, 1) * len(text) // max(sizes[first], 1)
        kept = [line(kept[0]["role"], text[-max(chars, 1) :])]
    return [*head, *kept]


def joined(chat: Chat) -> Chat:
    """Neighbours of one role as one line: the models that need this were taught that roles take turns."""
    turns: Chat = []
    for one in chat:
        if turns and turns[-1]["role"] == one["role"]:
            turns[-1] = line(one["role"], f"{turns[-1]['content']}\n{one['content']}")
        else:
            turns.append(one)
    return turns


def _sizes(chat: Sequence[dict[str, str]], count: Callable[[str], int]) -> Iterator[int]:
    return (count(one["content"]) + LINE_TOKENS for one in chat)


def _texts(message: Message) -> Iterable[str]:
    for part in message.content:
        match part:
            case InputText() | OutputText():
                yield part.text
            case InputAudio() | OutputAudio():
                yield given(part.transcript, None) or ""
