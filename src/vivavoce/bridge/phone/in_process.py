"""A server in this process as an endpoint of the client: connections of memory in place of sockets.

    connect(dial=in_process(app))

The client's `Session` is the same as for any other endpoint, so what is built on it has one implementation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vivavoce.server.auth import Asked
from vivavoce.server.sessions import Sessions
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from vivavoce.client.line import Dial


def in_process(server: Starlette | Sessions, model: str = "vivavoce", *, api_key: str | None = None) -> Dial:
    """What `connect(dial=…)` takes to hold its sessions with a server of `create_app`, without a network.

    `model` is the one that is asked for, which by default may be any; `api_key` goes along where that server wants one.
    """
    sessions = server if isinstance(server, Sessions) else server.state.sessions
    serving: set[asyncio.Task[None]] = set()
    query = {"model": model}
    key = {} if api_key is None else {"authorization": f"Bearer {api_key}"}

    async def dial(headers: Mapping[str, str]) -> Transport:
        near, far = pair()
        asked = Asked("openai", {**key, **{name.lower(): value for name, value in headers.items()}}, query)
        task = asyncio.create_task(sessions.serve(asked, far), name="a session in process")
        serving.add(task)
        task.add_done_callback(serving.discard)
        return near

    return dial
