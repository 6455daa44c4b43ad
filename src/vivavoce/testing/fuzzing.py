"""A session under fire: damaged frames, sent to the real runtime and codec, each of which must have exactly its answer.

`fuzz` runs one session on virtual time. After every frame the connection must answer a `session.update`; the rules of
the protocol are watched by a `Referee`, the server's log and its tasks as well. The same seed does the same.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from vivavoce.core.messages import LOOKS, AudioSynthesized, Close, Effect, Input, Send
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.core.translating import Translating
from vivavoce.engines import Pipeline
from vivavoce.engines.scripted import ScriptedModelSettings, ScriptedSettings, scripted_pipeline
from vivavoce.errors import ConnectionClosed
from vivavoce.protocol import events as ev
from vivavoce.protocol import translation as tr
from vivavoce.protocol.base import given
from vivavoce.protocol.codec import ServerCodec, TranslationServerCodec
from vivavoce.server.runtime import Codec, Runtime
from vivavoce.server.surroundings import abilities

from .complaints import Complaints
from .damage import Vocabulary, calming_event, frames
from .matching import brief
from .playbook import Machine, counting_ids
from .real_time_player import RealTimePlayer
from .referee import Referee
from .tool_servers import ScriptedToolServers
from .virtual_time import run

__all__ = ["ANSWERS", "Tally", "fuzz"]

STEP_S = 0.002
"""Between two frames: less than an answer takes, so that frames come into answers under way."""
PATIENCE_S = 60.0
CALM_EVERY = 10
"""Frames after which a session is calmed down."""

ANSWERS: dict[type[ev.ClientEvent], tuple[str, ...]] = {
    ev.SessionUpdate: ("session.updated",),
    ev.InputAudioBufferAppend: (),
    ev.InputAudioBufferCommit: (
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ),
    ev.InputAudioBufferClear: ("input_audio_buffer.cleared",),
    ev.OutputAudioBufferClear: ("output_audio_buffer.cleared",),
    ev.ConversationItemCreate: ("conversation.item.added", "conversation.item.done"),
    ev.ConversationItemDelete: ("conversation.item.deleted",),
    ev.ConversationItemRetrieve: ("conversation.item.retrieved",),
    ev.ConversationItemTruncate: ("conversation.item.truncated",),
    ev.ResponseCreate: ("response.created",),
    tr.TranslationSessionUpdate: ("session.updated",),
    tr.SessionInputAudioBufferAppend: (),
    tr.SessionClose: (),
}
"""What a client event that succeeds is answered with, first of all. A cancellation closes what it ends instead."""


# --- a session under fire ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """What came of it."""

    frames: int = 0
    sessions: int = 0
    succeeded: Counter[str] = field(default_factory=Counter)
    """Frames that were events and were done, by type."""
    refused: Counter[str] = field(default_factory=Counter)
    """Errors, by code."""
    sent: int = 0
    """Messages from the server."""

    def __iadd__(self, other: Tally) -> Tally:
        self.frames, self.sessions, self.sent = (
            self.frames + other.frames,
            self.sessions + other.sessions,
            self.sent + other.sent,
        )
        self.succeeded += other.succeeded
        self.refused += other.refused
        return self


def fuzz(vocabulary: Vocabulary, seed: int, frames_max: int, *, playback: bool = False) -> Tally:
    """One session, so many frames, on virtual time. Raises `AssertionError` where a promise was not kept."""
    return run(_Range(vocabulary, seed, playback).run(frames_max))


class _Wire:
    """The server's end of a connection that may carry anything."""

    def __init__(self) -> None:
        self.to_server: asyncio.Queue[str | bytes | ConnectionClosed] = asyncio.Queue()
        self.sent: list[bytes] = []
        self.closed: ConnectionClosed | None = None

    async def send(self, message: bytes) -> None:
        self.sent.append(message)

    async def receive(self) -> str | bytes:
        message = await self.to_server.get()
        if isinstance(message, ConnectionClosed):
            raise message
        return message

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = self.closed or ConnectionClosed(code, reason)


class _Witnessed:
    """A machine, with a record of what each input led to, and an eye on what the runtime takes for granted."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.is_closed = False
        self.answers: list[tuple[Input, list[Effect]]] = []
        self.events: list[ev.AnyServerEvent] = []

    def handle(self, input: Input, now_ms: int, /) -> list[Effect]:
        due_ms = self.deadline()
        effects = self._machine.handle(input, now_ms)
        if isinstance(input, AudioSynthesized) or all(type(effect) in LOOKS for effect in effects):
            now_due_ms = self.deadline()  # at which the runtime will not look
            assert now_due_ms is None or (due_ms is not None and now_due_ms >= due_ms), f"due sooner after {input}"
        self.events += [effect.event for effect in effects if isinstance(effect, Send)]
        if isinstance(input, ev.ClientEvent | ev.ErrorDetail):
            self.answers.append((input, effects))
        return effects

    def deadline(self) -> int | None:
        return self._machine.deadline()


class _Range:
    """One session, one source of frames, and the one who keeps the score."""

    def __init__(self, vocabulary: Vocabulary, seed: int, playback: bool) -> None:
        self._vocabulary: Vocabulary = vocabulary
        self._playback = playback
        self._random = Random(f"{vocabulary} {playback} {seed}")  # noqa: S311
        self._pipeline = _pipeline()
        self._machine = _Witnessed(self._new_machine())
        self._wire = _Wire()
        self._referee = None if vocabulary == "translation" else Referee()
        self._tally = Tally(sessions=1)

    def _new_machine(self) -> Machine:
        able = abilities(self._pipeline)
        if self._vocabulary == "translation":
            return Translating(id="sess_1", model="any", ids=counting_ids(), expires_at=0, abilities=able)
        given = Surroundings(abilities=able, player=RealTimePlayer() if self._playback else None)
        return Session(id="sess_1", model="any", ids=counting_ids(), expires_at=0, surroundings=given)

    async def run(self, frames_max: int) -> Tally:
        codec: Codec = TranslationServerCodec()
        if self._vocabulary != "translation":
            codec = ServerCodec(self._vocabulary, playback=self._playback)
        before, complaints = asyncio.all_tasks(), Complaints()
        with complaints:
            runtime = Runtime(self._machine, self._pipeline, codec, self._wire, mcp=ScriptedToolServers())
            running = asyncio.create_task(runtime.run())
            source = frames(self._vocabulary, self._random)
            for number in range(frames_max):
                if not await self._shoot(next(source), number):
                    break
            self._wire.to_server.put_nowait(ConnectionClosed(1000))
            await running
        assert not complaints.records, f"the server complained: {complaints.records}"
        left = asyncio.all_tasks() - before
        assert not left, f"tasks are left: {left}"
        self._tally.sent = len(self._machine.events)
        return self._tally

    async def _shoot(self, frame: str | bytes, number: int) -> bool:
        """Send it, and what must always be answered after it; False where the frame ended the session."""
        machine, marker = self._machine, f"marker {number}"
        begun = len(machine.answers), len(machine.events), len(self._wire.sent)
        self._wire.to_server.put_nowait(frame)
        self._wire.to_server.put_nowait(json.dumps({**self._update(number), "event_id": marker}))
        await asyncio.sleep(STEP_S)
        answered = machine.answers[begun[0] :]
        self._tally.frames += 1
        where = f"{self._vocabulary}, frame {number}: {frame[:300]!r}"
        if _is_closing(answered):
            await asyncio.sleep(PATIENCE_S)  # what was said is still translated
            assert self._wire.closed is not None, where
            assert self._wire.closed.code == 1000, where
            return False
        assert self._wire.closed is None, f"the server hangs up: {self._wire.closed}: {where}"
        assert len(answered) >= 2, f"no answer: {where}"
        *answers, (last, effects) = answered
        for input, sent in answers:
            self._judge(input, sent, where)
        assert isinstance(last, ev.ClientEvent), where
        assert last.event_id == marker, where
        assert _types(effects)[:1] == ["session.updated"], f"{_types(effects)} to session.update after {where}"
        self._see(machine.events[begun[1] :], self._wire.sent[begun[2] :], where)
        machine.answers.clear()
        self._wire.sent.clear()
        return True

    def _update(self, number: int) -> dict[str, object]:
        """What must always be answered."""
        if number % CALM_EVERY == 0 or self._vocabulary == "translation":
            return dict(calming_event(self._vocabulary))
        if self._vocabulary == "overview":
            return {"type": "conversation.create", "data": {}}
        return {"type": "session.update", "session": {"type": "realtime"} if self._vocabulary == "ga" else {}}

    def _judge(self, input: Input, effects: list[Effect], where: str) -> None:
        """Each frame has exactly its answer."""
        types = _types(effects)
        assert not any(isinstance(effect, Close) for effect in effects), where
        errors = [effect.event for effect in effects if isinstance(effect, Send) and effect.event.type == "error"]
        if isinstance(input, ev.ErrorDetail):
            assert types == ["error"], f"{types}: {where}"
            assert errors[0].error == input, where  # type: ignore[union-attr]
        elif types[:1] == ["error"]:
            assert len(effects) == 1, f"{types}: {where}"
            assert given(errors[0].error.event_id, None) == given(input.event_id, None), where  # type: ignore[union-attr]
        elif isinstance(input, ev.ResponseCancel):
            assert "response.done" in types, f"{types}: {where}"
        else:
            expected = ANSWERS[type(input)]  # type: ignore[index]
            assert tuple(types[: len(expected)]) == expected, f"{types}: {where}"
        for error in errors:
            self._tally.refused[str(error.error.code)] += 1  # type: ignore[union-attr]
        if types[:1] != ["error"]:
            self._tally.succeeded[input.type] += 1  # type: ignore[union-attr]

    def _see(self, events: list[ev.AnyServerEvent], sent: list[bytes], where: str) -> None:
        """The rules of the protocol hold, and every error has gone out."""
        if self._referee is not None:
            for event in events:
                self._referee.server(event)
        told = [frame for frame in map(json.loads, sent) if frame["type"] == "error"]
        errors = [event for event in events if event.type == "error"]
        assert len(told) == len(errors), f"{brief(errors)} became {told}: {where}"


def _is_closing(answered: list[tuple[Input, list[Effect]]]) -> bool:
    """Whether the client of a translation session asked to leave, and was not refused."""
    inputs: list[tuple[object, list[Effect]]] = list(answered)
    return any(isinstance(input, tr.SessionClose) and "error" not in _types(sent) for input, sent in inputs)


def _types(effects: list[Effect]) -> list[str]:
    return [effect.event.type for effect in effects if isinstance(effect, Send)]


def _pipeline() -> Pipeline:
    """Engines that answer while the next frames come."""
    pace = ScriptedSettings(piece_delay_s=STEP_S)
    model = ScriptedModelSettings(piece_delay_s=5 * STEP_S)
    return scripted_pipeline(transcriber=pace, language_model=model, synthesizer=pace)
