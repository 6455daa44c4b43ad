"""End of turn, judged from the words (`wording`) and the sound (`intonation`) of what was said so far.

One logistic model adds both up, so that either may be missing: without a transcript, or with one in another language
than English, the sound decides and the probability stays moderate. Milliseconds on one thread, no weights to load.
Invariant: the same audio and transcript give the same probability, whatever was judged before.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from vivavoce.engines.options import read_options
from vivavoce.engines.weights import library
from vivavoce.engines.wording import signs
from vivavoce.errors import EngineError

__all__ = ["WEIGHTS", "Endings", "EndingsSettings", "Weights", "create", "features", "text_probability"]

RATE_HZ = 16_000
WAITING_MAX = 256
"""Judgements at once, those waiting for the thread included."""
LOG_ODDS_MAX = 5.0
"""Nobody is surer than that: 0.993."""
SPREADS_MAX = 2.5
"""What is further out is a measuring error as often as not."""
SCALES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"pitch": (-2.0, 3.1), "syllable": (-2.8, 3.9), "level": (-4.0, 3.8)}
)
"""Usual value and spread of each cue of the sound; at its usual value it says nothing."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Log-odds that the turn is over, for each sign of words and cue of sound, and `bias` whatever shows."""

    each: Mapping[str, float]
    bias: float = 0.0

    def probability(self, shown: Mapping[str, float], heard: Mapping[str, float]) -> float:
        """Of a turn with these signs (see `wording.signs`) and cues (see `intonation.cues`)."""
        found = features(shown, heard)
        log_odds = self.bias + sum(self.each[name] * value for name, value in found.items())
        return 1 / (1 + math.exp(-max(-LOG_ODDS_MAX, min(LOG_ODDS_MAX, log_odds))))


WEIGHTS = Weights(
    MappingProxyType(
        {
            "text": 0.24,
            "asking": 0.49,
            "unmarked": -0.51,
            "comma": -1.49,
            "trailing": -3.05,
            "hesitating": -3.0,
            "hanging": -3.04,
            "leaning": -1.8,
            "wanting": -2.55,
            "describing": -2.15,
            "counting": -2.23,
            "condition": -1.49,
            "lone": -1.0,
            "reply": 2.0,
            "courtesy": 1.5,
            "pitch": -0.57,
            "syllable": -0.63,
            "level": -0.15,
        }
    )
)
"""Fitted by benchmarks/end_of_turn.py (`--fit`) on 55 recordings of about 50 speakers, read English and spoken orders:
55 finished turns, and unfinished ones at 20 pauses and 132 cuts between words, as Whisper tiny.en wrote them down.
Logistic regression drawn towards what was believed before (`PRIOR` there). Hesitating, wanting, reply and courtesy do
not occur in the recordings and are that belief alone; counting, condition, comma and lone nearly so."""


def features(shown: Mapping[str, float], heard: Mapping[str, float]) -> dict[str, float]:
    """What the weights apply to: signs as they are, cues by their `SCALES`."""
    found = dict(shown)
    for name, value in heard.items():
        centre, spread = SCALES[name]
        found[name] = max(-SPREADS_MAX, min(SPREADS_MAX, (value - centre) / spread))
    return found


def text_probability(transcript: str) -> float:
    """The probability that a turn is over by its words alone; 0.5, nearly, for no words."""
    return WEIGHTS.probability(signs(transcript), {})


class EndingsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`bias`: log-odds added to every judgement; above 0, turns end sooner, and more of them too soon."""

    bias: Annotated[float, Meta(ge=-3, le=3)] = 0.0


class Endings:
    """The turn detector. Nothing is imported before `warm_up`."""

    rate_hz = RATE_HZ

    def __init__(self, settings: EndingsSettings | None = None) -> None:
        bias = (settings or EndingsSettings()).bias
        self._weights = Weights(WEIGHTS.each, bias)
        self._cues: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="endings")
        self._waiting = 0

    async def warm_up(self) -> None:
        """Load, and judge once. Raises `EngineMissing`."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._load)

    async def judge(self, audio: bytes, transcript: str) -> float:
        """The probability, 0 to 1, that a turn of PCM16 mono at 16 kHz and this transcript is over.

        Raises `EngineError`: `engine_not_ready`, `engine_busy`.
        """
        if self._cues is None:
            raise EngineError("endings: not warmed up", code="engine_not_ready")
        if self._waiting >= WAITING_MAX:
            raise EngineError(f"endings: {WAITING_MAX} judgements are waiting", code="engine_busy")
        self._waiting += 1
        try:
            run = asyncio.get_running_loop().run_in_executor
            return await run(self._thread, self._judged, self._cues, audio, transcript)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """End the thread, after what is being judged."""
        self._cues = None
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    def _load(self) -> None:
        found = library("vivavoce.engines.intonation").cues
        found(bytes(2 * RATE_HZ))
        self._cues = found

    def _judged(self, cues: Any, audio: bytes, transcript: str) -> float:
        return self._weights.probability(signs(transcript), cues(audio))


def create(options: Mapping[str, object]) -> Endings:
    """The engine from its options: see `EndingsSettings`. Raises `SettingsError`."""
    return Endings(read_options("endings", EndingsSettings, options))
