"""Who may pass the relay, and to what: from a handshake to a session and the service's address for it, or a refusal.

The keys, the short-lived ones among them, and the kinds of session are those of our server (`server/auth.py`,
`admission.py`). Pure but for the clock of short-lived keys. Invariant: what a client sends as a key goes no further
than here, and what opens the service comes from the settings alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from vivavoce.client.endpoint import Endpoint, Kind
from vivavoce.core.abilities import Abilities
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.core.translating import Translating
from vivavoce.errors import SettingsError
from vivavoce.protocol.codec import ServerDialect
from vivavoce.protocol.config import TranscriptionSession
from vivavoce.protocol.translation import TranslationSession
from vivavoce.server.admission import Admitted, admission
from vivavoce.server.auth import (
    AUTHENTICATION,
    NOBODY,
    REQUEST,
    Asked,
    Credential,
    Keys,
    Refusal,
    plain_origin,
)
from vivavoce.server.client_secrets import Kind as SessionKind
from vivavoce.server.ids import ids
from vivavoce.server.runtime import Machine

from .settings import RelaySettings

ENDPOINTS_MAX = 64
"""Addresses of the service that are remembered, by model and kind; any further one is worked out each time."""
SAFETY_HEADER = "OpenAI-Safety-Identifier"
ABLE = Abilities(semantic_vad=True, noise_reduction=True, mcp=True, images=True, reasoning=True, logprobs=True)
"""What a configuration may ask for; whether the service does it, it says itself."""

log = logging.getLogger(__name__)

_KINDS: Mapping[SessionKind, Kind] = {
    "realtime": "conversation",
    "transcription": "transcription",
    "translation": "translation",
}


@dataclass(frozen=True, slots=True)
class Passenger:
    """A client that may pass."""

    admitted: Admitted
    client_id: str
    endpoint: Endpoint

    @property
    def dialect(self) -> ServerDialect:
        """What the client speaks."""
        return self.admitted.dialect


class Gate:
    """Lets clients in; also the house in whose name short-lived keys are made."""

    def __init__(
        self, settings: RelaySettings, *, wall_s: Callable[[], float], environment: Mapping[str, str] | None = None
    ) -> None:
        self._settings = settings
        self._environment = environment
        self.wall_s = wall_s
        self.keys = Keys(settings, wall_s=wall_s)
        self._origins = frozenset(map(plain_origin, settings.origins))
        self._endpoints: dict[tuple[str | None, SessionKind], Endpoint] = {}

    def admit(self, asked: Asked, address: str) -> Passenger:
        """Who comes from this address, and what it may begin. Raises `Refusal`."""
        credential = self._credential(asked)
        admitted = admission(self._with_model(asked, credential), credential)
        if admitted.dialect == "overview" and admitted.kind == "translation":
            raise Refusal(REQUEST, "invalid_value", "Translation sessions have no overview dialect.")
        self.check(admitted.kind, admitted.model)
        endpoint = self._endpoint(admitted)
        if admitted.safety_identifier:
            headers = {**endpoint.headers, SAFETY_HEADER: admitted.safety_identifier}
            endpoint = replace(endpoint, headers=headers)
        return Passenger(admitted, _client_id(credential, address), endpoint)

    def check(self, kind: SessionKind, model: str) -> None:
        """Raises `Refusal` where clients may not use this model."""
        models = self._settings.models
        if model and models and model not in models and model != self._settings.model:
            known = ", ".join(models)
            raise Refusal(
                REQUEST, "invalid_model", f"There is no model {model!r} at this relay; there is {known}.", status=404
            )

    def rehearsal(self, admitted: Admitted) -> Machine:
        """A session that could do everything, to hear whether a configuration is one. Raises `Refusal`."""
        new_id = ids()
        if admitted.kind == "translation":
            return Translating(
                id=new_id("sess"),
                model=admitted.model,
                ids=new_id,
                expires_at=0,
                configured=TranslationSession(),
                abilities=ABLE,
            )
        return Session(
            id=new_id("sess"),
            model=admitted.model,
            ids=new_id,
            expires_at=0,
            configured=TranscriptionSession() if admitted.kind == "transcription" else None,
            surroundings=Surroundings(abilities=ABLE),
        )

    def _endpoint(self, admitted: Admitted) -> Endpoint:
        """Where such a session goes; worked out once, since that takes as long as all the rest of an admission."""
        model = self._settings.models.get(admitted.model, admitted.model) or None
        known = self._endpoints.get((model, admitted.kind))
        if known is not None:
            return known
        try:
            endpoint = self._settings.endpoint(model, _KINDS[admitted.kind], {}, self._environment)
        except SettingsError as error:
            log.warning("%s", error)
            message = f"There are no {admitted.kind} sessions at this relay."
            raise Refusal(REQUEST, "session_kind_not_available", message) from None
        if len(self._endpoints) < ENDPOINTS_MAX:
            self._endpoints[model, admitted.kind] = endpoint
        return endpoint

    def _credential(self, asked: Asked) -> Credential:
        if asked.key is None and self._settings.anonymous:
            if plain_origin(asked.headers.get("origin", "")) in self._origins:
                return Credential(NOBODY)
            raise Refusal(
                AUTHENTICATION,
                "origin_not_allowed",
                "Without a key this relay takes the web pages of its setting 'origins' only.",
                status=403,
            )
        return self.keys.check(asked)

    def _with_model(self, asked: Asked, credential: Credential) -> Asked:
        """A client that names nothing gets the model of the settings."""
        secret = credential.secret
        is_named = asked.model is not None or {"intent", "call_id"} & asked.query.keys()
        is_attached = secret is not None and (secret.model is not None or secret.kind != "realtime")
        if is_named or is_attached or self._settings.model is None:
            return asked
        return replace(asked, query={**asked.query, "model": self._settings.model})


def _client_id(credential: Credential, address: str) -> str:
    """Whose limits count: a user's, where the short-lived key says whose, else those of a key, or of an address."""
    secret = credential.secret
    if secret is not None and secret.safety_identifier:
        return f"{credential.key_id}/{secret.safety_identifier}"
    return credential.key_id or f"address {address}"
