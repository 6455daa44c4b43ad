"""What a schema of single fields cannot say about the items that a client sends: parts that do not suit their role.

And stand-ins for the unknown, which are our own and no client's. Reference §3.8 (role/content mismatch).
"""

from __future__ import annotations

from typing import Any, Final

from .events import ErrorDetail
from .meant import Path
from .shapes import INTERNAL_TAG_PREFIX, allowed_values, tag
from .violations import Vocabulary, dotted, not_supported, refusal

PartsOfRole = dict[str, tuple[str, ...]]
GA_PARTS_OF_ROLE: Final[PartsOfRole] = {
    "user": ("input_text", "input_audio", "input_image"),
    "system": ("input_text",),
    "assistant": ("output_text", "output_audio"),
}


def misfit(event: Any, vocabulary: Vocabulary, parts_of_role: PartsOfRole) -> ErrorDetail | None:
    """The error for a `conversation.item.create` or `response.create` whose items no client may send."""
    for path, item in _items(event):
        kind = str(tag(type(item)))
        if kind.startswith(INTERNAL_TAG_PREFIX):
            where: Path = (*path, "type")
            return _refused(event, where, kind, allowed_values(vocabulary.events, where))
        for index, part in enumerate(getattr(item, "content", ())):
            kind, suitable = str(tag(type(part))), parts_of_role[item.role]
            if kind not in suitable:
                return _refused(event, (*path, "content", index, "type"), kind, suitable)
    return None


def _items(event: Any) -> tuple[tuple[Path, Any], ...]:
    if hasattr(event, "item"):
        return ((("item",), event.item),)
    listed = (event.response and event.response.input) or ()
    return tuple((("response", "input", index), item) for index, item in enumerate(listed))


def _refused(event: Any, path: Path, kind: str, supported: tuple[str, ...]) -> ErrorDetail:
    return refusal("invalid_value", not_supported(kind, supported), dotted(path), event.event_id or None)
