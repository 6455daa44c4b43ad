"""What a chat tells of its session: who says what in which order, what state it is in, what each turn took.

    server's events, what the user writes → Story → Page

A fold without I/O of its own. What is said stands in a queue in the order of the conversation, and only its head grows
on the page; of a spoken answer no more is shown than was really heard. Invariant: what was shown is never taken back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from vivavoce.client.cost import Meter, Spent
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.items import FunctionCall, FunctionCallOutput, Message, Response
from vivavoce.protocol.waterfall import STEPS, Waterfall

from .turn import ON_THE_SERVER, STAGES, Turn
from .voice import Ear, Mouth

State = Literal["listening", "thinking", "speaking"]
Who = Literal["user", "assistant"]
Kind = Literal["tool", "note", "problem"]

HELD_S_MAX = 2.0
"""How long an answer that has begun waits for the transcript of what it answers."""
THINKING_S_MAX = 30.0
"""What is not answered within this is not waited for: a server may well keep silent after a cough."""
NOT_UNDERSTOOD = "(not understood)"
ASIDE_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class Status:
    """What stands in the line of state. Levels are in dBFS, None where nothing is spoken."""

    state: State
    summary: str = ""
    heard_db: float | None = None
    said_db: float | None = None
    is_muted: bool = False


class Page(Protocol):
    """Where a story is told."""

    def grow(self, who: Who, text: str) -> None:
        """All that is to be seen so far of what somebody says; longer from call to call."""

    def close(self, ending: str = "") -> None:
        """It is over; `ending` says how, where that is not plain."""

    def aside(self, kind: Kind, text: str) -> None:
        """A line beside the conversation."""

    def waterfall(self, marks_ms: Mapping[str, float], names: Mapping[str, str]) -> None:
        """Where the time of a turn went: the stages in their order, and what they are called."""

    def show(self, status: Status) -> None:
        """The line of state."""


@dataclass(slots=True, eq=False)
class Said:
    """Something that is said in one item, or written."""

    who: Who
    item_id: str = ""
    text: str = ""
    is_whole: bool = False
    is_cut: bool = False
    since_s: float | None = None
    """When it came to the head of the queue."""


@dataclass(slots=True, eq=False)
class Aside:
    """What is told when all before it has been."""

    tell: Callable[[], None]


@dataclass(slots=True, eq=False)
class _Answer:
    """A response that runs, or was the last of its turn."""

    turn: Turn
    said: list[Said] = field(default_factory=list)


class Story:
    """One chat. `tick` is to be called some ten times a second; `is_idle` is set while nothing is going on."""

    def __init__(
        self,
        page: Page,
        clock: Callable[[], float],
        *,
        ear: Ear | None = None,
        mouth: Mouth | None = None,
        tools: Collection[str] = (),
    ) -> None:
        self.meter: Meter | None = None
        self.title = ""
        self.shows_waterfall = False
        self.is_idle = asyncio.Event()
        self._page, self._clock, self._ear, self._mouth, self._tools = page, clock, ear, mouth, tools
        self._queue: deque[Said | Aside] = deque()
        self._turn = Turn(clock)
        self._answers: dict[str, _Answer] = {}
        self._spent = Spent()
        self._speech_began_ms: int | None = None
        self._waiting_since: float | None = None

    # --- what happens -------------------------------------------------------------------------------------------------

    def wrote(self, text: str) -> None:
        """The user has written something, and waits for the answer."""
        self._begin_turn(self._clock())
        self._queue.append(Said("user", text=text, is_whole=True))
        self._wait()
        self.tick()

    def aside(self, kind: Kind, text: str) -> None:
        """Something beside the conversation, behind what is being said."""
        self._queue.append(Aside(lambda: self._page.aside(kind, text)))
        self.tick()

    def problem(self, text: str) -> None:
        """Something went wrong, and may be why no answer comes."""
        self._waiting_since = None
        self.aside("problem", text)

    def end(self) -> None:
        """There is nothing more to come: show what there is."""
        self.interrupted()
        while self._queue:
            head = self._queue.popleft()
            if isinstance(head, Aside):
                head.tell()
            elif head.text:
                self._page.grow(head.who, head.text)
                self._page.close()

    def interrupted(self) -> None:
        """What is being said is not said to its end."""
        for said in self._queue:
            if isinstance(said, Said) and said.who == "assistant" and not self._is_over(said):
                said.is_cut = True
        self.tick()

    def lost(self) -> None:
        """The connection is gone: nothing that ran goes on."""
        self._answers.clear()
        self._speech_began_ms = self._waiting_since = None
        self.interrupted()

    def take(self, event: ev.AnyServerEvent | ev.Unknown) -> None:
        """An event of the server."""
        match event:
            case ev.InputAudioBufferSpeechStarted():
                self._speech_began_ms = event.audio_start_ms
            case ev.InputAudioBufferSpeechStopped():
                self._end_speech(event.audio_end_ms)
            case ev.InputAudioBufferCommitted():
                self._turn.take(event)
                self._queue.append(Said("user", event.item_id))
                self._wait()
            case ev.ConversationItemInputAudioTranscriptionDelta():
                self._hear(event.item_id, given(event.delta, ""), is_whole=False)
            case ev.ConversationItemInputAudioTranscriptionCompleted():
                self._turn.take(event)
                self._hear(event.item_id, event.transcript.strip() or NOT_UNDERSTOOD, is_whole=True)
            case ev.ConversationItemInputAudioTranscriptionFailed():
                self._hear(event.item_id, NOT_UNDERSTOOD, is_whole=True)
            case ev.ConversationItemAdded(item=FunctionCallOutput() as item):
                self.aside("tool", f"→ {_short(item.output)}")
            case _:
                self._take_response(event)
        self.tick()

    def _take_response(self, event: ev.AnyServerEvent | ev.Unknown) -> None:
        match event:
            case ev.ResponseCreated():
                self._waiting_since = None
                self._answers[event.response.id] = _Answer(self._turn)
            case ev.ResponseOutputItemAdded(item=Message() as item) if event.response_id in self._answers:
                said = Said("assistant", given(item.id, ""))
                self._answers[event.response_id].said.append(said)
                self._queue.append(said)
            case ev.ResponseOutputTextDelta() | ev.ResponseOutputAudioTranscriptDelta():
                if (answer := self._answers.get(event.response_id)) is not None:
                    answer.turn.mark("first_text")
                    for said in answer.said:
                        said.text += event.delta if said.item_id == event.item_id else ""
            case ev.ResponseOutputAudioDelta() if event.response_id in self._answers:
                self._answers[event.response_id].turn.mark("first_audio")
            case ev.ResponseOutputItemDone(item=FunctionCall() as call):
                self._call(call)
            case ev.ResponseOutputItemDone():
                for said in self._said(given(event.item.id, "")):
                    said.is_whole = True
            case ev.ResponseDone():
                self._finish(event.response)

    def _begin_turn(self, ended_at: float) -> None:
        self._turn = Turn(self._clock, ended_at=ended_at)
        self._spent = Spent()

    def _end_speech(self, audio_end_ms: int) -> None:
        began, self._speech_began_ms = self._speech_began_ms or 0, None
        self._begin_turn(self._clock() if self._ear is None else self._ear.speech_ended_at(began, audio_end_ms))

    def _wait(self) -> None:
        self._waiting_since = self._clock()
        self.is_idle.clear()

    def _said(self, item_id: str) -> list[Said]:
        return [said for said in self._queue if isinstance(said, Said) and said.item_id == item_id]

    def _hear(self, item_id: str, text: str, *, is_whole: bool) -> None:
        for said in self._said(item_id):
            said.text = text if is_whole else said.text + text
            said.is_whole = is_whole

    def _call(self, call: FunctionCall) -> None:
        known = "" if call.name in self._tools else "  (there is no such tool here; --tools FILE.py)"
        text = f"{call.name}({_short(call.arguments)}){known}"
        self._queue.append(Aside(lambda: self._page.aside("tool", text)))

    def _finish(self, response: Response) -> None:
        answer = self._answers.pop(response.id, None)
        if answer is None:
            return
        for said in answer.said:
            said.is_whole = True
            said.is_cut = said.is_cut or (response.status == "cancelled" and self._mouth is None)
        if self.meter is not None and response.id in self.meter.responses:
            self._spent += self.meter.responses[response.id]
        details = given(response.status_details, None)
        error = given(details.error, None) if details is not None else None
        if response.status == "failed":
            why = (given(error.message, None) if error is not None else None) or "the response failed"
            self._queue.append(Aside(lambda: self._page.aside("problem", why)))
        elif response.status == "incomplete":
            why = (details.reason if details is not None else None) or "it is not complete"
            self._queue.append(Aside(lambda: self._page.aside("note", f"the answer ends here: {why}")))
        calls = [item for item in response.output if isinstance(item, FunctionCall) and item.name in self._tools]
        if calls and response.status == "completed":
            self._wait()
        elif response.status != "cancelled" or any(said.text for said in answer.said):
            turn, spent, server = answer.turn, self._spent, response.waterfall
            self._queue.append(Aside(lambda: self._sum_up(turn, spent, server)))

    def _sum_up(self, turn: Turn, spent: Spent, server: Waterfall | None) -> None:
        if self.shows_waterfall and turn.marks_ms:
            self._page.waterfall({mark: ms for mark, ms in turn.marks_ms.items() if mark != "done"}, STAGES)
        if self.shows_waterfall and server is not None:
            self._page.aside("note", ON_THE_SERVER)
            self._page.waterfall(server.steps, STEPS)
        facts = [
            f"{name} {turn.marks_ms[mark]:.0f} ms"
            for mark, name in (("first_text", "first word"), ("played", "heard"))
            if mark in turn.marks_ms
        ]
        facts += _facts(spent)
        if facts:
            self._page.aside("note", " · ".join(facts))

    # --- how it is told -----------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What the assistant is doing."""
        if self._speech_began_ms is not None:
            return "listening"
        if self._mouth is not None and self._mouth.is_playing:
            return "speaking"
        if self._answers:
            has_begun = self._mouth is None and any(said.text for one in self._answers.values() for said in one.said)
            return "speaking" if has_begun else "thinking"
        return "listening" if self._waiting_since is None else "thinking"

    @property
    def is_answering(self) -> bool:
        """Whether there is something to interrupt."""
        return bool(self._answers) or (self._mouth is not None and self._mouth.is_playing)

    def tick(self) -> None:
        """Time has passed: show what was heard since, and what stands behind it."""
        now = self._clock()
        if self._waiting_since is not None and now - self._waiting_since > THINKING_S_MAX:
            self._waiting_since = None
        self._time()
        while self._queue:
            head = self._queue[0]
            if isinstance(head, Aside):
                self._queue.popleft()
                head.tell()
            elif not self._tell(head, now):
                break
        self._page.show(self._status())
        is_busy = self._queue or self.is_answering or self._waiting_since or self._speech_began_ms is not None
        self.is_idle.clear() if is_busy else self.is_idle.set()

    def _time(self) -> None:
        """When an answer began to be heard is no event; the playhead knows it."""
        marks, ended_at = self._turn.marks_ms, self._turn.ended_at
        if self._mouth is None or ended_at is None or "first_audio" not in marks or "played" in marks:
            return
        for said in self._queue:
            if isinstance(said, Said) and said.who == "assistant":
                began = self._mouth.began_at(said.item_id)
                if began is not None:
                    # The player has it a little before we are told that it came.
                    marks["played"] = max((began - ended_at) * 1000, marks["first_audio"])
                    return

    def _tell(self, said: Said, now: float) -> bool:
        """Show as much as is to be seen of the head; says whether that was all."""
        said.since_s = now if said.since_s is None else said.since_s
        said.is_cut = said.is_cut or (self._mouth is not None and self._mouth.is_stopped(said.item_id))
        is_over = self._is_over(said)
        visible = self._visible(said, is_over=is_over)
        if visible.strip() or said.who == "user":
            self._page.grow(said.who, visible)
        if is_over:
            self._queue.popleft()
            self._page.close("interrupted" if said.is_cut else "")
        elif said.who == "user" and now - said.since_s > HELD_S_MAX and len(self._queue) > 1:
            self._page.close()
            self._queue.rotate(-1)
            said.since_s = None
        return is_over

    def _visible(self, said: Said, *, is_over: bool) -> str:
        if said.who == "user" or self._mouth is None or (is_over and not said.is_cut):
            return said.text
        return self._mouth.words(said.item_id, said.text, is_whole=said.is_whole)

    def _is_over(self, said: Said) -> bool:
        if said.is_cut or said.who == "user":
            return said.is_cut or said.is_whole
        return said.is_whole and (self._mouth is None or self._mouth.is_heard_out(said.item_id))

    def _status(self) -> Status:
        facts = [self.title] if self.title else []
        if self.meter is not None:
            facts += _facts(self.meter.total, in_all=True)
        return Status(
            self.state,
            " · ".join(facts),
            None if self._ear is None else self._ear.level_db,
            None if self._mouth is None else self._mouth.level_db,
            self._ear is not None and self._ear.is_muted,
        )


def _facts(spent: Spent, *, in_all: bool = False) -> list[str]:
    tokens = spent.tokens
    facts = []
    if tokens.total:
        facts.append(f"{tokens.total:,} tokens" if in_all else f"{tokens.input:,} → {tokens.output:,} tokens")
    if spent.cost:
        facts.append(f"${spent.cost:.4f}")
    return facts


def _short(text: str) -> str:
    return text if len(text) <= ASIDE_CHARS_MAX else f"{text[: ASIDE_CHARS_MAX - 1]}…"
