"""Bring a fresh session to where the old one was: say what there is to say, and wait until the server has taken it.

Runs on a connection of its own, before the application sees it. Invariant: when `restore` returns, every event that it
sent has been acknowledged or refused, and the conversation it returns is the fold of what the server has said.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from vivavoce.core.caller.answers import Answers
from vivavoce.core.caller.messages import CallerEffect, Refuse
from vivavoce.core.conversation import Conversation
from vivavoce.errors import ServerError
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.client_codec import ClientCodec
from vivavoce.transports import Transport

log = logging.getLogger(__name__)

RESTORE_S_MAX = 30.0
"""Time for the server to take it all. Then the connection is given up."""


def server_error(error: ev.ErrorDetail) -> ServerError:
    """An `error` event as an exception."""
    return ServerError(
        error.message,
        type=error.type,
        code=given(error.code, None),
        param=given(error.param, None),
        event_id=given(error.event_id, None),
    )


async def restore(
    transport: Transport,
    codec: ClientCodec,
    events: Iterable[ev.SessionUpdate | ev.ConversationItemCreate],
    first: str | bytes | None = None,
) -> Conversation:
    """Tell a fresh session these events. What it refuses is left out, with a warning in the log.

    Raises `ServerError` where there is no session, `ConnectionClosed`, and `TimeoutError` after `RESTORE_S_MAX`.
    """
    async with asyncio.timeout(RESTORE_S_MAX):
        conversation = Conversation()
        created = codec.decode(await transport.receive() if first is None else first)
        if isinstance(created, ev.ErrorEvent):
            raise server_error(created.error)
        conversation.apply(created)
        settled: list[CallerEffect] = []
        answers = Answers(settled.append, 0)
        frames = []
        for number, event in enumerate(events, 1):
            answers.expect(event, number, 0)
            frames.append(codec.encode(event))
        sending = asyncio.create_task(_send_all(transport, frames))
        try:
            while len(answers):
                heard = codec.decode(await transport.receive())
                conversation.apply(heard)
                if isinstance(heard, ev.ErrorEvent):
                    answers.refused(heard.error)
                elif not isinstance(heard, ev.Unknown):
                    answers.take(heard)
            await sending
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    for effect in settled:
        if isinstance(effect, Refuse):
            log.warning("the new session did not take a part of the conversation: %s", effect.error.message)
    return conversation


async def _send_all(transport: Transport, frames: list[bytes]) -> None:
    for frame in frames:
        await transport.send(frame)
