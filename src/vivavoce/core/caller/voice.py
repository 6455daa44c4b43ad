"""What the assistant says, as it is heard: handed to the player, silenced, and cut at what was really heard.

The player owns the playhead (ARCHITECTURE: one truth of what was heard); what it says becomes the server's truth by
`conversation.item.truncate`, or by deleting what nobody heard. Where the server plays itself (WebRTC), it owns the
playhead, and says what was heard; then nothing is cut from here. Invariant: an item is cut once; of one that was cut no
more audio is played.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vivavoce.core.conversation import Entry
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.items import Item, Message, OutputAudio, OutputText

from .memory import Memory
from .messages import CallerEffect, Heard, Play
from .requests import OWN, Requests

CLEAR = f"{OWN}_clear"
"""How ids of events begin by which the server is to fall silent. Where it is silent already, that is no mistake."""


class Voice:
    """The assistant's speech in one session. `plays` says that a player is there, `server_plays` that what comes has
    been played by the server."""

    def __init__(
        self,
        memory: Memory,
        requests: Requests,
        send: Callable[[ev.AnyClientEvent], None],
        ask: Callable[[CallerEffect], None],
        new_id: Callable[[str], str],
        *,
        plays: bool,
        server_plays: bool = False,
    ) -> None:
        self.plays = plays
        self.server_plays = server_plays
        self._played: str | None = None
        self._memory = memory
        self._requests = requests
        self._send = send
        self._ask = ask
        self._new_id = new_id

    def sound(self, event: ev.ResponseOutputAudioDelta, entry: Entry) -> bool:
        """More speech. Says whether it is for anybody: what comes after an interruption is late."""
        item_id = event.item_id
        self._memory.sound(item_id, len(event.delta))
        if self._memory.is_stopped(item_id):
            return False
        if self._requests.is_silenced(event.response_id):
            self.cut(Heard(item_id, 0))
            return False
        if self.plays:
            self._ask(Play(item_id, event.delta, entry.format))
        return True

    # --- where the server plays ---------------------------------------------------------------------------------------

    @property
    def is_sounding(self) -> bool:
        """Whether the server is playing something."""
        return self._played is not None

    def playback(
        self, event: ev.OutputAudioBufferStarted | ev.OutputAudioBufferStopped | ev.OutputAudioBufferCleared
    ) -> None:
        """The server plays a response, has played all of it, or plays no more of it."""
        match event:
            case ev.OutputAudioBufferStarted():
                self._played = event.response_id
            case ev.OutputAudioBufferStopped():
                for item_id, entry in self._spoken(event.response_id):
                    self._memory.was_played(item_id, entry.format)
                self._is_over(event.response_id)
            case ev.OutputAudioBufferCleared():
                self._silence(event.response_id)

    def clear(self, response_id: str | None = None) -> None:
        """What the server still has to play of a response, or at all, is not to be heard."""
        if self.server_plays and response_id in (None, self._played):
            self._send(ev.OutputAudioBufferClear(event_id=self._new_id(CLEAR)))

    def _silence(self, response_id: str) -> None:
        """Nothing more of it is to be heard; what was, the server says item by item."""
        for item_id, _ in self._spoken(response_id):
            self._memory.stop(item_id)
        self._is_over(response_id)

    def _is_over(self, response_id: str) -> None:
        if self._played == response_id:
            self._played = None

    def lost(self) -> None:
        """The connection is gone, and with it what was still to be played: no more was heard than has come."""
        if self._played is None:
            return
        for item_id, entry in self._spoken(self._played):
            self._memory.stop(item_id)
            self._memory.cut(item_id, entry.audio_bytes)
        self._played = None

    def _spoken(self, response_id: str) -> Iterator[tuple[str, Entry]]:
        """The items of a response that have speech."""
        conversation = self._memory.conversation
        response = conversation.responses.get(response_id)
        own = {given(item.id, "") for item in response.output} if response is not None else set()
        for item_id in conversation.item_ids:
            entry = conversation.entry(item_id)
            is_of_it = item_id in own or conversation.owner(item_id) == response_id
            if entry is not None and is_of_it and _spoken_part(entry.item) is not None:
                yield item_id, entry

    # --- interruptions ------------------------------------------------------------------------------------------------

    def stopped(self, unfinished: tuple[Heard, ...]) -> None:
        """The player has fallen silent: cut what it was playing or was to play, and what is not complete."""
        if self.server_plays and self._played is not None:
            self._silence(self._played)
        for heard in unfinished:
            self.cut(heard)
        for view in self._memory.views():
            if view.status == "in_progress" and view.audio_ms and not self._memory.is_stopped(view.id):
                self.cut(Heard(view.id, 1 << 62))  # it was played as far as it had come

    def cut(self, heard: Heard) -> None:
        """What was not heard was not said: the server's copy is cut, and what nobody heard is deleted."""
        conversation, item_id = self._memory.conversation, heard.item_id
        entry = conversation.entry(item_id)
        self._memory.stop(item_id)
        if self.server_plays:
            return
        if entry is None or entry.truncated or item_id not in conversation or self._memory.is_cut(item_id):
            return
        samples = min(max(heard.samples, 0), entry.audio_bytes // entry.format.sample_bytes)
        end_ms = entry.format.ms(samples)
        self._memory.cut(item_id, entry.format.bytes_of(end_ms))
        if not end_ms:
            self._send(ev.ConversationItemDelete(event_id=self._new_id(OWN), item_id=item_id))
        elif (index := _spoken_part(entry.item)) is None:
            self.tell_heard(item_id)
        else:
            self._send(
                ev.ConversationItemTruncate(
                    event_id=self._new_id(OWN), item_id=item_id, content_index=index, audio_end_ms=end_ms
                )
            )

    def tell_heard(self, item_id: str) -> None:
        """A session that was told an answer in words cannot truncate it: tell it what was heard instead."""
        view = self._memory.view(item_id)
        words = "" if view is None else view.text
        previous = self._memory.conversation.previous_item_id(item_id) or "root"
        self._send(ev.ConversationItemDelete(event_id=self._new_id(OWN), item_id=item_id))
        if words:
            item = Message(id=item_id, role="assistant", content=(OutputText(text=words),))
            self._send(ev.ConversationItemCreate(event_id=self._new_id(OWN), item=item, previous_item_id=previous))


def _spoken_part(item: Item) -> int | None:
    """Which part of a message is its speech; None where it has none."""
    parts = item.content if isinstance(item, Message) else ()
    return next((index for index, part in enumerate(parts) if isinstance(part, OutputAudio)), None)
