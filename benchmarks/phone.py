"""What the phone adds to a server's latency, whether what it plays has gaps, and how well it knows what was heard.

    python benchmarks/phone.py [--calls 1 8] [--turns 10] [--json]

`vivavoce serve --model scripted` is in a process of its own. Here live the phone app on a real socket, simulated phones
that call it, and as a reference the same turns by the client alone, turn and turn about. Latency is from the last of
the speech leaving to the first of the answer sounding. Every other answer is cut into: then the conversation says how
much of it was heard, and the phone knows how much it has played. A gap is a stop in the middle of an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import time
from array import array
from dataclasses import asdict, dataclass, field
from typing import Any

import uvloop

import vivavoce
from vivavoce.audio import g711
from vivavoce.bridge.phone import PhoneOptions, create_phone_app, served
from vivavoce.testing.phone_call import PhoneCall, ring
from vivavoce.testing.serving import serving

SERVER = ["-m", "vivavoce", "serve", "--model", "scripted", "--port", "0"]
VAD = {"type": "server_vad", "silence_duration_ms": 200}
SPEECH_MS = 400
PIECE = 160
SILENCE = b"\xff"
STORY = "Once upon a time there was a telephone that nobody answered, so it rang until the end of its days."
CUT_IN_S = 0.7
CALLS_MAX, TURNS_MAX = 64, 500
ADDED_MS_MAX = 60
"""What the phone may add."""


@dataclass(frozen=True)
class Outcome:
    """What one number of calls has shown, in ms."""

    calls: int
    direct_p50_ms: float
    direct_p95_ms: float
    phone_p50_ms: float
    phone_p95_ms: float
    added_p50_ms: float
    gaps: int
    answers: int
    direct_gaps: int
    heard_error_p50_ms: float
    heard_error_max_ms: float


@dataclass
class Measured:
    """What came of the turns so far."""

    direct_ms: list[float] = field(default_factory=list)
    phone_ms: list[float] = field(default_factory=list)
    errors_ms: list[float] = field(default_factory=list)
    gaps: int = 0
    answers: int = 0
    direct_gaps: int = 0


def speech() -> bytes:
    """A tone in µ-law, which the scripted engines take for speech."""
    wave = array("h", (round(8_000 * math.sin(math.tau * 440 * n / 8_000)) for n in range(SPEECH_MS * 8)))
    return g711.encode(wave.tobytes(), "ulaw")


class Directly:
    """The reference: the client alone, with audio of the same pace in the same format."""

    def __init__(self, session: vivavoce.Session) -> None:
        self._session = session
        self._first: asyncio.Future[float] | None = None
        self._done = asyncio.Event()
        self._plays_until_s = 0.0
        self.gaps = 0
        """How often somebody who plays what comes would have run out of it."""
        session.on("response.output_audio.delta", self._hear)
        session.on("response.done", lambda _: self._done.set())

    def _hear(self, event: Any) -> None:
        now_s = time.perf_counter()
        if self._first is not None and not self._first.done():
            self._first.set_result(now_s)
        elif now_s > self._plays_until_s:
            self.gaps += 1
        self._plays_until_s = max(now_s, self._plays_until_s) + len(event.delta) / 8_000

    async def turn(self) -> float:
        """Say something; the ms from its end to the first of the answer."""
        loop = asyncio.get_running_loop()
        self._first = loop.create_future()
        self._done.clear()
        said, at_s, ended_s = speech(), loop.time(), 0.0
        while not self._first.done():
            piece, said = said[:PIECE], said[PIECE:]
            at_s += PIECE / 8_000
            await asyncio.sleep(max(at_s - loop.time(), 0))
            self._session.append_audio(piece.ljust(PIECE, SILENCE))
            if piece and not said:
                ended_s = time.perf_counter()
        await self._done.wait()
        return (self._first.result() - ended_s) * 1000


async def phone_turn(phone: PhoneCall, session: vivavoce.Session, measured: Measured, *, cuts_in: bool) -> None:
    """Say something and hear the answer, or cut into it; note how soon it came, and what was heard of it."""
    loop, before, heard = asyncio.get_running_loop(), len(phone.spells), len(phone.heard)
    phone.say(speech())
    await phone.until(lambda: not phone.is_speaking, 10)
    ended_s = loop.time() + PIECE / 8_000  # its last piece is being recorded
    await phone.until(lambda: len(phone.spells) > before, 10)
    measured.phone_ms.append((phone.spells[before].began_s - ended_s) * 1000)
    if cuts_in:
        item = [view for view in session.get_items() if view.role == "assistant"][-1]
        await asyncio.sleep(CUT_IN_S)
        clears = len(phone.clears_s)
        phone.say(speech())
        await phone.until(lambda: len(phone.clears_s) > clears, 10)
        heard, cut = len(phone.heard) - heard, len(phone.spells)
        await phone.until(lambda: len(phone.spells) > cut, 10)
        measured.errors_ms.append(abs(item.audio_ms - heard / 8))
    await phone.until(lambda: not phone.is_playing, 30)
    answers = 2 if cuts_in else 1
    measured.answers += answers
    measured.gaps += len(phone.spells) - before - answers


async def run(url: str, calls: int, turns: int) -> Outcome:
    """So many calls at once, and between their turns those of the reference."""
    measured, sessions = Measured(), list[vivavoce.Session]()

    def connect(**how: Any) -> vivavoce.Session:
        session = vivavoce.connect("any", url=url, **how)
        session.update_session(turn_detection=VAD, instructions="")
        sessions.append(session)
        return session

    app = create_phone_app(PhoneOptions(connect=connect, tells_call=False))
    async with served(app) as (host, port), asyncio.TaskGroup() as group:

        async def call(number: int) -> None:
            sid = f"CA{number:032x}"
            async with await ring(f"http://{host}:{port}/incoming", call_sid=sid) as phone:
                await phone.until(lambda: any(one.context.sid == sid and one.is_connected for one in sessions), 10)
                session = next(one for one in sessions if one.context.sid == sid)
                async with vivavoce.connect("any", url=url) as alone:
                    await alone.update_session(turn_detection=VAD, input_format="g711_ulaw", output_format="g711_ulaw")
                    directly = Directly(alone)
                    for turn in range(turns):
                        await asyncio.sleep(number % 8 * 0.05)
                        await phone_turn(phone, session, measured, cuts_in=turn % 2 == 1)
                        measured.direct_ms.append(await directly.turn())
                    measured.direct_gaps += directly.gaps

        for number in range(calls):
            group.create_task(call(number))
    return outcome(calls, measured)


def outcome(calls: int, measured: Measured) -> Outcome:
    """The first turn of all warms up."""
    direct, phone = sorted(measured.direct_ms[calls:]), sorted(measured.phone_ms[calls:])
    at = lambda values, share: values[min(int(len(values) * share), len(values) - 1)]  # noqa: E731
    return Outcome(
        calls,
        statistics.median(direct),
        at(direct, 0.95),
        statistics.median(phone),
        at(phone, 0.95),
        statistics.median(phone) - statistics.median(direct),
        measured.gaps,
        measured.answers,
        measured.direct_gaps,
        statistics.median(measured.errors_ms),
        max(measured.errors_ms),
    )


def table(outcomes: list[Outcome]) -> str:
    """One line a number of calls."""
    head = "calls   direct p50/p95   phone p50/p95   added p50   gaps in answers, directly   heard off by p50/max"
    lines = [
        f"{one.calls:5}   {one.direct_p50_ms:6.0f} /{one.direct_p95_ms:4.0f} ms  {one.phone_p50_ms:5.0f} /"
        f"{one.phone_p95_ms:4.0f} ms   {one.added_p50_ms:6.1f} ms   {one.gaps:4} in {one.answers:<4}"
        f"    {one.direct_gaps:6}    {one.heard_error_p50_ms:6.1f} /{one.heard_error_max_ms:5.1f} ms"
        for one in outcomes
    ]
    return "\n".join([head, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not all(1 <= calls <= CALLS_MAX for calls in arguments.calls) or not 2 <= arguments.turns <= TURNS_MAX:
        parser.error(f"--calls takes 1 to {CALLS_MAX}, --turns 2 to {TURNS_MAX}")
    with serving(SERVER) as server:
        server.wait_until_ready()
        url = server.url.replace("ws", "http", 1) + "/v1"
        outcomes = [uvloop.run(run(url, calls, arguments.turns)) for calls in arguments.calls]
    print(json.dumps([asdict(one) for one in outcomes]) if arguments.json else table(outcomes))
    late = [one.calls for one in outcomes if one.added_p50_ms > ADDED_MS_MAX]
    if late:
        raise SystemExit(f"more than {ADDED_MS_MAX} ms are added with {late} calls")


if __name__ == "__main__":
    main()
