"""The reference of the settings, `docs/reference/settings.md`, from the structs and the docstrings of their fields.

`python -m vivavoce.server.settings_reference` prints it. Invariant: what is in the reference is what can be set.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from vivavoce.core.limits import Limits
from vivavoce.engines.registry import EngineSettings

from .runtime import ConnectionLimits
from .settings import PipelineTable, PriceTable, RateLimits, Secret, Settings, WebRtc
from .sources import KeyPath, variables

OPENING = """\
# Settings

One TOML file, `vivavoce serve --config FILE.toml`, or the file that `VIVAVOCE_CONFIG` names. What the file says is
overridden by the environment, and that by the command line. `vivavoce check-config FILE.toml` says what is in force,
where each value came from, and what is wrong.

Elements of lists in variables are separated by commas. Times are in milliseconds, sizes in bytes, as the names say.
"""

NOUNS = {"str": "text", "int": "integer", "float": "number", "bool": "`true` or `false`"}
TABLES: tuple[tuple[str, type], ...] = (
    ("", Settings),
    ("rate_limits", RateLimits),
    ("prices.MODEL", PriceTable),
    ("pipelines.NAME", PipelineTable),
    ("webrtc", WebRtc),
    ("session_limits", Limits),
    ("connection_limits", ConnectionLimits),
)
"""The tables of the file, and what they are read into."""

CLOSING = """\
## An engine

Where a pipeline names an engine, that is a table of its own:

```toml
[pipelines.mine]
language_model = { engine = "openai-chat", options = { url = "http://127.0.0.1:11434/v1", model = "llama3.2" } }
```

`engine` is the name of an engine for that role, `options` are the engine's own.
"""


def settings_reference() -> str:
    """The whole page, as Markdown."""
    known = {path: name for name, (path, _) in variables().items()}
    return "\n".join((OPENING, *(section(name, table, known) for name, table in TABLES), CLOSING))


def section(name: str, table: type, variables: Mapping[KeyPath, str]) -> str:
    """One table of settings; `variables` are by key path."""
    title = f"`[{name}]`" if name else "The top of the file"
    said = inspect.cleandoc(table.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    rows = [_row(name, field, kind, default, words, variables) for field, kind, default, words in _fields(table)]
    header = ("| setting | what it takes | default | variable | |", "|---|---|---|---|---|")
    return "\n".join((f"## {title}", "", said, "", *header, *rows, ""))


def _row(table: str, field: str, kind: Any, default: object, words: str, variables: Mapping[KeyPath, str]) -> str:
    variable = variables.get((table, field) if table else (field,), "")
    cells = (f"`{field}`", _kind(kind), _default(default), f"`{variable}`" if variable else "", words)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _fields(table: type) -> Iterator[tuple[str, Any, object, str]]:
    """Name, type, default and docstring of every field."""
    words = _docstrings(table)
    if issubclass(table, msgspec.Struct):
        for field in msgspec.structs.fields(table):
            yield field.name, field.type, field.default, words.get(field.name, "")
    else:
        assert dataclasses.is_dataclass(table)
        hints = get_type_hints(table, include_extras=True)
        for found in dataclasses.fields(table):
            yield found.name, hints[found.name], found.default, words.get(found.name, "")


def _docstrings(table: type) -> dict[str, str]:
    """The texts that stand below fields, which Python does not keep."""
    (definition,) = ast.parse(inspect.getsource(table)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            assert isinstance(below.value, ast.Constant)
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def _kind(kind: Any) -> str:
    """What a setting takes, in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        bounds = " and ".join(_bounds(meta) for meta in inner[1:])
        return f"{_kind(inner[0])}, {bounds}"
    if origin is Literal:
        return ", ".join(f'`"{value}"`' for value in inner)
    if origin is tuple:
        return f"list of {_kind(inner[0])}s"
    if origin is dict:
        return "tables by name" if issubclass(inner[1], msgspec.Struct) else "texts by name"
    if type(None) in inner:
        return _kind(next(part for part in inner if part is not type(None)))
    if kind is Secret:
        return "secret text"
    return "engine" if kind is EngineSettings else NOUNS.get(getattr(kind, "__name__", ""), "table")


def _bounds(meta: msgspec.Meta) -> str:
    parts = {"at least": meta.ge, "above": meta.gt, "at most": meta.le}
    return ", ".join(f"{words} {value}" for words, value in parts.items() if value is not None)


def _default(value: object) -> str:
    if value in (None, (), msgspec.NODEFAULT) or isinstance(value, msgspec.Struct) or dataclasses.is_dataclass(value):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    sys.stdout.write(settings_reference())
