"""A caller and a session machine, joined: whatever they say, in whatever order it arrives, nothing is lost or doubled.

Hypothesis decides what the application does, which message arrives next, which engine reports, when the line breaks.
`VIVAVOCE_PAIR_EXAMPLES=2000` runs so many seeded conversations instead of the few of every day.
"""

from __future__ import annotations

import os
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vivavoce.core.caller.messages import Interrupt, Refuse
from vivavoce.core.caller.requests import BUSY
from vivavoce.core.caller.tags import TAG
from vivavoce.core.caller.updates import (
    ConversationUpdated,
    Failed,
    ItemAppended,
    ItemCompleted,
    ResponseLost,
    ResponseReplaced,
    Update,
)
from vivavoce.core.context import as_heard
from vivavoce.core.spoken import heard
from vivavoce.engines import Pipeline
from vivavoce.engines.scripted import ScriptedTranscriber, duration_in_words, scripted_pipeline
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, given
from vivavoce.protocol.items import FunctionCall, FunctionCallOutput, Message, user_message
from vivavoce.testing.pair import Pair
from vivavoce.testing.rehearsal import DETECTION
from vivavoce.testing.sounds import silence, tone

TEXTS = (
    "hello",
    "a longer sentence without any end that is spoken in one go",
    "One two three. Four five six. Seven eight nine.",
    'call look {"at": [1, 2]}',
    'call a {} call b {"x": 1}',
    "call theirs {}",
)
NOISE_MS_MAX = 450
EXAMPLES = int(os.environ.get("VIVAVOCE_PAIR_EXAMPLES", "0"))


def engines() -> Pipeline:
    """The scripted ones, with a transcriber that hears nothing in what is too short to be a word."""

    def hear(audio: bytes) -> str:
        return "" if len(audio) < 48 * NOISE_MS_MAX else duration_in_words(audio)

    return replace(scripted_pipeline(), transcriber=ScriptedTranscriber(script=hear))


def words_of(message: Message) -> str:
    return "".join(
        getattr(part, "text", None) or given(getattr(part, "transcript", UNSET), None) or "" for part in message.content
    )


class PairMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.in_flight: set[str] = set()
        self.untagged: set[str] = set()
        self.told: dict[str, str] = {}
        self.is_lost = False
        self.turns: set[str] = set()
        self.sees: dict[str, set[str]] = {}
        self.talked_about: set[str] = set()
        self.seen: set[str] = set()
        self.owed: set[str] = set()

    # --- what is watched ----------------------------------------------------------------------------------------------

    def witness(self, message: ev.AnyClientEvent | ev.AnyServerEvent | ev.Unknown | Update) -> None:
        match message:
            case ev.ResponseCreate():
                self.request_sent(message)
            case ev.InputAudioBufferSpeechStarted():
                self.turns.add(message.item_id)
            case ev.ResponseDone():
                self.response_done(message)
            case ev.ResponseCreated():
                if message.response.conversation_id is not None:
                    self.sees[message.response.id] = set(self.pair.caller.conversation.item_ids)
                tag = (given(message.response.metadata, None) or {}).get(TAG)
                if tag is not None:
                    self.in_flight.discard(tag)
                else:
                    self.in_flight -= self.untagged
            case ev.ErrorEvent():
                self.in_flight.discard(given(message.error.event_id, None) or "")
            case ItemAppended() | ItemCompleted() | ConversationUpdated():
                self.item_told(message)
            case Failed():
                assert message.error.code != BUSY, "the race is shown"

    def request_sent(self, event: ev.ResponseCreate) -> None:
        params = given(event.response, ev.ResponseParams())
        if given(params.conversation, "auto") == "none":
            return
        assert not self.in_flight, "two requests are on their way"
        known = [one for one in self.pair.caller.conversation.active_responses if one.conversation_id is not None]
        assert not known, "it is asked while an answer is running"
        request = self.pair.caller.requests._in_flight
        assert request is not None
        assert request.why != "needed" or request.items - self.talked_about, "it is asked a second time"
        self.in_flight.add(given(event.event_id, ""))
        if TAG not in (given(params.metadata, None) or {}):
            self.untagged.add(given(event.event_id, ""))

    def response_done(self, event: ev.ResponseDone) -> None:
        """Note which items a response of the conversation has seen, and which calls are to be talked about."""
        response = event.response
        sees = self.sees.pop(response.id, None)
        if sees is None or (response.status == "completed" and not response.output):
            return
        self.seen |= sees
        if response.status != "completed":
            return
        self.talked_about |= sees
        calls = [item for item in response.output if isinstance(item, FunctionCall)]
        if all(item.name != "theirs" for item in calls):
            self.owed |= {given(item.call_id, "") for item in calls}

    def item_told(self, update: ItemAppended | ItemCompleted | ConversationUpdated) -> None:
        item_id = update.item.id
        match update:
            case ItemAppended():
                assert item_id not in self.told, "appended twice"
                self.told[item_id] = "appended"
            case ItemCompleted():
                assert self.told[item_id] == "appended"
                self.told[item_id] = "completed"
            case ConversationUpdated():
                assert item_id in self.told, "updated before it was appended"
                if update.delta is not None:
                    fields = [getattr(update.delta, name) for name in ("text", "audio", "transcript", "arguments")]
                    assert sum(field is not None for field in fields) == 1
                if item_id not in self.pair.caller.conversation:
                    del self.told[item_id]

    # --- begin --------------------------------------------------------------------------------------------------------

    @initialize(
        dialect=st.sampled_from(["ga", "beta"]),
        listens=st.booleans(),
        interrupt=st.sampled_from([True, True, False]),
        told=st.booleans(),
        deltas=st.booleans(),
    )
    def open(self, dialect: str, listens: bool, interrupt: bool, told: bool, deltas: bool) -> None:
        self.pair = Pair(
            dialect=dialect,  # type: ignore[arg-type]
            pipeline=engines(),
            runs=lambda name: name != "theirs",
            witness=self.witness,
        )
        self.pair.caller.tells_deltas = deltas
        detection = cfg.ServerVad(silence_duration_ms=100, interrupt_response=interrupt) if listens else None
        transcription = cfg.Transcription(model="scripted") if told else None
        into = cfg.AudioInput(turn_detection=detection, transcription=transcription)
        self.pair.ask(ev.SessionUpdate(session=cfg.RealtimeSession(audio=cfg.AudioConfig(input=into))))
        self.pair.settle()

    # --- what the application and its user do -------------------------------------------------------------------------

    @rule(text=st.sampled_from(TEXTS))
    def say_and_ask(self, text: str) -> None:
        self.pair.ask(ev.ConversationItemCreate(item=user_message(text)))
        self.pair.ask(ev.ResponseCreate())

    @rule(modality=st.sampled_from([UNSET, ("text",)]), is_aside=st.booleans())
    def ask(self, modality: object, is_aside: bool) -> None:
        params = ev.ResponseParams(output_modalities=modality, conversation="none" if is_aside else UNSET)  # type: ignore[arg-type]
        self.pair.ask(ev.ResponseCreate(response=params))

    # Whole stretches, because single steps seldom add up to one.

    @precondition(lambda self: self.pair.is_connected)
    @rule(ms=st.sampled_from([200, 700]), is_asked=st.booleans())
    def end_a_turn_that_the_client_does_not_know_of(self, ms: int, is_asked: bool) -> None:
        self.pair.ask(ev.InputAudioBufferAppend(audio=tone(ms) + silence(300)))
        while self.pair.to_server:
            self.pair.reach_server()
        if is_asked:  # before or after the server answers by itself
            self.pair.ask(ev.ResponseCreate())
        while DETECTION in self.pair.rehearsal.streams:
            self.pair.rehearsal.deliver(DETECTION)
        if not is_asked:
            self.pair.ask(ev.ResponseCreate())

    @precondition(lambda self: self.pair.is_connected)
    @rule(text=st.sampled_from(TEXTS[3:5]))
    def have_tools_called(self, text: str) -> None:
        self.say_and_ask(text)
        while not self.pair.calls and not self.pair.is_at_rest:
            if self.pair.to_server:
                self.pair.reach_server()
            elif self.pair.to_client:
                self.pair.reach_client()
            else:
                self.pair.rehearsal.deliver(self.pair.rehearsal.streams[0])

    @rule(ms=st.sampled_from([200, 200, 700]))
    def speak(self, ms: int) -> None:
        self.pair.ask(ev.InputAudioBufferAppend(audio=tone(ms) + silence(300)))

    @rule(ms=st.sampled_from([20, 120]))
    def speak_on(self, ms: int) -> None:
        self.pair.ask(ev.InputAudioBufferAppend(audio=tone(ms)))

    @rule(is_clear=st.booleans())
    def end_the_turn(self, is_clear: bool) -> None:
        self.pair.ask(ev.InputAudioBufferClear() if is_clear else ev.InputAudioBufferCommit())

    @rule()
    def cut_in(self) -> None:
        self.pair.hear(Interrupt())

    @rule()
    def cancel(self) -> None:
        self.pair.ask(ev.ResponseCancel())

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        ids = self.pair.caller.conversation.item_ids
        if ids:
            self.pair.ask(ev.ConversationItemDelete(item_id=data.draw(st.sampled_from(ids))))

    @precondition(lambda self: self.pair.calls)
    @rule(data=st.data())
    def end_a_tool(self, data: st.DataObject) -> None:
        self.pair.end_tool(data.draw(st.sampled_from(sorted(self.pair.calls))), "done")

    @rule(
        detection=st.sampled_from([None, cfg.ServerVad(silence_duration_ms=100), cfg.ServerVad(create_response=False)])
    )
    def listen_otherwise(self, detection: cfg.TurnDetection | None) -> None:
        audio = cfg.AudioConfig(input=cfg.AudioInput(turn_detection=detection))
        self.pair.ask(ev.SessionUpdate(session=cfg.RealtimeSession(audio=audio)))

    # --- what the world does ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.pair.is_connected and self.pair.to_server)
    @rule(times=st.integers(1, 4))
    def reach_server(self, times: int) -> None:
        for _ in range(min(times, len(self.pair.to_server))):
            self.pair.reach_server()

    @precondition(lambda self: self.pair.is_connected and self.pair.to_client)
    @rule(times=st.sampled_from([1, 2, 5, 20]))
    def reach_client(self, times: int) -> None:
        for _ in range(min(times, len(self.pair.to_client))):
            self.pair.reach_client()

    @precondition(lambda self: self.pair.rehearsal.streams)
    @rule(data=st.data(), times=st.sampled_from([1, 3, 10]))
    def report(self, data: st.DataObject, times: int) -> None:
        name = data.draw(st.sampled_from(self.pair.rehearsal.streams))
        for _ in range(times):
            if name in self.pair.rehearsal.streams:
                self.pair.rehearsal.deliver(name)

    @precondition(lambda self: bool(set(self.pair.rehearsal.streams) - {DETECTION}))
    @rule(data=st.data())
    def fail_an_engine(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([name for name in self.pair.rehearsal.streams if name != DETECTION]))
        if self.pair.rehearsal.fail(name):
            self.pair.rehearsal.deliver(name)

    @rule(ms=st.sampled_from([20, 300, 1_000, 2_500]))
    def time_passes(self, ms: int) -> None:
        self.pair.after(ms)

    @precondition(lambda self: self.pair.is_connected)
    @rule()
    def come_to_rest(self) -> None:
        self.pair.settle()

    @precondition(lambda self: self.pair.is_connected)
    @rule(lasts=st.booleans())
    def break_the_line(self, lasts: bool) -> None:
        if lasts:
            self.pair.hang()
        else:
            self.pair.lose()
            self.in_flight.clear()
        self.is_lost = not lasts

    @precondition(lambda self: not self.pair.is_connected)
    @rule(says=st.booleans())
    def mend_the_line(self, says: bool) -> None:
        if not self.is_lost:
            self.pair.resume()
            return
        told = self.pair.tell()
        if says:  # somebody cuts in before the new session is ours
            self.pair.hear(Interrupt())
        self.pair.restore(told)

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def no_ticket_is_settled_twice(self) -> None:
        for outcomes in self.pair.outcomes.values():
            assert len(outcomes) <= 1
            for outcome in outcomes:
                assert not isinstance(outcome, Refuse) or outcome.error.code != BUSY, "the race is shown"

    @invariant()
    def both_ends_agree(self) -> None:
        if self.pair.is_connected and not self.pair.to_client:
            assert self.pair.caller.conversation.item_ids == self.pair.server.conversation.item_ids
            assert self.pair.caller.conversation.items == self.pair.server.conversation.items

    @invariant()
    def what_was_heard_is_one_truth(self) -> None:
        """Where no message is on its way, the model knows of an answer that was cut off what the client shows of it."""
        pair = self.pair
        if not pair.is_connected or not pair.is_at_rest:
            return
        desk = pair.server._desk
        context = {
            given(item.id, ""): item
            for item in as_heard(
                pair.server.conversation, desk.hearing, desk.said, pair.server.conversation, lambda a, b: b
            )
        }
        for view in pair.caller.memory.views():
            if not pair.caller.memory.is_cut(view.id):
                continue
            said = desk.said.get(view.id)
            if said is None:  # told in words, to a session that came after
                assert view.text == view.stated_text
                continue
            mine, model = view.text, words_of(context[view.id])  # type: ignore[arg-type]
            entry = pair.server.conversation.entry(view.id)
            assert entry is not None
            assert model == heard(said, entry.audio_bytes)
            if len(said) == 1:
                assert mine == model
            else:  # which phrase belongs to which audio is not on the wire
                assert mine.startswith(model) or model.startswith(mine)

    @invariant()
    def own_audio_is_cut_where_the_server_cuts(self) -> None:
        hearing = self.pair.server._desk.hearing
        for item_id in self.pair.caller.conversation.item_ids:
            known, mine = hearing.get(item_id), self.pair.caller.memory.speech(item_id)
            if known is not None and known.audio and mine:
                # Before it hears a turn, a server may let go of silence without a word; then its copy is shorter.
                assert mine == known.audio if item_id in self.turns else mine.endswith(known.audio)

    @invariant()
    def buffers_stay_within_their_limits(self) -> None:
        caller = self.pair.caller
        assert caller.ear._audio.ticks <= caller.limits.input_ms_max * 24
        assert len(caller.requests._queue) <= caller.limits.requests_max + len(self.told)
        assert len(caller.requests._running) <= 4

    # --- the end ------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "pair"):
            return
        if not self.pair.is_connected:
            self.mend_the_line(False)
        self.pair.settle()
        self.pair.ask(ev.InputAudioBufferAppend(audio=silence(1_000)))  # whoever speaks falls silent
        for _ in range(40):
            self.pair.settle()
            if self.pair.caller.is_idle:
                break
            self.pair.after(1_000)
        self.pair.settle()
        self.both_ends_agree()
        self.what_was_heard_is_one_truth()
        for ticket, outcomes in self.pair.outcomes.items():
            assert len(outcomes) == 1, (ticket, self.pair.caller._answers._pending, self.pair.caller.requests._queue)
        requests = self.pair.caller.requests
        assert requests.is_idle, (requests._queue, requests._in_flight, requests._aside, requests._running)
        assert not self.pair.caller.calls.open
        self.every_lost_response_was_replaced()
        self.tool_outputs_were_answered_once_and_talked_about()

    def every_lost_response_was_replaced(self) -> None:
        updates = self.pair.updates
        lost = [one.response_id for one in updates if isinstance(one, ResponseLost) and one.is_asked_again]
        replaced = [one.lost_id for one in updates if isinstance(one, ResponseReplaced)]
        failed = [one.error.param for one in updates if isinstance(one, Failed)]
        for response_id in lost:
            assert (response_id in replaced) != (response_id in failed)

    def tool_outputs_were_answered_once_and_talked_about(self) -> None:
        outputs = [item for item in self.pair.caller.conversation.items if isinstance(item, FunctionCallOutput)]
        assert len(outputs) == len({output.call_id for output in outputs}), "a call is answered twice"
        if any(isinstance(update, Failed) for update in self.pair.updates):
            return  # an engine or a limit was in the way, and that was told
        seen = self.seen.union(*self.sees.values())
        for output in outputs:
            assert output.call_id not in self.owed or output.id in seen, "nobody has asked about a tool's output"


TestPair = PairMachine.TestCase
TestPair.settings = settings(max_examples=EXAMPLES or 100, stateful_step_count=40, derandomize=not EXAMPLES)
