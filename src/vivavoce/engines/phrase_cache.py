"""Phrases that were spoken before: their audio is kept, so that saying them again costs nothing.

Assistants say the same things all day ("Sure!", "Let me see."), and usually first, when somebody waits. Sits inside a
synthesizer, in front of the work. Invariant: what comes out is what the work gave, piece by piece and to the bit; only
what was spoken to its end is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

__all__ = ["BYTES_MAX", "PHRASE_BYTES_MAX", "PhraseCache"]

BYTES_MAX = 16 * 1024 * 1024
"""Five and a half minutes at 24 kHz."""
PHRASE_BYTES_MAX = 256 * 1024
"""Five seconds: a longer phrase is hardly ever said twice."""

Key = tuple[str, float, str]
"""Voice, speed, text: whatever the engine's sound depends on."""


class PhraseCache:
    """Audio by phrase, at most `bytes_max` of it; what was not asked for longest is let go. 0 keeps nothing."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self.hits = 0
        """How often work was skipped."""
        self._phrases: OrderedDict[Key, tuple[bytes, ...]] = OrderedDict()

    async def spoken(
        self, voice: str, speed: float, text: str, speak: Callable[[], AsyncGenerator[bytes]]
    ) -> AsyncGenerator[bytes]:
        """The pieces of the phrase: those that are kept, or else those that `speak` gives, as it gives them."""
        key = (voice, speed, text.strip())
        if (kept := self._phrases.get(key)) is not None:
            self._phrases.move_to_end(key)
            self.hits += 1
            for piece in kept:
                yield piece
            return
        pieces: list[bytes] | None = []
        size = 0
        async with aclosing(speak()) as fresh:
            async for piece in fresh:
                size += len(piece)
                if pieces is not None and size <= min(PHRASE_BYTES_MAX, self.bytes_max):
                    pieces.append(piece)
                else:
                    pieces = None
                yield piece
        if pieces:
            self._keep(key, tuple(pieces), size)

    def _keep(self, key: Key, pieces: tuple[bytes, ...], size: int) -> None:
        if key in self._phrases:
            return  # another session said it meanwhile
        self._phrases[key] = pieces
        self.bytes += size
        while self.bytes > self.bytes_max:
            _, oldest = self._phrases.popitem(last=False)
            self.bytes -= sum(map(len, oldest))
