"""What a session will be, from the handshake and the key: kind, dialect, model, configuration (reference §1.1, §1.4).

Pure. The selectors count in this order: `call_id`, `intent`, then the model or the short-lived key. Invariant: a
short-lived key opens sessions of its own kind and model, and no other.
"""

from __future__ import annotations

from dataclasses import dataclass

from vivavoce.protocol.codec import ServerDialect
from vivavoce.protocol.waterfall import HEADER as WATERFALL
from vivavoce.transports.lasting import HEADER as RESUME

from .auth import DIALECTS, REQUEST, Asked, Credential, Refusal
from .client_secrets import Configured, Kind


@dataclass(frozen=True, slots=True)
class Admitted:
    """A session that may begin. `model` is empty where the kind of session has none."""

    key_id: str
    kind: Kind
    dialect: ServerDialect
    model: str
    configured: Configured | None = None
    """What the configuration begins with, from a short-lived key."""
    safety_identifier: str | None = None
    is_lasting: bool = False
    """Whether the client has asked for a session that outlives its connection."""
    tells_waterfall: bool = False
    """Whether it wants to be told where the time of every response went."""
    call_id: str | None = None
    """The call that carries it, where that is WebRTC."""


def admission(asked: Asked, credential: Credential) -> Admitted:
    """What this client may begin. Raises `Refusal` where it asks for what there is not, or its key is not for."""
    secret = credential.secret
    named = asked.query.get("dialect")
    if asked.surface == "openai" and named is not None and named not in DIALECTS:
        raise Refusal(REQUEST, "invalid_value", f"There is no dialect {named!r}; there is {', '.join(DIALECTS)}.")
    kind = _kind(asked, credential)
    return Admitted(
        key_id=credential.key_id,
        kind=kind,
        dialect=asked.chosen_dialect or (secret.dialect if secret else "ga"),
        model="" if kind == "transcription" else _model(asked, credential),
        configured=secret.configured if secret else None,
        safety_identifier=(secret.safety_identifier if secret else None) or asked.safety_identifier,
        is_lasting=RESUME in asked.headers,
        tells_waterfall=WATERFALL in asked.headers,
    )


def _kind(asked: Asked, credential: Credential) -> Kind:
    if "call_id" in asked.query:
        message = "Calls are attached to by a WebSocket at '/v1/realtime?call_id=ID', and nothing is begun by their id."
        raise Refusal(REQUEST, "session_kind_not_available", message)
    kind: Kind | None = None
    if asked.surface == "translation":
        kind = "translation"
    elif asked.query.get("intent") == "transcription":
        kind = "transcription"
    elif asked.model is not None:
        kind = "realtime"
    secret = credential.secret
    if secret is None:
        return kind or "realtime"
    is_left_open = kind is None and secret.kind != "translation"
    # A transcription session has no model of its own; one that is named all the same changes nothing.
    names_a_model = kind == "realtime" and secret.kind == "transcription"
    if kind != secret.kind and not is_left_open and not names_a_model:
        where = "/v1/realtime/translations" if secret.kind == "translation" else "/v1/realtime"
        message = f"This short-lived key was made for a {secret.kind} session: connect to '{where}' with it."
        raise Refusal(REQUEST, "session_kind_mismatch", message)
    return secret.kind


def _model(asked: Asked, credential: Credential) -> str:
    """The model of the URL, or else that of the key; they must not differ (§8.8)."""
    attached = credential.secret.model if credential.secret else None
    if attached is not None and asked.model not in (None, attached):
        message = f"This short-lived key was made for the model {attached!r}, not for {asked.model!r}."
        raise Refusal(REQUEST, "invalid_model", message)
    model = asked.model or attached
    if model is None:
        intent = asked.query.get("intent")
        unknown = f"There is no intent {intent!r}; there is 'transcription'. " if intent is not None else ""
        raise Refusal(REQUEST, "missing_model", f"{unknown}You must provide a model: add '?model=NAME' to the URL.")
    return model
