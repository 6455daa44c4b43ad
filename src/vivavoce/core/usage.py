"""What a response took, in tokens (reference §6.3, §6.4).

Text as the language model counted it, or as we do where it did not; audio by the API's rule. Pure. Invariants: total is
input and output; the details of each add up to it; what was cached is a part of the input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vivavoce.protocol.items import CachedTokenDetails, InputTokenDetails, OutputTokenDetails, Usage

from .messages import GenerationEnded

AUDIO_TOKEN_MS = 50
"""Assistant audio counts one token for this much (reference §6.3)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How many tokens the language model was given, as counted here; it may count otherwise itself."""

    input_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0
    reserved: int = 0
    """What was taken from the account."""


def usage_of(
    asked: Asked, ended: GenerationEnded | None, written: str, audio_ms: int, count: Callable[[str], int]
) -> Usage:
    """The usage of a response that wrote and spoke so much; `ended` None where the model did not come to its end."""
    if ended is not None and ended.input_tokens + ended.output_tokens > 0:
        text_in, text_out = ended.input_tokens, ended.output_tokens
    else:
        text_in, text_out = asked.input_tokens, count(written)
    image_in = min(asked.image_tokens, text_in)
    cached = min(ended.cached_tokens, text_in) if ended is not None else 0
    audio_out = -(-audio_ms // AUDIO_TOKEN_MS)
    return Usage(
        total_tokens=text_in + asked.audio_tokens + text_out + audio_out,
        input_tokens=text_in + asked.audio_tokens,
        output_tokens=text_out + audio_out,
        input_token_details=InputTokenDetails(
            text_tokens=text_in - image_in,
            audio_tokens=asked.audio_tokens,
            image_tokens=image_in,
            cached_tokens=cached,
            cached_tokens_details=CachedTokenDetails(
                text_tokens=min(cached, text_in - image_in),
                audio_tokens=0,
                image_tokens=max(cached - (text_in - image_in), 0),
            ),
        ),
        output_token_details=OutputTokenDetails(text_tokens=text_out, audio_tokens=audio_out),
    )
