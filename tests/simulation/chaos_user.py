"""Who uses a session whose line is cut: what they do, by a seed, and what they can see of it."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from vivavoce.client.acks import Ack
from vivavoce.client.player import VirtualPlayer
from vivavoce.client.session import Session
from vivavoce.errors import ResponseFailed, ServerError
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.items import Message, user_message
from vivavoce.testing.sounds import silence, tone
from vivavoce.testing.virtual_time import VirtualTimeLoop

CHUNK_MS = 100
FIRST_WORD_MS = 400
"""Of an answer that was cut off before, no word was heard."""
PATIENCE_S = 3_600.0
QUIET_S = 8.0
"""Nothing goes on any more: longer than any engine, tool or wait takes."""


# --- what the application sees ----------------------------------------------------------------------------------------


class Speaker(VirtualPlayer):
    """A player that counts what it is given."""

    def __init__(self) -> None:
        super().__init__(keep_s_max=1e6)
        self.given: Counter[str] = Counter()

    def play(self, item_id: str, audio: bytes, format: Any) -> None:
        self.given[item_id] += len(audio)
        super().play(item_id, audio, format)


@dataclass
class Seen:
    """Everything that an application can know, noted by one that only looks."""

    words: dict[str, str] = field(default_factory=dict)
    """Of each item, what came by deltas."""
    sound: Counter[str] = field(default_factory=Counter)
    done: dict[str, ev.Response] = field(default_factory=dict)  # type: ignore[name-defined]
    begun: dict[str, str] = field(default_factory=dict)
    """Responses, and which request each answers, as it says itself."""
    said: set[str] = field(default_factory=set)
    """Responses of which something came."""
    lost: list[str] = field(default_factory=list)
    errors: list[Any] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    appended: Counter[str] = field(default_factory=Counter)
    completed: Counter[str] = field(default_factory=Counter)
    deleted: set[str] = field(default_factory=set)
    truncated: set[str] = field(default_factory=set)
    event_ids: Counter[str] = field(default_factory=Counter)
    orders: list[tuple[str, ...]] = field(default_factory=list)
    """The order of the items, at each loss."""
    created: set[str] = field(default_factory=set)
    """Items whose creation was acknowledged."""
    mute: set[str] = field(default_factory=set)
    """Answers of which nothing had come when the session was lost, and calls that were not complete."""
    stopped: set[str] = field(default_factory=set)
    """Answers that were interrupted before they were heard."""
    completed_texts: dict[str, str] = field(default_factory=dict)

    def listen_to(self, session: Session) -> None:
        """Note it all."""
        session.on("error", lambda event: self.errors.append(getattr(event, "error", event)))
        session.on("conversation.item.appended", lambda event: self.appended.update([event.item.id]))
        session.on("conversation.item.completed", self._completed)
        session.on("conversation.interrupted", self._interrupted)
        session.on("response.lost", lambda event: self.lost.append(event.response_id))
        session.on("connection.*", lambda event: self._changed(session, event.what))

    def _completed(self, event: Any) -> None:
        self.completed[event.item.id] += 1
        self.completed_texts[event.item.id] = event.item.text

    def _interrupted(self, event: Any) -> None:
        self.stopped.update(heard.item_id for heard in event.heard if heard.samples < FIRST_WORD_MS * 24)
        self.truncated.update(heard.item_id for heard in event.heard)

    def lost_at(self, session: Session) -> None:
        """Note what was there when the connection was lost."""
        self.orders.append(session.conversation.item_ids)
        for view in session.get_items():
            is_half = view.status in ("in_progress", "incomplete")
            is_unheard = not view.text or (is_half and view.audio_ms < FIRST_WORD_MS)
            if (view.role == "assistant" and is_unheard) or (view.type == "function_call" and is_half):
                self.mute.add(view.id)

    def _changed(self, session: Session, what: str) -> None:
        self.changes.append(what)

    def note_losses(self, session: Session) -> None:
        """Look at the conversation in the moment in which its connection is lost, before anything is done about it."""
        changed = session.changed

        def first_noted(what: str, **details: Any) -> None:
            if what == "lost":
                self.lost_at(session)
            changed(what, **details)

        session.changed = first_noted  # type: ignore[method-assign]

    async def read(self, session: Session) -> None:
        """Iterate to the end."""
        async for event in session:
            self.take(event)

    def take(self, event: Any) -> None:
        """One event of the server."""
        self.event_ids[given(getattr(event, "event_id", ""), "")] += 1
        match event:
            case ev.ResponseOutputTextDelta() | ev.ResponseOutputAudioTranscriptDelta():
                self.words[event.item_id] = self.words.get(event.item_id, "") + event.delta
                self.said.add(event.response_id)
            case ev.ResponseOutputAudioDelta():
                self.sound[event.item_id] += len(event.delta)
                self.said.add(event.response_id)
            case ev.ResponseCreated():
                assert event.response.id not in self.begun, "a response has begun twice"
                self.begun[event.response.id] = (given(event.response.metadata, None) or {}).get("n", "")
            case ev.ResponseDone():
                self.done[event.response.id] = event.response
            case ev.ConversationItemDeleted():
                self.deleted.add(event.item_id)
            case ev.ConversationItemTruncated():
                self.truncated.add(event.item_id)


# --- who uses it ------------------------------------------------------------------------------------------------------


class Visitor:
    """A user by a seed. Every question is another one, so that every answer can be told from every other."""

    def __init__(self, session: Session, seen: Seen, random: Random, player: Speaker | None) -> None:
        self.session = session
        self.seen = seen
        self.random = random
        self.player = player
        self.acks: list[tuple[str, Ack[Any]]] = []
        self.runs: Counter[int] = Counter()
        self.outputs: dict[int, str] = {}
        self.spoken: list[tuple[int, Ack[str]]] = []
        """How long each message was that was spoken, and the acknowledgement of its item."""
        self.instructions = "be brief"
        self._number = itertools.count(1)
        self.honest = HONEST
        self._has_detection = False
        self._mine: list[str] = []

    async def prepare(self) -> None:
        """Tools and settings."""
        assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop), "who waits here waits for hours"

        async def look_up(n: int, wait_s: float = 0.0) -> str:
            """Look something up."""
            self.runs[n] += 1
            await asyncio.sleep(wait_s)
            return f"found{n}"

        self.session.add_tool(look_up)
        self.session.update_session(instructions="be brief", turn_detection=None, transcription="whisper-1")

    def noted(self, what: str, ack: Ack[Any]) -> Ack[Any]:
        """Keep it, to see how it is settled."""
        self.acks.append((what, ack))
        return ack

    async def act(self, steps: int) -> None:
        """One thing after the other."""
        actions: tuple[tuple[int, Callable[[], Awaitable[None]]], ...] = (
            (5, self._ask), (2, self._ask_in_haste), (3, self._call), (1, self._call_twice), (3, self._hold_to_talk),
            (4, self._talk), (2, self._aside), (2, self._create), (2, self._delete), (1, self._truncate),
            (2, self._update), (2, self._interrupt), (1, self._clear), (1, self._cancel),
        )  # fmt: skip
        weights = [weight for weight, _ in actions]
        for _ in range(steps):
            (chosen,) = self.random.choices(actions, weights)
            await chosen[1]()
            await asyncio.sleep(self.random.choice((0.0, 0.05, 0.5, 2.0)))
        await self.quiet()

    async def quiet(self) -> None:
        """Wait until nothing goes on."""
        async with asyncio.timeout(PATIENCE_S):
            seen = -1
            while (  # noqa: ASYNC110 - that nothing happens is no event
                seen != (seen := self.seen.event_ids.total())
                or not self.session._caller.is_idle
                or not self.session.is_connected
            ):
                await asyncio.sleep(QUIET_S)

    def _question(self) -> str:
        return f"question{next(self._number)} about foxes"

    def _say(self, text: str) -> None:
        item = user_message(text)
        self.noted(f"say {text}", self.session.create_item(item))
        self.noted(f"answer {text}", self.session.create_response(metadata=self._metadata()))

    def _metadata(self) -> dict[str, str]:
        return {"n": f"{next(self._number)}"}

    async def _settled(self, ack: Ack[Any]) -> Any:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await ack
        except ServerError as error:
            if error.code not in HONEST:
                raise
            return None

    async def _ask(self) -> None:
        text = self._question()
        self._say(text)
        if self.random.random() < 0.6:
            response = await self._settled(self.acks[-1][1])
            if response is not None and self.random.random() < 0.7:
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        await response.text()
                except ResponseFailed as error:
                    if error.code not in ("lost", "session_expired"):
                        raise

    async def _ask_in_haste(self) -> None:
        for _ in range(self.random.randint(2, 3)):
            self._say(self._question())

    async def _call(self) -> None:
        n, wait_s = next(self._number), self.random.choice((0, 0, 0.3, 1.0))
        self._say(f'call look_up {{"n":{n},"wait_s":{wait_s}}}')
        self.outputs[n] = f"found{n}"

    async def _call_twice(self) -> None:
        n, m = next(self._number), next(self._number)
        self._say(f'call look_up {{"n":{n},"wait_s":0.5}} call look_up {{"n":{m},"wait_s":0}}')
        self.outputs |= {n: f"found{n}", m: f"found{m}"}

    async def _detect(self, on: bool) -> None:
        if self._has_detection != on:
            self._has_detection = on
            detection = {"type": "server_vad", "silence_duration_ms": 300} if on else None
            ack = self.noted("detection", self.session.update_session(turn_detection=detection))
            if self.random.random() < 0.5:
                await self._settled(ack)

    async def _hold_to_talk(self) -> None:
        await self._detect(False)
        self.noted("clear", self.session.clear_audio())
        length_ms = self._length_ms()
        await self._stream(tone(length_ms))
        ack = self.noted("commit", self.session.commit_audio())
        self.spoken.append((length_ms, ack))
        self.noted("answer to speech", self.session.create_response(metadata=self._metadata()))
        if self.random.random() < 0.5:
            await self._settled(ack)

    async def _talk(self) -> None:
        """A turn in its own time; into an answer, where one is being spoken."""
        await self._detect(True)
        await self._stream(tone(self._length_ms()) + silence(500))

    def _length_ms(self) -> int:
        return 300 + 20 * (next(self._number) % 50)

    async def _stream(self, speech: bytes) -> None:
        is_paced = self.random.random() < 0.7
        for start in range(0, len(speech), 48 * CHUNK_MS):
            self.noted("append", self.session.append_audio(speech[start : start + 48 * CHUNK_MS]))
            if is_paced:
                await asyncio.sleep(CHUNK_MS / 1000)

    async def _aside(self) -> None:
        text = self._question()
        ack = self.session.create_response(out_of_band=True, input=[user_message(text)], metadata=self._metadata())
        self.noted(f"aside {text}", ack)
        if self.random.random() < 0.5:
            await self._settled(ack)

    async def _create(self) -> None:
        after = self.random.choice((None, None, "root", *self._mine[-2:]))
        item = Message(role="user", content=user_message(f"note{next(self._number)}").content)
        ack = self.noted("create", self.session.create_item(item, after=after))
        if self.random.random() < 0.7 and (created := await self._settled(ack)) is not None:
            self._mine.append(given(created.id, ""))
            self.seen.created.add(given(created.id, ""))

    async def _delete(self) -> None:
        if self._mine:
            item_id = self._mine.pop(self.random.randrange(len(self._mine)))
            self.seen.deleted.add(item_id)
            self.noted("delete", self.session.delete_item(item_id))

    async def _truncate(self) -> None:
        spoken = [view for view in self.session.get_items() if view.audio_ms and view.role == "assistant"]
        if spoken:
            view = self.random.choice(spoken)
            self.seen.truncated.add(view.id)
            self.noted("truncate", self.session.truncate_item(view.id, view.audio_ms // 2))

    async def _update(self) -> None:
        change = f"be brief {next(self._number)}"
        self.noted(f"update {change}", self.session.update_session(instructions=change))
        self.instructions = change

    async def _interrupt(self) -> None:
        self.session.interrupt()

    async def _cancel(self) -> None:
        self.noted("cancel", self.session.cancel_response())

    async def _clear(self) -> None:
        self.noted("clear", self.session.clear_audio())


HONEST = frozenset(
    {
        "response_cancel_not_active",
        "item_truncate_invalid_item_id",
        "item_delete_invalid_item_id",
        "item_create_invalid_previous_item_id",
        "input_audio_buffer_commit_empty",
        "invalid_value",
        "session_expired",  # where there was no silence in which it could be renewed
        "unsupported_content_type",  # after a restart answers are text, which cannot be cut by hand
    }
)
"""Errors that this user earns."""
