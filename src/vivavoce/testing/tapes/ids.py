"""Ids on a tape and ids now: who replays a tape says the ids of the peer that is there, not of the one that was.

Learned from pairs of messages that mean the same, one of the tape and one that came; what differs in a field that holds
an id is another name for the same thing.
"""

from __future__ import annotations

import json
from typing import Any

ID_FIELDS = frozenset(
    {
        "id",
        "event_id",
        "item_id",
        "previous_item_id",
        "response_id",
        "call_id",
        "conversation_id",
        "approval_request_id",
    }
)

Json = dict[str, Any]


class Ids:
    """Names that ids of the tape have now."""

    def __init__(self) -> None:
        self._now: dict[str, str] = {}
        self._kept: set[str] = set()

    def __contains__(self, taped: str) -> bool:
        return taped in self._now

    def name(self, taped: str, now: str) -> None:
        """From now on what is `taped` on the tape is `now`."""
        if taped != now and taped not in self._kept:
            self._now[taped] = now

    def keep(self, item: Any) -> None:
        """An item whose id is the replaying side's own choice keeps it."""
        if isinstance(item, dict) and isinstance(item_id := item.get("id"), str):
            self._kept.add(item_id)

    def learn(self, taped: Any, now: Any) -> None:
        """Take two events that mean the same."""
        if isinstance(taped, dict) and isinstance(now, dict):
            for field, one in taped.items():
                other = now.get(field)
                if field in ID_FIELDS and isinstance(one, str) and isinstance(other, str):
                    self.name(one, other)
                else:
                    self.learn(one, other)
        elif isinstance(taped, list) and isinstance(now, list):
            for one, other in zip(taped, now, strict=False):
                self.learn(one, other)

    def rewritten(self, frame: str) -> str:
        """A frame of the tape with the ids of now; the same text where it holds none that has changed."""
        if not any(f'"{taped}"' in frame for taped in self._now):
            return frame
        return json.dumps(self._renamed("", json.loads(frame)), ensure_ascii=False, separators=(",", ":"))

    def _renamed(self, field: str, value: Any) -> Any:
        if isinstance(value, dict):
            # Who marks a response with the id of its request has it in there, under a name of its own.
            return {name: self._renamed("id" if field == "metadata" else name, one) for name, one in value.items()}
        if isinstance(value, list):
            return [self._renamed(field, inner) for inner in value]
        return self._now.get(value, value) if field in ID_FIELDS and isinstance(value, str) else value
