"""What the session machine is told about the server that it lives in: engines, accounts, prices, stored prompts.

Made anew for each session from what the server has once. The machine keeps time from when its session opened, the
server's quotas keep the event loop's time: the difference is known here and nowhere else.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from vivavoce.core.abilities import Abilities
from vivavoce.core.account import Bill, Price
from vivavoce.core.playback import Player
from vivavoce.core.prompts import Prompts
from vivavoce.core.stopwatch import Watch
from vivavoce.core.surroundings import Surroundings
from vivavoce.engines import IncrementalTranscriber, Pipeline, PreparingLanguageModel, ScoringTranscriber
from vivavoce.protocol.events import RateLimit

from .quota import Account, Quota
from .settings import Settings


def surroundings(
    settings: Settings,
    pipeline: Pipeline,
    prompts: Prompts,
    *,
    model: str,
    account: Account | None,
    player: Player | None = None,
    watch: Watch | None = None,
    tells_waterfall: bool = False,
) -> Surroundings:
    """Those of one session of this model; `account` None is for a session that will not be run.

    With a `player` audio travels apart from the events.
    """
    prices = settings.prices.get(model)
    limited = None if account is None or (account.requests, account.tokens) == (None, None) else SharedAccount(account)
    return Surroundings(
        abilities=replace(abilities(pipeline, with_mcp=bool(settings.mcp_hosts)), audio_apart=player is not None),
        account=limited,
        bill=Bill(None if prices is None else Price(**prices.plain()), settings.budget),
        prompts=prompts,
        player=player,
        watch=watch,
        tells_waterfall=tells_waterfall,
    )


def abilities(pipeline: Pipeline, *, with_mcp: bool = True) -> Abilities:
    """What these engines are able to do, once they are warmed up."""
    traits = pipeline.language_model.traits
    return Abilities(
        semantic_vad=pipeline.turn_detector is not None,
        noise_reduction=pipeline.noise_reducer is not None,
        mcp=with_mcp,
        images=traits.sees_images,
        reasoning=traits.reasons,
        logprobs=isinstance(pipeline.transcriber, ScoringTranscriber),
        hears_along=isinstance(pipeline.transcriber, IncrementalTranscriber)
        and getattr(pipeline.transcriber, "hears_along", True),
        prepares=isinstance(pipeline.language_model, PreparingLanguageModel),
        speculation=not getattr(pipeline.transcriber, "hears_silence", False),
        context_tokens=traits.context_tokens,
        output_tokens_max=traits.output_tokens_max,
        count_tokens=traits.count_tokens,
    )


@dataclass(slots=True)
class SharedAccount:
    """A key's account as one session of it sees it. Made when the session opens."""

    _account: Account
    _opened_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    def take(self, tokens: int, now_ms: int) -> bool:
        """Reserve one request and so many tokens, or nothing."""
        now = self._now(now_ms)
        requests, left = self._account.requests, self._account.tokens
        if requests is not None and not requests.take(1, now):
            return False
        if left is None or left.take(tokens, now):
            return True
        if requests is not None:
            requests.give_back(1)
        return False

    def settle(self, reserved: int, used: int, now_ms: int) -> None:
        """Correct a reservation to what was used."""
        if (left := self._account.tokens) is None:
            return
        if used > reserved:
            left.spend(used - reserved, self._now(now_ms))
        else:
            left.give_back(reserved - used)

    def limits(self, now_ms: int) -> tuple[RateLimit, ...]:
        """What is left, as the client is told."""
        now = self._now(now_ms)
        named: tuple[tuple[str, Quota | None], ...] = (
            ("requests", self._account.requests),
            ("tokens", self._account.tokens),
        )
        return tuple(
            RateLimit(
                name="requests" if name == "requests" else "tokens",
                limit=int(quota.limit),
                remaining=quota.remaining(now),
                reset_seconds=round(quota.reset_seconds(now), 3),
            )
            for name, quota in named
            if quota is not None
        )

    def _now(self, now_ms: int) -> float:
        return self._opened_s + now_ms / 1000
