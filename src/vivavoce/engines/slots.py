"""Which conversation goes on in which slot of llama.cpp, so that each finds there what was computed of its prompt.

A slot keeps the prompt that it had last, and computes of the next what is new. Conversations have no names here; one is
known by its lines. Invariant: a slot that is taken is nobody else's until it is given back.
"""

from __future__ import annotations

import math
import threading

from vivavoce.engines.chat_lines import Chat, Line

__all__ = ["Slots"]

ALIKE = 0.75
"""How much of the shorter of two lines is the same if they are one: the end of a draft is what changes."""


class Slots:
    """So many slots; used from threads."""

    def __init__(self, count: int) -> None:
        self._chats: list[Chat] = [[] for _ in range(count)]
        self._free = list(range(count))
        """Those that were given back longest ago are the first."""
        self._lock = threading.Lock()

    def take(self, chat: Chat) -> int:
        """The free slot in which this conversation was; else the one that was not used for longest.

        Raises `ValueError` where no slot is free: there are no more threads than slots.
        """
        with self._lock:
            slot = max(self._free, key=lambda slot: known_lines(self._chats[slot], chat))  # of equals, the first
            self._free.remove(slot)
            self._chats[slot] = chat
            return slot

    def give_back(self, slot: int) -> None:
        """It is free again, and keeps its prompt."""
        with self._lock:
            self._free.append(slot)


def known_lines(before: Chat, chat: Chat) -> int:
    """How many lines a conversation that was `before` has in common with this one; 0 where it is another.

    It is the same where this goes on from there. The last line may differ, since the user may have gone on speaking;
    where the instructions are all that is left, which others have too, it has to begin alike. Lines behind the
    instructions may have been left out since, to keep within the context: llama.cpp moves what it knows of the others.
    """
    common = _common(before, chat)
    if common == len(before) or (common == len(before) - 1 and common > 1):
        return common
    if before and common == len(before) - 1 < len(chat) and _begin_alike(before[-1], chat[common]):
        return common + 1
    head = 1 if chat and chat[0]["role"] == "system" else 0
    if common < head:
        return 0
    for cut in range(head + 1, len(before) - 1):
        tail = before[cut:]
        common = _common(tail, chat[head:])
        if common >= len(tail) - 1:
            return head + common
    return 0


def _begin_alike(before: Line, now: Line) -> bool:
    """Whether they may be one line, heard less of or a little differently: most of the shorter is the same."""
    old, new = before["content"], now["content"]
    most = math.ceil(min(len(old), len(new)) * ALIKE)
    return before["role"] == now["role"] and most > 0 and old[:most] == new[:most]


def _common(before: Chat, chat: Chat) -> int:
    common = 0
    while common < min(len(before), len(chat)) and before[common] == chat[common]:
        common += 1
    return common
