"""The client: `connect()` to any Realtime endpoint, and the `Session` that it gives."""

from .connect import connect
from .session import Session

__all__ = ["Session", "connect"]
