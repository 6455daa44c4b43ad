"""When a session is renewed: some time before the server's limit on it, at a silence.

Asks how things stand and says when; `Life` knows how another session takes its place. Invariant: as long as the renewal
fails, the session goes on, and it is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from vivavoce.core.conversation import Conversation
from vivavoce.errors import VivavoceError
from vivavoce.protocol.base import given
from vivavoce.protocol.config import RealtimeSessionResource

from .surroundings import Surroundings

log = logging.getLogger(__name__)

RENEW_AGAIN_S = 15.0
"""Wait after a renewal that has failed."""
SILENCE_POLL_S = 0.25
"""How often is looked for a silence in which a session can be renewed."""


async def renew_in_time(
    surroundings: Surroundings, is_silent: Callable[[], bool], renew: Callable[[], Awaitable[None]]
) -> None:
    """Call `renew` before each limit, as long as the server says one; `renew` may find that it is not the moment."""
    conversation = surroundings.caller.conversation
    while True:
        expires_at = _expires_at(conversation)
        left_s = 0.0 if expires_at is None else expires_at - surroundings.wall_s()
        if left_s <= 0:
            return  # the server does not say, or by another clock
        await asyncio.sleep(max(left_s - surroundings.policy.renew_before_s, left_s / 2))
        while _expires_at(conversation) == expires_at:
            if not is_silent():
                await asyncio.sleep(SILENCE_POLL_S)  # that the player is silent is no event
                continue
            try:
                await renew()
            except (VivavoceError, TimeoutError) as error:
                log.warning("the session could not be renewed, and goes on: %s", error)
                await asyncio.sleep(RENEW_AGAIN_S)


def _expires_at(conversation: Conversation) -> int | None:
    """The server's limit on the session, in Unix seconds."""
    session = conversation.session
    if not isinstance(session, RealtimeSessionResource):
        return None
    return given(session.expires_at, None) or None
