"""Judges what our server says by the public client's types, strictly; what it says beyond them stands here with why."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import openai.types.beta.realtime as beta_types
import openai.types.realtime as ga_types
from conformance_paths import paths
from protocol_oracle import models, type_name
from strictness import Allowance, Judge

UNIONS: dict[str, Any] = {
    "ga": ga_types.RealtimeServerEvent,
    "beta": beta_types.RealtimeServerEvent,
    "translation": ga_types.RealtimeTranslationServerEvent,
}
SERVER_MODELS = {
    dialect: {str(type_name(model)): model for model in models(union)} for dialect, union in UNIONS.items()
}


class Difference(NamedTuple):
    """Something that the reference has and the types have not, or the other way round."""

    dialect: str
    kind: str
    """`field` and `event`: sent although unknown there; `absent`: not sent although required there; `open`: any value
    that the reference allows, where the types have a list or one kind."""
    place: str
    why: str


_COPY = "the server's copy of a session has it (reference §2.1); the types of the events are those of the request"
EXCEPTIONS = (
    Difference("ga", "field", "session.id", _COPY),
    Difference("ga", "field", "session.object", _COPY),
    Difference("ga", "field", "session.expires_at", _COPY),
    Difference("beta", "field", "session.object", "§2.6: part of the beta session object"),
    Difference("beta", "field", "session.expires_at", "§2.6: part of the beta session object"),
    Difference("beta", "field", "session.include", "§2.6: a late addition of the specification"),
    Difference("beta", "field", "session.prompt", "§2.6: a late addition of the specification"),
    Difference("beta", "field", "session.truncation", "§2.6: a late addition of the specification"),
    Difference("beta", "field", "session.turn_detection.idle_timeout_ms", "§2.6: in late beta"),
    Difference(
        "beta",
        "field",
        "response.usage.input_token_details.cached_tokens_details",
        "§6.4: usage is the same in both dialects; the beta types lag behind",
    ),
    Difference("beta", "event", "transcription_session.created", "§2.6: in the specification, not in the types"),
    Difference(
        "beta",
        "absent",
        "transcription_session.updated/session.client_secret",
        "§2.6: there only where a session is made over REST",
    ),
    Difference("beta", "open", "session.model", "models have the names that their operator gives them"),
    Difference(
        "beta",
        "open",
        "session.input_audio_transcription.model",
        "transcribers have the names that their operator gives them",
    ),
    Difference("beta", "open", "session.tool_choice", "§2.6: a function is chosen by an object; text in the types"),
)
KNOWN = {
    "session.input_audio_transcription.model": "whisper-1",
    "session.model": "gpt-realtime",
    "session.tool_choice": "auto",
}
"""A value that the types have, for each place that is open."""


def _allowance(dialect: str) -> Allowance:
    def places(kind: str) -> frozenset[str]:
        return frozenset(one.place for one in EXCEPTIONS if (one.dialect, one.kind) == (dialect, kind))

    return Allowance(fields=places("field"), events=places("event"), absent=places("absent"))


class Oracle:
    """The judges of all dialects."""

    def __init__(self) -> None:
        self._judges = {dialect: Judge(union, _allowance(dialect)) for dialect, union in UNIONS.items()}

    def fault(self, dialect: str, frame: bytes) -> str:
        """What is wrong with a server's message; "" where nothing is."""
        text = frame.decode()
        try:
            self._judges[dialect].check(_with_known_values(dialect, text))
        except ValueError as error:
            return f"{dialect}: {error}\n    in {text[:2_000]}"
        return ""

    def keys(self, dialect: str, event: dict[str, Any]) -> set[tuple[str, ...]]:
        """The event and its fields, as the witness notes them."""
        name = event["type"]
        model = SERVER_MODELS[dialect].get(name)
        found = set() if model is None else set(paths(model, event, anew=True))
        return {("server", dialect, name), *(("server field", dialect, root(name, path), path) for path in found)}


def _with_known_values(dialect: str, text: str) -> str:
    """The message with what is open there set to what the types know, where it is there."""
    event = json.loads(text)
    for place in (one.place for one in EXCEPTIONS if (one.dialect, one.kind) == (dialect, "open")):
        *way, last = place.split(".")
        holder: Any = event
        for step in way:
            holder = holder.get(step) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and holder.get(last) is not None:
            holder[last] = KNOWN[place]
    return json.dumps(event)


def root(name: str, path: str) -> str:
    """Whose field it is: the event's, or that of a resource that several events carry."""
    start = path.partition(".")[0].partition("{")[0]
    is_resource = start in ("item", "session", "response") and path not in ("item", "session", "response")
    return start if is_resource else name
