"""JSON Schemas of Python types, in the form that every Realtime service takes for the parameters of a function.

msgspec makes them, pydantic those of its models; here the parts are joined into one object and made plain: services
refuse lists that do not say what is in them, and many cannot follow a `$ref`. Invariant: a `$ref` is left only where a
type contains itself, and then leads into the `$defs` of the same object.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from dataclasses import is_dataclass
from datetime import datetime
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec
from msgspec import Meta

from .docstrings import read_docstring

PARTS_MAX: Final = 10_000
"""Schemas inside one schema, once references are replaced. A type that needs more is refused."""

Schema = dict[str, Any]

_PREFIX: Final = "#/$defs/"
_NAMED = ("properties", "patternProperties")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "propertyNames", "not")
_CONSTRAINTS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")
_LEFT_OUT = frozenset({"title", "discriminator"})
"""What tells a model nothing that it does not read elsewhere; a discriminator also refers to what may be gone."""


class Definitions:
    """The named schemas behind one tool, gathered while its types are described."""

    def __init__(self) -> None:
        self._schemas: dict[str, Schema] = {}
        self._foreign = 0
        self._parts = 0

    def add(self, kind: Any) -> Schema:
        """The schema of a type, with references into what is gathered here. Raises msgspec's `TypeError`."""
        (schema,), named = msgspec.json.schema_components(
            [kind], schema_hook=self._of_pydantic, ref_template=_PREFIX + "{name}"
        )
        for inner in _classes(kind):
            if inner.__name__ in named:
                self._tell_fields(named[inner.__name__], inner)
        self._schemas.update((name, _documented(part)) for name, part in named.items())
        return self.deref(schema)

    def deref(self, schema: Schema) -> Schema:
        """The schema that a bare reference stands for."""
        return self._schemas[_target(schema)] if "$ref" in schema else schema

    def parameters(self, root: Schema) -> Schema:
        """The parameters object of a function. Raises `ValueError` where it would be too large."""
        recursive = {name for name in self._schemas if name in self._within(name)}
        result: Schema = {"required": [], "properties": {}, **self._plain(root, recursive)}
        kept = [name for name in recursive if name in self._reached(result)]
        if kept:
            result["$defs"] = {name: self._plain(self._schemas[name], recursive) for name in sorted(kept)}
        result.pop("description", None)
        return {"type": "object", **result}

    def _tell_fields(self, schema: Schema, kind: type) -> None:
        """Say of the fields of a class what `for_msgspec` adds to their types."""
        for name, hint in _fields(kind).items():
            if name in schema.get("properties", {}) and (said := for_msgspec(hint)) != hint:
                (part,), _ = msgspec.json.schema_components(
                    [said], schema_hook=self._of_pydantic, ref_template=_PREFIX + "{name}"
                )
                schema["properties"][name].update(part)

    def _of_pydantic(self, kind: Any) -> Schema:
        """For msgspec: the schema of a pydantic model, whose definitions come to ours under names of their own."""
        if not (hasattr(kind, "model_json_schema") and hasattr(kind, "model_validate_json")):
            raise NotImplementedError
        self._foreign += 1
        suffix = f"_{self._foreign}"
        schema: Schema = kind.model_json_schema(ref_template=f"{_PREFIX}{{model}}{suffix}")
        for name, part in schema.pop("$defs", {}).items():
            self._schemas[name + suffix] = _documented(part)
        return _documented(self.deref(schema))

    def _reached(self, schema: Schema) -> set[str]:
        """The definitions that a schema refers to, directly or through others."""
        reached: set[str] = set()
        waiting = list(_references(schema))
        while waiting:
            name = waiting.pop()
            if name not in reached:
                reached.add(name)
                waiting += _references(self._schemas[name])
        return reached

    def _within(self, name: str) -> set[str]:
        return self._reached(self._schemas[name])

    def _plain(self, schema: Any, recursive: set[str]) -> Any:
        if not isinstance(schema, dict):
            return schema
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise ValueError(f"its parameters are too large to be described: more than {PARTS_MAX} parts")
        if "$ref" in schema:
            name = _target(schema)
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            if name in recursive:
                return {"$ref": _PREFIX + name, **beside}
            return self._plain({**self._schemas[name], **beside}, recursive)
        plain = {key: value for key, value in schema.items() if key not in _LEFT_OUT}
        for key in _NAMED:
            if key in plain:
                plain[key] = {name: self._plain(part, recursive) for name, part in plain[key].items()}
        for key in _LISTED:
            if key in plain:
                plain[key] = [self._plain(part, recursive) for part in plain[key]]
        for key in _SINGLE:
            if key in plain:
                plain[key] = self._plain(plain[key], recursive)
        return _closed(plain)


def _target(schema: Schema) -> str:
    return str(schema["$ref"]).removeprefix(_PREFIX)


def _references(schema: Any) -> Iterator[str]:
    """The names of the definitions that a schema refers to itself."""
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        yield _target(schema)
    parts = [schema[key] for key in _SINGLE if key in schema]
    parts += [part for key in _NAMED for part in schema.get(key, {}).values()]
    parts += [part for key in _LISTED for part in schema.get(key, ())]
    for part in parts:
        yield from _references(part)


def _documented(schema: Schema) -> Schema:
    """What the docstring of a class says of its fields, told with the fields."""
    doc = read_docstring(schema.get("description"))
    if not doc.parameters:
        return schema
    properties = {
        name: {"description": doc.parameters[name], **part} if name in doc.parameters else part
        for name, part in schema.get("properties", {}).items()
    }
    return {**schema, "description": doc.summary, "properties": properties}


def _closed(schema: Schema) -> Schema:
    """No fields but those that are named, and lists that say what is in them, position or not."""
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
    if schema.get("type") != "array":
        return schema
    positions = schema.pop("prefixItems", None)
    if positions:
        kinds = [kind for at, kind in enumerate(positions) if kind not in positions[:at]]
        schema["items"] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        if len(kinds) > 1:
            order = ", ".join(str(kind.get("type", "any")) for kind in positions)
            schema["description"] = f"{schema.get('description', '')} In this order: {order}.".strip()
    elif not isinstance(schema.get("items"), dict):
        schema["items"] = {}
    return schema


# --- types that msgspec describes with less than they say -------------------------------------------------------------


def for_msgspec(kind: Any) -> Any:
    """The type with what msgspec does not know said in its way: descriptions, and the format of points in time."""
    origin = get_origin(kind)
    if kind is datetime:
        return Annotated[datetime, Meta(extra_json_schema={"format": "date-time"})]
    if kind is object:
        return Any
    if origin is Annotated:
        metas = [_meta(extra) for extra in kind.__metadata__]
        base = for_msgspec(kind.__origin__)
        return functools.reduce(lambda typed, meta: Annotated[typed, meta], (meta for meta in metas if meta), base)
    if origin in (Required, NotRequired):
        return for_msgspec(get_args(kind)[0])
    if origin is None or origin is Literal or not get_args(kind):
        return kind
    parts = tuple(for_msgspec(part) for part in get_args(kind))
    if origin is Union or origin is types.UnionType:
        return Union[parts]  # noqa: UP007
    return kind.copy_with(parts) if hasattr(kind, "copy_with") else origin[parts]


def _meta(extra: object) -> Meta | None:
    """What stands in an `Annotated`, as msgspec's `Meta`: text, and what has a description or constraints.

    So are pydantic's `Field`, the `Doc` of typing, and everything of annotated_types, none of which need be there.
    """
    if isinstance(extra, Meta):
        return extra
    said: dict[str, Any] = {"description": getattr(extra, "description", getattr(extra, "documentation", None))}
    if isinstance(extra, str):
        said = {"description": extra}
    elif not isinstance(extra, type):
        inner = getattr(extra, "metadata", ())
        for part in (extra, *(inner if isinstance(inner, list | tuple) else ())):
            said.update((name, getattr(part, name)) for name in _CONSTRAINTS if getattr(part, name, None) is not None)
    told = {name: value for name, value in said.items() if isinstance(value, str | int | float) and value != ""}
    return Meta(**told) if told else None  # type: ignore[call-overload]  # which go together, msgspec says


def _classes(kind: Any) -> set[type]:
    """The classes with annotated fields that a type is made of, and those that these are made of."""
    found: set[type] = set()
    waiting = [kind]
    while waiting:
        part = waiting.pop()
        waiting += get_args(part)
        if isinstance(part, type) and part not in found and _fields(part):
            found.add(part)
            waiting += _fields(part).values()
    return found


def _fields(kind: type) -> dict[str, Any]:
    """The annotations of a class by the names of its fields in JSON; of what is no such class, nothing."""
    is_attrs = hasattr(kind, "__attrs_attrs__")
    if not (is_dataclass(kind) or is_typeddict(kind) or is_attrs or issubclass(kind, msgspec.Struct)):
        return {}
    written = dict(
        zip(getattr(kind, "__struct_fields__", ()), getattr(kind, "__struct_encode_fields__", ()), strict=True)
    )
    return {written.get(name, name): hint for name, hint in get_type_hints(kind, include_extras=True).items()}
