"""Short-lived keys, `ek_…`: sealed notes that this server writes to itself (reference §1.9).

Nothing is stored. A key holds what it is for, when it ends, which key asked for it, and the configuration of its
sessions; it is encrypted and authenticated, so the browser that holds it can neither read nor change what its server
attached. Invariant: what `Seal.open` gives was written by `Seal.close` with the same signing key.
"""

from __future__ import annotations

import secrets
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vivavoce.protocol.codec import ServerDialect
from vivavoce.protocol.config import RealtimeSession, TranscriptionSession
from vivavoce.protocol.translation import TranslationSession

from .settings import Secret

PREFIX = "ek_"

VALUE_CHARS_MAX = 6 * 1024
"""Length of a key. Servers and proxies take header lines of 8 KiB, and a browser puts more into the same line."""

Kind = Literal["realtime", "transcription", "translation"]
"""The kinds of session."""

Configured = RealtimeSession | TranscriptionSession | TranslationSession
"""What a client may set, by kind of session."""

_STRUCTS: Mapping[Kind, type[Configured]] = {
    "realtime": RealtimeSession,
    "transcription": TranscriptionSession,
    "translation": TranslationSession,
}


class ClientSecret(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a short-lived key says. Times are unix seconds."""

    kind: Kind
    dialect: ServerDialect
    issued_at: int
    expires_at: int
    minted_by: str
    """The id of the key that asked for it, so that it ends with that."""
    model: str | None
    session: bytes | None
    """The configuration as JSON, in the words of GA."""
    safety_identifier: str | None = None

    @property
    def configured(self) -> Configured | None:
        """The configuration that sessions begin with."""
        return None if self.session is None else msgspec.json.decode(self.session, type=_STRUCTS[self.kind])


def written(session: Configured | None) -> bytes | None:
    """A configuration as a key holds it."""
    return None if session is None else msgspec.json.encode(session)


class Seal:
    """Closes and opens keys. Without a signing key it makes one, which nobody else has."""

    def __init__(self, signing_key: Secret | None = None) -> None:
        material = secrets.token_bytes(32) if signing_key is None else signing_key.reveal().encode()
        derived = HKDF(SHA256(), 32, salt=None, info=b"vivavoce short-lived keys").derive(material)
        self._fernet = Fernet(urlsafe_b64encode(derived))

    def close(self, secret: ClientSecret) -> str:
        """The key, `ek_…`. It is not checked against `VALUE_CHARS_MAX`."""
        note = zlib.compress(msgspec.msgpack.encode(secret))
        sealed = self._fernet.encrypt_at_time(note, secret.issued_at).decode()
        # The padding has no place among the characters of a sub-protocol, where browsers put the key.
        return PREFIX + sealed.rstrip("=")

    def open(self, value: str) -> ClientSecret | None:
        """What a key says, also when it has expired; None where it is none of ours."""
        if not value.startswith(PREFIX) or len(value) > VALUE_CHARS_MAX:
            return None
        sealed = value.removeprefix(PREFIX)
        try:
            note: Any = zlib.decompress(self._fernet.decrypt(sealed + "=" * (-len(sealed) % 4)))
            secret = msgspec.msgpack.decode(note, type=ClientSecret)
            secret.configured  # noqa: B018 - whether it is understood here, too
        except (InvalidToken, ValueError, zlib.error, msgspec.MsgspecError):
            # Not ours, or sealed by another version of this server.
            return None
        return secret
