"""The session machine, server side: one door in, a list of effects out (reference §3, §4, §5).

`handle(input, now_ms)` takes one input and returns what is to be done about it; `deadline()` names the next wake-up.
Its parts share a `Desk`. Invariants: state that the client can see changes only in `_send`, so the conversation is the
fold of what was sent; a client's mistake has no partial effect and ends nothing; reports for what is over are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msgspec import structs

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.config import SessionConfig, SessionResource, TranscriptionSession
from vivavoce.protocol.items import InputAudio, Usage

from . import configuration as cfg
from . import prompts
from .account import Bill
from .adoption import Adoption
from .answering import Answering, Neighbours
from .context import spoken_item
from .conversation import Conversation, format_of
from .desk import Desk
from .editing import Editing
from .hearing import Hearing
from .input_audio import ms_of
from .limits import Limits
from .listening import Ear, Listening
from .messages import (
    EXPELLED,
    LOOKS,
    AudioSynthesized,
    Close,
    Drain,
    Effect,
    Expel,
    Gone,
    Input,
    McpCallEnded,
    McpListFailed,
    McpToolsListed,
    NoiseReduced,
    Opened,
    PlaybackDrained,
    PlaybackStarted,
    Send,
    SpeechScored,
    TranscriptDelta,
    TranscriptEnded,
    TranscriptFailed,
    TranscriptSegment,
    TurnJudged,
    WakeUp,
    WordsHeard,
)
from .playback import Playback
from .refused import Refused, invalid
from .response import RunningResponse
from .speculation import Speculation, quiet_ms
from .stopwatch import TIMED, TOLD, Stopwatch
from .surroundings import Surroundings
from .tools import Toolbox
from .transcribing import Transcribing
from .updating import Updating

GOING_AWAY = 1001
POLICY = 1008

ENDS_NOTHING = frozenset({ev.InputAudioBufferAppend, AudioSynthesized})
"""Inputs that come many times a second, and after which there is nothing to settle."""


class Session:
    """One session, of type `realtime` or, with `configured` of that kind, `transcription`.

    `ids(prefix)` gives fresh ids and is the only source of them. `configured` is what to begin with where it is not the
    default; raises `Refused` where that is not possible.
    """

    def __init__(
        self,
        *,
        id: str,
        model: str,
        ids: Callable[[str], str],
        expires_at: int,
        limits: Limits | None = None,
        instructions: str = cfg.INSTRUCTIONS,
        configured: SessionConfig | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.conversation = Conversation(self.limits)
        self.is_closed = False
        self._given = surroundings or Surroundings()
        self._now_ms = 0
        self._ends_at_ms: int | None = None
        self._idle_at_ms: int | None = None
        self._is_draining = False
        self._effects: list[Effect] = []
        is_transcription = isinstance(configured, TranscriptionSession)
        self._desk = desk = Desk(
            send=self._send,
            ask=self._effects_append,
            new_id=ids,
            now_ms=lambda: self._now_ms,
            initial=cfg.initial_transcription(id=id, expires_at=expires_at)
            if is_transcription
            else cfg.initial(id=id, model=model, expires_at=expires_at, instructions=instructions),
            conversation=self.conversation,
            conversation_id=ids("conv"),
            hearing=Hearing(self.limits.audio_bytes_max),
            limits=self.limits,
            abilities=self._given.abilities,
        )
        self._transcribing = Transcribing(
            desk,
            lambda: self._listening.format,
            lambda item_id: self._speculation.source_of(item_id),
            lambda: self._answering.proceed(),
            self._given.bill.transcribed,
        )
        ear = Ear(
            desk.send,
            desk.ask,
            ids,
            self._turn_started,
            self._commit_audio,
            self._turn_ended,
            self._spoken_language,
            quiet_ms(self.limits, desk.abilities),
            self._fell_silent,
            self._resumed,
            self._transcribing.hear_along if desk.abilities.hears_along else None,
            self._transcribing.turn_over,
        )
        self._listening = Listening(format_of(cfg.audio_input(desk.initial).format), self.limits, ear)
        self._stopwatch = Stopwatch(
            lambda: self._listening.silent_since,
            watch=self._given.watch,
            tells=self._given.tells_waterfall,
            plays=self._given.player is not None,
        )
        self._adoption = Adoption(
            self.conversation, self.limits, ids, self._is_spoken_for, sees_images=desk.abilities.images
        )
        self._toolbox = Toolbox(desk)
        self._answering = Answering(
            desk,
            Neighbours(
                self._adoption,
                self._toolbox,
                self._given.account,
                partial(prompts.filled, self._given.prompts),
                self._transcribing.listen_to,
                self._response_done,
            ),
        )
        self._speculation = Speculation(desk, self._answering, self._transcribing.request)
        self._playback = Playback(desk, self._given.player)
        self._editing = Editing(
            desk,
            self._adoption,
            self._toolbox,
            self._transcribing.listen_to,
            self._answering.proceed,
            self._answering.is_open,
        )
        stored, turns_changed = self._given.prompts, partial(self._stay, None)
        self._updating = Updating(desk, self._toolbox, self._answering, self._listening, stored, turns_changed)
        if configured is not None:
            self._updating.begin_with(configured)

    # --- the door -----------------------------------------------------------------------------------------------------

    def handle(self, input: Input, now_ms: int) -> list[Effect]:
        """Take one input at a time that never goes back; return what is to be done, in order."""
        if self.is_closed:
            return []
        self._now_ms, kind = now_ms, type(input)
        if kind in TIMED:
            self._stopwatch.heard(input, now_ms)
        try:
            if type(input) is ev.InputAudioBufferAppend:  # most of all that comes
                self._stopwatch.arrived(self._listening.append(input.audio), now_ms)
            else:
                self._take(input)
        except Refused as refused:
            self._send(refused.told(given(input.event_id, None) if isinstance(input, ev.ClientEvent) else None))
        if kind not in ENDS_NOTHING and (self._effects or kind is not SpeechScored):
            self._settle()
        effects, self._effects = self._effects, []
        return effects

    def deadline(self) -> int | None:
        """When to hand in a `WakeUp`, on the same clock as `now_ms`; None when nothing is due."""
        if self.is_closed:
            return None
        due = self._ends_at_ms
        for other in (self._idle_at_ms, self._answering.deadline_ms):
            if other is not None and (due is None or other < due):
                due = other
        return due

    def _take(self, input: Input) -> None:
        match input:
            case SpeechScored():
                self._listening.score(input)
            case AudioSynthesized():  # these two are nearly all the rest
                if not self._speculation.holds(input):
                    self._answering.report(input)
            case ev.ClientEvent():
                self._client(input)
                self._speculation.reconsider()
            case ev.ErrorDetail():
                self._send(ev.ErrorEvent(error=input))
            case Opened():
                self._open()
            case WakeUp():
                self._wake_up()
            case Drain():
                self._is_draining = True
            case Expel():
                self._end(POLICY, EXPELLED, input.reason)
            case Gone():
                self._answering.fail_all("client_gone", "The client has gone.")
                self._be_over()
            case _ if self._speculation.holds(input):
                pass
            case NoiseReduced():
                self._listening.clean(input)
            case TurnJudged():
                self._listening.judged(input)
            case WordsHeard():
                self._anticipate(input.item_id, self._transcribing.words_heard(input))
            case TranscriptDelta() | TranscriptSegment() | TranscriptEnded() | TranscriptFailed():
                self._transcribing.take(input)
            case PlaybackStarted():
                self._playback.started(input)
            case PlaybackDrained():
                self._playback.drained(input)
            case McpToolsListed() | McpListFailed():
                self._toolbox.listed(input)
            case McpCallEnded():
                self._toolbox.called(input)
                self._answering.mcp_call_ended(input)
            case _:
                self._answering.report(input)

    def _client(self, event: ev.ClientEvent) -> None:
        match event:
            case ev.SessionUpdate():
                self._updating.update(event.session)
            case ev.InputAudioBufferCommit():
                self._adoption.require_room()
                self._listening.commit()
                self._stay(None)
            case ev.InputAudioBufferClear():
                self._listening.clear()
            case ev.OutputAudioBufferClear() if self._given.player is not None:
                self._clear_playback()
            case ev.ConversationItemCreate():
                self._editing.create(event)
            case ev.ConversationItemDelete():
                self._editing.delete(event.item_id)
            case ev.ConversationItemRetrieve():
                self._editing.retrieve(event.item_id)
            case ev.ConversationItemTruncate():
                self._editing.truncate(event)
                if self._listening.open_item_id is not None:  # the client stops playing because the user speaks
                    self._answering.cut_off()
            case ev.ResponseCreate():
                self._create_response(given(event.response, ev.ResponseParams()))
            case ev.ResponseCancel():
                self._answering.cancel_by_client(given(event.response_id, None))
            case _:
                raise invalid("type", f"Invalid value: '{event.type}'. It means nothing on this connection.")

    # --- out ----------------------------------------------------------------------------------------------------------

    def _send(self, event: ev.AnyServerEvent) -> None:
        event = self._stopwatch.sent(structs.replace(event, event_id=self._desk.new_id("event")), self._now_ms)
        self.conversation.apply(event)
        self._effects.append(Send(event))

    def _effects_append(self, effect: Effect) -> None:
        if type(effect) not in LOOKS and self._speculation.was_asked(effect):
            return
        if type(effect) in TOLD:
            self._stopwatch.asked(effect, self._now_ms)
        self._effects.append(effect)

    def _end(self, close_code: int, code: str, reason: str) -> None:
        """End the session for a reason that the client is told by name."""
        self._answering.fail_all(code, reason)
        self._send(Refused(code, reason).told(None))
        self._close(close_code, reason)

    def _close(self, code: int, reason: str) -> None:
        self._effects.append(Close(code, reason))
        self._be_over()

    def _be_over(self) -> None:
        """Nothing is handled any more."""
        self._stopwatch.flush()
        self.is_closed = True

    def _settle(self) -> None:
        """After inputs that may end something: forget what is done, and leave when that was all to wait for."""
        for run in self._answering.forget_done():
            self._editing.forget_heard(*run.own_audio_ids)
        bill = self._given.bill
        if self.is_closed:
            return
        if bill.is_exhausted:
            self._end(POLICY, "budget_exceeded", f"The session has cost its budget of {bill.budget:g}.")
        elif self._is_draining and not len(self._answering) and not self._playback.is_busy:
            self._close(GOING_AWAY, "The server is stopping.")

    # --- the session itself -------------------------------------------------------------------------------------------

    @property
    def config(self) -> SessionResource:
        """The configuration in force."""
        return self._updating.config

    @property
    def state(self) -> str:
        """What it is doing: `hearing` the user, `answering`, `speaking` what is played by the server, or `idle`."""
        if self._listening.open_item_id is not None:
            return "hearing"
        if len(self._answering):
            return "answering"
        return "speaking" if self._playback.is_busy else "idle"

    @property
    def heard_ms(self) -> int:
        """How much audio has come from the client."""
        return ms_of(self._listening.end)

    @property
    def spoken_ms(self) -> int:
        """How much speech its client was sent."""
        return ms_of(self._stopwatch.spoken)

    @property
    def responding(self) -> str | None:
        """The running response of the default conversation, by its id."""
        return None if (current := self._answering.current) is None else current.id

    @property
    def bill(self) -> Bill:
        """What the session has cost so far."""
        return self._given.bill

    def _open(self) -> None:
        self._ends_at_ms = self._now_ms + self.limits.session_ms_max
        self._send(ev.SessionCreated(session=self.config))
        if self._desk.is_conversation:
            resource = ev.ConversationResource(id=self._desk.conversation_id, object="realtime.conversation")
            self._send(ev.ConversationCreated(conversation=resource))
        self._updating.open()

    def _wake_up(self) -> None:
        if self._ends_at_ms is not None and self._now_ms >= self._ends_at_ms:
            self._end(
                GOING_AWAY,
                "session_expired",
                f"Your session hit the maximum duration of {self.limits.session_duration}.",
            )
            return
        if self._idle_at_ms is not None and self._now_ms >= self._idle_at_ms:
            self._time_out()
        self._answering.fail_silent()

    # --- turns --------------------------------------------------------------------------------------------------------

    def _turn_started(self) -> None:
        self._stay(None)
        run, detection = self._answering.current, given(cfg.audio_input(self.config).turn_detection, None)
        assert detection is not None
        if given(detection.interrupt_response, True):
            if self._playback.clear(None if run is None else run.id):
                self._answering.cut_off()
            if run is not None:
                self._answering.cancel(run, "turn_detected")
        self._anticipate(self._listening.open_item_id, "")

    def _fell_silent(self, item_id: str, audio: bytes) -> None:
        if self._is_to_answer:
            self._speculation.begin(item_id, audio)

    def _anticipate(self, item_id: str | None, words: str | None) -> None:
        if item_id is not None and words is not None and self._desk.is_conversation and not self._is_draining:
            self._speculation.anticipate(item_id, words)

    def _resumed(self) -> None:
        self._speculation.drop()

    def _turn_ended(self) -> None:
        self._answer_turn(is_automatic=True)
        self._speculation.release(self._take)

    def _spoken_language(self) -> str | None:
        wanted = given(cfg.audio_input(self.config).transcription, None)
        return None if wanted is None else given(wanted.language, None)

    @property
    def _is_to_answer(self) -> bool:
        """Whether the client leaves answers to us: `create_response`, which counts for silence (T15) as for speech."""
        detection = given(cfg.audio_input(self.config).turn_detection, None)
        assert detection is not None
        return not self._is_draining and self._desk.is_conversation and given(detection.create_response, True)

    def _answer_turn(self, *, is_automatic: bool) -> None:
        if not self._is_to_answer:
            return
        try:
            self._answering.start(ev.ResponseParams(), is_automatic=is_automatic, plan=self._speculation.plan())
        except Refused as refused:
            self._send(refused.told(None))  # the turn stands; only its automatic answer is refused (§4.4 T7)

    def _stay(self, response: RunningResponse | None) -> None:
        """Wait for the user to say something after this response, for as long as `idle_timeout_ms` says; or do not."""
        timeout_ms = cfg.idle_timeout_ms(cfg.audio_input(self.config))
        if response is None or timeout_ms is None or self._listening.open_item_id is not None:
            self._idle_at_ms = None
            self._listening.keep_quiet_audio(None)
            return
        self._idle_at_ms = self._now_ms + response.audio_ms + timeout_ms
        self._listening.keep_quiet_audio(timeout_ms)

    def _time_out(self) -> None:
        timeout_ms = cfg.idle_timeout_ms(cfg.audio_input(self.config))
        assert timeout_ms is not None
        self._stay(None)
        if not self._is_draining:
            self._listening.time_out(timeout_ms)
            silence = self._desk.hearing.get(self.conversation.last_item_id or "")
            if silence is not None:
                silence.is_silence = True
            self._answer_turn(is_automatic=False)

    def _commit_audio(self, item_id: str, audio: bytes) -> None:
        previous = self.conversation.last_item_id
        self._send(ev.InputAudioBufferCommitted(item_id=item_id, previous_item_id=previous))
        self._desk.announce(spoken_item(item_id), previous)
        self._stopwatch.transcribing(item_id, self._speculation.source_of(item_id))
        self._transcribing.transcribe(item_id, InputAudio(audio=audio))

    def _is_spoken_for(self, item_id: str) -> bool:
        """Whether an id is taken, though not in the conversation: by a response's own context or the open turn."""
        return self._desk.hearing.get(item_id) is not None or item_id == self._listening.next_item_id

    # --- responses ----------------------------------------------------------------------------------------------------

    def _create_response(self, params: ev.ResponseParams) -> None:
        if not self._desk.is_conversation:
            raise invalid("type", "Invalid value: 'response.create'. A transcription session has no responses.")
        if self._is_draining:
            raise Refused("server_stopping", "The server is stopping; no new response is begun.")
        self._answering.start(params, is_automatic=False)
        if self._answering.current is not None:
            self._stay(None)

    def _clear_playback(self) -> None:
        run = self._answering.current
        if run is None or not run.audio_ms:  # of a response that was not heard yet nothing is cleared
            self._playback.clear_by_client(None)
        else:
            self._playback.clear_by_client(run.id)
            run.hush()

    def _response_done(self, run: RunningResponse, usage: Usage) -> None:
        self._given.bill.add(usage)
        self._playback.settle()
        if run.terms.in_conversation:
            self._stay(run)
