"""Where items and content parts sit in a message, as plain JSON: the one place that rewrites them by position.

Takes any JSON and touches only what is where it belongs; everything else stays as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Json = dict[str, Any]


def change_items(event: Json, change: Callable[[Json], Json]) -> None:
    """Replace, in place, every item of an event: `item`, `response.output` and `response.input`."""
    _change(event, "item", change)
    response = event.get("response")
    if isinstance(response, dict):
        _change_each(response, "output", change)
        _change_each(response, "input", change)


def change_parts(item: Json, change: Callable[[Json], Json]) -> None:
    """Replace, in place, every content part of an item."""
    _change_each(item, "content", change)


def _change(holder: Json, key: str, change: Callable[[Json], Json]) -> None:
    if isinstance(holder.get(key), dict):
        holder[key] = change(holder[key])


def _change_each(holder: Json, key: str, change: Callable[[Json], Json]) -> None:
    if isinstance(holder.get(key), list):
        holder[key] = [change(part) if isinstance(part, dict) else part for part in holder[key]]
