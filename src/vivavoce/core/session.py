"""The session machine, server side: one door in, a list of effects out (reference §3, §4, §5).

`handle(input, now_ms)` takes one input and returns what is to be done about it; `deadline()` names the next wake-up.
Invariants: state that the client can see changes only in `_send`, so the conversation is the fold of what was sent; a
client's mistake has no partial effect and ends nothing; reports for what is over are dropped in one place (`_report`).
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UnsetType, given
from vivavoce.protocol.config import FunctionTool, RealtimeSessionResource, ServerVad, Transcription, Voice
from vivavoce.protocol.items import InputAudio, Item, Message, OutputAudio

from . import configuration as cfg
from .adoption import Adopted, Adoption
from .context import as_heard, is_final, with_audio
from .conversation import Conversation, Entry, format_of
from .hearing import Hearing
from .limits import Limits
from .listening import Ear, Listening
from .messages import (
    AudioSynthesized,
    CallArguments,
    CallStarted,
    Cancel,
    Close,
    Drain,
    Effect,
    Generate,
    GenerationEnded,
    GenerationFailed,
    Input,
    Opened,
    PhraseSpoken,
    Send,
    SpeechScored,
    SynthesisFailed,
    TextGenerated,
    Transcribe,
    TranscriptDelta,
    TranscriptEnded,
    TranscriptFailed,
    WakeUp,
)
from .refused import Refused, invalid
from .response import Outlet, RunningResponse, Said
from .terms import terms
from .turns import TurnSettings

USER_AUDIO_TOKEN_MS = 100
"""User audio counts one token for this much (reference §6.3)."""


class Session:
    """One conversation session. `ids(prefix)` gives fresh ids and is the only source of them."""

    def __init__(
        self,
        *,
        id: str,
        model: str,
        ids: Callable[[str], str],
        expires_at: int,
        limits: Limits | None = None,
        instructions: str = cfg.INSTRUCTIONS,
    ) -> None:
        self.limits = limits or Limits()
        self.conversation = Conversation(self.limits)
        self.is_closed = False
        self._initial = cfg.initial(id=id, model=model, expires_at=expires_at, instructions=instructions)
        self._ids = ids
        self._conversation_id = ids("conv")
        self._effects: list[Effect] = []
        self._now_ms = 0
        self._ends_at_ms: int | None = None
        self._is_draining = False
        self._listening = Listening(
            format_of(cfg.audio_input(self._initial).format),
            self.limits,
            Ear(self._send, self._ask, ids, self._turn_started, self._commit_audio, self._turn_ended),
        )
        self._hearing = Hearing(self.limits.audio_bytes_max)
        self._runs: dict[str, RunningResponse] = {}
        self._said: dict[str, Said] = {}
        self._adoption = Adoption(self.conversation, self.limits, ids, self._is_spoken_for)
        self._spoken_voice: Voice | None = None
        self._outlet = Outlet(
            send=self._send,
            ask=self._ask,
            new_id=ids,
            previous_item_id=self.conversation.previous_item_id,
            last_item_id=lambda: self.conversation.last_item_id,
            said=self._said,
        )

    # --- the door -----------------------------------------------------------------------------------------------------

    def handle(self, input: Input, now_ms: int) -> list[Effect]:
        """Take one input at a time that never goes back; return what is to be done, in order."""
        if self.is_closed:
            return []
        self._now_ms = now_ms
        try:
            self._take(input)
        except Refused as refused:
            self._refuse(refused, given(input.event_id, None) if isinstance(input, ev.ClientEvent) else None)
        self._settle()
        effects, self._effects = self._effects, []
        return effects

    def deadline(self) -> int | None:
        """When to hand in a `WakeUp`, on the same clock as `now_ms`; None when nothing is due."""
        if self.is_closed or self._ends_at_ms is None:
            return None
        silences = (run.heard_at_ms + self.limits.engine_silence_ms_max for run in self._runs.values())
        return min([self._ends_at_ms, *silences])

    def _take(self, input: Input) -> None:
        match input:
            case ev.InputAudioBufferAppend():
                self._listening.append(input.audio)
            case ev.ClientEvent():
                self._client(input)
            case ev.ErrorDetail():
                self._send(ev.ErrorEvent(error=input))
            case Opened():
                self._open()
            case WakeUp():
                self._wake_up()
            case Drain():
                self._is_draining = True
            case _:
                self._report(input)

    def _client(self, event: ev.ClientEvent) -> None:
        match event:
            case ev.SessionUpdate():
                self._update(event)
            case ev.InputAudioBufferCommit():
                self._adoption.require_room()
                self._listening.commit()
            case ev.InputAudioBufferClear():
                self._listening.clear()
            case ev.ConversationItemCreate():
                self._create_item(event)
            case ev.ConversationItemDelete():
                self._delete_item(event.item_id)
            case ev.ConversationItemRetrieve():
                self._retrieve_item(event.item_id)
            case ev.ConversationItemTruncate():
                self._truncate_item(event)
            case ev.ResponseCreate():
                self._create_response(event)
            case ev.ResponseCancel():
                self._cancel_response(given(event.response_id, None))
            case _:
                raise invalid("type", f"Invalid value: '{event.type}'. It means nothing on this connection.")

    # --- out ----------------------------------------------------------------------------------------------------------

    def _send(self, event: ev.AnyServerEvent) -> None:
        event = structs.replace(event, event_id=self._ids("event"))
        self.conversation.apply(event)
        self._effects.append(Send(event))

    def _ask(self, effect: Effect) -> None:
        self._effects.append(effect)

    def _refuse(self, refused: Refused, event_id: str | None) -> None:
        detail = ev.ErrorDetail(
            type="invalid_request_error",
            code=refused.code,
            message=refused.message,
            param=refused.param,
            event_id=event_id,
        )
        self._send(ev.ErrorEvent(error=detail))

    def _close(self, code: int, reason: str) -> None:
        for run in self._runs.values():
            if not run.done:
                self._ask(Cancel(run.id))
        self._runs.clear()
        self._ask(Close(code, reason))
        self.is_closed = True

    def _settle(self) -> None:
        """After every input: forget what is done, and leave when that was the last thing to wait for."""
        for run in [run for run in self._runs.values() if run.done]:
            del self._runs[run.id]
            self._forget_heard(*run.own_audio_ids)
        if self._is_draining and not self._runs and not self.is_closed:
            self._close(1001, "The server is stopping.")

    # --- the session itself -------------------------------------------------------------------------------------------

    @property
    def config(self) -> RealtimeSessionResource:
        """The configuration in force."""
        current = self.conversation.session
        return current if isinstance(current, RealtimeSessionResource) else self._initial

    @property
    def _detection(self) -> ServerVad | None:
        detection = given(cfg.audio_input(self.config).turn_detection, None)
        return detection if isinstance(detection, ServerVad) else None

    @property
    def _turn_settings(self) -> TurnSettings | None:
        return cfg.turn_settings(self._detection) if self._detection else None

    def _open(self) -> None:
        self._ends_at_ms = self._now_ms + self.limits.session_ms_max
        self._send(ev.SessionCreated(session=self._initial))
        resource = ev.ConversationResource(id=self._conversation_id, object="realtime.conversation")
        self._send(ev.ConversationCreated(conversation=resource))
        self._listening.begin(self._turn_settings)

    def _wake_up(self) -> None:
        if self._ends_at_ms is not None and self._now_ms >= self._ends_at_ms:
            minutes = self.limits.session_ms_max // 60_000
            reason = f"Your session hit the maximum duration of {minutes} minutes."
            for run in self._runs.values():
                self._fail(run, "session_expired", reason)
            detail = ev.ErrorDetail(type="invalid_request_error", code="session_expired", message=reason)
            self._send(ev.ErrorEvent(error=detail))
            self._close(1001, reason)
            return
        for run in self._runs.values():
            if self._now_ms - run.heard_at_ms >= self.limits.engine_silence_ms_max:
                self._fail(run, "engine_timeout", "The engines have been silent for too long.")

    def _update(self, event: ev.SessionUpdate) -> None:
        before = self.config
        after = cfg.updated(before, event.session, spoken_voice=self._spoken_voice, is_responding=bool(self._runs))
        format = format_of(cfg.audio_input(after).format)
        if format != self._listening.format and self._listening.holds_audio_to_keep:
            raise invalid(
                "session.audio.input.format",
                "The input audio buffer holds audio in another format; commit or clear it first.",
            )
        self._send(ev.SessionUpdated(session=after))
        if format != self._listening.format:
            self._listening.change_format(format, self._turn_settings)
        elif cfg.audio_input(after).turn_detection != cfg.audio_input(before).turn_detection:
            self._listening.change(self._turn_settings)

    # --- turns --------------------------------------------------------------------------------------------------------

    def _turn_started(self) -> None:
        run, detection = self._default_run, self._detection
        if run is not None and detection is not None and given(detection.interrupt_response, True):
            self._cancel(run, "turn_detected")

    def _turn_ended(self) -> None:
        detection = self._detection
        if detection is None or not given(detection.create_response, True) or self._is_draining:
            return
        try:
            self._start_response(ev.ResponseParams(), is_automatic=True)
        except Refused as refused:
            self._refuse(refused, None)  # the turn stands; only its automatic answer is refused (§4.4 T7)

    def _commit_audio(self, item_id: str, audio: bytes) -> None:
        previous = self.conversation.last_item_id
        item = Message(
            id=item_id,
            object="realtime.item",
            status="completed",
            role="user",
            content=(InputAudio(transcript=None),),
        )
        self._send(ev.InputAudioBufferCommitted(item_id=item_id, previous_item_id=previous))
        self._announce(item, previous)
        self._transcribe(item_id, InputAudio(audio=audio))

    # --- transcripts --------------------------------------------------------------------------------------------------

    def _transcribe(self, item_id: str, part: InputAudio, content_index: int = 0) -> None:
        wanted, audio = given(cfg.audio_input(self.config).transcription, None), given(part.audio, None) or b""
        heard = self._hearing.begin(
            item_id,
            audio,
            self._listening.format,
            content_index=content_index,
            transcript=given(part.transcript, None),
            is_told=wanted is not None,
        )
        if not heard.is_pending:
            return
        hints = wanted or Transcription()
        self._ask(Transcribe(item_id, audio, heard.format, given(hints.language, None), given(hints.prompt, None)))

    def _transcript(self, report: TranscriptDelta | TranscriptEnded | TranscriptFailed) -> None:
        known = self._hearing.pending(report.item_id)
        if known is None:
            return
        match report:
            case TranscriptDelta():
                known.pieces.append(report.text)
            case TranscriptEnded():
                known.is_pending = False
            case TranscriptFailed():
                known.is_pending, known.failure = False, report
        if known.is_told:
            self._send(known.told(report))
        for run in list(self._runs.values()):
            if not run.generating:
                run.heard_at_ms = self._now_ms
                self._generate(run)

    # --- items --------------------------------------------------------------------------------------------------------

    def _announce(self, item: Item, previous: str | None) -> None:
        self._send(ev.ConversationItemAdded(item=item, previous_item_id=previous))
        self._send(ev.ConversationItemDone(item=item, previous_item_id=previous))

    def _create_item(self, event: ev.ConversationItemCreate) -> None:
        adopted = self._adoption.item(event.item)
        previous = given(event.previous_item_id, None) or self.conversation.last_item_id
        if previous == "root":
            previous = None
        elif previous is not None and previous not in self.conversation:
            raise Refused(
                "item_create_invalid_previous_item_id",
                f"Error adding item: the previous item with id '{previous}' does not exist.",
            )
        self._adoption.keep(adopted)
        self._announce(adopted.item, previous)
        self._listen_to(adopted)

    def _is_spoken_for(self, item_id: str) -> bool:
        """Whether an id is taken, though not in the conversation: by a response's own context or the open turn."""
        return self._hearing.get(item_id) is not None or item_id == self._listening.open_item_id

    def _listen_to(self, adopted: Adopted) -> None:
        """An item that came with audio is transcribed, unless it came with its transcript."""
        if adopted.audio is not None:
            self._transcribe(adopted.id, adopted.audio, adopted.audio_index)

    def _find(self, item_id: str, doing: str, code: str) -> Entry:
        entry = self.conversation.entry(item_id) if item_id in self.conversation else None
        if entry is None:
            raise Refused(code, f"Error {doing} item: the item with id '{item_id}' does not exist.")
        return entry

    def _delete_item(self, item_id: str) -> None:
        item = self._find(item_id, "deleting", "item_delete_invalid_item_id").item
        if not is_final(item):
            raise invalid("item_id", f"The item '{item_id}' is still being generated; cancel its response first.")
        self._send(ev.ConversationItemDeleted(item_id=item_id))
        self._said.pop(item_id, None)
        self._adoption.forget(item_id)
        if self._forget_heard(item_id):
            for run in list(self._runs.values()):
                self._generate(run)

    def _forget_heard(self, *item_ids: str) -> bool:
        """These items are gone: their audio too, and their transcription where it goes on. Says whether one did."""
        pending = [item_id for item_id in item_ids if self._hearing.forget(item_id)]
        for item_id in pending:
            self._ask(Cancel(item_id))
        return bool(pending)

    def _retrieve_item(self, item_id: str) -> None:
        entry = self._find(item_id, "retrieving", "item_retrieve_invalid_item_id")
        known, item = self._hearing.get(item_id), entry.item
        if audio := known.audio if known else bytes(entry.audio):
            item = with_audio(item, audio)
        self._send(ev.ConversationItemRetrieved(item=item))

    def _truncate_item(self, event: ev.ConversationItemTruncate) -> None:
        entry = self._find(event.item_id, "truncating", "item_truncate_invalid_item_id")
        item = entry.item
        parts = item.content if isinstance(item, Message) and item.role == "assistant" else ()
        if event.content_index >= len(parts) or not isinstance(parts[event.content_index], OutputAudio):
            raise Refused("unsupported_content_type", "Only model output audio messages can be truncated.")
        if event.audio_end_ms > entry.audio_ms:
            raise invalid(
                "audio_end_ms",
                f"Audio content of {entry.audio_ms}ms is already shorter than {event.audio_end_ms}ms",
            )
        self._send(
            ev.ConversationItemTruncated(
                item_id=event.item_id, content_index=event.content_index, audio_end_ms=event.audio_end_ms
            )
        )

    # --- responses ----------------------------------------------------------------------------------------------------

    @property
    def _default_run(self) -> RunningResponse | None:
        return next((run for run in self._runs.values() if run.terms.in_conversation and not run.done), None)

    def _create_response(self, event: ev.ResponseCreate) -> None:
        if self._is_draining:
            raise Refused("server_stopping", "The server is stopping; no new response is begun.")
        self._start_response(given(event.response, ev.ResponseParams()), is_automatic=False)

    def _start_response(self, params: ev.ResponseParams, *, is_automatic: bool) -> None:
        in_conversation = given(params.conversation, "auto") == "auto"
        if in_conversation and (active := self._default_run) is not None:
            raise Refused(
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {active.id}. "
                "Wait until the response is finished before creating a new one.",
            )
        if len(self._runs) >= self.limits.responses_max:
            raise Refused("too_many_responses", f"At most {self.limits.responses_max} responses run at once.")
        given_items = None if isinstance(params.input, UnsetType) else self._adoption.context(params.input)
        context = None if given_items is None else tuple(one.item for one in given_items)
        settled = terms(params, self.config, context, self._spoken_voice)
        run = RunningResponse(
            self._ids("resp"),
            settled,
            self._conversation_id,
            self._outlet,
            is_automatic=is_automatic,
            now_ms=self._now_ms,
        )
        self._runs[run.id] = run
        run.own_audio_ids = tuple(one.id for one in given_items or () if one.audio is not None)
        for adopted in given_items or ():
            self._listen_to(adopted)
        run.begin()
        self._generate(run)

    def _generate(self, run: RunningResponse) -> None:
        """Ask the language model, once every transcript that it needs is there."""
        if run.generating or run.done:
            return
        items = self.conversation if run.terms.input is None else run.terms.input
        context = tuple(item for item in items if is_final(item))
        heard_items = [known for item in context if (known := self._hearing.get(given(item.id, "")))]
        if any(known.is_pending for known in heard_items):
            return
        last = self._hearing.get(given(context[-1].id, "")) if context else None
        if last is not None and last.failure is not None:
            self._fail(run, last.failure.code, last.failure.message)
            return
        if run.is_automatic and last is not None and not last.transcript:
            run.complete()  # a noise that the detector took for speech: there is nothing to answer
            return
        run.generating, run.heard_at_ms = True, self._now_ms
        run.input_audio_tokens = sum(-(-known.ms // USER_AUDIO_TOKEN_MS) for known in heard_items)
        limit = run.terms.max_output_tokens
        self._ask(
            Generate(
                run.id,
                run.terms.instructions,
                as_heard(context, self._hearing, self._said, self.conversation),
                tuple(tool for tool in run.terms.tools if isinstance(tool, FunctionTool)),
                run.terms.tool_choice,
                None if limit == "inf" else limit,
            )
        )

    def _cancel_response(self, response_id: str | None) -> None:
        run = self._default_run if response_id is None else self._runs.get(response_id)
        if run is None or run.done:
            raise Refused("response_cancel_not_active", "Cancellation failed: no active response found")
        self._cancel(run, "client_cancelled")

    def _cancel(self, run: RunningResponse, reason: str) -> None:
        self._ask(Cancel(run.id))
        run.cancel(reason)

    def _fail(self, run: RunningResponse, code: str, message: str) -> None:
        if run.done:
            return
        self._ask(Cancel(run.id))
        run.fail(code, message)

    # --- engine reports -----------------------------------------------------------------------------------------------

    def _report(self, report: Input) -> None:
        """What an engine says; dropped where that which it serves is over."""
        match report:
            case SpeechScored():
                self._listening.score(report)
            case TranscriptDelta() | TranscriptEnded() | TranscriptFailed():
                self._transcript(report)
            case (
                TextGenerated()
                | CallStarted()
                | CallArguments()
                | GenerationEnded()
                | GenerationFailed()
                | AudioSynthesized()
                | PhraseSpoken()
                | SynthesisFailed()
            ):
                run = self._runs.get(report.response_id)
                if run is not None and run.generating and not run.done:
                    run.heard_at_ms = self._now_ms
                    self._answer(run, report)

    def _answer(self, run: RunningResponse, report: Input) -> None:
        match report:
            case AudioSynthesized():
                if self._spoken_voice is None and run.terms.in_conversation:
                    self._spoken_voice = run.terms.voice
                run.take_audio(report.item_id, report.audio)
            case PhraseSpoken():
                run.phrase_spoken(report.item_id, report.phrase)
            case GenerationFailed() | SynthesisFailed():
                self._fail(run, report.code, report.message)
            case TextGenerated() | CallArguments():
                run.chars += len(report.text)
                if run.chars > self.limits.response_chars_max:
                    self._fail(run, "response_too_long", f"It has over {self.limits.response_chars_max} characters.")
                else:
                    run.take(report)
            case CallStarted() | GenerationEnded():
                run.take(report)
