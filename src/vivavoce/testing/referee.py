"""Watches one connection and objects to every server event that breaks a rule of the protocol (reference §9.2).

Sees what a client sees, as GA events whatever the dialect, and knows nothing else: it serves for the bare machine, for
a session behind any transport and for a foreign server alike. `server(event)` takes each event as it comes, `end()`
says that nothing more will. Each rule stands in the method of the events that can break it; those about tools, playback
and rate limits are in `watches`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.codec import Dialect
from vivavoce.protocol.config import (
    AudioFormat,
    PcmFormat,
    ServerVad,
    SessionResource,
    TranscriptionSession,
    TurnDetection,
)
from vivavoce.protocol.items import FunctionCall, Item, McpCall, Message, OutputAudio, OutputText, Response

from .matching import brief
from .watches import LimitsWatch, PlaybackWatch, ToolWatch

__all__ = ["Objection", "Referee"]


BYTES_PER_MS_MAX = 48


class Objection(AssertionError):
    """A server event broke a rule of the protocol; the message has the event and the rule."""


@dataclass(slots=True)
class _Part:
    """One content part of an item of a response."""

    kind: str
    text: list[str] = field(default_factory=list)
    text_done: bool = False
    audio_done: bool = False
    done: bool = False


@dataclass(slots=True)
class _OutputItem:
    """One item of a response."""

    id: str
    kind: type
    parts: list[_Part] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    arguments_done: str | None = None
    done: Item | None = None


@dataclass(slots=True)
class _Running:
    """One response that is not done."""

    in_conversation: bool
    bytes_per_ms: int
    items: list[_OutputItem] = field(default_factory=list)


@dataclass(slots=True)
class _Audio:
    """How much speech an item has; after a truncation it grows no more."""

    bytes: int = 0
    bytes_per_ms: int = 1
    is_cut: bool = False

    @property
    def ms(self) -> int:
        return self.bytes // self.bytes_per_ms


class Referee:
    """One connection, watched from its first event. Beta does not say when an item is done."""

    def __init__(self, dialect: Dialect = "ga") -> None:
        self._tells_done = dialect == "ga"
        self._tools = ToolWatch(self._require)
        self._watches = (self._tools, PlaybackWatch(self._require), LimitsWatch(self._require))
        self.order: list[str] = []
        """Ids of the conversation's items, in order."""
        self._event: ev.AnyServerEvent | None = None
        self._event_ids: set[str] = set()
        self._is_open = False
        self._running: dict[str, _Running] = {}
        self._ended: set[str] = set()
        self._undone: set[str] = set()
        """Items that were added and are not done."""
        self._seen: set[str] = set()
        self._expected_commit: str | None = None
        """The item that a timeout announced and that must be committed next."""
        self._expected_item: str | None = None
        """The item that was committed and must be the next to be added."""
        self._turn: str | None = None
        self._clock_ms = 0
        self._transcripts: dict[str, list[str]] = {}
        self._transcribed: set[str] = set()
        self._audio: dict[str, _Audio] = {}
        self._session: SessionResource | None = None
        self._tells_logprobs = False

    def _object(self, rule: str) -> NoReturn:
        raise Objection(f"{rule}: {brief(self._event)}")

    def _require(self, kept: bool, rule: str) -> None:
        if not kept:
            self._object(rule)

    # --- the connection -----------------------------------------------------------------------------------------------

    def server(self, event: ev.AnyServerEvent) -> None:
        """The next event of the server. Raises `Objection`."""
        self._event = event
        if event.event_id:
            self._require(event.event_id not in self._event_ids, "an event_id must not come twice")
            self._event_ids.add(event.event_id)
        if self._expected_commit is not None:
            committed = event.item_id if isinstance(event, ev.InputAudioBufferCommitted) else None
            self._require(committed == self._expected_commit, f"{self._expected_commit} must be committed next")
        if not self._is_open:
            self._require(isinstance(event, ev.SessionCreated | ev.ErrorEvent), "session.created must be the first")
            if isinstance(event, ev.SessionCreated):
                self._is_open = True
                self._configured(event.session)
            return
        for watch in self._watches:
            watch.take(event)
        self._take(event)

    def end(self, *, is_cut: bool = False) -> None:
        """Nothing more will come. Raises `Objection` for what was begun and not finished.

        `is_cut`: the server ended the session, with whatever was still under way beside its responses.
        """
        self._event = None
        if is_cut:
            self._require(not self._running, f"responses without response.done: {sorted(self._running)}")
            return
        for watch in self._watches:
            watch.end()
        self._require(not self._running, f"responses without response.done: {sorted(self._running)}")
        self._require(not self._undone, f"items without conversation.item.done: {sorted(self._undone)}")
        self._require(self._expected_item is None, f"{self._expected_item} was committed and never added")

    def _take(self, event: ev.AnyServerEvent) -> None:
        match event:
            case ev.SessionCreated():
                self._object("session.created must not come again")
            case ev.SessionUpdated():
                self._configured(event.session)
            case ev.ConversationItemAdded():
                self._item_added(event)
            case ev.ConversationItemDone():
                self._item_done(event)
            case ev.ConversationItemDeleted():
                self._item_deleted(event.item_id)
            case ev.ConversationItemRetrieved():
                self._require(given(event.item.id, "") in self.order, "only an item that is there can be retrieved")
            case ev.ConversationItemTruncated():
                self._item_truncated(event)
            case (
                ev.ConversationItemInputAudioTranscriptionDelta()
                | ev.ConversationItemInputAudioTranscriptionCompleted()
                | ev.ConversationItemInputAudioTranscriptionFailed()
            ):
                self._transcription(event)
            case (
                ev.InputAudioBufferSpeechStarted()
                | ev.InputAudioBufferSpeechStopped()
                | ev.InputAudioBufferCommitted()
                | ev.InputAudioBufferCleared()
            ):
                self._turns(event)
            case ev.InputAudioBufferTimeoutTriggered():
                self._timed_out(event)
            case ev.ResponseCreated():
                self._response_created(event.response)
            case ev.ResponseDone():
                self._response_done(event.response)
            case _:
                self._content(event)

    def _configured(self, session: SessionResource) -> None:
        self._session = session
        self._tells_logprobs = self._tells_logprobs or bool(given(session.include, None))

    @property
    def _detection(self) -> TurnDetection | None:
        audio = given(self._session.audio, None) if self._session is not None else None
        into = given(audio.input, None) if audio is not None else None
        return given(into.turn_detection, None) if into is not None else None

    # --- the conversation ---------------------------------------------------------------------------------------------

    def _item_added(self, event: ev.ConversationItemAdded) -> None:
        item_id = given(event.item.id, "")
        self._require(bool(item_id), "an item must have an id")
        self._require(item_id not in self._seen, "an item must not be added twice")
        previous = given(event.previous_item_id, None)
        self._require(previous is None or previous in self.order, "previous_item_id must be an item that is there")
        output = self._find_output(item_id)
        if output is not None:
            running, item = output
            self._require(running.in_conversation, "an out-of-band response must not touch the conversation")
            self._require(not item.parts and not item.arguments, "an item must be added before its content")
        if self._expected_item is not None:
            self._require(item_id == self._expected_item, f"the item {self._expected_item} was committed and is next")
            self._require(previous == (self.order[-1] if self.order else None), "a turn's item must be the last")
            self._expected_item = None
        self.order.insert(0 if previous is None else self.order.index(previous) + 1, item_id)
        self._seen.add(item_id)
        if self._tells_done:
            self._undone.add(item_id)

    def _item_done(self, event: ev.ConversationItemDone) -> None:
        item_id = given(event.item.id, "")
        self._require(item_id in self._undone, "an item must be added, once, before it is done")
        index = self.order.index(item_id)
        before = self.order[index - 1] if index else None
        self._require(given(event.previous_item_id, None) == before, f"previous_item_id must be {before!r}")
        self._undone.discard(item_id)

    def _item_deleted(self, item_id: str) -> None:
        self._require(item_id in self.order, "only an item that is there can be deleted")
        is_over = item_id not in self._undone or self._tools.is_free(item_id)
        self._require(is_over, "an item must be done before it is deleted")
        self._undone.discard(item_id)
        self.order.remove(item_id)
        self._seen.discard(item_id)

    def _item_truncated(self, event: ev.ConversationItemTruncated) -> None:
        self._require(event.item_id in self.order, "only an item that is there can be truncated")
        audio = self._audio.get(event.item_id, _Audio())
        self._require(event.audio_end_ms <= audio.ms, f"an item of {audio.ms} ms cannot be truncated there")
        self._audio[event.item_id] = _Audio(event.audio_end_ms * BYTES_PER_MS_MAX, BYTES_PER_MS_MAX, is_cut=True)

    def _transcription(
        self,
        event: ev.ConversationItemInputAudioTranscriptionDelta
        | ev.ConversationItemInputAudioTranscriptionCompleted
        | ev.ConversationItemInputAudioTranscriptionFailed,
    ) -> None:
        item_id = event.item_id
        self._require(item_id not in self._transcribed, "nothing may follow the end of a transcription")
        self._require(self._tells_logprobs or not getattr(event, "logprobs", None), "nobody asked for logprobs")
        pieces = self._transcripts.setdefault(item_id, [])
        if isinstance(event, ev.ConversationItemInputAudioTranscriptionDelta):
            pieces.append(given(event.delta, ""))
            return
        self._transcribed.add(item_id)
        if isinstance(event, ev.ConversationItemInputAudioTranscriptionCompleted):
            self._require(not pieces or "".join(pieces) == event.transcript, f"its deltas were {''.join(pieces)!r}")

    # --- the user's turns ---------------------------------------------------------------------------------------------

    def _turns(
        self,
        event: ev.InputAudioBufferSpeechStarted
        | ev.InputAudioBufferSpeechStopped
        | ev.InputAudioBufferCommitted
        | ev.InputAudioBufferCleared,
    ) -> None:
        match event:
            case ev.InputAudioBufferSpeechStarted():
                self._require(self._turn is None, "a turn must not begin inside another")
                self._require(self._detection is not None, "without turn detection the client marks the turns")
                self._require(event.item_id not in self._seen, "a turn's item must be new")
                self._tick(event.audio_start_ms)
                self._turn = event.item_id
            case ev.InputAudioBufferSpeechStopped():
                self._require(self._turn == event.item_id, "only the turn that began can end")
                self._tick(event.audio_end_ms)
            case ev.InputAudioBufferCommitted():
                self._require(self._turn in (None, event.item_id), "a turn must be committed under its own id")
                self._expected_commit = None
                last = self.order[-1] if self.order else None
                self._require(given(event.previous_item_id, None) == last, f"previous_item_id must be {last!r}")
                self._turn, self._expected_item = None, event.item_id
            case ev.InputAudioBufferCleared():
                self._turn = None

    def _timed_out(self, event: ev.InputAudioBufferTimeoutTriggered) -> None:
        detection = self._detection
        timeout_ms = given(detection.idle_timeout_ms, None) if isinstance(detection, ServerVad) else None
        self._require(timeout_ms is not None, "nobody asked for an idle timeout")
        self._require(self._turn is None, "nobody is idle inside a turn")
        self._require(not any(one.in_conversation for one in self._running.values()), "an answer is under way")
        self._require(event.item_id not in self._seen, "a turn's item must be new")
        self._tick(event.audio_start_ms)
        self._tick(event.audio_end_ms)
        self._require(
            event.audio_end_ms - event.audio_start_ms <= (timeout_ms or 0) + 1, f"the timeout is {timeout_ms} ms"
        )
        self._expected_commit = event.item_id

    def _tick(self, ms: int) -> None:
        self._require(ms >= self._clock_ms, f"the audio clock was at {self._clock_ms} ms already")
        self._clock_ms = ms

    # --- responses ----------------------------------------------------------------------------------------------------

    def _response_created(self, response: Response) -> None:
        self._require(not isinstance(self._session, TranscriptionSession), "a transcription session has no responses")
        self._require(response.id not in self._running and response.id not in self._ended, "its id must be new")
        self._require(given(response.status, None) == "in_progress", "its status must be in_progress")
        self._require(response.output == () and given(response.usage, None) is None, "it must be empty")
        in_conversation = given(response.conversation_id, None) is not None
        others = [running for running in self._running.values() if running.in_conversation]
        self._require(not (in_conversation and others), "the conversation must have one active response at most")
        self._running[response.id] = _Running(in_conversation, _bytes_per_ms(response))

    def _response_done(self, response: Response) -> None:
        running = self._running.pop(response.id, None)
        if running is None:
            self._object("a response must be created, once, before it is done")
        self._ended.add(response.id)
        self._require(given(response.status, "in_progress") != "in_progress", "its status must be final")
        for item in running.items:
            self._require(item.done is not None, f"its item {item.id} must be done before")
            self._require(item.id not in self._undone, f"its item {item.id} must be done in the conversation before")
        self._require(response.output == tuple(item.done for item in running.items), "its output must be its items")
        self._require(
            (given(response.conversation_id, None) is not None) == running.in_conversation, "its conversation"
        )
        usage = given(response.usage, None)
        if usage is not None:
            into, out = given(usage.input_tokens, 0), given(usage.output_tokens, 0)
            self._require(given(usage.total_tokens, 0) == into + out, "total tokens must be input and output tokens")
            self._require_sums(response, into, out)

    def _require_sums(self, response: Response, into: int, out: int) -> None:
        usage = given(response.usage, None)
        assert usage is not None
        if details := given(usage.input_token_details, None):
            kinds = [details.text_tokens, details.audio_tokens, details.image_tokens]
            self._require(sum(given(count, 0) for count in kinds) == into, "input tokens must be those of its kinds")
            self._require(given(details.cached_tokens, 0) <= into, "cached tokens must be input tokens")
        if written := given(usage.output_token_details, None):
            kinds = [written.text_tokens, written.audio_tokens]
            self._require(sum(given(count, 0) for count in kinds) == out, "output tokens must be those of its kinds")

    def _find_output(self, item_id: str) -> tuple[_Running, _OutputItem] | None:
        for running in self._running.values():
            for item in running.items:
                if item.id == item_id:
                    return running, item
        return None

    def _content(self, event: ev.AnyServerEvent) -> None:
        match event:
            case ev.ResponseOutputItemAdded():
                running = self._active(event.response_id)
                self._require(event.output_index == len(running.items), f"output_index must be {len(running.items)}")
                item_id = given(event.item.id, "")
                self._require(bool(item_id) and item_id not in self._seen, "an output item must have an id of its own")
                running.items.append(_OutputItem(item_id, type(event.item)))
            case ev.ResponseOutputItemDone():
                self._output_item_done(event)
            case ev.ResponseContentPartAdded():
                item = self._open_item(event.response_id, given(event.item_id, ""), event.output_index)
                self._require(event.content_index == len(item.parts), f"content_index must be {len(item.parts)}")
                item.parts.append(_Part(given(event.part.type, "text")))
            case ev.ResponseContentPartDone():
                self._part_done(event)
            case ev.ResponseFunctionCallArgumentsDelta() | ev.ResponseFunctionCallArgumentsDone():
                self._arguments(event, FunctionCall)
            case ev.ResponseMcpCallArgumentsDelta() | ev.ResponseMcpCallArgumentsDone():
                self._arguments(event, McpCall)
            case (
                ev.ResponseOutputTextDelta()
                | ev.ResponseOutputTextDone()
                | ev.ResponseOutputAudioTranscriptDelta()
                | ev.ResponseOutputAudioTranscriptDone()
                | ev.ResponseOutputAudioDelta()
                | ev.ResponseOutputAudioDone()
            ):
                self._stream(event)
            case _:
                pass

    def _active(self, response_id: str) -> _Running:
        running = self._running.get(response_id)
        if running is None:
            self._object("its response must be running")
        return running

    def _open_item(self, response_id: str, item_id: str, output_index: int) -> _OutputItem:
        running = self._active(response_id)
        self._require(output_index < len(running.items), "its item must be added before")
        item = running.items[output_index]
        self._require(item.id == item_id, f"item {output_index} of the response is {item.id}")
        self._require(item.done is None, "its item must not be done")
        self._require(not running.in_conversation or item_id in self._seen, "its item must be in the conversation")
        return item

    def _stream(
        self,
        event: ev.ResponseOutputTextDelta
        | ev.ResponseOutputTextDone
        | ev.ResponseOutputAudioTranscriptDelta
        | ev.ResponseOutputAudioTranscriptDone
        | ev.ResponseOutputAudioDelta
        | ev.ResponseOutputAudioDone,
    ) -> None:
        item = self._open_item(event.response_id, event.item_id, event.output_index)
        self._require(event.content_index < len(item.parts), "its part must be added before")
        part = item.parts[event.content_index]
        self._require(not part.done, "its part must not be done")
        is_text = isinstance(event, ev.ResponseOutputTextDelta | ev.ResponseOutputTextDone)
        self._require(part.kind == ("text" if is_text else "audio"), f"its part is of kind {part.kind}")
        match event:
            case ev.ResponseOutputAudioDelta():
                self._require(not part.audio_done, "no audio may follow output_audio.done")
                self._require(bool(event.delta), "a delta must not be empty")
                audio = self._audio.setdefault(item.id, _Audio(0, self._running[event.response_id].bytes_per_ms))
                audio.bytes += 0 if audio.is_cut else len(event.delta)
            case ev.ResponseOutputAudioDone():
                self._require(not part.audio_done, "audio must be done once")
                part.audio_done = True
            case ev.ResponseOutputTextDelta() | ev.ResponseOutputAudioTranscriptDelta():
                self._require(not part.text_done, "no text may follow its done")
                self._require(bool(event.delta), "a delta must not be empty")
                part.text.append(event.delta)
            case ev.ResponseOutputTextDone() | ev.ResponseOutputAudioTranscriptDone():
                self._require(not part.text_done, "text must be done once")
                part.text_done = True
                said = event.text if isinstance(event, ev.ResponseOutputTextDone) else event.transcript
                self._require("".join(part.text) == said, f"its deltas were {''.join(part.text)!r}")

    def _part_done(self, event: ev.ResponseContentPartDone) -> None:
        item = self._open_item(event.response_id, event.item_id, event.output_index)
        self._require(event.content_index < len(item.parts), "its part must be added before")
        part = item.parts[event.content_index]
        self._require(not part.done, "a part must be done once")
        self._require(part.text_done, "its text must be done before")
        self._require(part.audio_done or part.kind == "text", "its audio must be done before")
        said = given(event.part.text if part.kind == "text" else event.part.transcript, "")
        self._require("".join(part.text) == said, f"its deltas were {''.join(part.text)!r}")
        part.done = True

    def _arguments(
        self,
        event: ev.ResponseFunctionCallArgumentsDelta
        | ev.ResponseFunctionCallArgumentsDone
        | ev.ResponseMcpCallArgumentsDelta
        | ev.ResponseMcpCallArgumentsDone,
        kind: type,
    ) -> None:
        item = self._open_item(event.response_id, event.item_id, event.output_index)
        self._require(item.kind is kind, f"its item must be a {kind.__name__}")
        self._require(item.arguments_done is None, "nothing may follow the arguments' done")
        if isinstance(event, ev.ResponseFunctionCallArgumentsDelta | ev.ResponseMcpCallArgumentsDelta):
            item.arguments.append(event.delta)
            return
        item.arguments_done = event.arguments
        self._require("".join(item.arguments) == event.arguments, f"its deltas were {''.join(item.arguments)!r}")

    def _output_item_done(self, event: ev.ResponseOutputItemDone) -> None:
        item = self._open_item(event.response_id, given(event.item.id, ""), event.output_index)
        self._require(all(part.done for part in item.parts), "its parts must be done before")
        self._require(getattr(event.item, "status", None) != "in_progress", "its status must be final")
        if item.kind in (FunctionCall, McpCall):
            self._require(item.arguments_done is not None, "its arguments must be done before")
        if isinstance(event.item, Message):
            # What was cut off while it was being spoken has no transcript any more (§3.11).
            is_cut = self._audio.get(item.id, _Audio()).is_cut
            streamed = ["" if is_cut else "".join(part.text) for part in item.parts]
            texts = [_text_of(part) for part in event.item.content]
            self._require(texts == streamed, "its content must be what was streamed")
        item.done = event.item


def _bytes_per_ms(response: Response) -> int:
    audio = given(response.audio, None)
    output = given(audio.output, None) if audio else None
    format: AudioFormat | None = given(output.format, None) if output else None
    return BYTES_PER_MS_MAX if format is None or isinstance(format, PcmFormat) else 8


def _text_of(part: object) -> str:
    match part:
        case OutputText():
            return part.text
        case OutputAudio():
            return given(part.transcript, None) or ""
        case _:
            return ""
