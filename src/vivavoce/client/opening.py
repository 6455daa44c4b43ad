"""What a session is opened with, and the making of its life: endpoint, codec, caller, line, tape.

Heavy modules are imported here when a session is opened, so that `import vivavoce` stays quick.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Literal

from vivavoce.core.caller import Caller, CallerLimits
from vivavoce.protocol import config
from vivavoce.protocol.client_codec import ClientCodec
from vivavoce.transports import Transport
from vivavoce.transports.proxies import check_proxy

from .endpoint import Endpoint, Target, resolve
from .ids import ids
from .life import Life
from .line import Dial, Line, Reconnect
from .surroundings import Owner, Surroundings

if TYPE_CHECKING:
    from vivavoce.core.account import Price
    from vivavoce.transports.taping import TapeWriter

    from .cost import Meter
    from .ice import IceServer
    from .player import Player

MESSAGE_BYTES_MAX = 128 * 1024 * 1024
"""Largest message that is accepted; a retrieved item carries all of its audio."""
OPEN_TIMEOUT_S = 10.0
"""For the handshake, and again for the first event."""

log = logging.getLogger(__name__)

Carrier = Literal["websocket", "webrtc"]
RawHook = Callable[[str, str | bytes], None]


@dataclass(kw_only=True)
class Options:
    """Everything that a session is made with; `connect` explains it."""

    target: Target = field(default_factory=Target)
    configuration: config.SessionConfig | None = None
    ssl: SSLContext | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)
    open_timeout_s: float = OPEN_TIMEOUT_S
    reconnect: Reconnect = field(default_factory=Reconnect)
    player: Player | None = None
    tape: TapeWriter | None = None
    context: Any = None
    prices: Mapping[str, Price] | None = None
    budget: float | None = None
    text_fallback: bool = True
    limits: CallerLimits = field(default_factory=CallerLimits)
    raw: RawHook | None = None
    debug: bool = False
    transport: Carrier = "websocket"
    ice_servers: Sequence[IceServer] = ()
    dial: Dial | None = None
    """Opens connections otherwise: memory, in tests."""
    random: Random = field(default_factory=Random)
    new_ids: Callable[[], Callable[[str], str]] = ids
    wall_s: Callable[[], float] = time.time
    """Unix seconds, as in `expires_at` of a session."""


def begin(owner: Owner, caller: Caller, new_id: Callable[[str], str], options: Options) -> tuple[Life, Meter]:
    """A life for a session. Raises `LocalProtocolError` where the endpoint cannot be one."""
    from .causes import explained, is_passing
    from .cost import Meter

    endpoint = None if options.dial is not None else resolve(options.target, os.environ)
    if endpoint is not None and options.transport == "webrtc":
        endpoint = replace(endpoint, is_call=True)
    explain: Callable[[Any], Any] = lambda error: error if endpoint is None else explained(error, endpoint)  # noqa: E731
    surroundings = Surroundings(
        caller=caller,
        codec=ClientCodec(endpoint.dialect if endpoint is not None else options.target.dialect or "ga"),
        policy=options.reconnect,
        new_id=new_id,
        player=options.player,
        wrap=_taping(options),
        raw=_raw(options),
        explained=explain,
        wall_s=options.wall_s,
    )
    life = Life(owner, surroundings)
    life.line = Line(
        options.dial or _dial(endpoint, options),
        options.reconnect,
        random=options.random,
        open_timeout_s=options.open_timeout_s,
        is_passing=is_passing,
        lost=life.lost,
        resumed=life.resumed,
    )
    is_published = endpoint is not None and endpoint.vendor != "other"  # others have prices of their own
    model = options.target.model or options.target.azure_deployment
    return life, Meter(model=model, prices=options.prices, budget=options.budget, published=is_published)


def _dial(endpoint: Endpoint | None, options: Options) -> Dial:
    assert endpoint is not None
    check_proxy(options.proxy)  # plain mistakes are told at once
    if endpoint.is_call:
        from .calling import Calling, call_address

        call_address(endpoint)
        return Calling(
            endpoint=endpoint,
            ssl=options.ssl,
            proxy=options.proxy,
            open_timeout_s=options.open_timeout_s,
            ice_servers=options.ice_servers,
        )

    async def dial(extra: Mapping[str, str]) -> Transport:
        from vivavoce.transports.websocket import SocketLimits, dial

        return await dial(
            endpoint.url,
            headers={**await endpoint.headers_now(), **extra},
            subprotocols=endpoint.subprotocols,
            ssl=options.ssl,
            proxy=options.proxy,
            open_timeout_s=options.open_timeout_s,
            limits=SocketLimits(message_bytes_max=MESSAGE_BYTES_MAX),
        )

    return dial


def _taping(options: Options) -> Callable[[Transport, str | bytes | None], Transport]:
    tape = options.tape
    if tape is None:
        return lambda transport, first: transport
    from vivavoce.transports.taping import Taping

    return lambda transport, first: Taping(transport, tape, first)


def _raw(options: Options) -> RawHook | None:
    """The application's hook, and the debug log."""
    hooks = [] if options.raw is None else [options.raw]
    if options.debug:
        from .described import log_frame

        hooks.insert(0, log_frame)

    def see(source: str, frame: str | bytes) -> None:
        for hook in hooks:
            try:
                hook(source, frame)
            except Exception:  # a look at the session must not end it
                log.exception("on_raw has failed at a message of the %s", source)

    return see if hooks else None
