"""An invented user of a connection: speaks, writes, interrupts, calls functions, deletes, errs; all by a seed.

What it does is legal or an honest mistake; what comes back is watched by a `Referee`. Function calls are answered, but
by the task that acts: who listens must never wait to send. Invariant: every error that it gets is one it can explain.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from random import Random

from vivavoce.client import Connection
from vivavoce.errors import ConnectionClosed
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.items import FunctionCall, FunctionCallOutput, InputText, ItemReference, Message

from .referee import Referee
from .sounds import silence, tone

__all__ = ["User"]

PAUSE_S_MAX = 3.0
SPEECH_CHUNK_MS = 100

SENTENCES = (
    "hello",
    "tell me a story. a long one, with a fox. and a river in it",
    'call weather {"city": "Paris"}',
    'call one {} call two {"x": [1, 2]}',
)

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
    }
)
"""Errors that a user who acts at random earns."""


class User:
    """One user. Run `listen` and `act` as two tasks; `closed` says how it ended, `heard` counts the events."""

    def __init__(self, connection: Connection, random: Random, *, steps: int, read_pause_s_max: float) -> None:
        self.connection = connection
        self.referee: Referee | None = None
        """Watches what comes, where it is set; it knows the GA dialect only."""
        self.heard = 0
        self.closed: ConnectionClosed | None = None
        self.is_deaf = False
        self._random = random
        self._steps = steps
        self._read_pause_s_max = read_pause_s_max
        self._hearing = asyncio.Event()
        self._answers: deque[FunctionCallOutput] = deque()

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
        if self.referee is not None:
            self.referee.server(event)
        match event:
            case ev.ErrorEvent():
                assert event.error.code in HONEST_MISTAKES, f"an error that nobody earned: {event.error}"
            case ev.ResponseDone() if event.response.status == "completed":
                for item in event.response.output:
                    if isinstance(item, FunctionCall):
                        self._answers.append(FunctionCallOutput(call_id=given(item.call_id, ""), output="42"))

    # --- acting -------------------------------------------------------------------------------------------------------

    async def act(self) -> None:
        """Do one thing after the other, with pauses."""
        actions: tuple[tuple[int, Callable[[], Awaitable[None]]], ...] = (
            (6, self._write),
            (6, self._speak),
            (2, self._commit),
            (2, self._cancel),
            (2, self._delete),
            (2, self._truncate),
            (1, self._retrieve),
            (1, self._configure),
            (2, self._ask_aside),
            (1, self._clear),
        )
        weights = [weight for weight, _ in actions]
        try:
            for _ in range(self._steps):
                await asyncio.sleep(self._random.uniform(0, PAUSE_S_MAX))
                if self._answers:
                    await self._answer()
                    continue
                (chosen,) = self._random.choices(actions, weights)
                await chosen[1]()
        except ConnectionClosed:
            pass  # whoever listens knows how

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
        paced = self._random.random() < 0.5
        for start in range(0, len(speech), step):
            await self.connection.append_audio(speech[start : start + step])
            if paced:
                await asyncio.sleep(SPEECH_CHUNK_MS / 1000)

    async def _commit(self) -> None:
        await self.connection.commit_audio()
        if self._random.random() < 0.5:
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
        silence_ms = self._random.choice((200, 500, 800))
        detection = self._random.choice((None, cfg.ServerVad(silence_duration_ms=silence_ms)))
        transcription = self._random.choice((None, cfg.Transcription(model="any")))
        listening = cfg.AudioInput(turn_detection=detection, transcription=transcription)
        instructions = self._random.choice(("be brief", "be long"))
        await self.connection.update_session(
            cfg.RealtimeSession(instructions=instructions, audio=cfg.AudioConfig(input=listening))
        )

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
