"""A client by WebRTC as the documentation has it, of aiortc alone: a microphone, a data channel, an offer.

Nothing of vivavoce is in it but the address of the server, so that it is a second opinion on both directions of sound.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError, MediaStreamTrack
from av import AudioFrame

TIMEOUT_S = 60.0
"""For everything here: media takes its time, and the machine may be busy."""
SOUND_RMS = 1_500


def in_real_time(main: Coroutine[Any, Any, None]) -> None:
    """Run a test on the real clock; nothing of it may be left."""

    async def timed() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await main
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(timed())


class Microphone(AudioStreamTrack):
    """aiortc's silent track, in which a tone is heard while `is_talking`."""

    def __init__(self) -> None:
        super().__init__()
        self.is_talking = False
        self.begun: asyncio.Event = asyncio.Event()

    async def recv(self) -> AudioFrame:
        frame = await super().recv()
        assert isinstance(frame, AudioFrame)
        if self.is_talking:
            at = np.arange(frame.samples) / frame.sample_rate
            frame.planes[0].update((8_000 * np.sin(2 * np.pi * 400 * at)).astype("<i2").tobytes())
        self.begun.set()
        return frame


class PlainCaller:
    """One call, from the caller's end."""

    def __init__(self, *, label: str = "oai-events", with_channel: bool = True) -> None:
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.microphone = Microphone()
        self.pc.addTrack(self.microphone)
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.seen: list[dict[str, Any]] = []
        self.closed = asyncio.Event()
        self.location = ""
        self.sound: list[tuple[int, float]] = []
        """Of each 20 ms that were received: the position in ms, by RTP, and the level."""
        self.channel = self.pc.createDataChannel(label) if with_channel else None
        if self.channel is not None:
            self.channel.on("message", lambda message: self.events.put_nowait(json.loads(message)))
            self.channel.on("close", self.closed.set)
        self._listening: asyncio.Task[None] | None = None
        self.pc.on("track", self._listen)

    async def offer(self) -> str:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return str(self.pc.localDescription.sdp)

    async def accept(self, answer: httpx.Response) -> None:
        assert answer.status_code == 201, answer.text
        assert answer.headers["content-type"] == "application/sdp"
        self.location = answer.headers["location"]
        await self.pc.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))

    @property
    def call_id(self) -> str:
        return self.location.rpartition("/")[2]

    def send(self, **event: Any) -> None:
        assert self.channel is not None
        self.channel.send(json.dumps(event))

    def say(self, text: str) -> None:
        content = [{"type": "input_text", "text": text}]
        self.send(type="conversation.item.create", item={"type": "message", "role": "user", "content": content})
        self.send(type="response.create")

    async def until(self, type: str) -> dict[str, Any]:
        """The next event of this type; all that come before it are `seen`."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                event = await self.events.get()
                self.seen.append(event)
                if event["type"] == type:
                    return event
                assert event["type"] != "error", event

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.seen]

    def sounding_ms(self, from_ms: int = 0) -> int:
        """How much sound was received, by aiortc's own decoder."""
        return 20 * sum(level > SOUND_RMS for at_ms, level in self.sound if at_ms >= from_ms)

    @property
    def heard_ms(self) -> int:
        """How much was received so far, silence counted."""
        return self.sound[-1][0] if self.sound else 0

    async def hear_until(self, ms: int) -> None:
        """Until sound of so many ms was received since the beginning, silence counted."""
        async with asyncio.timeout(TIMEOUT_S):
            while self.heard_ms < ms:
                self._heard.clear()
                await self._heard.wait()

    _heard: asyncio.Event

    def _listen(self, track: MediaStreamTrack) -> None:
        self._heard = asyncio.Event()
        self._listening = asyncio.create_task(self._hear(track))

    async def _hear(self, track: MediaStreamTrack) -> None:
        first: int | None = None
        try:
            while True:
                frame = await track.recv()
                assert isinstance(frame, AudioFrame)
                assert frame.pts is not None
                first = frame.pts if first is None else first
                level = float(np.sqrt(np.mean(frame.to_ndarray().astype(float) ** 2)))
                self.sound.append(((frame.pts - first) // 48, level))
                self._heard.set()
        except MediaStreamError:
            pass

    async def close(self) -> None:
        await self.pc.close()
        if self._listening is not None:
            await asyncio.wait((self._listening,), timeout=TIMEOUT_S)


@asynccontextmanager
async def plain_call(
    base_url: str,
    *,
    key: str | None = None,
    path: str = "/realtime/calls",
    session: Mapping[str, Any] | None = None,
    label: str = "oai-events",
) -> AsyncIterator[PlainCaller]:
    """A call that is set up: with a `session` by a form, without one by the bare offer."""
    caller = PlainCaller(label=label)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        offer = await caller.offer()
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=TIMEOUT_S) as http:
            if session is None:
                headers["Content-Type"] = "application/sdp"
                answer = await http.post(base_url + path, content=offer, headers=headers)
            else:
                parts = {"sdp": (None, offer), "session": (None, json.dumps(session))}
                answer = await http.post(base_url + path, files=parts, headers=headers)
        await caller.accept(answer)
        yield caller
    finally:
        await caller.close()
