"""One generation by llama.cpp, as its chunks tell it: text, counts, likely ways to go on, errors.

The model's thread feeds it and asks it whether to stop; the event loop reads it. Invariant: what was computed before is
told as cached, and nothing that was computed for this answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vivavoce.engines import Finish

__all__ = ["Counts", "Run"]

ODDS_MAX = 20.0
"""Of what is not even among the likely ways to go on."""

Counts = Mapping[str, Any]


class Run:
    """One generation: how it goes, told by the model's chunks. Once `is_stopped`, the model ends at its next token.

    `own_tokens_max`: an end after so many tokens is the engine's own, no limit of somebody else's. `counts` belong to
    the text that was taken out of the queue, `latest` to what the model, which runs ahead, has written.
    """

    def __init__(self, own_tokens_max: int = 0) -> None:
        self.error: str | None = None
        self.is_too_long = False
        self.is_stopped = False
        self.has_begun = False
        """Whether a thread of the model's has taken it up."""
        self.wrote_at: float | None = None
        """When its latest token came, in seconds of the monotonic clock."""
        self.counts: Counts = {}
        self.latest: Counts = {}
        self.leave_queue: Callable[[], object] = lambda: None
        """Ends it where no thread has taken it up."""
        self._own_tokens_max = own_tokens_max
        self._is_cut = False
        self._chances: list[dict[str, Any]] = []

    def take(self, chunk: dict[str, Any]) -> str:
        """Note what a chunk says; its text, if it has any."""
        if (error := chunk.get("error")) is not None or "message" in chunk:
            self.error = str(error.get("message") if isinstance(error, dict) else error or chunk["message"])
            self.is_too_long = isinstance(error, dict) and error.get("type") == "exceed_context_size_error"
            return ""
        self.latest = chunk.get("timings") or self.latest
        text = ""
        for choice in chunk.get("choices", ()):
            self._is_cut = self._is_cut or choice.get("finish_reason") == "length"
            text += choice.get("delta", {}).get("content") or ""
            self._chances += (choice.get("logprobs") or {}).get("content") or ()
        return text

    def stop(self) -> None:
        """Nobody wants it any more: it ends at the model's next step, or at once where it has not begun."""
        self.is_stopped = True
        if not self.has_begun:
            self.leave_queue()

    def end(self) -> None:
        """The model came to its end by itself."""
        self.counts = self.latest

    def odds(self, one: str, other: str) -> float:
        """How much likelier `one` was than `other`, in natural log-odds, where the model wrote either."""
        for token in self._chances:
            if token["token"] in (one, other):
                likely = {way["token"]: way["logprob"] for way in reversed(token["top_logprobs"])}
                odds = likely.get(one, -ODDS_MAX) - likely.get(other, -ODDS_MAX)
                return float(min(max(odds, -ODDS_MAX), ODDS_MAX))
        return -ODDS_MAX

    def finish(self, before: Sequence[Run] = ()) -> Finish:
        """The last piece. What runs before computed for the same answer was not there already, and counts."""
        written = int(self.counts.get("predicted_n", 0))
        cached = int(self.counts.get("cache_n", 0))
        is_own = 0 < self._own_tokens_max <= written
        return Finish(
            reason="length" if self._is_cut and not is_own else "stop",
            input_tokens=cached + int(self.counts.get("prompt_n", 0)),
            cached_tokens=max(cached - sum(int(run.counts.get("prompt_n", 0)) for run in before), 0),
            output_tokens=written + sum(int(run.counts.get("predicted_n", 0)) for run in before),
        )
