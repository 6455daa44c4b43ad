"""Where settings come from: a TOML file, then the environment, then the command line, each overriding the one before.

Every scalar setting and every list has a variable: `VIVAVOCE_PORT`, `VIVAVOCE_SESSION_LIMITS__ITEMS_MAX`. Invariant: of
every value that is in force it is known where it came from.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import msgspec
from msgspec import structs

from vivavoce.errors import SettingsError

from .settings import Secret, Settings, convert, settings_of

PREFIX = "VIVAVOCE_"
CONFIG = "VIVAVOCE_CONFIG"
"""Names the file where no argument does."""

NESTED = "__"
"""Stands in variables where key paths have a dot."""

KeyPath = tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Sourced:
    """Settings, and where they come from."""

    settings: Settings
    sources: Mapping[KeyPath, str]
    """The file, variable or option that a value is from; what is not in here is a default."""
    unused: tuple[str, ...]
    """Variables that look like settings and are none."""


def load_settings(
    *,
    config: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    model: str | None = None,
    api_keys: Sequence[str] | None = None,
    tapes: Path | None = None,
    websocket: str | None = None,
    log_level: str | None = None,
    log_format: str | None = None,
    session_log: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from a TOML file, then the environment, then the arguments; `model` is the default pipeline.

    Raises `SettingsError`, which names the file or variable and the key.
    """
    options = {
        "host": ("--host", host),
        "port": ("--port", port),
        "pipeline": ("--model", model),
        "api_keys": ("--api-key", list(api_keys) if api_keys else None),
        "tapes": ("--tapes", None if tapes is None else str(tapes)),
        "websocket": ("--websocket", websocket),
        "log_level": ("--log-level", log_level),
        "log_format": ("--log-format", log_format),
        "session_log": ("--session-log", session_log),
    }
    given = {name: pair for name, pair in options.items() if pair[1] is not None}
    return sourced(config=config, environment=environment, options=given).settings


def sourced(
    *,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    options: Mapping[str, tuple[str, Any]] | None = None,
) -> Sourced:
    """Settings and their sources; `options` are by the name of a setting, each with its own name and its value."""
    environment = os.environ if environment is None else environment
    if config is None and (named := environment.get(CONFIG)):
        config = Path(named)
    values = {} if config is None else read_toml(config)
    sources = {path: str(config) for path in _leaves(values)}
    known = variables()
    for variable, (path, kind) in known.items():
        if (text := environment.get(variable)) is not None:
            put(values, path, parsed(variable, text, kind))
            sources[path] = variable
    for name, (option, value) in (options or {}).items():
        values[name] = value
        sources[(name,)] = option
    unused = sorted(name for name in environment if name.startswith(PREFIX) and name not in known and name != CONFIG)
    return Sourced(settings_of(values), sources, tuple(unused))


def variables() -> dict[str, tuple[KeyPath, Any]]:
    """Every variable, the key path of the setting that it sets, and the type of that."""
    return {PREFIX + NESTED.join(path).upper(): (path, kind) for path, kind in scalars()}


def scalars(kind: Any = Settings, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """The key path and the type of every setting that is one value or one list; tables by name are none."""
    for name, inner in _fields(kind).items():
        if _fields(inner):
            yield from scalars(inner, (*path, name))
        elif get_origin(inner) is not dict:
            yield (*path, name), inner


def _fields(kind: Any) -> dict[str, Any]:
    """The fields of a table with fixed names; of anything else there are none."""
    if not isinstance(kind, type):
        return {}
    if issubclass(kind, msgspec.Struct):
        return {field.name: field.type for field in structs.fields(kind)}
    return get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}


def read_toml(path: Path, *, bytes_max: int | None = None) -> dict[str, Any]:
    """What is in a TOML file, one with a byte order mark too. Raises `SettingsError`."""
    try:
        if bytes_max is not None and path.stat().st_size > bytes_max:
            raise SettingsError(f"{path}: has {path.stat().st_size} bytes, at most {bytes_max} are read")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"{path}: is nested too deeply") from None


def _leaves(values: Mapping[str, Any], path: KeyPath = ()) -> Iterator[KeyPath]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name)


def parsed(variable: str, text: str, kind: Any) -> Any:
    """The value of a variable, as a file would have it; elements of lists are separated by commas."""
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    value = convert(variable, text, kind, strict=False)
    return text if isinstance(value, Secret) else value


def put(values: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Set a value in nested tables, which are made where there are none."""
    for name in path[:-1]:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            return  # which `settings_of` refuses, by its path
        values = inner
    values[path[-1]] = value
