"""The wires of a test server: an ASGI app around the real one, where messages are recorded and faults happen.

It stands below everything that the server does with a connection, at the messages as they are sent and received, so
nothing above can tell a fault from the world. Invariant: messages of one direction keep their order, faults included;
once a connection is cut, nothing goes either way.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .faults import CUT_CODE, Cut, Drop, Duplicate, Fault, Faults, Inject, Refuse, Stall, Watch
from .record import Record, SeenConnection, parsed, type_of

__all__ = ["Wires"]

SUBPROTOCOL = "realtime"


class Wires:
    """The app with wires that record, and break as `faults` say. HTTP passes untouched."""

    def __init__(self, app: ASGIApp, faults: Faults, record: Record) -> None:
        self._app = app
        self._faults = faults
        self._record = record
        self._left: set[asyncio.Future[None]] = set()
        """Sessions whose connection was cut, which have yet to notice; the server's own drain waits for them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        connection = self._record.connected(scope)
        if (refusal := self._faults.refusal()) is not None:
            await _refuse(refusal, scope, receive, send)
            return
        await self._carry(_Wire(connection, self._record, Watch(self._faults), receive, send), scope)

    async def _carry(self, wire: _Wire, scope: Scope) -> None:
        """Serve until the app is done with the connection, or it is cut: to return is to drop it."""
        session = asyncio.ensure_future(self._app(scope, wire.receive, wire.send))
        try:
            await asyncio.wait((session, wire.was_cut), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            session.cancel()
            raise
        finally:
            wire.is_over()
        if session.done():
            session.result()
        else:
            self._left.add(session)
            session.add_done_callback(self._left.discard)


class _Wire:
    """One connection: what the app takes for its receive and send."""

    def __init__(self, connection: SeenConnection, record: Record, watch: Watch, receive: Receive, send: Send) -> None:
        self._connection = connection
        self._record = record
        self._watch = watch
        self._receive = receive
        self._send = send
        self._sending = asyncio.Lock()
        self._arrived: deque[Message] = deque()
        self.was_cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def is_over(self) -> None:
        """The connection is not to be used any more."""
        self._record.ended(self._connection, CUT_CODE)
        if not self.was_cut.done():
            self.was_cut.set_result(None)

    # --- from the client ----------------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """ASGI's: the next message of the client."""
        while not self._arrived:
            if self.was_cut.done():
                return {"type": "websocket.disconnect", "code": CUT_CODE}
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._record.ended(self._connection, message.get("code") or 1005)
                return message
            if message["type"] != "websocket.receive":
                return message
            try:
                await self._take(message)
            except OSError:  # the client has gone while something was said to it
                self.is_over()
        return self._arrived.popleft()

    async def _take(self, message: Message) -> None:
        text = message.get("text")
        event = parsed(text) if text is not None else {}
        before, after = self._watch.meet("client", type_of(event))
        if not await self._befalls(before):
            return
        for _ in range(_copies(before)):
            self._record.add(self._connection, "client", text or "", event)
            self._arrived.append(message)
        await self._befalls(after)

    # --- from the server ----------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """ASGI's: a message of the server. Raises `OSError` once the connection is cut."""
        if message["type"] == "websocket.send" and message.get("text") is not None:
            async with self._sending:
                await self._give(message["text"])
            return
        self._check()
        await self._send(message)
        if message["type"] == "websocket.accept":
            self._record.opened(self._connection)
        elif message["type"] == "websocket.close":
            self._record.ended(self._connection, message.get("code") or 1000)

    async def _give(self, text: str) -> None:
        event = parsed(text)
        before, after = self._watch.meet("server", type_of(event))
        if await self._befalls(before, is_sending=True):
            for _ in range(_copies(before)):
                await self._say(text)
            await self._befalls(after, is_sending=True)

    async def _say(self, text: str) -> None:
        self._check()
        self._record.add(self._connection, "server", text, parsed(text))
        await self._send({"type": "websocket.send", "text": text})

    def _check(self) -> None:
        if self.was_cut.done():
            raise OSError("the connection was cut")

    # --- faults -------------------------------------------------------------------------------------------------------

    async def _befalls(self, faults: Iterable[Fault], *, is_sending: bool = False) -> bool:
        """What happens at this point, in the order of declaration; says whether the connection is still there."""
        for fault in faults:
            match fault.action:
                case Stall(seconds):
                    await self._hold(fault, seconds)
                case Inject(text) if is_sending:
                    await self._say(text)
                case Inject(text):
                    async with self._sending:
                        await self._say(text)
                case Cut(code, reason):
                    await self._cut(code, reason)
                case _:
                    pass  # how many copies of the message go is its own question
            if self.was_cut.done():
                return False
        return True

    async def _hold(self, fault: Fault, seconds: float | None) -> None:
        lifted = asyncio.wrap_future(fault.lifted)  # never to be cancelled: others may be held up by the same fault
        await asyncio.wait((lifted, self.was_cut), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    async def _cut(self, code: int | None, reason: str) -> None:
        if code is not None:
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
        self._record.ended(self._connection, CUT_CODE if code is None else code)
        if not self.was_cut.done():
            self.was_cut.set_result(None)


def _copies(faults: Iterable[Fault]) -> int:
    """How many times a message arrives."""
    actions = [fault.action for fault in faults]
    if any(isinstance(action, Drop) for action in actions):
        return 0
    return 1 + sum(isinstance(action, Duplicate) for action in actions)


async def _refuse(refusal: Refuse, scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    error = json.dumps({"error": dict(refusal.error)})
    if refusal.status is not None:
        headers = [(b"content-type", b"application/json")]
        if refusal.retry_after_s is not None:
            headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
        await send({"type": "websocket.http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": error.encode()})
        return
    offered = scope.get("subprotocols", ())
    await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if SUBPROTOCOL in offered else None})
    event = {"type": "error", "event_id": "event_refused", "error": dict(refusal.error)}
    await send({"type": "websocket.send", "text": json.dumps(event)})
    kind, code = refusal.error["type"], refusal.error["code"]
    await send({"type": "websocket.close", "code": refusal.close, "reason": f"{kind}.{code}" if code else kind})
