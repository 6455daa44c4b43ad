"""Where items and content parts sit in a message, as plain JSON: the one place that rewrites them by position.

Takes any JSON, changes nothing in place, and touches only what is where it belongs; everything else stays as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Json = dict[str, Any]


def with_items(event: Json, change: Callable[[Json], Json]) -> Json:
    """The event with every item of it changed: `item`, `response.output` and `response.input`."""
    event = _with(event, "item", change)
    return _with(
        event, "response", lambda response: _with_each(_with_each(response, "output", change), "input", change)
    )


def with_parts(item: Json, change: Callable[[Json], Json]) -> Json:
    """The item with every content part of it changed."""
    return _with_each(item, "content", change)


def _with(holder: Json, key: str, change: Callable[[Json], Json]) -> Json:
    value = holder.get(key)
    return holder | {key: change(value)} if isinstance(value, dict) else holder


def _with_each(holder: Json, key: str, change: Callable[[Json], Json]) -> Json:
    value = holder.get(key)
    if not isinstance(value, list):
        return holder
    return holder | {key: [change(part) if isinstance(part, dict) else part for part in value]}
