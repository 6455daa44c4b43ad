"""Engine options: from a mapping, as a settings file has them, to the engine's own frozen settings struct.

Every engine that takes options reads them here, so that a wrong one is told in the same words everywhere.
Invariant: nothing passes that the struct does not name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from vivavoce.errors import SettingsError

S = TypeVar("S", bound=msgspec.Struct)


def read_options(engine: str, settings: type[S], options: Mapping[str, object]) -> S:
    """`options` as the frozen struct `settings`; constraints are those of the struct's annotations.

    Raises `SettingsError` that names the engine, the option, and what would be accepted.
    """
    known = tuple(field.encode_name for field in msgspec.structs.fields(settings))
    for name in options:
        if name not in known:
            raise SettingsError(f"engine {engine!r} has no option {name!r}; it takes {', '.join(known) or 'none'}")
    try:
        return msgspec.convert(dict(options), settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"engine {engine!r}: {_in_words(error)}") from None


def _in_words(error: msgspec.ValidationError) -> str:
    """The complaint with the option in front: msgspec ends it with a path such as `$.speed`."""
    complaint, _, path = str(error).partition(" - at `$.")
    return f"option {path.rstrip('`')!r}: {complaint}" if path else complaint
