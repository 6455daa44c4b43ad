"""Compares our structs with the pydantic types of the public client, field by field."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import pydantic

from vivavoce.protocol import shapes

UNIONS = (Union, UnionType)


def models(annotation: Any) -> list[type[pydantic.BaseModel]]:
    """The models among the alternatives of an annotation, through lists and wrappers."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return models(get_args(annotation)[0])
    if origin in UNIONS or origin is list:
        return [model for part in get_args(annotation) for model in models(part)]
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return []


def type_name(model: type[pydantic.BaseModel]) -> str | None:
    """The literal value of a model's `type`, None where it has none of its own."""
    field = model.model_fields.get("type")
    if field is None or get_origin(field.annotation) is not Literal:
        return None
    values = get_args(field.annotation)
    return str(values[0]) if len(values) == 1 else None


def ours_for(model: type[pydantic.BaseModel], kinds: tuple[Any, ...]) -> list[type[msgspec.Struct]]:
    """The structs among our kinds that stand for a model."""
    found = [struct for kind in kinds for struct in all_structs(kind)]
    name = type_name(model)
    tagged = [struct for struct in found if shapes.tag(struct) == name]
    return tagged or [struct for struct in found if shapes.tag(struct) is None] or found


def all_structs(kind: Any) -> list[type[msgspec.Struct]]:
    """Our structs among the alternatives, through arrays; stand-ins for the unknown aside."""
    element = shapes.element(kind)
    found = [*shapes.structs(kind), *([] if element is None else all_structs(element))]
    return [struct for struct in found if not (shapes.tag(struct) or "").startswith(shapes.INTERNAL_TAG_PREFIX)]


def differences(model: type[pydantic.BaseModel], structs: list[type[msgspec.Struct]], where: str) -> set[str]:
    """What a model has and demands that no struct of ours has and demands."""
    if not structs:
        return {f"{where}: no struct"}
    found: set[str] = set()
    for name, field in model.model_fields.items():
        name = field.alias or name
        if name == "type" and any(shapes.tag(struct) for struct in structs):
            continue
        having = [shapes.fields(struct)[name] for struct in structs if name in shapes.fields(struct)]
        if not having:
            found.add(f"{where}.{name}: missing")
            continue
        if field.is_required() and not all(sure(info) for info in having):
            found.add(f"{where}.{name}: required there, optional here")
        missing = set(literals(field.annotation)) - set(allowed(having)) if allowed(having) else set()
        found |= {f"{where}.{name}: no value {value!r}" for value in missing}
        for part in models(field.annotation):
            found |= differences(part, ours_for(part, tuple(info.type for info in having)), f"{where}.{name}")
    return found


def surplus(model: type[pydantic.BaseModel], structs: list[type[msgspec.Struct]], where: str) -> set[str]:
    """What a struct of ours has and no model has."""
    found: set[str] = set()
    for struct in structs:
        for name, info in shapes.fields(struct).items():
            field = {field.alias or key: field for key, field in model.model_fields.items()}.get(name)
            if field is None:
                found.add(f"{where}.{name}: not there")
                continue
            for part in models(field.annotation):
                found |= surplus(part, ours_for(part, (info.type,)), f"{where}.{name}")
    return found


def literals(annotation: Any) -> tuple[Any, ...]:
    """The literal values among the alternatives of an annotation, through lists."""
    origin = get_origin(annotation)
    if origin is Literal:
        return get_args(annotation)
    if origin is Annotated:
        return literals(get_args(annotation)[0])
    if origin in UNIONS or origin is list:
        return tuple(value for part in get_args(annotation) for value in literals(part))
    return ()


def allowed(having: list[msgspec.structs.FieldInfo]) -> tuple[Any, ...]:
    """The literal values that our fields take; empty where one takes any string."""
    kinds = [info.type for info in having]
    parts = [part for kind in kinds for part in (*shapes.members(kind), *shapes.members(shapes.element(kind)))]
    if str in parts or Any in parts:
        return ()
    return tuple(value for part in parts if get_origin(part) is Literal for value in get_args(part))


def sure(info: msgspec.structs.FieldInfo) -> bool:
    """The field is required, or is written also where nobody gave it."""
    return info.required or (info.default is not msgspec.UNSET and info.default is not msgspec.NODEFAULT)
