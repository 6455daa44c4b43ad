"""The Realtime API from both ends: a client for any endpoint, a server for your own hardware.

The public names are resolved when they are first used, so that `import vivavoce` is quick and loads no engine, no numpy
and no server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivavoce import sync
    from vivavoce.client.app import App, ToolResult
    from vivavoce.client.connect import connect
    from vivavoce.client.ice import IceServer
    from vivavoce.client.line import Reconnect
    from vivavoce.client.live import LiveResponse
    from vivavoce.client.loudspeaker import Loudspeaker, play
    from vivavoce.client.microphone import Microphone, record, record_as_stream
    from vivavoce.client.player import Player, VirtualPlayer
    from vivavoce.client.pool import Pool
    from vivavoce.client.session import Session
    from vivavoce.client.tools import Tool, ToolCall, ToolContext, tool
    from vivavoce.core.account import Price
    from vivavoce.core.caller import updates
    from vivavoce.core.caller.memory import ItemView
    from vivavoce.core.caller.messages import Heard
    from vivavoce.core.conversation import Conversation
    from vivavoce.errors import (
        BudgetExceeded,
        ConnectionClosed,
        ConnectionFailed,
        EngineError,
        EngineMissing,
        LocalProtocolError,
        RemoteProtocolError,
        ResponseFailed,
        ServerError,
        SettingsError,
        VivavoceError,
    )
    from vivavoce.protocol import config, events, items
    from vivavoce.protocol.waterfall import Waterfall

__version__ = "0.1.0"

_HOMES = {
    "Pool": "vivavoce.client.pool",
    "App": "vivavoce.client.app",
    "ToolResult": "vivavoce.client.app",
    "connect": "vivavoce.client.connect",
    "IceServer": "vivavoce.client.ice",
    "Reconnect": "vivavoce.client.line",
    "LiveResponse": "vivavoce.client.live",
    "Loudspeaker": "vivavoce.client.loudspeaker",
    "play": "vivavoce.client.loudspeaker",
    "Microphone": "vivavoce.client.microphone",
    "record": "vivavoce.client.microphone",
    "record_as_stream": "vivavoce.client.microphone",
    "Player": "vivavoce.client.player",
    "VirtualPlayer": "vivavoce.client.player",
    "Session": "vivavoce.client.session",
    "Tool": "vivavoce.client.tools",
    "ToolCall": "vivavoce.client.tools",
    "ToolContext": "vivavoce.client.tools",
    "tool": "vivavoce.client.tools",
    "ItemView": "vivavoce.core.caller.memory",
    "Heard": "vivavoce.core.caller.messages",
    "Price": "vivavoce.core.account",
    "Conversation": "vivavoce.core.conversation",
    "Waterfall": "vivavoce.protocol.waterfall",
    "BudgetExceeded": "vivavoce.errors",
    "ConnectionClosed": "vivavoce.errors",
    "ConnectionFailed": "vivavoce.errors",
    "EngineError": "vivavoce.errors",
    "EngineMissing": "vivavoce.errors",
    "LocalProtocolError": "vivavoce.errors",
    "RemoteProtocolError": "vivavoce.errors",
    "ResponseFailed": "vivavoce.errors",
    "ServerError": "vivavoce.errors",
    "SettingsError": "vivavoce.errors",
    "VivavoceError": "vivavoce.errors",
}
_MODULES = {
    "config": "vivavoce.protocol.config",
    "events": "vivavoce.protocol.events",
    "items": "vivavoce.protocol.items",
    "updates": "vivavoce.core.caller.updates",
    "sync": "vivavoce.sync",
}

__all__ = [
    "App",
    "BudgetExceeded",
    "ConnectionClosed",
    "ConnectionFailed",
    "Conversation",
    "EngineError",
    "EngineMissing",
    "Heard",
    "IceServer",
    "ItemView",
    "LiveResponse",
    "LocalProtocolError",
    "Loudspeaker",
    "Microphone",
    "Player",
    "Pool",
    "Price",
    "Reconnect",
    "RemoteProtocolError",
    "ResponseFailed",
    "ServerError",
    "Session",
    "SettingsError",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolResult",
    "VirtualPlayer",
    "VivavoceError",
    "Waterfall",
    "config",
    "connect",
    "events",
    "items",
    "play",
    "record",
    "record_as_stream",
    "sync",
    "tool",
    "updates",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
