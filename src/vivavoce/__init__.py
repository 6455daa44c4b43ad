"""The Realtime API from both ends: a client for any endpoint, a server for your own hardware.

The public names are resolved when they are first used, so that `import vivavoce` is quick and loads no engine, no numpy
and no server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivavoce.client import Connecting, Connection, connect
    from vivavoce.core.conversation import Conversation
    from vivavoce.errors import (
        ConnectionClosed,
        ConnectionFailed,
        EngineError,
        EngineMissing,
        LocalProtocolError,
        RemoteProtocolError,
        ServerError,
        SettingsError,
        VivavoceError,
    )
    from vivavoce.protocol import config, events, items

__version__ = "0.1.0"

_HOMES = {
    "Connecting": "vivavoce.client",
    "Connection": "vivavoce.client",
    "connect": "vivavoce.client",
    "Conversation": "vivavoce.core.conversation",
    "ConnectionClosed": "vivavoce.errors",
    "ConnectionFailed": "vivavoce.errors",
    "EngineError": "vivavoce.errors",
    "EngineMissing": "vivavoce.errors",
    "LocalProtocolError": "vivavoce.errors",
    "RemoteProtocolError": "vivavoce.errors",
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
    "Connecting",
    "Connection",
    "ConnectionClosed",
    "ConnectionFailed",
    "Conversation",
    "EngineError",
    "EngineMissing",
    "LocalProtocolError",
    "RemoteProtocolError",
    "ServerError",
    "SettingsError",
    "VivavoceError",
    "config",
    "connect",
    "events",
    "items",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
