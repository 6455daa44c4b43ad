"""WebRTC: one connection with audio both ways and a data channel of events, seen from either end.

`Peer` is the connection; what it says is its `Outlet`, played in real time, and what it hears comes through an `Inlet`,
in order and with time kept true. Needs the extra `webrtc` (aiortc); nothing else in the package imports this.
"""

from __future__ import annotations

from .outlet import Outlet, Played
from .peer import IceServer, Peer

__all__ = ["IceServer", "Outlet", "Peer", "Played"]
