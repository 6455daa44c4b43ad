"""What a type annotation of a message allows: its members, its elements, its fields, its literal values.

The message structs are the schema, and this reads them: `violations` to name the values that would have been right,
`fitting` to take apart what a newer peer sent. Off the hot path; everything is computed once per type.
"""

from __future__ import annotations

from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

INTERNAL_TAG_PREFIX = "vivavoce."  # tags of structs that stand for what is not known; never on the wire


def members(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union, without constraints and without *absent*; a plain type is its own only member."""
    origin = get_origin(kind)
    if origin is Annotated:
        return members(get_args(kind)[0])
    if origin in (Union, UnionType):
        return tuple(part for member in get_args(kind) for part in members(member) if part is not msgspec.UnsetType)
    return (kind,)


def structs(kind: Any) -> tuple[type[msgspec.Struct], ...]:
    """The struct alternatives."""
    return tuple(part for part in members(kind) if isinstance(part, type) and issubclass(part, msgspec.Struct))


def element(kind: Any) -> Any | None:
    """The type of the elements if one of the alternatives is an array, else None."""
    for part in members(kind):
        if get_origin(part) in (tuple, list):
            return get_args(part)[0]
    return None


@lru_cache(maxsize=1024)
def fields(struct: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields of a struct by their name on the wire."""
    return {field.encode_name: field for field in msgspec.structs.fields(struct)}


def tag(struct: type[msgspec.Struct]) -> str | None:
    """The value of `type` that stands for this struct, None where it has no tag."""
    found = struct.__struct_config__.tag
    return None if found is None else str(found)


def inside(kinds: tuple[Any, ...], step: str | int) -> tuple[Any, ...]:
    """The types found one step (a field name or an index) further in."""
    if isinstance(step, int):
        return tuple(found for kind in kinds if (found := element(kind)) is not None)
    return tuple(fields(struct)[step].type for kind in kinds for struct in structs(kind) if step in fields(struct))


def allowed_values(kinds: tuple[Any, ...], path: tuple[str | int, ...]) -> tuple[str, ...]:
    """The strings that may stand at `path`, in the order of the schema; empty where any string may."""
    for step in path[:-1]:
        kinds = inside(kinds, step)
    if path[-1] == "type":
        tags = tuple(name for kind in kinds for struct in structs(kind) if (name := tag(struct)) is not None)
        if tags:
            return tuple(dict.fromkeys(name for name in tags if not name.startswith(INTERNAL_TAG_PREFIX)))
    literals = [part for kind in inside(kinds, path[-1]) for part in members(kind) if get_origin(part) is Literal]
    return tuple(dict.fromkeys(value for literal in literals for value in get_args(literal)))
