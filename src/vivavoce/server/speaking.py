"""The speech of one message: its phrases one after the other, begun when it will not run out (`Ahead`).

`Work` gives it phrases as they are asked for, and wakes it when there is more text. Reports go into the inbox in order.
Invariants: phrases are spoken in the order in which they came; the first audio is held for `HELD_S_MAX` at most,
whatever the synthesizer does meanwhile, and no more of it than `Ahead` wants.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from vivavoce.core.messages import AudioSynthesized, EngineReport, PhraseSpoken, Speak
from vivavoce.engines import Synthesizer
from vivavoce.engines.cores import DUE, URGENCY, Urgency

from .ahead import Ahead
from .asking import closing, speech

__all__ = ["Speaking"]

HELD_S_MAX = 10.0
"""How long speech is held that might run out. Then it is heard, since a gap is better than silence."""


class Speaking:
    """A message that is being spoken. `ahead` None: nothing is known of its text, and it begins at once."""

    def __init__(
        self,
        first: Speak,
        synthesizer: Synthesizer,
        report: Callable[[EngineReport], Awaitable[None]],
        room: Callable[[], Awaitable[None]] | None,
        ahead: Ahead | None,
    ) -> None:
        self.response_id, self.item_id = first.response_id, first.item_id
        self._synthesizer, self._report, self._room, self._ahead = synthesizer, report, room, ahead
        self._clock = asyncio.get_running_loop().time
        self._phrases: deque[Speak] = deque()
        self._held: deque[AudioSynthesized | PhraseSpoken] = deque()
        self._holds = ahead is not None and not ahead.has_begun
        self._holds_until: float | None = None
        self._news = asyncio.Event()
        self._releasing = asyncio.Lock()
        self.add(first)

    def add(self, wanted: Speak) -> None:
        """Speak this phrase after the others. As many as the text has: the language model's limit bounds them."""
        self._phrases.append(wanted)
        if self._ahead is not None:
            self._ahead.asked(len(wanted.text), self._clock())
        self.notice()

    def notice(self) -> None:
        """There is more text, or its end, or another phrase: who waits looks anew."""
        self._news.set()
        self._news.clear()

    async def run(self) -> None:
        """Speak until no phrase is left and nothing is held; a later phrase needs another `Speaking`.

        Nothing is waited for behind the last look: a phrase that came meanwhile would be lost.
        """
        holding = asyncio.create_task(self._hold(), name="holding speech") if self._holds else None
        try:
            while self._phrases or self._held:
                if self._phrases:
                    await self._speak(self._phrases[0])
                    self._phrases.popleft()
                elif not await self._released() and not self._phrases:
                    await self._wait()
        except Exception:
            self._begin()  # what there is shall be heard
            await self._released()
            raise
        finally:
            if holding is not None and not holding.cancel() and not holding.cancelled():
                holding.exception()  # which has come here as well

    async def _hold(self) -> None:
        """Release what is held as soon as it may be heard, also while the synthesizer is silent."""
        while not await self._released():
            await self._wait()

    async def _speak(self, wanted: Speak) -> None:
        ahead = self._ahead
        due = None if ahead is None else ahead.next_due(self._clock())
        URGENCY.set(Urgency.SOON if wanted.phrase and not self._holds else Urgency.NOW)
        DUE.set(due)
        async with closing(speech(self._synthesizer, wanted)) as chunks:
            async for audio in chunks:
                if ahead is not None:
                    samples = len(audio) // wanted.format.sample_bytes
                    ahead.made(samples / wanted.format.rate_hz, self._clock())
                await self._say(AudioSynthesized(self.response_id, self.item_id, audio))
        if ahead is not None:
            ahead.spoken()
        await self._say(PhraseSpoken(self.response_id, self.item_id, wanted.phrase))

    async def _say(self, report: AudioSynthesized | PhraseSpoken) -> None:
        if self._holds or self._held or self._room is not None:
            self._held.append(report)
            await self._released()
        else:  # nearly always: nothing can come before it
            await self._report(report)

    async def _released(self) -> bool:
        """Report what there is, if it may be heard. One at a time, so that it stays in order."""
        async with self._releasing:
            while self._held and isinstance(self._held[0], PhraseSpoken):  # of a phrase without sound
                await self._report_first()
            if self._holds and self._ahead is not None and not self._may_begin(self._ahead):
                return False
            self._holds = False
            while self._held:
                if self._room is not None and isinstance(self._held[0], AudioSynthesized):
                    await self._room()
                await self._report_first()
            return True

    async def _report_first(self) -> None:
        await self._report(self._held[0])
        self._held.popleft()

    def _may_begin(self, ahead: Ahead) -> bool:
        now = self._clock()
        if self._held and self._holds_until is None:
            self._holds_until = now + HELD_S_MAX
            self.notice()
        if self._holds_until is not None and now >= self._holds_until:
            ahead.begin(now)
        return ahead.may_begin(now)

    async def _wait(self) -> None:
        """For more text, for another phrase, or until it has been held for long enough."""
        try:
            async with asyncio.timeout_at(self._holds_until):
                await self._news.wait()
        except TimeoutError:
            self._begin()

    def _begin(self) -> None:
        if self._ahead is not None:
            self._ahead.begin(self._clock())
