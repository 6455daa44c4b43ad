"""What a WebRTC peer costs the server, and how long it takes until it is heard.

    python benchmarks/webrtc.py [--peers 5 10 16] [--seconds 8] [--rounds 3] [--json]

N peers at the pace of real time: each says Opus, and hears it. `vivavoce serve` with scripted engines is in a process
of its own: a full session for each peer, which is listening for a turn and speaking a long answer. Interleaved with it
runs a reference (`webrtc_server.py`), aiortc with nothing but the way back. The peers live in this process and are the
same for both. CPU is that of the server, in per cent of one core for each peer; gaps are between pieces of sound that
arrive here, one every 20 ms when all is well.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import time
from array import array
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
import uvloop

from vivavoce.testing.serving import Serving, serving
from vivavoce.transports.webrtc import Peer

SETUP_S_MAX = 20
SECONDS_MAX = 60
PEERS_MAX = 64
SETTLE_S = 1.0
RATE_HZ = 24_000
NOISE_PEAK = 100
"""Audible noise that no detector takes for speech."""
CHARACTER_MS = 60
"""The scripted synthesizer takes this long for a character."""
LATE_MS = 60
"""A gap that a listener's buffer may not bridge."""

VIVAVOCE, REFERENCE = "vivavoce", "aiortc"
PROGRAMS = {
    VIVAVOCE: ["-m", "vivavoce", "serve", "--model", "scripted", "--port", "0"],
    REFERENCE: [str(Path(__file__).with_name("webrtc_server.py"))],
}


@dataclass(frozen=True)
class Outcome:
    """What one run has shown."""

    program: str
    peers: int
    cpu_per_peer: float
    setup_ms: float
    gap_p99_ms: float
    late_share: float
    memory_kb_per_peer: float


class Caller:
    """A peer that speaks noise, and notes when it hears something."""

    def __init__(self, seconds: float) -> None:
        self.heard_s: list[float] = []
        self.first = asyncio.Event()
        self.peer = Peer(hear=self._hear, with_loopback=True)
        self._seconds = seconds
        self.setup_ms = 0.0
        self._reading: asyncio.Task[None] | None = None
        self.speaks = asyncio.Event()

    def _hear(self, pcm: bytes) -> None:
        self.heard_s.append(time.perf_counter())
        self.first.set()

    async def call(self, url: str, http: httpx.AsyncClient, *, asks: bool) -> None:
        """Connect, and wait for the first sound; with `asks`, for the beginning of a long answer."""
        noise = random.Random(1)
        length = int(RATE_HZ * 5)
        piece = array("h", (noise.randint(-NOISE_PEAK, NOISE_PEAK) for _ in range(length))).tobytes()
        for _ in range(int(self._seconds / 5) + 1):
            self.peer.outlet.put("noise", piece)
        begun = time.perf_counter()
        offer = await self.peer.offer()
        answer = await http.post(
            f"{url}/v1/realtime/calls?model=m", content=offer, headers={"Content-Type": "application/sdp"}
        )
        answer.raise_for_status()
        await self.peer.accept(answer.text)
        async with asyncio.timeout(SETUP_S_MAX):
            await self.first.wait()
            self.setup_ms = (time.perf_counter() - begun) * 1000
            if asks:
                await self._ask()

    async def _ask(self) -> None:
        text = "x" * int(self._seconds * 1000 / CHARACTER_MS)
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        for event in ({"type": "conversation.item.create", "item": item}, {"type": "response.create"}):
            await self.peer.channel.send(json.dumps(event).encode())
        self._reading = asyncio.create_task(self._read())
        await self.speaks.wait()

    async def _read(self) -> None:
        while True:
            if json.loads(await self.peer.channel.receive())["type"] == "output_audio_buffer.started":
                self.speaks.set()

    async def close(self) -> None:
        """Hang up."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self.peer.close()

    def gaps_ms(self, since_s: float) -> list[float]:
        """Between one piece of sound and the next."""
        heard = [at for at in self.heard_s if at >= since_s]
        return [(later - earlier) * 1000 for earlier, later in itertools.pairwise(heard)]


def http_url(server: Serving) -> str:
    return server.url.replace("ws://", "http://")


async def measured(program: str, server: Serving, peers: int, seconds: float) -> Outcome:
    """N peers call, one after the other; then look for so many seconds."""
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    callers = [Caller(seconds + SETTLE_S + peers + SETUP_S_MAX) for _ in range(peers)]
    async with httpx.AsyncClient(timeout=SETUP_S_MAX, trust_env=False) as http:
        try:
            for caller in callers:
                await caller.call(http_url(server), http, asks=program == VIVAVOCE)
            await asyncio.sleep(SETTLE_S)
            begun_s, begun = time.perf_counter(), sum(process.cpu_times()[:2])
            await asyncio.sleep(seconds)
            lasted_s = time.perf_counter() - begun_s
            used_s = sum(process.cpu_times()[:2]) - begun
            memory = process.memory_info().rss - before
        finally:
            await asyncio.gather(*(caller.close() for caller in callers))
    gaps = sorted(gap for caller in callers for gap in caller.gaps_ms(begun_s))
    return Outcome(
        program=program,
        peers=peers,
        cpu_per_peer=100 * used_s / lasted_s / peers,
        setup_ms=statistics.median(caller.setup_ms for caller in callers),
        gap_p99_ms=gaps[int(len(gaps) * 0.99)],
        late_share=sum(gap > LATE_MS for gap in gaps) / len(gaps),
        memory_kb_per_peer=memory / 1024 / peers,
    )


def run(peers: list[int], seconds: float, rounds: int) -> list[Outcome]:
    """The median of each figure, for each number of peers and each program; every run has a server of its own."""
    outcomes = []
    for count in peers:
        found: dict[str, list[Outcome]] = {VIVAVOCE: [], REFERENCE: []}
        for _ in range(rounds):
            for program, command in PROGRAMS.items():
                with serving(command) as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    found[program].append(runner.run(measured(program, server, count, seconds)))
        outcomes += [median(of_one) for of_one in found.values()]
    return outcomes


def median(outcomes: list[Outcome]) -> Outcome:
    """Figure by figure."""
    figures = ("cpu_per_peer", "setup_ms", "gap_p99_ms", "late_share", "memory_kb_per_peer")
    medians = {name: statistics.median(getattr(outcome, name) for outcome in outcomes) for name in figures}
    return Outcome(outcomes[0].program, outcomes[0].peers, **medians)


def report(outcomes: list[Outcome]) -> None:
    """The table."""
    print(
        f"{'peers':>5}  {'program':10}{'CPU/peer':>10}{'peers/core':>12}{'ratio':>7}{'setup ms':>10}"
        f"{'gap p99 ms':>12}{'late':>8}{'KB/peer':>9}"
    )
    for ours, theirs in zip(outcomes[::2], outcomes[1::2], strict=True):
        for one in (ours, theirs):
            ratio = f"{one.cpu_per_peer / theirs.cpu_per_peer:.2f}"
            print(
                f"{one.peers:5}  {one.program:10}{one.cpu_per_peer:9.1f}%{100 / one.cpu_per_peer:12.1f}{ratio:>7}"
                f"{one.setup_ms:10.0f}{one.gap_p99_ms:12.1f}{one.late_share:8.1%}{one.memory_kb_per_peer:9.0f}"
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What a WebRTC peer costs the server.")
    parser.add_argument("--peers", type=int, nargs="+", default=[5, 10, 16])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if max(given.peers) > PEERS_MAX or given.seconds > SECONDS_MAX:
        parser.error(f"at most {PEERS_MAX} peers and {SECONDS_MAX} seconds")
    outcomes = run(given.peers, given.seconds, given.rounds)
    if given.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    else:
        report(outcomes)


if __name__ == "__main__":
    main()
