"""What the life of a session has around it: the session above, and what it is given to live with.

Seams alone, nothing happens here. Invariant: nothing that is told to the `Owner` raises.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from vivavoce.core.caller import Caller
from vivavoce.core.caller.messages import CancelTool, RunTool
from vivavoce.core.caller.updates import Update
from vivavoce.errors import ConnectionClosed
from vivavoce.protocol import events as ev
from vivavoce.protocol.client_codec import ClientCodec
from vivavoce.transports import Transport

from .line import Reconnect
from .player import Player

ServerMessage = ev.AnyServerEvent | ev.Unknown


class Owner(Protocol):
    """The session, as its life sees it. Nothing here may raise."""

    def heard(self, event: ServerMessage) -> None:
        """The server has said something that the application is to know."""
        ...

    @property
    def heard_speech(self) -> Callable[[ServerMessage], None]:
        """The short way for the pieces of speech, which are most of what is said."""
        ...

    def told(self, update: Update) -> None:
        """Something has changed."""
        ...

    def sent(self, event: ev.AnyClientEvent) -> None:
        """An event goes out."""
        ...

    def runs(self, effect: RunTool | CancelTool) -> None:
        """A tool is to be run, or to be ended."""
        ...

    def changed(self, what: str, **details: Any) -> None:
        """The connection: `lost`, `resumed`, `restored`, `renewed`."""
        ...

    def ended(self, closed: ConnectionClosed) -> None:
        """The session is over."""
        ...

    async def hold(self) -> None:
        """Wait while the application is too far behind."""
        ...

    @property
    def is_behind(self) -> bool:
        """Whether it is."""
        ...


@dataclass(slots=True)
class Surroundings:
    """What a life is given."""

    caller: Caller
    codec: ClientCodec
    policy: Reconnect
    new_id: Callable[[str], str]
    player: Player | None = None
    wrap: Callable[[Transport, str | bytes | None], Transport] = lambda transport, first: transport
    """Around every connection, with the message that was read of it already: a tape."""
    raw: Callable[[str, str | bytes], None] | None = None
    """Sees every frame: `client` or `server`, and the frame."""
    explained: Callable[[Any], Any] = lambda error: error
    wall_s: Callable[[], float] = time.time
