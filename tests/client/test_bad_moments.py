"""What applications do at bad moments, and what of theirs fails: the session stays whole, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from row_sessions import PlayedServer, played, record, run

import vivavoce
from vivavoce.client.outgoing import OUTGOING_BYTES_MAX
from vivavoce.client.player import VirtualPlayer
from vivavoce.errors import ConnectionClosed, EngineError, LocalProtocolError
from vivavoce.transports import Transport

CALL = {"id": "item_1", "type": "function_call", "status": "completed", "call_id": "call_1", "arguments": "{}"}
VAD = {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad"}}}}
LIMITS = {"type": "rate_limits.updated", "rate_limits": []}


async def call(server: PlayedServer, name: str, status: str = "completed") -> None:
    """A response that calls a function, to its end."""
    item = {**CALL, "name": name}
    response = {"object": "realtime.response", "id": "resp_1", "conversation_id": "conv_1"}
    await server.say({"type": "response.created", "response": {**response, "status": "in_progress", "output": []}})
    await server.say({"type": "conversation.item.added", "item": {**item, "status": "in_progress"}})
    await server.say({"type": "response.output_item.done", "response_id": "resp_1", "output_index": 0, "item": item})
    await server.say({"type": "response.done", "response": {**response, "status": status, "output": [item]}})


async def heard_until(server: PlayedServer, type: str) -> dict[str, Any]:
    """The client's next event of this type."""
    while (event := await server.hear())["type"] != type:
        pass
    return event


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_session_ends_although_whoever_ends_it_is_cancelled() -> None:
    async def main() -> None:
        async with played() as (server, session):
            while session._life is not None and not session._life.outgoing.bytes_waiting:
                session.append_audio(bytes(48_000))  # nobody reads them, so that goodbye takes its time
                await asyncio.sleep(0)
            ending = asyncio.ensure_future(session.disconnect())
            await asyncio.sleep(0)
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
            with suppress(ConnectionClosed):
                while True:
                    await server.ends[-1].receive()
            await session.disconnect()
            assert not session.is_connected

    run(main())


def test_audio_that_is_awaited_after_the_end_does_not_wait_for_room() -> None:
    async def main() -> None:
        async with played() as (server, session):
            assert session._life is not None
            acks = [session.append_audio(bytes(4 * 1024 * 1024)) for _ in range(2)]
            assert session._life.outgoing.bytes_waiting > OUTGOING_BYTES_MAX
            await server.ends[-1].close(1001)
            await session.wait_for("connection.closed")
            await acks[-1]  # it has been taken, and nobody is left who could make room

    run(main())


class Device(VirtualPlayer):
    """A player that has to be opened, and says on which thread it was."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.opened_on: list[int] = []

    def open(self) -> None:
        self.opened_on.append(threading.get_ident())
        if self.error is not None:
            raise self.error


def test_a_device_is_opened_with_the_session_and_not_on_its_loop() -> None:
    async def main() -> None:
        device = Device()
        async with played(player=device) as (_, session):
            assert session.is_connected
            assert len(device.opened_on) == 1
            assert device.opened_on[0] != threading.get_ident()

    run(main())


def test_a_device_that_cannot_be_opened_is_told_before_anything_is_dialled() -> None:
    async def main() -> None:
        server, device = PlayedServer(), Device(EngineError("in use", code="device_failed"))
        session = vivavoce.connect("m", dial=server.dial, player=device, reconnect=False)
        with pytest.raises(EngineError, match="in use"):
            await session.connect()
        assert not server.ends
        device.error = None
        await session.connect()
        assert session.is_connected
        await session.disconnect()

    run(main())


def test_a_session_that_is_ended_while_it_is_opened_leaves_no_connection_behind() -> None:
    async def main() -> None:
        server, may_go_on = PlayedServer(), asyncio.Event()

        async def dial(headers: Mapping[str, str]) -> Transport:
            await may_go_on.wait()
            return await server.dial(headers)

        session = vivavoce.connect("m", dial=dial, reconnect=False)
        opening = asyncio.ensure_future(session.connect())
        await asyncio.sleep(0)
        await session.disconnect()
        may_go_on.set()
        with pytest.raises(ConnectionClosed):
            await opening
        with pytest.raises(ConnectionClosed):
            await server.hear()
        assert asyncio.all_tasks() == {asyncio.current_task(), *asyncio.all_tasks() - {opening}}

    run(main())


def test_a_tool_may_end_the_session() -> None:
    async def main() -> None:
        async with played() as (server, session):
            is_over = asyncio.Event()

            async def hang_up() -> None:
                await session.disconnect()
                is_over.set()

            session.add_tool(hang_up)
            await call(server, "hang_up")
            await is_over.wait()
            assert not session.is_connected

    run(main())


def test_tools_that_end_with_the_session_ask_for_no_response() -> None:
    async def main() -> None:
        async with played() as (server, session):
            has_begun = asyncio.Event()

            async def wait() -> None:
                has_begun.set()
                await asyncio.Event().wait()

            session.add_tool(wait)
            await call(server, "wait")
            await has_begun.wait()
            await session.disconnect()
            types = []
            with suppress(ConnectionClosed):
                while True:
                    types.append((await server.hear())["type"])
            assert types == ["session.update"]

    run(main())


def test_a_call_that_is_ended_before_it_could_begin_is_answered() -> None:
    async def main() -> None:
        async with played() as (server, session):
            has_begun = []

            @vivavoce.tool(on_interruption="cancel")
            async def slow() -> None:
                has_begun.append(True)

            session.add_tool(slow)
            await server.say({"type": "session.updated", "session": VAD})
            await call(server, "slow")
            await server.say({"type": "input_audio_buffer.speech_started", "item_id": "item_2", "audio_start_ms": 0})
            answer = await heard_until(server, "conversation.item.create")
            assert "interrupted" in answer["item"]["output"]
            assert not has_begun

    run(main())


@pytest.mark.parametrize("code", [1000, 1011])
def test_asking_ends_with_the_session(code: int) -> None:
    async def main() -> None:
        async with played() as (server, session):

            async def look() -> str:
                return "nothing"

            session.add_tool(look)
            asking = asyncio.ensure_future(session.ask("What is there?"))
            await heard_until(server, "response.create")
            await call(server, "look")
            await heard_until(server, "response.create")
            await server.ends[-1].close(code)
            with pytest.raises(ConnectionClosed):
                await asking

    run(main())


def test_asking_does_not_wait_for_what_nobody_asks_for_after_a_cancelled_answer() -> None:
    async def main() -> None:
        async with played() as (server, session):

            async def look() -> str:
                return "nothing"

            session.add_tool(look)
            asking = asyncio.ensure_future(session.ask("What is there?"))
            await heard_until(server, "response.create")
            await call(server, "look", status="cancelled")
            assert await asking == ""

    run(main())


def test_an_acknowledgement_may_be_awaited_after_the_session_was_reset() -> None:
    async def main() -> None:
        async with played() as (server, session):
            ack = session.create_response()
            await call(server, "unknown")
            await session.wait_for("response.done")
            await session.reset()
            assert (await ack).id == "resp_1"

    run(main())


def test_raw_messages_are_refused_where_nobody_would_get_them() -> None:
    async def main() -> None:
        async with played() as (_, session):
            await session.disconnect()
            with pytest.raises(ConnectionClosed):
                session.send_raw("{}")
        server = PlayedServer()
        with pytest.raises(LocalProtocolError):
            vivavoce.connect("m", dial=server.dial).send_raw("{}")

    run(main())


# --- what fails -------------------------------------------------------------------------------------------------------


def test_a_listener_that_waits_for_what_is_cancelled_silences_nobody() -> None:
    async def main() -> None:
        async with played() as (server, session):
            errors = record(session, "error")

            @session.on("rate_limits.updated")
            async def impatient(event: object) -> None:
                task = asyncio.ensure_future(asyncio.Event().wait())
                task.cancel()
                await task

            told = record(session, "rate_limits.updated")
            for _ in range(2):
                await server.say(LIMITS)
                await session.wait_for("rate_limits.updated")
            await session.disconnect()
            assert len(told) == 2
            assert len(errors) == 2
            assert isinstance(errors[0].exception, asyncio.CancelledError)

    run(main())


def test_a_player_that_cannot_stop_does_not_end_the_session() -> None:
    class Broken:
        is_playing = False

        def play(self, item_id: str, audio: bytes, format: object) -> None:
            """Nothing sounds."""

        def stop(self) -> tuple[()]:
            raise OSError("no such device any more")

    async def main() -> None:
        async with played(player=Broken()) as (server, session):
            errors = record(session, "error")
            session.interrupt()
            await server.say({"type": "session.updated", "session": VAD})
            await server.say({"type": "input_audio_buffer.speech_started", "item_id": "item_2", "audio_start_ms": 0})
            await session.wait_for("input_audio_buffer.speech_started")
            assert session.is_connected
            await session.disconnect()
            assert [error.error.code for error in errors] == ["player_failed"]

    run(main())


def test_a_hook_that_fails_does_not_keep_anything_from_being_sent_or_read() -> None:
    def hook(source: str, frame: str | bytes) -> None:
        raise ValueError(source)

    async def main() -> None:
        async with played(on_raw=hook) as (server, session):
            session.append_audio(bytes(2))
            assert (await server.hear())["type"] == "input_audio_buffer.append"
            await server.say(LIMITS)
            await session.wait_for("rate_limits.updated")

    run(main())
