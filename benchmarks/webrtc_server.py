"""The reference of `webrtc.py`: aiortc as its own examples use it, giving every peer back what it says.

Each peer's audio is decoded and encoded again, as a server does that hears and speaks, with no session behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import uvicorn
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

CONNECTIONS: set[RTCPeerConnection] = set()


async def call(request: Request) -> Response:
    """Answer an offer."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    CONNECTIONS.add(connection)

    @connection.on("track")
    def give_back(track: MediaStreamTrack) -> None:
        connection.addTrack(track)

    @connection.on("connectionstatechange")
    async def forget() -> None:
        if connection.connectionState in ("failed", "closed"):
            CONNECTIONS.discard(connection)
            await connection.close()

    await connection.setRemoteDescription(RTCSessionDescription((await request.body()).decode(), "offer"))
    await connection.setLocalDescription(await connection.createAnswer())
    return Response(connection.localDescription.sdp, 201, media_type="application/sdp")


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Hang up at the end."""
    yield
    await asyncio.gather(*(connection.close() for connection in tuple(CONNECTIONS)))


def main() -> None:
    """Serve on a free port of the loopback."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    print(f"ws://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    app = Starlette(routes=[Route("/v1/realtime/calls", call, methods=["POST"])], lifespan=lifespan)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
