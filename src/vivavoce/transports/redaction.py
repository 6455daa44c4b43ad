"""What a tape does not tell: secrets never, and sound and words where that is asked for.

A frame goes in and a frame of the same shape comes out, so that a redacted tape can still be replayed. Sound becomes
silence of the same length, words become letters `x` and digits `1` of the same number. Invariant: what cannot be read
as a message is scrubbed as a text; nothing gets past because it is unknown.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from vivavoce.audio.formats import ALAW_8K, PCM16_24K, ULAW_8K, Format
from vivavoce.errors import LocalProtocolError

__all__ = ["REDACTED", "SELECTORS", "Direction", "Formats", "Redact", "Redaction", "plain_url", "sound_of"]

Direction = Literal["client", "server"]
"""Who sent a message."""
Redact = Literal["audio", "text"]
"""What a tape leaves out besides secrets; `text` takes images with it."""

REDACTED: Final = "[redacted]"
SELECTORS: Final = frozenset({"model", "deployment", "intent", "api-version", "call_id", "dialect"})
"""The parameters of a URL that a tape keeps."""
DEPTH_MAX: Final = 64
"""How deep a message may be nested; what is deeper is taken out whole."""
PIXEL: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
"""What stands for an image."""

_SECRET_FIELDS = frozenset(
    {
        "authorization",
        "api_key",
        "api-key",
        "apikey",
        "x-api-key",
        "access_token",
        "client_secret",
        "password",
        "headers",
    }
)
_SCHEMA_TYPES = ("string", "object", "array", "number", "integer", "boolean")
_SECRETS = re.compile(
    r"(?<![A-Za-z0-9])(?P<kind>sk-|ek_)[\w-]{8,}"
    r"|(?P<scheme>://)[^/\s@\"]+(?=@)"
    r"|(?P<bearer>\b[Bb]earer\s+)[\w.~+/=-]{8,}"
    r"|(?P<name>(?:api[-_]?key|authorization|access_token|client_secret|password)\\?[\"']?\s*[:=]\s*\\?[\"']?)"
    r"(?!Bearer\b|\[redacted)[^\s\"'\\&,}]+",
    re.IGNORECASE,
)
_SIGNS = re.compile(
    r"[se]k[-_]|auth|api.?key|access_token|client_secret|password|bearer|://[^/]*@|\"headers\"|server_url"
    r"|vivavoce\.resume|\\u00",
    re.IGNORECASE,
)
"""Signs that a frame may hold a secret; without one it need not be looked into."""
_SOUND = re.compile(r'"[A-Za-z0-9+/=]{512,}"')
"""Nearly all of a frame with sound, and no secret: looking for signs in it would take a hundred times as long."""
_WORD_FIELDS = frozenset({"text", "transcript", "instructions", "prompt", "refusal", "delta", "data"})
_JSON_FIELDS = frozenset({"arguments", "output", "content"})
_LETTER = re.compile(r"[^\W\d_]")
_DIGIT = re.compile(r"\d")
_SILENCE = {"pcm16": b"\0", "ulaw": b"\xff", "alaw": b"\xd5"}
_NAMES = {
    "audio/pcmu": ULAW_8K,
    "audio/pcma": ALAW_8K,
    "audio/pcm": PCM16_24K,
    "g711_ulaw": ULAW_8K,
    "g711_alaw": ALAW_8K,
    "pcm16": PCM16_24K,
}

Json = dict[str, Any]


def plain_url(url: str) -> str:
    """A URL without credentials; of its query only the parameters that say what session is meant."""
    parts = urlsplit(url)
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name in SELECTORS]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, urlencode(kept), ""))


def sound_of(event: Json) -> str:
    """The name of the field in which an event streams sound, in every dialect; "" where it streams none."""
    kind = str(event.get("type", ""))
    if kind.endswith("input_audio_buffer.append"):
        return "audio"
    if kind.endswith("audio.delta"):
        return "delta"
    return "data" if kind == "audio" and isinstance(event.get("data"), str) else ""


class Formats:
    """What format the sound of each side has, as the messages before have said."""

    def __init__(self) -> None:
        self.of: dict[Direction, Format] = {"client": PCM16_24K, "server": PCM16_24K}

    def take(self, event: Json) -> None:
        """Note what an event says about formats, in any dialect."""
        for settings in (event.get("session"), event.get("response"), event.get("data")):
            if isinstance(settings, dict):
                self._note(settings)

    def _note(self, settings: Json) -> None:
        audio = settings.get("audio")
        sides: tuple[tuple[Direction, str], ...] = (("client", "input"), ("server", "output"))
        for direction, side in sides:
            named = settings.get(f"{side}_audio_format")
            if isinstance(audio, dict) and isinstance(part := audio.get(side), dict):
                named = part.get("format", named)
            kind = named.get("type") if isinstance(named, dict) else named
            if isinstance(kind, str) and kind in _NAMES:
                self.of[direction] = _NAMES[kind]


class Redaction:
    """One tape's rule for what is left out. It remembers formats, so it takes the messages in their order."""

    def __init__(self, what: Collection[Redact] = ()) -> None:
        unknown = set(what) - {"audio", "text"}
        if unknown or isinstance(what, str):
            raise LocalProtocolError(f"redact: expected a set of 'audio' and 'text', got {what!r}")
        self.what = frozenset(what)
        self._formats = Formats()

    def frame(self, direction: Direction, frame: str) -> str:
        """The message as it may be kept: the same text where there is nothing to hide."""
        if not self.what and not _SIGNS.search(_SOUND.sub("", frame)):
            return frame
        try:
            event = json.loads(frame)
        except (ValueError, RecursionError):
            return self.text(frame)
        if not isinstance(event, dict):
            return self.text(frame)
        if self.what:
            self._formats.take(event)
        if event.get("type") == "vivavoce.resume" and "token" in event:
            event["token"] = REDACTED
        return json.dumps(self._object(event, direction, 0), ensure_ascii=False, separators=(",", ":"))

    def text(self, text: str) -> str:
        """A text that is no message."""
        return _masked(text) if "text" in self.what else _scrubbed(text)

    def note(self, fields: Json) -> Json:
        """What no message says, such as the reason of a close, which is the other end's own words."""
        return {name: _scrubbed(value) if isinstance(value, str) else value for name, value in fields.items()}

    def binary(self, payload: bytes) -> bytes:
        """A binary message; nobody knows what is in it."""
        return bytes(len(payload)) if self.what else payload

    # --- leaves -------------------------------------------------------------------------------------------------------

    def _object(self, value: Json, direction: Direction, depth: int) -> Json:
        side: Direction = {"user": "client", "assistant": "server"}.get(str(value.get("role")), direction)  # type: ignore[assignment]
        sound = sound_of(value)
        kept: Json = {}
        for name, inner in value.items():
            if name.lower() in _SECRET_FIELDS and not _is_schema(inner):
                kept[name] = _emptied(inner)
            elif name == "server_url" and isinstance(inner, str):
                kept[name] = _scrubbed(_without_query(inner))
            elif "audio" in self.what and isinstance(inner, str) and (name == sound or name == "audio"):
                kept[name] = _silence(inner, self._formats.of[side])
            elif name == sound and isinstance(inner, str):
                kept[name] = inner
            else:
                kept[name] = self._field(name, inner, side, depth)
        return kept

    def _field(self, name: str, value: Any, side: Direction, depth: int) -> Any:
        if "text" in self.what:
            if isinstance(value, str) and name in _WORD_FIELDS:
                return _masked(value)
            if name == "variables":
                return _masked_value(value)
            if isinstance(value, str) and name in _JSON_FIELDS:
                return _masked_json(value)
            if isinstance(value, str) and name == "image_url":
                return PIXEL
            if name == "logprobs" and isinstance(value, list):
                return [_masked_token(entry) for entry in value]
        return self._value(value, side, depth)

    def _value(self, value: Any, side: Direction, depth: int) -> Any:
        if isinstance(value, str):
            return _scrubbed(value)
        if depth >= DEPTH_MAX and isinstance(value, (dict, list)):
            return REDACTED
        if isinstance(value, dict):
            return self._object(value, side, depth + 1)
        if isinstance(value, list):
            return [self._value(inner, side, depth + 1) for inner in value]
        return value


def _is_schema(value: Any) -> bool:
    """Whether this only describes a parameter of a tool, which may be called as secrets are."""
    return isinstance(value, dict) and (isinstance(value.get("properties"), dict) or value.get("type") in _SCHEMA_TYPES)


def _emptied(value: Any) -> Any:
    """A secret without what it says; names and numbers stay."""
    if isinstance(value, dict):
        return {name: _emptied(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_emptied(inner) for inner in value]
    return REDACTED if isinstance(value, str) and value else value


def _scrubbed(text: str) -> str:
    return _SECRETS.sub(_without, text) if _SIGNS.search(text) else text


def _without_query(url: str) -> str:
    """The URL of an MCP server: whatever its query is called, it is there for the server to know who asks."""
    address, mark, _ = url.partition("?")
    return f"{address}{mark}{REDACTED}" if mark else url


def _without(found: re.Match[str]) -> str:
    return f"{found['kind'] or found['scheme'] or found['bearer'] or found['name']}{REDACTED}"


def _masked(text: str) -> str:
    return _DIGIT.sub("1", _LETTER.sub("x", text))


def _masked_json(text: str) -> str:
    """Words inside JSON, as arguments and outputs are: the names of fields stay, so that it can still be read."""
    try:
        value = json.loads(text)
        if isinstance(value, (dict, list)):
            return json.dumps(_masked_value(value), ensure_ascii=False)
    except (ValueError, RecursionError):
        pass
    return _masked(text)


def _masked_value(value: Any) -> Any:
    match value:
        case dict():
            return {name: _masked_value(inner) for name, inner in value.items()}
        case list():
            return [_masked_value(inner) for inner in value]
        case str():
            return _masked(value)
        case bool() | None:
            return value
        case int():
            return int(_DIGIT.sub("1", str(value)))
        case _:
            return 1.1


def _masked_token(entry: Any) -> Any:
    if not isinstance(entry, dict) or not isinstance(token := entry.get("token"), str):
        return REDACTED
    masked = _masked(token)
    return {**entry, "token": masked, "bytes": list(masked.encode())}


def _silence(encoded: str, format: Format) -> str:
    size = len(encoded) * 3 // 4 - encoded[-2:].count("=")
    return _silence_of(max(size, 0), format.encoding)


@lru_cache(maxsize=64)
def _silence_of(size: int, encoding: str) -> str:
    return base64.b64encode(_SILENCE[encoding] * size).decode()
