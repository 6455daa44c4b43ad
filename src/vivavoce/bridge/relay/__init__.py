"""A relay: WebSocket in, WebSocket out, between clients that have no key and a service that wants one.

What nobody has to look at passes as bytes. `serve` and `running` run it, `create_app` is for another ASGI app; `Policy`
is the hook for what shall be seen, changed, refused or injected. The names are imported when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import create_app
    from .policy import Policy, PolicyFactory, Refused, Visit
    from .relay import Relay
    from .serving import running, serve
    from .settings import RelaySettings, relay_settings

_HOMES = {
    "Policy": "policy",
    "PolicyFactory": "policy",
    "Refused": "policy",
    "Relay": "relay",
    "RelaySettings": "settings",
    "Visit": "policy",
    "create_app": "app",
    "relay_settings": "settings",
    "running": "serving",
    "serve": "serving",
}

__all__ = [
    "Policy",
    "PolicyFactory",
    "Refused",
    "Relay",
    "RelaySettings",
    "Visit",
    "create_app",
    "relay_settings",
    "running",
    "serve",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
