"""Listens in between a client and the server: passes every byte on as it is, and keeps what both said.

Clients that do not show what they receive, and those that insist on TLS, reach the server through it. WebSocket frames
are taken apart by the `websockets` package, compressed ones too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol

READ_BYTES_MAX = 2**16
START_SECONDS_MAX = 10


@dataclass
class Overheard:
    """One connection: the request that opened it, and the text messages of both sides."""

    request: str = ""
    said: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)

    def endings(self) -> list[tuple[str, str | None]]:
        """How each response ended: its status, and the reason where there is one."""
        events = map(json.loads, self.heard)
        done = [event["response"] for event in events if event["type"] == "response.done"]
        return [(one["status"], (one["status_details"] or {}).get("reason")) for one in done]


class _Side:
    """What one end of a connection sends: a head, then frames."""

    def __init__(self, protocol: Protocol, messages: list[str]) -> None:
        self.protocol = protocol
        self._messages = messages
        self._head: bytes | None = b""
        self._partial = b""

    def feed(self, data: bytes) -> str | None:
        """Read on; returns the head when it is complete."""
        if self._head is None:
            self._read_frames(data)
            return None
        head, end, rest = (self._head + data).partition(b"\r\n\r\n")
        self._head = None if end else head
        if not end:
            return None
        self._read_frames(rest)
        return head.decode("latin-1")

    def _read_frames(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        self.protocol.data_to_send()
        for frame in self.protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode in (Opcode.TEXT, Opcode.CONT):
                self._partial += frame.data
                if frame.fin:
                    self._messages.append(self._partial.decode())
                    self._partial = b""


class Tap:
    """A server on loopback that stands for the one at `server_url`; used as a context manager.

    With a certificate (PEM of key and certificate) it speaks TLS to its clients.
    """

    def __init__(self, server_url: str, certificate: str | None = None) -> None:
        there = urlsplit(server_url)
        self._there = (there.hostname, there.port)
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        self.connections: list[Overheard] = []
        self.url = ""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    def __enter__(self) -> Tap:
        self._thread.start()
        assert self._ready.wait(START_SECONDS_MAX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        scheme = "wss" if self._tls else "ws"
        self.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(self._relay(reader, writer))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        overheard = Overheard()
        self.connections.append(overheard)
        near = _Side(Protocol(SERVER, state=OPEN, max_size=None), overheard.said)
        far = _Side(Protocol(CLIENT, state=OPEN, max_size=None), overheard.heard)
        there_reader, there_writer = await asyncio.open_connection(*self._there)

        async def up() -> None:
            async for data in _pieces(reader, there_writer):
                overheard.request += near.feed(data) or ""

        async def down() -> None:
            async for data in _pieces(there_reader, writer):
                if "permessage-deflate" in (far.feed(data) or ""):
                    near.protocol.extensions = [_inflation()]
                    far.protocol.extensions = [_inflation()]

        try:
            await asyncio.gather(up(), down())
        finally:
            writer.close()
            there_writer.close()


def _inflation() -> PerMessageDeflate:
    """Reads every way of compressing: the widest window, and a context that is kept whether it is needed or not."""
    return PerMessageDeflate(False, False, 15, 15)


async def _pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
    """What is read, each piece before it is passed on; ends when either end has gone."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(READ_BYTES_MAX):
            yield data
            writer.write(data)
            await writer.drain()
    writer.close()
