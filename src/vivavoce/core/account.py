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
class Tokens:
    """Tokens by what they are of; those of the input without those that came from a cache."""

    text_in: int = 0
    text_cached: int = 0
    audio_in: int = 0
    audio_cached: int = 0
    image_in: int = 0
    image_cached: int = 0
    text_out: int = 0
    audio_out: int = 0

    @classmethod
    def of(cls, usage: Usage) -> Tokens:
        """The tokens of a response. What its details do not account for counts as text; cached input whose kind is not
        said, as text as far as there is any, then as audio. So the sums are those that the usage states."""
        into = given(usage.input_token_details, InputTokenDetails())
        cached = given(into.cached_tokens_details, CachedTokenDetails())
        out = given(usage.output_token_details, OutputTokenDetails())
        audio_cached, image_cached = given(cached.audio_tokens, 0), given(cached.image_tokens, 0)
        audio_in = max(given(into.audio_tokens, 0), audio_cached)
        image_in = max(given(into.image_tokens, 0), image_cached)
        text_in = max(given(into.text_tokens, 0), given(usage.input_tokens, 0) - audio_in - image_in)
        unsaid = max(given(into.cached_tokens, 0) - audio_cached - image_cached, 0)
        text_cached = given(cached.text_tokens, min(unsaid, text_in))
        audio_cached += min(max(unsaid - text_cached, 0), audio_in - audio_cached)
        audio_out = given(out.audio_tokens, 0)
        text_out = max(given(out.text_tokens, 0), given(usage.output_tokens, 0) - audio_out)
        return cls(
            text_in=max(text_in - text_cached, 0),
            text_cached=text_cached,
            audio_in=max(audio_in - audio_cached, 0),
            audio_cached=audio_cached,
            image_in=max(image_in - image_cached, 0),
            image_cached=image_cached,
            text_out=text_out,
            audio_out=audio_out,
        )

    @property
    def cached(self) -> int:
        """Input that came from a cache."""
        return self.text_cached + self.audio_cached + self.image_cached

    @property
    def input(self) -> int:
        """All that was read and heard, cached or not."""
        return self.text_in + self.audio_in + self.image_in + self.cached

    @property
    def output(self) -> int:
        """All that was written and spoken."""
        return self.text_out + self.audio_out

    @property
    def total(self) -> int:
        """Input and output."""
        return self.input + self.output

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            text_in=self.text_in + other.text_in,
            text_cached=self.text_cached + other.text_cached,
            audio_in=self.audio_in + other.audio_in,
            audio_cached=self.audio_cached + other.audio_cached,
            image_in=self.image_in + other.image_in,
            image_cached=self.image_cached + other.image_cached,
            text_out=self.text_out + other.text_out,
            audio_out=self.audio_out + other.audio_out,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs, in any currency, per million tokens; transcription per minute of audio."""

    text_in: float = 0.0
    text_cached: float | None = None
    """None: as much as `text_in`; likewise for audio and images."""
    text_out: float = 0.0
    audio_in: float = 0.0
    audio_cached: float | None = None
    audio_out: float = 0.0
    image_in: float = 0.0
    image_cached: float | None = None
    transcription_minute: float = 0.0

    def of(self, usage: Usage) -> float:
        """What a response cost."""
        return self.of_tokens(Tokens.of(usage))

    def of_tokens(self, tokens: Tokens) -> float:
        """What so many tokens cost."""
        cost = (
            tokens.text_in * self.text_in
            + tokens.text_cached * (self.text_in if self.text_cached is None else self.text_cached)
            + tokens.audio_in * self.audio_in
            + tokens.audio_cached * (self.audio_in if self.audio_cached is None else self.audio_cached)
            + tokens.image_in * self.image_in
            + tokens.image_cached * (self.image_in if self.image_cached is None else self.image_cached)
            + tokens.text_out * self.text_out
            + tokens.audio_out * self.audio_out
        )
        return cost / MILLION

    def of_audio(self, seconds: float) -> float:
        """What it costs to transcribe so much audio."""
        return self.transcription_minute * seconds / 60


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
        self.cost += self.price.of_audio(ms / 1_000) if self.price else 0.0

    @property
    def is_exhausted(self) -> bool:
        """Whether the budget is spent."""
        return self.budget is not None and self.cost >= self.budget
