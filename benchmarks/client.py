"""What a client costs: CPU per event that arrives or leaves, and the import, against the public `openai` package.

    python benchmarks/client.py [--rounds 5] [--uvloop] [--only "flood, 20"]

Every program runs in a process of its own that was warmed up before, turn by turn, so that a slow moment of the
machine hits all of them; medians count. What they receive is prepared (`client_sender.py`, another process). Measured
is the CPU time of the whole process while an answer comes, over the number of its events, for the loop that a user
writes; at the end of it there is audio as bytes in hand. `openai` gives base64, so that it runs a second time with that
left as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vivavoce.testing.serving import Serving, serving

RUN_SECONDS_MAX = 60
SENDER = Path(__file__).with_name("client_sender.py")


@dataclass(frozen=True)
class Case:
    """What is measured, and how many times less than `openai` it should take us."""

    name: str
    kind: str
    ms: int
    events: int
    sessions: int = 1
    goal: float | None = None

    @property
    def model(self) -> str:
        """What the sender is told."""
        return f"{self.kind}-{self.ms}-{self.events}"


CASES = (
    Case("receive, flood, 20 ms", "flood", 20, 5_000, goal=15),
    Case("receive, flood, 100 ms", "flood", 100, 2_500, goal=5),
    Case("receive, at pace, 20 ms, 20 sessions", "pace", 20, 100, sessions=20, goal=3),
    Case("send, 20 ms", "append", 20, 3_000),
)
PROGRAMS = ("vivavoce", "openai", "openai, base64 left")
Program = Callable[[str, Case, asyncio.Barrier], Coroutine[Any, Any, int]]

IMPORTS = {
    "vivavoce": "import vivavoce",
    "vivavoce connect": "from vivavoce import connect",
    "openai": "import openai",
    "openai realtime": "from openai import AsyncOpenAI; from openai.types.realtime import RealtimeServerEvent",
}

# --- the programs -----------------------------------------------------------------------------------------------------


def vivavoce_program() -> Program:
    """Ours."""
    from vivavoce import connect, events

    async def run(url: str, case: Case, ready: asyncio.Barrier) -> int:
        received = 0
        chunk = bytes(48 * case.ms)
        async with connect(case.model, url=url, api_key="none") as session:
            await ready.wait()
            for _ in range(case.events if case.kind == "append" else 0):
                await session.append_audio(chunk)
            await session.send(events.ResponseCreate())
            async for event in session:
                if isinstance(event, events.ResponseOutputAudioDelta):
                    received += len(event.delta)
                elif isinstance(event, events.ResponseDone):
                    break
            await ready.wait()
        return received

    return run


def openai_program(decode: Callable[[str], bytes | str]) -> Program:
    """Theirs."""
    from openai import AsyncOpenAI

    async def run(url: str, case: Case, ready: asyncio.Barrier) -> int:
        received = 0
        chunk = bytes(48 * case.ms)
        client = AsyncOpenAI(api_key="none", websocket_base_url=url)
        async with client.realtime.connect(model=case.model) as connection:
            await ready.wait()
            for _ in range(case.events if case.kind == "append" else 0):
                await connection.input_audio_buffer.append(audio=base64.b64encode(chunk).decode())
            await connection.response.create()
            async for event in connection:
                if event.type == "response.output_audio.delta":
                    received += len(decode(event.delta))
                elif event.type == "response.done":
                    break
            await ready.wait()
        await client.close()
        return received

    return run


def as_it_is(audio: str) -> str:
    return audio


async def measured(program: Program, url: str, case: Case) -> float:
    """CPU of this process per event in microseconds, connecting and closing left out."""
    ready = asyncio.Barrier(case.sessions + 1)
    sessions = [asyncio.create_task(program(url, case, ready)) for _ in range(case.sessions)]
    await ready.wait()
    begun = time.process_time()
    await ready.wait()
    seconds = time.process_time() - begun
    received = await asyncio.gather(*sessions)
    expected = 0 if case.kind == "append" else case.events * case.ms * 48
    if any(count < expected for count in received):
        raise RuntimeError(f"{case.name}: audio is missing: {received}")
    return seconds / (case.sessions * case.events) * 1e6


def answer_questions(name: str, url: str, *, uvloop: bool) -> None:
    """Be the process of one program: a case in a line comes in, its figure in a line goes out."""
    if name == "vivavoce":
        program = vivavoce_program()
    else:
        program = openai_program(base64.b64decode if name == "openai" else as_it_is)
    factory = None
    if uvloop:
        import uvloop as faster

        factory = faster.new_event_loop
    print(f"connects to {url}", flush=True)
    for line in sys.stdin:
        with asyncio.Runner(loop_factory=factory) as runner:
            found = runner.run(measured(program, url, Case(**json.loads(line))))
        print(json.dumps({"us": found}), flush=True)


# --- measuring --------------------------------------------------------------------------------------------------------


def per_event(cases: Sequence[Case], rounds: int, *, uvloop: bool) -> dict[str, dict[str, float]]:
    """The median of every program in every case, in microseconds per event."""
    taken: dict[str, dict[str, list[float]]] = {case.name: {name: [] for name in PROGRAMS} for case in cases}
    with ExitStack() as stack:
        url = stack.enter_context(serving([str(SENDER)])).url + "/v1"
        flags = ["--uvloop"] if uvloop else []
        processes: dict[str, Serving] = {
            name: stack.enter_context(serving([__file__, "--program", name, "--url", url, *flags])) for name in PROGRAMS
        }
        turns = [
            (number, case, name)
            for number in range(rounds + 1)
            for case in cases
            for name in PROGRAMS
            if case.kind != "append" or name != PROGRAMS[-1]
        ]
        for number, case, name in turns:
            answer = json.loads(processes[name].ask(json.dumps(asdict(case)), RUN_SECONDS_MAX))
            if number:  # the first round warms up
                taken[case.name][name].append(answer["us"])
    return {
        case: {name: statistics.median(found) for name, found in of_case.items() if found}
        for case, of_case in taken.items()
    }


def imports(rounds: int) -> dict[str, tuple[float, float]]:
    """The median CPU and wall time of each import in milliseconds, every one in a new interpreter."""
    program = (
        "import time; wall, cpu = time.perf_counter(), time.process_time(); {}; "
        "print(time.process_time() - cpu, time.perf_counter() - wall)"
    )
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in IMPORTS}
    for _ in range(rounds):
        for name, statement in IMPORTS.items():
            command = [sys.executable, "-c", program.format(statement)]
            said = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout
            cpu, wall = said.split()
            taken[name].append((float(cpu) * 1000, float(wall) * 1000))
    return {
        name: (statistics.median(cpu for cpu, _ in found), statistics.median(wall for _, wall in found))
        for name, found in taken.items()
    }


def report(cases: Sequence[Case], found: dict[str, dict[str, float]]) -> None:
    """The table of events."""
    print(f"{'µs of CPU per event':40}{'vivavoce':>10}{'openai':>10}{'(base64)':>10}{'ratio':>8}{'(base64)':>10}  goal")
    for case in cases:
        taken = found[case.name]
        ours, theirs, left = taken["vivavoce"], taken["openai"], taken.get(PROGRAMS[-1])
        unpacked = ("–", "–") if left is None else (f"{left:.1f}", f"{left / ours:.1f}")
        goal = "" if case.goal is None else f"  ≥ {case.goal:g}{'' if theirs / ours >= case.goal else '  NOT MET'}"
        print(f"{case.name:40}{ours:10.1f}{theirs:10.1f}{unpacked[0]:>10}{theirs / ours:8.1f}{unpacked[1]:>10}{goal}")


def report_imports(found: dict[str, tuple[float, float]]) -> None:
    """The table of imports; the goals are 100 ms, and a fifth of `openai` with its types."""
    theirs = found["openai realtime"][0]
    print(f"\n{'import':40}{'CPU ms':>10}{'wall ms':>10}{'of openai realtime':>20}")
    for name, (cpu, wall) in found.items():
        print(f"{name:40}{cpu:10.1f}{wall:10.1f}{cpu / theirs:20.2f}")


def main() -> None:
    """Measure everything and print tables."""
    parser = argparse.ArgumentParser(description="What a client costs.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--uvloop", action="store_true", help="for both; asyncio's own loop otherwise")
    parser.add_argument("--only", default="", help='cases whose name has this in it, or "import"')
    parser.add_argument("--program", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.program:
        answer_questions(given.program, given.url, uvloop=given.uvloop)
        return
    cases = [case for case in CASES if given.only in case.name]
    if cases:
        report(cases, per_event(cases, given.rounds, uvloop=given.uvloop))
    if given.only in "import":
        report_imports(imports(given.rounds))


if __name__ == "__main__":
    main()
