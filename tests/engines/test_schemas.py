"""Schemas of functions as a grammar needs them: everything has an end, and what cannot be kept to is told."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from vivavoce.engines.schemas import ARRAY_ITEMS_MAX, INTEGER_MAX, STRING_CHARS_MAX, arguments_schema, closed_schema
from vivavoce.errors import EngineError
from vivavoce.protocol.config import FunctionTool


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    before = copy.deepcopy(schema)
    result = closed_schema(schema, "these")
    assert schema == before
    return result


def test_what_is_open_gets_an_end() -> None:
    assert closed({"type": "string"}) == {"type": "string", "maxLength": STRING_CHARS_MAX}
    assert closed({"type": "string", "minLength": 999})["maxLength"] == 999
    assert closed({"type": ["array", "null"], "minItems": 40})["maxItems"] == 40
    assert closed({"type": "array"})["maxItems"] == ARRAY_ITEMS_MAX
    assert closed({"type": "integer"}) == {"type": "integer", "minimum": -INTEGER_MAX, "maximum": INTEGER_MAX}
    assert closed({"type": "object"}) == {"type": "object", "additionalProperties": False}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 5_000},
        {"type": "string", "format": "date"},
        {"type": "string", "pattern": "^a$"},
        {"type": "string", "enum": ["a"]},
        {"type": "array", "maxItems": 90},
        {"type": "integer", "minimum": 0, "exclusiveMaximum": 9},
        {"type": "integer", "enum": [1, 2]},
        {"type": "object", "additionalProperties": True},
        {"type": "number"},
        {"enum": [1, "a", None]},
        {"allOf": [{"type": "object", "properties": {"a": {"const": 1}}}, {"type": "object"}]},
        {"type": "object", "anyOf": [True, False]},
    ],
)
def test_what_has_an_end_or_must_stay_open_is_left_alone(schema: dict[str, Any]) -> None:
    assert closed(schema) == schema


def test_every_part_is_reached() -> None:
    text = {"type": "string"}
    ended = {"type": "string", "maxLength": STRING_CHARS_MAX}
    for wrapped in (
        lambda part: {"properties": {"a": part}, "additionalProperties": False},
        lambda part: {"type": "object", "additionalProperties": part},
        lambda part: {"type": "array", "maxItems": 2, "items": part},
        lambda part: {"anyOf": [{"type": "null"}, part]},
        lambda part: {"oneOf": [part]},
        lambda part: {"allOf": [part]},
        lambda part: {"prefixItems": [part]},
        lambda part: {"$ref": "#/$defs/A~1B", "$defs": {"A/B": part}},
    ):
        assert closed(wrapped(text)) == wrapped(ended)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"properties": {"a": {"type": "strin"}}}, "#/properties/a: type 'strin' is none of array"),
        ({"items": {"$ref": "#/$defs/A"}}, "#/items: \\$ref '#/\\$defs/A' leads nowhere"),
        ({"$ref": "https://example.invalid/schema"}, "leads nowhere in this schema"),
        ({"$ref": 1}, "leads nowhere in this schema"),
        ({"anyOf": [1]}, "#/anyOf/0: expected an object"),
    ],
)
def test_what_cannot_be_kept_to_is_told(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(EngineError, match=said) as caught:
        closed(schema)
    assert caught.value.code == "invalid_tool_schema"


def test_a_model_that_knows_when_to_end_is_left_to_it() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "array"}}}
    tool = FunctionTool(name="f", parameters=parameters)
    assert arguments_schema(tool, is_bounded=False) == parameters | {"additionalProperties": False}


def test_nesting_has_a_limit() -> None:
    schema: dict[str, Any] = {}
    for _ in range(200):
        schema = {"type": "array", "items": schema}
    with pytest.raises(EngineError, match="deep"):
        closed(schema)


def test_arguments_are_an_object_and_complaints_name_the_function() -> None:
    nothing = {"type": "object", "additionalProperties": False}
    assert arguments_schema(FunctionTool(name="f")) == nothing
    assert arguments_schema(FunctionTool(name="f", parameters=None)) == nothing
    assert arguments_schema(FunctionTool(name="f", parameters={"properties": {}})) == nothing | {"properties": {}}
    with pytest.raises(EngineError, match="the parameters of function 'f'"):
        arguments_schema(FunctionTool(name="f", parameters={"type": "thing"}))
