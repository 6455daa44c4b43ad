"""The audio of a call, between its WebRTC connection and its session: what is heard goes in, what is said goes out.

Interprets for the runtime what concerns playback, and is the machine's `Player`: where the outlet stands, the playhead
stands. Invariants: audio enters the session in the order in which it was heard, and none of it overtakes; a session
that does not take it is told of no more than `HEARD_BYTES_MAX`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from vivavoce.core.messages import Input, PlaybackDrained, PlaybackStarted, Send, StopPlayback
from vivavoce.core.playback import Played
from vivavoce.errors import ConnectionClosed
from vivavoce.protocol import events as ev

from .channel import Channel

if TYPE_CHECKING:
    from vivavoce.transports.taping import TapeWriter
    from vivavoce.transports.webrtc import Outlet

HEARD_BYTES_MAX = 30 * 48_000
"""Audio that was heard while the session is busy: 30 s. What comes beyond is dropped; a session that is busy for so
long has been given up by then."""

log = logging.getLogger(__name__)


class CallMedia:
    """The audio of one call. `play_on` and `begin` bring its two sides; what is heard before is nobody's."""

    def __init__(self) -> None:
        self._outlet: Outlet | None = None
        self._inbox: Channel[Input] | None = None
        self._heard = bytearray()
        """What waits for room in the inbox."""
        self._feeding: asyncio.Task[None] | None = None
        self.tape: TapeWriter | None = None
        """Where the audio is recorded, as the events that it would be on a WebSocket."""
        self._responses: dict[str, str] = {}
        """The response of each item that is in the outlet."""

    def play_on(self, outlet: Outlet) -> None:
        """Say everything through this."""
        self._outlet = outlet
        outlet.begun, outlet.dry = self._begun, self._dry

    def begin(self, inbox: Channel[Input]) -> None:
        """The session lives."""
        self._inbox = inbox

    # --- what is heard ------------------------------------------------------------------------------------------------

    def hear(self, pcm24k: bytes) -> None:
        """The user's audio, as it comes."""
        if self._inbox is None:
            return
        if self.tape is not None:
            self.tape.message("client", msgspec.json.encode(ev.InputAudioBufferAppend(audio=pcm24k)).decode())
        if not self._heard and self._feeding is None:
            try:
                if self._inbox.offer(ev.InputAudioBufferAppend(audio=pcm24k), len(pcm24k)):
                    return
            except ConnectionClosed:
                return
        if len(self._heard) + len(pcm24k) > HEARD_BYTES_MAX:
            log.warning("audio of a call is dropped, since its session does not take it")
            return
        self._heard += pcm24k
        if self._feeding is None:
            self._feeding = asyncio.create_task(self._feed(self._inbox), name="audio that waits for its session")

    async def _feed(self, inbox: Channel[Input]) -> None:
        """Hand over what waits, as there is room, until nothing does."""
        try:
            while self._heard:
                audio = bytes(self._heard)
                self._heard.clear()
                await inbox.put(ev.InputAudioBufferAppend(audio=audio), len(audio))
        except ConnectionClosed:
            self._inbox = None
            self._heard.clear()
        finally:
            self._feeding = None

    # --- what is said -------------------------------------------------------------------------------------------------

    def perform(self, effect: Send | StopPlayback) -> bool:
        """Play what is to be heard, or fall silent. Audio is for the track alone, everything else for the channel."""
        assert self._outlet is not None
        if isinstance(effect, StopPlayback):
            if self.tape is not None:
                for played in self._outlet.unfinished():
                    self.tape.note("played", item_id=played.key, ms=played.ms)
            self._outlet.clear()
            self._responses.clear()
            return True
        match effect.event:
            case ev.ResponseOutputAudioDelta(response_id=response_id, item_id=item_id, delta=audio):
                self._responses[item_id] = response_id
                self._outlet.put(item_id, audio)
                if self.tape is not None:
                    self.tape.message("server", msgspec.json.encode(effect.event).decode())
                return True
            case ev.ResponseOutputAudioDone(item_id=item_id):
                self._outlet.end(item_id)
        return False

    async def room(self) -> None:
        """Wait while there is as much to be played as may wait."""
        assert self._outlet is not None
        await self._outlet.room()

    def unfinished(self) -> tuple[Played, ...]:
        """The items that are not played to their end, and how far they are."""
        assert self._outlet is not None
        return tuple(Played(played.key, played.ms) for played in self._outlet.unfinished())

    def _begun(self, item_id: str) -> None:
        self._report(PlaybackStarted(self._responses[item_id]))

    def _dry(self, item_id: str) -> None:
        response_id = self._responses[item_id]
        self._responses.clear()
        self._report(PlaybackDrained(response_id))

    def _report(self, report: PlaybackStarted | PlaybackDrained) -> None:
        if self._inbox is not None:
            self._inbox.push(report)
