"""Every mistake that a client can make in one place of an event, and the error for it: from the structs themselves."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from vivavoce.protocol import shapes

Path = tuple[str | int, ...]
MISSING, UNKNOWN, VALUE, TYPE = "missing_required_parameter", "unknown_parameter", "invalid_value", "invalid_type"
OF_EACH_TYPE = (None, True, 5, 1.5, "some words", [], {})
BOGUS = "zz_bogus"


class Mistake(NamedTuple):
    """An event with one thing wrong, and what must be said about it."""

    event: dict[str, Any]
    code: str
    path: Path
    value: Any


class _Change(NamedTuple):
    """One change of the event: `value` put where `at` leads, or what is there taken out."""

    at: Path
    value: Any
    code: str
    path: Path
    is_removal: bool = False


def mistakes(struct: type[msgspec.Struct], event: dict[str, Any]) -> Iterator[Mistake]:
    """One mistake at a time, in everything that this event holds."""
    for change in _in_struct(struct, event, ()):
        made = copy.deepcopy(event)
        *way, last = change.at
        holder: Any = made
        for step in way:
            holder = holder[step]
        if change.is_removal:
            del holder[last]
        else:
            holder[last] = change.value
        yield Mistake(made, change.code, change.path, change.value)


def _in_struct(struct: type[msgspec.Struct], value: dict[str, Any], at: Path) -> Iterator[_Change]:
    yield _Change((*at, BOGUS), 1, UNKNOWN, (*at, BOGUS))
    if at and shapes.tag(struct) is not None:
        kind = (*at, "type")
        yield _Change(kind, None, MISSING, kind, is_removal=True)
        yield _Change(kind, "zz_nothing_of_the_kind", VALUE, kind)
        yield _Change(kind, 5, TYPE, kind)
    for name, field in shapes.fields(struct).items():
        if name not in value:
            continue
        if field.required:
            yield _Change((*at, name), None, MISSING, (*at, name), is_removal=True)
        yield from _in_value(field.type, value[name], (*at, name), (*at, name))


def _in_value(kind: Any, value: Any, at: Path, path: Path) -> Iterator[_Change]:
    """`path` is the place as an error names it, which ends where a map of free keys begins."""
    members = _members(kind)
    accepted = {name for member, _ in members for name in _json_types(member)}
    for wrong in OF_EACH_TYPE:
        if "any" not in accepted and _json_type(wrong) not in accepted:
            yield _Change(at, wrong, TYPE, path)
    if any(get_origin(member) is Literal for member, _ in members) and not any(member is str for member, _ in members):
        yield _Change(at, "zz_no_such_value", VALUE, path)
    for member, meta in members:
        yield from _beyond(member, meta, at, path)
    if isinstance(value, dict):
        yield from _in_object([member for member, _ in members], value, at, path)
    elif isinstance(value, list) and value and (element := shapes.element(kind)) is not None:
        yield from _in_value(element, value[0], (*at, 0), (*path, 0))


def _in_object(members: list[Any], value: dict[str, Any], at: Path, path: Path) -> Iterator[_Change]:
    for member in members:
        if isinstance(member, type) and issubclass(member, msgspec.Struct):
            if shapes.tag(member) in (None, value.get("type")):
                yield from _in_struct(member, value, at)
        elif get_origin(member) is dict and get_args(member)[1] is not Any and value:
            key_kind, value_kind = get_args(member)
            for _, meta in _members(key_kind):
                if meta is not None and meta.max_length is not None:
                    yield _Change((*at, "k" * (meta.max_length + 1)), "v", "string_above_max_length", path)
            key = next(iter(value))
            yield from _in_value(value_kind, value[key], (*at, key), path)


def _beyond(member: Any, meta: msgspec.Meta | None, at: Path, path: Path) -> Iterator[_Change]:
    if member is bytes:
        yield _Change(at, "!", VALUE, path)
    if meta is None:
        return
    number = "integer" if member is int else "decimal"
    if meta.ge is not None:
        yield _Change(at, meta.ge - 1, f"{number}_below_min_value", path)
    if meta.le is not None:
        yield _Change(at, meta.le + 1, f"{number}_above_max_value", path)
    if meta.pattern is not None:
        yield _Change(at, "?! no match", VALUE, path)
    if meta.max_length is not None and member is str:
        yield _Change(at, "x" * (meta.max_length + 1), "string_above_max_length", path)
    if meta.max_length is not None and get_origin(member) is dict:
        many = {f"key{number}": "" for number in range(meta.max_length + 1)}
        yield _Change(at, many, "object_above_max_properties", path)
    if get_origin(member) is tuple:
        wrong = VALUE if path[-1] == "output_modalities" else "array_below_min_length"
        if meta.min_length is not None:
            yield _Change(at, [], wrong, path)
        if meta.max_length is not None:
            (values, *_) = (get_args(part) for part in shapes.members(get_args(member)[0]))
            yield _Change(at, [values[0]] * (meta.max_length + 1), wrong, path)


def _members(kind: Any, meta: msgspec.Meta | None = None) -> list[tuple[Any, msgspec.Meta | None]]:
    """The alternatives, each with its own bounds."""
    if get_origin(kind) is Annotated:
        inner, found = get_args(kind)
        return _members(inner, found)
    if get_origin(kind) in (Union, type(int | str)):
        return [pair for part in get_args(kind) if part is not msgspec.UnsetType for pair in _members(part, meta)]
    return [(kind, meta)]


def _json_types(member: Any) -> tuple[str, ...]:
    if member is Any:
        return ("any",)
    if member in (str, bytes):
        return ("str",)
    if member is float:
        return ("float", "int")
    if member is type(None):
        return ("null",)
    if member in (int, bool):
        return (member.__name__,)
    if get_origin(member) is Literal:
        return tuple({_json_type(value) for value in get_args(member)})
    if get_origin(member) in (tuple, list):
        return ("list",)
    return ("dict",)


def _json_type(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def all_bounds(struct: type[msgspec.Struct]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The fields of a struct, and of all structs in it, that are bounded, and how; a map's keys and values count."""
    for name, field in shapes.fields(struct).items():
        if found := tuple(sorted(_bounds(field.type))):
            yield name, found
        element = shapes.element(field.type)
        for inner in (*shapes.structs(field.type), *(() if element is None else shapes.structs(element))):
            yield from all_bounds(inner)


def _bounds(kind: Any) -> Iterator[str]:
    for member, meta in _members(kind):
        if get_origin(member) is dict:
            yield from (bound for part in get_args(member) for bound in _bounds(part))
        if meta is None:
            continue
        if meta.pattern is not None:
            yield meta.pattern
        if meta.min_length is not None or meta.max_length is not None:
            yield f"{meta.min_length or 0}..{'' if meta.max_length is None else meta.max_length}"
        if meta.ge is not None or meta.le is not None:
            yield f"{meta.ge} <= x" + ("" if meta.le is None else f" <= {meta.le}")
