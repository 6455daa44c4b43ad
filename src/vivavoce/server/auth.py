"""Who may connect, and what for: from the handshake of a WebSocket to a model and a dialect (reference §1.1–§1.5).

Pure functions of what the client asked; as on the live service a refusal is no HTTP status but an `error` event and a
close code after the upgrade. Invariants: keys are compared in constant time and never logged or echoed; a sub-protocol
is chosen only where it was offered.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from vivavoce.core.messages import Close
from vivavoce.errors import SettingsError
from vivavoce.protocol.codec import Dialect
from vivavoce.protocol.events import ErrorDetail

from .settings import Secret, Settings

SUBPROTOCOL = "realtime"
KEY_SUBPROTOCOL = "openai-insecure-api-key."
BETA_SUBPROTOCOL = "openai-beta.realtime-v1"
BETA_HEADER = "realtime=v1"

AUTHENTICATION = 3000
REQUEST = 4000
TRY_AGAIN = 1013

SHOWN_CHARS = 4
"""How much of a wrong key its error message shows, and only of a key that is much longer."""

Surface = Literal["openai", "azure", "azure-preview", "translation"]


class Refusal(Exception):
    """Why there will be no session: the `error` event that says so, and the close after it (§1.5)."""

    def __init__(self, close_code: int, code: str | None, message: str, *, type: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.detail = ErrorDetail(type=type, code=code, message=message)
        self.close = Close(close_code, type if code is None else f"{type}.{code}")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asked for with its handshake. Header names in lower case."""

    surface: Surface
    headers: Mapping[str, str]
    query: Mapping[str, str]
    subprotocols: Sequence[str] = ()

    @classmethod
    def of(cls, surface: Surface, scope: Mapping[str, object]) -> Asked:
        """From an ASGI scope; of a repeated header or parameter the first counts."""
        headers: dict[str, str] = {}
        pairs: Iterable[tuple[bytes, bytes]] = scope["headers"]  # type: ignore[assignment]
        for name, value in pairs:
            headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
        raw: bytes = scope.get("query_string", b"")  # type: ignore[assignment]
        query = {name: values[0] for name, values in parse_qs(raw.decode("latin-1")).items()}
        subprotocols: Sequence[str] = scope.get("subprotocols", ())  # type: ignore[assignment]
        return cls(surface, headers, query, tuple(subprotocols))

    @property
    def subprotocol(self) -> str | None:
        """The sub-protocol to answer with; never the one that holds the key (§1.3)."""
        return SUBPROTOCOL if SUBPROTOCOL in self.subprotocols else None

    @property
    def dialect(self) -> Dialect:
        """The dialect of the session, for its whole life (§1.4)."""
        if self.surface == "azure-preview":
            return "beta"
        if self.surface == "azure":
            return "ga"
        opted_in = BETA_HEADER in self.headers.get("openai-beta", "") or BETA_SUBPROTOCOL in self.subprotocols
        return "beta" if opted_in else "ga"

    @property
    def key(self) -> str | None:
        """The key that came along, wherever the client could put it (§1.2, §1.3)."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
        for offered in self.subprotocols:
            if offered.startswith(KEY_SUBPROTOCOL) and len(offered) > len(KEY_SUBPROTOCOL):
                return offered.removeprefix(KEY_SUBPROTOCOL)
        return self.headers.get("api-key") or self.query.get("api-key") or None

    def model(self) -> str:
        """The model that was asked for. Raises `Refusal` where none was, or another kind of session (§1.1)."""
        if "call_id" in self.query:
            raise _absent("Attaching to a call by 'call_id'")
        if self.surface == "translation":
            raise _absent("A translation session")
        if self.query.get("intent") == "transcription":
            raise _absent("A transcription session")
        model = self.query.get("model") or self.query.get("deployment")
        if not model:
            raise Refusal(REQUEST, "missing_model", "You must provide a model: add '?model=NAME' to the URL.")
        return model


def _absent(what: str) -> Refusal:
    message = f"{what} is not available on this server; connect to '/v1/realtime?model=NAME' for a conversation."
    return Refusal(REQUEST, "session_kind_not_available", message)


class Keys:
    """The keys that are accepted, as digests; without any, everybody on this machine is."""

    def __init__(self, settings: Settings) -> None:
        self._digests = [_digest(key) for key in settings.api_keys]
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.origins)

    def check(self, asked: Asked) -> None:
        """Raises `Refusal` where the client may not connect."""
        if not self._digests:
            self._check_origin(asked.headers.get("origin"))
            return
        key = asked.key
        if key is None:
            raise Refusal(
                AUTHENTICATION,
                None,
                "Missing bearer authentication: send 'Authorization: Bearer KEY', an 'api-key' header, or from a "
                f"browser the sub-protocol '{KEY_SUBPROTOCOL}KEY'.",
            )
        if not self._accepts(key):
            raise Refusal(AUTHENTICATION, "invalid_api_key", f"Incorrect API key provided: {_masked(key)}.")

    def _accepts(self, key: str) -> bool:
        given = _digest(Secret(key))
        # Every digest is compared, so that the time tells nothing about which one fits.
        return sum([hmac.compare_digest(given, known) for known in self._digests]) > 0

    def _check_origin(self, origin: str | None) -> None:
        """A server without keys is open to this machine, not to every page that its browser shows."""
        if (
            origin is None
            or origin.rstrip("/").lower() in self._origins
            or is_loopback(urlsplit(origin).hostname or "")
        ):
            return
        raise Refusal(
            AUTHENTICATION,
            "origin_not_allowed",
            "This server has no keys and takes web pages from this machine only; the setting 'origins' allows others.",
        )


def check_binding(settings: Settings) -> None:
    """Raises `SettingsError` where a server without keys would be reachable from elsewhere."""
    if not settings.api_keys and not is_loopback(settings.host):
        raise SettingsError(
            f"host: {settings.host!r} can be reached from other machines, and no api_keys are set; set api_keys "
            "(--api-key, VIVAVOCE_API_KEYS), or bind to 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether the host is this machine and nothing else."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _digest(key: Secret) -> bytes:
    return sha256(key.reveal().encode(errors="surrogatepass")).digest()


def _masked(key: str) -> str:
    return f"{'*' * SHOWN_CHARS}{key[-SHOWN_CHARS:]}" if len(key) >= 4 * SHOWN_CHARS else "*" * SHOWN_CHARS
