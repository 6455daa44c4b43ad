"""What beginning a session through the relay costs: connects a second, CPU of the relay for each, beside Node's `ws`.

    python benchmarks/relay_connects.py [--rate 200] [--seconds 5] [--rounds 3] [--json]

Sessions begin at their moments, whether or not those before are done: handshake with the relay, which makes one with
the service, one message there and back, goodbye. Relays run in processes of their own, one after the other in each
round; client and service are this process. What is completed in a second depends on what else the machine does; the CPU
per session is the relay's own. Beyond `OPEN_MAX` open ones a session is not begun, and counted as missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass

import uvloop
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from relay import DIRECT, OURS, REFERENCE, relay, service

VARIANTS = (DIRECT, REFERENCE, OURS)
OPEN_MAX = 500
RATE_MAX = 2_000
SECONDS_MAX = 30
SESSION_S_MAX = 10
WARM_UP = 50
MESSAGE = b'{"type":"input_audio_buffer.clear"}'


@dataclass(frozen=True)
class Outcome:
    """One run: sessions a second, the relay's CPU for each in ms, and how long each took, in ms."""

    variant: str
    completed_per_s: float
    missed: int
    ms_per_session: float
    median_ms: float
    p99_ms: float


class Caller(WSListener):
    """A session of one message."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, MESSAGE)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            self.answered.set_result(None)
            transport.send_close(WSCloseCode.OK)
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()


class Crowd:
    """Those who come."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/v1/realtime?model=m"
        self._open: set[asyncio.Task[None]] = set()
        self.took_s: list[float] = []
        self.missed = 0

    async def come(self, rate: int, count: int) -> float:
        """So many, so many a second; how many seconds passed until the last was done."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(count):
            if (wait_s := began + number / rate - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            elif number % 16 == 0:
                await asyncio.sleep(0)
            if len(self._open) >= OPEN_MAX:
                self.missed += 1
                continue
            task = loop.create_task(self._one())
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        await asyncio.gather(*self._open)
        return loop.time() - began

    async def _one(self) -> None:
        began = time.perf_counter()
        async with asyncio.timeout(SESSION_S_MAX):
            transport, caller = await ws_connect(Caller, self._url)
            assert isinstance(caller, Caller)
            await caller.answered
            self.took_s.append(time.perf_counter() - began)
            await transport.wait_disconnected()


async def measured(variant: str, rate: int, seconds: float) -> Outcome:
    """One run."""
    async with service() as upstream:
        with relay(variant, upstream) as (url, cpu_s):
            await Crowd(url).come(rate, WARM_UP)
            crowd, before_s = Crowd(url), cpu_s()
            lasted_s = await crowd.come(rate, round(rate * seconds))
            used_s, took_s = cpu_s() - before_s, sorted(crowd.took_s)
    return Outcome(
        variant,
        len(took_s) / lasted_s,
        crowd.missed,
        used_s / len(took_s) * 1e3,
        statistics.median(took_s) * 1e3,
        took_s[int(len(took_s) * 0.99)] * 1e3,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rate, seconds = min(arguments.rate, RATE_MAX), min(arguments.seconds, SECONDS_MAX)
    outcomes: list[Outcome] = []
    for _ in range(arguments.rounds):
        for variant in VARIANTS:
            outcome = uvloop.run(measured(variant, rate, seconds))
            outcomes.append(outcome)
            print(outcome if not arguments.json else json.dumps(asdict(outcome)), file=sys.stderr)

    def median(variant: str, field: str) -> float:
        return statistics.median(getattr(outcome, field) for outcome in outcomes if outcome.variant == variant)

    print(f"\n{rate} sessions a second are begun, medians of {arguments.rounds} rounds")
    print(f"{'':12} {'done/s':>8} {'missed':>7} {'CPU ms':>7} {'ratio':>6} {'p50 ms':>8} {'p99 ms':>8}")
    for variant in VARIANTS:
        row = [median(variant, name) for name in ("completed_per_s", "missed", "ms_per_session")]
        ratio = row[2] / median(REFERENCE, "ms_per_session")
        p50, p99 = median(variant, "median_ms"), median(variant, "p99_ms")
        print(f"{variant:12} {row[0]:>8.1f} {row[1]:>7.0f} {row[2]:>7.2f} {ratio:>6.2f} {p50:>8.2f} {p99:>8.2f}")


if __name__ == "__main__":
    main()
