"""Servers that help a call by WebRTC through networks: apart, so that `import vivavoce` stays quick."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class IceServer:
    """A STUN or TURN server: `stun:HOST:PORT`, or `turn:HOST:PORT?transport=udp` with a name and a password."""

    url: str
    username: str | None = None
    credential: str | None = field(default=None, repr=False)
