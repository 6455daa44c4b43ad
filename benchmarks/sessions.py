"""What a session costs the server: CPU per session and per message, and how late its event loop gets.

    python benchmarks/sessions.py [--sessions 100] [--append-ms 20 100] [--json]
    python benchmarks/sessions.py --together [--sessions 25]
    python benchmarks/sessions.py --capacity [--append-ms 20]

N sessions at the pace of real time: each appends audio, while the server sends it an answer in deltas of 100 ms. The
server runs in a process of its own, with scripted engines, so that nothing is measured but the server; the load comes
from this process. Interleaved with it runs a reference (`sessions_server.py`): Starlette, uvicorn and pydantic, doing
the same decoding and encoding with no session behind it. Only the ratio of the two means anything on another machine.

With `--together` all servers run at once, each with its own sessions, and are compared second by second: on a machine
that is not ours alone, what disturbs one then disturbs all of them.

With `--capacity` it looks for the most sessions that one core carries: as long as a timer of the server's event loop
comes less than 20 ms late in 99 of 100 cases, and every append is answered for within the window.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from vivavoce.testing.serving import Serving, serving

BYTES_PER_MS = 48
CHARACTER_MS = 60
"""The scripted synthesizer takes this long for a character."""
NOISE_PEAK = 100
"""Audible noise that no detector takes for speech."""
SLEEP_S_MIN = 0.001
SETUP_SECONDS_MAX = 30
SETTLE_S = 0.5
BEGIN_S = 1.0
"""Over how long the sessions begin to talk."""
SESSIONS_MAX = 1_000
LATE_MS_MAX = 20.0
"""What `--capacity` allows, of the event loop's p99."""
STEP = 25
CAPACITY_MAX = 600
"""How finely, and how far, it looks, in sessions."""
ATTEMPTS = 2
KEPT_UP = 0.98
"""The part of the appends that has to leave in time for a run to count."""
SECONDS_MAX = 60

QUIET = ", no turn detection"
VARIANTS = ("picows", "picows" + QUIET, "uvicorn", "uvicorn" + QUIET, "reference")
REFERENCE = "reference"


@dataclass(frozen=True)
class Plan:
    """One run."""

    variant: str
    sessions: int
    append_ms: int
    warm_up_s: float
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What one run has shown; times in ms, CPU of the server process."""

    variant: str
    append_ms: int
    cpu_share: float
    us_per_message: float
    messages_in: int
    messages_out: int
    loop_late_p99_ms: float
    loop_late_max_ms: float
    idle_kb_per_session: float
    load_late_p99_ms: float
    waited_share: float
    """The part of the window in which the server was ready to run and another program ran; 0 where nobody can say."""


class Peer(WSListener):
    """The client's end of one session: counts what comes, and keeps nothing of it."""

    def __init__(self) -> None:
        self.received = 0
        self.error: str | None = None
        self.answering = asyncio.Event()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is not WSMsgType.TEXT:
            return
        self.received += 1
        beginning = bytes(frame.get_payload_as_memoryview()[:40])
        if beginning.startswith(b'{"type":"error"'):
            self.error = frame.get_payload_as_utf8_text()
        elif not self.answering.is_set() and b"response.output_audio.delta" in frame.get_payload_as_bytes():
            self.answering.set()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.error = self.error or f"disconnected: {transport.close_handshake}"

    def say(self, event: dict[str, Any]) -> None:
        self.transport.send(WSMsgType.TEXT, json.dumps(event).encode())


def setup(plan: Plan) -> list[dict[str, Any]]:
    """The events that begin an answer which lasts as long as the run, in real time."""
    if plan.variant == REFERENCE:
        return []
    detects = not plan.variant.endswith(QUIET)
    detection = {"type": "server_vad", "silence_duration_ms": 500} if detects else None
    ms = (plan.warm_up_s + plan.seconds + SETUP_SECONDS_MAX) * 1000
    text = "a" * round(ms / CHARACTER_MS)  # one word: the answer's text is one delta, and its audio the rest
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    session = {"type": "realtime", "audio": {"input": {"turn_detection": detection}}}
    return [
        {"type": "session.update", "session": session},
        {"type": "conversation.item.create", "item": item},
        {"type": "response.create"},
    ]


def append_frame(append_ms: int) -> bytes:
    """`input_audio_buffer.append` with noise, as it goes over the wire."""
    noise = random.Random(1)
    samples = (noise.randint(-NOISE_PEAK, NOISE_PEAK) for _ in range(append_ms * BYTES_PER_MS // 2))
    audio = b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples)
    return json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()}).encode()


@dataclass
class Load:
    """All sessions of a run, and the one clock by which they append."""

    variant: str
    peers: list[Peer]
    frame: bytes
    interval_s: float
    sent: int = 0
    late_ms: list[float] = field(default_factory=list)

    async def run(self) -> None:
        """Append until cancelled: message m is due at m / N of the interval, whatever happened to those before."""
        clock, began = time.perf_counter, time.perf_counter()
        spacing, count = self.interval_s / len(self.peers), len(self.peers)
        while True:
            due = began + self.sent * spacing
            now = clock()
            while due <= now:
                self.late_ms.append((now - due) * 1000)
                self.peers[self.sent % count].transport.send(WSMsgType.TEXT, self.frame)
                self.sent += 1
                due += spacing
            await asyncio.sleep(max(due - clock(), SLEEP_S_MIN))

    @property
    def received(self) -> int:
        """Messages of all sessions so far."""
        return sum(peer.received for peer in self.peers)

    @property
    def messages(self) -> int:
        """In both directions."""
        return self.sent + self.received

    def check(self) -> None:
        """Raise for an error that a session was told, or a connection that is gone."""
        for peer in self.peers:
            if peer.error:
                raise RuntimeError(f"a session of {self.variant} has failed: {peer.error}")


async def begun(plan: Plan, peers: list[Peer]) -> Load:
    """All sessions, each with its answer begun: not in one moment, or all would send their deltas in the same."""
    for peer in peers:
        for event in setup(plan):
            peer.say(event)
        await asyncio.sleep(BEGIN_S / plan.sessions)
    return Load(plan.variant, peers, append_frame(plan.append_ms), plan.append_ms / 1000)


async def connected(plan: Plan, url: str) -> list[Peer]:
    """All sessions, open and idle."""
    peers = []
    for _ in range(plan.sessions):
        peer = Peer()
        await ws_connect(lambda peer=peer: peer, f"{url}/v1/realtime?model=gpt-realtime")
        peers.append(peer)
    await asyncio.sleep(SETTLE_S)
    return peers


async def measure(plan: Plan, server: Serving) -> Outcome:
    """Open the sessions, let them settle, watch the server for `seconds`."""
    process = psutil.Process(server.process.pid)
    empty_bytes = process.memory_info().rss
    peers = await connected(plan, server.url)
    idle_bytes = process.memory_info().rss - empty_bytes
    load = await begun(plan, peers)
    appending = asyncio.create_task(load.run())
    try:
        async with asyncio.timeout(SETUP_SECONDS_MAX):
            await asyncio.gather(*(peer.answering.wait() for peer in peers))
        await asyncio.sleep(plan.warm_up_s)
        return await _watch(plan, server, load, process, idle_bytes)
    except TimeoutError:
        load.check()
        raise RuntimeError(f"not all sessions were answered within {SETUP_SECONDS_MAX} s") from None
    finally:
        appending.cancel()
        for peer in peers:
            peer.transport.disconnect()


async def _watch(plan: Plan, server: Serving, load: Load, process: psutil.Process, idle_bytes: int) -> Outcome:
    await asyncio.to_thread(server.ask, "begin")
    load.late_ms.clear()
    sent, received, cpu, waited = load.sent, load.received, _cpu_s(process), waited_s(process)
    began = time.perf_counter()
    await asyncio.sleep(plan.seconds)
    sent, received, cpu = load.sent - sent, load.received - received, _cpu_s(process) - cpu
    lasted = time.perf_counter() - began
    late = json.loads(await asyncio.to_thread(server.ask, "report"))
    load.check()
    return Outcome(
        variant=plan.variant,
        append_ms=plan.append_ms,
        cpu_share=cpu / lasted,
        us_per_message=cpu / (sent + received) * 1e6,
        messages_in=sent,
        messages_out=received,
        loop_late_p99_ms=late["p99_ms"],
        loop_late_max_ms=late["max_ms"],
        idle_kb_per_session=idle_bytes / plan.sessions / 1024,
        load_late_p99_ms=sorted(load.late_ms)[int(len(load.late_ms) * 0.99)],
        waited_share=(waited_s(process) - waited) / lasted,
    )


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def waited_s(process: psutil.Process) -> float:
    """How long it has waited for a core so far, where the system tells."""
    try:
        return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def run(plan: Plan) -> Outcome:
    """One run against a fresh server."""
    program = Path(__file__).with_name("sessions_server.py")
    with serving([str(program), plan.variant.partition(",")[0]]) as server:
        return uvloop.run(measure(plan, server))


def holds(plan: Plan) -> bool:
    """Whether the server keeps up with so many sessions; at the second attempt, if the first failed."""
    for _ in range(ATTEMPTS):
        try:
            outcome = run(plan)
        except RuntimeError as error:
            print(f"{plan.variant}: {plan.sessions} sessions: {error}", flush=True)
            continue
        due = plan.sessions * plan.seconds * 1000 / plan.append_ms
        keeps_up = outcome.loop_late_p99_ms < LATE_MS_MAX and outcome.messages_in >= KEPT_UP * due
        print(
            f"{plan.variant}: {plan.sessions} sessions: loop late {outcome.loop_late_p99_ms:.1f} ms (p99),"
            f" {outcome.cpu_share:.0%} of a core, {outcome.waited_share:.0%} waiting for it;"
            f" the load itself {outcome.load_late_p99_ms:.1f} ms",
            flush=True,
        )
        if keeps_up:
            return True
    return False


def capacity(plan: Plan) -> int:
    """The most sessions that hold, in steps; 0 where not even the first step does."""
    low, high = 0, CAPACITY_MAX // STEP + 1
    while high - low > 1:
        middle = (low + high) // 2
        if holds(replace(plan, sessions=middle * STEP)):
            low = middle
        else:
            high = middle
    return low * STEP


def show(outcomes: Sequence[Outcome], sessions: int) -> None:
    """The medians of the runs as a table for each append size."""
    for append_ms in sorted({outcome.append_ms for outcome in outcomes}):
        print(f"\n{sessions} sessions, appends of {append_ms} ms, deltas of 100 ms; medians")
        heads = ("µs/message", "ratio", "core/session", "loop late p99", "max", "KB when idle")
        print(f"{'':30}" + "".join(f"{head:>14}" for head in heads))
        rows = {
            variant: [each for each in outcomes if (each.variant, each.append_ms) == (variant, append_ms)]
            for variant in VARIANTS
        }
        base = rows[REFERENCE] and statistics.median(each.us_per_message for each in rows[REFERENCE])
        for variant, runs in rows.items():
            if not runs:
                continue
            us, share, p99, most, kb = (
                statistics.median(getattr(each, name) for each in runs)
                for name in (
                    "us_per_message",
                    "cpu_share",
                    "loop_late_p99_ms",
                    "loop_late_max_ms",
                    "idle_kb_per_session",
                )
            )
            cells = (
                f"{us:.1f}",
                f"{us / base:.2f}" if base else "-",
                f"{share / sessions * 100:.3f} %",
                f"{p99:.1f} ms",
                f"{most:.0f} ms",
                f"{kb:.0f}",
            )
            print(f"{variant:30}" + "".join(f"{cell:>14}" for cell in cells))
    late = max(each.load_late_p99_ms for each in outcomes)
    print(
        "\nTurn detection here is the scripted detector, whose own work is part of the figures; the reference has none."
    )
    waited = max(each.waited_share for each in outcomes)
    print(f"Other programs kept the server from running for {waited:.0%} of the time, in the worst run.")
    print(f"The load itself was late by {late:.1f} ms (p99) in its worst run; above 20 ms, distrust the figures.")


def together(plans: Sequence[Plan]) -> dict[str, list[float]]:
    """µs of CPU per message of each variant, for every second in which all of them run at once."""
    program = str(Path(__file__).with_name("sessions_server.py"))
    with ExitStack() as stack:
        servers = [stack.enter_context(serving([program, plan.variant.partition(",")[0]])) for plan in plans]
        return uvloop.run(_compare(plans, servers))


async def _compare(plans: Sequence[Plan], servers: Sequence[Serving]) -> dict[str, list[float]]:
    processes = [psutil.Process(server.process.pid) for server in servers]
    loads = [await begun(plan, await connected(plan, server.url)) for plan, server in zip(plans, servers, strict=True)]
    appending = [asyncio.create_task(load.run()) for load in loads]
    await asyncio.sleep(plans[0].warm_up_s)
    found: dict[str, list[float]] = {plan.variant: [] for plan in plans}
    for _ in range(round(plans[0].seconds)):
        before = [(_cpu_s(process), load.messages) for process, load in zip(processes, loads, strict=True)]
        await asyncio.sleep(1)
        for plan, process, load, (cpu, messages) in zip(plans, processes, loads, before, strict=True):
            load.check()
            found[plan.variant].append((_cpu_s(process) - cpu) / (load.messages - messages) * 1e6)
    for task in appending:
        task.cancel()
    return found


def show_together(found: dict[str, list[float]], sessions: int, append_ms: int) -> None:
    """Medians over the seconds; the ratio is that of each second."""
    print(f"\n{sessions} sessions at each, appends of {append_ms} ms, deltas of 100 ms; medians")
    for variant, us in found.items():
        ratio = statistics.median(one / base for one, base in zip(us, found[REFERENCE], strict=True))
        print(f"{variant:30}{statistics.median(us):10.1f} µs/message{ratio:8.2f}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=100, help="sessions at once (default 100)")
    parser.add_argument(
        "--append-ms", type=int, nargs="+", default=[20, 100], help="audio of an append (default 20 100)"
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="length of the window of a run (default 6)")
    parser.add_argument("--warm-up", type=float, default=2.0, help="seconds before it (default 2)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each variant, interleaved (default 3)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="what to run")
    parser.add_argument("--together", action="store_true", help="all servers at once, second by second")
    parser.add_argument("--capacity", action="store_true", help="look for the most sessions that one core carries")
    parser.add_argument("--json", action="store_true", help="print every run as a line of JSON, no table")
    arguments = parser.parse_args()
    if not 1 <= arguments.sessions <= SESSIONS_MAX:
        parser.error(f"--sessions: 1 to {SESSIONS_MAX}")
    if not 0 < arguments.seconds <= SECONDS_MAX or not 0 <= arguments.warm_up <= SECONDS_MAX:
        parser.error(f"--seconds and --warm-up: up to {SECONDS_MAX}")
    if any(not 5 <= ms <= 1_000 for ms in arguments.append_ms):
        parser.error("--append-ms: 5 to 1000")
    return arguments


def main() -> None:
    """Run everything that was asked for, one run after the other."""
    arguments = parse()
    if arguments.capacity:
        found = []
        for append_ms in arguments.append_ms:
            for variant in arguments.variants:
                plan = Plan(variant, 0, append_ms, arguments.warm_up, arguments.seconds)
                found.append(f"{variant:30}{append_ms:4} ms{capacity(plan):6} sessions a core")
        print("\n" + "\n".join(found))
        return
    if arguments.together:
        variants = dict.fromkeys([*arguments.variants, REFERENCE])
        for append_ms in arguments.append_ms:
            plans = [
                Plan(name, arguments.sessions, append_ms, arguments.warm_up, arguments.seconds) for name in variants
            ]
            show_together(together(plans), arguments.sessions, append_ms)
        return
    outcomes = []
    for _ in range(arguments.runs):
        for append_ms in arguments.append_ms:
            for variant in arguments.variants:
                plan = Plan(variant, arguments.sessions, append_ms, arguments.warm_up, arguments.seconds)
                outcome = run(plan)
                outcomes.append(outcome)
                if arguments.json:
                    print(json.dumps(asdict(outcome)), flush=True)
                else:
                    print(
                        f"{variant}, {append_ms} ms: {outcome.us_per_message:.1f} µs/message,"
                        f" loop late {outcome.loop_late_p99_ms:.1f} ms (p99)",
                        flush=True,
                    )
    if not arguments.json:
        show(outcomes, arguments.sessions)


if __name__ == "__main__":
    main()
