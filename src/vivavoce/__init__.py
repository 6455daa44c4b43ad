"""The Realtime API from both ends: a client for any endpoint, a server for your own hardware.

The public names are resolved when they are first used, so that `import vivavoce` is quick and loads no engine, no numpy
and no server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivavoce.client.connect import connect
    from vivavoce.client.line import Reconnect
    from vivavoce.client.session import Session
    from vivavoce.client.tools import Tool, ToolCall, ToolContext, tool
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

__version__ = "0.1.0"

_HOMES = {
    "Reconnect": "vivavoce.client.line",
    "Session": "vivavoce.client.session",
    "Tool": "vivavoce.client.tools",
    "ToolCall": "vivavoce.client.tools",
    "ToolContext": "vivavoce.client.tools",
    "connect": "vivavoce.client.connect",
    "tool": "vivavoce.client.tools",
    "Conversation": "vivavoce.core.conversation",
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
}

__all__ = [
    "BudgetExceeded",
    "ConnectionClosed",
    "ConnectionFailed",
    "Conversation",
    "EngineError",
    "EngineMissing",
    "LocalProtocolError",
    "Reconnect",
    "RemoteProtocolError",
    "ResponseFailed",
    "ServerError",
    "Session",
    "SettingsError",
    "Tool",
    "ToolCall",
    "ToolContext",
    "VivavoceError",
    "config",
    "connect",
    "events",
    "items",
    "tool",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
