"""A WebRTC connection as the transport of a session: audio by RTP, all else over the data channel.

append → the track that is played to the server; sound of the server → `Sounding` → audio deltas, between the events.
So everything above is the same as on a WebSocket. Invariants: audio and the events that are about it keep their order:
a commit leaves when the audio before it has been played; when the transport is closed, so is the connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from vivavoce.errors import ConnectionClosed
from vivavoce.protocol.client_codec import Dialect
from vivavoce.transports import Transport
from vivavoce.transports.inbox import Inbox, Sink

from .sounding import Sounding

log = logging.getLogger(__name__)

AHEAD_MS = 200
"""Own audio that waits to be played beyond which `room` waits: a source is read at the pace at which it is heard."""
AHEAD_MS_MAX = 120_000
"""Own audio that waits to be played beyond which `send` waits."""
COMMIT_MS = 100
"""Time that audio is given to arrive before the event that is about it, which goes another way."""
UNREAD_MESSAGES_MAX = 4_096
"""Messages and pieces of sound that wait to be read. Beyond it the data channel is not read,"""
UNREAD_BYTES_MAX = 16 * 1024 * 1024
"""likewise in bytes; sound cannot wait, and what comes beyond is dropped."""


class Outlet(Protocol):
    """What this end says, played in real time. `vivavoce.transports.webrtc.Outlet`."""

    dry: Callable[[str], None]

    def put(self, key: str, pcm24k: bytes) -> None:
        """More to play."""
        ...

    def end(self, key: str) -> None:
        """Nothing more comes for now."""
        ...

    def clear(self) -> None:
        """Forget what is still to be played."""
        ...

    @property
    def waiting_ms(self) -> int:
        """How much that is."""
        ...


class Peer(Protocol):
    """An open WebRTC connection. `vivavoce.transports.webrtc.Peer`."""

    @property
    def outlet(self) -> Outlet:
        """What this end says."""
        ...

    @property
    def channel(self) -> Transport:
        """The data channel."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


class _Client(msgspec.Struct):
    """What is looked at of a message to the server."""

    type: str = ""
    audio: bytes = b""


class _Error(msgspec.Struct):
    code: str | None = None
    type: str | None = None


class _Complaint(msgspec.Struct):
    type: str = ""
    error: _Error | None = None


_PASSING = frozenset({"session_expired", "server_error"})
"""Errors after which a server that hangs up at once means that another call will do."""


class PeerTransport:
    """A `Transport` over a peer, which `begin` brings; `hear` is what the peer is made with.

    `hang_up` tells the server, by another way, that the call is over; it is awaited once, at the end.
    """

    def __init__(self, dialect: Dialect = "ga") -> None:
        self._sounding = Sounding(dialect)
        self._inbox = Inbox(UNREAD_MESSAGES_MAX, UNREAD_BYTES_MAX, on_room=self._has_room)
        self._room = asyncio.Event()
        self._turns = 0
        self._played = asyncio.Event()
        self._left_s = -COMMIT_MS / 1000
        """When the last own audio has left."""
        self._peer: Peer | None = None
        self._hang_up: Callable[[], Awaitable[None]] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self.dropped_bytes = 0
        """Sound that nobody has read in time."""

    def begin(self, peer: Peer, hang_up: Callable[[], Awaitable[None]] | None = None) -> None:
        """The connection stands, or soon will."""
        self._peer, self._hang_up = peer, hang_up
        peer.outlet.dry = lambda key: self._has_left()
        self._reading = asyncio.get_running_loop().create_task(self._read(peer.channel))

    # --- in -----------------------------------------------------------------------------------------------------------

    def hear(self, pcm: bytes) -> None:
        """Sound of the server: PCM16 mono at 24 kHz, in order."""
        if self._inbox.full:
            self.dropped_bytes += len(pcm)
            return
        self._put(self._sounding.heard(pcm))

    def _put(self, messages: list[str | bytes]) -> None:
        for message in messages:
            self._inbox.put(message, len(message))

    async def _read(self, channel: Transport) -> None:
        """Take what comes over the data channel, to its end; then the connection is of no use."""
        complaint: _Error | None = None
        try:
            while True:
                message = await channel.receive()
                complaint = _complaint(message)
                self._put(self._sounding.told(message))
                while self._inbox.full and self._inbox.ended is None:
                    self._room.clear()
                    await self._room.wait()
        except ConnectionClosed as closed:
            self._put(self._sounding.end())
            code, reason = closed.code, closed.reason
            if code == 1000 and complaint is not None and {complaint.code, complaint.type} & _PASSING:
                code, reason = 1001, complaint.code or reason
            self._inbox.end(code, reason)
            self._played.set()
        self._close_soon()

    def _has_room(self) -> None:
        self._room.set()

    def _has_left(self) -> None:
        self._left_s = asyncio.get_running_loop().time()
        self._played.set()

    async def receive(self) -> str | bytes:
        """The next message. Raises `ConnectionClosed` at the end."""
        return await self._inbox.get()

    async def forward(self, sink: Sink) -> None:
        """Hand every message to `sink` until it returns False. Raises `ConnectionClosed` after the last one."""
        await self._inbox.forward(sink)

    # --- out ----------------------------------------------------------------------------------------------------------

    async def send(self, message: bytes) -> None:
        """Send one message: audio by the track, all else over the data channel. Raises `ConnectionClosed`."""
        if self._peer is None or self._inbox.ended is not None:
            raise self._inbox.ended or ConnectionClosed(1006, "there is no connection yet")
        if b'"input_audio_buffer.' in message:
            with suppress(msgspec.DecodeError):
                about = msgspec.json.decode(message, type=_Client)
                if about.type == "input_audio_buffer.append":
                    await self._say(self._peer.outlet, about.audio)
                    return
                if about.type == "input_audio_buffer.clear":
                    await self._be_silent(self._peer.outlet)
                elif about.type == "input_audio_buffer.commit":
                    await self._be_heard(self._peer.outlet)
        await self._peer.channel.send(message)

    async def room(self) -> None:
        """Wait while more own audio waits to be played than is needed to go on without a gap."""
        await self._no_more_than(AHEAD_MS)

    async def _no_more_than(self, waiting_ms: int) -> None:
        """Wait until no more waits to be played; it is played in real time."""
        while self._peer is not None and self._inbox.ended is None:
            ahead_ms = self._peer.outlet.waiting_ms - waiting_ms
            if ahead_ms <= 0:
                return
            await asyncio.sleep(ahead_ms / 1000)

    async def _say(self, outlet: Outlet, audio: bytes) -> None:
        await self._no_more_than(AHEAD_MS_MAX)
        outlet.put(self._key, audio)

    @property
    def _key(self) -> str:
        """Under which the outlet has what this end says; each commit ends one."""
        return f"own_{self._turns}"

    async def _be_heard(self, outlet: Outlet) -> None:
        """Wait until all has been played, and has had its time to arrive."""
        outlet.end(self._key)
        self._turns += 1
        while outlet.waiting_ms and self._inbox.ended is None:
            self._played.clear()
            await self._played.wait()
        await asyncio.sleep(COMMIT_MS / 1000)

    async def _be_silent(self, outlet: Outlet) -> None:
        """Say no more, and wait until what has left has had its time to arrive, to be cleared there."""
        clock = asyncio.get_running_loop().time
        if outlet.waiting_ms:
            self._left_s = clock()
        outlet.clear()
        await asyncio.sleep(max(self._left_s + COMMIT_MS / 1000 - clock(), 0))

    # --- the end ------------------------------------------------------------------------------------------------------

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Hang up, after what was sent; doing it twice is harmless."""
        self._inbox.end(code, reason, discard=True)
        self._room.set()
        self._played.set()
        self._close_soon()
        assert self._closing is not None
        await asyncio.shield(self._closing)

    def _close_soon(self) -> None:
        """In a task of its own: whoever waits for the end may be cancelled, and it comes all the same."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())

    async def _close(self) -> None:
        peer = self._peer
        if peer is not None:
            await peer.channel.close()
            await peer.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._hang_up is not None:
            await self._hang_up()


def _complaint(message: str | bytes) -> _Error | None:
    """What an `error` says."""
    if '"error"' not in (message if isinstance(message, str) else message.decode(errors="replace")):
        return None
    with suppress(msgspec.DecodeError):
        told = msgspec.json.decode(message, type=_Complaint)
        return told.error if told.type == "error" else None
    return None
