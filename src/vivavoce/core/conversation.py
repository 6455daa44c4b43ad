"""The conversation as the fold of its events: `apply` is used by the server on what it sends and by the client on what
it receives, so both hold the same state, in every dialect.

Invariant: nothing but `apply` changes it, and no event, however unexpected, makes it fail; what does not fit is passed
over. Audio is kept up to a limit, oldest let go first; durations stay.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from vivavoce.audio.formats import ALAW_8K, PCM16_24K, ULAW_8K, Format
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, UnsetType, given
from vivavoce.protocol.config import (
    AudioFormat,
    PcmaFormat,
    PcmuFormat,
    SessionResource,
)
from vivavoce.protocol.items import Content, FunctionCall, InputAudio, Item, Message, OutputAudio, OutputText, Response

from .limits import Limits

RESPONSES_KEPT_MAX = 64
"""Finished responses that can still be looked up; older ones are forgotten."""


def format_of(format: AudioFormat | UnsetType) -> Format:
    """The layout that a format setting means; absent is PCM16 at 24 kHz."""
    if isinstance(format, PcmuFormat):
        return ULAW_8K
    return ALAW_8K if isinstance(format, PcmaFormat) else PCM16_24K


class Entry:
    """One item: its last announced snapshot, and what was streamed into it since."""

    def __init__(self, item: Item) -> None:
        self._announced = item
        self._parts: list[Content] = list(item.content) if isinstance(item, Message) else []
        self._streamed: dict[int, list[str]] = {}
        self._arguments: list[str] = []
        self.format = PCM16_24K
        self.audio_bytes = 0
        """Bytes of audio that the item has; more than `kept_bytes` once the audio itself was let go."""
        self.kept_bytes = 0
        self._audio: list[bytes] = []
        self.truncated = False

    @property
    def audio(self) -> bytes:
        """The assistant's audio, as far as it is kept."""
        if len(self._audio) > 1:
            self._audio = [b"".join(self._audio)]
        return self._audio[0] if self._audio else b""

    @property
    def audio_ms(self) -> int:
        """Duration of the item's assistant audio."""
        return self.format.ms(self.audio_bytes // self.format.sample_bytes)

    @property
    def item(self) -> Item:
        """The item as it is now, streamed pieces included, audio bytes left out."""
        match self._announced:
            case Message() as message:
                content = tuple(self._part(index) for index in range(len(self._parts)))
                return msgspec.structs.replace(message, content=content)
            case FunctionCall() as call if self._arguments:
                return msgspec.structs.replace(call, arguments="".join(self._arguments))
            case item:
                return item

    def _part(self, index: int) -> Content:
        streamed = self._streamed.get(index)
        part = self._parts[index]
        if streamed is None:
            return part
        text = "".join(streamed)
        self._streamed[index] = [text]
        return OutputText(text=text) if isinstance(part, OutputText) else OutputAudio(transcript=text)

    # Each of these is one event's effect on one item.

    def announce(self, item: Item) -> None:
        """A newer snapshot: replaces everything that was streamed, unless the item was truncated meanwhile."""
        content = item.content if isinstance(item, Message) else ()
        if self.truncated and isinstance(item, Message):
            self._announced = item
            return
        kept = [_keep_transcript(old, new) for old, new in zip(self._parts, content, strict=False)]
        self._announced = item
        self._parts = kept + list(content[len(kept) :])
        self._streamed.clear()
        self._arguments.clear()

    def add_part(self, index: int, part: ev.ContentPart) -> None:
        """`content_part.added`: an empty part to stream into."""
        if index == len(self._parts) and not self.truncated:
            is_text = part.type == "text"
            self._parts.append(OutputText(text="") if is_text else OutputAudio(transcript=""))
            self._streamed[index] = []

    def stream_text(self, index: int, delta: str) -> None:
        """More text or transcript of a part."""
        if not self.truncated and index in self._streamed:
            self._streamed[index].append(delta)

    def finish_text(self, index: int, text: str) -> None:
        """The whole text or transcript of a part."""
        if not self.truncated and index in self._streamed:
            self._streamed[index] = [text]

    def stream_arguments(self, delta: str) -> None:
        """More of a call's arguments."""
        self._arguments.append(delta)

    def finish_arguments(self, arguments: str) -> None:
        """All of a call's arguments."""
        self._arguments = [arguments]

    def stream_audio(self, delta: bytes, format: Format) -> int:
        """More speech. Returns how many bytes more are kept."""
        if self.truncated:
            return 0
        self.format = format
        size, before = len(delta), self.audio_bytes
        self.audio_bytes = before + size
        if self.kept_bytes != before:  # what follows on audio that was let go would be heard as its begin
            return 0
        self._audio.append(delta)  # joined when somebody asks for it
        self.kept_bytes = before + size
        return size

    def truncate(self, index: int, audio_end_ms: int) -> None:
        """Nothing behind `audio_end_ms` was heard; the transcript goes whole (reference §3.11)."""
        if index >= len(self._parts):
            return
        self.truncated = True
        self._parts[index] = OutputAudio(transcript="")
        self._streamed.pop(index, None)
        self.audio_bytes = min(self.audio_bytes, self.format.bytes_of(audio_end_ms))
        self._audio = [self.audio[: self.audio_bytes]]
        self.kept_bytes = len(self._audio[0])

    def hear(self, index: int, text: str, *, whole: bool) -> None:
        """A transcript of the user's audio, a piece or the whole."""
        if index < len(self._parts) and isinstance(part := self._parts[index], InputAudio):
            before = "" if whole or isinstance(part.transcript, UnsetType) else part.transcript or ""
            self._parts[index] = msgspec.structs.replace(part, transcript=before + text)

    def let_go_of_audio(self) -> int:
        """Free the audio; the duration stays. Returns how many bytes that were."""
        freed, self.kept_bytes = self.kept_bytes, 0
        self._audio.clear()
        return freed

    def take_audio_of(self, other: Entry) -> int:
        """The same item, told by another session in words: keep the speech that is here. Returns how much that is."""
        self.format, self._audio, self.audio_bytes = other.format, other._audio, other.audio_bytes
        self.kept_bytes = other.kept_bytes
        return self.kept_bytes


def _keep_transcript(old: Content, new: Content) -> Content:
    """A later snapshot of a user item says `transcript: null` although the transcript has come already: keep it."""
    if isinstance(old, InputAudio) and isinstance(new, InputAudio) and not given(new.transcript, None):
        return msgspec.structs.replace(new, transcript=old.transcript)
    return new


class Conversation:
    """Items in order, responses by id, the session's configuration: all that the events have said so far."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.id: str | None = None
        self.session: SessionResource | None = None
        self.responses: dict[str, Response] = {}
        self._limits = limits or Limits()
        self._entries: dict[str, Entry] = {}
        self._order: list[str] = []
        self._formats: dict[str, Format] = {}
        self._owner: dict[str, str] = {}
        self._audio_bytes = 0

    # --- looking ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._entries and item_id in self._order

    def __iter__(self) -> Iterator[Item]:
        return (self._entries[item_id].item for item_id in self._order)

    @property
    def items(self) -> tuple[Item, ...]:
        """The default conversation's items, in order, audio left out."""
        return tuple(self)

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Their ids, in order."""
        return tuple(self._order)

    @property
    def last_item_id(self) -> str | None:
        """The id of the last item."""
        return self._order[-1] if self._order else None

    def entry(self, item_id: str) -> Entry | None:
        """One item with its audio, in the default conversation or streaming outside it."""
        return self._entries.get(item_id)

    def previous_item_id(self, item_id: str) -> str | None:
        """The id of the item before this one; None for the first."""
        index = self._order.index(item_id)
        return self._order[index - 1] if index else None

    def owner(self, item_id: str) -> str | None:
        """The id of the response that is making this item; None for any other, and once the response is done."""
        return self._owner.get(item_id)

    @property
    def active_responses(self) -> tuple[Response, ...]:
        """Responses that are not done."""
        return tuple(response for response in self.responses.values() if response.status == "in_progress")

    # --- folding ------------------------------------------------------------------------------------------------------

    def apply(self, event: ev.AnyServerEvent | ev.Unknown) -> None:
        """Take one event of the server; the only thing that changes the conversation."""
        if type(event) is ev.ResponseOutputAudioDelta:  # most of all events: before anything else is asked
            if (entry := self._entries.get(event.item_id)) is not None:
                kept = entry.stream_audio(event.delta, self._formats.get(event.response_id, PCM16_24K))
                self._audio_bytes += kept
                if self._audio_bytes > self._limits.audio_bytes_max:
                    self._let_go_of_audio()
            return
        match event:
            case ev.ResponseOutputTextDelta() | ev.ResponseOutputAudioTranscriptDelta():
                if entry := self._entries.get(event.item_id):
                    entry.stream_text(event.content_index, event.delta)
            case ev.ResponseFunctionCallArgumentsDelta() | ev.ResponseMcpCallArgumentsDelta():
                if entry := self._entries.get(event.item_id):
                    entry.stream_arguments(event.delta)
            case ev.SessionCreated() | ev.SessionUpdated():
                self.session = event.session
            case ev.ConversationCreated():
                self.id = given(event.conversation.id, None)
            case ev.ResponseCreated() | ev.ResponseDone():
                self._apply_response(event)
            case _:
                self._apply_item(event)

    def _apply_response(self, event: ev.ResponseCreated | ev.ResponseDone) -> None:
        response = event.response
        self.responses[response.id] = response
        if isinstance(event, ev.ResponseCreated):
            audio = given(response.audio, None)
            output = given(audio.output, None) if audio else None
            self._formats[response.id] = format_of(output.format if output else UNSET)
            return
        self._formats.pop(response.id, None)
        for item_id in [item_id for item_id, owner in self._owner.items() if owner == response.id]:
            del self._owner[item_id]
            if item_id not in self._order:
                self._forget(item_id)
        finished = [kept.id for kept in self.responses.values() if kept.status != "in_progress"]
        for response_id in finished[:-RESPONSES_KEPT_MAX]:
            del self.responses[response_id]

    def _apply_item(self, event: ev.AnyServerEvent | ev.Unknown) -> None:
        match event:
            case ev.ConversationItemAdded() | ev.ConversationItemCreated() | ev.ConversationItemDone():
                self._place(event.item, event.previous_item_id)
            case ev.ResponseOutputItemAdded() | ev.ResponseOutputItemDone():
                self._announce(event.item)
                if (item_id := _id_of(event.item)) and isinstance(event, ev.ResponseOutputItemAdded):
                    self._owner[item_id] = event.response_id
            case ev.ConversationItemDeleted() if event.item_id in self._order:
                self._order.remove(event.item_id)
                self._forget(event.item_id)
            case (
                ev.ConversationItemTruncated()
                | ev.ResponseContentPartAdded()
                | ev.ResponseOutputTextDone()
                | ev.ResponseOutputAudioTranscriptDone()
                | ev.ResponseFunctionCallArgumentsDone()
                | ev.ResponseMcpCallArgumentsDone()
                | ev.ConversationItemInputAudioTranscriptionDelta()
                | ev.ConversationItemInputAudioTranscriptionCompleted()
            ):
                if entry := self._entries.get(event.item_id):
                    self._apply_to(entry, event)
            case _:
                pass

    def _apply_to(self, entry: Entry, event: ev.AnyServerEvent) -> None:
        match event:
            case ev.ConversationItemTruncated():
                before = entry.kept_bytes
                entry.truncate(event.content_index, event.audio_end_ms)
                self._audio_bytes -= before - entry.kept_bytes
            case ev.ResponseContentPartAdded():
                entry.add_part(event.content_index, event.part)
            case ev.ResponseOutputTextDone():
                entry.finish_text(event.content_index, event.text)
            case ev.ResponseOutputAudioTranscriptDone():
                entry.finish_text(event.content_index, event.transcript)
            case ev.ResponseFunctionCallArgumentsDone() | ev.ResponseMcpCallArgumentsDone():
                entry.finish_arguments(event.arguments)
            case ev.ConversationItemInputAudioTranscriptionDelta():
                entry.hear(given(event.content_index, 0), given(event.delta, ""), whole=False)
            case ev.ConversationItemInputAudioTranscriptionCompleted():
                entry.hear(event.content_index, event.transcript, whole=True)

    def _announce(self, item: Item) -> None:
        item_id = _id_of(item)
        if item_id is None:
            return
        if entry := self._entries.get(item_id):
            entry.announce(item)
        else:
            self._entries[item_id] = Entry(item)

    def _place(self, item: Item, previous_item_id: str | UnsetType | None) -> None:
        self._announce(item)
        item_id = _id_of(item)
        if item_id is None or item_id in self._order:
            return
        if isinstance(previous_item_id, UnsetType):
            self._order.append(item_id)
        elif previous_item_id is None:
            self._order.insert(0, item_id)
        elif previous_item_id in self._order:
            self._order.insert(self._order.index(previous_item_id) + 1, item_id)
        else:
            self._order.append(item_id)

    def become(self, other: Conversation) -> None:
        """Take the state of another fold, which tells the same items: those of a session that this one goes on in.

        Speech that this one has stays where the other was told in words.
        """
        for item_id, entry in other._entries.items():
            if (mine := self._entries.get(item_id)) is not None and not entry.audio_bytes:
                other._audio_bytes += entry.take_audio_of(mine)
        over = {kept.id: kept for kept in self.responses.values() if kept.status != "in_progress"}
        other.responses = over | other.responses
        self.__dict__.update(other.__dict__)

    # --- audio's limit ------------------------------------------------------------------------------------------------

    def _forget(self, item_id: str) -> None:
        entry = self._entries.pop(item_id, None)
        if entry is not None:
            self._audio_bytes -= entry.kept_bytes

    def _let_go_of_audio(self) -> None:
        """Of the oldest items, until what is kept is within its limit."""
        for entry in self._entries.values():
            self._audio_bytes -= entry.let_go_of_audio()
            if self._audio_bytes <= self._limits.audio_bytes_max:
                return


def _id_of(item: Item) -> str | None:
    return given(item.id, None)
