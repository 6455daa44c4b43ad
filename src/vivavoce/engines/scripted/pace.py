"""What the scripted engines have in common: pace and faults by their settings, the format, words.

All waiting is `asyncio.sleep`, so a loop with virtual time runs hours in no time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from vivavoce.audio.formats import PCM16_24K
from vivavoce.errors import EngineError

FORMAT = PCM16_24K
"""All scripted engines hear and speak in the API's own PCM format, so that nothing needs to be resampled."""

_WORD = re.compile(r"\s*\S+(?:\s+\Z)?")

Seconds = Annotated[float, Meta(ge=0)]
Ordinal = Annotated[int, Meta(ge=1)]


class ScriptedSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pace and faults of one scripted engine; every call of the engine begins anew.

    A wait of 0 seconds still yields to the loop. With `fail_at_piece` n, n - 1 pieces come and the nth is an
    `EngineError` with code `scripted_failure`; a language model's `Finish` counts as a piece. With `ignore_cancel`, the
    first cancellation that meets a call is swallowed and the engine goes on; the second one ends it.
    """

    first_delay_s: Seconds = 0.0
    piece_delay_s: Seconds = 0.0
    fail_at_piece: Ordinal | None = None
    ignore_cancel: bool = False


AT_ONCE = ScriptedSettings()
"""No waiting, no faults."""


class Pace:
    """The tempo of one call: waits before each piece, and fails where the settings say so."""

    def __init__(self, settings: ScriptedSettings) -> None:
        self._settings = settings
        self._begun = 0
        self._deaf = settings.ignore_cancel

    async def next(self) -> None:
        """Wait for the next piece's time. Raises `EngineError` in place of the piece that is to fail."""
        delay_s = self._settings.piece_delay_s if self._begun else self._settings.first_delay_s
        self._begun += 1
        try:
            await asyncio.sleep(delay_s)
        except asyncio.CancelledError:
            if not self._deaf:
                raise
            self._deaf = False
        if self._begun == self._settings.fail_at_piece:
            raise failure(f"piece {self._begun}")


def failure(where: str) -> EngineError:
    return EngineError(f"the script says to fail at {where}", code="scripted_failure")


class Weightless:
    """What every scripted engine has in common: nothing to load, nothing to free."""

    async def warm_up(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to free."""


def words_of(text: str) -> Sequence[str]:
    """The words with the white space before them; joined they are the text, unless it is white space only."""
    return _WORD.findall(text)
