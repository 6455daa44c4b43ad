"""Which item the sound belongs to that comes by RTP: from events and sound that are not synchronised to audio deltas.

On WebRTC the server plays: `output_audio_buffer.started` and `stopped` say when, and nothing says where in the sound.
So sound is looked back upon when `started` comes late, silence before the first word is left out, and `stopped` is told
when the last of the sound has come. Pure: events and pieces of sound go in, messages come out, in their order.
Invariant: sound of a response is told after its `started` and before its `stopped`, and none after its `cleared`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import msgspec

from vivavoce.audio.formats import PCM16_24K
from vivavoce.audio.levels import peak_db
from vivavoce.protocol.client_codec import Dialect

LOOK_BACK_MS = 300
"""Sound before `started` that can still belong to the response."""
LEAD_MS_MAX = 400
"""Silence after `started` that is left out. A longer one is part of what is said."""
CUSHION_MS = 60
"""Sound that is collected before the first of it is told, so that a player does not run dry at every unevenness."""
TAIL_MS_MAX = 500
"""Time after `stopped` in which the last of the sound can still come."""
TAIL_QUIET_MS = 60
"""Silence after `stopped` by which it is known to be over."""
ITEM_GAP_MS = 400
"""Silence after which the sound is that of the response's next item, where the one before was complete."""
HELD_MS_MAX = 2_000
"""Sound that waits for the item that it belongs to. Beyond it the oldest is dropped."""
QUIET_DB = -45.0
"""Peak level below which a piece is silence."""
RESPONSES_MAX = 32
"""Responses of which the spoken items are remembered."""

_DELTAS = {"ga": "response.output_audio.delta", "beta": "response.audio.delta"}
_DONE = frozenset({"response.output_audio.done", "response.audio.done"})


class _Part(msgspec.Struct):
    type: str = ""


class Told(msgspec.Struct):
    """What is looked at of a message."""

    type: str = ""
    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    part: _Part = msgspec.field(default_factory=_Part)


class _Delta(msgspec.Struct):
    type: str
    event_id: str
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: bytes


@dataclass(slots=True)
class _Item:
    """An item of a response that is spoken."""

    item_id: str
    output_index: int
    content_index: int
    is_done: bool = False
    """Whether all of it has been made, which is before all of it has been played."""


@dataclass(slots=True)
class _Playing:
    """The response whose sound this is."""

    response_id: str
    held: bytearray = field(default_factory=bytearray)
    """Sound that is not told yet."""
    has_begun: bool = False
    """Whether the first sound has come."""
    is_told: bool = False
    """Whether the first of it was told."""
    waited_ms: int = 0
    quiet_ms: int = 0
    quiet_bytes: int = 0
    """Silence at the end of what is held."""
    stopped: str | None = None
    """The message that it has stopped, as long as the last of it may still come."""
    tail_ms: int = 0


class Sounding:
    """The sound of one connection. What comes out are messages for the client's codec."""

    def __init__(self, dialect: Dialect = "ga") -> None:
        self._type = _DELTAS[dialect]
        self._items: dict[str, list[_Item]] = {}
        self._before: deque[bytes] = deque()
        self._before_bytes = 0
        self._playing: _Playing | None = None
        self._is_deaf = False
        """What comes is the rest of what was cut off, up to the next silence."""
        self._number = 0

    def told(self, message: str | bytes) -> list[str | bytes]:
        """A message of the server: what the client is to get in its place."""
        try:
            told = msgspec.json.decode(message, type=Told)
        except msgspec.DecodeError:  # the codec will say so
            return [message]
        match told.type:
            case "output_audio_buffer.started":
                return [*self._over(), message, *self._start(told.response_id)]
            case "output_audio_buffer.stopped" if self._is_playing(told.response_id):
                assert self._playing is not None
                self._playing.stopped, self._playing.quiet_ms = _text(message), 0
                return []
            case "output_audio_buffer.cleared" if self._is_playing(told.response_id):
                before = self._over() if self._playing and self._playing.stopped else []
                self._playing, self._is_deaf = None, True
                return [*before, message]
            case "response.content_part.added" if "audio" in told.part.type:
                self._add(told)
            case done if done in _DONE:
                for item in self._items.get(told.response_id, ()):
                    item.is_done = item.is_done or item.item_id == told.item_id
        return [message]

    def heard(self, pcm: bytes) -> list[str | bytes]:
        """A piece of sound, PCM16 mono at 24 kHz: what the client is to get."""
        length_ms, is_quiet = PCM16_24K.duration_ms(pcm), peak_db(pcm) < QUIET_DB
        playing = self._playing
        if playing is None:
            self._look_forward(pcm, is_quiet=is_quiet)
            return []
        playing.quiet_ms = playing.quiet_ms + length_ms if is_quiet else 0
        if playing.stopped is not None:
            playing.tail_ms += length_ms
            if playing.quiet_ms >= TAIL_QUIET_MS or playing.tail_ms > TAIL_MS_MAX:
                return self._over()
        if not playing.has_begun:
            playing.waited_ms += length_ms
            if is_quiet and playing.waited_ms <= LEAD_MS_MAX:
                return []
            playing.has_begun = True
        self._turn_to_next(playing)
        playing.held += pcm
        playing.quiet_bytes = playing.quiet_bytes + len(pcm) if is_quiet else 0
        if playing.stopped is not None and is_quiet:
            return []  # most probably it is over
        if not playing.is_told and len(playing.held) < PCM16_24K.bytes_of(CUSHION_MS):
            return []
        return self._tell(playing)

    def end(self) -> list[str | bytes]:
        """Nothing comes any more: what is still to be told."""
        return self._over()

    def _is_playing(self, response_id: str) -> bool:
        return self._playing is not None and self._playing.response_id == response_id

    def _start(self, response_id: str) -> list[str | bytes]:
        """The sound is that of this response; it may have begun before it was told of."""
        self._playing = playing = _Playing(response_id)
        pieces = list(self._before)
        self._forget_before()
        self._is_deaf = False
        while pieces and peak_db(pieces[0]) < QUIET_DB:
            del pieces[0]
        if not pieces:
            return []
        playing.has_begun = True
        playing.held += b"".join(pieces)
        return self._tell(playing) if len(playing.held) >= PCM16_24K.bytes_of(CUSHION_MS) else []

    def _over(self) -> list[str | bytes]:
        """The response that was being played is not any more."""
        playing, self._playing = self._playing, None
        if playing is None:
            return []
        if playing.stopped is not None:
            del playing.held[max(len(playing.held) - playing.quiet_bytes, 0) :]
        rest = self._tell(playing)
        self._items.pop(playing.response_id, None)
        return [*rest, playing.stopped] if playing.stopped is not None else rest

    def _look_forward(self, pcm: bytes, *, is_quiet: bool) -> None:
        """Sound of nobody: it may be the begin of what is told of a moment later."""
        self._is_deaf = self._is_deaf and not is_quiet
        if self._is_deaf:
            return
        self._before.append(pcm)
        self._before_bytes += len(pcm)
        while self._before_bytes > PCM16_24K.bytes_of(LOOK_BACK_MS):
            self._before_bytes -= len(self._before.popleft())

    def _forget_before(self) -> None:
        self._before.clear()
        self._before_bytes = 0

    def _add(self, told: Told) -> None:
        items = self._items.setdefault(told.response_id, [])
        if all(item.item_id != told.item_id for item in items):
            items.append(_Item(told.item_id, told.output_index, told.content_index))
        while len(self._items) > RESPONSES_MAX:
            del self._items[next(iter(self._items))]

    def _turn_to_next(self, playing: _Playing) -> None:
        items = self._items.get(playing.response_id, [])
        if len(items) > 1 and items[0].is_done and playing.quiet_ms >= ITEM_GAP_MS:
            del items[0]
            playing.quiet_ms = 0

    def _tell(self, playing: _Playing) -> list[str | bytes]:
        """All that is held, as a delta of the item that is spoken."""
        items = self._items.get(playing.response_id)
        if not items or not playing.held:
            del playing.held[: max(len(playing.held) - PCM16_24K.bytes_of(HELD_MS_MAX), 0)]
            return []
        self._number += 1
        item, delta = items[0], bytes(playing.held)
        playing.held.clear()
        playing.is_told = True
        event = _Delta(
            self._type,
            f"event_heard_{self._number}",
            playing.response_id,
            item.item_id,
            item.output_index,
            item.content_index,
            delta,
        )
        return [msgspec.json.encode(event).decode()]


def _text(message: str | bytes) -> str:
    return message if isinstance(message, str) else message.decode()
