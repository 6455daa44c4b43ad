"""What the relay does with messages that it must understand: dialects, and policies between them.

client ─frame→ `ClientSide.heard` ─GA→ policies ─GA→ `ServiceSide.said` ─frame→ service, and the like on the way back;
any of the three may be missing. Made only for sessions that need one. Invariants: order is kept, since nothing here
waits; a message that nobody changes leaves as it came; what is refused is answered with an `error` that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from vivavoce.protocol.codec import Dialect, ServerDialect
from vivavoce.protocol.dialects.beta import EVENT_NAMES
from vivavoce.protocol.events import ErrorDetail, ErrorEvent
from vivavoce.protocol.wire import encode
from vivavoce.server.ids import ids

from .dialects import ClientSide, Misunderstood, ServiceSide
from .peeking import Ambiguous, Json, judged, judged_type_of, type_of
from .policy import Policy, Refused, Verdict

WARNING = "vivavoce.warning"
"""The event that says what was left out."""
WARNINGS_MAX = 100
"""Different warnings of one session. Further ones are not given."""

Out = Callable[[bytes], None]
_GA_NAMES = {name.encode(): ga.encode() for ga, name in EVENT_NAMES.items()} | {
    b"conversation.item.created": b"conversation.item.added",
    b"transcription_session.update": b"session.update",
    b"transcription_session.created": b"session.created",
    b"transcription_session.updated": b"session.updated",
}


class Inspection:
    """Reads what passes in one session. `to_client` and `to_service` take frames for those two."""

    def __init__(
        self,
        client: ServerDialect,
        service: Dialect,
        to_client: Out,
        to_service: Out,
        *,
        strict: bool = False,
        warned: Callable[[], None] = lambda: None,
    ) -> None:
        self._to_client, self._to_service = to_client, to_service
        self._client = None if client == "ga" else ClientSide(client, self._warn, strict=strict)
        self._service = None if service == "ga" else ServiceSide(self._warn, strict=strict)
        self._is_same = client == service
        self._warned = warned
        self._told: set[str] = set()
        self._new_id = ids()
        self._policies: tuple[Policy, ...] = ()
        self._client_types: frozenset[bytes] = frozenset()
        self._server_types: frozenset[bytes] = frozenset()

    def set_policies(self, policies: Sequence[Policy]) -> None:
        """Who is asked, in this order on the way to the service, and in the other on the way back."""
        self._policies = tuple(policies)
        self._client_types = frozenset(name.encode() for policy in policies for name in policy.client_types)
        self._server_types = frozenset(name.encode() for policy in policies for name in policy.server_types)

    # --- what comes ---------------------------------------------------------------------------------------------------

    def client_said(self, frame: bytes) -> None:
        """A message of the client."""
        try:
            kind = judged_type_of(frame) if self._client_types else type_of(frame)
            if self._is_same and not self._sees(self._client_types, kind):
                self._to_service(frame)
                return
            heard = [frame] if self._client is None else self._client.heard(frame)
            passed = [self._asked_of_client(event) for event in heard]
            if self._is_same and all(verdict is None for verdict in passed):
                self._to_service(frame)
                return
            for event, verdict in zip(heard, passed, strict=True):
                for message in [event] if verdict is None else verdict:
                    self._say_to_service(message)
        except Ambiguous as error:
            self._answer(ErrorDetail(type="invalid_request_error", code="invalid_json", message=str(error)))
        except Misunderstood as error:
            self._answer_in_own_words(error.detail)
        except Refused as refused:
            self._answer(_detail(refused, _event_id(frame)))

    def server_said(self, frame: bytes) -> None:
        """A message of the service."""
        if self._is_same and not self._sees(self._server_types, type_of(frame)):
            self._to_client(frame)
            return
        heard = [frame] if self._service is None else self._service.heard(frame)
        try:
            passed = [self._asked_of_server(event) for event in heard]
        except Refused as refused:
            self._answer(_detail(refused, None))
            return
        if self._is_same and all(verdict is None for verdict in passed):
            self._to_client(frame)
            return
        for event, verdict in zip(heard, passed, strict=True):
            for message in [event] if verdict is None else verdict:
                self._say_to_client(message)

    # --- what is injected ---------------------------------------------------------------------------------------------

    def inject_to_service(self, event: Json) -> None:
        """An event in GA's words, of the relay's own. What the service's dialect cannot say is told to the client."""
        try:
            self._say_to_service(encode({"event_id": self._new_id("relay"), **event}))
        except Misunderstood as error:
            self._answer(error.detail)

    def inject_to_client(self, event: Json) -> None:
        """An event in GA's words, of the relay's own."""
        self._say_to_client(encode({"event_id": self._new_id("event"), **event}))

    # --- leaves -------------------------------------------------------------------------------------------------------

    def _say_to_service(self, message: bytes) -> None:
        for frame in [message] if self._service is None else self._service.said(message):
            self._to_service(frame)

    def _say_to_client(self, message: bytes) -> None:
        for frame in [message] if self._client is None else self._client.said(message):
            self._to_client(frame)

    def _asked_of_client(self, message: bytes) -> list[bytes] | None:
        """What the policies make of an event; None where they let it pass as it is. Raises `Refused`, `Ambiguous`."""
        if not self._sees(self._client_types, type_of(message)):
            return None
        return self._asked(judged(message), self._policies, lambda policy: policy.client_types, "client_said")

    def _asked_of_server(self, message: bytes) -> list[bytes] | None:
        if not self._sees(self._server_types, type_of(message)):
            return None
        event: Json = msgspec.json.decode(message)
        return self._asked(event, self._policies[::-1], lambda policy: policy.server_types, "server_said")

    def _asked(
        self, event: Json, policies: Sequence[Policy], types: Callable[[Policy], Any], way: str
    ) -> list[bytes] | None:
        events, is_changed = [event], False
        for policy in policies:
            left: list[Json] = []
            for one in events:
                seen = types(policy)
                verdict: Verdict = getattr(policy, way)(one) if "*" in seen or one.get("type") in seen else None
                is_changed = is_changed or verdict is not None
                left += [one] if verdict is None else [verdict] if isinstance(verdict, dict) else verdict
            events = left
        return [encode(one) for one in events] if is_changed else None

    def _sees(self, types: frozenset[bytes], kind: bytes) -> bool:
        return bool(types) and (b"*" in types or kind in types or _GA_NAMES.get(kind) in types)

    def _warn(self, path: str, why: str) -> None:
        if path in self._told or len(self._told) >= WARNINGS_MAX:
            return
        self._told.add(path)
        self._warned()
        self._to_client(encode({**warning(path, why), "event_id": self._new_id("event")}))

    def _answer(self, detail: ErrorDetail) -> None:
        self._say_to_client(encode(ErrorEvent(event_id=self._new_id("event"), error=detail)))

    def _answer_in_own_words(self, detail: ErrorDetail) -> None:
        """An error whose place is in the client's words already."""
        self._to_client(encode(ErrorEvent(event_id=self._new_id("event"), error=detail)))


def warning(path: str, why: str) -> Json:
    """The event that says that a field was left out."""
    return {"type": WARNING, "code": "not_expressible", "message": f"'{path}' was left out: {why}.", "param": path}


def _detail(refused: Refused, event_id: str | None) -> ErrorDetail:
    return ErrorDetail(
        type="invalid_request_error",
        code=refused.code,
        message=refused.message,
        param=refused.param,
        event_id=event_id,
    )


def _event_id(frame: bytes) -> str | None:
    try:
        named = judged(frame).get("event_id")
    except Ambiguous:
        return None
    return named if isinstance(named, str) else None
