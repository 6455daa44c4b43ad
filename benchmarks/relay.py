"""What relaying costs: CPU of the relay per message, and how much later messages come, beside a relay of Node's `ws`.

    python benchmarks/relay.py [--sessions 40] [--append-ms 20 100] [--seconds 6] [--rounds 3] [--json]

N sessions at the pace of real time send appends of audio through the relay to a service that sends each back, so that
every message is relayed twice. Relays run in processes of their own, one after the other, in each round another one
first; client and service are this process, with picows. Without a relay it is measured as well: what is added is more
than that of the same round, since a machine that is busy is so for all of them.
The variant `with a policy` has an allow-list, so that each message of a client is looked at. Only ratios mean anything
on another machine. Node and `ws` come from the environment of `tests/interop`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_create_server

from vivavoce.testing.serving import serving

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "interop"))

BYTES_PER_MS = 48
WARM_UP_S = 1.0
SESSIONS_MAX = 1_000
SECONDS_MAX = 60
DIRECT, REFERENCE, OURS, WATCHED = "no relay", "node ws", "vivavoce", "vivavoce, with a policy"
VARIANTS = (DIRECT, REFERENCE, OURS, WATCHED)


@dataclass(frozen=True)
class Outcome:
    """One run: CPU of the relay in microseconds per relayed message, round trips in ms."""

    variant: str
    append_ms: int
    us_per_message: float
    median_ms: float
    p99_ms: float
    messages: int


class Echo(WSListener):
    """The service: what comes goes back."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, frame.get_payload_as_bytes())
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()


class Peer(WSListener):
    """A client: knows when each message left that has not come back."""

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.left: list[float] = []
        self.trips: list[float] = []
        self.received = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            self.trips.append(time.perf_counter() - self.left[self.received])
            self.received += 1
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()

    def say(self) -> None:
        """Send one message."""
        self.left.append(time.perf_counter())
        self.transport.send(WSMsgType.TEXT, self.message)


def message_of(append_ms: int) -> bytes:
    """An append of so much audio."""
    audio = base64.b64encode(bytes(range(256)) * (append_ms * BYTES_PER_MS // 256 + 1))[: append_ms * 64]
    return b'{"type":"input_audio_buffer.append","audio":"%b"}' % audio


@asynccontextmanager
async def service() -> AsyncIterator[str]:
    """The service's address."""
    server = await ws_create_server(lambda request: Echo(), "127.0.0.1", 0, max_frame_size=1 << 24)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@contextmanager
def relay(variant: str, upstream: str) -> Iterator[tuple[str, Callable[[], float]]]:
    """A relay's address, and the CPU seconds that it has used."""
    if variant == DIRECT:
        yield upstream, lambda: 0.0
        return
    if variant == REFERENCE:
        from environments import install_npm  # what the tests of public clients have in their cache

        npm = install_npm()
        program = npm.place / "relay_node.mjs"
        program.write_bytes((HERE / "relay_node.mjs").read_bytes())
        with node_serving([*npm.command("page.mjs")[:1], str(program), upstream]) as found:
            yield found
        return
    arguments = ["-m", "vivavoce", "relay", "--upstream", upstream, "--port", "0", "--model", "m"]
    if variant == WATCHED:
        config = Path(__file__).with_name("relay_policy.toml")
        arguments += ["--config", str(config)]
    with serving(arguments) as running:
        process = psutil.Process(running.process.pid)
        yield running.url, lambda: cpu_of(process)


@contextmanager
def node_serving(command: list[str]) -> Iterator[tuple[str, Callable[[], float]]]:
    """A program that says its address in its first line."""
    import subprocess

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            measured = psutil.Process(process.pid)
            yield url, lambda: cpu_of(measured)
        finally:
            process.terminate()
            process.wait(10)


def cpu_of(process: psutil.Process) -> float:
    """Seconds of CPU, of user and system."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def measured(variant: str, append_ms: int, sessions: int, seconds: float) -> Outcome:
    """One run."""
    message = message_of(append_ms)
    async with service() as upstream:
        with relay(variant, upstream) as (url, cpu_s):
            peers: list[Peer] = []
            for _ in range(sessions):
                _, listener = await ws_connect(lambda: Peer(message), f"{url}/v1/realtime?model=m")
                assert isinstance(listener, Peer)
                peers.append(listener)
            await paced(peers, append_ms, WARM_UP_S)
            before_s, already = cpu_s(), sum(peer.received for peer in peers)
            for peer in peers:
                peer.trips.clear()
            await paced(peers, append_ms, seconds)
            used_s, count = cpu_s() - before_s, sum(peer.received for peer in peers) - already
            trips = sorted(trip for peer in peers for trip in peer.trips)
            assert all(peer.received == len(peer.left) for peer in peers), "a message was lost"
            for peer in peers:
                peer.transport.send_close()
                peer.transport.disconnect()
    return Outcome(
        variant,
        append_ms,
        used_s / (2 * count) * 1e6,
        statistics.median(trips) * 1e3,
        trips[int(len(trips) * 0.99)] * 1e3,
        2 * count,
    )


async def paced(peers: list[Peer], append_ms: int, seconds: float) -> None:
    """Every peer sends at its own moments of each interval; then all is awaited that was sent."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    step_s = append_ms / 1000 / len(peers)
    for number in range(round(seconds / step_s)):
        if (wait_s := began + number * step_s - loop.time()) > 0:
            await asyncio.sleep(wait_s)
        elif number % 16 == 0:
            await asyncio.sleep(0)
        peers[number % len(peers)].say()
    async with asyncio.timeout(10):
        while any(peer.received < len(peer.left) for peer in peers):  # noqa: ASYNC110 - events would cost the load
            await asyncio.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--append-ms", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    sessions, seconds = min(arguments.sessions, SESSIONS_MAX), min(arguments.seconds, SECONDS_MAX)
    outcomes: list[Outcome] = []
    for append_ms in arguments.append_ms:
        for number in range(arguments.rounds):
            first = number % len(VARIANTS)
            for variant in VARIANTS[first:] + VARIANTS[:first]:
                outcome = uvloop.run(measured(variant, append_ms, sessions, seconds))
                outcomes.append(outcome)
                print(outcome if not arguments.json else json.dumps(asdict(outcome)), file=sys.stderr)
        report([outcome for outcome in outcomes if outcome.append_ms == append_ms], append_ms)


def report(outcomes: list[Outcome], append_ms: int) -> None:
    """Medians of the rounds, and ratios to the reference."""

    def each(variant: str, field: str) -> list[float]:
        return [getattr(outcome, field) for outcome in outcomes if outcome.variant == variant]

    reference = statistics.median(each(REFERENCE, "us_per_message"))
    print(f"\n{append_ms} ms a message, medians of the rounds")
    print(f"{'':26} {'µs/message':>10} {'ratio':>6} {'p50 ms':>8} {'p99 ms':>8} {'p99 added':>10}")
    for variant in VARIANTS:
        cost, p50, p99 = (statistics.median(each(variant, name)) for name in ("us_per_message", "median_ms", "p99_ms"))
        pairs = zip(each(variant, "p99_ms"), each(DIRECT, "p99_ms"), strict=True)
        added = statistics.median(with_relay - without for with_relay, without in pairs)
        print(f"{variant:26} {cost:>10.2f} {cost / reference:>6.2f} {p50:>8.2f} {p99:>8.2f} {added:>10.2f}")


if __name__ == "__main__":
    main()
