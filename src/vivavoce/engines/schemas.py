"""JSON Schemas of functions, made fit for decoding by a grammar.

A grammar keeps a model to a schema, but not from going on for ever inside it. So everything that a schema leaves open
gets an end here: more properties than are named, texts, lists and whole numbers without a bound. What passes the
result passes the schema. Invariant: the schema given is not changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vivavoce.errors import EngineError
from vivavoce.protocol.base import given
from vivavoce.protocol.config import FunctionTool

__all__ = ["arguments_schema", "closed_schema"]

STRING_CHARS_MAX = 256
"""Of a string without a `maxLength`: names, places, a sentence."""
ARRAY_ITEMS_MAX = 16
"""Of an array without a `maxItems`."""
INTEGER_MAX = 2**53 - 1
"""Of an integer without bounds: what every JSON reader holds exactly."""
NESTING_MAX = 32

Schema = dict[str, Any]

_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
_LISTED = ("anyOf", "oneOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")
_JOINING = frozenset({"allOf", "anyOf", "oneOf", "$ref"})
"""Beside these an object names not all of its properties itself."""
_OTHERWISE_BOUND = ("maxLength", "enum", "const", "format", "pattern")


def arguments_schema(tool: FunctionTool, *, is_bounded: bool = True) -> Schema:
    """What the function's arguments have to be, with an end to everything.

    Not `is_bounded`: only objects are closed, and texts, lists and numbers are left to a model that knows when to end.
    Raises `EngineError` with code `invalid_tool_schema` where nothing could be kept to: an unknown type, or a reference
    that leads nowhere in the schema.
    """
    schema = given(tool.parameters, None) or {}
    if not schema.keys() & {"type", "$ref", "anyOf", "oneOf", "allOf"}:
        schema = {"type": "object", **schema}
    return closed_schema(schema, f"the parameters of function {tool.name!r}", is_bounded=is_bounded)


def closed_schema(schema: Schema, what: str, *, is_bounded: bool = True) -> Schema:
    """The schema with an end to everything; `what` is what a complaint calls it."""
    result: Schema = _Walk(schema, what, is_bounded).closed(schema, "#", 0)
    return result


class _Walk:
    """One way through a schema; complaints name the place."""

    def __init__(self, root: Schema, what: str, is_bounded: bool) -> None:
        self._root = root
        self._what = what
        self._is_bounded = is_bounded

    def closed(self, schema: Any, where: str, depth: int, *, is_part: bool = False) -> Any:
        """A schema with its parts. Parts of an `allOf` stay open: what one does not name, another may."""
        if not isinstance(schema, Mapping):
            if isinstance(schema, bool):
                return schema
            raise self._invalid(where, "expected an object or a boolean")
        if depth > NESTING_MAX:
            raise self._invalid(where, f"nested more than {NESTING_MAX} deep")
        self._check(schema, where)
        result = dict(schema)
        for key in _NAMED:
            if isinstance(parts := schema.get(key), Mapping):
                result[key] = {
                    name: self.closed(part, f"{where}/{key}/{name}", depth + 1) for name, part in parts.items()
                }
        for key in (*_LISTED, "allOf"):
            if isinstance(parts := schema.get(key), list | tuple):
                result[key] = [
                    self.closed(part, f"{where}/{key}/{at}", depth + 1, is_part=key == "allOf")
                    for at, part in enumerate(parts)
                ]
        for key in _SINGLE:
            if key in schema:
                result[key] = self.closed(schema[key], f"{where}/{key}", depth + 1)
        if not is_part:
            _close(result)
        if self._is_bounded:
            _bound(result)
        return result

    def _check(self, schema: Mapping[str, Any], where: str) -> None:
        for kind in _kinds(schema):
            if kind not in _TYPES:
                raise self._invalid(where, f"type {kind!r} is none of {', '.join(sorted(_TYPES))}")
        reference = schema.get("$ref")
        if reference is not None and not self._leads_somewhere(reference):
            raise self._invalid(where, f"$ref {reference!r} leads nowhere in this schema")

    def _leads_somewhere(self, reference: object) -> bool:
        if not isinstance(reference, str) or not reference.startswith("#"):
            return False
        place: Any = self._root
        for step in reference[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(place, Mapping) or name not in place:
                return False
            place = place[name]
        return True

    def _invalid(self, where: str, why: str) -> EngineError:
        return EngineError(
            f"{self._what} are no JSON Schema that can be kept to: {where}: {why}", code="invalid_tool_schema"
        )


def _kinds(schema: Mapping[str, Any]) -> tuple[object, ...]:
    kind = schema.get("type")
    return () if kind is None else tuple(kind) if isinstance(kind, list | tuple) else (kind,)


def _close(schema: Schema) -> None:
    """No properties but those that are named."""
    if ("object" in _kinds(schema) or "properties" in schema) and not schema.keys() & _JOINING:
        schema.setdefault("additionalProperties", False)


def _bound(schema: Schema) -> None:
    """Set the ends that the schema leaves open."""
    kinds = _kinds(schema)
    if "string" in kinds and not any(key in schema for key in _OTHERWISE_BOUND):
        schema["maxLength"] = max(STRING_CHARS_MAX, int(_number(schema.get("minLength"))))
    if "array" in kinds:
        schema.setdefault("maxItems", max(ARRAY_ITEMS_MAX, int(_number(schema.get("minItems")))))
    if "integer" in kinds and "enum" not in schema and "const" not in schema:
        if "maximum" not in schema and "exclusiveMaximum" not in schema:
            schema["maximum"] = max(INTEGER_MAX, _number(schema.get("minimum")))
        if "minimum" not in schema and "exclusiveMinimum" not in schema:
            schema["minimum"] = min(-INTEGER_MAX, _number(schema.get("maximum")))


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0
