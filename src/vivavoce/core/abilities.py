"""What the engines of a session are able to do, as far as the machine has to know it.

Made by the server from the pipeline; without it a session has no more than the least. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _estimated_tokens(text: str) -> int:
    return -(-len(text.encode()) // 4)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What can be asked for; what cannot is refused by name."""

    semantic_vad: bool = False
    noise_reduction: bool = False
    mcp: bool = False
    images: bool = False
    reasoning: bool = False
    logprobs: bool = False
    speculation: bool = False
    """Whether silence adds nothing to a transcript: then an answer can be prepared before its turn has ended."""
    hears_along: bool = False
    """Whether a turn can be transcribed while it is spoken."""
    prepares: bool = False
    """Whether the language model can begin to read a prompt of which the rest is not known yet."""
    audio_apart: bool = False
    """Whether audio travels apart from the events, in formats of its own (WebRTC, reference §6.1). Then the formats of
    the configuration do not matter: audio is PCM16 at 24 kHz here."""
    context_tokens: int = 32_000
    """Tokens of input and output together that the language model can hold."""
    output_tokens_max: int = 4_096
    """Tokens of one answer, at most."""
    count_tokens: Callable[[str], int] = _estimated_tokens
    """Tokens of a text, by the language model's tokenizer."""

    @property
    def is_along(self) -> bool:
        """Whether the engines work while the user speaks, so that little is left to do in a pause."""
        return self.hears_along and self.prepares
