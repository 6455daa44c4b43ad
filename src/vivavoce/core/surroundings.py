"""What a session machine is given by the house that it lives in. Made by the server; pure, like all of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from .abilities import Abilities
from .account import Account, Bill
from .playback import Player
from .prompts import Prompts
from .stopwatch import Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a session is given by the server that it lives in, its client and its engines apart."""

    abilities: Abilities = field(default_factory=Abilities)
    account: Account | None = None
    """Rate limits; without them there is no `rate_limits.updated`."""
    bill: Bill = field(default_factory=Bill)
    prompts: Prompts = field(default_factory=dict)
    player: Player | None = None
    """What plays the assistant's audio, where that is the server (WebRTC, SIP)."""
    watch: Watch | None = None
    """Who in the server is told how long responses took, and of errors."""
    tells_waterfall: bool = False
    """Whether the client is told the waterfall of every response, and not only of those for which it asks."""
