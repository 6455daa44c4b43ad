"""A dialect's table of places, and the four ways to use it: values there and back, paths there, leftovers.

A `Place` says that what GA keeps under a path the dialect keeps under one flat name, and how the values differ. The
same rows translate a session in both directions and the `param` of an error. Works on plain JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from vivavoce.protocol.walk import Json


class Untranslatable(Exception):
    """A value for which the other dialect has no word. `message` says so to the client."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.name = name


def _same(value: Any) -> Any:
    return value


class Place(NamedTuple):
    """One row. An empty `ga` means that GA has nothing of the kind; the value is left out."""

    ga: tuple[str, ...]
    name: str
    to_ga: Callable[[Any], Any] = _same
    from_ga: Callable[[Any], Any] = _same


Table = tuple[Place, ...]


def into_ga(value: Json, table: Table, *, lenient: bool = False) -> Json:
    """A flat object of the dialect as GA nests it; names that the table does not have stay.

    Raises `Untranslatable`, whose `name` is the dialect's; where `lenient`, leaves such values out instead.
    """
    rows = {place.name: place for place in table}
    found: Json = {name: part for name, part in value.items() if name not in rows}
    for place in table:
        if place.name not in value or not place.ga:
            continue
        try:
            _put(found, place.ga, place.to_ga(value[place.name]))
        except Untranslatable as error:
            if not lenient:
                raise Untranslatable(error.message, place.name) from error
    return found


def from_ga(value: Json, table: Table, roots: frozenset[str]) -> Json:
    """An object of GA as the dialect flattens it; the `roots` are GA's own and go, other names stay."""
    found: Json = {name: part for name, part in value.items() if name not in roots}
    for place in table:
        if place.ga and (part := _get(value, place.ga)) is not _ABSENT:
            found[place.name] = place.from_ga(part)
    return found


def path_from_ga(path: str, root: str, table: Table) -> str:
    """GA's dotted path of a field under `root` as the dialect's."""
    for place in table:
        before = ".".join((root, *place.ga))
        if place.ga and (path == before or path.startswith((before + ".", before + "["))):
            return f"{root}.{place.name}{path[len(before) :]}"
    return path


_ABSENT: Any = object()


def _get(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return _ABSENT
        value = value[name]
    return value


def _put(value: Json, path: tuple[str, ...], part: Any) -> None:
    for name in path[:-1]:
        value = value.setdefault(name, {})
    if path[-1] in value:
        raise Untranslatable("The same setting is given under two names.")
    value[path[-1]] = part
