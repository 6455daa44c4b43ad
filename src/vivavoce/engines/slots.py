"""Which conversation goes on in which slot of llama.cpp, so that each finds there what was computed of its prompt.

A slot keeps the prompt that it had last, and computes of the next what is new. Conversations have no names here; one is
known by its lines. Invariant: a slot that is taken is nobody else's until it is given back.
"""

from __future__ import annotations

import threading

from vivavoce.engines.chat_lines import Chat

__all__ = ["Slots"]


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
    but not where the instructions are all that is left, which others have too.
    """
    common = 0
    while common < min(len(before), len(chat)) and before[common] == chat[common]:
        common += 1
    is_same = common == len(before) or (common == len(before) - 1 and common > 1)
    return common if is_same else 0
