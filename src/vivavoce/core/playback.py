"""What becomes of the assistant's audio where the server itself plays it: WebRTC and SIP (reference §4.4 T8).

The player owns the playhead; the machine hears when playback began and when it ran dry, asks where it stands, and tells
the client. Without a player (WebSocket) only the client knows, and nothing here is used. Invariant: every
`output_audio_buffer.started` is followed by exactly one `stopped` or `cleared` for its response.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given

from .desk import Desk
from .messages import PlaybackDrained, PlaybackStarted, StopPlayback
from .refused import Refused


@dataclass(frozen=True, slots=True)
class Played:
    """How much of an item's audio has been played."""

    item_id: str
    ms: int


class Player(Protocol):
    """Plays the audio of `response.output_audio.delta` events, in their order."""

    def unfinished(self) -> tuple[Played, ...]:
        """The items that are not played to their end, the one that is being played first."""
        ...


class Playback:
    """Playback of one session."""

    # Of the class until something is cut off, as most sessions have no player: an empty set takes 200 bytes.
    _silenced: frozenset[str] = frozenset()
    """Responses that were cut off: what the player still says of them is old."""
    _cut: frozenset[str] = frozenset()
    """Items that the player was told to drop; it may not have done so yet."""

    def __init__(self, desk: Desk, player: Player | None) -> None:
        self._desk = desk
        self._player = player
        self._playing: str | None = None
        self._is_drained = False

    @property
    def is_busy(self) -> bool:
        """Whether something is being played, or is about to be."""
        return self._playing is not None or any(played.item_id not in self._cut for played in self._unfinished())

    def _unfinished(self) -> tuple[Played, ...]:
        return () if self._player is None else self._player.unfinished()

    def started(self, report: PlaybackStarted) -> None:
        """The first audio of a response is being played, or more of it after a gap."""
        if report.response_id in self._silenced:
            return
        self._is_drained = False
        if self._playing == report.response_id:
            return
        self._stop()
        self._playing = report.response_id
        self._desk.send(ev.OutputAudioBufferStarted(response_id=report.response_id))

    def drained(self, report: PlaybackDrained) -> None:
        """All there was has been played; more may come while the response goes on."""
        if self._playing == report.response_id:
            self._is_drained = True
            if not self._goes_on(report.response_id):
                self._stop()

    def settle(self) -> None:
        """A response is done: tell that playback has stopped, where that is the one and the player is dry.

        Where the player has got more since it ran dry, it has not yet said so, and will run dry again.
        """
        if self._playing is None or not self._is_drained or self._goes_on(self._playing):
            return
        response = self._desk.conversation.responses.get(self._playing)
        own = {given(item.id, "") for item in response.output} if response is not None else set()
        if not any(played.item_id in own for played in self._unfinished()):
            self._stop()

    def _goes_on(self, response_id: str) -> bool:
        response = self._desk.conversation.responses.get(response_id)
        return response is not None and response.status == "in_progress"

    def _stop(self) -> None:
        if self._playing is not None:
            self._desk.send(ev.OutputAudioBufferStopped(response_id=self._playing))
        self._playing, self._is_drained = None, False

    def clear(self, current: str | None) -> bool:
        """Fall silent; what was not heard is cut off the conversation. Says whether there was anything to be heard.

        `current` is the response that is running and says no more.
        """
        if not self.is_busy:
            return False
        unfinished, playing = self._unfinished(), self._playing
        self._desk.ask(StopPlayback())
        responses = self._desk.conversation.responses.values()
        self._silenced = frozenset(response.id for response in responses if response.status != "in_progress")
        self._silenced |= {response_id for response_id in (playing, current) if response_id is not None}
        self._cut = frozenset(played.item_id for played in unfinished)
        self._playing, self._is_drained = None, False
        if playing is not None:
            self._desk.send(ev.OutputAudioBufferCleared(response_id=playing))
        for played in unfinished:
            self._truncate(played)
        return True

    def clear_by_client(self, current: str | None) -> None:
        """`output_audio_buffer.clear`. Raises `Refused` where nothing is being played.

        What the player has, and has not begun, is cleared as well: the client is told of its begin and its end at once.
        """
        if self._playing is None and current is not None and self.is_busy:
            self._playing = current
            self._desk.send(ev.OutputAudioBufferStarted(response_id=current))
        if self._playing is None or not self.clear(current):
            raise Refused("output_audio_buffer_clear_empty", "Nothing is being played that could be cleared.")

    def _truncate(self, played: Played) -> None:
        entry = self._desk.conversation.entry(played.item_id)
        if entry is not None and played.item_id in self._desk.conversation and not entry.truncated:
            end_ms = min(played.ms, entry.audio_ms)
            self._desk.send(ev.ConversationItemTruncated(item_id=played.item_id, content_index=0, audio_end_ms=end_ms))
