"""Any client, any engines, in any order: the session machine keeps the rules of the protocol (reference §9.2).

One `Rehearsal` plays the engines and leaves it to hypothesis which report comes next, which engine fails, which report
comes too late. A `Referee` watches what is sent; two replicas fold it, one through each dialect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs
from stateful_world import (
    BESIDE,
    CLOSE_OUT,
    LIMITS,
    SUCCESS,
    Replica,
    check_buffers,
    pipeline,
    surroundings,
    types_sent,
    wanted_ids,
)

from vivavoce.core.conversation import Conversation
from vivavoce.core.messages import (
    AudioSynthesized,
    CallArguments,
    CallStarted,
    Drain,
    Effect,
    EngineReport,
    GenerationEnded,
    GenerationFailed,
    NoiseReduced,
    Opened,
    PhraseSpoken,
    Send,
    Speak,
    SpeechScored,
    SynthesisFailed,
    TextGenerated,
    TranscriptDelta,
    TranscriptEnded,
    TranscriptFailed,
)
from vivavoce.core.session import Session
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, given
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputItem,
    InputText,
    Item,
    ItemReference,
    McpApprovalRequest,
    McpApprovalResponse,
    Message,
    OutputAudio,
    OutputText,
)
from vivavoce.testing.matching import brief
from vivavoce.testing.playbook import Moment, counting_ids
from vivavoce.testing.real_time_player import RealTimePlayer
from vivavoce.testing.referee import Referee
from vivavoce.testing.rehearsal import DETECTION, PLAYBACK, Rehearsal
from vivavoce.testing.sounds import silence, tone

TEXTS = (
    "hello",
    "One two three. Four five six.",
    'call look {"at": [1, 2]}',
    'First say so, then call look {"at": [1, 2]}',
    'call a {} call b {"x": 1}',
    "",
)
LONG_TEXT = "word " * 40
CALLS = (
    'call look_up {"what": "x"}',
    'First look, then call look_up {} call write_down {"what": "y"}',
    "call break_down {} call look {}",
)
LOGPROBS: Literal["item.input_audio_transcription.logprobs"] = "item.input_audio_transcription.logprobs"


class SessionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.referee = Referee()
        self.events = 0
        self.clock = 0
        self.draining = False
        self.asked_to_speak: dict[str, list[str]] = {}
        self.fallen_silent: set[str] = set()

    def witness(self, moment: Moment) -> None:
        match moment.message:
            case Send(event=event):
                self.referee.server(event)
                for replica in self.replicas.values():
                    replica.take(event)
                if isinstance(event, ev.ResponseOutputItemDone):
                    self.all_was_spoken(event.item)
            case SynthesisFailed(item_id=item_id):
                self.fallen_silent.add(item_id)
            case Speak(item_id=item_id, text=text):
                self.asked_to_speak.setdefault(item_id, []).append(text)

    def all_was_spoken(self, item: Item) -> None:
        """Unless the client cut it off, or the voice failed: then the rest is text alone."""
        item_id = given(getattr(item, "id", ""), "")
        entry = self.conversation.entry(item_id)
        if item_id in self.fallen_silent or (entry is not None and entry.truncated):
            return
        if isinstance(item, Message) and item.status == "completed" and isinstance(item.content[0], OutputAudio):
            said = "".join(self.asked_to_speak.get(item_id, []))
            assert said.strip() == (given(item.content[0].transcript, "") or "").strip()

    @property
    def conversation(self) -> Conversation:
        return self.session.conversation

    def known_id(self, data: st.DataObject, extra: tuple[str, ...] = ("item_unknown",)) -> str:
        return data.draw(st.sampled_from([*self.conversation.item_ids, *extra]))

    # --- what a client says -------------------------------------------------------------------------------------------

    def say(self, event: ev.ClientEvent) -> list[Effect]:
        """Every client event has its success events, or one error and no other effect, or (append) nothing."""
        self.events += 1
        event = structs.replace(event, event_id=f"client_{self.events}")
        before = self.snapshot()
        closed = self.session.is_closed
        effects = self.rehearsal.say(event)  # type: ignore[arg-type]
        types = types_sent(effects)
        if closed:
            assert effects == []
        elif self.session.is_closed:
            assert self.draining or types[-1] == "error"  # it was the last to wait for, or cost the rest of the budget
        elif types[:1] == ["error"]:
            assert len(effects) == 1, brief(effects)
            error = effects[0].event.error  # type: ignore[union-attr]
            assert error.event_id == event.event_id
            assert self.snapshot() == before, "a refused event must have no effect"
        elif isinstance(event, ev.ResponseCancel):
            assert "response.done" in types
            assert set(types) <= CLOSE_OUT
        else:
            if isinstance(event, ev.OutputAudioBufferClear) and types[0] == "output_audio_buffer.started":
                del types[0]  # the player had not yet said that it began
            expected = SUCCESS[type(event)]
            assert types[: len(expected)] == expected, types
            beside = {"response.done", "rate_limits.updated"} | BESIDE.get(type(event), set())
            # Other turn detection may decide at once on what was heard already.
            assert isinstance(event, ev.SessionUpdate) or set(types[len(expected) :]) <= beside, types
        return effects

    def snapshot(self) -> object:
        conversation = self.conversation
        audio = [(item_id, self.entry_audio(item_id)) for item_id in conversation.item_ids]
        held = self.session._listening._audio
        return (conversation.items, conversation.responses, conversation.session, audio, held.start, held.end)

    def entry_audio(self, item_id: str) -> tuple[bytes, int]:
        entry = self.conversation.entry(item_id)
        assert entry is not None
        return bytes(entry.audio), entry.audio_bytes

    @initialize(
        told=st.booleans(),
        silence_ms=st.sampled_from([100, 300]),
        interrupt=st.booleans(),
        kind=st.sampled_from(["in both dialects", "with tools", "with tools", "played", "transcription"]),
        context_tokens=st.sampled_from([32_000, 32_000, 120]),
        is_limited=st.booleans(),
        budget=st.sampled_from([None, None, None, 30.0]),
    )
    def open(  # type: ignore[no-untyped-def]
        self, told, silence_ms, interrupt, kind, context_tokens, is_limited, budget
    ) -> None:
        self.kind = kind
        self.replicas = {name: Replica(name) for name in (("ga", "beta") if kind == "in both dialects" else ("ga",))}
        engines, player = pipeline(context_tokens), RealTimePlayer() if kind == "played" else None
        self.session = Session(
            id="sess_1",
            model="scripted",
            ids=counting_ids(),
            expires_at=0,
            limits=LIMITS,
            configured=cfg.TranscriptionSession() if kind == "transcription" else None,
            surroundings=surroundings(engines, player=player, is_limited=is_limited, budget=budget),
        )
        self.rehearsal = Rehearsal(self.session, engines, witness=self.witness, player=player)
        begins = ["session.created"] if kind == "transcription" else ["session.created", "conversation.created"]
        assert types_sent(self.rehearsal.say(Opened())) == begins
        detection = cfg.ServerVad(silence_duration_ms=silence_ms, interrupt_response=interrupt)
        transcription = cfg.Transcription(model="scripted") if told else None
        self.listen(cfg.AudioInput(turn_detection=detection, transcription=transcription))

    def listen(self, into: cfg.AudioInput) -> None:
        if self.kind == "transcription":
            audio = cfg.TranscriptionAudioConfig(input=into)
            self.say(ev.SessionUpdate(session=cfg.TranscriptionSession(audio=audio)))
        else:
            self.say(ev.SessionUpdate(session=cfg.RealtimeSession(audio=cfg.AudioConfig(input=into))))

    @property
    def is_only_ga(self) -> bool:
        return "beta" not in self.replicas

    # Whole turns, because single steps seldom add up to one.

    @rule(ms=st.sampled_from([200, 700]), heard=st.booleans())
    def speak_a_turn(self, ms: int, heard: bool) -> None:
        self.say(ev.InputAudioBufferAppend(audio=tone(ms) + silence(400)))
        while heard and DETECTION in self.rehearsal.streams:
            self.rehearsal.deliver(DETECTION)

    @rule(text=st.sampled_from([*TEXTS, LONG_TEXT]), reports=st.sampled_from([0, 3, 8, 30]))
    def ask(self, text: str, reports: int) -> None:
        self.say(ev.ConversationItemCreate(item=Message(role="user", content=(InputText(text=text),))))
        self.say(ev.ResponseCreate())
        for _ in range(reports):
            if self.speakers:
                self.rehearsal.deliver(self.speakers[-1])

    @rule()
    def answer_the_call(self) -> None:
        calls = [given(item.call_id, "") for item in self.conversation if isinstance(item, FunctionCall)]
        if calls:
            self.say(ev.ConversationItemCreate(item=FunctionCallOutput(call_id=calls[-1], output="{}")))
            self.say(ev.ResponseCreate())

    @rule(loud=st.booleans(), ms=st.sampled_from([0, 20, 90, 200, 700, 2_500]))
    def append(self, loud: bool, ms: int) -> None:
        audio = tone(ms) if loud else silence(ms)
        self.say(ev.InputAudioBufferAppend(audio=audio))

    @rule()
    def append_half_a_sample(self) -> None:
        self.say(ev.InputAudioBufferAppend(audio=b"\x01"))

    @rule()
    def commit(self) -> None:
        self.say(ev.InputAudioBufferCommit())

    @rule()
    def clear(self) -> None:
        self.say(ev.InputAudioBufferClear())

    @rule(text=st.sampled_from([*TEXTS, LONG_TEXT]), data=st.data())
    def create_item(self, text: str, data: st.DataObject) -> None:
        items = self.possible_items(text)
        item = items[data.draw(st.sampled_from(sorted(items)))]
        item = structs.replace(item, id=data.draw(st.sampled_from([UNSET, UNSET, "mine", "yours"])))
        previous = data.draw(st.sampled_from([UNSET, None, "", "root", "item_unknown", *self.conversation.item_ids]))
        before = self.conversation.item_ids
        effects = self.say(ev.ConversationItemCreate(item=item, previous_item_id=previous))
        if not effects or "error" in types_sent(effects):
            assert self.conversation.item_ids == before
            return
        assert len(before) < LIMITS.items_max
        index = 0 if previous == "root" else before.index(previous) + 1 if previous else len(before)
        created = effects[0].event.item.id  # type: ignore[union-attr]
        assert self.conversation.item_ids == (*before[:index], created, *before[index:])

    def possible_items(self, text: str) -> dict[str, Item]:
        calls = [item.call_id for item in self.conversation if isinstance(item, FunctionCall)]
        call_id = given(calls[-1], "") if calls else "call_unknown"
        return {
            "text": Message(role="user", content=(InputText(text=text),)),
            "audio": Message(role="user", content=(InputAudio(audio=tone(100)), InputText(text=text))),
            "audio and transcript": Message(role="user", content=(InputAudio(audio=b"", transcript=text),)),
            "nothing": Message(role="user", content=(InputAudio(),)),
            "system": Message(role="system", content=(InputText(text=text),)),
            "assistant": Message(role="assistant", content=(OutputText(text=text),)),
            "speech": Message(role="assistant", content=(OutputAudio(transcript=text),)),
            "call": FunctionCall(name="look", arguments="{}"),
            "output": FunctionCallOutput(call_id=call_id, output=text),
            "unknown output": FunctionCallOutput(call_id="call_unknown", output=text),
        }

    @rule(data=st.data())
    def delete_item(self, data: st.DataObject) -> None:
        item_id = self.known_id(data)
        effects = self.say(ev.ConversationItemDelete(item_id=item_id))
        assert (not effects or "error" in types_sent(effects)) or item_id not in self.conversation

    @rule(data=st.data())
    def retrieve_item(self, data: st.DataObject) -> None:
        self.say(ev.ConversationItemRetrieve(item_id=self.known_id(data)))

    @rule(end_ms=st.sampled_from([0, 50, 100, 300]))
    def truncate_what_was_said(self, end_ms: int) -> None:
        spoken = [item_id for item_id in self.conversation.item_ids if self.entry_audio(item_id)[1]]
        if spoken:
            self.say(ev.ConversationItemTruncate(item_id=spoken[-1], content_index=0, audio_end_ms=end_ms))

    @rule(data=st.data(), index=st.sampled_from([0, 0, 0, 1]), end_ms=st.sampled_from([0, 50, 100, 300, 100_000]))
    def truncate_item(self, data: st.DataObject, index: int, end_ms: int) -> None:
        item_id = self.known_id(data)
        self.say(ev.ConversationItemTruncate(item_id=item_id, content_index=index, audio_end_ms=end_ms))

    @rule(
        modality=st.sampled_from([UNSET, ("text",), ("audio",)]),
        tokens=st.sampled_from([UNSET, UNSET, 1, 3, "inf"]),
        choice=st.sampled_from([UNSET, UNSET, "none", "required", cfg.ToolChoiceFunction(name="look")]),
    )
    def create_response(self, modality: object, tokens: object, choice: object) -> None:
        params = ev.ResponseParams(
            output_modalities=modality, max_output_tokens=tokens, tool_choice=choice, tools=(TOOL,)
        )  # type: ignore[arg-type]
        self.say(ev.ResponseCreate(response=params))

    @rule()
    def create_plain_response(self) -> None:
        self.say(ev.ResponseCreate())

    @rule(data=st.data(), text=st.sampled_from(TEXTS), modality=st.sampled_from([("text",), ("audio",)]))
    def create_response_aside(self, data: st.DataObject, text: str, modality: tuple[str, ...]) -> None:
        choices: dict[str, InputItem] = {item_id: ItemReference(id=item_id) for item_id in self.conversation.item_ids}
        choices |= {"item_unknown": ItemReference(id="item_unknown"), **self.possible_items(text)}
        mine = structs.replace(choices["audio"], id="mine")
        choices["audio under my id"] = mine
        names = data.draw(st.lists(st.sampled_from(sorted(choices)), max_size=3))
        items = [choices[name] for name in names]
        params = ev.ResponseParams(
            conversation=data.draw(st.sampled_from(["none", "none", "auto"])),
            input=tuple(items) if data.draw(st.booleans()) else UNSET,
            output_modalities=modality,  # type: ignore[arg-type]
            metadata={"topic": "aside"},
        )
        self.say(ev.ResponseCreate(response=params))

    @rule(data=st.data())
    def cancel_response(self, data: st.DataObject) -> None:
        ids = [response.id for response in self.conversation.active_responses]
        self.say(ev.ResponseCancel(response_id=data.draw(st.sampled_from([UNSET, "resp_unknown", *ids]))))

    @rule()
    def clear_playback(self) -> None:
        effects = self.say(ev.OutputAudioBufferClear())
        assert self.session.is_closed or self.kind == "played" or types_sent(effects) == ["error"]

    @precondition(lambda self: self.is_only_ga)
    @rule(
        label=st.sampled_from(["notes", "notes", "lost"]),
        approval=st.sampled_from(["never", "always"]),
        text=st.sampled_from(CALLS),
        reports=st.sampled_from([0, 4, 30]),
    )
    def ask_for_a_tool(self, label: str, approval: Literal["never", "always"], text: str, reports: int) -> None:
        url = "https://unreachable.example" if label == "lost" else "https://notes.example"
        server = cfg.McpTool(server_label=label, server_url=url, require_approval=approval)
        self.say(ev.SessionUpdate(session=cfg.RealtimeSession(tools=(TOOL, server), tool_choice="auto")))
        for name in [name for name in self.rehearsal.streams if name.startswith("tools")]:
            self.rehearsal.deliver(name)
        self.ask(text, reports)

    @precondition(lambda self: self.is_only_ga)
    @rule(approve=st.booleans(), known=st.booleans())
    def approve(self, approve: bool, known: bool) -> None:
        asked = [item.id for item in self.conversation if isinstance(item, McpApprovalRequest)]
        request = given(asked[-1], "") if asked and known else "mcpr_unknown"
        answer = McpApprovalResponse(approval_request_id=request, approve=approve)
        self.say(ev.ConversationItemCreate(item=answer))

    @precondition(lambda self: self.is_only_ga)
    @rule(
        update=st.sampled_from(
            [
                cfg.RealtimeSession(truncation="disabled"),
                cfg.RealtimeSession(truncation=cfg.RetentionRatio(retention_ratio=0.5)),
                cfg.RealtimeSession(
                    truncation=cfg.RetentionRatio(
                        retention_ratio=0.1, token_limits=cfg.TokenLimits(post_instructions=30)
                    )
                ),
                cfg.RealtimeSession(include=(LOGPROBS,)),
                cfg.RealtimeSession(include=None),
                cfg.RealtimeSession(prompt=cfg.Prompt(id="polite", version="1", variables={"who": "all"})),
                cfg.RealtimeSession(prompt=cfg.Prompt(id="polite", version="1")),
                cfg.RealtimeSession(prompt=cfg.Prompt(id="polite")),
                cfg.RealtimeSession(prompt=None),
                cfg.RealtimeSession(reasoning=cfg.Reasoning(effort="low"), parallel_tool_calls=False),
            ]
        )
    )
    def update_what_beta_cannot_say(self, update: cfg.RealtimeSession) -> None:
        self.say(ev.SessionUpdate(session=update))

    @precondition(lambda self: self.is_only_ga)
    @rule()
    def show_an_image(self) -> None:
        content = (InputImage(image_url="data:image/png;base64,AAAA"), InputText(text="look"))
        self.say(ev.ConversationItemCreate(item=Message(role="user", content=content)))

    @precondition(lambda self: self.is_only_ga)
    @rule(
        detection=st.sampled_from(
            [cfg.ServerVad(silence_duration_ms=100, idle_timeout_ms=5_000), cfg.SemanticVad(eagerness="high")]
        ),
        reduction=st.sampled_from([UNSET, None, cfg.NoiseReduction(type="far_field", strength=0.5)]),
    )
    def listen_otherwise(self, detection: cfg.TurnDetection, reduction: cfg.NoiseReduction | None) -> None:
        self.listen(cfg.AudioInput(turn_detection=detection, noise_reduction=reduction))

    @rule()
    def noise_reduction_fails(self) -> None:
        cleaning = self.session._listening._cleaning
        epoch = cleaning.epoch if cleaning is not None else 0
        self.rehearsal.say(NoiseReduced(epoch, b"", is_over=True))

    @rule(
        detection=st.sampled_from(
            [
                UNSET,
                None,
                cfg.ServerVad(silence_duration_ms=100, prefix_padding_ms=0),
                cfg.ServerVad(silence_duration_ms=300, interrupt_response=False),
                cfg.ServerVad(silence_duration_ms=0, create_response=False),
                cfg.SemanticVad(),
            ]
        ),
        transcription=st.sampled_from([UNSET, None, cfg.Transcription(model="scripted")]),
        into=st.sampled_from([UNSET, UNSET, cfg.PcmFormat(), cfg.PcmuFormat()]),
        voice=st.sampled_from([UNSET, UNSET, "alloy", "cedar"]),
        out=st.sampled_from([UNSET, UNSET, cfg.PcmFormat(), cfg.PcmaFormat()]),
        speed=st.sampled_from([UNSET, UNSET, 1.0, 1.5]),
    )
    def update_session(self, detection, transcription, into, voice, out, speed) -> None:  # type: ignore[no-untyped-def]
        if self.kind == "transcription":
            self.listen(cfg.AudioInput(format=into, transcription=transcription, turn_detection=detection))
            return
        audio = cfg.AudioConfig(
            input=cfg.AudioInput(format=into, transcription=transcription, turn_detection=detection),
            output=cfg.AudioOutput(format=out, voice=voice, speed=speed),
        )
        self.say(ev.SessionUpdate(session=cfg.RealtimeSession(audio=audio)))

    @rule(
        update=st.sampled_from(
            [
                cfg.RealtimeSession(model="another"),
                cfg.RealtimeSession(output_modalities=("text",)),
                cfg.RealtimeSession(output_modalities=("audio",), instructions=""),
                cfg.RealtimeSession(max_output_tokens=2),
                cfg.RealtimeSession(max_output_tokens="inf", tools=(cfg.FunctionTool(name="look"),)),
                cfg.RealtimeSession(tools=(cfg.McpTool(server_label="x"),)),
                cfg.RealtimeSession(tool_choice=cfg.ToolChoiceFunction(name="nothing"), tools=()),
                cfg.TranscriptionSession(),
            ]
        )
    )
    def update_more(self, update: cfg.SessionConfig) -> None:
        self.say(ev.SessionUpdate(session=update))

    @rule()
    def say_what_is_no_event(self) -> None:
        error = ev.ErrorDetail(type="invalid_request_error", code="invalid_json", message="no", event_id="mine")
        effects = self.rehearsal.say(error)
        assert self.session.is_closed or types_sent(effects) == ["error"]

    # --- what engines and the clock do --------------------------------------------------------------------------------

    @property
    def speakers(self) -> list[str]:
        """Streams that may speak next: engines at any time, the player when it is time."""
        return [name for name in self.rehearsal.streams if name != PLAYBACK or self.player_is_due]

    @property
    def player_is_due(self) -> bool:
        waiting = self.rehearsal._streams.get(PLAYBACK)
        return bool(waiting and waiting.reports and waiting.reports[0][0] <= self.rehearsal.now_ms)

    @precondition(lambda self: self.speakers)
    @rule(data=st.data(), times=st.integers(1, 5))
    def deliver(self, data: st.DataObject, times: int) -> None:
        name = data.draw(st.sampled_from(self.speakers))
        for _ in range(times):
            if name not in self.speakers:
                return
            epoch = self.session._listening._epoch
            report, effects = self.rehearsal.deliver(name)
            if isinstance(report, SpeechScored) and report.epoch != epoch:
                assert effects == [], "scores of an older epoch must have no effect"

    @precondition(lambda self: self.rehearsal.streams)
    @rule()
    def deliver_all(self) -> None:
        self.rehearsal.settle()

    @precondition(lambda self: bool(set(self.rehearsal.streams) - {DETECTION, PLAYBACK}))
    @rule(data=st.data())
    def fail_an_engine(self, data: st.DataObject) -> None:
        able = [name for name in self.rehearsal.streams if name not in (DETECTION, PLAYBACK)]
        name = data.draw(st.sampled_from(able))
        assert self.rehearsal.fail(name)
        self.rehearsal.deliver(name)

    @precondition(lambda self: self.rehearsal.late)
    @rule(data=st.data())
    def deliver_late(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.rehearsal.late) - 1))
        before = self.snapshot()
        report, effects = self.rehearsal.deliver_late(index)
        assert effects == [], f"a late report must have no effect: {report!r}"
        assert self.snapshot() == before

    @rule(
        report=st.sampled_from(
            [
                lambda owner: TextGenerated(owner, "x"),
                lambda owner: CallStarted(owner, "x"),
                lambda owner: CallArguments(owner, "x"),
                lambda owner: GenerationEnded(owner, "stop"),
                lambda owner: GenerationFailed(owner, "x", "x"),
                lambda owner: AudioSynthesized(owner, "item_1", b"xx"),
                lambda owner: PhraseSpoken(owner, "item_1", 0),
                lambda owner: SynthesisFailed(owner, "item_1", "x", "x"),
            ]
        ),
        data=st.data(),
    )
    def report_for_a_response_that_is_over(self, report: Callable[[str], EngineReport], data: st.DataObject) -> None:
        over = [one.id for one in self.conversation.responses.values() if one.status != "in_progress"]
        self.has_no_effect(report(data.draw(st.sampled_from([*over, "resp_unknown"]))))

    @rule(
        report=st.sampled_from(
            [
                lambda owner: TranscriptDelta(owner, "x"),
                lambda owner: TranscriptEnded(owner),
                lambda owner: TranscriptFailed(owner, "x", "x"),
            ]
        ),
        data=st.data(),
    )
    def report_for_an_item_that_is_not_being_transcribed(
        self, report: Callable[[str], EngineReport], data: st.DataObject
    ) -> None:
        waiting = {name.partition(" ")[2] for name in self.rehearsal.streams if name.startswith("transcription")}
        over = [item_id for item_id in self.conversation.item_ids if item_id not in waiting]
        self.has_no_effect(report(data.draw(st.sampled_from([*over, "item_unknown"]))))

    def has_no_effect(self, report: EngineReport) -> None:
        before = self.snapshot()
        assert self.rehearsal.say(report) == [], "a report for what is over must have no effect"
        assert self.snapshot() == before

    @rule(ms=st.sampled_from([1, 1_000, 6_000, 40_000]))
    def time_passes(self, ms: int) -> None:
        """Engines' reports stay where they are: only the machine's own deadlines are due, and the player plays."""
        target = self.rehearsal.now_ms + ms
        while (waiting := self.rehearsal._streams.get(PLAYBACK)) and waiting.reports:
            due_ms = waiting.reports[0][0]
            if due_ms > target:
                break
            self.rehearsal.wake_until(due_ms)
            if self.player_is_due:
                self.rehearsal.deliver(PLAYBACK)
        self.rehearsal.wake_until(target)

    @rule(sure=st.sampled_from([False] * 5 + [True]))
    def drain(self, sure: bool) -> None:
        if sure:
            self.rehearsal.say(Drain())
            self.draining = True

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def replicas_equal_the_server(self) -> None:
        for dialect, replica in self.replicas.items():
            mine, theirs = self.conversation, replica.conversation
            assert theirs.item_ids == mine.item_ids, dialect
            assert theirs.items == mine.items, dialect
            assert list(theirs.responses.values()) == replica.responses(mine), dialect
            assert theirs.session == replica.session(mine), dialect
            if dialect == "ga":
                assert theirs.responses == mine.responses
                assert theirs.session == mine.session
            for item_id in mine.item_ids:
                one, other = mine.entry(item_id), theirs.entry(item_id)
                assert one is not None
                assert other is not None
                assert (one.audio, one.audio_bytes, one.truncated) == (other.audio, other.audio_bytes, other.truncated)

    @invariant()
    def the_referee_agrees_on_the_order(self) -> None:
        assert self.conversation.item_ids == tuple(self.referee.order)

    @invariant()
    def no_engine_works_for_nobody(self) -> None:
        """That a response's engines stop with it is required by the rehearsal; here it is the transcribers."""
        wanted = wanted_ids(self.session)
        for name in self.rehearsal.streams:
            kind, _, owner = name.partition(" ")
            assert kind != "transcription" or owner in wanted, f"{name} goes on for an item that is gone"

    @invariant()
    def what_was_truncated_is_not_said_again(self) -> None:
        for item in self.conversation:
            entry = self.conversation.entry(given(item.id, ""))
            if entry is not None and entry.truncated:
                assert item.content == (OutputAudio(transcript=""),)  # type: ignore[union-attr]

    @invariant()
    def the_audio_clock_never_goes_back(self) -> None:
        listening = self.session._listening
        assert listening._audio.end >= self.clock
        self.clock = listening._audio.end
        if listening._turn is not None and listening._turns is not None and listening._turns._onset is not None:
            assert listening._turns.position - listening._turns._onset < LIMITS.turn_ms_max * 24

    @invariant()
    def buffers_stay_within_their_limits(self) -> None:
        check_buffers(self.session)

    def teardown(self) -> None:
        if not hasattr(self, "session"):
            return  # a run may end before it began
        self.calm_down()
        self.rehearsal.settle()
        if not self.session.is_closed:
            assert self.rehearsal.streams == ()
        self.referee.end(is_cut=self.session.is_closed)
        if not self.session.is_closed:
            assert not self.draining
            assert not len(self.session._answering)
            effects = self.rehearsal.say(ev.SessionUpdate(session=self.session.config.__class__.__bases__[0]()))
            assert types_sent(effects) == ["session.updated"]

    def calm_down(self) -> None:
        """Nobody speaks any more, and nobody is spoken to for that."""
        if not self.session.is_closed:
            self.listen(cfg.AudioInput(turn_detection=None))


TOOL = cfg.FunctionTool(name="look", description=None, parameters={"type": "object"})

TestSession = SessionMachine.TestCase
TestSession.settings = settings(stateful_step_count=40)
