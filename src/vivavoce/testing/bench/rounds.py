"""Turns and interruptions at one endpoint or at several, interleaved so that the comparison is fair.

In every round each endpoint hears the same utterance, one after the other, never two at once; who is first changes from
round to round. What is said, and who begins, is decided by a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from .conversation import Asking, Conversation, Endpoint
from .speech import Utterance
from .turn import BargeIn, Turn

__all__ = [
    "AT_LENGTH",
    "AT_LENGTH_TOKENS",
    "BARGE_IN_AFTER_MS",
    "Held",
    "Interrupted",
    "hold_rounds",
    "in_order",
    "interrupt_rounds",
]

BARGE_IN_AFTER_MS = 400
"""How much of an answer is heard before it is interrupted."""
CHAIN_MAX = 4
"""Interruptions in one session, before the other endpoint has its turn."""
AT_LENGTH = "You are a storyteller. Answer everything with a long story of at least ten sentences."
AT_LENGTH_TOKENS = 1_000
"""An answer that is over before it is interrupted shows nothing. The limit is named, for some endpoints (ours) end an
answer of which nothing is said sooner."""


@dataclass
class Held:
    """The turns at one endpoint in their order, and how late each chunk of the microphone was, in ms."""

    endpoint: Endpoint
    turns: list[Turn] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)


@dataclass
class Interrupted:
    """The interruptions at one endpoint; `asked` says how many there should be."""

    endpoint: Endpoint
    asked: int
    barge_ins: list[BargeIn] = field(default_factory=list)


def in_order(said: Sequence[Utterance], random: Random) -> Iterator[Utterance]:
    """Without end: all of them in an order of chance, then all of them in another."""
    while True:
        yield from random.sample(said, len(said))


def _by_turns(count: int, rounds: int, seed: int) -> Iterator[list[int]]:
    """For each round the order in which so many endpoints come; each is the first as often as any other."""
    # Not from the generator of what is said: that does not depend on how many endpoints hear it.
    first = Random(f"{seed} first").randrange(count)  # noqa: S311
    for number in range(rounds):
        yield [(first + number + place) % count for place in range(count)]


async def hold_rounds(
    endpoints: Sequence[Endpoint],
    said: Sequence[Utterance],
    turns: int,
    asking: Asking,
    *,
    seed: int = 0,
    is_fresh: bool = False,
    report: Callable[[Endpoint, Turn], None] = lambda endpoint, turn: None,
) -> list[Held]:
    """`turns` rounds and one before them, the first turn of each endpoint. Raises `ConnectionFailed`, `ServerError`."""
    random = Random(seed)  # noqa: S311
    held = [Held(endpoint) for endpoint in endpoints]
    async with AsyncExitStack() as stack:
        talking = [
            await stack.enter_async_context(Conversation(endpoint, asking, is_fresh=is_fresh)) for endpoint in endpoints
        ]
        utterances = islice(in_order(said, random), turns + 1)
        for utterance, order in zip(utterances, _by_turns(len(endpoints), turns + 1, seed), strict=True):
            for number in order:
                turn = await talking[number].hold(utterance)
                held[number].turns.append(turn)
                report(endpoints[number], turn)
        for outcome, conversation in zip(held, talking, strict=True):
            outcome.late_ms = conversation.late_ms
    return held


async def interrupt_rounds(
    endpoints: Sequence[Endpoint],
    said: Sequence[Utterance],
    count: int,
    asking: Asking,
    *,
    seed: int = 0,
    report: Callable[[Endpoint, BargeIn], None] = lambda endpoint, barge_in: None,
) -> list[Interrupted]:
    """`count` interruptions at each endpoint, in chains that take turns. Raises `ConnectionFailed`, `ServerError`."""
    random = Random(seed)  # noqa: S311
    outcomes = [Interrupted(endpoint, count) for endpoint in endpoints]
    rounds = -(-count // CHAIN_MAX)
    utterances = in_order(said, random)
    for chain, order in enumerate(_by_turns(len(endpoints), rounds, seed)):
        links = list(islice(utterances, min(CHAIN_MAX, count - chain * CHAIN_MAX) + 1))
        for number in order:
            done = await Conversation(endpoints[number], asking).interrupt(links, BARGE_IN_AFTER_MS)
            outcomes[number].barge_ins += done
            for barge_in in done:
                report(endpoints[number], barge_in)
    return outcomes
