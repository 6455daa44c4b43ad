"""By what a response says which request it answers, where that is not plain: a pair of its `metadata`.

Put on where a request is sent, taken off before the application sees the response. `raw`, the events under `client.*`
and `conversation.responses` have it as it travels. Invariant: pairs of the application's own stay as they are.
"""

from __future__ import annotations

from typing import TypeVar

from msgspec import structs

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.config import METADATA_PAIRS_MAX
from vivavoce.protocol.items import Response

E = TypeVar("E", bound=ev.ResponseCreated | ev.ResponseDone)

TAG = "vivavoce_request"
"""The key. The value is the id of the request's event."""


def tagged(event: ev.ResponseCreate) -> ev.ResponseCreate | None:
    """The same request with its tag; None where there is no room for it."""
    params = given(event.response, ev.ResponseParams())
    own = given(params.metadata, None) or {}
    if len(own) >= METADATA_PAIRS_MAX:
        return None
    params = structs.replace(params, metadata={**own, TAG: given(event.event_id, "")})
    return structs.replace(event, response=params)


def tag_of(response: Response) -> str | None:
    """The id of the request that it answers, if it says."""
    return (given(response.metadata, None) or {}).get(TAG)


def untagged(event: E) -> E:
    """The same event without the tag; `raw` stays what it was."""
    if tag_of(event.response) is None:
        return event
    own = {key: value for key, value in (given(event.response.metadata, None) or {}).items() if key != TAG}
    shown = structs.replace(event, response=structs.replace(event.response, metadata=own or None))
    structs.force_setattr(shown, "raw_frame", event.raw)
    return shown
