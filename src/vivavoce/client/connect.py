"""`connect`: from what a user has in hand to a session that can be opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Literal, get_args

from vivavoce.core.caller import CallerLimits
from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import config
from vivavoce.protocol.client_codec import Dialect

from .endpoint import Kind, Target, TokenProvider
from .ice import IceServer
from .line import Dial, Reconnect
from .opening import OPEN_TIMEOUT_S, Carrier, Options, RawHook
from .session import Session

if TYPE_CHECKING:
    from vivavoce.core.account import Price

    from .player import Player


def connect(
    model: str | None = None,
    *,
    url: str | None = None,
    api_key: str | None = None,
    azure_endpoint: str | None = None,
    azure_deployment: str | None = None,
    api_version: str | None = None,
    azure_ad_token: str | None = None,
    token_provider: TokenProvider | None = None,
    call_id: str | None = None,
    kind: Kind = "conversation",
    dialect: Dialect | None = None,
    headers: Mapping[str, str] | None = None,
    ssl: SSLContext | None = None,
    proxy: str | None = None,
    open_timeout_s: float = OPEN_TIMEOUT_S,
    transport: Carrier = "websocket",
    ice_servers: Sequence[IceServer | str] = (),
    session: config.SessionConfig | None = None,
    player: Player | None = None,
    reconnect: Reconnect | bool = True,
    tape: str | Path | None = None,
    redact: tuple[Literal["audio", "text"], ...] = (),
    context: Any = None,
    prices: Mapping[str, Price] | None = None,
    budget: float | None = None,
    text_fallback: bool = True,
    limits: CallerLimits | None = None,
    on_raw: RawHook | None = None,
    debug: bool = False,
    dial: Dial | None = None,
) -> Session:
    """A session with a Realtime endpoint: `async with connect("gpt-realtime") as session: …`.

    Where: `url` is a base URL or a whole one, with ws(s) or http(s); `azure_endpoint` with `azure_deployment` one of
    Azure OpenAI, in its GA form, or with `api_version` in the preview form. Without either, the environment of the
    vendors is asked: `OPENAI_BASE_URL`, or else OpenAI's own; Azure's where only `AZURE_OPENAI_ENDPOINT` is set.
    Who: `api_key`, or for Entra `azure_ad_token` or `token_provider`, which is asked at every
    connection. Keys of the environment go to the
    host that they belong to and to no other. A relay needs none.

    `transport="webrtc"` calls by WebRTC, which needs `vivavoce[webrtc]`: sound goes and comes in real time, the server
    plays, and knows what was heard; all else is the same. `ice_servers` are those of STUN and TURN, `"stun:HOST:PORT"`
    or an `IceServer`; none is asked that is not named.

    `session` is the configuration to begin with. `player` plays the answers, and knows what was heard when the user
    interrupts; one with a device is opened along with the session, and closed by whoever made it. `reconnect` False
    ends the session with its connection; a `Reconnect` says how to try. `tape` records the session to a file, `redact`
    without its audio or its words. `context` is handed to tools. `budget` ends the session when it has cost that much,
    by `prices` (per model, over the published ones). `text_fallback` asks once more for text where speech has failed.
    `on_raw` sees every frame, `debug` logs every event to `vivavoce.events`, without audio and secrets. `dial` opens
    connections in another way than by WebSocket.

    Nothing is opened before `async with`, `await` or `connect()`; that raises `ConnectionFailed` or `ServerError`.
    """
    target = Target(
        model=model,
        url=url,
        api_key=api_key,
        dialect=dialect,
        azure_endpoint=azure_endpoint,
        azure_deployment=azure_deployment,
        api_version=api_version,
        azure_ad_token=azure_ad_token,
        token_provider=token_provider,
        call_id=call_id,
        kind=kind,
        headers=headers or {},
    )
    policy = reconnect if isinstance(reconnect, Reconnect) else Reconnect() if reconnect else Reconnect(tries=0)
    if transport not in get_args(Carrier):
        raise LocalProtocolError(f"transport is 'websocket' or 'webrtc', not {transport!r}")
    options = Options(
        target=target,
        configuration=session,
        ssl=ssl,
        proxy=proxy,
        open_timeout_s=open_timeout_s,
        transport=transport,
        ice_servers=[IceServer(url=one) if isinstance(one, str) else one for one in ice_servers],
        reconnect=policy,
        player=player,
        context=context,
        prices=prices,
        budget=budget,
        text_fallback=text_fallback,
        limits=limits or CallerLimits(),
        raw=on_raw,
        debug=debug,
        dial=dial,
    )
    if tape is not None:
        from vivavoce.transports.taping import Header, TapeWriter

        header = Header(end="client", dialect=dialect or "ga", url=url, model=model)
        options.tape = TapeWriter(tape, header, redact=redact)
    return Session(options)
