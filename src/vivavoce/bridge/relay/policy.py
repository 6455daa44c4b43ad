"""Hooks: what other code may see, change, refuse and inject in a relayed session, by a Protocol of two methods.

A policy is made for each session and sees the event types that it names, as JSON in the words of GA whatever client and
service speak; everything else passes it by as bytes. It answers at once, in the order of the events, and may inject
through its `Visit` at any time. Invariant: an event that every policy lets pass leaves as it came, byte for byte.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Protocol

from vivavoce.errors import SettingsError
from vivavoce.server.client_secrets import Kind

Json = dict[str, Any]

EVERY = frozenset({"*"})
"""Every type of event."""
NONE: frozenset[str] = frozenset()


class Refused(Exception):
    """Raised by a policy that does not let an event pass. The client is told in an `error` that names its event."""

    def __init__(self, message: str, *, code: str = "not_allowed", param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param


Verdict = Json | Sequence[Json] | None
"""None: let it pass as it is. Otherwise what goes on in its place: one event, several, or none."""


@dataclass(slots=True)
class Visit:
    """A session, as its policies know it. What is injected is not shown to policies."""

    id: str
    client: str
    """Whose limits count: the id of a key, of a user behind one, or an address."""
    key_id: str
    model: str
    kind: Kind
    safety_identifier: str | None
    to_service: Callable[[Json], None]
    """Send an event in GA's words to the service."""
    to_client: Callable[[Json], None]
    """Send an event in GA's words to the client."""
    end: Callable[[int, str], None]
    """End the session: close code and reason, to both."""
    on_end: list[Callable[[], None]] = field(default_factory=list)
    """Called when the session is over."""


class Policy(Protocol):
    """What somebody wants to know and to say in a session. `client_types` and `server_types` are the types it sees."""

    client_types: Set[str]
    server_types: Set[str]

    def client_said(self, event: Json) -> Verdict:
        """An event on its way to the service. May raise `Refused`."""
        ...

    def server_said(self, event: Json) -> Verdict:
        """An event on its way to the client. May raise `Refused`: then the client gets the error in its place."""
        ...


PolicyFactory = Callable[[Visit], Policy]


def policies_named(names: Sequence[str]) -> list[PolicyFactory]:
    """Factories by `module:name`. Raises `SettingsError`."""
    found: list[PolicyFactory] = []
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            factory = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise SettingsError(
                f"policies: {name!r} cannot be had: {error}; write module:name, of a function that takes a Visit"
            ) from None
        if not callable(factory):
            raise SettingsError(f"policies: {name!r} is no factory; expected a function that takes a Visit")
        found.append(factory)
    return found


# --- the allow-list ---------------------------------------------------------------------------------------------------

FREE_IN_RESPONSES = frozenset({"conversation", "metadata", "input", "output_modalities", "max_output_tokens"})
"""What a `response.create` may say whatever the list has: it changes no terms of the session."""


class AllowList:
    """Clients set the listed fields of the session and nothing else, not for a single response either."""

    client_types: Set[str] = frozenset({"session.update", "transcription_session.update", "response.create"})
    server_types: Set[str] = NONE

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = tuple(allowed)

    def client_said(self, event: Json) -> Verdict:
        """Refuse what sets another field, whole."""
        root = "response" if event["type"] == "response.create" else "session"
        holder = event.get(root)
        if not isinstance(holder, dict):
            return None
        free = {"type"} if root == "session" else FREE_IN_RESPONSES
        for path in _leaves(holder):
            if path.partition(".")[0] not in free and not self._allows(path):
                listed = ", ".join(self._allowed) or "nothing"
                raise Refused(
                    f"'{root}.{path}' may not be set by clients of this relay; it takes {listed}.",
                    param=f"{root}.{path}",
                )
        return None

    def server_said(self, event: Json) -> Verdict:
        """It looks at none."""
        return None

    def _allows(self, path: str) -> bool:
        return any(path == allowed or path.startswith(allowed + ".") for allowed in self._allowed)


def _leaves(value: Json, before: str = "") -> list[str]:
    """The dotted paths of everything that is set; lists count as one."""
    paths: list[str] = []
    for name, inner in value.items():
        path = f"{before}{name}"
        is_section = name in ("audio", "input", "output") and isinstance(inner, dict)
        paths += _leaves(inner, f"{path}.") if is_section else [path]
    return paths


__all__ = [
    "EVERY",
    "NONE",
    "AllowList",
    "Json",
    "Policy",
    "PolicyFactory",
    "Refused",
    "Verdict",
    "Visit",
    "policies_named",
]
