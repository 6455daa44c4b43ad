"""What the client knows of items beyond what the server says: own audio, what was heard, what was stopped; and the view
that joins both.

Lives beside the fold, so that the replica stays the server's own. Everything here is bounded by `CallerLimits`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TypeVar

from vivavoce.audio.formats import Format
from vivavoce.core.conversation import Conversation, Entry
from vivavoce.core.spoken import CHAR_MS, heard
from vivavoce.protocol.base import UnsetType, given
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputText,
    Item,
    ItemStatus,
    Message,
    OutputAudio,
    OutputText,
    UnknownItem,
)

from .limits import CallerLimits

PACE_CHARACTERS_MIN = 20
"""Length of an item by which the pace of speech can be judged."""

T = TypeVar("T")


@dataclass(slots=True)
class Speech:
    """What the assistant says in one item, whatever of it is cut off later."""

    pieces: list[str] = field(default_factory=list)
    audio_bytes: int = 0
    is_whole: bool = False
    """Whether all of the audio has come."""
    cut: int | None = None
    """How much of the audio was heard, in bytes."""


class Memory:
    """Of each item: the user's speech as it was sent, what the assistant says in it, how much of that was heard."""

    def __init__(self, conversation: Conversation, limits: CallerLimits, *, is_live: bool = False) -> None:
        self.conversation = conversation
        self._limits = limits
        self._is_live = is_live
        """Whether speech comes as it is played, so that an item is not whole when it is complete."""
        self._char_ms: float = CHAR_MS
        self._speech: OrderedDict[str, bytes] = OrderedDict()
        self._speech_bytes = 0
        self._said: OrderedDict[str, Speech] = OrderedDict()
        self._half_understood: OrderedDict[str, None] = OrderedDict()
        self._stopped: OrderedDict[str, None] = OrderedDict()
        self._told: OrderedDict[str, bool] = OrderedDict()
        """Items that the application was told of, and whether as final."""

    # --- the user's speech --------------------------------------------------------------------------------------------

    def keep_speech(self, item_id: str, audio: bytes) -> None:
        """The audio that became this item."""
        self._speech_bytes += len(audio) - len(self._speech.pop(item_id, b""))
        self._speech[item_id] = audio
        while self._speech_bytes > self._limits.speech_bytes_max:
            self._speech_bytes -= len(self._speech.popitem(last=False)[1])

    def speech(self, item_id: str) -> bytes:
        """The user's speech of an item; empty where there is none, or where it was let go."""
        return self._speech.get(item_id, b"")

    def understands(self, item_id: str) -> None:
        """Some of its transcript has come."""
        self._half_understood[item_id] = None
        self._bound(self._half_understood)

    def has_understood(self, item_id: str) -> None:
        """No more of its transcript comes."""
        self._half_understood.pop(item_id, None)

    def is_understood(self, item_id: str) -> bool:
        """Whether the transcript of a user's speech is not half there."""
        return item_id not in self._half_understood

    # --- the assistant's ----------------------------------------------------------------------------------------------

    def speech_of(self, item_id: str) -> Speech:
        """What the assistant says in an item."""
        said = self._said.get(item_id)
        if said is None:
            said = self._said[item_id] = Speech()
            self._bound(self._said)
        return said

    def words(self, item_id: str, delta: str) -> None:
        """More transcript."""
        self.speech_of(item_id).pieces.append(delta)

    def all_words(self, item_id: str, transcript: str) -> None:
        """The whole transcript."""
        self.speech_of(item_id).pieces = [transcript]

    def sound(self, item_id: str, audio_bytes: int) -> None:
        """So much more speech."""
        self.speech_of(item_id).audio_bytes += audio_bytes

    def cut(self, item_id: str, audio_bytes: int) -> None:
        """No more than this was heard. Of several cuts the shortest counts."""
        said = self.speech_of(item_id)
        said.cut = audio_bytes if said.cut is None else min(said.cut, audio_bytes)

    def is_cut(self, item_id: str) -> bool:
        """Whether the item was cut off."""
        said = self._said.get(item_id)
        return said is not None and said.cut is not None

    def heard(self, item_id: str, format: Format) -> str | None:
        """The words that were heard of an item that was cut off; None where it was not.

        Which words belong to which audio is not said by the server: speech is taken to be even, and speech of which
        only a part has come to last as long as such words do.
        """
        said = self._said.get(item_id)
        if said is None or said.cut is None:
            return None
        text = "".join(said.pieces)
        usual = 0 if said.is_whole else format.bytes_of(round(len(text) * self._char_ms))
        return heard([(text, max(said.audio_bytes, usual))], said.cut)

    def stop(self, item_id: str) -> None:
        """The item is not to be heard any more: late audio is for nobody."""
        self._stopped[item_id] = None
        self._bound(self._stopped)

    def is_stopped(self, item_id: str) -> bool:
        """Whether it was stopped."""
        return item_id in self._stopped

    # --- any item's ---------------------------------------------------------------------------------------------------

    def append(self, item_id: str) -> bool:
        """The item is in the conversation. Says whether that is news."""
        if item_id in self._told:
            return False
        self._told[item_id] = False
        self._bound(self._told)
        return True

    def is_told(self, item_id: str) -> bool:
        """Whether the application was told of it, and that is remembered."""
        return item_id in self._told

    def complete(self, item_id: str, *, is_whole: bool) -> bool:
        """The item is final, and whole or cut off. Says whether that is news."""
        if self._told.get(item_id, True):
            return False
        self._told[item_id] = True
        if (said := self._said.get(item_id)) is not None:
            said.is_whole = is_whole and not self._is_live
        return True

    def was_played(self, item_id: str, format: Format) -> None:
        """All of an item's speech has come, as it was played: by that is known how fast is spoken here."""
        said = self._said.get(item_id)
        if said is None or said.is_whole:
            return
        said.is_whole = True
        characters = len("".join(said.pieces))
        if characters >= PACE_CHARACTERS_MIN:
            self._char_ms = format.ms(said.audio_bytes // format.sample_bytes) / characters

    def _bound(self, what: OrderedDict[str, T]) -> None:
        while len(what) > self._limits.items_remembered_max:
            what.popitem(last=False)

    def forget(self, item_id: str) -> None:
        """The item is deleted."""
        self._speech_bytes -= len(self._speech.pop(item_id, b""))
        self._said.pop(item_id, None)
        self._told.pop(item_id, None)
        self._half_understood.pop(item_id, None)

    def view(self, item_id: str) -> ItemView | None:
        """An item as the application sees it; None where there is none."""
        entry = self.conversation.entry(item_id)
        return None if entry is None else ItemView(item_id, entry, self)

    def views(self) -> tuple[ItemView, ...]:
        """Those of the conversation, in order."""
        found = (self.view(item_id) for item_id in self.conversation.item_ids)
        return tuple(view for view in found if view is not None)


class ItemView:
    """One item of the conversation, alive: its properties say what is known now."""

    __slots__ = ("_entry", "_memory", "id")

    def __init__(self, item_id: str, entry: Entry, memory: Memory) -> None:
        self.id = item_id
        self._entry = entry
        self._memory = memory

    def __repr__(self) -> str:
        role = f" of the {self.role}" if self.role else ""
        what = self.text or self.arguments or self.output or ""
        return f"<{self.type}{role} {self.id} {self.status or ''}: {what!r}>"

    @property
    def item(self) -> Item:
        """The item as the server states it, streamed pieces included, audio bytes left out."""
        return self._entry.item

    @property
    def type(self) -> str:
        """`message`, `function_call`, `function_call_output`, …"""
        item = self._entry.item
        if isinstance(item, UnknownItem):
            return str(item.fields.get("type", ""))
        return str(type(item).__struct_config__.tag)

    @property
    def role(self) -> str | None:
        """Of a message: `user`, `assistant` or `system`."""
        item = self._entry.item
        return item.role if isinstance(item, Message) else None

    @property
    def status(self) -> ItemStatus | None:
        """`in_progress`, `completed` or `incomplete`; None where the server does not say."""
        return _status(self._entry.item)

    @property
    def text(self) -> str:
        """The words of a message, written or spoken; of a truncated answer those that were heard."""
        heard = self._memory.heard(self.id, self._entry.format)
        if heard is not None:
            return heard
        return self.stated_text

    @property
    def stated_text(self) -> str:
        """The words of a message as the server states them; of a truncated answer it states none."""
        item = self._entry.item
        return "".join(map(_words, item.content)) if isinstance(item, Message) else ""

    @property
    def audio(self) -> bytes:
        """The item's speech, raw samples in the session's format: the assistant's, or the user's as it was sent."""
        return bytes(self._entry.audio) or self._memory.speech(self.id)

    @property
    def audio_ms(self) -> int:
        """How long the assistant's speech lasts, as far as it was heard."""
        return self._entry.audio_ms

    @property
    def is_truncated(self) -> bool:
        """Whether its speech was cut off."""
        return self._entry.truncated

    @property
    def name(self) -> str | None:
        """Of a function call."""
        item = self._entry.item
        return item.name if isinstance(item, FunctionCall) else None

    @property
    def call_id(self) -> str | None:
        """Of a function call and its output."""
        item = self._entry.item
        return given(item.call_id, None) if isinstance(item, FunctionCall | FunctionCallOutput) else None

    @property
    def arguments(self) -> str | None:
        """Of a function call: JSON text, as far as it has come."""
        item = self._entry.item
        return item.arguments if isinstance(item, FunctionCall) else None

    @property
    def output(self) -> str | None:
        """Of a function call output."""
        item = self._entry.item
        return item.output if isinstance(item, FunctionCallOutput) else None


def _status(item: Item) -> ItemStatus | None:
    status = getattr(item, "status", None)
    return None if isinstance(status, UnsetType) else status


def _words(part: object) -> str:
    match part:
        case InputText() | OutputText():
            return part.text
        case InputAudio() | OutputAudio():
            return given(part.transcript, None) or ""
        case _:
            return ""
