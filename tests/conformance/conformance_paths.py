"""The dotted paths of the fields of an event: all that there are, by the schema, and those that one event has.

A schema is one of our structs (what clients send) or one of the public client's models (what servers say). Where a
place may hold one of several kinds, the kind stands in braces: `item{message/user}.content[].text`. Resources that
many events carry are told once: a path within a server's event begins anew at its session, its response and its items.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec
import pydantic
from protocol_oracle import models

from vivavoce.protocol import shapes

Struct = type[msgspec.Struct]
Model = type[pydantic.BaseModel]
Schema = Struct | Model
Json = dict[str, Any]

RESOURCES = {"item": "item", "output": "item", "session": "session", "response": "response"}
"""Fields of server events, and of a response, whose paths begin anew, and with what word."""
_KIND = re.compile(r"\{[^}]*\}")
_INDEX = re.compile(r"\[\d+\]")


def without_kinds(path: str) -> str:
    """The path as an error names it, its indices aside."""
    return _KIND.sub("", path)


def without_indices(param: str) -> str:
    """The place that an error names, for any index."""
    return _INDEX.sub("[]", param)


# --- what a schema has ------------------------------------------------------------------------------------------------


class Field(NamedTuple):
    """A field: its type, and the schemas that may stand in it, itself and as the elements of an array."""

    kind: Any
    inside: tuple[Schema, ...] = ()
    elements: tuple[Schema, ...] = ()

    def parts(self, path: str) -> Iterator[tuple[str, Schema]]:
        """Each schema that may stand here, with its place."""
        for schema in self.inside:
            yield path + label(schema, self.inside), schema
        for schema in self.elements:
            yield f"{path}[]{label(schema, self.elements)}", schema


@cache
def children(schema: Schema) -> dict[str, Field]:
    """Each field of a schema by its name on the wire."""
    if not issubclass(schema, msgspec.Struct):
        return {
            field.alias or name: Field(field.annotation, _models(field.annotation), _models(field.annotation, True))
            for name, field in schema.model_fields.items()
        }
    found = {
        name: Field(info.type, _known(info.type), _known(shapes.element(info.type)))
        for name, info in shapes.fields(schema).items()
        if not name.startswith(shapes.INTERNAL_TAG_PREFIX)
    }
    if (kind := shapes.tag(schema)) is not None:
        found["type"] = Field(Literal[kind])
    return found


def _known(kind: Any) -> tuple[Schema, ...]:
    found = () if kind is None else shapes.structs(kind)
    return tuple(one for one in found if not (shapes.tag(one) or "").startswith(shapes.INTERNAL_TAG_PREFIX))


def _models(annotation: Any, in_list: bool = False) -> tuple[Schema, ...]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _models(get_args(annotation)[0], in_list)
    if origin in (Union, UnionType):
        return tuple(model for part in get_args(annotation) for model in _models(part, in_list))
    if origin is list:
        return _models(get_args(annotation)[0]) if in_list else ()
    return () if in_list else tuple(models(annotation))


@cache
def marks(schema: Schema) -> dict[str, Any]:
    """The fields that can have one value alone, which tells this schema from others."""
    kinds = {name: field.kind for name, field in children(schema).items()}
    single = {name: get_args(kinds.get(name)) for name in ("type", "role") if get_origin(kinds.get(name)) is Literal}
    return {name: values[0] for name, values in single.items() if len(values) == 1}


def label(schema: Schema, among: tuple[Schema, ...]) -> str:
    """`{message/user}` for one of several kinds; nothing where there is one, or where no value tells it."""
    own = marks(schema)
    return "{" + "/".join(str(value) for value in own.values()) + "}" if len(among) > 1 and own else ""


def all_paths(schema: Schema, at: str = "", *, anew: bool = False) -> Iterator[str]:
    """Every field of a schema, and of what is in it. `anew` says whether resources are told once."""
    for name, field in children(schema).items():
        yield (path := f"{at}.{name}".removeprefix("."))
        for place, part in field.parts(path):
            yield from all_paths(part, _start(name, path, place) if anew else place, anew=anew)


def _start(name: str, path: str, place: str) -> str:
    """Where the paths of a part begin: at the resource that it is, else at its place."""
    if name not in RESOURCES or (name == "output" and "[]" not in place):
        return place
    return RESOURCES[name] + place.removeprefix(path).removeprefix("[]")


# --- what an event has ------------------------------------------------------------------------------------------------


def paths(schema: Schema, fields: Json, at: str = "", *, anew: bool = False) -> Iterator[str]:
    """The fields that this event has, by the schema; inside what the schema does not know it does not look."""
    known = children(schema)
    for name, value in fields.items():
        yield (path := f"{at}.{name}".removeprefix("."))
        if name not in known:
            continue
        field = known[name]
        entries, is_list = (value, True) if isinstance(value, list) else ([value], False)
        possible = field._replace(inside=()) if is_list else field._replace(elements=())
        for entry in entries:
            if isinstance(entry, dict) and (fitting := _fitting(list(possible.parts(path)), entry)) is not None:
                place, part = fitting
                yield from paths(part, entry, _start(name, path, place) if anew else place, anew=anew)


def _fitting(parts: list[tuple[str, Schema]], entry: Json) -> tuple[str, Schema] | None:
    """The schema for an object among those that may stand there: of its kind, and with the most of its fields."""
    fitting = [one for one in parts if all(entry.get(name, value) == value for name, value in marks(one[1]).items())]
    return max(fitting, key=lambda one: len(children(one[1]).keys() & entry.keys()), default=None)
