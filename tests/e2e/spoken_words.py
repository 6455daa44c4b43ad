"""How much of what a small model said another one hears."""

from __future__ import annotations

import re

UNHEARD_MAX = 0.35
"""Spoken by one small model and heard by another; a wrong or broken sound is far above."""


def plain(text: str) -> str:
    """Its words alone."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def unheard(said: str, found: str) -> float:
    """The share of the different words in `said` that are not in `found`.

    Not a word error rate: a small model repeats itself, and the transcriber leaves repetitions out.
    """
    words = set(plain(said).split())
    return len(words - set(plain(found).split())) / len(words)
