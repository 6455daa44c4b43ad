"""Damages JSON events at random, as newer servers and careless clients do."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(["message", "realtime", "text", "input_text", "function", "pcm16", "server_vad", "AAAA", "inf"]),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a value with every key or index of it."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in ((value, key), *places(value[key]))]


@st.composite
def damaged(draw: Any, events: list[dict[str, Any]]) -> dict[str, Any]:
    """One of the events with up to four things replaced, removed, added or copied; its `type` stays a string."""
    event = copy.deepcopy(draw(st.sampled_from(events)))
    for _ in range(draw(st.integers(1, 4))):
        holder, key = draw(st.sampled_from(places(event)))
        what = draw(st.sampled_from(["replace", "remove", "add", "copy"]))
        if what == "replace":
            holder[key] = draw(anything)
        elif what == "remove" and key != "type":
            del holder[key]
        elif what == "copy":
            other_holder, other_key = draw(st.sampled_from(places(event)))
            holder[key] = copy.deepcopy(other_holder[other_key])
        elif isinstance(holder, dict):
            holder[draw(st.text(min_size=1, max_size=6))] = draw(anything)
    if not isinstance(event.get("type"), str):
        event["type"] = draw(st.sampled_from(["session.created", "conversation.item.added", "response.done", "new"]))
    return event
