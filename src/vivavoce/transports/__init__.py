"""How messages travel: one small Protocol in front of memory, WebSocket and whatever comes.

A transport carries whole messages and keeps their order. Text is `str`, binary is `bytes`; the Realtime API uses text.
"""

from __future__ import annotations

from typing import Protocol


class Transport(Protocol):
    """One open connection, seen from one end."""

    async def send(self, message: bytes) -> None:
        """Send one text message, given as UTF-8. Waits while the peer is slow. Raises `ConnectionClosed`."""
        ...

    async def receive(self) -> str | bytes:
        """The next message: `str` where it was text, `bytes` where binary. Raises `ConnectionClosed` at the end."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the connection; doing it twice is harmless."""
        ...
