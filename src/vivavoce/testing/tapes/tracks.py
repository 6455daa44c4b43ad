"""The sound of a tape, both tracks placed in time.

The user's sound stands where it was said: a piece that arrives has just ended, and pieces closer than the jitter of a
network belong together. The assistant's stands where it was heard: it is sent faster than it is spoken, so each piece
waits for the one before; what was cut (`conversation.item.truncate`, or a note `played`) falls silent there.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vivavoce.audio.formats import PCM16_24K, Format
from vivavoce.transports.redaction import Formats, sound_of

from .entries import Entry, Note

JITTER_MS = 300
"""Gaps in the user's sound that are shorter are the network's."""
TRACK_MS_MAX = 6 * 60 * 60 * 1000
"""Beyond it no more sound is placed."""

RATE_HZ = PCM16_24K.rate_hz
_MS = RATE_HZ // 1000


@dataclass(frozen=True, slots=True)
class Tracks:
    """PCM16 mono at `rate_hz`, both beginning with the tape and equally long."""

    user: bytes
    assistant: bytes
    rate_hz: int = RATE_HZ

    @property
    def duration_ms(self) -> int:
        """How long they are."""
        return PCM16_24K.duration_ms(self.user)


@dataclass(slots=True)
class _Piece:
    start: int
    pcm: bytes
    item_id: str = ""

    @property
    def end(self) -> int:
        return self.start + len(self.pcm) // 2


def sound_in(event: dict[str, Any], format: Format) -> bytes:
    """The sound that an event streams as PCM16 at 24 kHz; nothing for one that streams none."""
    encoded = event.get(sound_of(event) or "")
    try:
        audio = base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else b""
    except (binascii.Error, ValueError):
        return b""
    if format == PCM16_24K or not audio:
        return audio[: len(audio) // 2 * 2]
    from vivavoce.audio import convert, resample  # here, because they load numpy

    return resample.resample(convert.decode(audio, format), format.rate_hz, RATE_HZ)


def tracks_of(entries: Iterable[Entry]) -> Tracks:
    """Both tracks of a tape."""
    formats, user, assistant = Formats(), list[_Piece](), list[_Piece]()
    for entry in entries:
        if entry.t_ms > TRACK_MS_MAX:
            break
        now = round(entry.t_ms * _MS)
        if isinstance(entry, Note):
            if entry.kind == "played" and isinstance(ms := entry.fields.get("ms"), (int, float)):
                _cut(assistant, str(entry.fields.get("item_id")), round(ms * _MS), now)
            continue
        event = entry.event
        formats.take(event)
        if event.get("type") == "conversation.item.truncate" and isinstance(ms := event.get("audio_end_ms"), int):
            _cut(assistant, str(event.get("item_id")), ms * _MS, now)
        elif pcm := sound_in(event, formats.of[entry.dir]):
            if entry.dir == "client":
                _hear(user, pcm, now)
            else:
                _speak(assistant, pcm, now, str(event.get("item_id")))
    size = 2 * max((piece.end for piece in (*user, *assistant)), default=0)
    return Tracks(_laid(user, size), _laid(assistant, size))


def _hear(track: list[_Piece], pcm: bytes, now: int) -> None:
    end = track[-1].end if track else 0
    start = max(now - len(pcm) // 2, 0)
    track.append(_Piece(end if track and start - end < JITTER_MS * _MS else max(start, end), pcm))


def _speak(track: list[_Piece], pcm: bytes, now: int, item_id: str) -> None:
    track.append(_Piece(max(now, track[-1].end if track else 0), pcm, item_id))


def _cut(track: list[_Piece], item_id: str, kept: int, now: int) -> None:
    """Of the item only the first samples were heard. What waited behind it was not heard either, so far."""
    own = [piece for piece in track if piece.item_id == item_id]
    if not own or sum(len(piece.pcm) // 2 for piece in own) <= kept:
        return
    for index in range(len(track) - 1, -1, -1):
        piece = track[index]
        if piece.start >= max(own[0].start, now) and piece.item_id != item_id:
            del track[index]
    for piece in own:
        piece.pcm = piece.pcm[: 2 * max(kept, 0)]
        kept -= len(piece.pcm) // 2
    track[:] = [piece for piece in track if piece.pcm]


def _laid(track: Iterable[_Piece], size: int) -> bytes:
    laid = bytearray(size)
    for piece in track:
        laid[2 * piece.start : 2 * piece.end] = piece.pcm
    return bytes(laid)
