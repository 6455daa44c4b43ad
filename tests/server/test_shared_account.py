"""One account of several sessions: however they end, it has lost what they used, and no reservation is left over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from test_serve import is_true_soon, message, receive, scripted, socket_to, until, within_time
from websockets.asyncio.client import ClientConnection

from vivavoce.engines.scripted import ScriptedSettings, scripted_pipeline
from vivavoce.server import Server, running

TOKENS = 1_000_000
ANSWER = json.dumps({"type": "response.create", "response": {"output_modalities": ["text"], "max_output_tokens": 500}})


End = Callable[[Server, ClientConnection], Awaitable[None]]


async def done(server: Server, socket: ClientConnection) -> None:
    await until(socket, "response.done")


async def cancelled(server: Server, socket: ClientConnection) -> None:
    await socket.send('{"type": "response.cancel"}')
    await until(socket, "response.done")


async def gone(server: Server, socket: ClientConnection) -> None:
    await until(socket, "response.output_text.delta")
    socket.transport.abort()


async def gone_at_once(server: Server, socket: ClientConnection) -> None:
    socket.transport.abort()


async def stopped(server: Server, socket: ClientConnection) -> None:
    await until(socket, "response.output_text.delta")
    server.app.state.sessions.stop()


@pytest.mark.parametrize(
    ("end", "fail_at_piece"),
    [(done, None), (cancelled, None), (gone, None), (gone_at_once, None), (stopped, None), (done, 1), (done, 3)],
)
def test_the_account_loses_what_the_sessions_used(end: End, fail_at_piece: int | None) -> None:
    async def main() -> None:
        model = ScriptedSettings(piece_delay_s=0.01, fail_at_piece=fail_at_piece)
        settings = scripted(rate_limits={"tokens_per_minute": TOKENS})
        async with running(settings, pipelines={"scripted": scripted_pipeline(language_model=model)}) as server:
            sessions = server.app.state.sessions
            account = sessions.accounts.of("")
            account.tokens._per_s = 1e-9  # time gives nothing back here
            async with socket_to(server) as one, socket_to(server) as other:
                bills = [runtime.session.bill for runtime in sessions]
                for socket in (one, other):
                    await receive(socket)
                    await socket.send(message("Tell me about the sea, the birds above it and the fish in it."))
                    await socket.send(ANSWER)
                    await until(socket, "response.created")
                await asyncio.gather(*(end(server, socket) for socket in (one, other)))
            assert await is_true_soon(lambda: not len(sessions))
            used = 0
            for bill in bills:
                assert bill.input_tokens > 0 or fail_at_piece == 1
                used += bill.input_tokens + bill.output_tokens
            assert TOKENS - account.tokens._level == pytest.approx(used, abs=1e-3)

    within_time(main())
