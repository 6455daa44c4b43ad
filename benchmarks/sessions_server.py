"""The servers that `sessions.py` measures, each with a clock on its own event loop.

    python sessions_server.py uvicorn|picows|reference

says its address, then answers each line on standard input with a line of JSON: how late the event loop was since the
line before, and how many tasks there are. Ends with its standard input. `uvicorn` and `picows` are our server, speaking
WebSocket by the one or the other, with scripted engines that answer in real time; `reference` is what one writes in an
afternoon: Starlette, uvicorn and the pydantic types of the `openai` package as they come, decoding the audio of each
append and sending as much audio back, without any session behind it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import threading
import time
from functools import partial
from typing import Any

import uvloop

TICK_S = 0.005
"""How often the event loop is looked at."""
SESSIONS_MAX = 2_000
DELTA_MS = 100
DELTA_BYTES = DELTA_MS * 48


class LoopClock:
    """How late a timer of this loop fires, sampled every `TICK_S`."""

    def __init__(self) -> None:
        self._late_ms: list[float] = []

    async def run(self) -> None:
        """Sample until cancelled."""
        clock = time.perf_counter  # the loop's own clock stands still while the loop is busy
        due = clock() + TICK_S
        while True:
            await asyncio.sleep(max(due - clock(), 0))
            now = clock()
            self._late_ms.append((now - due) * 1000)
            due = max(due + TICK_S, now)

    def report(self) -> str:
        """Percentiles since the last report, and the tasks of the loop."""
        late, self._late_ms = sorted(self._late_ms) or [0.0], []
        p50, p99 = (late[min(int(len(late) * share), len(late) - 1)] for share in (0.5, 0.99))
        return json.dumps({"p50_ms": p50, "p99_ms": p99, "max_ms": late[-1], "tasks": len(asyncio.all_tasks())})


async def serve_vivavoce(door: str, stop: asyncio.Event) -> None:
    """The server, with the scripted pipeline."""
    from vivavoce.server import running
    from vivavoce.server.serve import keep_for_good
    from vivavoce.server.settings import settings_of

    in_real_time = {"engine": "scripted", "options": {"piece_delay_s": DELTA_MS / 1000}}
    scripted = {"engine": "scripted"}
    pipeline = {"vad": scripted, "transcriber": scripted, "language_model": scripted, "synthesizer": in_real_time}
    settings = settings_of(
        {
            "port": 0,
            "pipeline": "paced",
            "pipelines": {"paced": pipeline},
            "sessions_max": SESSIONS_MAX,
            "log_level": "warning",
            "websocket": door,
        }
    )
    async with running(settings) as server:
        keep_for_good()  # as `vivavoce serve` does
        print(f"ws://{server.host}:{server.port}", flush=True)
        await stop.wait()


async def serve_reference(stop: asyncio.Event) -> None:
    """The reference: for each 100 ms of audio that came, a delta of 100 ms."""
    import uvicorn
    from openai.types.realtime import ResponseAudioDeltaEvent
    from openai.types.realtime.realtime_client_event import RealtimeClientEvent
    from pydantic import TypeAdapter
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    client_event: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)

    async def converse(socket: WebSocket) -> None:
        await socket.accept()
        held = bytearray()
        number = 0
        try:
            while True:
                event = client_event.validate_json(await socket.receive_text())
                if event.type != "input_audio_buffer.append":
                    continue
                held += base64.b64decode(event.audio)
                while len(held) >= DELTA_BYTES:
                    number += 1
                    delta = ResponseAudioDeltaEvent(
                        type="response.output_audio.delta",
                        event_id=f"event_{number}",
                        response_id="resp_1",
                        item_id="item_1",
                        output_index=0,
                        content_index=0,
                        delta=base64.b64encode(held[:DELTA_BYTES]).decode(),
                    )
                    del held[:DELTA_BYTES]
                    await socket.send_text(delta.model_dump_json())
        except WebSocketDisconnect:
            pass

    app = Starlette(routes=[WebSocketRoute("/v1/realtime", converse)])
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", ws_per_message_deflate=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn sets a flag and no event
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    print(f"ws://127.0.0.1:{port}", flush=True)
    await stop.wait()
    server.should_exit = True
    await serving


SERVERS = {
    "uvicorn": partial(serve_vivavoce, "uvicorn"),
    "picows": partial(serve_vivavoce, "picows"),
    "reference": serve_reference,
}


async def main(name: str) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    clock = LoopClock()
    ticking = asyncio.create_task(clock.run())

    def answer() -> None:
        print(clock.report(), flush=True)

    def listen() -> None:
        for _ in sys.stdin:
            loop.call_soon_threadsafe(answer)
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=listen, daemon=True).start()
    await SERVERS[name](stop)
    ticking.cancel()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
