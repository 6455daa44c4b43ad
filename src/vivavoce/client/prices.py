"""What OpenAI asks for its realtime models, as published: US dollars per million tokens, or per minute of audio.

They change, and there are discounts and regions; give your own, by model or by deployment, where it matters. What is
not here is counted in tokens and has no price. The addresses say where each was read, in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from vivavoce.core.account import Price

__all__ = ["PRICES", "Price", "price_of"]

_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")

_LARGE = Price(
    text_in=4.0,
    text_cached=0.4,
    text_out=16.0,
    audio_in=32.0,
    audio_cached=0.4,
    audio_out=64.0,
    image_in=5.0,
    image_cached=0.5,
)
_REASONING = Price(
    text_in=4.0,
    text_cached=0.4,
    text_out=24.0,
    audio_in=32.0,
    audio_cached=0.4,
    audio_out=64.0,
    image_in=5.0,
    image_cached=0.5,
)
_SMALL = Price(
    text_in=0.6,
    text_cached=0.06,
    text_out=2.4,
    audio_in=10.0,
    audio_cached=0.3,
    audio_out=20.0,
    image_in=0.8,
    image_cached=0.08,
)

PRICES: Mapping[str, Price] = MappingProxyType(
    {
        # developers.openai.com/api/docs/models/NAME: text, audio and images
        "gpt-realtime-2.1": _REASONING,
        "gpt-realtime-2.1-mini": _SMALL,
        "gpt-realtime-2": _REASONING,
        "gpt-realtime-1.5": _LARGE,
        # openai.com/index/introducing-gpt-realtime (audio); github.com/mahimailabs/voice-prices,
        # prices/providers/openai.yml (all but images, which are taken from 1.5 and 2.1-mini)
        "gpt-realtime": _LARGE,
        "gpt-realtime-mini": _SMALL,
        # developers.openai.com/api/docs/models/gpt-4o-mini-realtime-preview
        "gpt-4o-mini-realtime-preview": Price(
            text_in=0.6, text_cached=0.3, text_out=2.4, audio_in=10.0, audio_cached=0.3, audio_out=20.0
        ),
        # github.com/mahimailabs/voice-prices, prices/providers/openai.yml; the first snapshot, of 2024-10-01, cost more
        "gpt-4o-realtime-preview": Price(
            text_in=5.0, text_cached=2.5, text_out=20.0, audio_in=40.0, audio_cached=2.5, audio_out=80.0
        ),
        # github.com/mahimailabs/voice-prices, prices/providers/openai.yml: as platform.openai.com/docs/pricing had it
        # on 2026-08-20
        "gpt-4o-transcribe": Price(text_in=2.5, audio_in=6.0, text_out=10.0),
        "gpt-4o-mini-transcribe": Price(text_in=1.25, audio_in=3.0, text_out=5.0),
        "gpt-transcribe": Price(transcription_minute=0.0045),
        "gpt-live-transcribe": Price(transcription_minute=0.017),
        "whisper-1": Price(transcription_minute=0.006),
        # developers.openai.com/api/docs/models/gpt-realtime-whisper
        "gpt-realtime-whisper": Price(transcription_minute=0.017),
    }
)
_UNPRICED = frozenset({"gpt-4o-realtime-preview-2024-10-01"})


def price_of(model: str, *tables: Mapping[str, Price]) -> Price | None:
    """The price of a model in the first table that has it, by its whole name or by that without a snapshot's date.

    None where it is not known: `gpt-realtime-9` is not priced as `gpt-realtime`.
    """
    family = _SNAPSHOT.sub("", model)
    for table in tables:
        if model in table:
            return table[model]
        if family in table and model not in _UNPRICED:
            return table[family]
    return None
