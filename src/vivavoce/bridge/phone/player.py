"""The loudspeaker of a phone call: audio of the answers goes to the far end at once, which plays it in its own time.

Session → `play` → media and marks → Outbox → Twilio; `stop` → `clear`. A `Player` like any other: it says to the sample
what was heard, by the `Playhead`. µ-law goes through as it is; other formats are converted on the way.
Invariant: what was stopped is neither sent any more nor played, and what is sent is played from its beginning.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from vivavoce.audio.formats import ULAW_8K, Format
from vivavoce.client.player import Heard, VirtualPlayer
from vivavoce.errors import ConnectionClosed
from vivavoce.transports import Transport

from .messages import Clear, Mark, Media, Name, Sound, encode
from .playhead import Playhead

if TYPE_CHECKING:
    from vivavoce.audio.convert import Converter

QUEUED_S_MAX: Final = 540.0
"""Audio that may wait to be heard. Twilio throws away what goes beyond ten minutes; here its item ends before."""
PIECE_MS: Final = 100
"""The longest piece of audio in a message, and so the distance between marks."""
ITEMS_MAX: Final = 1_000
"""Items that are remembered as stopped."""
CLOSE_S_MAX: Final = 5.0
"""Time for what is still to be sent, and for the closing of the WebSocket."""


class Outbox:
    """Messages on their way to Twilio, in order. Audio that was not sent yet can be taken back."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._waiting: deque[Media | Mark | Clear] = deque()  # bounded by the audio that the player takes
        self._stirred = asyncio.Event()
        self._is_ending = False

    def put(self, message: Media | Mark | Clear) -> None:
        """Send it when its turn comes."""
        self._waiting.append(message)
        self._stirred.set()

    def take_back(self) -> None:
        """What was not sent is not to be sent."""
        self._waiting.clear()

    def end(self) -> None:
        """Nothing comes any more: `run` returns when all is sent."""
        self._is_ending = True
        self._stirred.set()

    async def run(self) -> None:
        """Send, until `end` or the end of the connection."""
        with suppress(ConnectionClosed):
            while self._waiting or not self._is_ending:
                while self._waiting:
                    await self._transport.send(encode(self._waiting.popleft()))
                self._stirred.clear()
                if not self._is_ending:
                    await self._stirred.wait()


class PhonePlayer:
    """Plays into one stream. `now_s` is a clock in seconds, the event loop's where it is None."""

    def __init__(self, stream_sid: str, outbox: Outbox, now_s: Callable[[], float] | None = None) -> None:
        self._stream_sid = stream_sid
        self._outbox = outbox
        self.playhead = Playhead(now_s or asyncio.get_running_loop().time)
        self._virtual = VirtualPlayer(self.playhead, queued_s_max=QUEUED_S_MAX)
        self._items: OrderedDict[str, bool] = OrderedDict()
        """Items so far, and whether more of them is to be played."""
        self._ends_s = 0.0
        """When what was sent will have been played, by the playhead."""
        self._marks = 0
        self._converter: Converter | None = None
        self._converted = ""
        self._heard_out = asyncio.Event()

    # --- what a session needs -----------------------------------------------------------------------------------------

    def play(self, item_id: str, audio: bytes, format: Format) -> None:
        """Send more of an item, to be played behind what is playing; audio of an item that was stopped is dropped.

        Beyond `QUEUED_S_MAX` it is dropped with the rest of its item. Raises `ValueError` for another format than the
        item began in.
        """
        if not self._items.setdefault(item_id, True):
            return
        while len(self._items) > ITEMS_MAX:
            self._items.popitem(last=False)
        if not self._virtual.is_playing and self.playhead.is_heard_out:
            self._mark()  # comes back at once, and so says how long the way is
        dropped = self._virtual.dropped_samples
        self._virtual.play(item_id, audio, format)
        if dropped := self._virtual.dropped_samples - dropped:
            self._items[item_id] = False
            audio = audio[: len(audio) - dropped * format.sample_bytes]
        self._send(self._as_ulaw(item_id, audio, format))

    def stop(self) -> tuple[Heard, ...]:
        """Be silent at once; the items that were not played to their end, the one that was playing first."""
        heard = self._virtual.stop()
        for item_id in self._items:
            self._items[item_id] = False
        self._converter = None
        self._outbox.take_back()
        self._outbox.put(Clear(stream_sid=self._stream_sid))
        self.playhead.clear()
        self._ends_s = self.playhead()
        self._heard_out.set()
        return heard

    @property
    def is_playing(self) -> bool:
        """Whether there is something left to be heard."""
        return self._virtual.is_playing or not self.playhead.is_heard_out

    # --- what the call needs ------------------------------------------------------------------------------------------

    @property
    def remaining_s(self) -> float:
        """Seconds of audio that are still to be heard."""
        return max(self._ends_s - self.playhead(), 0.0)

    def finish(self, item_id: str) -> None:
        """All of an item's audio has come: what a conversion still holds of it is sent."""
        if self._converter is not None and self._converted == item_id:
            rest, self._converter = self._converter.flush(), None
            self._send(rest)

    def echoed(self, name: str) -> None:
        """A mark came back: all audio before it was heard, or cleared."""
        if self.playhead.echoed(name) and self.playhead.is_heard_out:
            self._heard_out.set()

    async def heard_out(self) -> None:
        """Wait until the caller has heard everything, or everything was stopped."""
        while not self.playhead.is_heard_out:
            self._heard_out.clear()
            await self._heard_out.wait()

    # --- sending ------------------------------------------------------------------------------------------------------

    def _as_ulaw(self, item_id: str, audio: bytes, format: Format) -> bytes:
        """As the phone speaks it; µ-law is not touched."""
        if format == ULAW_8K:
            return audio
        from vivavoce.audio.convert import Converter

        rest = b""
        if self._converter is None or self._converted != item_id:
            rest = self._converter.flush() if self._converter is not None else b""
            self._converter, self._converted = Converter(format, ULAW_8K), item_id
        return rest + self._converter.push(audio)

    def _send(self, ulaw: bytes) -> None:
        size = ULAW_8K.bytes_of(PIECE_MS)
        for at in range(0, len(ulaw), size):
            piece = ulaw[at : at + size]
            self._outbox.put(Media(stream_sid=self._stream_sid, media=Sound(payload=piece)))
            self._ends_s = max(self._ends_s, self.playhead()) + len(piece) / ULAW_8K.rate_hz
            self._mark()

    def _mark(self) -> None:
        self._marks += 1
        name = f"heard-{self._marks}"
        self._outbox.put(Mark(stream_sid=self._stream_sid, mark=Name(name=name)))
        self.playhead.expect(name, max(self._ends_s, self.playhead()))
