"""What a session may spend: tokens and requests of a rate limit, and money of a budget (reference §4.2, T20, T22).

The account itself is the server's and shared by the sessions of one key; the machine asks it before a response begins
and settles when it is done. Prices are per million tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vivavoce.protocol.base import given
from vivavoce.protocol.events import RateLimit
from vivavoce.protocol.items import CachedTokenDetails, InputTokenDetails, OutputTokenDetails, Usage

MILLION = 1_000_000


class Account(Protocol):
    """The rate limits of whoever holds the session's key. `now_ms` is on the session's clock."""

    def take(self, tokens: int, now_ms: int) -> bool:
        """Reserve one request and so many tokens; False, and nothing taken, where there is not enough of either."""
        ...

    def settle(self, reserved: int, used: int, now_ms: int) -> None:
        """It was so many tokens in the end, more or less than reserved."""
        ...

    def limits(self, now_ms: int) -> tuple[RateLimit, ...]:
        """What is left: `requests` and `tokens`, those of them that are limited."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs, in any currency, per million tokens; transcription per minute of audio."""

    text_in: float = 0.0
    text_cached: float | None = None
    """None: as much as `text_in`; likewise for audio."""
    text_out: float = 0.0
    audio_in: float = 0.0
    audio_cached: float | None = None
    audio_out: float = 0.0
    image_in: float = 0.0
    transcription_minute: float = 0.0

    def of(self, usage: Usage) -> float:
        """What a response cost."""
        into = given(usage.input_token_details, InputTokenDetails())
        cached = given(into.cached_tokens_details, CachedTokenDetails())
        out = given(usage.output_token_details, OutputTokenDetails())
        text_cached, audio_cached = given(cached.text_tokens, 0), given(cached.audio_tokens, 0)
        cost = (
            (given(into.text_tokens, 0) - text_cached) * self.text_in
            + text_cached * (self.text_in if self.text_cached is None else self.text_cached)
            + (given(into.audio_tokens, 0) - audio_cached) * self.audio_in
            + audio_cached * (self.audio_in if self.audio_cached is None else self.audio_cached)
            + given(into.image_tokens, 0) * self.image_in
            + given(out.text_tokens, 0) * self.text_out
            + given(out.audio_tokens, 0) * self.audio_out
        )
        return cost / MILLION


@dataclass(slots=True)
class Bill:
    """What a session has cost so far."""

    price: Price | None = None
    budget: float | None = None
    """The most that it may cost; then it ends with `budget_exceeded`."""
    cost: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0

    def add(self, usage: Usage) -> None:
        """A response is done."""
        self.input_tokens += given(usage.input_tokens, 0)
        self.output_tokens += given(usage.output_tokens, 0)
        self.cost += self.price.of(usage) if self.price else 0.0

    def transcribed(self, ms: int) -> None:
        """So much audio was transcribed."""
        self.cost += self.price.transcription_minute * ms / 60_000 if self.price else 0.0

    @property
    def is_exhausted(self) -> bool:
        """Whether the budget is spent."""
        return self.budget is not None and self.cost >= self.budget
