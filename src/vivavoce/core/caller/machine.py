"""The caller: the client's end of a session as a machine, one door in, a list of effects out.

Server events, wishes of the application, reports of tools and of the player come in by `handle`; what is to be sent,
run, played and told comes out. Invariants: the conversation is the fold of what the server has said; every ticket is
settled once; nothing raises because of the server. `LocalProtocolError` leaves `handle` only for an `Ask`.
"""

from __future__ import annotations

from collections.abc import Callable

from vivavoce.core.conversation import Conversation, format_of
from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, given
from vivavoce.protocol.config import AudioInput, SessionConfig, SessionResource
from vivavoce.protocol.items import Item, Message, OutputAudio

from .answers import Answers, Pending
from .calls import Calls
from .ear import Ear
from .limits import CallerLimits
from .memory import Memory
from .messages import (
    Acknowledge,
    Ask,
    CallerEffect,
    CallerInput,
    Connected,
    Heard,
    Interrupt,
    Lost,
    Play,
    PlaybackStopped,
    Refuse,
    Restored,
    StopPlayback,
    Tell,
    ToolEnded,
    Transmit,
    WakeUp,
)
from .requests import OWN, Requests, interrupts
from .restoring import merged
from .unsent import Unsent
from .updates import ConversationUpdated, Delta, Failed, Interrupted, ItemAppended, ItemCompleted, Update

NEVER_MIND = frozenset({"response_cancel_not_active", "item_truncate_invalid_item_id", "item_delete_invalid_item_id"})
"""Refusals of events that we send by ourselves, and that have lost a race: what they want is so already."""


class Caller:
    """The client's end of one session. `ids(prefix)` gives fresh ids; `runs(name)` says whether a function is ours.

    `plays` says that a player is there, so that audio is handed to it and interruptions are cut at its playhead.
    """

    def __init__(
        self,
        *,
        ids: Callable[[str], str],
        runs: Callable[[str], bool] = lambda name: False,
        plays: bool = False,
        text_fallback: bool = True,
        limits: CallerLimits | None = None,
    ) -> None:
        self.limits = limits or CallerLimits()
        self.conversation = Conversation()
        self.memory = Memory(self.conversation, self.limits)
        self.configured: SessionConfig | None = None
        """All that the application has changed in the configuration, as far as the server has taken it."""
        self.tells_deltas = False
        """Whether each delta is told as an update; set where somebody listens."""
        self.plays = plays
        self._new_id = ids
        self._text_fallback = text_fallback
        self._now_ms = 0
        self._effects: list[CallerEffect] = []
        self._is_connected = False
        self._unsent = Unsent(self.limits)
        self._came: set[str] = set()
        """Running responses of which something has come."""
        self._answers = Answers(self._effects.append, self.limits.answer_ms_max)
        self.requests = Requests(lambda: self.conversation, self._transmit, self._effects.append, ids, self.limits)
        self.calls = Calls(runs, self._effects.append, self._asked_by_us, ids, self._follow_up)
        self.ear = Ear(format_of(UNSET), self.memory, self.limits)

    # --- the door -----------------------------------------------------------------------------------------------------

    def handle(self, input: CallerInput, now_ms: int) -> list[CallerEffect]:
        """Take one input at a time that never goes back; return what is to be done, in order."""
        self._now_ms = now_ms
        if type(input) is ev.ResponseOutputAudioDelta:
            self._audio(input)
        else:
            self._take(input)
        if not self._effects:
            return []
        effects = self._effects[:]
        self._effects.clear()
        return effects

    def deadline(self) -> int | None:
        """When to hand in a `WakeUp`, on the same clock as `now_ms`; None when nothing is due."""
        dues = (self._answers.deadline(), self.requests.deadline())
        return min((due for due in dues if due is not None), default=None)

    @property
    def is_connected(self) -> bool:
        """Whether what is asked for is sent at once."""
        return self._is_connected

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way: no response, no call, no unanswered event, no user who speaks."""
        is_busy = self.requests.user_speaks or self.calls.open or len(self._answers) or len(self._unsent)
        return self.requests.is_idle and not is_busy

    def _take(self, input: CallerInput) -> None:
        match input:
            case Ask():
                self._asked(input)
            case ev.ErrorEvent():
                self._error(input.error)
            case ev.Unknown():
                self.requests.life_ms = self._now_ms
            case ToolEnded():
                self.calls.ended(input.call_id, input.output)
            case PlaybackStopped():
                self._playback_stopped(input.unfinished)
            case Interrupt():
                self._interrupt(input.heard)
            case Connected():
                self._connected()
            case Lost():
                self._is_connected = False
                self._answers.hold()
                self.requests.lost()
            case Restored():
                self._restored(input.conversation)
            case WakeUp():
                self._answers.wake_up(self._now_ms)
                self.requests.wake_up(self._now_ms)
            case _:
                self._server(input)

    # --- what the application wants -----------------------------------------------------------------------------------

    def _asked(self, asked: Ask) -> None:
        event = asked.event
        if not self._is_connected:
            self._keep(asked)
            return
        match event:
            case ev.ResponseCreate():
                self.requests.add(event, asked.ticket, self._now_ms)
                return
            case ev.InputAudioBufferAppend():
                self.ear.append(event.audio)
            case ev.InputAudioBufferCommit():
                self.ear.is_cut_here()
            case ev.InputAudioBufferClear():
                self.ear.is_cleared_here()
        self._answers.expect(event, asked.ticket, self._now_ms)
        self._transmit(event)

    def _keep(self, asked: Ask) -> None:
        """Nobody is waited for because of audio: it is either sent later, or dropped for what is newer."""
        if isinstance(asked.event, ev.InputAudioBufferAppend):
            if asked.ticket:
                self._effects.append(Acknowledge(asked.ticket))
            asked = Ask(asked.event)
        self._unsent.add(asked, self.ear.format.bytes_of(1000))

    def _transmit(self, event: ev.AnyClientEvent) -> None:
        self._effects.append(Transmit(event))

    def _asked_by_us(self, event: ev.AnyClientEvent) -> None:
        self._asked(Ask(event))

    def _follow_up(self, outputs: frozenset[str]) -> None:
        self.requests.follow_up(outputs, self._now_ms)

    def _tell(self, update: Update) -> None:
        self._effects.append(Tell(update))

    # --- what the server says -----------------------------------------------------------------------------------------

    def _audio(self, event: ev.ResponseOutputAudioDelta) -> None:
        self.requests.life_ms = self._now_ms
        self.conversation.apply(event)
        item_id = event.item_id
        entry = self.conversation.entry(item_id)
        if entry is None or self.memory.is_stopped(item_id):
            return
        self._came.add(event.response_id)
        self.memory.sound(item_id, entry.audio_bytes)
        if self.plays:
            self._effects.append(Play(item_id, event.delta, entry.format))
        if self.tells_deltas:
            self._tell_delta(item_id, Delta(audio=event.delta))

    def _server(self, event: ev.AnyServerEvent) -> None:
        self.requests.life_ms = self._now_ms
        match event:
            case (
                ev.ResponseOutputTextDelta()
                | ev.ResponseOutputAudioTranscriptDelta()
                | ev.ResponseFunctionCallArgumentsDelta()
            ):
                self._words(event)
                return
            case ev.ConversationItemInputAudioTranscriptionDelta():
                self.conversation.apply(event)
                self._tell_delta(event.item_id, Delta(transcript=given(event.delta, "")))
                return
            case ev.ConversationItemInputAudioTranscriptionCompleted():
                self._transcribed(event)
                return
            case ev.ConversationItemDeleted():
                self._deleted(event)
            case _:
                self.conversation.apply(event)
        match event:
            case ev.SessionCreated() | ev.SessionUpdated():
                self._configured(event)
            case ev.InputAudioBufferSpeechStarted():
                self._speech_started(event)
            case ev.InputAudioBufferSpeechStopped():
                self.ear.speech_stopped(event.item_id, event.audio_end_ms)
                self.requests.speech_stopped(self._now_ms)
            case ev.InputAudioBufferCommitted():
                self.requests.committed(by_server=self.ear.committed(event.item_id))
            case ev.InputAudioBufferCleared():
                self.ear.cleared()
            case ev.ResponseCreated():
                self.requests.created(event.response)
                self.requests.acknowledge(event)
            case ev.ResponseDone():
                self._response_done(event)
            case _:
                self._item(event)
        self._answers.take(event)

    def _configured(self, event: ev.SessionCreated | ev.SessionUpdated) -> None:
        """Note what the server has taken of the configuration, so that another session can be told."""
        self.ear.use(format_of(_input_of(event.session).format))
        asked = self._answers.first(ev.SessionUpdate) if isinstance(event, ev.SessionUpdated) else None
        if isinstance(asked, ev.SessionUpdate):
            self.configured = asked.session if self.configured is None else merged(self.configured, asked.session)

    def _words(
        self,
        event: ev.ResponseOutputTextDelta
        | ev.ResponseOutputAudioTranscriptDelta
        | ev.ResponseFunctionCallArgumentsDelta,
    ) -> None:
        self.conversation.apply(event)
        self._came.add(event.response_id)
        if isinstance(event, ev.ResponseOutputAudioTranscriptDelta):
            if (entry := self.conversation.entry(event.item_id)) is not None:
                self.memory.words(event.item_id, event.delta, entry.audio_bytes)
            self._tell_delta(event.item_id, Delta(transcript=event.delta))
        elif isinstance(event, ev.ResponseOutputTextDelta):
            self._tell_delta(event.item_id, Delta(text=event.delta))
        else:
            self._tell_delta(event.item_id, Delta(arguments=event.delta))

    def _transcribed(self, event: ev.ConversationItemInputAudioTranscriptionCompleted) -> None:
        """The whole transcript; where it did not come in pieces, it is one."""
        view = self.memory.view(event.item_id)
        is_news = view is not None and not view.text
        self.conversation.apply(event)
        self._update(event.item_id, Delta(transcript=event.transcript) if is_news else None)

    def _deleted(self, event: ev.ConversationItemDeleted) -> None:
        view = self.memory.view(event.item_id)
        self.conversation.apply(event)
        self.memory.forget(event.item_id)
        if view is not None:
            self._tell(ConversationUpdated(view))

    def _response_done(self, event: ev.ResponseDone) -> None:
        response = event.response
        self.calls.response_done(response, self.memory.is_complete)
        if self._text_fallback and response.status == "failed" and response.id not in self._came:
            self.requests.again_as_text(response.id, self._now_ms)
        self._came.discard(response.id)
        self.requests.done(response, self._now_ms)

    def _item(self, event: ev.AnyServerEvent) -> None:
        match event:
            case ev.ConversationItemAdded() | ev.ConversationItemCreated():
                self._appended(event.item, is_only_word=isinstance(event, ev.ConversationItemCreated))
            case ev.ConversationItemDone():
                self._complete(event.item)
            case ev.ResponseOutputItemDone():
                self.calls.item_done(event.response_id, event.item)
                self._complete(event.item)
            case ev.ConversationItemTruncated():
                if (entry := self.conversation.entry(event.item_id)) is not None:
                    self.memory.cut(event.item_id, entry.format.bytes_of(event.audio_end_ms))
                self._update(event.item_id)
            case (
                ev.ResponseOutputTextDone()
                | ev.ResponseOutputAudioTranscriptDone()
                | ev.ResponseFunctionCallArgumentsDone()
                | ev.ConversationItemInputAudioTranscriptionFailed()
            ):
                self._update(event.item_id)
            case _:
                pass

    def _appended(self, item: Item, *, is_only_word: bool) -> None:
        """`is_only_word`: beta announces an item once, complete or not."""
        view = self.memory.view(given(item.id, ""))
        if view is None:
            return
        self._tell(ItemAppended(view))
        if is_only_word and view.status != "in_progress":
            self._complete(item)

    def _complete(self, item: Item) -> None:
        item_id = given(item.id, "")
        view = self.memory.view(item_id)
        if view is None or item_id not in self.conversation or not self.memory.complete(item_id):
            return
        self._tell(ConversationUpdated(view) if view.status == "incomplete" else ItemCompleted(view))

    def _update(self, item_id: str, delta: Delta | None = None) -> None:
        view = self.memory.view(item_id)
        if view is not None and item_id in self.conversation:
            self._tell(ConversationUpdated(view, delta))

    def _tell_delta(self, item_id: str, delta: Delta) -> None:
        if self.tells_deltas:
            self._update(item_id, delta)

    def _error(self, error: ev.ErrorDetail) -> None:
        self.requests.life_ms = self._now_ms
        if self.requests.refused(error, self._now_ms):
            return
        pending = self._answers.refused(error)
        if pending is not None and isinstance(pending.event, ev.InputAudioBufferCommit | ev.InputAudioBufferClear):
            self.ear.was_refused(commit=isinstance(pending.event, ev.InputAudioBufferCommit))
        is_cared_for = pending is not None and pending.ticket
        is_harmless = (given(error.event_id, None) or "").startswith(f"{OWN}_") and error.code in NEVER_MIND
        if not is_cared_for and not is_harmless:
            self._tell(Failed(error))

    # --- interruptions ------------------------------------------------------------------------------------------------

    def _speech_started(self, event: ev.InputAudioBufferSpeechStarted) -> None:
        self.ear.speech_started(event.item_id, event.audio_start_ms)
        self.requests.speech_started()
        if interrupts(self.conversation.session):
            self._fall_silent()

    def _fall_silent(self) -> None:
        """The player knows what was heard, and says so before anything else comes in."""
        self.calls.interrupted()
        if self.plays:
            self._effects.append(StopPlayback())
        else:
            self._tell(Interrupted())

    def _interrupt(self, heard: Heard | None) -> None:
        for response_id in self.requests.active:
            self._asked_by_us(ev.ResponseCancel(event_id=self._new_id(OWN), response_id=response_id))
        if heard is None:
            self._fall_silent()
        else:
            self.calls.interrupted()
            self._playback_stopped((heard,))

    def _playback_stopped(self, unfinished: tuple[Heard, ...]) -> None:
        for heard in unfinished:
            self._cut(heard)
        self._tell(Interrupted(unfinished))

    def _cut(self, heard: Heard) -> None:
        """What was not heard was not said: the server's copy is cut, and what nobody heard is deleted."""
        entry = self.conversation.entry(heard.item_id)
        self.memory.stop(heard.item_id)
        if entry is None or entry.truncated or heard.item_id not in self.conversation:
            return
        samples = min(max(heard.samples, 0), entry.audio_bytes // entry.format.sample_bytes)
        self.memory.cut(heard.item_id, samples * entry.format.sample_bytes)
        event: ev.AnyClientEvent = ev.ConversationItemDelete(event_id=self._new_id(OWN), item_id=heard.item_id)
        if samples:
            event = ev.ConversationItemTruncate(
                event_id=self._new_id(OWN),
                item_id=heard.item_id,
                content_index=_spoken_part(entry.item),
                audio_end_ms=entry.format.ms(samples),
            )
        self._asked_by_us(event)

    # --- connections --------------------------------------------------------------------------------------------------

    def _connected(self) -> None:
        self._is_connected = True
        self._answers.go_on(self._now_ms)
        self._send_unsent()
        self.requests.connected(self._now_ms)

    def _send_unsent(self) -> None:
        if self._unsent.dropped_bytes:
            seconds = self._unsent.dropped_bytes / self.ear.format.bytes_of(1000)
            message = f"There was no connection for so long that the oldest {seconds:.1f} s of audio were dropped."
            self._tell(Failed(ev.ErrorDetail(type="vivavoce", code="audio_dropped", message=message)))
            self._unsent.dropped_bytes = 0
        for asked in self._unsent.take_all():
            try:
                self._asked(asked)
            except LocalProtocolError as error:
                detail = ev.ErrorDetail(type="vivavoce", code="too_many_requests", message=str(error))
                self._effects.append(Refuse(asked.ticket, detail) if asked.ticket else Tell(Failed(detail)))

    def _restored(self, conversation: Conversation) -> None:
        """Go on in another session: what was under way is sent again, in the order in which it was sent first."""
        self.conversation.become(conversation)
        self._is_connected = True
        pending = self._answers.take_all()
        cuts = [one for one in pending if isinstance(one.event, ev.InputAudioBufferCommit | ev.InputAudioBufferClear)]
        for piece in self.ear.begin_again():
            if isinstance(piece, bytes):
                self._asked_by_us(ev.InputAudioBufferAppend(event_id=self._new_id("event"), audio=piece))
            elif cuts:
                cut = cuts.pop(0)
                self._asked(Ask(cut.event, cut.ticket))
        for one in pending:
            self._send_again(one)
        self.calls.moved()
        self.requests.moved(self._came.__contains__, self._now_ms)
        self._came.clear()
        self._send_unsent()
        self.requests.proceed(self._now_ms)

    def _send_again(self, pending: Pending) -> None:
        """An event that the lost session may have taken or not, without saying so."""
        event = pending.event
        match event:
            case ev.InputAudioBufferCommit() | ev.InputAudioBufferClear():
                return  # sent with the audio around them
            case ev.ConversationItemTruncate() | ev.ResponseCancel() | ev.OutputAudioBufferClear():
                is_done = True  # the other session was told only what was heard, and its responses are its own
            case ev.ConversationItemCreate():
                is_done = given(event.item.id, "") in self.conversation
            case ev.ConversationItemDelete():
                is_done = event.item_id not in self.conversation
            case _:
                is_done = False
        if not is_done:
            self._asked(Ask(event, pending.ticket))
        elif pending.ticket:
            self._effects.append(Acknowledge(pending.ticket))


def _input_of(session: SessionResource) -> AudioInput:
    audio = given(session.audio, None)
    return (given(audio.input, None) if audio else None) or AudioInput()


def _spoken_part(item: Item) -> int:
    """Which part of a message is its speech."""
    parts = item.content if isinstance(item, Message) else ()
    return next((index for index, part in enumerate(parts) if isinstance(part, OutputAudio)), 0)
