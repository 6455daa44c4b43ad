"""Makes events with every field filled, from the structs themselves."""

from __future__ import annotations

from itertools import count
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from vivavoce.protocol import shapes
from vivavoce.protocol.items import InputAudio, InputImage, InputText, Message, OutputAudio, OutputText

SPOKEN = (
    ("user", InputText),
    ("user", InputAudio),
    ("user", InputImage),
    ("system", InputText),
    ("assistant", OutputText),
    ("assistant", OutputAudio),
)
Structs = frozenset[type[msgspec.Struct]]
TURNS = 8  # more than any union has members: every alternative comes up
ALWAYS = {("ResponseFunctionCallArgumentsDone", "name")}  # optional for the sake of beta alone
PLAIN = {str: "some_text", bytes: b"\x01\x02\x03\x04", int: 3, float: 0.75, bool: True, Any: {"any": [1, None]}}
# Where a plain string of ours is one of a few words there.
WORDS = {
    ("StatusDetails", "type"): "cancelled",
    ("StatusDetails", "reason"): "turn_detected",
    ("ConversationResource", "object"): "realtime.conversation",
    ("Prompt", "variables"): {"city": "Paris"},
    ("RealtimeSession", "model"): "gpt-realtime",
    ("RealtimeSessionResource", "model"): "gpt-realtime",
    ("Transcription", "model"): "whisper-1",
    ("ServerVad", "idle_timeout_ms"): 6_000,
    ("TurnDetection", "idle_timeout_ms"): 6_000,
    ("McpTool", "connector_id"): "connector_gmail",
    ("McpTool", "tunnel_id"): "tunnel_" + "a" * 32,
}


def every(events: tuple[type[msgspec.Struct], ...], avoid: Structs = frozenset()) -> list[msgspec.Struct]:
    """Each of the events, bare and then with all fields, in as many variants as its unions have."""
    made = []
    for struct in events:
        made += [bare(struct, avoid), *(full(struct, turn, avoid) for turn in range(TURNS))]
    return [event for index, event in enumerate(made) if event not in made[:index]]


def full(struct: type[msgspec.Struct], turn: int = 0, avoid: Structs = frozenset()) -> Any:
    """One event with every field; `turn` picks the alternatives, of which some may be avoided."""
    return _struct(struct, _Choices(turn, avoid, optional=True))


def bare(struct: type[msgspec.Struct], avoid: Structs = frozenset()) -> Any:
    """One event with what is required alone."""
    return _struct(struct, _Choices(0, avoid, optional=False))


class _Choices:
    """Which alternative to take next, and whether to fill what may be absent."""

    def __init__(self, turn: int, avoid: Structs, *, optional: bool) -> None:
        self._turns = count(turn)
        self._avoid = avoid
        self.optional = optional

    def among(self, values: Any) -> Any:
        possible = [value for value in values if not self._avoid.intersection(_flat(value)) and not _stands_in(value)]
        return possible[next(self._turns) % len(possible)]


def _struct(struct: type[msgspec.Struct], choices: _Choices) -> Any:
    if struct is Message:
        return _message(choices)
    known = {}
    for name, field in shapes.fields(struct).items():
        if name.startswith(shapes.INTERNAL_TAG_PREFIX):
            continue
        if field.required or choices.optional or name == "id" or (struct.__name__, name) in ALWAYS:
            word = WORDS.get((struct.__name__, name))
            known[field.name] = _value(field.type, choices) if word is None else word
    return struct(**known)


def _message(choices: _Choices) -> Message:
    """A message of a role with a part that suits it."""
    role, kind = choices.among(SPOKEN)
    more = {"object": "realtime.item", "status": "in_progress"} if choices.optional else {}
    return Message(id="item_1", role=role, content=(_struct(kind, choices),), **more)


def _value(kind: Any, choices: _Choices) -> Any:
    if get_origin(kind) is Annotated:
        bounds = {name: getattr(get_args(kind)[1], name) for name in ("ge", "le")}
        if get_args(kind)[0] in (int, float):
            return get_args(kind)[0](next(bound for bound in (bounds["ge"], bounds["le"], 1) if bound is not None))
    choice = choices.among(part for part in shapes.members(kind) if part is not type(None))
    if isinstance(choice, type) and issubclass(choice, msgspec.Struct):
        return _struct(choice, choices)
    if get_origin(choice) is Literal:
        return choices.among(get_args(choice))
    if get_origin(choice) is tuple:
        return (_value(get_args(choice)[0], choices),)
    if get_origin(choice) is list:
        return [_value(get_args(choice)[0], choices)]
    if get_origin(choice) is dict:
        return {"key": _value(get_args(choice)[1], choices)}
    return {str: "some_text", bytes: b"\x01\x02\x03\x04", int: 3, float: 0.75, bool: True, Any: {"any": [1, None]}}[
        choice
    ]


def _flat(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _stands_in(part: Any) -> bool:
    return (
        isinstance(part, type)
        and issubclass(part, msgspec.Struct)
        and (shapes.tag(part) or "").startswith(shapes.INTERNAL_TAG_PREFIX)
    )
