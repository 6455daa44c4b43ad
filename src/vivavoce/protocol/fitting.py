"""A server event that does not fit its struct is made to fit: a newer server must not break an older client.

What is not known is left out (the whole frame stays in `raw`), except items and content parts, which become
`UnknownItem` and `UnknownPart` and keep all their fields. Only what cannot do without the unfitting part is lost whole.
Reached only when the typed decoding of a frame has failed.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from . import shapes
from .items import UnknownItem, UnknownPart

S = TypeVar("S", bound=msgspec.Struct)

_LOST: Any = object()  # stands for a value that could not be fitted


def fit(value: dict[str, Any], struct: type[S]) -> S | None:
    """`value`, as JSON has it, as a `struct`; None where a required part does not fit."""
    found = _fit_struct(value, struct)
    return None if found is _LOST else found


def _fit(value: Any, kind: Any) -> Any:
    if isinstance(value, dict) and (structs := shapes.structs(kind)):
        return _fit_object(value, structs)
    if isinstance(value, list) and (element := shapes.element(kind)) is not None:
        value = [found for part in value if (found := _fit(part, element)) is not _LOST]
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError):
        return _LOST


def _fit_object(value: dict[str, Any], structs: tuple[type[msgspec.Struct], ...]) -> Any:
    kind = value.get("type")
    found = _LOST
    for struct in structs:
        if shapes.tag(struct) in (None, kind):
            found = _fit_struct(value, struct)
            break
    if found is not _LOST:
        return found
    if UnknownItem in structs:
        identity = value.get("id")
        return UnknownItem(fields=value, id=identity if isinstance(identity, str) else msgspec.UNSET)
    return UnknownPart(fields=value) if UnknownPart in structs else _LOST


def _fit_struct(value: dict[str, Any], struct: type[S]) -> Any:
    known = {}
    for name, field in shapes.fields(struct).items():
        found = _fit(value[name], field.type) if name in value else _LOST
        if found is not _LOST:
            known[field.name] = found
        elif field.required:
            return _LOST
    return struct(**known)
