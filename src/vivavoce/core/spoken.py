"""Which words of a message lie before a position in its audio: by phrases, and within a phrase by share.

Written while a message is spoken, read when it was cut off. Pure.
"""

from __future__ import annotations

CHAR_MS = 65
"""Speech lasts about this long per character; used only for a phrase that was cut off."""

Said = list[tuple[str, int]]
"""The phrases of a message, and how many bytes of its audio there are at the end of each."""


def heard(said: Said, audio_bytes: int) -> str:
    """The words of a message that lie before `audio_bytes`, whole words, by the share of their phrase."""
    words, begin = "", 0
    for text, end in said:
        if end > audio_bytes:
            share = text[: len(text) * max(audio_bytes - begin, 0) // max(end - begin, 1)]
            return words + (share[: share.rfind(" ") + 1] if " " in share else "")
        words, begin = words + text, end
    return words
