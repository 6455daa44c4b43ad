"""Making short-lived keys: from the body of a request to the key and the session that it will open (reference §1.9).

What a key is to carry is rehearsed: it becomes the `session.update` that it stands for, goes through the codec of its
dialect into a session machine that nobody listens to, and what that answers is the answer. Invariant: a key carries
what a session here has accepted, and its errors are those of the event, to the field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Protocol, TypeVar

import msgspec
from msgspec import Meta, structs

from vivavoce.core.messages import Opened, Send
from vivavoce.protocol import events as ev
from vivavoce.protocol import translation as tr
from vivavoce.protocol.base import UNSET, Maybe, Strict, UnsetType, given
from vivavoce.protocol.codec import ServerCodec, ServerDialect, TranslationServerCodec
from vivavoce.protocol.config import RealtimeSession
from vivavoce.protocol.violations import Vocabulary, read

from .admission import Admitted
from .auth import REQUEST, Asked, Credential, Keys, Refusal
from .client_secrets import VALUE_CHARS_MAX, ClientSecret, Configured, Kind, written
from .runtime import Machine

TTL_S: Final = 600
TTL_S_OF_BETA: Final = 60
"""How long a key lives where the request does not say (§8.10)."""

Body = dict[str, Any]
T = TypeVar("T", bound=msgspec.Struct)

Seconds = Annotated[int, Meta(ge=10, le=7_200)]
Anchor = Literal["created_at"]


class Expiry(Strict, frozen=True, kw_only=True):
    """How long a key shall live."""

    anchor: Maybe[Anchor] = UNSET
    seconds: Maybe[Seconds] = UNSET


class AnchoredExpiry(Strict, frozen=True, kw_only=True):
    """The same at the beta endpoint, which wants the anchor."""

    anchor: Anchor
    seconds: Maybe[Seconds] = UNSET


class ClientSecretRequest(Strict, frozen=True, kw_only=True):
    """A request for a key of a conversation or a transcription (§1.9.1)."""

    expires_after: Maybe[Expiry] = UNSET
    session: Maybe[msgspec.Raw] = UNSET


class NamedModel(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a translation session that no update may change."""

    model: str


class TranslationSecretRequest(Strict, frozen=True, kw_only=True):
    """A request for a key of a translation (§1.9.2)."""

    expires_after: Maybe[Expiry] = UNSET
    session: NamedModel


class BetaSecret(Strict, frozen=True, kw_only=True):
    """What is said about the key itself in a flat session (§1.9.3)."""

    expires_after: Maybe[AnchoredExpiry] = UNSET


class BetaRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a key of a beta session: the session itself, which the codec reads."""

    client_secret: Maybe[BetaSecret | None] = UNSET


class BetaTranscriptionSecret(Strict, frozen=True, kw_only=True):
    """Likewise, under the name that it has there (§1.9.4)."""

    expires_at: Maybe[Expiry] = UNSET


class BetaTranscriptionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a key of a beta transcription session."""

    client_secret: Maybe[BetaTranscriptionSecret | None] = UNSET


class Codec(Protocol):
    """The server's end of a dialect, as far as a rehearsal needs it."""

    def decode(self, frame: str, /) -> Any:
        """The client event, or the `ErrorDetail` that answers it."""
        ...

    def encode(self, event: Any, /) -> bytes | None:
        """The message for a server event."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """A key that is wanted: the update that its configuration stands for, and how long it shall live."""

    codec: Codec
    dialect: ServerDialect
    update: str | None
    ttl_s: int
    kind: Kind = "realtime"
    """Where the update does not say."""
    model: str | None = None
    """Likewise."""
    is_flat: bool = False
    """Whether the request is the session itself, whose fields its errors name."""


class House(Protocol):
    """Whose keys are made: a server's `Sessions`, or who stands in front of one."""

    keys: Keys
    wall_s: Callable[[], float]

    def check(self, kind: Kind, model: str) -> None:
        """Raises `Refusal` where there are no such sessions."""
        ...

    def rehearsal(self, admitted: Admitted) -> Machine:
        """A session machine that nobody listens to. Raises `Refusal`."""
        ...


class Mint:
    """Makes short-lived keys for the sessions of a house."""

    def __init__(self, house: House) -> None:
        self._house = house

    def client_secret(self, asked: Asked, body: bytes) -> Body:
        """`POST /v1/realtime/client_secrets` (§1.9.1). Raises `Refusal`."""
        credential = self.credential(asked)
        request = _read(_text(body), ClientSecretRequest)
        session = request.session
        update = None if isinstance(session, UnsetType) else _update("session.update", bytes(session).decode())
        order = Order(ServerCodec("ga"), "ga", update, _ttl_s(request.expires_after))
        value, expires_at, effective = self._make(asked, credential, order)
        return {"value": value, "expires_at": expires_at, "session": effective}

    def translation_secret(self, asked: Asked, body: bytes) -> Body:
        """`POST /v1/realtime/translations/client_secrets` (§1.9.2). Raises `Refusal`."""
        credential = self.credential(asked)
        text = _text(body)
        request = _read(text, TranslationSecretRequest)
        session = msgspec.json.decode(text)["session"]
        del session["model"]
        update = _update("session.update", msgspec.json.encode(session).decode())
        order = Order(
            TranslationServerCodec(),
            "ga",
            update,
            _ttl_s(request.expires_after),
            kind="translation",
            model=request.session.model,
        )
        value, expires_at, effective = self._make(asked, credential, order)
        return {"value": value, "expires_at": expires_at, "session": effective}

    def beta_session(self, asked: Asked, body: bytes) -> Body:
        """`POST /v1/realtime/sessions` (§1.9.3). Raises `Refusal`."""
        credential = self.credential(asked)
        text = _text(body)
        secret = given(_read(text, BetaRequest).client_secret, None)
        ttl_s = _ttl_s(secret.expires_after if secret else UNSET, TTL_S_OF_BETA)
        order = Order(ServerCodec("beta"), "beta", _update("session.update", text), ttl_s, is_flat=True)
        return self._flat(asked, credential, order)

    def beta_transcription_session(self, asked: Asked, body: bytes) -> Body:
        """`POST /v1/realtime/transcription_sessions` (§1.9.4). Raises `Refusal`."""
        credential = self.credential(asked)
        text = _text(body)
        secret = given(_read(text, BetaTranscriptionRequest).client_secret, None)
        ttl_s = _ttl_s(secret.expires_at if secret else UNSET)
        update = _update("transcription_session.update", text)
        order = Order(ServerCodec("beta"), "beta", update, ttl_s, kind="transcription", is_flat=True)
        return self._flat(asked, credential, order)

    def wanted(self, asked: Asked, credential: Credential, session: str) -> tuple[Kind, str | None, Configured | None]:
        """Kind, model and configuration of a session that is to begin at once; `session` is JSON. Raises `Refusal`."""
        order = Order(ServerCodec("ga"), "ga", _update("session.update", session), TTL_S, model=asked.model)
        event = _decoded(order)
        kind, model, configured = _wanted(order, event)
        self._house.check(kind, model or "")
        self._rehearsed(Admitted(credential.key_id, kind, "ga", model or asked.model or ""), event, order)
        return kind, model, configured

    # --- what they share ----------------------------------------------------------------------------------------------

    def credential(self, asked: Asked) -> Credential:
        """Who asks. Raises `Refusal`: only a key of the settings makes others."""
        credential = self._house.keys.check(asked)
        if credential.secret is not None:
            message = (
                "A short-lived key opens sessions and does nothing else; ask for another with the key of your server."
            )
            raise Refusal(REQUEST, "insufficient_permissions", message, status=403)
        return credential

    def _flat(self, asked: Asked, credential: Credential, order: Order) -> Body:
        value, expires_at, effective = self._make(asked, credential, order)
        return effective | {"client_secret": {"value": value, "expires_at": expires_at}}

    def _make(self, asked: Asked, credential: Credential, order: Order) -> tuple[str, int, Body]:
        """The key, when it ends, and the session that it opens, in the words of its dialect."""
        event = None if order.update is None else _decoded(order)
        kind, model, configured = _wanted(order, event)
        self._house.check(kind, model or "")
        admitted = Admitted(credential.key_id, kind, order.dialect, model or "")
        effective = self._rehearsed(admitted, event, order)
        now_s = int(self._house.wall_s())
        secret = ClientSecret(
            kind=kind,
            dialect=order.dialect,
            issued_at=now_s,
            expires_at=now_s + order.ttl_s,
            minted_by=credential.key_id,
            model=model,
            session=written(configured),
            safety_identifier=asked.safety_identifier,
        )
        value = self._house.keys.seal.close(secret)
        if len(value) > VALUE_CHARS_MAX:
            raise _too_long(len(value), order)
        return value, secret.expires_at, effective

    def _rehearsed(self, admitted: Admitted, event: Any, order: Order) -> Body:
        """The session as it will be, or the `Refusal` that says why there will be none."""
        machine = self._house.rehearsal(admitted)
        effects = machine.handle(Opened(), 0)
        if event is not None:
            effects = machine.handle(event, 0)
        said = [_message(order, effect.event) for effect in effects if isinstance(effect, Send)]
        if (error := next((message["error"] for message in said if message["type"] == "error"), None)) is not None:
            raise _refusal(msgspec.convert(error, ev.ErrorDetail), is_flat=order.is_flat)
        effective: Body = next(message["session"] for message in said if "session" in message)
        if not admitted.model:
            effective.pop("model", None)
        return effective


def _text(body: bytes) -> str:
    """The body of a request; nothing at all stands for an empty object."""
    try:
        return body.decode() or "{}"
    except UnicodeDecodeError:
        raise Refusal(REQUEST, "invalid_json", "The body of the request is not UTF-8.") from None


def _read(text: str, kind: type[T]) -> T:
    """The options of a request. Raises `Refusal`."""
    request: T | ev.ErrorDetail = read(text, msgspec.json.Decoder(kind), Vocabulary((kind,), ()))
    if isinstance(request, ev.ErrorDetail):
        if request.code == "invalid_event":
            raise Refusal(REQUEST, "invalid_type", "The body of the request must be a JSON object.")
        raise _refusal(request)
    return request


def _update(name: str, session: str) -> str:
    """The event that sets what a key shall carry; `session` is JSON."""
    return f'{{"type":"{name}","session":{session}}}'


def _ttl_s(expiry: Maybe[Expiry | AnchoredExpiry], default: int = TTL_S) -> int:
    return default if isinstance(expiry, UnsetType) else given(expiry.seconds, default)


def _decoded(order: Order) -> Any:
    assert order.update is not None
    event = order.codec.decode(order.update)
    if isinstance(event, ev.ErrorDetail):
        raise _refusal(event, is_flat=order.is_flat)
    return event


def _wanted(order: Order, event: Any) -> tuple[Kind, str | None, Configured | None]:
    """Kind, model and configuration of the sessions that the key opens."""
    if event is None:
        return order.kind, order.model, None
    session: Configured = event.session
    if isinstance(session, tr.TranslationSession):
        return "translation", order.model, session
    if isinstance(session, RealtimeSession):
        # The key says it apart, where a URL can be held against it.
        return "realtime", given(session.model, None), structs.replace(session, model=UNSET)
    return "transcription", None, session


def _message(order: Order, event: Any) -> Body:
    frame = order.codec.encode(event)
    decoded: Body = {"type": ""} if frame is None else msgspec.json.decode(frame)
    return decoded


def _refusal(detail: ev.ErrorDetail, *, is_flat: bool = False) -> Refusal:
    """The error of an event as that of the request that it stands for."""
    param, message = given(detail.param, None), detail.message
    if is_flat and param is not None:
        short = param.removeprefix("session.")
        message, param = message.replace(f"'{param}'", f"'{short}'"), short
    return Refusal(REQUEST, given(detail.code, None), message, type=detail.type, param=param)


def _too_long(chars: int, order: Order) -> Refusal:
    message = (
        f"The key would have {chars} characters, and one of more than {VALUE_CHARS_MAX} does not fit into the headers "
        "that it has to travel in. Shorten the instructions and tools of the session, or send them by 'session.update' "
        "once it is open."
    )
    return Refusal(REQUEST, "string_above_max_length", message, param=None if order.is_flat else "session")
