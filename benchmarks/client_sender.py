"""The other end of `client.py`, in a process of its own: sends prepared messages, and does next to nothing else.

What a connection is to receive stands in the name of its model: `flood-20-4000` for 4,000 deltas of 20 ms as fast as
they are taken, `pace-20-200` for 200 of them in real time. They come when the client asks for a response. All bytes of
a connection are made before it begins, WebSocket framing included, so that the client is the slower of the two.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import struct
from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

Json = dict[str, Any]

BLOCK_BYTES = 64 * 1024
"""Of what is written at once when nobody waits for the clock."""
PHASES = 20
"""Connections at pace do not send all at once: each begins a little later than the one before."""
SESSION: Json = {
    "type": "realtime", "object": "realtime.session", "id": "sess_CRz8kQ0dW5yTn0dQW5yTn", "model": "gpt-realtime",
    "output_modalities": ["audio"], "instructions": "Be brief.", "tools": [], "tool_choice": "auto",
    "audio": {"output": {"format": {"type": "audio/pcm", "rate": 24_000}, "voice": "marin", "speed": 1.0}},
}  # fmt: skip
RESPONSE: Json = {
    "id": "resp_CRz8kW5yTn0dQCRz8kW5",
    "object": "realtime.response",
    "output": [],
    "status_details": None,
}
ITEM: Json = {"id": "item_CRz8k5yTnW0dQCRz8k5y", "type": "message", "role": "assistant", "content": []}
PLACE: Json = {"response_id": RESPONSE["id"], "output_index": 0}
PART: Json = {**PLACE, "item_id": ITEM["id"], "content_index": 0}


def message(type: str, fields: Json, number: int = 0) -> bytes:
    """One message as it is on the wire: a WebSocket frame with an event in it."""
    text = json.dumps({"type": type, "event_id": f"event_CRz8kQ0dW5yTn{number:06}", **fields}).encode()
    size = len(text)
    if size < 126:
        head = bytes([0x81, size])
    elif size < 65_536:
        head = struct.pack(">BBH", 0x81, 126, size)
    else:
        head = struct.pack(">BBQ", 0x81, 127, size)
    return head + text


def opening() -> bytes:
    """What comes before the first delta of a response."""
    item = {**ITEM, "status": "in_progress"}
    return b"".join((
        message("response.created", {"response": {**RESPONSE, "status": "in_progress"}}),
        message("response.output_item.added", {**PLACE, "item": item}),
        message("conversation.item.added", {"previous_item_id": None, "item": item}),
        message("response.content_part.added", {**PART, "part": {"type": "audio", "transcript": ""}}),
    ))  # fmt: skip


def deltas(ms: int, count: int) -> list[bytes]:
    """Audio deltas, 24 kHz PCM16."""
    audio = b64encode(bytes(index * 37 % 251 for index in range(48 * ms))).decode()
    return [message("response.output_audio.delta", {**PART, "delta": audio}, number) for number in range(count)]


def closing() -> bytes:
    """What comes after the last delta."""
    item = {**ITEM, "status": "completed", "content": [{"type": "output_audio", "transcript": "Yes."}]}
    return b"".join((
        message("response.output_audio.done", PART),
        message("response.content_part.done", {**PART, "part": {"type": "audio", "transcript": "Yes."}}),
        message("conversation.item.done", {"previous_item_id": None, "item": item}),
        message("response.output_item.done", {**PLACE, "item": item}),
        message("response.done", {"response": {**RESPONSE, "status": "completed", "output": [item]}}),
    ))  # fmt: skip


def blocks(messages: list[bytes]) -> Iterator[bytes]:
    """The messages in blocks that are worth a system call."""
    each = max(1, BLOCK_BYTES // len(messages[0]))
    return (b"".join(messages[start : start + each]) for start in range(0, len(messages), each))


class Sender(WSListener):
    """One connection."""

    def __init__(self, model: str, phase: float) -> None:
        self._phase = phase
        self._kind, ms, count = model.split("-")
        self._ms = int(ms)
        self._deltas = deltas(self._ms, int(count))
        self._room = asyncio.Event()
        self._room.set()
        self._sending: asyncio.Task[None] | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        """A session begins."""
        self._transport = transport
        self._wire = transport.underlying_transport
        self._wire.write(message("session.created", {"session": SESSION}))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Whatever the client says is dropped, save that it asks for a response or leaves."""
        if frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif b'"response.create"' in frame.get_payload_as_memoryview()[:400].tobytes():
            self._sending = asyncio.get_running_loop().create_task(self._send())

    def pause_writing(self) -> None:
        """The client is slower."""
        self._room.clear()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._room.set()

    async def _send(self) -> None:
        self._wire.write(opening())
        if self._kind == "pace":
            await self._send_at_pace()
        else:
            for block in blocks(self._deltas) if self._deltas else ():
                self._wire.write(block)
                await self._room.wait()
        self._wire.write(closing())

    async def _send_at_pace(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time() + self._phase * self._ms / 1000
        for number, delta in enumerate(self._deltas):
            await asyncio.sleep(max(0.0, begun + number * self._ms / 1000 - loop.time()))
            self._wire.write(delta)


async def serve() -> None:
    """Say the address and send until the process is ended."""
    phases = itertools.cycle(number / PHASES for number in range(PHASES))

    def connected(request: WSUpgradeRequest) -> Sender:
        query = parse_qs(urlsplit(request.path.decode()).query)
        return Sender(query["model"][0], next(phases))

    server = await ws_create_server(connected, "127.0.0.1", 0)
    print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
