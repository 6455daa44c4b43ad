"""Many conversations at once: what they take of the server's CPU, and how long each of them waits.

Every session speaks, waits for the answer, listens to it until it has been played, and speaks again, all in real time;
they begin at different moments, decided by a seed. What counts is the window in which all are talking: the CPU within
it, and every turn whose speech ended in it, however long its answer took.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from .conversation import Asking, Conversation, Endpoint
from .rounds import in_order
from .speech import Utterance
from .turn import Turn

__all__ = ["SESSIONS_MAX", "Loaded", "load"]

SESSIONS_MAX = 500
BEGIN_WITHIN_S = 4.0
"""All sessions have begun after so long; then the window opens."""


@dataclass
class Loaded:
    """One window: `cores` is CPU time of the server per second; `turns` those whose speech ended within it."""

    sessions: int
    seconds: float
    cores: float
    turns: list[Turn] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)

    @property
    def sessions_per_core(self) -> float | None:
        """At this load; None where the CPU was not measurable."""
        return self.sessions / self.cores if self.cores > 0 else None


async def load(
    endpoint: Endpoint,
    sessions: int,
    said: Sequence[Utterance],
    asking: Asking,
    *,
    seconds: float,
    cpu_s: Callable[[], float],
    seed: int = 0,
) -> Loaded:
    """Talk in so many sessions for `seconds`; `cpu_s` is the CPU time of the server so far. Raises as `hold` does."""
    random = Random(seed)  # noqa: S311
    clock = asyncio.get_running_loop().time
    opens_at = clock() + BEGIN_WITHIN_S
    closes_at = opens_at + seconds
    conversations = [Conversation(endpoint, asking) for _ in range(sessions)]
    turns: list[Turn] = []

    async def talk(conversation: Conversation, wait_s: float, utterances: Iterator[Utterance]) -> None:
        async with conversation:
            await asyncio.sleep(wait_s)
            while clock() < closes_at:
                turn = await conversation.hold(next(utterances), listens_until=closes_at)
                if opens_at <= turn.ended_at < closes_at:
                    turns.append(turn)

    talking = [
        asyncio.create_task(talk(one, random.uniform(0, BEGIN_WITHIN_S), in_order(said, Random(random.random()))))  # noqa: S311
        for one in conversations
    ]
    try:
        await _wait(talking, opens_at - clock())
        late_from = [len(one.late_ms) for one in conversations]
        cpu, began = cpu_s(), clock()
        await _wait(talking, closes_at - clock())
        lasted = clock() - began
        cores = (cpu_s() - cpu) / lasted
        late = [ms for one, begin in zip(conversations, late_from, strict=True) for ms in one.late_ms[begin:]]
        await asyncio.gather(*talking)
    finally:
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)
    return Loaded(sessions, lasted, cores, turns, late)


async def _wait(talking: Sequence[asyncio.Task[None]], seconds: float) -> None:
    """Let them talk; raise what one of them raised."""
    done, _ = await asyncio.wait(talking, timeout=max(seconds, 0), return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()
