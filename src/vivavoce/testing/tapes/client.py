"""A tape as a client: what the tape's client said is said to a real server, and the answers are compared.

Each message follows the server's message that stood before it on the tape, counted by type, so that it does not matter
which of two independent things the server says first. Sound waits for the end of answers alone: whoever speaks does not
wait for the server to notice. A server that does not say what is waited for costs patience, not the replay.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from vivavoce.client.endpoint import Target, resolve
from vivavoce.engines import Pipeline
from vivavoce.errors import ConnectionClosed
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.virtual_time import run
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair
from vivavoce.transports.redaction import sound_of

from .entries import Entry, Message
from .ids import Ids
from .reading import Tape

PATIENCE_S = 5.0
"""How long the server may say nothing while it is waited for."""
MESSAGE_BYTES_MAX = 128 * 1024 * 1024

_ANSWERED = ("function_call", "mcp_call", "mcp_approval_request")
"""Items besides messages that a response makes."""
_FLOW_BARRIERS = ("response.done", "session.")


@dataclass(frozen=True)
class Replayed:
    """How a server answered. `messages` has what both sides said, `taped` what the tape has of the server, without
    deltas."""

    messages: tuple[Message, ...]
    taped: tuple[Message, ...]
    closed: ConnectionClosed | None = None
    """How the server ended the connection, where it was the one to do so."""

    @property
    def types(self) -> tuple[str, ...]:
        """What the server said, by type, until it had said all that is on the tape: there the tape's client left.

        Deltas are left out, because their number means nothing.
        """
        return tuple(message.type for message in self._counted)

    @property
    def _counted(self) -> list[Message]:
        missing, counted = Counter(message.type for message in self.taped), list[Message]()
        for message in self.messages:
            if missing and message.dir == "server" and not _is_delta(message):
                counted.append(message)
                missing -= Counter((message.type,))
        return counted

    @property
    def diff(self) -> str:
        """What differs from the tape, as a unified diff of types; "" where nothing does.

        The user's side, its transcripts and the answers are compared one after the other: between them order is chance.
        """
        return "\n".join(unified_diff(_streams(self.taped), _streams(self._counted), "on tape", "now", "", "", 2, ""))


async def replay_as_client(
    tape: Tape,
    target: str | Transport,
    *,
    api_key: str | None = None,
    pace: float = 0.0,
    patience_s: float = PATIENCE_S,
    connection: int = 0,
) -> Replayed:
    """Say to a server, at a URL or on an open transport, what the client of the tape said; then close.

    `pace` stretches the recorded pauses: 1 is as recorded, 0 leaves them out. `connection` is which of the tape's.
    Raises `ConnectionFailed`, and `LocalProtocolError` for a URL that cannot be one.
    """
    if isinstance(target, str):
        from vivavoce.transports.websocket import SocketLimits, dial

        dialect: Any = "beta" if tape.header.dialect == "beta" else "ga"
        where = resolve(Target(url=target, model=tape.header.model, api_key=api_key, dialect=dialect), {})
        limits = SocketLimits(message_bytes_max=MESSAGE_BYTES_MAX)
        target = await dial(where.url, headers=where.headers, limits=limits)
    return await _Caller(tape.connections[connection], target, pace, patience_s).run()


def replay_to_scripted(tape: Tape, *, pipeline: Pipeline | None = None, pace: float = 1.0) -> Replayed:
    """Say to a server with the scripted engines, or others, what the client of the tape said; on virtual time.

    Takes as long as the engines compute, whatever the pauses on the tape are.
    """
    return run(_to_scripted(tape, pipeline, pace))


async def _to_scripted(tape: Tape, pipeline: Pipeline | None, pace: float) -> Replayed:
    from vivavoce.engines.scripted import scripted_pipeline
    from vivavoce.server.auth import Asked
    from vivavoce.server.pipelines import Pipelines
    from vivavoce.server.sessions import Sessions
    from vivavoce.server.settings import Settings

    header = tape.header
    query = dict(parse_qsl(urlsplit(header.url or "").query))
    query = {"dialect": header.dialect, **query} if header.dialect == "overview" else query
    if "intent" not in query:
        query.setdefault("model", header.model or "scripted")
    pipelines = Pipelines({"scripted": pipeline or scripted_pipeline()}, default="scripted", models={})
    sessions = Sessions(Settings(pipeline="scripted"), pipelines, wall_s=lambda: 0.0, new_ids=counting_ids)
    headers = {"openai-beta": "realtime=v1"} if header.dialect == "beta" else {}
    here, there = pair()
    asked = Asked("translation" if header.dialect == "translation" else "openai", headers, query)
    serving = asyncio.create_task(sessions.serve(asked, there))
    try:
        return await _Caller(tape.connections[0], here, pace, PATIENCE_S).run()
    finally:
        await here.close()
        await asyncio.wait((serving,))
        await pipelines.close()


class _Caller:
    """One connection, seen from the client that is played."""

    def __init__(self, entries: Sequence[Entry], transport: Transport, pace: float, patience_s: float) -> None:
        self._entries = [entry for entry in entries if isinstance(entry, Message)]
        self._transport = transport
        self._pace = pace
        self._patience_s = patience_s
        self._ids = Ids()
        self._messages: list[Message] = []
        self._counts: Counter[str] = Counter()
        self._given_up: Counter[str] = Counter()
        self._came = asyncio.Event()
        self._closed: ConnectionClosed | None = None
        self._began_s = asyncio.get_running_loop().time()
        self._taped: dict[tuple[str, ...], deque[Any]] = defaultdict(deque)
        for message in self._entries:
            if message.dir == "client":
                self._ids.keep(message.event.get("item"))
            elif not _is_delta(message):
                self._taped[_kind(message.event)].append(message.event)

    async def run(self) -> Replayed:
        listening = asyncio.create_task(self._listen())
        try:
            with suppress(ConnectionClosed):
                await self._call()
        finally:
            listening.cancel()
            await asyncio.wait((listening,))
            await self._transport.close()
        taped = (message for message in self._entries if message.dir == "server" and not _is_delta(message))
        return Replayed(tuple(self._messages), tuple(taped), self._closed)

    async def _call(self) -> None:
        due: Counter[str] = Counter()
        last, flow_last = "", ""
        taped_ms, live_s = (self._entries[0].t_ms if self._entries else 0.0), self._began_s
        for message in self._entries:
            if message.dir == "server":
                due[message.type] += 1
                last = message.type
                flow_last = message.type if message.type.startswith(_FLOW_BARRIERS) else flow_last
            else:
                barrier = flow_last if sound_of({"type": message.type}) else last
                if barrier and await self._until(barrier, due[barrier], due["response.done"]):
                    live_s = max(live_s, self._now())  # the server was later than on the tape, and so are we
                if self._pace > 0:
                    await self._at(live_s + (message.t_ms - taped_ms) / 1000 * self._pace)
                await self._say(message)
            taped_ms, live_s = message.t_ms, self._advanced(live_s, message.t_ms - taped_ms, message.dir)
        for kind, count in due.items():
            if not kind.endswith(".delta"):
                await self._until(kind, count, due["response.done"])

    def _advanced(self, live_s: float, taped_ms: float, direction: str) -> float:
        """When an entry of the tape is due now: the client's are, the moment that they are said."""
        return self._now() if direction == "client" else live_s + taped_ms / 1000 * self._pace

    async def _at(self, until_s: float) -> None:
        await asyncio.sleep(max(until_s - self._now(), 0))

    async def _say(self, message: Message) -> None:
        frame = message.frame
        sent = self._ids.rewritten(frame).encode(errors="surrogatepass") if isinstance(frame, str) else frame
        self._note("client", sent.decode(errors="replace"))
        await self._transport.send(sent)

    async def _until(self, kind: str, count: int, responses: int) -> bool:
        """Wait until the server has said this so many times; of deltas, at most until the answer is complete.

        Says whether there was anything to wait for.
        """
        is_delta, has_waited = kind.endswith(".delta"), False
        while self._counts[kind] < count - self._given_up[kind] and self._closed is None:
            if is_delta and self._counts["response.done"] > responses:
                break
            has_waited = True
            self._came.clear()
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._came.wait()
            except TimeoutError:
                self._given_up[kind] = count - self._counts[kind]
        return has_waited

    async def _listen(self) -> None:
        try:
            while True:
                self._note("server", await self._transport.receive())
        except ConnectionClosed as closed:
            self._closed = closed
            self._came.set()

    def _note(self, direction: Any, frame: str | bytes) -> None:
        message = Message(len(self._messages) + 1, (self._now() - self._began_s) * 1000, direction, frame)
        self._messages.append(message)
        if direction == "server":
            self._pair(message)
            self._counts[message.type] += 1
            self._came.set()

    def _pair(self, message: Message) -> None:
        """Learn the ids of now from the message of the tape that this one stands for."""
        if not _is_delta(message):
            event = message.event
            taped = self._taped[_kind(event)]
            if taped:
                self._ids.learn(taped.popleft(), event)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _kind(event: dict[str, Any]) -> tuple[str, ...]:
    """What pairs an event of the tape with one of now: type, and whose item it is about."""
    item = event.get("item")
    about = (item.get("type"), item.get("role")) if isinstance(item, dict) else ()
    return tuple(map(str, (event.get("type"), *about)))


def _streams(messages: Iterable[Message]) -> list[str]:
    """Types in their order, the three streams one behind the other."""
    return [message.type for message in sorted(messages, key=_stream)]


def _stream(message: Message) -> int:
    if "input_audio_transcription" in message.type:
        return 1
    item = message.event.get("item")
    if message.type.startswith("conversation.item") and isinstance(item, dict):
        return 2 if item.get("role") == "assistant" or item.get("type") in _ANSWERED else 0
    return 2 if message.type.startswith(("response.", "rate_limits.")) else 0


def _is_delta(message: Message) -> bool:
    return message.type.endswith(".delta") or message.type == "audio"
