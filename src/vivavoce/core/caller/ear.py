"""The audio that was sent, by position: turns are cut out of it, and what no item holds yet is sent again.

Positions are the server's audio clock (reference §5.3): both ends count the same samples from the beginning of the
session. Invariant: what is held never exceeds `input_ms_max`; the boundary of the last turn is never behind the end.
"""

from __future__ import annotations

from collections import deque

from vivavoce.audio.formats import Format
from vivavoce.core.conversation import format_of
from vivavoce.core.input_audio import InputAudio, ticks_of
from vivavoce.protocol.base import UnsetType, given
from vivavoce.protocol.config import SessionConfig, SessionResource

from .limits import CallerLimits
from .memory import Memory

SLACK_MS = 100
"""A silence of this length between live audio is taken for unevenness."""
LIVE_AGAIN_MS_MAX = 10_000
"""Live audio that another session is sent again: all that follows comes so much later."""


class Ear:
    """The user's audio on its way to the server.

    Where it `is_live` it is heard as time passes, so that silence between is a part of it; and in one format.
    """

    def __init__(self, format: Format, memory: Memory, limits: CallerLimits, *, is_live: bool = False) -> None:
        self._audio = InputAudio(format)
        self._is_live = is_live
        self._began_ms: int | None = None
        self._memory = memory
        self._limits = limits
        self._boundary = 0
        """Audio before is part of an item, or was cleared."""
        self._open: tuple[str, int] | None = None
        """The turn that the server hears: the item that it will be, and where it begins."""
        self._ended: str | None = None
        """The turn that has ended and is not an item yet."""
        self._cuts: deque[tuple[bool, int]] = deque()
        """Commits and clears on their way: whether it is a commit, and where the audio ended."""

    @property
    def format(self) -> Format:
        """The session's input format."""
        return self._audio.format

    @property
    def has_audio(self) -> bool:
        """Whether there is audio that no item holds."""
        return self._audio.end > max(self._boundary, *(tick for _, tick in self._cuts), 0)

    def begin(self, now_ms: int) -> None:
        """The server hears from now on."""
        self._began_ms = now_ms

    def append(self, audio: bytes, now_ms: int = 0) -> None:
        """It is being sent."""
        if self._is_live and self._began_ms is not None:
            self._pass_silence(ticks_of(now_ms - self._began_ms))
        self._audio.append(audio)
        oldest = self._audio.end - ticks_of(self._limits.input_ms_max)
        if self._audio.start < oldest:
            self._audio.forget_before(oldest)

    def _pass_silence(self, now: int) -> None:
        """Up to now nothing was said."""
        silent = now - self._audio.end
        if silent > ticks_of(self._limits.input_ms_max):
            self._audio.clear()
            self._audio.start = now
        elif silent > ticks_of(SLACK_MS):
            self._audio.append(bytes(self._audio.bytes_of(silent)))

    def use(self, format: Format) -> None:
        """The session's input format."""
        if format != self._audio.format and not self._is_live:
            self._audio.change_format(format)
            self._boundary = self._audio.end

    def is_cut_here(self) -> None:
        """A commit is being sent."""
        self._cuts.append((True, self._audio.end))

    def is_cleared_here(self) -> None:
        """A clear is being sent."""
        self._cuts.append((False, self._audio.end))

    def was_refused(self, *, commit: bool) -> None:
        """The oldest commit, or clear, on its way was refused, or never answered."""
        self._next_cut(commit=commit)

    def speech_started(self, item_id: str, audio_start_ms: int) -> None:
        """A turn begins there."""
        self._open = (item_id, ticks_of(audio_start_ms))

    def speech_stopped(self, item_id: str, audio_end_ms: int) -> None:
        """And ends there."""
        self._cut(item_id, self._begin_of(item_id), ticks_of(audio_end_ms))
        self._ended = item_id

    def committed(self, item_id: str) -> bool:
        """A turn is an item now. Says whether the server found it itself."""
        if item_id == self._ended:
            self._ended = None
            return True
        begin = self._begin_of(item_id)
        end = self._next_cut(commit=True)
        self._cut(item_id, begin, self._audio.end if end is None else end)
        return end is None  # nothing was told of its end

    def cleared(self) -> None:
        """The server's buffer is empty."""
        end = self._next_cut(commit=False)
        self._boundary = self._audio.end if end is None else end
        self._open = None

    def _begin_of(self, item_id: str) -> int:
        """Where this turn began: where the server heard it, or else behind the last one."""
        begin = self._open[1] if self._open is not None and self._open[0] == item_id else self._boundary
        self._open = None
        return begin

    def _next_cut(self, *, commit: bool) -> int | None:
        """Where the oldest commit, or clear, on its way was sent; it is not on its way any more."""
        first = next((cut for cut in self._cuts if cut[0] == commit), None)
        if first is None:
            return None
        self._cuts.remove(first)
        return first[1]

    def _cut(self, item_id: str, begin: int, end: int) -> None:
        self._memory.keep_speech(item_id, self._between(begin, end))
        self._boundary = max(self._boundary, end)

    def begin_again(self) -> list[bytes | bool]:
        """Another session: its clock begins anew, and it is to be sent what no item holds.

        That is the audio, with True where a commit was on its way and False where a clear was.
        """
        pieces: list[bytes | bool] = []
        at = self._again_from
        for is_commit, tick in self._cuts:
            pieces += [self._between(at, tick), is_commit]
            at = max(at, tick)
        pieces.append(self._between(at, self._audio.end))
        self._audio = InputAudio(self._audio.format)
        self._boundary = 0
        self._began_ms = None
        self._open = self._ended = None
        self._cuts.clear()
        return [piece for piece in pieces if piece != b""]

    @property
    def _again_from(self) -> int:
        """What is to be heard again; of live audio no more than is about to become an item."""
        if not self._is_live:
            return self._boundary
        if self._open is None and not self._cuts:
            return self._audio.end
        begin = self._boundary if self._open is None else self._open[1]
        return max(begin, self._audio.end - ticks_of(LIVE_AGAIN_MS_MAX))

    def _between(self, begin: int, end: int) -> bytes:
        length = self._audio.bytes_of(max(end - max(begin, self._audio.start), 0))
        return self._audio.since(begin)[:length]


def input_format(session: SessionConfig | SessionResource) -> Format | None:
    """The input format that a configuration states, if it does."""
    audio = given(session.audio, None)
    into = given(audio.input, None) if audio else None
    return None if into is None or isinstance(into.format, UnsetType) else format_of(into.format)
