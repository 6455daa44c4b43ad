"""The telephone: a call at Twilio is one session with any Realtime endpoint, or with a server in this process.

    caller ↔ Twilio ─media, marks, keys→ Ordering → Timeline ─append_audio→ Session ↔ endpoint
                    ←media, marks, clear─ PhonePlayer ←─audio of the answers──┘

`create_phone_app` is the whole as an ASGI app, `carry` one call on one WebSocket, `place_call` makes the phone ring at
the other side. Invariant: what the conversation says was heard is what Twilio has played, to the millisecond.
"""

try:
    from .app import create_phone_app
    from .call import Call, PhoneOptions, carry
    from .in_process import in_process
    from .ordering import Ordering, Timeline
    from .player import PhonePlayer
    from .playhead import Playhead
    from .serving import served
    from .twilio import Credentials, place_call, sign, ticket_for, twiml
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] == "vivavoce":
        raise
    raise ModuleNotFoundError(
        f"a phone needs more packages: pip install 'vivavoce[server]' (no module {missing.name!r})", name=missing.name
    ) from missing

__all__ = [
    "Call",
    "Credentials",
    "Ordering",
    "PhoneOptions",
    "PhonePlayer",
    "Playhead",
    "Timeline",
    "carry",
    "create_phone_app",
    "in_process",
    "place_call",
    "served",
    "sign",
    "ticket_for",
    "twiml",
]
