"""A tape as a server: a real client is answered with what the tape's server said.

Each message of the server comes after the client's message that stood before it. The client's messages are compared by
their type, in order; of the sound that is appended only how much there is counts, not how it is cut. Invariant: what
the client does otherwise than on the tape is a `Deviation` that names the line, never a silent wrong answer.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vivavoce.errors import ConnectionClosed
from vivavoce.transports import Transport
from vivavoce.transports.redaction import sound_of

from .entries import Entry, Message, Note
from .ids import Ids
from .reading import Tape

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

PATIENCE_S = 10.0
"""How long a client may leave the tape waiting."""
MESSAGE_BYTES_MAX = 128 * 1024 * 1024
SHOWN_CHARS_MAX = 160
NORMAL = 1000
DEVIATED = 1008
"""The close code after a deviation."""
REASON_BYTES_MAX = 123

_ANNOUNCEMENTS = frozenset({"conversation.item.added", "conversation.item.created"})
_SUBPROTOCOL = "realtime"


class Deviation(AssertionError):
    """The client did otherwise than on the tape; the message names the tape's line, what it has, and what came."""


class ReplayServer:
    """Serves a tape. Each connection is the next of the tape's; after the last it begins anew.

    `pace` stretches the recorded pauses: 1 is as recorded, 0 leaves them out. A client may leave the tape waiting for
    `patience_s`, and the pause on the tape on top.
    """

    def __init__(self, tape: Tape, *, pace: float = 0.0, patience_s: float = PATIENCE_S) -> None:
        self._tape = tape
        self._pace = pace
        self._patience_s = patience_s
        self._served = 0

    async def serve(self, transport: Transport) -> None:
        """Be the server on an open connection, to its end. Raises `Deviation`, which the client is told as well."""
        connections = self._tape.connections
        entries = connections[self._served % len(connections)]
        self._served += 1
        try:
            await _Replay(self._tape, entries, transport, self._pace, self._patience_s).run()
        except Deviation as deviation:
            with suppress(ConnectionClosed):
                await transport.send(_error(str(deviation)))
                reason = str(deviation).encode()[:REASON_BYTES_MAX].decode(errors="ignore")
                await transport.close(DEVIATED, reason)
            raise


class _Replay:
    """One connection."""

    def __init__(
        self, tape: Tape, entries: Sequence[Entry], transport: Transport, pace: float, patience_s: float
    ) -> None:
        self._tape = tape
        self._entries = entries
        self._transport = transport
        self._pace = pace
        self._patience_s = patience_s
        self._ids = Ids()
        self._named: deque[str] = deque()
        """Ids that the client gave to items which had none on the tape, until the tape's server has said its own."""
        self._ahead: str | bytes | None = None
        """A message that came where the tape still has sound."""
        self._sound_due = 0
        self._sound_heard = 0
        self._taped_ms = entries[0].t_ms if entries else 0.0
        self._live_s = asyncio.get_running_loop().time()

    async def run(self) -> None:
        for index, entry in enumerate(self._entries):
            if isinstance(entry, Note):
                if _is_servers_end(entry):
                    await self._pause(entry)
                    await self._transport.close(_sendable(entry.fields.get("code")), str(entry.fields.get("reason")))
                    return
                continue
            try:
                await (self._say(entry) if entry.dir == "server" else self._hear(entry))
            except ConnectionClosed as closed:
                self._left(index, closed)
                return
        await self._linger()

    # --- the tape's server --------------------------------------------------------------------------------------------

    async def _say(self, message: Message) -> None:
        await self._pause(message)
        if isinstance(message.frame, bytes):
            await self._transport.send(message.frame)
            return
        if self._named and message.type in _ANNOUNCEMENTS:
            item_id = (message.event.get("item") or {}).get("id")
            if isinstance(item_id, str) and item_id not in self._ids:
                self._ids.name(item_id, self._named.popleft())
        await self._transport.send(self._ids.rewritten(message.frame).encode(errors="surrogatepass"))

    async def _pause(self, entry: Entry) -> None:
        loop = asyncio.get_running_loop()
        if self._pace > 0:
            until_s = self._live_s + (entry.t_ms - self._taped_ms) / 1000 * self._pace
            await asyncio.sleep(max(until_s - loop.time(), 0))
        self._here(entry)

    def _here(self, entry: Entry) -> None:
        self._taped_ms, self._live_s = entry.t_ms, asyncio.get_running_loop().time()

    # --- the client that is there -------------------------------------------------------------------------------------

    async def _hear(self, taped: Message) -> None:
        if (size := _sound_chars(taped.frame)) is not None:
            self._sound_due += size
            while self._ahead is None and self._sound_heard < self._sound_due:
                self._ahead = await self._next(taped)
        else:
            message = self._ahead
            while message is None:
                message = await self._next(taped)
            self._ahead = None
            self._compare(taped, message)
        self._here(taped)

    async def _next(self, taped: Message) -> str | bytes | None:
        """What the client says next; None for sound, which is only counted."""
        patience_s = self._patience_s + max(taped.t_ms - self._taped_ms, 0) / 1000 * self._pace
        try:
            async with asyncio.timeout(patience_s):
                message = await self._transport.receive()
        except TimeoutError:
            raise self._deviation(taped, f"nothing for {patience_s:g} s") from None
        size = _sound_chars(message)
        if size is None:
            return message
        self._sound_heard += size
        return None

    def _compare(self, taped: Message, message: str | bytes) -> None:
        came = Message(0, 0.0, "client", message)
        if came.type != taped.type:
            raise self._deviation(taped, _shown(message))
        before, now = taped.event, came.event
        self._ids.learn(before, now)
        item, new_item = before.get("item"), now.get("item")
        if isinstance(item, dict) and isinstance(new_item, dict) and "id" not in item and "id" in new_item:
            self._named.append(str(new_item["id"]))

    def _deviation(self, taped: Message, got: str) -> Deviation:
        return Deviation(
            f"{self._tape.name}, line {taped.line}: expected the client to send {_shown(taped.frame)}, got {got}"
        )

    def _left(self, index: int, closed: ConnectionClosed) -> None:
        """The client has gone: at the end of its part, or too early."""
        for entry in self._entries[index:]:
            if isinstance(entry, Message) and entry.dir == "client" and _sound_chars(entry.frame) is None:
                raise self._deviation(entry, f"its goodbye ({closed.code} {closed.reason})".replace(" )", ")"))

    async def _linger(self) -> None:
        """The tape is over; the client may stay, and say no more."""
        with suppress(ConnectionClosed):
            while True:
                message = self._ahead or await self._transport.receive()
                if _sound_chars(message) is None:
                    raise Deviation(f"{self._tape.name} is over, and the client sent {_shown(message)}")


# --- as a WebSocket ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Listening:
    """A tape that is served. `url` is what a client takes as its base URL."""

    url: str
    port: int
    deviations: list[Deviation] = field(default_factory=list)
    """How clients have differed so far."""


@asynccontextmanager
async def replay_server(
    tape: Tape, *, host: str = "127.0.0.1", port: int = 0, pace: float = 0.0, patience_s: float = PATIENCE_S
) -> AsyncIterator[Listening]:
    """A WebSocket server that replays the tape, until the block ends; then raises the first `Deviation`, if any."""
    from websockets.asyncio.server import serve  # here, because it comes with the extra `server`

    replay = ReplayServer(tape, pace=pace, patience_s=patience_s)
    listening = Listening("", 0)

    async def connected(socket: ServerConnection) -> None:
        try:
            await replay.serve(_Socket(socket))
        except Deviation as deviation:
            listening.deviations.append(deviation)

    async with serve(
        connected, host, port, compression=None, max_size=MESSAGE_BYTES_MAX, select_subprotocol=_subprotocol
    ) as server:
        listening.port = next(iter(server.sockets)).getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        listening.url = f"http://{shown}:{listening.port}/v1"
        yield listening
    if listening.deviations:
        raise listening.deviations[0]


class _Socket:
    """A WebSocket of the library as a transport."""

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket

    async def send(self, message: bytes) -> None:
        from websockets.exceptions import ConnectionClosed as Closed

        try:
            await self._socket.send(message, text=True)
        except Closed as closed:
            raise _as_ours(closed) from None

    async def receive(self) -> str | bytes:
        from websockets.exceptions import ConnectionClosed as Closed

        try:
            return await self._socket.recv()
        except Closed as closed:
            raise _as_ours(closed) from None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._socket.close(code, reason)


def _as_ours(closed: Any) -> ConnectionClosed:
    return ConnectionClosed(closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else ConnectionClosed()


def _subprotocol(socket: Any, offered: Sequence[Any]) -> Any:
    return _SUBPROTOCOL if _SUBPROTOCOL in offered else None


# --- leaves -----------------------------------------------------------------------------------------------------------


def _sound_chars(frame: str | bytes) -> int | None:
    """How much sound a message appends, in characters of base64; None where it is another message."""
    message = Message(0, 0.0, "client", frame)
    if not message.type.endswith(".append") and message.type != "audio":
        return None
    event = message.event
    sound = event.get(sound_of(event) or "")
    return len(sound) if isinstance(sound, str) else None


def _is_servers_end(note: Note) -> bool:
    """Whether the server ended the connection. A plain 1000 may be its answer to the client's goodbye."""
    return note.kind == "closed" and note.fields.get("by") == "server" and note.fields.get("code") != NORMAL


def _sendable(code: object) -> int:
    return code if isinstance(code, int) and (code in (1000, 1001) or 3000 <= code <= 4999) else 1001


def _shown(frame: str | bytes) -> str:
    kind = Message(0, 0.0, "client", frame).type
    text = frame if isinstance(frame, str) else f"{len(frame)} bytes"
    short = text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 1] + "…"
    return f"{kind} {short}".strip()


def _error(message: str) -> bytes:
    detail = {"type": "invalid_request_error", "code": "tape_deviation", "message": message, "param": None}
    return json.dumps({"type": "error", "event_id": "event_tape", "error": detail}).encode()
