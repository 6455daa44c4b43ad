"""Whole conversations from a seed: real server sessions, codec and client, with invented users, weather and engines.

A seed decides everything: what the user does and when, how the line treats messages, how engines dawdle and fail, and
how it ends. `simulate` runs one on virtual time and raises `Broken` where a promise was not kept; the same seed gives
the same trace. Invariant: nothing here waits in real time or rolls dice of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Literal

import msgspec
from msgspec import structs

from vivavoce.client.connection import Connection
from vivavoce.core.conversation import Conversation
from vivavoce.core.limits import Limits
from vivavoce.core.session import Session
from vivavoce.engines import Pipeline
from vivavoce.engines.scripted import (
    ScriptedIncrementalTranscriber,
    ScriptedModelSettings,
    ScriptedNoiseReducer,
    ScriptedSettings,
    ScriptedTranscriber,
    ScriptedTurnSettings,
    ScriptedVadSettings,
    scripted_pipeline,
    speech_in_words,
)
from vivavoce.errors import EngineError
from vivavoce.protocol.codec import Dialect
from vivavoce.protocol.config import McpTool
from vivavoce.protocol.items import McpError, McpListedTool, McpToolExecutionError
from vivavoce.server.auth import Asked
from vivavoce.server.pipelines import Pipelines
from vivavoce.server.runtime import ConnectionLimits
from vivavoce.server.sessions import Sessions
from vivavoce.server.settings import PriceTable, RateLimits, Settings

from .complaints import Complaints
from .network import Line, Weather
from .playbook import counting_ids
from .tool_servers import ScriptedToolServers
from .user import Kind, User
from .virtual_time import run

__all__ = ["Broken", "Scenario", "Trace", "simulate"]

Ending = Literal["goodbye", "cut", "drain", "deaf"]

QUIET_S = 45.0
"""Without a message for so long, nothing is going on any more: longer than engines may be silent."""
PATIENCE_S = 3_600.0
"""A conversation that is not quiet after so long never will be."""
TOOLS_S_MAX = 60.0
"""An MCP server that says nothing is given up after so long, as by the real one."""
DOLLAR_A_TOKEN = PriceTable(text_out=1_000_000.0)
OWN_MESSAGES_MAX = 2
"""What the runtime itself says comes through its full queues: a wake-up, a drain, a close."""
SENT_OFF = {1001, 1006, 1008}
"""How a session may end whose budget is spent; the line can still be cut."""

LIMITS = Limits(
    session_ms_max=24 * 3_600_000, input_ms_max=20_000, turn_ms_max=8_000, items_max=60, engine_silence_ms_max=30_000
)
CONNECTION_LIMITS = ConnectionLimits(
    inbox_bytes_max=20_000, inbox_inputs_max=8, outbox_bytes_max=30_000, outbox_frames_max=32
)


class Broken(AssertionError):
    """A seed under which a promise was not kept; `trace` shows the way to it."""

    def __init__(self, seed: int, what: str, trace: Trace) -> None:
        super().__init__(f"seed {seed}: {what}")
        self.seed = seed
        self.trace = trace


@dataclass(slots=True)
class Trace:
    """What crossed the client's end of the line, one entry a message."""

    entries: list[dict[str, Any]] = field(default_factory=list)

    def take(self, direction: str, message: str) -> None:
        """Note a message; audio as its length and hash."""
        t_ms = round(asyncio.get_running_loop().time() * 1000)
        self.entries.append({"t_ms": t_ms, "dir": direction, "event": _without_audio(json.loads(message))})

    def save(self, path: Path) -> None:
        """Write it, a line an entry."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{json.dumps(entry)}\n" for entry in self.entries))

    @property
    def digest(self) -> str:
        """The same for the same conversation."""
        return hashlib.sha256(json.dumps(self.entries).encode()).hexdigest()


def _without_audio(value: Any) -> Any:
    match value:
        case dict():
            named = value.get("type", "")
            return {
                key: _hashed(inner)
                if isinstance(inner, str) and (key == "audio" or (key == "delta" and named.endswith("audio.delta")))
                else _without_audio(inner)
                for key, inner in value.items()
            }
        case list():
            return [_without_audio(inner) for inner in value]
    return value


def _hashed(audio: str) -> dict[str, Any]:
    return {"chars": len(audio), "sha256": hashlib.sha256(audio.encode()).hexdigest()[:16]}


# --- what a seed decides ----------------------------------------------------------------------------------------------


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One seed, spelled out."""

    seed: int
    dialect: Dialect
    kind: Kind
    weather: Weather
    ending: Ending
    ends_after_s: float
    steps: int
    read_pause_s_max: float
    transcriber: ScriptedSettings
    language_model: ScriptedSettings
    synthesizer: ScriptedSettings
    vad: ScriptedVadSettings
    noise_reducer: ScriptedVadSettings
    turn_detector: ScriptedTurnSettings
    context_tokens: int
    tools_delay_s: float
    rate_limits: RateLimits
    budget: float | None
    hears_along: bool
    """Whether its transcriber hears a turn while it is spoken."""

    @classmethod
    def of(cls, seed: int) -> Scenario:
        """What the seed decides."""
        random = Random(seed)  # noqa: S311
        return cls(
            seed=seed,
            dialect=random.choice(("ga", "ga", "ga", "beta")),
            weather=Weather(
                delay_s_max=random.choice((0.0, 0.01, 0.2)),
                stall_share=random.choice((0.0, 0.0, 0.02)),
                stall_s_max=5.0,
                messages_max=random.choice((4, 256)),
            ),
            ending=random.choice(("goodbye", "goodbye", "goodbye", "cut", "drain", "deaf")),
            ends_after_s=random.uniform(0, 60),
            steps=random.randint(5, 40),
            read_pause_s_max=random.choice((0.0, 0.0, 0.5)),
            kind=random.choice(("realtime", "realtime", "realtime", "realtime", "transcription")),
            transcriber=_mood(random),
            language_model=_mood(random),
            synthesizer=_mood(random),
            vad=ScriptedVadSettings(fail_at_frame=random.choice((*[None] * 6, 60, 300))),
            noise_reducer=ScriptedVadSettings(fail_at_frame=random.choice((None, None, None, 30, 200))),
            turn_detector=ScriptedTurnSettings(
                first_delay_s=random.choice((0.0, 0.1, 0.5, 3.0)),
                fail_at_piece=random.choice((None, None, None, 1)),
                ignore_cancel=random.random() < 0.2,
                complete_ms_min=random.choice((0, 1_000)),
            ),
            context_tokens=random.choice((32_000, 32_000, 32_000, 200, 100)),
            tools_delay_s=random.choice((0.0, 0.1, 0.1, 2.0, 10 * TOOLS_S_MAX)),
            rate_limits=RateLimits(
                requests_per_minute=random.choice((*[10_000] * 7, 4)),
                tokens_per_minute=random.choice((*[10_000_000] * 7, 200)),
            ),
            budget=random.choice((None, None, None, None, None, None, 20.0)),
            hears_along=random.random() < 0.5,
        )

    def pipeline(self) -> Pipeline:
        """Its engines."""
        model = ScriptedModelSettings(**structs.asdict(self.language_model), context_tokens=self.context_tokens)
        pipeline = scripted_pipeline(
            vad=self.vad,
            transcriber=self.transcriber,
            language_model=model,
            synthesizer=self.synthesizer,
            turn_detector=self.turn_detector,
        )
        transcriber = ScriptedIncrementalTranscriber if self.hears_along else ScriptedTranscriber
        return replace(
            pipeline,
            transcriber=transcriber(self.transcriber, speech_in_words, hears_silence=False),
            noise_reducer=ScriptedNoiseReducer(self.noise_reducer),
        )

    def settings(self) -> Settings:
        """Its server."""
        return Settings(
            pipeline="scripted",
            session_limits=LIMITS,
            connection_limits=CONNECTION_LIMITS,
            rate_limits=self.rate_limits,
            prices={"any": DOLLAR_A_TOKEN},
            budget=self.budget,
        )


def _mood(random: Random) -> ScriptedSettings:
    """How an engine feels today."""
    return ScriptedSettings(
        first_delay_s=random.choice((0.0, 0.05, 0.5, 0.5, 2.0)),
        piece_delay_s=random.choice((0.0, 0.01, 0.05, 0.3)),
        fail_at_piece=random.choice((*[None] * 9, 1, 3, 7)),
        ignore_cancel=random.random() < 0.2,
    )


class _SlowToolServers(ScriptedToolServers):
    """MCP servers that take their time, or never answer and are given up."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    async def list_tools(self, server: McpTool) -> tuple[McpListedTool, ...]:
        if not await self._answers():
            raise EngineError("The MCP server does not answer.", code="mcp_timeout")
        return await super().list_tools(server)

    async def call(self, server: McpTool, name: str, arguments: str) -> str | McpError:
        if not await self._answers():
            return McpToolExecutionError(message="The MCP server does not answer.")
        return await super().call(server, name, arguments)

    async def _answers(self) -> bool:
        await asyncio.sleep(min(self._delay_s, TOOLS_S_MAX))
        return self._delay_s < TOOLS_S_MAX


# --- running one ------------------------------------------------------------------------------------------------------


def simulate(scenario: Scenario, *, pipeline: Pipeline | None = None) -> Trace:
    """Run it; `pipeline` replaces its engines. Raises `Broken`."""
    trace = Trace()
    try:
        run(_Simulation(scenario, trace, pipeline or scenario.pipeline()).run())
    except (AssertionError, ExceptionGroup) as error:
        causes = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
        raise Broken(scenario.seed, "; ".join(f"{type(cause).__name__}: {cause}" for cause in causes), trace) from error
    return trace


class _Simulation:
    """One conversation from handshake to the last task."""

    def __init__(self, scenario: Scenario, trace: Trace, pipeline: Pipeline) -> None:
        self._scenario = scenario
        self._trace = trace
        self._pipelines = Pipelines({"scripted": pipeline}, default="scripted", models={})
        self._sessions = Sessions(
            scenario.settings(),
            self._pipelines,
            wall_s=lambda: 0.0,
            new_ids=counting_ids,
            tool_servers=lambda: _SlowToolServers(scenario.tools_delay_s),
        )
        self._log = Complaints()
        self._longest_queues: tuple[int, ...] = (0, 0)

    async def run(self) -> None:
        before = asyncio.all_tasks()
        with self._log:
            # Not from the scenario's own generator: how the seed is spelled out must not change what happens.
            random = Random(f"{self._scenario.seed} weather")  # noqa: S311
            async with Line(random, self._scenario.weather, self._witness) as line:
                await self._converse(line)
            await self._pipelines.close()
            # Engines that ignored their cancellation come to an end by themselves.
            await asyncio.sleep(PATIENCE_S)
        left = asyncio.all_tasks() - before
        assert not left, f"tasks are left: {left}"
        assert not self._log.records, f"the server complained: {self._log.records}"

    async def _converse(self, line: Line) -> None:
        scenario = self._scenario
        query = {"intent": "transcription"} if scenario.kind == "transcription" else {"model": "any"}
        headers = {"openai-beta": "realtime=v1"} if scenario.dialect == "beta" else {}
        serving = asyncio.create_task(self._sessions.serve(Asked("openai", headers, query), line.server))
        connection = Connection(line.client, scenario.dialect)
        await connection.open()
        (runtime,) = self._sessions
        assert isinstance(runtime.session, Session)
        conversation = runtime.session.conversation
        user = User(
            connection,
            Random(f"{scenario.seed} user"),  # noqa: S311
            steps=scenario.steps,
            read_pause_s_max=scenario.read_pause_s_max,
            kind=scenario.kind,
            dialect=scenario.dialect,
        )
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(user.listen())
            acting = group.create_task(user.act())
            await self._end(user, line, acting)
            await asyncio.wait((listening,), timeout=PATIENCE_S)
            assert listening.done(), "the connection does not end"
            acting.cancel()
        await asyncio.wait((serving,), timeout=PATIENCE_S)
        assert serving.done(), "the session does not end"
        serving.result()
        self._judge(user, conversation)

    async def _end(self, user: User, line: Line, acting: asyncio.Task[None]) -> None:
        scenario = self._scenario
        if scenario.ending == "goodbye":
            await asyncio.wait((acting,))
            await self._quiet(user)
            await user.leave()
            return
        await asyncio.sleep(scenario.ends_after_s)
        match scenario.ending:
            case "cut":
                await line.cut()
            case "drain":
                await self._sessions.drain(PATIENCE_S)
            case "deaf":
                user.is_deaf = True
                await asyncio.wait((acting,), timeout=PATIENCE_S)
                user.hear_again()
                if not user.closed:
                    await self._quiet(user)
                    await user.leave()

    async def _quiet(self, user: User) -> None:
        """Wait until nothing has been said or heard for long."""
        clock = asyncio.get_running_loop().time
        began = clock()
        seen = -1
        while seen != (seen := len(self._trace.entries) + user.heard):
            assert clock() - began < PATIENCE_S, "the conversation never becomes quiet"
            await asyncio.sleep(QUIET_S)

    # --- promises -----------------------------------------------------------------------------------------------------

    def _witness(self, direction: str, message: str) -> None:
        self._trace.take(direction, message)
        for runtime in self._sessions:
            self._longest_queues = tuple(map(max, self._longest_queues, runtime.waiting))

    def _judge(self, user: User, server: Conversation) -> None:
        """What must hold when all is over."""
        inputs, frames = self._longest_queues
        assert inputs <= CONNECTION_LIMITS.inbox_inputs_max + OWN_MESSAGES_MAX, f"{inputs} inputs were waiting"
        assert frames <= CONNECTION_LIMITS.outbox_frames_max + OWN_MESSAGES_MAX, f"{frames} frames were waiting"
        if user.closed is None or user.closed.code not in (SENT_OFF if user.was_sent_off else self._codes()):
            raise AssertionError(f"{self._scenario.ending} ended with {user.closed}")
        if user.closed.code not in {1000, 1001} and not user.was_sent_off:
            return  # messages were lost with the line
        user.referee.end(is_cut=user.closed.code != 1000)
        _compare(self._scenario.dialect, server, user.connection.conversation)

    def _codes(self) -> set[int]:
        match self._scenario.ending:
            case "goodbye":
                return {1000}
            case "cut":
                return {1006}
            case "drain":
                return {1001}
            case "deaf":
                return {1000, 1008}


def _compare(dialect: Dialect, server: Conversation, client: Conversation) -> None:
    """The client's replica must equal the server's conversation; beta cannot say all of sessions and responses."""
    assert client.item_ids == server.item_ids, f"order: client {client.item_ids}, server {server.item_ids}"
    for mine, theirs in zip(server.items, client.items, strict=True):
        assert mine == theirs, f"item: client {theirs}, server {mine}"
    for item_id in server.item_ids:
        one, other = server.entry(item_id), client.entry(item_id)
        assert one is not None
        assert other is not None
        assert one.audio == other.audio, f"audio of {item_id}: client {len(other.audio)}, server {len(one.audio)} bytes"
    if dialect == "ga":
        assert client.responses == server.responses, "the client's responses differ from the server's"
        assert client.session == server.session, "the client's session differs from the server's"
