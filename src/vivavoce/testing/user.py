"""An invented user of a connection: speaks, writes, shows, interrupts, calls, approves, deletes, errs; all by a seed.

What it does is legal or an honest mistake; what comes back is watched by a `Referee`. Function calls and requests for
approval are answered, but by the task that acts: who listens must never wait to send. Invariant: every error that it
gets is one it can explain.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Literal

from vivavoce.audio import convert
from vivavoce.audio.formats import ULAW_8K
from vivavoce.client.connection import Connection
from vivavoce.errors import ConnectionClosed, LocalProtocolError
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, given
from vivavoce.protocol.codec import Dialect
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputText,
    Item,
    ItemReference,
    McpApprovalRequest,
    McpApprovalResponse,
    Message,
)

from .referee import Referee
from .sounds import silence, tone

__all__ = ["User"]

PAUSES_S_MAX = (0.1, 3.0, 3.0, 3.0, 15.0)
SPEECH_CHUNK_MS = 100

SENTENCES = (
    "hello",
    "what a day",
    "tell me a story. a long one, with a fox. and a river in it",
    'call weather {"city": "Paris"}',
    'call one {} call two {"x": [1, 2]}',
    'call look_up {"what": "foxes"}',
    'call write_down {"what": "a fox"} call look_up {"what": "rivers"}',
    "call break_down {}",
)
IMAGE = "data:image/png;base64,iVBORw0KGgo="
FUNCTION = cfg.FunctionTool(name="weather", parameters={"type": "object"})
SERVERS = (
    *2 * (cfg.McpTool(server_label="notes", server_url="https://notes.example", require_approval="never"),),
    *2 * (cfg.McpTool(server_label="notes", server_url="https://notes.example", require_approval="always"),),
    cfg.McpTool(server_label="lost", server_url="https://unreachable.example"),
)
DETECTIONS: tuple[cfg.TurnDetection | None, ...] = (
    None,
    cfg.ServerVad(silence_duration_ms=200),
    cfg.ServerVad(silence_duration_ms=500, interrupt_response=False),
    cfg.ServerVad(silence_duration_ms=800, create_response=False),
    *2 * (cfg.ServerVad(idle_timeout_ms=5_000),),
    cfg.SemanticVad(eagerness="high"),
    cfg.SemanticVad(),
)
REDUCTIONS = (None, None, cfg.NoiseReduction(type="near_field"), cfg.NoiseReduction(type="far_field", strength=0.5))
TRUNCATIONS: tuple[cfg.Truncation, ...] = (
    "auto",
    "disabled",
    cfg.RetentionRatio(retention_ratio=0.5),
    cfg.RetentionRatio(retention_ratio=0.0, token_limits=cfg.TokenLimits(post_instructions=40)),
)
LOGPROBS: tuple[Literal["item.input_audio_transcription.logprobs"], ...] = ("item.input_audio_transcription.logprobs",)

Kind = Literal["realtime", "transcription"]

HONEST_MISTAKES = frozenset(
    {
        "conversation_already_has_active_response",
        "response_cancel_not_active",
        "input_audio_buffer_commit_empty",
        "input_audio_buffer_full",
        "item_delete_invalid_item_id",
        "item_retrieve_invalid_item_id",
        "item_truncate_invalid_item_id",
        "item_create_invalid_previous_item_id",
        "unsupported_content_type",
        "invalid_tool_call_id",
        "invalid_value",
        "invalid_json",
        "conversation_full",
        "too_many_responses",
        "server_stopping",
        "cannot_update_voice",
        "missing_required_parameter",
    }
)
"""Errors that a user who acts at random earns."""

FAULTS = frozenset({"scripted_failure", "engine_error", "too_much_work"})
"""Errors that the server's engines earn."""

ENDS = frozenset({"budget_exceeded", "session_expired"})
"""Errors that end a session."""


class User:
    """One user. Run `listen` and `act` as two tasks; `closed` says how it ended, `heard` counts the events."""

    def __init__(
        self,
        connection: Connection,
        random: Random,
        *,
        steps: int,
        read_pause_s_max: float,
        kind: Kind = "realtime",
        dialect: Dialect = "ga",
    ) -> None:
        self.connection = connection
        self.referee = Referee(dialect)
        self.heard = 0
        self.was_sent_off = False
        """Whether the server ended the session for a reason that it named."""
        self._kind = kind
        self._dialect = dialect
        self.closed: ConnectionClosed | None = None
        self.is_deaf = False
        self._random = random
        self._steps = steps
        self._read_pause_s_max = read_pause_s_max
        self._hearing = asyncio.Event()
        self._answers: deque[Item] = deque()

    # --- listening ----------------------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Take events until the connection ends."""
        try:
            while True:
                if self.is_deaf:
                    await self._hearing.wait()
                if self._read_pause_s_max:
                    await asyncio.sleep(self._random.uniform(0, self._read_pause_s_max))
                self._take(await self.connection.recv())
        except ConnectionClosed as closed:
            self.closed = self.closed or closed

    def hear_again(self) -> None:
        """End a deafness."""
        self.is_deaf = False
        self._hearing.set()

    async def leave(self) -> None:
        """Say goodbye, unless that has been said already."""
        if self.closed is None:
            self.closed = ConnectionClosed(1000)
            await self.connection.close(1000)

    def _take(self, event: ev.AnyServerEvent | ev.Unknown) -> None:
        assert not isinstance(event, ev.Unknown), f"the server invents events: {event}"
        self.heard += 1
        self.referee.server(event)
        match event:
            case ev.ErrorEvent():
                known = FAULTS if event.error.type == "server_error" else HONEST_MISTAKES | ENDS
                assert event.error.code in known, f"an error that nobody earned: {event.error}"
                self.was_sent_off = self.was_sent_off or event.error.code in ENDS
            case ev.ResponseDone() if event.response.status == "completed":
                for item in event.response.output:
                    if isinstance(item, FunctionCall):
                        self._answers.append(FunctionCallOutput(call_id=given(item.call_id, ""), output="42"))
                    elif isinstance(item, McpApprovalRequest):
                        approve = self._random.random() < 0.7
                        self._answers.append(
                            McpApprovalResponse(approval_request_id=given(item.id, ""), approve=approve)
                        )

    # --- acting -------------------------------------------------------------------------------------------------------

    async def act(self) -> None:
        """Do one thing after the other, with pauses; at the end nothing is waited for any more."""
        actions = self._actions()
        weights = [weight for weight, _ in actions]
        try:
            for first in (self._configure, self._equip):
                if self._kind == "realtime" and self._random.random() < 0.8:
                    with self._where_it_can_be_said():
                        await first()
            for _ in range(self._steps):
                await asyncio.sleep(self._random.uniform(0, self._random.choice(PAUSES_S_MAX)))
                if self._answers:
                    await self._answer()
                    continue
                (chosen,) = self._random.choices(actions, weights)
                with self._where_it_can_be_said():
                    await chosen[1]()
            await self._calm_down()
        except ConnectionClosed:
            pass  # whoever listens knows how

    @contextmanager
    def _where_it_can_be_said(self) -> Iterator[None]:
        try:
            yield
        except LocalProtocolError:
            assert self._dialect == "beta", "the GA dialect can say everything"

    def _actions(self) -> tuple[tuple[int, Callable[[], Awaitable[None]]], ...]:
        """What the user may do, with weights."""
        listening = (
            (6, self._speak),
            (2, self._commit),
            (2, self._delete),
            (1, self._retrieve),
            (2, self._configure),
            (1, self._clear),
            (1, self._hand_in_audio),
        )
        if self._kind == "transcription":
            return listening
        return (
            *listening,
            (6, self._write),
            (2, self._cancel),
            (2, self._truncate),
            (2, self._ask_aside),
            (2, self._equip),
            (1, self._show),
            (1, self._set_limits),
        )

    async def _calm_down(self) -> None:
        """No timeout and no open turn shall keep the conversation going."""
        quiet = cfg.AudioInput(turn_detection=None)
        if self._kind == "transcription":
            audio = cfg.TranscriptionAudioConfig(input=quiet)
            await self.connection.update_session(cfg.TranscriptionSession(audio=audio))
        else:
            await self.connection.update_session(cfg.RealtimeSession(audio=cfg.AudioConfig(input=quiet)))

    async def _answer(self) -> None:
        while self._answers:
            await self.connection.create_item(self._answers.popleft())
        await self.connection.create_response()

    async def _write(self) -> None:
        text = self._random.choice(SENTENCES)
        after = self._random.choice((*self._item_ids(), "root", "item_nowhere"))
        item = Message(role="user", content=(InputText(text=text),))
        if self._random.random() < 0.8:
            await self.connection.create_item(item)
        else:
            await self.connection.create_item(item, after=after)
        if self._random.random() < 0.8:
            params = (ev.ResponseParams(), ev.ResponseParams(output_modalities=("text",)))
            await self.connection.create_response(self._random.choice(params))

    async def _speak(self) -> None:
        """A turn in real time, or all at once; into an answer or not, as it happens."""
        speech = bytes(tone(self._random.randint(100, 1_500)) + silence(self._random.randint(0, 900)))
        step = 48 * SPEECH_CHUNK_MS
        if isinstance(self._format(), cfg.PcmuFormat):
            speech, step = convert.encode(array("h", speech)[::3].tobytes(), ULAW_8K), 8 * SPEECH_CHUNK_MS
        step += self._random.choice((0, 0, 1))  # samples need not come whole
        paced = self._random.random() < 0.5
        for start in range(0, len(speech), step):
            await self.connection.append_audio(speech[start : start + step])
            if paced:
                await asyncio.sleep(SPEECH_CHUNK_MS / 1000)

    def _format(self) -> object:
        """The format that the server takes, as far as it has said so."""
        session = self.connection.conversation.session
        audio = given(session.audio, None) if session is not None else None
        into = given(audio.input, None) if audio is not None else None
        return given(into.format, None) if into is not None else None

    async def _commit(self) -> None:
        await self.connection.commit_audio()
        if self._kind == "realtime" and self._random.random() < 0.5:
            await self.connection.create_response()

    async def _cancel(self) -> None:
        await self.connection.cancel_response()

    async def _delete(self) -> None:
        await self.connection.send(ev.ConversationItemDelete(item_id=self._any_item()))

    async def _retrieve(self) -> None:
        await self.connection.send(ev.ConversationItemRetrieve(item_id=self._any_item()))

    async def _truncate(self) -> None:
        item_id = self._any_item()
        entry = self.connection.conversation.entry(item_id)
        heard_ms = self._random.randint(0, entry.audio_ms + 100 if entry else 1_000)
        await self.connection.truncate(item_id, heard_ms)

    async def _clear(self) -> None:
        await self.connection.send(ev.InputAudioBufferClear())

    async def _configure(self) -> None:
        listening = cfg.AudioInput(
            format=self._random.choice((UNSET, UNSET, cfg.PcmFormat(), cfg.PcmuFormat())),
            turn_detection=self._random.choice(DETECTIONS),
            transcription=self._random.choice((None, cfg.Transcription(model="whisper-1"))),
            noise_reduction=self._random.choice(REDUCTIONS),
        )
        include = self._random.choice((UNSET, UNSET, None, LOGPROBS))
        if self._kind == "transcription":
            audio = cfg.TranscriptionAudioConfig(input=listening)
            await self.connection.update_session(cfg.TranscriptionSession(audio=audio, include=include))
            return
        speaking = cfg.AudioOutput(
            voice=self._random.choice((UNSET, UNSET, "cedar", "marin")), speed=self._random.choice((UNSET, 1.0, 1.5))
        )
        await self.connection.update_session(
            cfg.RealtimeSession(
                instructions=self._random.choice(("be brief", "be long")),
                include=include,
                audio=cfg.AudioConfig(input=listening, output=speaking),
            )
        )

    async def _equip(self) -> None:
        """Other tools."""
        tools = self._random.choice(((), *((FUNCTION, server) for server in SERVERS)))
        choices: tuple[Literal["auto", "none", "required"], ...] = ("auto", "auto", "auto", "none", "required")
        choice = self._random.choice(choices)
        await self.connection.update_session(cfg.RealtimeSession(tools=tools, tool_choice=choice))

    async def _set_limits(self) -> None:
        """Of the context, and of an answer."""
        limits: tuple[int | Literal["inf"], ...] = ("inf", "inf", 3)
        truncation, tokens = self._random.choice(TRUNCATIONS), self._random.choice(limits)
        await self.connection.update_session(cfg.RealtimeSession(truncation=truncation, max_output_tokens=tokens))

    async def _show(self) -> None:
        """An image, with a question."""
        content = (InputImage(image_url=IMAGE), InputText(text="what is this"))
        await self.connection.create_item(Message(role="user", content=content))
        await self.connection.create_response()

    async def _hand_in_audio(self) -> None:
        """A spoken message that was recorded before."""
        audio = InputAudio(audio=bytes(tone(200)), transcript=self._random.choice((UNSET, "recorded")))
        await self.connection.create_item(Message(role="user", content=(audio,)))
        if self._kind == "realtime":
            await self.connection.create_response()

    async def _ask_aside(self) -> None:
        """A response outside the conversation."""
        item_ids = self._item_ids()
        context = tuple(ItemReference(id=item_id) for item_id in item_ids[-2:])
        message = Message(role="user", content=(InputText(text=self._random.choice(SENTENCES)),))
        await self.connection.create_response(
            ev.ResponseParams(conversation="none", input=(*context, message), output_modalities=("text",))
        )

    def _item_ids(self) -> tuple[str, ...]:
        return self.connection.conversation.item_ids

    def _any_item(self) -> str:
        return self._random.choice((*self._item_ids(), "item_nowhere"))
