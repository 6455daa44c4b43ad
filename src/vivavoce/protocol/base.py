"""The ground that every message stands on: frozen structs in which *absent* and *null* are different things.

`UNSET` means that the field was not there, `None` that it was there and null. A field typed `Maybe[X]` may be absent;
one typed `Maybe[X | None]` may be absent, null, or an X. Absent fields are never written.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar, Union

import msgspec
from msgspec import UNSET, UnsetType

T = TypeVar("T")

# Written with Union: a TypeVar in `X | Y` is no type alias for type checkers at this Python version.
Maybe: TypeAlias = Union[T, UnsetType]  # noqa: UP007

__all__ = ["UNSET", "Maybe", "Strict", "UnsetType", "given"]


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, repr_omit_defaults=True):
    """A part of a message in which an unknown field is an error (reference §1.8: unknown parameters are errors)."""


def given(value: T | UnsetType, default: T) -> T:
    """`value`, or `default` where it is absent. Null is a value."""
    return default if isinstance(value, UnsetType) else value
