"""An endpoint whose times are known to the millisecond: played over memory, on virtual time."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from vivavoce.audio.levels import peak_db
from vivavoce.errors import ConnectionClosed
from vivavoce.testing.bench.conversation import Endpoint
from vivavoce.testing.sounds import tone
from vivavoce.testing.virtual_time import VirtualTimeLoop
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair

CHUNK_MS = 20
LOUD_DB = -40.0


class PlayedEndpoint:
    """Finds turns by level and answers them, at the pace that it is told. Every time is in ms."""

    def __init__(
        self,
        name: str = "played",
        *,
        silence_ms: int = 500,
        first_ms: int = 100,
        extra_at_first_ms: int = 0,
        deltas: int = 10,
        delta_ms: int = 100,
        every_ms: int = 50,
        stops_ms: int = 40,
        closes_in_turn: int | None = None,
        mute: bool = False,
    ) -> None:
        self.endpoint = Endpoint(name, dial=self.dial)
        self.spoken_at: list[float] = []
        """When each turn was found to begin."""
        self.sessions = 0
        self.configured: list[Mapping[str, Any]] = []
        self.most_at_once = 0
        self._silence_ms, self._first_ms, self._extra_ms = silence_ms, first_ms, extra_at_first_ms
        self._deltas, self._delta_ms, self._every_ms, self._stops_ms = deltas, delta_ms, every_ms, stops_ms
        self._closes_in_turn, self._mute = closes_in_turn, mute
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0

    async def dial(self, headers: Mapping[str, str]) -> Transport:
        assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop), "its times are only true on virtual time"
        client, server = pair()
        self.sessions += 1
        self._begin(self._serve(server))
        return client

    def _begin(self, coroutine: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _serve(self, end: Transport) -> None:
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        try:
            await self._listen(_Talk(end, self))
        except ConnectionClosed:
            pass
        finally:
            self._open -= 1

    async def _listen(self, talk: _Talk) -> None:
        await talk.say("session.created", session={"type": "realtime", "id": "sess_1"})
        while True:
            event = json.loads(await talk.end.receive())
            if event["type"] == "session.update":
                self.configured.append(event["session"])
                await talk.say("session.updated", session={**event["session"], "id": "sess_1"})
            elif event["type"] == "input_audio_buffer.append":
                await talk.hear(base64.b64decode(event["audio"]))


class _Talk:
    """One session."""

    def __init__(self, end: Transport, house: PlayedEndpoint) -> None:
        self.end, self._house = end, house
        self._turn, self._quiet_ms, self._is_speaking = 0, 0, False
        self._answering: asyncio.Task[None] | None = None

    async def say(self, type: str, **fields: Any) -> None:
        await self.end.send(json.dumps({"type": type, "event_id": "event_1", **fields}).encode())

    async def hear(self, audio: bytes) -> None:
        if peak_db(audio) > LOUD_DB:
            self._quiet_ms = 0
            if not self._is_speaking:
                await self._speech_starts()
        elif self._is_speaking:
            self._quiet_ms += CHUNK_MS
            if self._quiet_ms == self._house._silence_ms:
                await self._speech_stops()

    async def _speech_starts(self) -> None:
        self._is_speaking = True
        self._turn += 1
        loop = asyncio.get_running_loop()
        self._house.spoken_at.append(loop.time())
        if self._answering is not None and not self._answering.done():
            loop.call_later(self._house._stops_ms / 1000, self._answering.cancel)
        if self._turn == self._house._closes_in_turn and self._house.sessions == 1:
            await self.end.close(1011, "out of order")
        await self.say("input_audio_buffer.speech_started", item_id=f"item_{self._turn}", audio_start_ms=0)

    async def _speech_stops(self) -> None:
        self._is_speaking = False
        item_id = f"item_{self._turn}"
        await self.say("input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=0)
        await self.say("input_audio_buffer.committed", item_id=item_id, previous_item_id=None)
        if not self._house._mute:
            self._answering = self._house._begin(self._answer(f"resp_{self._turn}"))

    async def _answer(self, id: str) -> None:
        house = self._house
        of = {"response_id": id, "item_id": f"answer_{id}", "output_index": 0, "content_index": 0}
        response = {"object": "realtime.response", "id": id, "output": []}
        try:
            await self.say("response.created", response={**response, "status": "in_progress"})
            await asyncio.sleep((house._first_ms + (house._extra_ms if self._turn == 1 else 0)) / 1000)
            await self.say("response.output_audio_transcript.delta", **of, delta="Yes.")
            for number in range(house._deltas):
                if number:
                    await asyncio.sleep(house._every_ms / 1000)
                await self.say(
                    "response.output_audio.delta", **of, delta=base64.b64encode(tone(house._delta_ms)).decode()
                )
            await self.say("response.done", response={**response, "status": "completed"})
        except asyncio.CancelledError:
            with suppress(ConnectionClosed):
                await self.say("response.done", response={**response, "status": "cancelled"})
        except ConnectionClosed:
            pass
