"""What a session has used and cost, as the server's own figures say: exact tokens, and money where prices are known.

A fold over the server's events, pure. One `Meter` counts for a session however often its connection is renewed.
Invariant: the total is the sum of all responses and transcriptions, each counted once, the forgotten ones too.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from vivavoce.core.account import Price, Tokens
from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UnsetType, given

from .prices import PRICES, price_of

__all__ = ["REMEMBERED_MAX", "Meter", "Spent", "Tokens"]

REMEMBERED_MAX = 1_000
"""As many responses, and as many transcriptions, are kept one by one; the oldest go first."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Spent:
    """What was used, and what it cost, in the currency of the prices (the published ones are in US dollars)."""

    tokens: Tokens = field(default_factory=Tokens)
    audio_s: float = 0.0
    """Audio that is charged by its length."""
    cost: float | None = 0.0
    """None where a part of it has no known price."""

    def __add__(self, other: Spent) -> Spent:
        cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        return Spent(self.tokens + other.tokens, self.audio_s + other.audio_s, cost)


class Meter:
    """Counts a session. `model` is what was asked for, until the server states one.

    `prices` by model or deployment come before the published ones, which do not count where `published` is False: a
    server of one's own does not cost what OpenAI's does, whatever its models are called. `budget` is in the currency of
    the prices; who has one looks at `problem` when the session opens, and at `is_exhausted` after each event.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        prices: Mapping[str, Price] | None = None,
        budget: float | None = None,
        published: bool = True,
    ) -> None:
        if budget is not None and not budget > 0:
            raise LocalProtocolError(f"budget is {budget!r}; expected a number above 0, in the currency of the prices")
        self.budget = budget
        self._asked = model
        self._stated: str | None = None
        self._transcriber: str | None = None
        self._prices = dict(prices or {})
        self._tables = (self._prices, PRICES) if published else (self._prices,)
        self._total = Spent()
        self._known_cost = 0.0
        self._unpriced: set[str] = set()
        self._responses: dict[str, Spent] = {}
        self._transcriptions: dict[tuple[str, int], Spent] = {}

    def __repr__(self) -> str:
        """For a prompt: what it has taken so far."""
        of = "" if self.budget is None else f" of {self.budget:g}"
        without = f", without {', '.join(sorted(self._unpriced))}" if self._unpriced else ""
        return f"<Meter {self._total.tokens.total} tokens, cost {self._known_cost:.6g}{of}{without}>"

    # --- what there is ------------------------------------------------------------------------------------------------

    @property
    def total(self) -> Spent:
        """All of the session so far."""
        return self._total

    @property
    def responses(self) -> Mapping[str, Spent]:
        """By response id, the latest ones; each appears with its `response.done`."""
        return MappingProxyType(self._responses)

    @property
    def transcriptions(self) -> Mapping[tuple[str, int], Spent]:
        """Of the user's audio, by item id and content index, the latest ones."""
        return MappingProxyType(self._transcriptions)

    @property
    def cost(self) -> float:
        """What is known of the cost: without the models in `unpriced`."""
        return self._known_cost

    @property
    def unpriced(self) -> frozenset[str]:
        """Models that were used and have no known price."""
        return frozenset(self._unpriced)

    @property
    def remaining(self) -> float | None:
        """What is left of the budget, not below 0; None without a budget."""
        return None if self.budget is None else max(self.budget - self._known_cost, 0.0)

    @property
    def is_exhausted(self) -> bool:
        """Whether the budget is spent."""
        return self.budget is not None and self._known_cost >= self.budget

    @property
    def problem(self) -> str | None:
        """Why the budget cannot be kept, if so: it is known as soon as the session is."""
        if self.budget is None:
            return None
        used = {name for name in (self._model, self._transcriber) if name is not None}
        missing = sorted(self._unpriced | {name for name in used if self._price(name) is None})
        if not missing:
            return None
        return (
            f"the budget of {self.budget:g} cannot be kept: no price is known for {', '.join(map(repr, missing))}; "
            f"give prices={{{missing[0]!r}: Price(…)}}, per million tokens"
        )

    # --- counting -----------------------------------------------------------------------------------------------------

    def take(self, event: object) -> None:
        """One event of the server; those that cost nothing are passed over."""
        match event:
            case ev.SessionCreated(session=session) | ev.SessionUpdated(session=session):
                self._learn(session)
            case ev.ResponseDone(response=response):
                usage = given(response.usage, None)
                if usage is not None:
                    spent = self._priced(self._model, Tokens.of(usage))
                    self._count(self._responses, response.id, spent, self._model)
            case ev.ConversationItemInputAudioTranscriptionCompleted(usage=usage):
                tokens, seconds = _transcribed(usage)
                spent = self._priced(self._transcriber, tokens, seconds)
                self._count(self._transcriptions, (event.item_id, event.content_index), spent, self._transcriber)
            case _:
                pass

    def _learn(self, session: cfg.SessionResource) -> None:
        """The models that are charged for."""
        if isinstance(session, cfg.RealtimeSessionResource) and not isinstance(session.model, UnsetType):
            self._stated = session.model
        audio = session.audio
        if isinstance(audio, UnsetType) or isinstance(audio.input, UnsetType):
            return
        transcription = audio.input.transcription
        if not isinstance(transcription, UnsetType):
            self._transcriber = None if transcription is None else given(transcription.model, None)

    def _count(self, into: dict[K, Spent], key: K, spent: Spent, model: str | None) -> None:
        """Once for each key: after a reconnection a server may say again what was already said."""
        if key in into:
            return
        into[key] = spent
        if len(into) > REMEMBERED_MAX:
            del into[next(iter(into))]
        self._total += spent
        if spent.cost is None:
            self._unpriced.add(model or "?")
        else:
            self._known_cost += spent.cost

    def _priced(self, model: str | None, tokens: Tokens, seconds: float = 0.0) -> Spent:
        price = None if model is None else self._price(model)
        if price is None:
            return Spent(tokens, seconds, None if tokens.total or seconds else 0.0)
        return Spent(tokens, seconds, price.of_tokens(tokens) + price.of_audio(seconds))

    def _price(self, model: str) -> Price | None:
        return price_of(model, *self._tables)

    @property
    def _model(self) -> str | None:
        """What the caller named counts where he gave its price, as he does with a deployment's name."""
        if self._asked is not None and (self._asked in self._prices or self._stated is None):
            return self._asked
        return self._stated


def _transcribed(usage: ev.TranscriptionUsage) -> tuple[Tokens, float]:
    """Tokens, and seconds where it is charged by those."""
    if isinstance(usage, ev.DurationUsage):
        return Tokens(), usage.seconds
    details = given(usage.input_token_details, ev.TranscriptionTokenDetails())
    audio = given(details.audio_tokens, usage.input_tokens - given(details.text_tokens, 0))
    text = given(details.text_tokens, usage.input_tokens - audio)
    return Tokens(text_in=text, audio_in=audio, text_out=usage.output_tokens), 0.0
