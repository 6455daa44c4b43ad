"""The client: `connect()` to any Realtime endpoint, and the open `Connection`."""

from .connection import Connecting, Connection, connect

__all__ = ["Connecting", "Connection", "connect"]
