"""Who may connect: from what a client sent along to the key that it has, or a refusal (reference §1.2–§1.5, §1.9).

Pure but for the clock of short-lived keys. A refusal knows both of its forms: `error` event and close code as on the
live service, and HTTP status. Invariants: keys are compared in constant time and never logged or echoed; a sub-protocol
is chosen only where it was offered.
"""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, Protocol, cast, get_args
from urllib.parse import parse_qs, urlsplit

from vivavoce.core.messages import Close
from vivavoce.errors import SettingsError
from vivavoce.protocol.codec import ServerDialect
from vivavoce.protocol.events import ErrorDetail

from .client_secrets import PREFIX, ClientSecret, Seal
from .settings import Secret, Settings

SUBPROTOCOL = "realtime"
KEY_SUBPROTOCOL = "openai-insecure-api-key."
BETA_SUBPROTOCOL = "openai-beta.realtime-v1"
BETA_HEADER = "realtime=v1"
DIALECTS: tuple[str, ...] = get_args(ServerDialect)

AUTHENTICATION = 3000
REQUEST = 4000
TRY_AGAIN = 1013
GOING_AWAY = 1001
INTERNAL = 1011

STATUS: Mapping[int, int] = {AUTHENTICATION: 401, REQUEST: 400, TRY_AGAIN: 429, GOING_AWAY: 503, INTERNAL: 500}
"""The HTTP status that says what a close code says, where a refusal does not name another."""

SHOWN_CHARS = 4
"""How much of a wrong key its error message shows, and only of a key that is much longer."""

KEY_ID_CHARS = 16
NOBODY = ""
"""The id of the key of those who need none."""

SAFETY_IDENTIFIER_CHARS_MAX = 128
"""What is kept of a longer one."""

Surface = Literal["openai", "azure", "azure-preview", "translation"]


class Refusal(Exception):
    """Why a client does not get what it asked for: an `error`, its close code (§1.5) and its HTTP status (§1.9)."""

    def __init__(
        self,
        close_code: int,
        code: str | None,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        status: int | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.detail = ErrorDetail(type=type, code=code, message=message, param=param)
        self.close = Close(close_code, type if code is None else f"{type}.{code}")
        self.status = status or STATUS[close_code]
        self.body = {"error": {"message": message, "type": type, "param": param, "code": code}}
        self.headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asked for with its handshake or HTTP request. Header names in lower case."""

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
    def chosen_dialect(self) -> ServerDialect | None:
        """The dialect that the client has chosen, by its path or by its word; None where it left that open (§1.4)."""
        if self.surface == "azure-preview":
            return "beta"
        if self.surface != "openai":
            return "ga"
        if (named := self.query.get("dialect")) in DIALECTS:
            return cast(ServerDialect, named)
        opted_in = BETA_HEADER in self.headers.get("openai-beta", "") or BETA_SUBPROTOCOL in self.subprotocols
        return "beta" if opted_in else None

    @property
    def dialect(self) -> ServerDialect:
        """The dialect to answer in, as long as no short-lived key says otherwise."""
        return self.chosen_dialect or "ga"

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

    @property
    def safety_identifier(self) -> str | None:
        """Who the user is to whoever runs the application, in a form that says nothing to others (§1.2)."""
        return self.headers.get("openai-safety-identifier", "")[:SAFETY_IDENTIFIER_CHARS_MAX] or None

    @property
    def model(self) -> str | None:
        """The model that was asked for; Azure calls it a deployment."""
        return self.query.get("model") or self.query.get("deployment") or None


@dataclass(frozen=True, slots=True)
class Credential:
    """What a client has shown: a key of the settings, by its id, or a short-lived one that was made with that."""

    key_id: str
    secret: ClientSecret | None = None


class KeySettings(Protocol):
    """What is set about keys; see `Settings`."""

    @property
    def api_keys(self) -> tuple[Secret, ...]:
        """Keys that are accepted."""
        ...

    @property
    def admin_keys(self) -> tuple[Secret, ...]:
        """Keys of operators."""
        ...

    @property
    def signing_key(self) -> Secret | None:
        """What short-lived keys are sealed with."""
        ...

    @property
    def origins(self) -> tuple[str, ...]:
        """Web pages that may come without a key."""
        ...


class Keys:
    """The keys that are accepted, as digests; without any, everybody on this machine is.

    `wall_s` gives unix seconds, by which short-lived keys expire.
    """

    def __init__(self, settings: KeySettings, *, wall_s: Callable[[], float] = time.time) -> None:
        self._digests = {_id(digest): digest for digest in map(_digest, settings.api_keys)}
        self._admin_digests = tuple(map(_digest, settings.admin_keys))
        self._ids = frozenset(self._digests) or {NOBODY}
        self._origins = frozenset(map(plain_origin, settings.origins))
        self._wall_s = wall_s
        self.seal = Seal(settings.signing_key)

    def check(self, asked: Asked, *, may_have_expired: bool = False) -> Credential:
        """Who asks. Raises `Refusal` where it is nobody who may.

        A short-lived key that `may_have_expired` still says who asks.
        """
        key = asked.key
        if key is not None:
            if (key_id := self._find(key)) is not None:
                return Credential(key_id)
            if key.startswith(PREFIX):
                secret = self._open(key, may_have_expired)
                return Credential(secret.minted_by, secret)
        if not self._digests:
            self._check_origin(asked.headers.get("origin"))
            return Credential(NOBODY)
        if key is None:
            raise Refusal(
                AUTHENTICATION,
                None,
                "Missing bearer authentication: send 'Authorization: Bearer KEY', an 'api-key' header, or from a "
                f"browser the sub-protocol '{KEY_SUBPROTOCOL}KEY'.",
            )
        raise _invalid_key(f"Incorrect API key provided: {_masked(key)}.")

    def check_operator(self, asked: Asked) -> None:
        """Raises `Refusal` where who asks is no operator. Without `admin_keys` a server without keys asks for none."""
        if not self._admin_digests and not self._digests:
            self._check_origin(asked.headers.get("origin"))
            # A page reads its own origin without saying so, and DNS may call this machine by the name of any.
            self._check_origin(f"http://{asked.headers.get('host', '')}")
            return
        key = asked.key
        if key is not None:
            given = _digest(Secret(key))
            fits = [hmac.compare_digest(given, known) for known in self._admin_digests]
            if any(fits):
                return
        self.check(asked)
        message = "This is for operators: send a key of the setting 'admin_keys'."
        raise Refusal(REQUEST, "insufficient_permissions", message, status=403)

    def _find(self, key: str) -> str | None:
        given = _digest(Secret(key))
        # Every digest is compared, so that the time tells nothing about which one fits.
        fits = [key_id for key_id, known in self._digests.items() if hmac.compare_digest(given, known)]
        return fits[0] if fits else None

    def _open(self, value: str, may_have_expired: bool) -> ClientSecret:
        """What a short-lived key says, if it still counts."""
        secret = self.seal.open(value)
        if secret is None:
            raise _invalid_key(
                f"Incorrect API key provided: {_masked(value)}. A short-lived key is accepted by the server that made "
                "it, and by those that share its 'signing_key'."
            )
        if secret.expires_at <= self._wall_s() and not may_have_expired:
            raise _invalid_key(f"The short-lived key {_masked(value)} has expired; ask for a new one.")
        if secret.minted_by not in self._ids:
            raise _invalid_key(
                f"The key by which the short-lived key {_masked(value)} was made is not accepted any more."
            )
        return secret

    def _check_origin(self, origin: str | None) -> None:
        """A server without keys is open to this machine, not to every page that its browser shows."""
        if origin is None or plain_origin(origin) in self._origins or is_loopback(_host(origin)):
            return
        raise Refusal(
            AUTHENTICATION,
            "origin_not_allowed",
            "This server has no keys and takes web pages from this machine only; the setting 'origins' allows others.",
            status=403,
        )


def plain_origin(origin: str) -> str:
    """An origin as browsers write it."""
    return origin.rstrip("/").lower()


def _host(origin: str) -> str:
    """The host of an origin; empty where it has none that can be read."""
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""


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


def _invalid_key(message: str) -> Refusal:
    return Refusal(AUTHENTICATION, "invalid_api_key", message)


def _digest(key: Secret) -> bytes:
    return sha256(key.reveal().encode(errors="surrogatepass")).digest()


def _id(digest: bytes) -> str:
    return digest.hex()[:KEY_ID_CHARS]


def _masked(key: str) -> str:
    return f"{'*' * SHOWN_CHARS}{key[-SHOWN_CHARS:]}" if len(key) >= 4 * SHOWN_CHARS else "*" * SHOWN_CHARS
