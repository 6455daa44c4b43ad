"""Any client, any engines, in any order, with everything that a session can have: MCP servers, semantic turns, noise
reduction, idle timeouts, an account, a player of the server's own.

The other half of `test_session_stateful.py`: there it is the core of the protocol, in both dialects.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vivavoce.core.abilities import Abilities
from vivavoce.core.conversation import Conversation
from vivavoce.core.limits import Limits
from vivavoce.core.messages import Effect, Input, McpCallEnded, NoiseReduced, Opened, Send, TurnJudged
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, given
from vivavoce.protocol.codec import ClientCodec, ServerCodec
from vivavoce.protocol.items import InputText, McpApprovalRequest, McpApprovalResponse, Message
from vivavoce.testing.playbook import Moment, counting_ids
from vivavoce.testing.real_time_player import RealTimePlayer
from vivavoce.testing.referee import Referee
from vivavoce.testing.rehearsal import PLAYBACK, Rehearsal
from vivavoce.testing.sounds import silence, tone

LIMITS = Limits(
    session_ms_max=600_000,
    input_ms_max=20_000,
    turn_ms_max=3_000,
    items_max=40,
    responses_max=3,
    engine_silence_ms_max=60_000,
    mcp_servers_max=3,
    mcp_approvals_max=2,
)
TOKENS = 2_000
"""What the account holds: enough for some responses, not for all."""
SECRET = "a-secret-of-the-client"
TEXTS = (
    "One two three. Four five six.",
    'call look_up {"what": "tea"}',
    'call write_down {"what": "milk"} call look_up {"what": "tea"}',
    'call break_down {"what": "it"}',
    'call notes_look_up {"what": "tea"}',
    "word " * 100,
)


def server(label: str = "notes", **fields: object) -> cfg.McpTool:
    made = {"server_url": f"https://{label}.example", "authorization": SECRET, "require_approval": "never", **fields}
    return cfg.McpTool(server_label=label, **made)  # type: ignore[arg-type]


SERVERS = (
    (),
    (server(),),
    (server(), server("mail", headers={"X-Key": SECRET}, authorization=UNSET)),
    (server(require_approval="always"), cfg.FunctionTool(name="look_up")),
    (server(require_approval=cfg.McpApprovalFilter(never=cfg.McpToolFilter(read_only=True))),),
    (server(server_url="https://unreachable.example"),),
    (server(allowed_tools=("look_up",)),),
    (cfg.McpTool(server_label="notes"),),
)
DETECTIONS = (
    None,
    cfg.ServerVad(silence_duration_ms=200),
    cfg.ServerVad(silence_duration_ms=200, idle_timeout_ms=5_000),
    cfg.ServerVad(silence_duration_ms=200, idle_timeout_ms=6_000, create_response=False, interrupt_response=False),
    cfg.SemanticVad(),
    cfg.SemanticVad(eagerness="high", create_response=False),
)


class Wallet:
    """An account that knows what is reserved."""

    def __init__(self) -> None:
        self.left, self.reserved = TOKENS, 0

    def take(self, tokens: int, now_ms: int) -> bool:
        if tokens > self.left:
            return False
        self.left, self.reserved = self.left - tokens, self.reserved + tokens
        return True

    def settle(self, reserved: int, used: int, now_ms: int) -> None:
        self.left, self.reserved = self.left + reserved - used, self.reserved - reserved

    def limits(self, now_ms: int) -> tuple[ev.RateLimit, ...]:
        return (ev.RateLimit(name="tokens", limit=TOKENS, remaining=max(self.left, 0), reset_seconds=1.0),)


class AbleMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.wallet, player = Wallet(), RealTimePlayer()
        self.session = Session(
            id="sess_1",
            model="scripted",
            ids=counting_ids(),
            expires_at=0,
            limits=LIMITS,
            surroundings=Surroundings(
                abilities=Abilities(
                    semantic_vad=True, noise_reduction=True, mcp=True, context_tokens=600, output_tokens_max=100
                ),
                account=self.wallet,
                player=player,
            ),
        )
        self.referee = Referee()
        self.replica, self.codecs = Conversation(LIMITS), (ServerCodec("ga", playback=True), ClientCodec("ga"))
        self.rehearsal = Rehearsal(self.session, witness=self.witness, player=player)

    def witness(self, moment: Moment) -> None:
        if not isinstance(moment.message, Send):
            return
        self.referee.server(moment.message.event)
        frame = self.codecs[0].encode(moment.message.event)
        if frame is not None:
            assert SECRET.encode() not in frame
            self.replica.apply(self.codecs[1].decode(frame))

    def say(self, event: Input) -> list[Effect]:
        return self.rehearsal.say(event)

    def update(self, **fields: object) -> None:
        self.say(ev.SessionUpdate(session=cfg.RealtimeSession(**fields)))  # type: ignore[arg-type]

    @property
    def streams(self) -> list[str]:
        """Playback goes by the clock, and by nothing else."""
        return [name for name in self.rehearsal.streams if name != PLAYBACK]

    @initialize(tools=st.sampled_from(SERVERS[:5]), detection=st.sampled_from(DETECTIONS))
    def open(self, tools: tuple[cfg.Tool, ...], detection: cfg.TurnDetection | None) -> None:
        self.say(Opened())
        into = cfg.AudioInput(turn_detection=detection)
        self.update(tools=tools, audio=cfg.AudioConfig(input=into))

    # --- what a client says -------------------------------------------------------------------------------------------

    @rule(
        text=st.sampled_from(TEXTS),
        tools=st.sampled_from([UNSET, UNSET, *SERVERS]),
        choice=st.sampled_from([UNSET, UNSET, "required", "none", cfg.ToolChoiceMcp(server_label="notes")]),
        conversation=st.sampled_from(["auto", "auto", "none"]),
        modality=st.sampled_from(["audio", "text"]),
        reports=st.sampled_from([0, 2, 4, 6, 40]),
    )
    def ask(  # type: ignore[no-untyped-def]
        self, text: str, tools, choice, conversation, modality: str, reports: int
    ) -> None:
        message = Message(role="user", content=(InputText(text=text),))
        self.say(ev.ConversationItemCreate(item=message))
        params = ev.ResponseParams(
            tools=tools,
            tool_choice=choice,
            conversation=conversation,
            output_modalities=(modality,),  # type: ignore[arg-type]
        )
        self.say(ev.ResponseCreate(response=params))
        for _ in range(reports):
            if self.streams:
                self.rehearsal.deliver(self.streams[0])

    @rule(data=st.data(), approve=st.booleans())
    def answer(self, data: st.DataObject, approve: bool) -> None:
        asked = [item.id for item in self.session.conversation if isinstance(item, McpApprovalRequest)]
        request = data.draw(st.sampled_from([*asked, "mcpr_1"]))
        answer = McpApprovalResponse(approval_request_id=given(request, ""), approve=approve)
        self.say(ev.ConversationItemCreate(item=answer))

    @rule(ms=st.sampled_from([40, 200, 1_500]), pause_ms=st.sampled_from([0, 200, 1_000, 5_000]), heard=st.booleans())
    def speak(self, ms: int, pause_ms: int, heard: bool) -> None:
        self.say(ev.InputAudioBufferAppend(audio=tone(ms) + silence(pause_ms)))
        while heard and self.rehearsal.streams[:1] == ("detection",):
            self.rehearsal.deliver("detection")

    @rule(event=st.sampled_from([ev.InputAudioBufferCommit(), ev.InputAudioBufferClear(), ev.ResponseCancel()]))
    def interfere(self, event: Input) -> None:
        self.say(event)

    @rule()
    def clear_playback(self) -> None:
        self.say(ev.OutputAudioBufferClear())

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self.say(ev.ConversationItemDelete(item_id=self.some_item(data)))

    @rule(data=st.data(), end_ms=st.sampled_from([0, 100, 500]))
    def truncate(self, data: st.DataObject, end_ms: int) -> None:
        item_id = self.some_item(data)
        self.say(ev.ConversationItemTruncate(item_id=item_id, content_index=0, audio_end_ms=end_ms))

    def some_item(self, data: st.DataObject) -> str:
        """One of the newest, because these are being worked on."""
        return data.draw(st.sampled_from([*self.session.conversation.item_ids[:-4:-1], "item_unknown"]))

    @rule(tools=st.sampled_from(SERVERS))
    def define(self, tools: tuple[cfg.Tool, ...]) -> None:
        self.update(tools=tools)

    @rule(
        detection=st.sampled_from([UNSET, *DETECTIONS]),
        reduction=st.sampled_from([UNSET, None, cfg.NoiseReduction(type="near_field")]),
        format=st.sampled_from([UNSET, UNSET, cfg.PcmFormat(), cfg.PcmuFormat()]),
    )
    def listen(self, detection, reduction, format) -> None:  # type: ignore[no-untyped-def]
        into = cfg.AudioInput(turn_detection=detection, noise_reduction=reduction, format=format)
        self.update(audio=cfg.AudioConfig(input=into))

    @rule(truncation=st.sampled_from(["auto", "disabled", cfg.RetentionRatio(retention_ratio=0.5)]))
    def limit(self, truncation: cfg.Truncation) -> None:
        self.update(truncation=truncation)

    # --- what the engines do, and time --------------------------------------------------------------------------------

    @rule(data=st.data(), times=st.integers(1, 6))
    def deliver(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            if self.streams:
                self.rehearsal.deliver(data.draw(st.sampled_from(self.streams)))

    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        if self.streams:
            self.rehearsal.fail(data.draw(st.sampled_from(self.streams)))

    @rule(data=st.data())
    def deliver_late(self, data: st.DataObject) -> None:
        if self.rehearsal.late:
            self.has_no_effect(self.rehearsal.late.pop(data.draw(st.integers(0, len(self.rehearsal.late) - 1))))

    @rule(
        report=st.sampled_from(
            [
                McpCallEnded("mcp_unknown", output="x"),
                NoiseReduced(0, b"1234"),
                TurnJudged("item_1", 0, 1.0),
            ]
        )
    )
    def report_what_nobody_asked(self, report: Input) -> None:
        self.has_no_effect(report)

    def has_no_effect(self, report: Input) -> None:
        assert self.rehearsal.say(report) == []

    @rule(ms=st.sampled_from([10, 300, 2_000, 8_000]))
    def time_passes(self, ms: int) -> None:
        self.rehearsal.after(ms)

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def the_client_holds_the_same_conversation(self) -> None:
        assert self.replica.items == self.session.conversation.items
        assert self.replica.item_ids == tuple(self.referee.order)
        assert self.replica.responses == self.session.conversation.responses

    @invariant()
    def only_what_runs_has_tokens_reserved(self) -> None:
        running = self.session._answering._runs.values()
        assert self.wallet.reserved == sum(run.asked.reserved for run in running)

    @invariant()
    def there_are_limits(self) -> None:
        toolbox, listening = self.session._toolbox, self.session._listening
        assert len(toolbox._listed) <= LIMITS.mcp_servers_max
        assert len(toolbox._asked) <= LIMITS.mcp_approvals_max
        assert listening._audio.ticks <= LIMITS.input_ms_max * 24
        assert len(self.session._answering) <= LIMITS.responses_max

    def teardown(self) -> None:
        self.rehearsal.settle()
        if not self.session.is_closed:
            self.referee.end()
            assert not len(self.session._answering)
            assert not self.session._playback.is_busy
        assert self.wallet.reserved == 0


TestAbilities = AbleMachine.TestCase
TestAbilities.settings = settings(stateful_step_count=40)
