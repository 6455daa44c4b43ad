"""What a docstring says of a function and of its parameters, in the styles of Google, NumPy and reST.

For the schemas that tools show to a model. The text before the first section is the summary; of the sections, only
those about parameters or attributes are read. Nothing here raises: what is not understood is left out.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import dataclass, field
from typing import Literal

_ABOUT_PARAMETERS = frozenset(
    {
        "args",
        "arguments",
        "attributes",
        "keyword args",
        "keyword arguments",
        "other parameters",
        "parameters",
        "params",
    }
)
_OTHER = (
    "example",
    "examples",
    "note",
    "notes",
    "raises",
    "references",
    "return",
    "returns",
    "see also",
    "todo",
    "warning",
    "warnings",
    "warns",
    "yield",
    "yields",
)
_GOOGLE = re.compile(rf"({'|'.join((*_ABOUT_PARAMETERS, *_OTHER))}):\s*", re.IGNORECASE)
_UNDERLINE = re.compile(r"-{3,}\s*")
_REST = re.compile(r":(\w+)([^:]*):(?:\s+(.*))?")
_REST_PARAMETERS = frozenset({"param", "parameter", "arg", "argument", "key", "keyword", "ivar", "var", "attribute"})
_REST_OTHER = frozenset({"type", "vartype", "return", "returns", "rtype", "raise", "raises", "except", "exception"})
_ENTRIES = {
    "google": re.compile(r"(\*{0,2}\w+)(?:\s*\(.*?\))?\s*:\s*(.*)"),
    "numpy": re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)(?:\s*:.*)?()"),
}

Style = Literal["", "google", "numpy", "rest"]


@dataclass(frozen=True, slots=True)
class Docstring:
    """`summary` is the prose, `parameters` what is said of each by name."""

    summary: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Section:
    style: Style
    title: str
    lines: list[str] = field(default_factory=list)


def read_docstring(text: object) -> Docstring:
    """Take a docstring apart; anything but text is no docstring."""
    if not isinstance(text, str):
        return Docstring()
    parameters: dict[str, str] = {}
    prose: list[str] = []
    for section in _sections(inspect.cleandoc(text).splitlines()):
        if not section.style:
            prose += section.lines
        elif section.style == "rest":
            words = section.title.split()
            if words[0] in _REST_PARAMETERS and len(words) > 1:
                parameters[words[-1].lstrip("*")] = _joined(section.lines)
        elif section.title in _ABOUT_PARAMETERS:
            parameters.update(_entries(section))
    return Docstring("\n".join(prose).strip(), {name: said for name, said in parameters.items() if said})


def _sections(lines: list[str]) -> list[_Section]:
    sections = [_Section("", "")]
    for line, following in zip(lines, [*lines[1:], ""], strict=False):
        style = sections[-1].style
        is_outside = line[:1] not in ("", " ", "\t")
        rest = _REST.fullmatch(line)
        if is_outside and _UNDERLINE.fullmatch(following):
            sections.append(_Section("numpy", line.strip().lower()))
        elif google := _GOOGLE.fullmatch(line):
            sections.append(_Section("google", google[1].lower()))
        elif rest and rest[1] in _REST_PARAMETERS | _REST_OTHER:
            sections.append(_Section("rest", rest[1] + rest[2], [rest[3] or ""]))
        elif is_outside and style in ("google", "rest"):  # their sections are indented: this is prose again
            sections.append(_Section("", "", ["", line]))
        elif not (style == "numpy" and _UNDERLINE.fullmatch(line)):
            sections[-1].lines.append(line)
    return sections


def _entries(section: _Section) -> dict[str, str]:
    """What a section says of each parameter: lines that begin an entry stand furthest to the left."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in textwrap.dedent("\n".join(section.lines)).splitlines():
        entry = _ENTRIES[section.style].fullmatch(line)
        if entry and not line[0].isspace():
            current = [entry[2]]
            found.update((name.strip().lstrip("*"), current) for name in entry[1].split(","))
        else:
            current.append(line)
    return {name: _joined(lines) for name, lines in found.items()}


def _joined(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())
