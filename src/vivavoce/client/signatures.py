"""What a function wants, read from its annotations and docstring: a JSON Schema for the model, keywords for the call.

`read(function)` is for functions that say by their types what they take, `follow(function, …)` for those that come with
a schema. Schema and conversion are both msgspec's, of the same types, so what the model is told is what is checked.
Invariant: what cannot be told to a model is refused here, when a tool is made, and not in a call.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol, TypeAlias, TypeVar, Union, get_origin
from typing import get_type_hints as resolve_hints

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.errors import LocalProtocolError

from .docstrings import read_docstring
from .schemas import Definitions, Schema, for_msgspec

ARGUMENTS_CHARS_MAX: Final = 1024 * 1024
"""Arguments of one call, as JSON. What is longer is refused."""
EXPECTED_CHARS_MAX: Final = 500
"""How much of a schema is repeated to a model whose arguments do not fit it."""

_T = TypeVar("_T")


class _FromContext:
    """Marks a parameter that is not the model's."""


ToolContext: TypeAlias = Annotated[_T, _FromContext]
"""`deps: ToolContext[Deps]` is a `Deps`, which gets the session's context and is not shown to the model."""


class ArgumentsError(ValueError):
    """Arguments of a call that do not fit. The message is for the model: which one, and what was expected."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The arguments of one call: as the model wrote them, and as keywords for the function."""

    arguments: dict[str, Any]
    keywords: dict[str, Any]


class Signature(Protocol):
    """How the arguments of a call become those of a function."""

    def bind(self, arguments: str, context: object) -> Bound:
        """Raises `ArgumentsError`, and whatever the constructors of the function's own types raise."""
        ...


@dataclass(frozen=True, slots=True)
class TypedSignature:
    """Read from annotations. `whole` names the only parameter, where the arguments object as a whole is its value."""

    name: str
    description: str
    parameters: Schema
    for_context: tuple[str, ...]
    whole: str | None
    decoder: msgspec.json.Decoder[Any]

    def bind(self, arguments: str, context: object) -> Bound:
        """The arguments as values of the annotated types; what was left out is left to the function's defaults."""
        raw = decoded(arguments)
        keywords: dict[str, Any] = dict.fromkeys(self.for_context, context)
        if self.parameters["additionalProperties"] is False:
            self._check_names(raw)
        try:
            value = self.decoder.decode(arguments or "{}")
        except msgspec.ValidationError as error:
            raise ArgumentsError(_misfit(str(error), self.parameters)) from None
        if self.whole is not None:
            keywords[self.whole] = value
        else:
            given = ((name, getattr(value, name)) for name in value.__struct_fields__)
            keywords.update((name, part) for name, part in given if part is not UNSET)
        return Bound(raw, keywords)

    def _check_names(self, raw: dict[str, Any]) -> None:
        names = self.parameters["properties"]
        unknown = next((name for name in raw if name not in names), None)
        if unknown is not None:
            raise ArgumentsError(f"there is no argument {unknown!r}; there are: {', '.join(names) or 'none'}")


@dataclass(frozen=True, slots=True)
class PlainSignature:
    """Of a function that comes with a schema: it gets what the JSON object has, or the object itself as `whole`."""

    required: tuple[str, ...]
    for_context: tuple[str, ...]
    whole: str | None
    python: inspect.Signature | None

    def bind(self, arguments: str, context: object) -> Bound:
        """The arguments as they are. Only their names are checked."""
        raw = decoded(arguments)
        missing = [name for name in self.required if name not in raw]
        if missing:
            raise ArgumentsError(f"argument {missing[0]!r} is missing")
        keywords: dict[str, Any] = {self.whole: raw} if self.whole is not None else dict(raw)
        keywords.update(dict.fromkeys(self.for_context, context))
        if self.python is not None:
            try:
                self.python.bind(**keywords)
            except TypeError as error:
                raise ArgumentsError(str(error)) from None
        return Bound(raw, keywords)


def decoded(arguments: str) -> dict[str, Any]:
    """The JSON object of a call. Nothing at all is taken for no arguments, as some models write it."""
    if len(arguments) > ARGUMENTS_CHARS_MAX:
        raise ArgumentsError(f"the arguments are longer than {ARGUMENTS_CHARS_MAX} characters")
    try:
        raw = msgspec.json.decode(arguments) if arguments else {}
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ArgumentsError(f"the arguments are not valid JSON: {error}") from None
    if not isinstance(raw, dict):
        raise ArgumentsError("the arguments have to be one JSON object")
    return raw


# --- functions with a schema ------------------------------------------------------------------------------------------


def follow(function: Callable[..., Any], name: str, parameters: Mapping[str, Any]) -> PlainSignature:
    """How to call a function with arguments of this schema. Raises `LocalProtocolError` where it cannot take them."""
    properties = _mapping(parameters.get("properties"))
    required = tuple(part for part in parameters.get("required") or () if isinstance(part, str))
    try:
        python = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C say nothing of themselves
        return PlainSignature(required, (), None, None)
    ours = {"context"} & (python.parameters.keys() - properties.keys())
    own = [parameter for parameter in python.parameters.values() if parameter.name not in ours]
    whole = own[0].name if len(own) == 1 and _takes_all(own[0], properties) else None
    signature = PlainSignature(required, tuple(ours), whole, python)
    keywords = [whole] if whole is not None else properties
    try:
        python.bind(**dict.fromkeys([*keywords, *ours]))
    except TypeError as error:
        raise LocalProtocolError(
            f"tool {name!r}: its function cannot be called with the arguments of its definition: {error}. Name the "
            "parameters like the properties, or take one parameter `arguments`, which gets the whole object."
        ) from None
    return signature


def _takes_all(parameter: inspect.Parameter, properties: Mapping[str, Any]) -> bool:
    kind = parameter.annotation if isinstance(parameter.annotation, str) else _name_of(parameter.annotation)
    is_open = parameter.annotation is parameter.empty or re.match(r"(typing\.)?(dict|Dict|Mapping|Any)\b", kind)
    named = parameter.name in ("arguments", "args") and parameter.name not in properties
    return bool(named and is_open and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _name_of(annotation: object) -> str:
    origin = get_origin(annotation) or annotation
    return getattr(origin, "__name__", str(origin))


# --- functions with types ---------------------------------------------------------------------------------------------


def read(function: Callable[..., Any], name: str | None = None) -> TypedSignature:
    """What a function takes, by its annotations and docstring.

    Raises `LocalProtocolError`, which names function and parameter, for what cannot be told to a model.
    """
    if not callable(function):
        raise LocalProtocolError(f"{function!r} is no function; a tool needs one")
    under = _underlying(function)
    name = name or getattr(under, "__name__", "") or type(function).__name__
    doc = read_docstring(getattr(under, "__doc__", None))
    own, for_context = _parameters(function, name)
    types_ = {part: _checked(annotation, parameter, name) for part, (parameter, annotation) in own.items()}
    whole = _whole(own, types_)
    target = types_[whole] if whole is not None else _arguments_struct(own, types_)
    definitions = Definitions()
    root = definitions.add(target)
    for parameter, _ in own.values():
        if whole is None:
            _tell(root["properties"][parameter.name], parameter, doc.parameters)
    try:
        decoder = _decoder(target)
        schema = definitions.parameters(root)
    except (TypeError, ValueError) as error:
        raise LocalProtocolError(f"tool {name!r}: {error}") from None
    return TypedSignature(name, doc.summary, schema, for_context, whole, decoder)


def _underlying(function: Callable[..., Any]) -> Any:
    """The `def` beneath partials, decorators, bound methods and objects that can be called."""
    under: Any = function
    while True:
        if isinstance(under, functools.partial):
            under = under.func
        elif hasattr(under, "__wrapped__"):
            under = under.__wrapped__
        elif inspect.ismethod(under):
            under = under.__func__
        elif not inspect.isroutine(under) and not isinstance(under, type) and inspect.ismethod(under.__call__):
            under = under.__call__
        else:
            return under


def _parameters(
    function: Callable[..., Any], name: str
) -> tuple[dict[str, tuple[inspect.Parameter, Any]], tuple[str, ...]]:
    """The parameters that are the model's, with their annotations resolved, and the names of those that are ours."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError, NameError) as error:
        raise LocalProtocolError(f"tool {name!r}: its signature cannot be read: {error}") from None
    own: dict[str, tuple[inspect.Parameter, Any]] = {}
    for_context = []
    for at, parameter in enumerate(parameters.values()):
        _check_kind(parameter, name, is_first=at == 0)
        if parameter.name == "context":
            for_context.append(parameter.name)
            continue
        annotation = _resolved(function, parameter, name)
        if get_origin(annotation) is Annotated and _FromContext in annotation.__metadata__:
            for_context.append(parameter.name)
        else:
            own[parameter.name] = (parameter, annotation)
    return own, tuple(for_context)


def _check_kind(parameter: inspect.Parameter, name: str, *, is_first: bool) -> None:
    where = f"tool {name!r}: parameter {parameter.name!r}"
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise LocalProtocolError(f"{where} is positional-only, and models give names; remove the `/` behind it")
    if parameter.kind is parameter.VAR_POSITIONAL:
        raise LocalProtocolError(
            f"{where} takes any number of arguments; make it a list: `{parameter.name}: list[str]`"
        )
    if parameter.kind is parameter.VAR_KEYWORD:
        raise LocalProtocolError(
            f"{where} takes arguments of any name, of which a model knows nothing; name them, or take a dict"
        )
    if is_first and parameter.name in ("self", "cls") and parameter.annotation is parameter.empty:
        raise LocalProtocolError(
            f"{where}: this is a method without its object; make the tool of a bound one: tool(x.f)"
        )


def _resolved(function: Callable[..., Any], parameter: inspect.Parameter, name: str) -> Any:
    if parameter.annotation is parameter.empty:
        return Any
    under = _underlying(function)
    holder: Any = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        hints = resolve_hints(holder, getattr(under, "__globals__", {}), _scope(under), include_extras=True)
    except Exception as error:  # evaluating what somebody wrote may raise anything
        raise LocalProtocolError(
            f"tool {name!r}: parameter {parameter.name!r}: its annotation {parameter.annotation!r} cannot be resolved: "
            f"{error}. Import the name at run time, not under TYPE_CHECKING, or define it before the function."
        ) from None
    return hints[parameter.name]


def _scope(under: Any) -> dict[str, Any]:
    """The names around a function that was defined inside another one, if that is still running, and of its closure."""
    names: dict[str, Any] = {}
    code = getattr(under, "__code__", None)
    frame: types.FrameType | None = sys._getframe(1)
    inner = code
    while frame is not None and inner is not None:
        if any(part is inner for part in frame.f_code.co_consts):
            names = {**frame.f_locals, **names}
            inner = frame.f_code
        frame = frame.f_back
    for free, cell in zip(getattr(code, "co_freevars", ()), getattr(under, "__closure__", None) or (), strict=False):
        try:
            names.setdefault(free, cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    return names


# --- types ------------------------------------------------------------------------------------------------------------


def _checked(annotation: Any, parameter: inspect.Parameter, name: str) -> Any:
    """The type as msgspec takes it; raises where it cannot be described."""
    try:
        kind = for_msgspec(annotation)
        if parameter.default is None and kind is not Any:
            kind = Union[kind, None]  # noqa: UP007  # `x: str = None`, which many write
        Definitions().add(kind)
        _decoder(kind)
    except Exception as error:  # names that do not resolve inside a class may raise anything, too
        reason = (str(error).splitlines() or [type(error).__name__])[-1].rstrip(".")
        raise LocalProtocolError(
            f"tool {name!r}: parameter {parameter.name!r} cannot be described to a model: {reason}. Use plain types, "
            "lists, dicts, enums, dataclasses, TypedDict, msgspec.Struct or pydantic models."
        ) from None
    return kind


def _whole(own: Mapping[str, tuple[inspect.Parameter, Any]], types_: Mapping[str, Any]) -> str | None:
    """The name of the only parameter, where it is an object with named fields: then its fields are the arguments."""
    if len(own) != 1:
        return None
    ((name, (parameter, _)),) = own.items()
    if parameter.default is not parameter.empty:
        return None
    definitions = Definitions()
    schema = definitions.deref(definitions.add(types_[name]))
    return name if schema.get("type") == "object" and "properties" in schema else None


def _arguments_struct(own: Mapping[str, tuple[inspect.Parameter, Any]], types_: Mapping[str, Any]) -> type:
    """All parameters as one struct. What has a default may be absent, and is then left to the function."""
    fields: list[Any] = []
    for name, (parameter, _) in own.items():
        kind = types_[name]
        is_optional = parameter.default is not parameter.empty
        fields.append((name, Union[kind, UnsetType], UNSET) if is_optional else (name, kind))  # noqa: UP007
    return msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)


def _tell(schema: Schema, parameter: inspect.Parameter, told: Mapping[str, str]) -> None:
    """Add what the docstring says of a parameter, and its default, unless that is None or no JSON."""
    if parameter.name in told:
        schema.setdefault("description", told[parameter.name])
    if parameter.default is parameter.empty or parameter.default is None:
        return
    try:
        default = msgspec.to_builtins(parameter.default, enc_hook=to_plain)
        schema["default"] = msgspec.json.decode(msgspec.json.encode(default))
    except (TypeError, ValueError, NotImplementedError):
        return


def to_plain(value: Any) -> Any:
    """For msgspec: a pydantic model as what JSON has."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise NotImplementedError(f"JSON has nothing like {type(value).__name__} here")


def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """Not strict: `"5"` and `5.0` are taken for 5 where only an integer can be meant. It saves a turn of the model."""
    return msgspec.json.Decoder(kind, strict=False, dec_hook=_validated)


def _validated(kind: type, value: Any) -> Any:
    """For msgspec: a pydantic model of what was decoded. pydantic itself need not be there, and is not imported."""
    try:
        return kind.model_validate_json(msgspec.json.encode(value))  # type: ignore[attr-defined]
    except ValueError as error:
        if not hasattr(error, "errors"):
            raise
        parts = [f"{'.'.join(map(str, part['loc']))}: {part['msg']}".removeprefix(": ") for part in error.errors()]
        raise ValueError("; ".join(parts)) from None


# --- what does not fit ------------------------------------------------------------------------------------------------

_PLACE = re.compile(r"(.*) - at (?:`key` in )?`\$([^`]*)`", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`")


def _misfit(complaint: str, schema: Schema) -> str:
    """msgspec's sentence, for a model: which argument, what was wrong, and what its schema says."""
    found = _PLACE.fullmatch(complaint)
    sentence, place = (found[1], found[2]) if found else (complaint, "")
    field = _FIELD.fullmatch(sentence)
    if field:
        place += f".{field[2]}"
    expected = msgspec.json.encode(_at(schema, place)).decode()
    if len(expected) > EXPECTED_CHARS_MAX:
        expected = f"{expected[:EXPECTED_CHARS_MAX]}…"
    name = place.removeprefix(".")
    if field and field[1] == "contains unknown":
        return f"there is no argument {name!r}"
    if field:
        return f"argument {name!r} is missing; its schema is {expected}"
    said = sentence.replace("`", "")
    return f"argument {name!r}: {said}; its schema is {expected}" if name else f"the arguments: {said}"


def _at(root: Schema, place: str) -> Any:
    """The schema of a place, or of the nearest one around it that is known."""
    schema: Any = root
    for name, _ in _STEP.findall(place):
        reference = schema.get("$ref", "").rpartition("/")[2]
        schema = _mapping(root.get("$defs")).get(reference, schema)
        inner = (
            _mapping(schema.get("properties")).get(name)
            if name
            else schema.get("items", schema.get("additionalProperties"))
        )
        if not isinstance(inner, dict):
            break
        schema = inner
    return schema
