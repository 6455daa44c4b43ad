"""Golden traces through the real runtime, over the memory transport on virtual time and over a WebSocket on loopback.

The client says its lines once it has heard as much as it had in the trace; times do not count. On a wire the engines
run beside each other, so that the order between what one says and another says is free: the deltas of each kind of each
item are compared as one stream, what is told about the transcription of an item as another, and all that remains as
one, each exactly. Not here are traces that need a clock (interruptions, timeouts, limits), several answers side by side
or the tools of a server.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
from websockets.asyncio.client import connect

from vivavoce.core.abilities import Abilities
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.engines.scripted import scripted_pipeline
from vivavoce.protocol.codec import Dialect, ServerCodec
from vivavoce.protocol.config import TranscriptionSession
from vivavoce.server import running
from vivavoce.server.runtime import Runtime
from vivavoce.server.settings import settings_of
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.traces import Line, Recorder, difference, load
from vivavoce.testing.virtual_time import run
from vivavoce.transports.memory import pair

TRACES = Path(__file__).parent.parent / "traces"
FOLDERS: dict[Dialect, Path] = {"ga": TRACES, "beta": TRACES / "beta"}
RULES = (
    "t01_connect",
    "t02_session_update",
    "t03_text_turn",
    "t04_spoken_answer",
    "t05_turn_by_semantic_vad",
    "t05_turn_by_voice_activity",
    "t06_manual_commit",
    "t09_function_call",
    "t13_previous_item_id",
    "t14_delete_retrieve_truncate",
    "t16_transcription_session",
    "t21_error_then_continue",
    "t22_max_output_tokens",
)
ABLE = Abilities(semantic_vad=True, noise_reduction=True, mcp=True, images=True, reasoning=True, logprobs=True)
ON_EVERY_WIRE = pytest.mark.parametrize(("rule", "dialect"), [(rule, name) for rule in RULES for name in FOLDERS])
SECONDS_MAX = 20


class Wire(Protocol):
    """A client's end."""

    async def send(self, message: str, /) -> None: ...

    async def receive(self) -> str | bytes: ...


LIMITS = "rate_limits.updated"
"""Depends on what a server allows, and is left out everywhere."""
NO_EVENT = "{}"
"""Is answered at once with an error; what comes before that was not in the trace."""


def told(trace: Sequence[Line]) -> list[Line]:
    """A trace without the limits."""
    return [line for line in trace if line.event.get("type") != LIMITS]


async def next_frame(wire: Wire) -> str | bytes:
    """The next frame that does not tell limits."""
    while True:
        frame = await wire.receive()
        if json.loads(frame)["type"] != LIMITS:
            return frame


async def converse(golden: Sequence[Line], wire: Wire) -> list[Line]:
    """Say what the client of a trace says, each line when as much was heard as in the trace."""
    recorder, heard = Recorder(), 0
    for number, line in enumerate(golden):
        if line.dir == "client":
            due = sum(1 for before in golden[:number] if before.dir == "server")
            while heard < due:
                recorder.server(0, await next_frame(wire))
                heard += 1
            frame = recorder.frame(line.event)
            recorder.client(0, frame)
            await wire.send(frame)
    for _ in range(sum(1 for line in golden if line.dir == "server") - heard):
        recorder.server(0, await next_frame(wire))
    await wire.send(NO_EVENT)
    after = json.loads(await next_frame(wire))
    assert after["type"] == "error", f"the trace was over, and there came {after}"
    return recorder.lines


def streams(trace: Sequence[Line]) -> dict[tuple[str, ...], list[Line]]:
    """A trace taken apart into what each engine says, and all the rest."""
    found = defaultdict(list)
    for line in trace:
        kind, item_id = line.event.get("type", ""), str(line.event.get("item_id"))
        if line.dir == "client":
            found["client",].append(line)
        elif "input_audio_transcription" in kind:
            found["transcription", item_id].append(line)
        elif kind.endswith(".delta"):
            found[kind, item_id].append(line)
        else:
            found["rest",].append(line)
    return dict(found)


def compare(golden: Sequence[Line], came: Sequence[Line]) -> None:
    expected, found = streams(golden), streams(came)
    for name in expected | found:
        differing = difference(expected.get(name, []), found.get(name, []), times=False)
        assert not differing, f"{name}: {differing}"


# --- memory -----------------------------------------------------------------------------------------------------------


class InMemory:
    """The client's end of a memory transport."""

    def __init__(self, end: Any) -> None:
        self._end = end

    async def send(self, message: str) -> None:
        await self._end.send(message.encode())

    async def receive(self) -> str | bytes:
        said: str | bytes = await self._end.receive()
        return said


@ON_EVERY_WIRE
def test_trace_over_memory(rule: str, dialect: Dialect) -> None:
    golden = told(load(FOLDERS[dialect] / f"{rule}.jsonl"))
    compare(golden, run(over_memory(golden, rule, dialect)))


async def over_memory(golden: Sequence[Line], rule: str, dialect: Dialect) -> list[Line]:
    client_end, server_end = pair(messages_max=10_000)
    machine = Session(
        id="sess_x",
        model="scripted",
        ids=counting_ids(),
        expires_at=1,
        instructions="Be brief.",
        configured=TranscriptionSession() if rule.startswith("t16_") else None,
        surroundings=Surroundings(abilities=ABLE),
    )
    serving = asyncio.create_task(Runtime(machine, scripted_pipeline(), ServerCodec(dialect), server_end).run())
    try:
        return await asyncio.wait_for(converse(golden, InMemory(client_end)), SECONDS_MAX)
    finally:
        await client_end.close()
        await asyncio.wait((serving,))


# --- WebSocket --------------------------------------------------------------------------------------------------------


class OverSocket:
    """The client's end of a WebSocket."""

    def __init__(self, socket: Any) -> None:
        self.send: Callable[[str], Awaitable[None]] = socket.send
        self.receive: Callable[[], Awaitable[str | bytes]] = socket.recv


@pytest.mark.parametrize("door", ["uvicorn", "picows"])
def test_every_trace_over_a_websocket(door: str) -> None:
    """One server for all of them, which has other instructions than the one of the traces."""

    async def main() -> None:
        async with running(settings_of({"pipeline": "scripted", "port": 0, "websocket": door})) as server:
            for rule in RULES:
                for dialect, folder in FOLDERS.items():
                    golden = told(load(folder / f"{rule}.jsonl"))
                    compare(*map(without_instructions, (golden, await over_socket(golden, rule, dialect, server.port))))

    asyncio.run(main())


async def over_socket(golden: Sequence[Line], rule: str, dialect: Dialect, port: int) -> list[Line]:
    query = "intent=transcription" if rule.startswith("t16_") else "model=scripted"
    headers = {"OpenAI-Beta": "realtime=v1"} if dialect == "beta" else {}
    url = f"ws://127.0.0.1:{port}/v1/realtime?{query}"
    async with connect(url, additional_headers=headers, max_size=None) as socket:
        return await asyncio.wait_for(converse(golden, OverSocket(socket)), SECONDS_MAX)


def without_instructions(trace: Sequence[Line]) -> list[Line]:
    """The instructions of every session left out, and the tokens of responses, of which they are a part."""
    for line in trace:
        for name, field in (("session", "instructions"), ("response", "usage")):
            if isinstance(holder := line.event.get(name), dict):
                holder.pop(field, None)
    return list(trace)
