"""The latency waterfall of one response, and how a client is told: an extension that other ends never notice.

Measured by the server's session machine (`core/stopwatch.py`). It travels as JSON in `response.done`, as the value of
one pair of `response.metadata`, for a client that asked: with that key in the metadata of its `response.create`, or
with a header of the handshake for every response. Invariant: who has not asked sees the API and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec
from msgspec import structs

from .base import given
from .config import METADATA_PAIRS_MAX
from .items import Response

__all__ = ["HEADER", "KEY", "STEPS", "Step", "Waterfall", "told_in", "waterfall_of"]

KEY: Final = "vivavoce_waterfall"
"""The key in `metadata`. In a request any value asks for it."""

HEADER: Final = "vivavoce-waterfall"
"""The header of the handshake that asks for it in every response of the session, whatever its value."""

Origin = Literal["speech_end", "commit", "request"]

Step = Literal[
    "committed",
    "transcript",
    "requested",
    "prompted",
    "first_token",
    "first_phrase",
    "first_audio",
    "first_sent",
    "played",
    "generated",
    "spoken",
    "done",
]


class Waterfall(msgspec.Struct, frozen=True, kw_only=True):
    """When each step of a response was reached, in ms since the origin; None for one that was not, or does not apply.

    Steps before the origin are negative: what was prepared while the server still listened.
    """

    counted_from: Origin
    """`speech_end`: the server had the last of the speech, by voice activity. `commit`: the client ended the turn.
    `request`: there was no spoken turn, and a response was asked for."""
    at_ms: int
    """The origin, in ms since the session opened."""
    committed_ms: int | None = None
    """The turn was committed, by whomever: for `speech_end` the silence that the server waited for."""
    transcript_ms: int | None = None
    """What the user said was known, or known not to be known."""
    requested_ms: int | None = None
    """The response began: `response.created`."""
    prompted_ms: int | None = None
    """The language model was asked."""
    first_token_ms: int | None = None
    """It said the first of its answer, text or call."""
    first_phrase_ms: int | None = None
    """The first phrase went to the synthesizer."""
    first_audio_ms: int | None = None
    """The synthesizer had the first audio."""
    first_sent_ms: int | None = None
    """The first of the answer was sent: audio, or text where nothing is spoken."""
    played_ms: int | None = None
    """The first audio was played, where the server plays (WebRTC); it may come after `response.done`, which lacks it
    then."""
    generated_ms: int | None = None
    """The language model had finished."""
    spoken_ms: int | None = None
    """The last phrase had been synthesized."""
    done_ms: int | None = None
    """`response.done`."""
    audio_ms: int = 0
    """How much speech was sent, in ms of sound."""

    @property
    def steps(self) -> dict[str, int]:
        """The steps that were reached, by their names in `STEPS`, in the order in which they were."""
        reached = {step: ms for step in STEPS if (ms := getattr(self, f"{step}_ms")) is not None}
        return dict(sorted(reached.items(), key=lambda one: one[1]))


STEPS: Mapping[str, str] = {
    "committed": "turn end found",
    "transcript": "transcript",
    "requested": "response begun",
    "prompted": "model asked",
    "first_token": "first token",
    "first_phrase": "first phrase",
    "first_audio": "first audio",
    "first_sent": "first sent",
    "played": "played",
    "generated": "text complete",
    "spoken": "speech complete",
    "done": "done",
}
"""The steps in the order in which they usually come, and what people call them."""


def told_in(response: Response, waterfall: Waterfall, *, always: bool) -> Response:
    """The response with its waterfall, where the request asked for it, or `always` where there is room for a pair."""
    metadata = given(response.metadata, None) or {}
    if KEY not in metadata and not (always and len(metadata) < METADATA_PAIRS_MAX):
        return response
    return structs.replace(response, metadata={**metadata, KEY: msgspec.json.encode(waterfall).decode()})


def waterfall_of(metadata: Mapping[str, object] | None) -> Waterfall | None:
    """The one that a response's metadata holds; None where there is none, or none that can be read."""
    told = (metadata or {}).get(KEY)
    if not isinstance(told, str):
        return None
    try:
        return msgspec.json.decode(told, type=Waterfall)
    except msgspec.MsgspecError:
        return None
