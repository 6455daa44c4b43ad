"""What a server would do with its settings, without being one: `vivavoce check-config`.

Reads settings as `serve` does, builds the engines, which loads no weights, and says in plain text what is in force and
where it came from. Invariant: neither a key nor an option of an engine appears.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from vivavoce.engines import ROLES, Pipeline
from vivavoce.engines.registry import PipelineSettings

from .auth import check_binding
from .pipelines import build
from .prompts import load_prompts
from .session_log import session_log
from .settings import Secret
from .sources import KeyPath, Sourced, sourced

HIDDEN = "(hidden)"
DEFAULT = "default"


def checked(config: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """The report on a settings file, or on the file that the environment names.

    Raises `SettingsError` and `EngineMissing`, as `serve` would.
    """
    found = sourced(config=config, environment=environment)
    check_binding(found.settings)
    load_prompts(found.settings.prompts)
    session_log(found.settings)
    asyncio.run(_close(build(found.settings)))
    return report(found)


def report(found: Sourced) -> str:
    """Settings in force with their sources, and the engines of each pipeline."""
    rows = [(".".join(path), shown, _source(found, path)) for path, shown in values_of(found.settings)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    settings = [f"  {path:<{widths[0]}}  {shown:<{widths[1]}}  {source}" for path, shown, source in rows]
    used = found.settings.pipelines_in_use()
    pipelines = [f"  {name}: {_engines(pipeline)}" for name, pipeline in used.items()]
    unused = [f"  {name}" for name in found.unused]
    parts = {
        "Settings": settings,
        "Engines that would be loaded": pipelines,
        "Variables that are no settings, and have no effect": unused,
    }
    return "\n\n".join(f"{title}:\n" + "\n".join(lines) for title, lines in parts.items() if lines)


def values_of(table: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Every value of a table of settings, by its key path, as people read it; pipelines are left to `report`."""
    for name, value in _members(table):
        here = (*path, name)
        if isinstance(value, Mapping):
            yield from _by_name(value, here)
        elif _is_table(value):
            yield from values_of(value, here)
        else:
            yield here, _shown(value)


def _by_name(tables: Mapping[str, object], path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if path == ("pipelines",):
        return
    for name, value in tables.items():
        if _is_table(value):
            yield from values_of(value, (*path, name))
        else:
            yield (*path, name), _shown(value)


def _is_table(value: object) -> bool:
    return isinstance(value, msgspec.Struct) or dataclasses.is_dataclass(value)


def _members(table: object) -> Iterator[tuple[str, object]]:
    if isinstance(table, msgspec.Struct):
        names = table.__struct_fields__
    else:
        assert dataclasses.is_dataclass(table)
        names = tuple(field.name for field in dataclasses.fields(table))
    for name in names:
        yield name, getattr(table, name)


def _shown(value: object) -> str:
    if isinstance(value, Secret):
        return HIDDEN
    if isinstance(value, tuple):
        secret = any(isinstance(one, Secret) for one in value)
        return (f"{len(value)} {HIDDEN}" if secret else ", ".join(map(str, value))) or "none"
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _source(found: Sourced, path: KeyPath) -> str:
    return found.sources.get(path, DEFAULT)


def _engines(pipeline: PipelineSettings) -> str:
    chosen = [(role, engine) for role in ROLES if (engine := getattr(pipeline, role)) is not None]
    return ", ".join(
        f"{role} {engine.engine}" + (f" (options {', '.join(sorted(engine.options))})" if engine.options else "")
        for role, engine in chosen
    )


async def _close(pipelines: Mapping[str, Pipeline]) -> None:
    for pipeline in pipelines.values():
        await pipeline.close()
