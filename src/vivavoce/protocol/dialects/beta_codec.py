"""The beta dialect at both ends: what is the same passes, what has another name is renamed, the rest is translated.

`beta_events` is the schema, `beta` the tables. Imported by the codec when somebody speaks beta, and not before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, get_args

import msgspec

from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import events as ev
from vivavoce.protocol.events import AnyClientEvent, ErrorDetail, ErrorInOwnWords
from vivavoce.protocol.ga import GA, GA_DECODERS, SERVER_STRUCTS, Ways, names_requests, no_such_event, with_playback
from vivavoce.protocol.leniency import LENIENCIES_OF_BETA, reread
from vivavoce.protocol.shapes import tag
from vivavoce.protocol.vetting import misfit
from vivavoce.protocol.violations import read, refusal
from vivavoce.protocol.walk import Json
from vivavoce.protocol.wire import as_json, decoder, encode, ga_reader, parse, unknown, write

from . import beta
from . import beta_events as schema
from .table import Untranslatable

_BETA_EVENTS: Final = get_args(schema.ClientEvent)
_BETA: Final = with_playback(
    _BETA_EVENTS,
    tuple(str(tag(event)) for event in _BETA_EVENTS if event is not ev.OutputAudioBufferClear),
    lambda: beta.GA_IN_BETA,
)
_BETA_DECODERS: Final = {playback: decoder(vocabulary.events) for playback, vocabulary in _BETA.items()}
_TRANSLATED: Final = get_args(schema.Translated)


def _say(event: Any) -> bytes:
    return encode(beta.server_event_from_ga(as_json(event)))


def _say_error(event: ev.ErrorEvent) -> bytes:
    """Params of the machine are GA's; those of this codec are what the client wrote, were it a name of GA."""
    return write(event) if isinstance(event.error, ErrorInOwnWords) else _say(event)


def _renaming(ga: str, name: str) -> Callable[[Any], bytes]:
    """A way to write an event whose name alone is different; a message begins with its name."""
    opening, size = f'{{"type":"{name}"'.encode(), len(f'{{"type":"{ga}"')
    return lambda event: opening + encode(event)[size:]


def _early_limits(event: ev.RateLimitsUpdated) -> bytes | None:
    """Beta states them when the response begins (§8.15)."""
    return write(event) if names_requests(event) else None


_BETA_WAYS: Final[Ways] = (
    dict.fromkeys((SERVER_STRUCTS[name] for name in beta.GA_ONLY), no_such_event)
    | {SERVER_STRUCTS[ga]: _renaming(ga, name) for ga, name in beta.EVENT_NAMES.items()}
    | dict.fromkeys((SERVER_STRUCTS[name] for name in beta.TRANSLATED_BY_FIELDS), _say)
    | {ev.RateLimitsUpdated: _early_limits, ev.ErrorEvent: _say_error}
)


class BetaServer:
    """What beta does with an event beyond reading and writing it."""

    ways: Final[Ways] = _BETA_WAYS

    def __init__(self, playback: bool) -> None:
        self.vocabulary = _BETA[playback]
        self.decoder = _BETA_DECODERS[playback]

    def settle(self, event: Any, frame: str | bytes) -> AnyClientEvent | ErrorDetail:
        if isinstance(event, ErrorDetail) and isinstance(frame, str):
            event = reread(event, frame, self.decoder, self.vocabulary, LENIENCIES_OF_BETA)
        if isinstance(event, (schema.ConversationItemCreate, schema.ResponseCreate)):
            event = misfit(event, self.vocabulary, schema.PARTS_OF_ROLE) or event
        if isinstance(event, ErrorDetail):
            return ErrorInOwnWords(**msgspec.structs.asdict(event))
        if isinstance(event, _TRANSLATED):
            return self._understand(event)
        settled: AnyClientEvent | ErrorDetail = event
        return settled

    def _understand(self, event: schema.Translated) -> AnyClientEvent | ErrorDetail:
        try:
            fields = beta.client_event_to_ga(event)
        except Untranslatable as error:
            return refusal("invalid_value", error.message, error.name, event.event_id or None)
        understood: AnyClientEvent | ErrorDetail = read(encode(fields).decode(), GA_DECODERS[True], GA[True])
        return understood


def write_beta(event: AnyClientEvent) -> bytes:
    """The message of a client's event. Raises `LocalProtocolError` for what beta cannot say."""
    frame = write(event)
    if not isinstance(event, (ev.SessionUpdate, ev.ConversationItemCreate, ev.ResponseCreate)):
        return frame
    fields = beta.client_event_from_ga(as_json(event))
    if (wrong := complaint(fields)) is not None:
        raise LocalProtocolError(f"the beta dialect cannot say this {event.type}: {wrong.message}")
    return encode(fields)


def complaint(fields: Json) -> ErrorDetail | None:
    """What the schema of beta has against a client's event in its words; None where it has nothing."""
    said: Any = read(encode(fields).decode(), _BETA_DECODERS[True], _BETA[True])
    return said if isinstance(said, ErrorDetail) else None


def _under_another_name(struct: Any, name: str) -> type[msgspec.Struct]:
    return msgspec.defstruct(
        struct.__name__, [], bases=(struct,), tag_field="type", tag=name, frozen=True, kw_only=True
    )


class BetaReader:
    """Reads what a beta server says, as the GA events that it means."""

    def __init__(self) -> None:
        changed = beta.GA_ONLY | beta.TRANSLATED_BY_FIELDS - {"error", "response.function_call_arguments.done"}
        same = [struct for name, struct in SERVER_STRUCTS.items() if name not in changed | set(beta.EVENT_NAMES)]
        self._renamed = {
            _under_another_name(SERVER_STRUCTS[ga], name): SERVER_STRUCTS[ga] for ga, name in beta.EVENT_NAMES.items()
        }
        self._decoder = decoder((*same, *self._renamed))

    def read(self, frame: str | bytes) -> Any:
        try:
            event = self._decoder.decode(frame)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            fields = parse(frame)
            return ga_reader().fit(beta.server_event_to_ga(fields)) or unknown(fields, frame)
        struct = self._renamed.get(type(event))
        return event if struct is None else struct(**msgspec.structs.asdict(event))


BETA_READER: Final = BetaReader()
