"""The long run of `soak.py --minutes`: a real server, real sockets, real time; what is left of memory, tasks, files.

The server is that of `sessions_server.py`, in a process of its own, with scripted engines. Users append audio without a
pause and, one round after the other, speak a turn, have a function called, interrupt an answer; after some rounds they
hang up and call again, so that sessions end as well. Invariant: every response ends as it must, or the run has failed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from sessions import waited_s

from vivavoce.testing import sounds
from vivavoce.testing.serving import Serving, serving

APPEND_MS = 20
ROUNDS_PER_CALL = 5
TURN_S = 1.2
INTERRUPTION_S = 0.5
LISTENED_S = 1.0
"""How long an answer is listened to before it is interrupted."""
BREAK_S = 0.5
PATIENCE_S = 300.0
"""For an event to come; long, since another program may keep the server from running."""
SAMPLE_S = 10.0
WARM_S_MAX = 300.0
WARM_SHARE = 0.2
"""Memory is compared with what it was after so long, when all have called again, or this part of a shorter run."""
GROWTH_MAX = 0.05
PARTS = 6
"""Into how many parts a run is cut when memory is told."""
SETTLE_S = 5.0
SERVER_PATIENCE_S = 300.0
DELTA = b'{"type":"response.output_audio.delta"'
LONG = "and so on " * 20
MIB = 1024 * 1024


def append_frame(audio: bytes) -> bytes:
    """`input_audio_buffer.append`, as it goes over the wire."""
    return json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()}).encode()


SILENCE, SPEECH = append_frame(bytes(sounds.silence(APPEND_MS))), append_frame(bytes(sounds.tone(APPEND_MS)))


class Line(WSListener):
    """One connection of a user."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.deltas = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            message = frame.get_payload_as_bytes()
            if message.startswith(DELTA):
                self.deltas += 1
            else:
                self.heard.put_nowait(json.loads(message))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.heard.put_nowait({"type": "disconnected", "why": str(transport.close_handshake)})

    def say(self, **event: Any) -> None:
        self.transport.send(WSMsgType.TEXT, json.dumps(event).encode())

    async def until(self, wanted: str) -> dict[str, Any]:
        """The next event of this type. Raises for an error, and where it does not come."""
        async with asyncio.timeout(PATIENCE_S):
            while (event := await self.heard.get())["type"] != wanted:
                if event["type"] in ("error", "disconnected"):
                    raise RuntimeError(f"{wanted} was waited for, and this came: {event}")
        return event


async def call(url: str) -> Line:
    """An open line."""
    line = Line()
    await ws_connect(lambda: line, f"{url}/v1/realtime?model=gpt-realtime", websocket_handshake_timeout=PATIENCE_S)
    return line


async def hang_up(line: Line) -> None:
    """No line any more."""
    line.transport.disconnect()
    await line.transport.wait_disconnected()


@dataclass
class User:
    """Somebody who talks as long as the run lasts."""

    url: str
    done: Counter[str]
    line: Line | None = None
    is_speaking: bool = False

    async def live(self, until_s: float) -> None:
        """Call, talk, hang up; again and again."""
        while time.monotonic() < until_s:
            line = self.line = await call(self.url)
            try:
                for _ in range(ROUNDS_PER_CALL):
                    await self._speak_a_turn(line)
                    await self._have_a_function_called(line)
                    await self._interrupt(line)
                    self.done["rounds"] += 1
                    if time.monotonic() >= until_s:
                        break
            finally:
                self.line = None
                self.done["audio deltas"] += line.deltas
                await hang_up(line)
            self.done["calls"] += 1

    async def _speak(self, seconds: float) -> None:
        self.is_speaking = True
        await asyncio.sleep(seconds)
        self.is_speaking = False

    async def _speak_a_turn(self, line: Line) -> None:
        await self._speak(TURN_S)
        await self._end(line, "completed")
        self.done["turns"] += 1
        await asyncio.sleep(BREAK_S)

    async def _have_a_function_called(self, line: Line) -> None:
        self._write(line, 'call weather {"city": "Paris"}')
        (call,) = (await self._end(line, "completed"))["output"]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
        line.say(type="conversation.item.create", item=output)
        line.say(type="response.create")
        await self._end(line, "completed")
        self.done["function calls"] += 1
        await asyncio.sleep(BREAK_S)

    async def _interrupt(self, line: Line) -> None:
        self._write(line, LONG)
        await line.until("response.content_part.added")
        await asyncio.sleep(LISTENED_S)
        await self._speak(INTERRUPTION_S)
        await self._end(line, "cancelled")
        await self._end(line, "completed")
        self.done["interruptions"] += 1
        await asyncio.sleep(BREAK_S)

    @staticmethod
    def _write(line: Line, text: str) -> None:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        line.say(type="conversation.item.create", item=item)
        line.say(type="response.create")

    @staticmethod
    async def _end(line: Line, status: str) -> dict[str, Any]:
        response: dict[str, Any] = (await line.until("response.done"))["response"]
        if response["status"] != status:
            raise RuntimeError(f"a response should be {status}: {response}")
        return response


async def append(users: list[User]) -> None:
    """Everybody's microphone, evenly spread, until cancelled; what is late is made up for."""
    due, spacing = time.monotonic(), APPEND_MS / 1000 / len(users)
    while True:
        for user in users:
            if user.line is not None:
                user.line.transport.send(WSMsgType.TEXT, SPEECH if user.is_speaking else SILENCE)
            due += spacing
            if (wait_s := due - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)


@dataclass
class Server:
    """The server's process, as it is seen from outside and as it says itself."""

    serving: Serving
    began_s: float = field(default_factory=time.monotonic)
    memory: list[tuple[float, int]] = field(default_factory=list)
    late_ms: list[tuple[float, float]] = field(default_factory=list)
    """p99 and worst of every sample."""

    def __post_init__(self) -> None:
        self._process = psutil.Process(self.serving.process.pid)

    async def _report(self) -> dict[str, Any]:
        told = await asyncio.to_thread(self.serving.ask, "report", SERVER_PATIENCE_S)
        report: dict[str, Any] = json.loads(told)
        return report

    async def holdings(self) -> tuple[int, int]:
        """Its tasks, and its open files."""
        return (await self._report())["tasks"], self._process.num_fds()

    async def watch(self) -> None:
        """Look at it again and again, until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_S)
            self.memory.append((time.monotonic() - self.began_s, self._process.memory_info().rss))
            report = await self._report()
            self.late_ms.append((report["p99_ms"], report["max_ms"]))

    @property
    def waited_share(self) -> float:
        """The part of its life in which it was ready to run and another program ran."""
        return waited_s(self._process) / (time.monotonic() - self.began_s)

    def rss_at(self, seconds: float) -> int:
        """Its resident set then, in bytes: the median of the samples around, since it goes up and down with calls."""
        near = sorted(self.memory, key=lambda sample: abs(sample[0] - seconds))[:3]
        return int(statistics.median(rss for _, rss in near))


async def _hold(serving: Serving, sessions: int, minutes: float, found: list[str]) -> None:
    server, done = Server(serving), Counter[str]()
    await hang_up(await call(serving.url))  # what is made with the first call stays
    await asyncio.sleep(SETTLE_S)
    before = await server.holdings()
    users = [User(serving.url, done) for _ in range(sessions)]
    beside = [asyncio.create_task(append(users)), asyncio.create_task(server.watch())]
    until_s = time.monotonic() + minutes * 60
    ended = await asyncio.gather(*(user.live(until_s) for user in users), return_exceptions=True)
    await asyncio.sleep(SETTLE_S)
    for task in beside:
        task.cancel()
    ended += [end for task in beside if not isinstance(end := (await _end_of(task)), asyncio.CancelledError)]
    found += [f"somebody's day ended early: {outcome!r}" for outcome in ended if outcome is not None]
    after = await server.holdings()
    if after != before:
        found.append(f"tasks and open files were {before} before, and are {after} after")
    print(f"  done: {', '.join(f'{count} {what}' for what, count in done.items())}")
    print(f"  tasks and open files: {before} before, {after} after")
    _tell_memory(server, minutes, found)


async def _end_of(task: asyncio.Task[None]) -> BaseException | None:
    """How a task ended that should be cancelled."""
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    return outcome


def _tell_memory(server: Server, minutes: float, found: list[str]) -> None:
    warm_s = min(WARM_S_MAX, minutes * 60 * WARM_SHARE)
    for seconds in (warm_s, *(minutes * 60 * part / PARTS for part in range(1, PARTS + 1))):
        print(f"  resident set at {seconds / 60:4.1f} min: {server.rss_at(seconds) / MIB:.1f} MiB")
    growth = server.rss_at(minutes * 60) / server.rss_at(warm_s) - 1
    print(f"  growth since it was warm: {growth:+.1%} (at most {GROWTH_MAX:.0%})")
    p99s, worst = zip(*server.late_ms, strict=True)
    late = f"{statistics.median(p99s):.1f} ms (median p99 of {SAMPLE_S:.0f} s), {max(worst):.0f} at worst"
    print(f"  event loop late: {late}")
    print(f"  other programs kept the server from running for {server.waited_share:.0%} of the time")
    if growth >= GROWTH_MAX:
        found.append(f"memory has grown by {growth:.1%}")


def live(minutes: float, sessions: int, door: str, found: list[str]) -> None:
    """Hold the sessions for so long, and tell what was seen; what must not be goes into `found`."""
    program = Path(__file__).with_name("sessions_server.py")
    with serving([str(program), door]) as process:
        asyncio.run(_hold(process, sessions, minutes, found))
