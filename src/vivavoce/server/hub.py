"""One session, several lines: the data channel of a call and the WebSockets that are attached to it (reference §1.1).

A `Transport` for the session: what is sent goes to every line, what is received comes from all, in the order in which
it came. A line that is attached later begins with `session.created`, the session as it is then. Invariants: a sideband
that does not read is let go and holds up nobody; when the call is over, so are all its lines.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from contextlib import suppress

import msgspec

from vivavoce.core.messages import Close
from vivavoce.errors import ConnectionClosed, LocalProtocolError
from vivavoce.protocol.events import ErrorDetail, ErrorEvent
from vivavoce.transports import Transport

from .auth import GOING_AWAY, TRY_AGAIN, Refusal
from .channel import Channel
from .outbox import STALLED

SIDEBANDS_MAX = 4
"""WebSockets attached to one call at once. One more is refused."""

RECEIVED_MESSAGES_MAX = 64
"""Messages of all lines that are not yet taken. Beyond it no line is read."""

RECEIVED_BYTES_MAX = 1024 * 1024
"""Likewise, in bytes."""

SIDEBAND_BYTES_MAX = 4 * 1024 * 1024
"""Messages that wait for one sideband. Beyond it that one is closed with 1008."""

SIDEBAND_MESSAGES_MAX = 1_024
"""Likewise, in messages."""

LAST_WORD_S_MAX = 1.0
"""Time to tell a peer why its call is over."""

RETRIEVED = "conversation.item.retrieved"
"""The one event that brings sound over a data channel: 4 s of it fill a message as browsers take them."""

NORMAL = 1000
"""The close code of a hang-up."""

CLOSE_S_MAX = 5.0
"""Time for the closing of a line. Then it is dropped."""

FILTERED = frozenset(
    {
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "output_audio_buffer.started",
        "output_audio_buffer.stopped",
        "conversation.item.input_audio_transcription.completed",
        "conversation.item.added",
        "conversation.item.created",
        "response.output_text.delta",
        "response.output_text.done",
        "response.output_audio_transcript.delta",
        "response.output_audio_transcript.done",
    }
)
"""What a data channel gets with `webrtcfilter=on` (reference §7)."""

_TYPE = re.compile(rb'\{"type":"([a-z_.]+)"')
_SESSIONS = frozenset({"session.created", "session.updated", "transcription_session.updated"})

log = logging.getLogger(__name__)


class _Sideband:
    """One attached WebSocket, and what waits for it."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.waiting: Channel[bytes | Close] = Channel(bytes_max=SIDEBAND_BYTES_MAX, messages_max=SIDEBAND_MESSAGES_MAX)
        self.is_let_go = asyncio.Event()
        """Set where it does not read what it is sent."""

    def offer(self, message: bytes) -> bool:
        """Send it as soon as the client reads; say whether there was room for it."""
        with suppress(ConnectionClosed):
            return self.waiting.offer(message, len(message))
        return False

    async def write(self) -> None:
        """Send what waits, until the line is closed from here, or by the client."""
        with suppress(ConnectionClosed, TimeoutError):
            while not isinstance(message := await self.waiting.get(), Close):
                await self.transport.send(message)
            async with asyncio.timeout(CLOSE_S_MAX):
                await self.transport.close(message.code, message.reason)


class Hub:
    """The lines of one call. `channel` is that of the peer; with `is_filtered` it is told only what a page needs."""

    def __init__(self, channel: Transport, new_id: Callable[[str], str], *, is_filtered: bool = False) -> None:
        self._channel = channel
        self._new_id = new_id
        self._is_filtered = is_filtered
        self._received: Channel[str | bytes] = Channel(bytes_max=RECEIVED_BYTES_MAX, messages_max=RECEIVED_MESSAGES_MAX)
        self._sidebands: set[_Sideband] = set()
        self._session: bytes | None = None
        """The last message that says what the session is."""
        self._has_expired = False
        """Whether the peer was told that the session is over by its time."""
        self._reading: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()
        self._end: ConnectionClosed | None = None
        self.last_s = asyncio.get_running_loop().time()
        """When the last event went through, in either direction."""

    def __len__(self) -> int:
        return len(self._sidebands)

    # --- the session's side -------------------------------------------------------------------------------------------

    async def send(self, message: bytes) -> None:
        """To every line. Waits while the peer is slow. Raises `ConnectionClosed` where the call is over."""
        self._touch()
        kind = _type(message)
        if kind in _SESSIONS:
            self._session = message
        elif kind == "error":
            self._has_expired = b'"session_expired"' in message
        for sideband in tuple(self._sidebands):
            if not sideband.offer(message):
                self._let_go(sideband)
        if self._end is not None:
            raise self._end
        if not self._is_filtered or kind in FILTERED:
            await self._to_peer(message, kind)

    async def _to_peer(self, message: bytes, kind: str) -> None:
        """What is too large is told without its sound, which the peer has heard or said; or else as an error."""
        forms = (message, _without_audio(message)) if kind == RETRIEVED else (message,)
        for form in forms:
            try:
                return await self._channel.send(form)
            except LocalProtocolError as error:
                log.info("a peer is not told a %s as it is: %s", kind, error)
        detail = ErrorDetail(
            type="server_error",
            code="event_too_large",
            message=f"A {kind!r} of {len(message)} bytes is too large for this data channel; a sideband gets it.",
        )
        return await self._channel.send(msgspec.json.encode(ErrorEvent(event_id=self._new_id("event"), error=detail)))

    async def receive(self) -> str | bytes:
        """The next message of any line. Raises `ConnectionClosed` when the peer is gone, or the call is over."""
        if self._reading is None and self._end is None:
            self._reading = asyncio.create_task(self._read_peer(), name="reading of a data channel")
        return await self._received.get()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End every line; doing it twice is harmless."""
        self.end(ConnectionClosed(code, reason))
        for sideband in self._sidebands:
            sideband.waiting.push(Close(code, reason))
        self._closed.set()
        await self._say_why(code, reason)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S_MAX):
                await self._channel.close(code, reason)
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))

    async def _say_why(self, code: int, reason: str) -> None:
        """A data channel has no close code: without a word, a server that stops would look like one that hangs up."""
        if code == NORMAL or self._has_expired:
            return
        detail = ErrorDetail(type="server_error", code="session_ended", message=reason or "The session has ended.")
        with suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(LAST_WORD_S_MAX):  # a channel that was never opened takes nothing
                await self._channel.send(msgspec.json.encode(ErrorEvent(event_id=self._new_id("event"), error=detail)))

    def end(self, reason: ConnectionClosed) -> None:
        """The call is over, and the session learns why. Only the first end counts."""
        self._end = self._end or reason
        self._received.end(self._end)

    async def _read_peer(self) -> None:
        try:
            while True:
                await self._take(await self._channel.receive())
        except ConnectionClosed as closed:
            self.end(closed)

    async def _take(self, message: str | bytes) -> None:
        self._touch()
        if not self._received.offer(message, len(message)):
            await self._received.put(message, len(message))

    def _touch(self) -> None:
        self.last_s = asyncio.get_running_loop().time()

    # --- sidebands ----------------------------------------------------------------------------------------------------

    def check_room(self) -> None:
        """Raises `Refusal` where no sideband can be attached."""
        if self._end is not None:
            raise Refusal(GOING_AWAY, "call_ended", "This call is over.", status=404)
        if len(self._sidebands) >= SIDEBANDS_MAX:
            message = f"At most {SIDEBANDS_MAX} WebSockets are attached to one call; close one of them."
            raise Refusal(TRY_AGAIN, "too_many_sidebands", message, type="rate_limit_error")

    async def carry(self, transport: Transport) -> None:
        """Attach a line until either end of it, or the call, is over. Raises `Refusal`, as there is room now."""
        self.check_room()
        sideband = _Sideband(transport)
        if self._session is not None:
            sideband.offer(self._greeting(self._session))
        self._sidebands.add(sideband)
        writing = asyncio.create_task(sideband.write(), name="writing to a sideband")
        tasks = {
            writing,
            asyncio.create_task(self._read(transport), name="reading of a sideband"),
            asyncio.create_task(_set(sideband.is_let_go), name="patience with a sideband"),
            asyncio.create_task(_set(self._closed), name="the end of a call"),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._closed.is_set():
                await asyncio.wait((writing,), timeout=CLOSE_S_MAX)
        finally:
            self._sidebands.discard(sideband)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if sideband.is_let_go.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S_MAX):
                    await transport.close(STALLED.code, STALLED.reason)

    async def _read(self, transport: Transport) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self._take(await transport.receive())

    def _let_go(self, sideband: _Sideband) -> None:
        """It does not read: what waits for it is dropped, and it is told so, if it ever looks."""
        self._sidebands.discard(sideband)
        sideband.waiting.end(ConnectionClosed(STALLED.code, STALLED.reason))
        sideband.is_let_go.set()

    def _greeting(self, session: bytes) -> bytes:
        """`session.created`, of the session as it is."""
        told = msgspec.json.decode(session)
        told["type"], told["event_id"] = "session.created", self._new_id("event")
        return msgspec.json.encode(told)


async def _set(event: asyncio.Event) -> None:
    await event.wait()


def _type(message: bytes) -> str:
    """The type of an event; the codecs write it first."""
    found = _TYPE.match(message)
    return found[1].decode() if found else ""


def _without_audio(message: bytes) -> bytes:
    """A retrieved item with all that it has but its sound."""
    told = msgspec.json.decode(message)
    for part in told["item"].get("content") or ():
        part.pop("audio", None)
    return msgspec.json.encode(told)
