"""A frame as a line of the debug log: what happened, without audio and without secrets."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

log = logging.getLogger("vivavoce.events")

SHOWN_CHARS_MAX = 400
SECRET = frozenset({"authorization", "headers", "api_key", "api-key", "client_secret", "token", "value"})
AUDIO_CHARS_MIN = 200
"""Text that is longer, and is called audio or delta, is taken for sound."""


def log_frame(source: str, frame: str | bytes) -> None:
    """Write it to the log `vivavoce.events`, at level DEBUG."""
    if log.isEnabledFor(logging.DEBUG):
        log.debug("%s %s", {"client": ">", "server": "<"}.get(source, source), described(frame))


def described(frame: str | bytes) -> str:
    """A frame in one line."""
    try:
        event = msgspec.json.decode(frame)
    except msgspec.DecodeError:
        return f"no JSON: {frame[:SHOWN_CHARS_MAX]!r}"
    return msgspec.json.encode(_without(event)).decode()[:SHOWN_CHARS_MAX]


def _without(value: Any, name: str = "") -> Any:
    match value:
        case dict():
            return {key: "…" if key in SECRET else _without(inner, key) for key, inner in value.items()}
        case list():
            return [_without(inner) for inner in value]
        case str() if name == "audio" or (name in ("delta", "image_url") and len(value) > AUDIO_CHARS_MIN):
            return f"<{len(value) * 3 // 4} bytes>"
    return value
