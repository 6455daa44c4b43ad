"""A client that knows nothing of Realtime: a WebSocket, and JSON in and out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.sync.client import ClientConnection, connect

from vivavoce.testing.real_server import RealServer

SECONDS_MAX = 20

Event = dict[str, Any]


class PlainClient:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def send(self, type: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": type, **fields}))

    def receive(self) -> Event:
        event: Event = json.loads(self.socket.recv(timeout=SECONDS_MAX))
        return event

    def until(self, type: str) -> list[Event]:
        """What comes, up to an event of this type."""
        events = [self.receive()]
        while events[-1]["type"] != type:
            events.append(self.receive())
        return events

    def ask(self, text: str) -> None:
        """Say a text and want an answer in text."""
        content = [{"type": "input_text", "text": text}]
        self.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
        self.send("response.create", response={"output_modalities": ["text"]})


@contextmanager
def connected(server: RealServer, headers: dict[str, str] | None = None, **options: Any) -> Iterator[PlainClient]:
    """A client that is connected, by the server's own key."""
    all_headers = {"Authorization": f"Bearer {server.api_key}", **(headers or {})}
    url = f"{server.websocket_url}?model=gpt-realtime"
    with connect(url, additional_headers=all_headers, max_size=None, **options) as socket:
        yield PlainClient(socket)


def text_of(done: Event) -> str:
    """All the words of a response that is done."""
    parts = [part for item in done["response"]["output"] for part in item.get("content", ())]
    return " ".join(part.get("text") or part.get("transcript") or "" for part in parts)


def types(events: list[Event]) -> list[str]:
    return [event["type"] for event in events]
