"""Comparing what came with what a test expects, partly or in full, and saying how the two differ.

Ground of the playbook. An expected value is a dict (only the named fields count), a list or tuple (item by item), an
`Id`, `ANYTHING`, a function that says yes or no, or a plain value. Invariant: matching changes nothing; what it learned
about ids is in the `Match` that it returns, to be kept or thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

BRIEF_CHARS_MAX = 160


class Id(str):
    """Stands for an id that only the machine knows. Takes the first value it meets and means that one from then on.

    It is a `str`, so that it fits wherever an event has an id. `name` is for messages only. Two Ids of one dialogue
    never mean the same value.
    """

    name: str
    value: str | None

    def __new__(cls, name: str = "id") -> Id:
        """An id that is not known yet."""
        self = super().__new__(cls, f"<{name}>")
        self.name = name
        self.value = None
        return self

    def __str__(self) -> str:
        return f"<{self.name}>" if self.value is None else self.value

    def __repr__(self) -> str:
        return f"<{self.name}>" if self.value is None else f"<{self.name}: {self.value}>"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    # An Id is told by which one it is: its text may be that of another.
    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    __hash__ = object.__hash__


class _Anything:
    def __repr__(self) -> str:
        return "ANYTHING"


ANYTHING: Final = _Anything()
"""Matches every value, absent ones too."""


@dataclass
class Match:
    """Outcome of one comparison: the differences found, and the ids learned on the way."""

    differences: list[str] = field(default_factory=list)
    learned: dict[Id, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return not self.differences

    def differ(self, path: str, expected: object, came: object) -> None:
        """Note that at `path` something else came."""
        self.differences.append(f"{path or 'it'}: expected {brief(expected)}, came {brief(came)}")


def match(expected: object, came: object, known: Mapping[str, Id], path: str = "") -> Match:
    """Compare. `known` says which Id stands for which value already."""
    outcome = Match()
    _compare(expected, came, path, outcome, known)
    return outcome


def _compare(expected: object, came: object, path: str, outcome: Match, known: Mapping[str, Id]) -> None:
    if expected is ANYTHING:
        return
    if isinstance(expected, Id):
        _compare_id(expected, came, path, outcome, known)
    elif isinstance(expected, Mapping):
        for name, value in expected.items():
            _compare(value, _field(came, name), f"{path}.{name}".lstrip("."), outcome, known)
    elif isinstance(expected, list | tuple):
        _compare_sequence(expected, came, path, outcome, known)
    elif isinstance(expected, msgspec.Struct):
        _compare_struct(expected, came, path, outcome, known)
    elif callable(expected) and not isinstance(expected, type):
        if not expected(came):
            outcome.differ(path, expected, came)
    elif type(expected) is not type(came) or expected != came:
        # Also by type, because 1 == True == 1.0 and the wire tells them apart.
        outcome.differ(path, expected, came)


def _compare_id(expected: Id, came: object, path: str, outcome: Match, known: Mapping[str, Id]) -> None:
    value = outcome.learned.get(expected, expected.value)
    if value is not None:
        if came != value:
            outcome.differ(path, expected, came)
        return
    if not isinstance(came, str) or not came:
        outcome.differ(path, expected, came)
        return
    taken = known.get(came) or next((other for other, known_as in outcome.learned.items() if known_as == came), None)
    if taken is not None:
        outcome.differences.append(f"{path}: expected {expected!r} to be an id of its own, came {taken!r}")
        return
    outcome.learned[expected] = came


def _compare_sequence(
    expected: Sequence[object], came: object, path: str, outcome: Match, known: Mapping[str, Id]
) -> None:
    if not isinstance(came, list | tuple):
        outcome.differ(path, expected, came)
        return
    if len(expected) != len(came):
        outcome.differences.append(
            f"{path}: expected {len(expected)} entries, came {len(came)}: {brief(expected)} against {brief(came)}"
        )
        return
    for index, (one, other) in enumerate(zip(expected, came, strict=True)):
        _compare(one, other, f"{path}[{index}]", outcome, known)


def _compare_struct(expected: msgspec.Struct, came: object, path: str, outcome: Match, known: Mapping[str, Id]) -> None:
    if type(expected) is not type(came):
        outcome.differ(path, expected, came)
        return
    for name in expected.__struct_fields__:
        _compare(getattr(expected, name), getattr(came, name), f"{path}.{name}".lstrip("."), outcome, known)


def _field(value: object, name: str) -> object:
    if isinstance(value, Mapping):
        return value.get(name, msgspec.UNSET)
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        if name == config.tag_field:
            return config.tag
    return getattr(value, name, msgspec.UNSET)


def filled(value: Any) -> Any:
    """`value` with every Id in it replaced by what it stands for. An Id without a value is a mistake of the test."""
    if isinstance(value, Id):
        if value.value is None:
            raise AssertionError(f"{value!r} is used before anything said which id it is")
        return value.value
    if isinstance(value, msgspec.Struct):
        changes = {name: filled(getattr(value, name)) for name in value.__struct_fields__}
        same = all(changes[name] is getattr(value, name) for name in changes)
        return value if same else msgspec.structs.replace(value, **changes)
    if isinstance(value, tuple | list):
        return type(value)(filled(entry) for entry in value)
    if isinstance(value, dict):
        return {name: filled(entry) for name, entry in value.items()}
    return value


def brief(value: object) -> str:
    """One line about a value, cut at a length that a reader takes in; audio as its length."""
    text = _brief(value)
    return text if len(text) <= BRIEF_CHARS_MAX else text[: BRIEF_CHARS_MAX - 1] + "…"


def _brief(value: object) -> str:
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    if value is msgspec.UNSET:
        return "nothing (absent)"
    if isinstance(value, msgspec.Struct):
        fields = said_fields(value)
        return f"{name_of(value)} {_brief(fields)}" if fields else name_of(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_brief(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_brief(entry) for entry in value) + "]"
    if isinstance(value, Callable):  # type: ignore[arg-type]
        return f"what {getattr(value, '__name__', value)!s} accepts"
    return repr(value)


def name_of(value: msgspec.Struct) -> str:
    """What a message is called: an event's name on the wire, else the struct's own."""
    tag = value.__struct_config__.tag
    return str(tag) if tag is not None else type(value).__name__


def said_fields(value: msgspec.Struct) -> dict[str, object]:
    """The fields that say something: absent ones and an empty `event_id` left out."""
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    return {
        name: entry
        for name, entry in fields.items()
        if entry is not msgspec.UNSET and not (name == "event_id" and entry == "")
    }
