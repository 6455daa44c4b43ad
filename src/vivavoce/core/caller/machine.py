"""The caller: the client's end of a session as a machine, one door in, a list of effects out.

Server events, wishes of the application, reports of tools and of the player come in by `handle`; what is to be sent,
run, played and told comes out. Invariants: the conversation is the fold of what the server has said; every ticket is
settled once; nothing raises because of the server. `LocalProtocolError` leaves `handle` only for an `Ask`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from vivavoce.core.conversation import Conversation, format_of
from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, Maybe, given
from vivavoce.protocol.config import SessionConfig
from vivavoce.protocol.items import Item

from .answers import Answers, Pending
from .calls import Calls
from .configuration import Configuration
from .ear import Ear
from .limits import CallerLimits
from .memory import Memory, Speech
from .messages import (
    Acknowledge,
    Ask,
    CallerEffect,
    CallerInput,
    Connected,
    Heard,
    Interrupt,
    Lost,
    PlaybackStopped,
    Refuse,
    Restored,
    StopPlayback,
    Tell,
    ToolEnded,
    Transmit,
    WakeUp,
)
from .requests import OWN, Requests
from .restoring import Leftovers
from .telling import Telling
from .turns import interrupts, turn_detection
from .unsent import Unsent
from .updates import Delta, Failed, Interrupted
from .voice import CLEAR, Voice

NEVER_MIND = frozenset({"response_cancel_not_active", "item_truncate_invalid_item_id", "item_delete_invalid_item_id"})
"""Refusals of events that we send by ourselves, and that have lost a race: what they want is so already."""


class Flow(msgspec.Struct, frozen=True):
    """The speech that came last, as long as nothing else has come since: what is true of it stays true."""

    response_id: str
    item_id: str
    speech: Speech


class Caller:
    """The client's end of one session. `ids(prefix)` gives fresh ids; `runs(name)` says whether a function is ours.

    `plays` says that a player is there, so that audio is handed to it and interruptions are cut at its playhead.
    `server_plays` says that audio travels apart from the events, in real time (WebRTC): what comes has been played, and
    after an interruption the server says what was heard.
    """

    def __init__(
        self,
        *,
        ids: Callable[[str], str],
        runs: Callable[[str], bool] = lambda name: False,
        plays: bool = False,
        server_plays: bool = False,
        text_fallback: bool = True,
        limits: CallerLimits | None = None,
    ) -> None:
        self.limits = limits or CallerLimits()
        self.conversation = Conversation()
        self.memory = Memory(self.conversation, self.limits, is_live=server_plays)
        self.tells_deltas = False
        """Whether each delta is told as an update; set where somebody listens."""
        self._new_id = ids
        self._text_fallback = text_fallback
        self._now_ms = 0
        self._effects: list[CallerEffect] = []
        self._flow: Flow | None = None
        self._is_connected = False
        self._unsent = Unsent(self.limits)
        self._answers = Answers(self._effects.append, self.limits.answer_ms_max)
        self._telling = Telling(self.memory, self._effects.append)
        self.requests = Requests(lambda: self.conversation, self._transmit, self._effects.append, ids, self.limits)
        self.calls = Calls(runs, self._effects.append, self._asked_by_us, ids, self.requests.params_of, self._follow_up)
        self.voice = Voice(
            self.memory,
            self.requests,
            self._asked_by_us,
            self._effects.append,
            ids,
            plays=plays,
            server_plays=server_plays,
        )
        self.ear = Ear(format_of(UNSET), self.memory, self.limits, is_live=server_plays)
        self._configuration = Configuration(self.conversation, self._answers, self.ear)

    # --- the door -----------------------------------------------------------------------------------------------------

    def handle(self, input: CallerInput, now_ms: int) -> list[CallerEffect]:
        """Take one input at a time that never goes back; return what is to be done, in order."""
        self._now_ms = now_ms
        self._flow = None
        if type(input) is ev.ResponseOutputAudioDelta:
            self._audio(input)
        else:
            self._take(input)
        effects = self._effects[:]
        self._effects.clear()
        return effects

    def hear(self, event: ev.ResponseOutputAudioDelta) -> bool:
        """The short way of speech that goes on: what `handle` would do, where it would ask for nothing.

        Says whether that was so; otherwise nothing was done, and `handle` is to be asked. Most of all events are such
        ones; `handle` has to see some of them, since here no time passes.
        """
        flow = self._flow
        if flow is None or self.tells_deltas or flow.item_id != event.item_id or flow.response_id != event.response_id:
            return False
        self.conversation.apply(event)
        flow.speech.audio_bytes += len(event.delta)
        return True

    def deadline(self) -> int | None:
        """When to hand in a `WakeUp`, on the same clock as `now_ms`; None when nothing is due."""
        dues = (self._answers.deadline(), self.requests.deadline())
        return min((due for due in dues if due is not None), default=None)

    @property
    def configured(self) -> SessionConfig | None:
        """All that the application has changed in the configuration, as far as the server has taken it."""
        return self._configuration.changed

    @property
    def is_connected(self) -> bool:
        """Whether what is asked for is sent at once."""
        return self._is_connected

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way or due: no response, no call, no unanswered event, nobody who speaks."""
        is_busy = self.requests.user_speaks or self.calls.open or len(self._answers) or len(self._unsent)
        return self.requests.is_idle and not is_busy and not self.voice.is_sounding

    def _take(self, input: CallerInput) -> None:
        match input:
            case Ask():
                self._asked(input)
            case ev.ErrorEvent():
                self._error(input.error)
            case ev.Unknown():
                self.requests.life_ms = self._now_ms
            case ToolEnded():
                self._tool_ended(input)
            case PlaybackStopped():
                self.voice.stopped(input.unfinished)
                self._telling.tell(Interrupted(input.unfinished))
            case Interrupt():
                self._interrupt(input.heard)
            case Connected():
                self._connected()
            case Lost():
                self._is_connected = False
                self.voice.lost()
                self._answers.hold()
                self.requests.lost()
            case Restored():
                self._restored(input.conversation)
            case WakeUp():
                for given_up in self._answers.wake_up(self._now_ms):
                    self._came_to_nothing(given_up)
                self.requests.wake_up(self._now_ms)
            case _:
                self._server(input)

    # --- what the application wants -----------------------------------------------------------------------------------

    def _asked(self, asked: Ask, *, is_own: bool = False) -> None:
        if not self._is_connected:
            self._keep(asked, is_own=is_own)
            return
        event = asked.event
        if isinstance(event, ev.ResponseCreate):
            self.requests.add(event, asked.ticket, self._now_ms)
            return
        self._answers.expect(event, asked.ticket, self._now_ms)
        match event:
            case ev.InputAudioBufferAppend():
                self.ear.append(event.audio, self._now_ms)
            case ev.InputAudioBufferCommit():
                self.ear.is_cut_here()
            case ev.InputAudioBufferClear():
                self.ear.is_cleared_here()
            case ev.SessionUpdate():
                self._configuration.sent(event.session)
            case ev.ResponseCancel():
                self.requests.cancelling(given(event.response_id, None))
        self._transmit(event)
        if isinstance(event, ev.ResponseCancel) and not is_own:
            self.voice.clear(given(event.response_id, None))

    def _keep(self, asked: Ask, *, is_own: bool) -> None:
        """Nobody is waited for because of audio: it is either sent later, or dropped for what is newer."""
        if isinstance(asked.event, ev.InputAudioBufferAppend):
            if asked.ticket:
                self._effects.append(Acknowledge(asked.ticket))
            asked = Ask(asked.event)
        self._unsent.add(asked, self.ear.format.bytes_of(1000), is_own=is_own)

    def _tool_ended(self, ended: ToolEnded) -> None:
        if self._is_connected:
            self.calls.ended(ended.call_id, ended.output)
        else:
            self._unsent.answer(ended)

    def _transmit(self, event: ev.AnyClientEvent) -> None:
        self._effects.append(Transmit(event))

    def _asked_by_us(self, event: ev.AnyClientEvent) -> None:
        self._asked(Ask(event), is_own=True)

    def _follow_up(self, outputs: frozenset[str], params: Maybe[ev.ResponseParams]) -> None:
        self.requests.follow_up(outputs, params, self._now_ms)

    # --- what the server says -----------------------------------------------------------------------------------------

    def _audio(self, event: ev.ResponseOutputAudioDelta) -> None:
        self.requests.life_ms = self._now_ms
        self.conversation.apply(event)
        item_id = event.item_id
        self.requests.came(event.response_id)
        entry = self.conversation.entry(item_id)
        if entry is None or not self.voice.sound(event, entry):
            return
        if self.tells_deltas:
            self._telling.grown(event)
        elif not self.voice.plays:
            self._flow = Flow(event.response_id, item_id, self.memory.speech_of(item_id))

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
                self.memory.understands(event.item_id)
                if self.tells_deltas:
                    self._telling.grown(event)
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
                self._configuration.stated(event)
                if turn_detection(event.session) is None:
                    self.requests.turn_dropped(self._now_ms)
            case ev.InputAudioBufferSpeechStarted():
                self._speech_started(event)
            case ev.InputAudioBufferSpeechStopped():
                self.ear.speech_stopped(event.item_id, event.audio_end_ms)
                self.requests.speech_stopped(self._now_ms)
            case ev.InputAudioBufferTimeoutTriggered():
                self.ear.speech_started(event.item_id, event.audio_start_ms)
                self.ear.speech_stopped(event.item_id, event.audio_end_ms)
            case ev.InputAudioBufferCommitted():
                by_server = self.ear.committed(event.item_id)
                self.requests.committed(event.item_id, self._now_ms, by_server=by_server)
                if by_server:
                    return  # it answers nobody
            case ev.InputAudioBufferCleared():
                self.ear.cleared()
                self.requests.turn_dropped(self._now_ms)
            case ev.ResponseCreated():
                self.requests.created(event.response)
                self.requests.acknowledge(event)
            case ev.ResponseDone():
                self._response_done(event)
            case ev.OutputAudioBufferStarted() | ev.OutputAudioBufferStopped() | ev.OutputAudioBufferCleared():
                self.voice.playback(event)
            case _:
                self._item(event)
        self._answers.take(event)

    def _words(
        self,
        event: ev.ResponseOutputTextDelta
        | ev.ResponseOutputAudioTranscriptDelta
        | ev.ResponseFunctionCallArgumentsDelta,
    ) -> None:
        self.conversation.apply(event)
        self.requests.came(event.response_id)
        if isinstance(event, ev.ResponseOutputAudioTranscriptDelta):
            self.memory.words(event.item_id, event.delta)
        if self.tells_deltas:
            self._telling.grown(event)

    def _transcribed(self, event: ev.ConversationItemInputAudioTranscriptionCompleted) -> None:
        """The whole transcript; where it did not come in pieces, it is one."""
        view = self.memory.view(event.item_id)
        is_news = view is not None and not view.text
        self.memory.has_understood(event.item_id)
        self.conversation.apply(event)
        self._telling.updated(
            event.item_id, Delta(transcript=event.transcript) if is_news and event.transcript else None
        )

    def _deleted(self, event: ev.ConversationItemDeleted) -> None:
        view = self.memory.view(event.item_id)
        self.conversation.apply(event)
        if view is not None:
            self._telling.gone(view)

    def _response_done(self, event: ev.ResponseDone) -> None:
        response = event.response
        if not self.requests.is_aside(response.id):
            self.calls.response_done(response)
        if self._text_fallback:
            self.requests.again_as_text(response)
        self.requests.done(response, self._now_ms)

    def _item(self, event: ev.AnyServerEvent) -> None:
        match event:
            case ev.ConversationItemAdded() | ev.ConversationItemCreated():
                self._telling.added(event)
            case ev.ConversationItemDone():
                # Before `response.output_item.done`, which may not come any more: a call that is told to another
                # session has to be answered there.
                self._made(self.conversation.owner(given(event.item.id, "")), event.item)
            case ev.ResponseOutputItemDone():
                self._made(event.response_id, event.item)
            case ev.ResponseOutputAudioTranscriptDone():
                self.memory.all_words(event.item_id, event.transcript)
                self._telling.updated(event.item_id)
            case ev.ConversationItemTruncated():
                if (entry := self.conversation.entry(event.item_id)) is not None:
                    self.memory.cut(event.item_id, entry.format.bytes_of(event.audio_end_ms))
                self._telling.updated(event.item_id)
            case (
                ev.ResponseOutputTextDone()
                | ev.ResponseFunctionCallArgumentsDone()
                | ev.ConversationItemInputAudioTranscriptionFailed()
            ):
                self._telling.updated(event.item_id)
            case _:
                pass

    def _made(self, response_id: str | None, item: Item) -> None:
        """An item is final. What is called beside the conversation is the application's: nobody could be answered."""
        if response_id is not None:
            self.requests.came(response_id)
            if not self.requests.is_aside(response_id):
                self.calls.item_done(response_id, item)
        self._telling.complete(given(item.id, ""))

    def _error(self, error: ev.ErrorDetail) -> None:
        self.requests.life_ms = self._now_ms
        if self.requests.refused(error, self._now_ms):
            return
        pending = self._answers.refused(error)
        if pending is not None:
            self._came_to_nothing(pending)
        event_id = given(error.event_id, None) or ""
        is_cared_for = pending is not None and pending.ticket
        is_ours = event_id.startswith(f"{OWN}_") or self._answers.was_overtaken(event_id)
        is_harmless = (is_ours and error.code in NEVER_MIND) or event_id.startswith(f"{CLEAR}_")
        if not is_cared_for and not is_harmless:
            self._telling.tell(Failed(error))

    def _came_to_nothing(self, pending: Pending) -> None:
        """The server has not done it."""
        match pending.event:
            case ev.InputAudioBufferCommit() | ev.InputAudioBufferClear() as cut:
                self.ear.was_refused(commit=isinstance(cut, ev.InputAudioBufferCommit))
            case ev.SessionUpdate():
                self._configuration.refused()

    # --- interruptions ------------------------------------------------------------------------------------------------

    def _speech_started(self, event: ev.InputAudioBufferSpeechStarted) -> None:
        self.ear.speech_started(event.item_id, event.audio_start_ms)
        self.requests.speech_started()
        if interrupts(self.conversation.session):
            self.requests.silence()  # the server cancels them
            self._fall_silent()

    def _fall_silent(self) -> None:
        """The player knows what was heard, and says so before anything else comes in."""
        self.calls.interrupted()
        if self.voice.plays:
            self._effects.append(StopPlayback())
        else:
            self._telling.tell(Interrupted())

    def _interrupt(self, heard: Heard | None) -> None:
        for response_id in self.requests.silence():
            self._asked_by_us(ev.ResponseCancel(event_id=self._new_id(OWN), response_id=response_id))
        self.voice.clear()
        if heard is None:
            self._fall_silent()
        else:
            self.calls.interrupted()
            self.voice.cut(heard)
            self._telling.tell(Interrupted((heard,)))

    # --- connections --------------------------------------------------------------------------------------------------

    def _connected(self) -> None:
        self._is_connected = True
        self.ear.begin(self._now_ms)
        self._answers.go_on(self._now_ms)
        self.requests.connected(self._now_ms)
        self._send_unsent()

    def _send_unsent(self, leftovers: Leftovers | None = None) -> None:
        if self._unsent.dropped_bytes:
            seconds = self._unsent.dropped_bytes / self.ear.format.bytes_of(1000)
            message = f"There was no connection for so long that the oldest {seconds:.1f} s of audio were dropped."
            self._telling.tell(Failed(ev.ErrorDetail(type="vivavoce", code="audio_dropped", message=message)))
            self._unsent.dropped_bytes = 0
        for kept in self._unsent.take_all():
            if isinstance(kept, ToolEnded):
                self.calls.ended(kept.call_id, kept.output)
            else:
                self._send_late(kept, leftovers)

    def _send_late(self, kept: Ask, leftovers: Leftovers | None) -> None:
        try:
            self._send_again(kept, leftovers)
        except LocalProtocolError as error:
            detail = ev.ErrorDetail(type="vivavoce", code="not_sent", message=str(error))
            self._effects.append(Refuse(kept.ticket, detail) if kept.ticket else Tell(Failed(detail)))

    def _restored(self, conversation: Conversation) -> None:
        """Go on in another session: what was under way is sent again, in the order in which it was sent first."""
        before = self.memory.views()
        self.conversation.become(conversation)
        self._is_connected = True
        pending = self._answers.take_all()
        self._telling.moved(before)
        self._tell_late_cuts()
        self._send_audio_again(pending)
        leftovers = Leftovers(conversation)
        for one in pending:
            if not isinstance(one.event, ev.InputAudioBufferCommit | ev.InputAudioBufferClear):
                self._send_again(Ask(one.event, one.ticket), leftovers)
        self.requests.moved(self._now_ms)
        self.calls.moved()
        self.requests.proceed(self._now_ms)
        self._send_unsent(leftovers)

    def _tell_late_cuts(self) -> None:
        """Of the items that were cut while the other session was being told."""
        for view in self.memory.views():
            if self.memory.is_cut(view.id) and view.text != view.stated_text:
                self.voice.tell_heard(view.id)

    def _send_audio_again(self, pending: list[Pending]) -> None:
        """The audio that is in no item, with the commits and clears that were on their way."""
        cuts = [one for one in pending if isinstance(one.event, ev.InputAudioBufferCommit | ev.InputAudioBufferClear)]
        pieces = self.ear.begin_again()
        self.ear.begin(self._now_ms)
        for piece in pieces:
            if isinstance(piece, bytes):
                self._asked_by_us(ev.InputAudioBufferAppend(event_id=self._new_id("event"), audio=piece))
            else:
                cut = cuts.pop(0)
                self._asked(Ask(cut.event, cut.ticket))

    def _send_again(self, asked: Ask, leftovers: Leftovers | None) -> None:
        if leftovers is None or leftovers.is_needed(asked.event):
            self._asked(asked)
        elif asked.ticket:
            self._effects.append(Acknowledge(asked.ticket))
