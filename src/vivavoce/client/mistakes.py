"""What is wrong with the API's JSON that somebody has written: in the words of the API, with what was probably meant.

A configuration, an item, a part of one is put where it belongs in an event, and that is read as a server would read it:
a name of beta, a misspelt type, a value that does not exist are told as servers tell them, only earlier. Imported when
there is a mistake, and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from vivavoce.protocol.events import ErrorDetail
from vivavoce.protocol.ga import GA, GA_DECODERS
from vivavoce.protocol.violations import read

__all__ = ["complaint"]


def _configured(**session: Any) -> Any:
    return {"type": "session.update", "session": {"type": "realtime", **session}}


_PLACES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "event": lambda event: event,
    "session": lambda session: {"type": "session.update", "session": session},
    "transcription": lambda value: _configured(audio={"input": {"transcription": value}}),
    "turn_detection": lambda value: _configured(audio={"input": {"turn_detection": value}}),
    "tools": lambda tool: _configured(tools=[tool]),
    "item": lambda item: {"type": "conversation.item.create", "item": item},
    "content": lambda part: {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "user", "content": [part]},
    },
    "response": lambda response: {"type": "response.create", "response": response},
    "input": lambda item: {"type": "response.create", "response": {"input": [item]}},
}


def complaint(value: Mapping[str, Any], what: str) -> str | None:
    """What a server would say about `value` as a `what`; None where it would take it."""
    try:
        frame = msgspec.json.encode(_PLACES[what](value)).decode()
    except (KeyError, TypeError, ValueError):  # no place of its own, or no JSON: a set of objects, say
        return None
    found = read(frame, GA_DECODERS[True], GA[True])
    if not isinstance(found, ErrorDetail):
        return None
    is_told = found.param is None or f"'{found.param}'" in found.message
    return found.message if is_told else f"{found.param}: {found.message}"
