from __future__ import annotations

import contextlib
import enum
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
)
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce import LocalProtocolError
from vivavoce.client.docstrings import read_docstring
from vivavoce.client.signatures import ArgumentsError, ToolContext, follow, read
from vivavoce.engines.schemas import arguments_schema
from vivavoce.protocol.config import FunctionTool

if TYPE_CHECKING:
    from somewhere_else import Elsewhere

Metres = NewType("Metres", int)


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


@dataclass
class Place:
    """A place on the map.

    Attributes:
        city: Its name.
        tags: What it is known for.
    """

    city: str
    tags: list[str] = field(default_factory=list)
    height: Annotated[int | None, "Metres above the sea."] = None


class Opening(TypedDict):
    day: Literal["mon", "tue"]
    hour: int


class Point(NamedTuple):
    x: float
    label: str = ""


class Box(msgspec.Struct, rename="camel"):
    side_cm: Annotated[int, msgspec.Meta(ge=1)]
    place: Place | None = None


class Tree(msgspec.Struct):
    value: int
    left: Tree | None = None
    right: Tree | None = None


class Address(pydantic.BaseModel):
    """Where to."""

    street: str = pydantic.Field(description="With the number.")
    zip_code: str = pydantic.Field(alias="zip", pattern="^[0-9]+$")


class Guest(pydantic.BaseModel):
    name: str
    address: Address | None = None
    friends: list[Guest] = []


class Strictly(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    day: date
    unit: Unit


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square"):
    side: float


def check_for_services(schema: Any, root: dict[str, Any]) -> None:
    """What services are known to refuse in the parameters of a function."""
    assert not schema.keys() & {"title", "prefixItems", "discriminator"}
    if "$ref" in schema:
        assert schema["$ref"].removeprefix("#/$defs/") in root["$defs"]
    if schema.get("type") == "array":
        assert isinstance(schema["items"], dict)
    if "properties" in schema:
        assert "additionalProperties" in schema
    parts = [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]
    parts += [part for key in ("properties", "$defs") for part in schema.get(key, {}).values()]
    parts += [part for key in ("anyOf", "oneOf") for part in schema.get(key, ())]
    for part in parts:
        check_for_services(part, root)


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """The schema, after what every schema has been checked for."""
    signature = read(function, "f")
    schema = signature.parameters
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) <= set(schema["properties"])
    check_for_services(schema, schema)
    assert json.loads(json.dumps(schema)) == schema
    arguments_schema(FunctionTool(name="f", parameters=schema))  # raises for what no model can be kept to
    return schema


def taking(annotation: Any, *default: Any) -> Callable[..., Any]:
    """A function with parameters `x`, of this type, and `other`, so that `x` is not the whole."""

    def function(x: Any = default[0] if default else None, other: int = 0) -> None: ...

    if not default:
        function.__defaults__ = (0,)
    function.__annotations__["x"] = annotation
    return function


# --- types ------------------------------------------------------------------------------------------------------------

PLACE = {
    "type": "object",
    "description": "A place on the map.",
    "properties": {
        "city": {"type": "string", "description": "Its name."},
        "tags": {"type": "array", "items": {"type": "string"}, "description": "What it is known for."},
        "height": {
            "anyOf": [{"type": "integer"}, {"type": "null"}],
            "description": "Metres above the sea.",
            "default": None,
        },
    },
    "required": ["city"],
    "additionalProperties": False,
}
NOW = "2026-11-21T10:00:00+00:00"

TYPES: list[tuple[Any, dict[str, Any], str, Any]] = [
    (str, {"type": "string"}, '"a"', "a"),
    (int, {"type": "integer"}, "3", 3),
    (float, {"type": "number"}, "3", 3.0),
    (bool, {"type": "boolean"}, "true", True),
    (None, {"type": "null"}, "null", None),
    (Any, {}, '{"a": [1]}', {"a": [1]}),
    (object, {}, "[1]", [1]),
    (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "null", None),
    (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "1", 1),  # noqa: UP045
    (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}, '"5"', "5"),
    (Literal["a", "b"], {"enum": ["a", "b"]}, '"b"', "b"),
    (Unit, {"enum": ["c", "f"]}, '"f"', Unit.FAHRENHEIT),
    (list[int], {"type": "array", "items": {"type": "integer"}}, "[1, 2]", [1, 2]),
    (list, {"type": "array", "items": {}}, "[1]", [1]),
    (Sequence[str], {"type": "array", "items": {"type": "string"}}, '["a"]', ["a"]),
    (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "[1, 1]", {1}),
    (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}, '{"a": 1}', {"a": 1}),
    (Mapping[str, Any], {"type": "object"}, '{"a": 1}', {"a": 1}),
    (
        tuple[int, str],
        {
            "type": "array",
            "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "minItems": 2,
            "maxItems": 2,
            "description": "In this order: integer, string.",
        },
        '[1, "a"]',
        (1, "a"),
    ),
    (
        tuple[float, float],
        {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
        "[1, 2]",
        (1, 2),
    ),
    (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}, "[1]", (1,)),
    (datetime, {"type": "string", "format": "date-time"}, f'"{NOW}"', datetime.fromisoformat(NOW)),
    (
        datetime | None,
        {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
        f'"{NOW}"',
        datetime.fromisoformat(NOW),
    ),
    (date, {"type": "string", "format": "date"}, '"2026-11-21"', date(2026, 11, 21)),
    (UUID, {"type": "string", "format": "uuid"}, f'"{UUID(int=1)}"', UUID(int=1)),
    (Decimal, {"type": "string", "format": "decimal"}, '"1.10"', Decimal("1.10")),
    (bytes, {"type": "string", "contentEncoding": "base64"}, '"aGk="', b"hi"),
    (Metres, {"type": "integer"}, "4", 4),
    (Annotated[int, "How many."], {"type": "integer", "description": "How many."}, "4", 4),
    (Annotated[int, pydantic.Field(description="So many.")], {"type": "integer", "description": "So many."}, "4", 4),
    (pydantic.PositiveInt, {"type": "integer", "exclusiveMinimum": 0}, "4", 4),
    (
        Annotated[str, pydantic.Field(description="Code.", max_length=3, pattern="^[A-Z]+$")],
        {"type": "string", "description": "Code.", "maxLength": 3, "pattern": "^[A-Z]+$"},
        '"OSL"',
        "OSL",
    ),
    (Annotated[int, msgspec.Meta(ge=1)], {"type": "integer", "minimum": 1}, "4", 4),
    (
        list[Annotated[str, "A name."]],
        {"type": "array", "items": {"type": "string", "description": "A name."}},
        "[]",
        [],
    ),
    (Place, PLACE, '{"city": "Oslo"}', Place("Oslo")),
    (list[Place], {"type": "array", "items": PLACE}, '[{"city": "Oslo"}]', [Place("Oslo")]),
    (Annotated[Place, "Whence."], {**PLACE, "description": "Whence."}, '{"city": "Oslo"}', Place("Oslo")),
    (
        Opening,
        {
            "type": "object",
            "properties": {"day": {"enum": ["mon", "tue"]}, "hour": {"type": "integer"}},
            "required": ["day", "hour"],
            "additionalProperties": False,
        },
        '{"day": "mon", "hour": 9}',
        {"day": "mon", "hour": 9},
    ),
    (
        Point,
        {
            "type": "array",
            "items": {"anyOf": [{"type": "number"}, {"type": "string", "default": ""}]},
            "minItems": 1,
            "maxItems": 2,
            "description": "In this order: number, string.",
        },
        "[2.5]",
        Point(2.5),
    ),
    (
        Box,
        {
            "type": "object",
            "properties": {
                "sideCm": {"type": "integer", "minimum": 1},
                "place": {"anyOf": [PLACE, {"type": "null"}], "default": None},
            },
            "required": ["sideCm"],
            "additionalProperties": False,
        },
        '{"sideCm": 2, "place": {"city": "Oslo"}}',
        Box(2, Place("Oslo")),
    ),
    (
        Address,
        {
            "type": "object",
            "description": "Where to.",
            "properties": {
                "street": {"type": "string", "description": "With the number."},
                "zip": {"type": "string", "pattern": "^[0-9]+$"},
            },
            "required": ["street", "zip"],
            "additionalProperties": False,
        },
        '{"street": "A 1", "zip": "12"}',
        Address(street="A 1", zip="12"),
    ),
]


@pytest.mark.parametrize(("kind", "schema", "text", "value"), TYPES, ids=[str(row[0]) for row in TYPES])
def test_a_type_as_a_schema_and_as_a_value(kind: Any, schema: dict[str, Any], text: str, value: Any) -> None:
    function = taking(kind, "default")
    assert parameters(function)["properties"]["x"] == {**schema, "default": "default"}
    keywords = read(function).bind(f'{{"x": {text}}}', None).keywords
    assert keywords == {"x": value}
    assert type(keywords["x"]) is type(value)


def test_pep_563_and_the_order_and_kinds_of_parameters() -> None:
    def book(place: Place, nights: int, *, unit: Unit = Unit.CELSIUS, note: str | None = None) -> str:
        return ""

    schema = parameters(book)
    assert list(schema["properties"]) == ["place", "nights", "unit", "note"]
    assert schema["required"] == ["place", "nights"]
    assert schema["properties"]["unit"] == {"enum": ["c", "f"], "default": "c"}
    assert "default" not in schema["properties"]["note"]
    bound = read(book).bind('{"nights": 2, "place": {"city": "Oslo"}}', None)
    assert bound.keywords == {"place": Place("Oslo"), "nights": 2}
    assert bound.arguments == {"nights": 2, "place": {"city": "Oslo"}}


class Flight(TypedDict, total=False):
    leaves: Required[Annotated[datetime, "Local time."]]
    seats: NotRequired[Annotated[int, "How many."]]


@dataclass
class Trip:
    back: datetime | None
    flights: list[Flight]
    where: list[Annotated[Address, "Where from."]]


def test_fields_of_inner_classes_are_told_as_well_as_parameters() -> None:
    def function(trip: Trip, n: int) -> None: ...

    trip = parameters(function)["properties"]["trip"]["properties"]
    moment = {"type": "string", "format": "date-time"}
    assert trip["back"] == {"anyOf": [moment, {"type": "null"}]}
    assert trip["flights"]["items"]["properties"] == {
        "leaves": {**moment, "description": "Local time."},
        "seats": {"type": "integer", "description": "How many."},
    }
    assert trip["where"]["items"]["description"] == "Where from."
    assert trip["where"]["items"]["required"] == ["street", "zip"]
    assert trip["flights"]["items"]["required"] == ["leaves"]


def test_names_of_the_scope_around_a_function_resolve() -> None:
    @dataclass
    class Local:
        size: int

    def outer() -> Callable[..., Any]:
        class Inner(msgspec.Struct):
            size: int

        def function(a: Local, b: list[Inner]) -> None: ...

        read(function)
        return function

    assert outer().__name__ == "function"

    def closed(a: Local) -> int:
        return Local(1).size + a.size

    assert read(closed).bind('{"size": 3}', None).keywords == {"a": Local(3)}


def test_a_name_that_is_not_yet_there_is_refused() -> None:
    def function(a: Later, b: int) -> object:
        return Later

    with pytest.raises(LocalProtocolError, match="parameter 'a': its annotation 'Later' cannot be resolved"):
        read(function)

    class Later: ...


def make_closed() -> Callable[..., Any]:
    class Gone(msgspec.Struct):
        size: int

    def function(a: Gone, b: int) -> object:
        return Gone

    return function


def test_names_of_a_scope_that_is_gone_resolve_where_the_function_uses_them() -> None:
    assert parameters(make_closed())["properties"]["a"]["required"] == ["size"]


def test_what_contains_itself_keeps_its_references() -> None:
    def function(tree: Tree, guest: Guest, two: tuple[Guest, Tree]) -> None: ...

    schema = parameters(function)
    assert schema["properties"]["tree"] == {"$ref": "#/$defs/Tree"}
    assert {"$ref": "#/$defs/Tree"} in schema["$defs"]["Tree"]["properties"]["left"]["anyOf"]
    bound = read(function).bind(
        '{"tree": {"value": 1, "left": {"value": 2}}, "guest": {"name": "A", "friends": [{"name": "B"}]},'
        ' "two": [{"name": "C"}, {"value": 3}]}',
        None,
    )
    assert bound.keywords["tree"].left.value == 2
    assert bound.keywords["guest"].friends[0].name == "B"
    with pytest.raises(ArgumentsError, match=r"argument 'tree.left.value': Expected int, got list|array"):
        read(function).bind('{"tree": {"value": 1, "left": {"value": [], "right": null}}}', None)


def test_structs_with_tags_may_be_alternatives() -> None:
    def area(shape: Circle | Square) -> float:
        return 0.0

    kinds = parameters(area)["properties"]["shape"]["anyOf"]
    assert [kind["properties"]["type"]["enum"] for kind in kinds] == [["circle"], ["square"]]
    assert read(area).bind('{"shape": {"type": "square", "side": 2}}', None).keywords == {"shape": Square(2.0)}


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Place, '{"city": "Oslo"}', Place("Oslo")),
        (Annotated[Place, "Whence."], '{"city": "Oslo"}', Place("Oslo")),
        (Opening, '{"day": "mon", "hour": 9}', {"day": "mon", "hour": 9}),
        (Box, '{"sideCm": 9}', Box(9)),
        (Tree, '{"value": 1, "right": {"value": 2}}', Tree(1, None, Tree(2))),
        (Address, '{"street": "A", "zip": "1"}', Address(street="A", zip="1")),
        (Guest, '{"name": "A"}', Guest(name="A")),
        (Strictly, '{"day": "2026-01-02", "unit": "f"}', Strictly(day=date(2026, 1, 2), unit=Unit.FAHRENHEIT)),
    ],
)
def test_an_object_as_the_only_parameter_is_the_whole_arguments_object(kind: Any, text: str, value: Any) -> None:
    def function(request: Any, context: object) -> None: ...

    function.__annotations__["request"] = kind
    schema = parameters(function)
    assert "request" not in schema["properties"]
    assert read(function).bind(text, "us").keywords == {"request": value, "context": "us"}
    with pytest.raises(ArgumentsError, match="there is no argument 'extra'"):
        read(function).bind(text[:-1] + ', "extra": 1}', None)


@pytest.mark.parametrize("annotation", [dict[str, int], Point, Place | None, list[Place]])
def test_anything_else_as_the_only_parameter_keeps_its_name(annotation: Any) -> None:
    def function(x: Any) -> None: ...

    function.__annotations__["x"] = annotation
    assert list(parameters(function)["properties"]) == ["x"]


def test_an_object_that_may_be_left_out_keeps_its_name() -> None:
    def function(place: Place = Place("Oslo")) -> None: ...  # noqa: B008

    assert parameters(function)["properties"]["place"]["default"] == {"city": "Oslo", "tags": [], "height": None}
    assert read(function).bind("{}", None).keywords == {}


def test_no_parameters_are_an_empty_object() -> None:
    def function() -> None: ...

    assert parameters(function) == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert read(function).bind("", None).keywords == {}


def test_a_parameter_without_a_type_takes_anything() -> None:
    def function(x, y=3): ...  # type: ignore[no-untyped-def]

    assert parameters(function)["properties"] == {"x": {}, "y": {"default": 3}}


def test_none_as_default_may_also_be_given() -> None:
    def function(x: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    assert read(function).bind('{"x": null}', None).keywords == {"x": None}


def test_a_default_that_is_no_json_is_not_told() -> None:
    missing = object()

    def function(x: int = missing) -> None: ...  # type: ignore[assignment]

    assert parameters(function)["properties"]["x"] == {"type": "integer"}


def test_a_model_as_default_is_told_as_json() -> None:
    def function(a: Address = Address(street="A", zip="1")) -> None: ...  # noqa: B008

    assert parameters(function)["properties"]["a"]["default"] == {"street": "A", "zip_code": "1"}


# --- what a model writes ----------------------------------------------------------------------------------------------


def stay(place: Place, nights: int, unit: Unit = Unit.CELSIUS, counts: dict[str, int] | None = None) -> None: ...


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "the arguments are not valid JSON: Input data was truncated"),
        ("[" * 5_000, "the arguments are not valid JSON: maximum recursion"),
        ("\ud800", "the arguments are not valid JSON: 'utf-8' codec"),
        ("[]", "the arguments have to be one JSON object"),
        ('"x"', "the arguments have to be one JSON object"),
        ("{}", "argument 'place' is missing; its schema is {"),
        ('{"place": {}}', "argument 'place.city' is missing; its schema is {"),
        ('{"place": {"city": "Oslo"}}', 'argument \'nights\' is missing; its schema is {"type":"integer"}'),
        (
            '{"place": {"city": "Oslo"}, "nights": "many"}',
            'argument \'nights\': Expected int, got str; its schema is {"type":"integer"}',
        ),
        (
            '{"place": {"city": "Oslo", "tags": ["a", 1]}}',
            "argument 'place.tags[1]': Expected str, got int; its schema",
        ),
        (
            '{"place": {"city": "Oslo"}, "nights": 1, "unit": "k"}',
            'argument \'unit\': Invalid enum value \'k\'; its schema is {"enum":["c","f"],"default":"c"}',
        ),
        ('{"night": 1}', "there is no argument 'night'; there are: place, nights, unit, counts"),
        (
            '{"place": {"city": "Oslo"}, "nights": 1, "counts": {"a": "b"}}',
            "argument 'counts[...]': Expected int, got str; its schema is",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_named_with_what_was_expected(text: str, complaint: str) -> None:
    with pytest.raises(ArgumentsError) as caught:
        read(stay).bind(text, None)
    assert str(caught.value).startswith(complaint)


def test_a_models_own_complaint_is_told() -> None:
    def function(address: Address, n: int) -> None: ...

    with pytest.raises(ArgumentsError) as caught:
        read(function).bind('{"address": {"street": "A", "zip": "x"}, "n": 1}', None)
    assert str(caught.value).startswith(
        "argument 'address': zip: String should match pattern '^[0-9]+$'; its schema is"
    )
    with pytest.raises(ArgumentsError, match=r"^the arguments: street: Field required; zip: Field required$"):
        read(lambda_of(Address)).bind("{}", None)


def lambda_of(kind: Any) -> Callable[..., Any]:
    def function(x: Any) -> None: ...

    function.__annotations__["x"] = kind
    return function


def test_constraints_are_kept_and_not_only_told() -> None:
    def function(n: pydantic.PositiveInt, m: int = 0) -> None: ...

    with pytest.raises(ArgumentsError, match=r"argument 'n': Expected int >= 1; its schema is .*exclusiveMinimum"):
        read(function).bind('{"n": 0}', None)


def test_a_number_that_can_only_be_meant_so_is_taken() -> None:
    def function(n: int, ok: bool, s: str) -> None: ...

    assert read(function).bind('{"n": "5", "ok": "true", "s": "5"}', None).keywords == {"n": 5, "ok": True, "s": "5"}
    assert read(function).bind('{"n": 5.0, "ok": true, "s": ""}', None).keywords["n"] == 5


def test_arguments_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivavoce.client.signatures.ARGUMENTS_CHARS_MAX", 10)
    with pytest.raises(ArgumentsError, match="longer than 10 characters"):
        read(stay).bind('{"nights": 1}', None)


def test_a_long_schema_is_cut_in_a_complaint() -> None:
    def function(x: Literal["a", "b"], y: Annotated[int, "z" * 1_000]) -> None: ...

    with pytest.raises(ArgumentsError) as caught:
        read(function).bind('{"x": "a", "y": []}', None)
    assert len(str(caught.value)) < 600
    assert str(caught.value).endswith("…")


@dataclass
class Order:
    id: UUID
    on: date
    lines: list[tuple[str, int]]
    price: Decimal
    paid: bool
    unit: Unit
    at: time
    note: str | None = None
    by: dict[str, float] = field(default_factory=dict)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
ORDERS = st.builds(
    Order,
    id=st.uuids(),
    on=st.dates(),
    lines=st.lists(st.tuples(TEXT, INTEGERS), max_size=3),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    paid=st.booleans(),
    unit=st.sampled_from(Unit),
    at=st.times(),
    note=st.none() | TEXT,
    by=st.dictionaries(TEXT, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
)


@given(ORDERS, st.lists(ORDERS, max_size=2), INTEGERS)
def test_what_msgspec_writes_comes_back_as_it_was(order: Order, others: list[Order], n: int) -> None:
    def function(order: Order, n: int, others: list[Order] = []) -> None: ...  # noqa: B006

    text = msgspec.json.encode({"order": order, "n": n, "others": others}).decode()
    assert read(function).bind(text, None).keywords == {"order": order, "n": n, "others": others}


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["place", "city", "nights"]), inner),
    max_leaves=8,
)
STAY = read(stay)


@given(JSON | TEXT, st.booleans())
def test_whatever_a_model_writes_fits_or_is_told(value: Any, is_raw: bool) -> None:
    text = value if is_raw and isinstance(value, str) else msgspec.json.encode(value).decode()
    with contextlib.suppress(ArgumentsError):
        assert isinstance(STAY.bind(text, None).keywords["place"], Place)


# --- what is refused --------------------------------------------------------------------------------------------------


class Plain:
    def method(self, x: int) -> None: ...


def positional(x: int, /) -> None: ...
def many(*xs: int) -> None: ...
def any_name(**xs: int) -> None: ...
def elsewhere(x: Elsewhere) -> None: ...
def nested_elsewhere(n: int, x: list[Elsewhere]) -> None: ...
def nonsense(x: "1 +") -> None: ...  # type: ignore[syntax]  # noqa: F722
def custom(x: Plain) -> None: ...
def inside(x: list[complex]) -> None: ...


def impossible(x: Annotated[str, msgspec.Meta(ge=1)]) -> None: ...
def ambiguous(x: Place | Box) -> None: ...


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (positional, "tool 'positional': parameter 'x' is positional-only, and models give names; remove the `/`"),
        (many, "tool 'many': parameter 'xs' takes any number of arguments; make it a list"),
        (any_name, "tool 'any_name': parameter 'xs' takes arguments of any name"),
        (elsewhere, "tool 'elsewhere': parameter 'x': its annotation 'Elsewhere' cannot be resolved: name 'Elsewhere'"),
        (
            nested_elsewhere,
            "tool 'nested_elsewhere': parameter 'x': its annotation 'list[Elsewhere]' cannot be resolved",
        ),
        (nonsense, "tool 'nonsense': parameter 'x': its annotation"),
        (custom, "tool 'custom': parameter 'x' cannot be described to a model: type <class '"),
        (inside, "tool 'inside': parameter 'x' cannot be described to a model: type <class 'complex'>"),
        (impossible, "tool 'impossible': parameter 'x' cannot be described to a model: Can only set `ge`"),
        (ambiguous, "tool 'ambiguous': parameter 'x' cannot be described to a model: Type unions may not contain more"),
        (Plain.method, "tool 'method': parameter 'self': this is a method without its object"),
        (5, "5 is no function"),
    ],
)
def test_what_cannot_be_told_to_a_model_is_refused_by_name(function: Any, complaint: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        read(function)
    assert str(caught.value).startswith(complaint)


def test_a_schema_that_would_explode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivavoce.client.schemas.PARTS_MAX", 20)

    def function(a: Place, b: Place, c: Place, d: Place) -> None: ...

    with pytest.raises(LocalProtocolError, match="tool 'function': its parameters are too large"):
        read(function)


# --- other things that can be called ----------------------------------------------------------------------------------


class Counter:
    def __call__(self, by: int) -> int:
        """Count."""
        return by

    def count(self, by: Annotated[int, "How far."]) -> int:
        """Count on."""
        return by


def test_methods_partials_and_objects_are_read_too() -> None:
    bound, called = read(Counter().count), read(Counter())
    assert (bound.name, bound.description) == ("count", "Count on.")
    assert list(bound.parameters["properties"]) == ["by"]
    assert (called.name, called.description) == ("__call__", "Count.")
    part = read(functools.partial(stay, Place("Oslo")))
    assert (part.name, list(part.parameters["properties"])) == ("stay", ["nights", "unit", "counts"])

    @functools.wraps(stay)
    def wrapped(*args: Any, **kwargs: Any) -> None: ...

    assert read(wrapped).parameters == read(stay).parameters


# --- the context ------------------------------------------------------------------------------------------------------


def test_the_context_is_ours_and_not_the_models() -> None:
    def function(x: int, context: Elsewhere, deps: ToolContext[Place]) -> None: ...

    assert list(parameters(function)["properties"]) == ["x"]
    assert read(function).bind('{"x": 1}', "ours").keywords == {"x": 1, "context": "ours", "deps": "ours"}
    with pytest.raises(ArgumentsError, match="there is no argument 'context'; there are: x"):
        read(function).bind('{"x": 1, "context": 2}', "ours")


# --- functions that come with a schema --------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "unit": {}}, "required": ["city"]}


def test_a_schema_gives_keywords_as_they_are() -> None:
    signature = follow(lambda city, unit="c": None, "f", SCHEMA)
    assert signature.bind('{"city": 1}', None).keywords == {"city": 1}
    with pytest.raises(ArgumentsError, match="argument 'city' is missing"):
        signature.bind('{"unit": "c"}', None)
    with pytest.raises(ArgumentsError, match="unexpected keyword argument 'country'"):
        signature.bind('{"city": "Oslo", "country": "NO"}', None)


def dict_taking(arguments: dict[str, Any], context: object) -> None: ...
def mapping_taking(args: Mapping[str, Any]) -> None: ...
def untyped_taking(args): ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize("function", [dict_taking, mapping_taking, untyped_taking])
def test_one_parameter_for_all_gets_the_whole_object(function: Any) -> None:
    keywords = follow(function, "f", SCHEMA).bind('{"city": "Oslo", "more": 1}', "ours").keywords
    assert {"city": "Oslo", "more": 1} in keywords.values()
    assert ("context" in keywords) == (function is dict_taking)


def test_a_context_that_the_schema_has_is_the_models() -> None:
    schema = {"type": "object", "properties": {"context": {}}}
    assert follow(lambda context: None, "f", schema).bind('{"context": 1}', "ours").keywords == {"context": 1}


def test_a_function_that_says_nothing_of_itself_is_called_with_what_there_is() -> None:
    signature = follow(dict, "f", {})
    assert signature.bind('{"a": 1}', "ours").keywords == {"a": 1}


@pytest.mark.parametrize("function", [lambda: None, lambda town: None, lambda city, unit, other: None])
def test_a_function_that_cannot_take_its_definitions_arguments_is_refused(function: Any) -> None:
    with pytest.raises(LocalProtocolError, match="tool 'f': its function cannot be called with the arguments of its"):
        follow(function, "f", SCHEMA)


# --- docstrings -------------------------------------------------------------------------------------------------------

STYLES = {
    "google": """Find a flight.

    Only for flights within Europe.

    Args:
        origin (str): Where it begins,
            as a code: OSL.
        seats: How many.

    Returns:
        A number.
    """,
    "numpy": """
    Find a flight.

    Only for flights within Europe.

    Parameters
    ----------
    origin : str, optional
        Where it begins,
        as a code: OSL.
    seats
        How many.

    Returns
    -------
    int
        A number.
    """,
    "rest": """Find a flight.

    Only for flights within Europe.

    :param str origin: Where it begins,
        as a code: OSL.
    :param seats: How many.
    :type seats: int
    :returns: A number.
    """,
}


@pytest.mark.parametrize("style", STYLES)
def test_docstrings_describe_function_and_parameters(style: str) -> None:
    def flight(origin: str, seats: int, back: Annotated[bool, "And back."] = False) -> int:
        return 0

    flight.__doc__ = STYLES[style]
    signature = read(flight)
    assert signature.description == "Find a flight.\n\nOnly for flights within Europe."
    told = {name: part["description"] for name, part in signature.parameters["properties"].items()}
    assert told == {"origin": "Where it begins, as a code: OSL.", "seats": "How many.", "back": "And back."}


def test_an_annotation_is_preferred_to_the_docstring() -> None:
    def function(x: Annotated[int, "This."], y: int) -> None:
        """Do it.

        Args:
            x: That.
        """

    assert parameters(function)["properties"]["x"]["description"] == "This."


@pytest.mark.parametrize(
    ("text", "summary", "told"),
    [
        (None, "", {}),
        ("", "", {}),
        ("One: two.", "One: two.", {}),
        ("Do.\n\nArgs:\n", "Do.", {}),
        ("Args:\n    x: X.\nMore.", "More.", {"x": "X."}),
        ("Do.\n\nArgs:\n    x (dict[str, int]): X.\n    **more: M.", "Do.", {"x": "X.", "more": "M."}),
        ("Do.\n\nParameters\n----------\na, b : int\n    Both.", "Do.", {"a": "Both.", "b": "Both."}),
        ("Do.\n\n:param x: X.\nMore.", "Do.\n\n\nMore.", {"x": "X."}),
        ("Do.\n:raises ValueError: never", "Do.", {}),
        ("Do.\n\n- one\n- two", "Do.\n\n- one\n- two", {}),
    ],
)
def test_odd_docstrings(text: str | None, summary: str, told: dict[str, str]) -> None:
    doc = read_docstring(text)
    assert (doc.summary, doc.parameters) == (summary, told)


@given(st.text(st.sampled_from("ab:- \n()*,"), max_size=60), st.sampled_from(["Args:\n", "A\n---\n", ":param x:", ""]))
def test_no_docstring_is_too_odd(text: str, start: str) -> None:
    doc = read_docstring(start + text)
    assert all(said for said in doc.parameters.values())
