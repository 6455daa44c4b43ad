"""A session that is opened again after its end, from wherever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest

from vivavoce import Session, connect
from vivavoce.core.session import Session as Machine
from vivavoce.engines.scripted import scripted_pipeline
from vivavoce.errors import ConnectionClosed
from vivavoce.protocol.codec import ServerCodec
from vivavoce.server.runtime import Runtime
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.virtual_time import run
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair

ends: list[Transport] = []


async def dial(extra: Mapping[str, str]) -> Transport:
    client_end, server_end = pair(messages_max=1_000)
    machine = Machine(id="sess_1", model="m", ids=counting_ids(), expires_at=0)
    asyncio.create_task(Runtime(machine, scripted_pipeline(), ServerCodec("ga"), server_end).run())  # noqa: RUF006
    ends.append(server_end)
    return client_end


def alone(main: Callable[[Session], Awaitable[None]]) -> None:
    """Run it with a session; in the end no task is left."""

    async def watched() -> None:
        session = connect("m", dial=dial)
        await main(session)
        await asyncio.sleep(60)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(watched())


async def ended_by_the_server(session: Session) -> None:
    await ends[-1].close(1000)
    async for _ in session:
        pass


def test_b1_after_the_server_has_ended_it_a_session_is_opened_again_and_listeners_hear_each_event_once() -> None:
    async def main(session: Session) -> None:
        told: list[str] = []

        @session.on("response.*")
        async def slowly(event: object) -> None:
            await asyncio.sleep(0.1)
            told.append(getattr(event, "type", ""))

        await session.connect()
        await ended_by_the_server(session)
        await session.connect()
        await session.ask("Hello")
        await session.disconnect()
        assert told[0] == "response.created"
        assert told[-1] == "response.done"
        assert told.count("response.created") == told.count("response.done") == 1

    alone(main)


@pytest.mark.parametrize("by", ["disconnect", "the server"])
def test_b1_a_listener_may_open_the_session_again(by: str) -> None:
    async def main(session: Session) -> None:
        again = asyncio.Event()
        running, most = 0, 0

        @session.once("connection.closed")
        async def reopen(event: object) -> None:
            if by == "disconnect":
                await session.disconnect()
            await session.connect()
            again.set()

        @session.on("response.*")
        async def listen(event: object) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.1)
            running -= 1

        await session.connect()
        await ended_by_the_server(session)
        await again.wait()
        await session.ask("Hello")
        await session.disconnect()
        assert most == 1  # one after the other, still

    alone(main)


def test_b1_a_session_lives_in_one_event_loop_after_the_other() -> None:
    session = connect("m", dial=dial)
    told: list[str] = []
    session.on("response.done", lambda event: told.append(event.type))

    async def main() -> None:
        async with session:
            await session.ask("Hello")

    run(main())
    run(main())
    assert told == ["response.done"] * 2


def test_b1_after_its_end_here_a_session_says_who_has_ended_it_and_what_opens_it() -> None:
    async def main(session: Session) -> None:
        said = "ended here; connect\\(\\) opens it again"
        await session.connect()
        waiting = asyncio.ensure_future(session.wait_for("mcp_list_tools.failed"))
        await asyncio.sleep(0)
        await session.disconnect()
        with pytest.raises(ConnectionClosed, match=said):
            session.create_response()
        with pytest.raises(ConnectionClosed, match=said):
            await session.wait_for("*")
        with pytest.raises(ConnectionClosed, match=said):
            await waiting
        with pytest.raises(ConnectionClosed, match=said) as ended:
            [await session.recv() for _ in range(1_000)]
        assert ended.value.code == 1000
        with pytest.raises(ConnectionClosed) as told:
            [await ends[-1].receive() for _ in range(1_000)]
        assert told.value.reason == "", "the server need not know"
        await session.connect()
        await ended_by_the_server(session)
        with pytest.raises(ConnectionClosed) as ended:
            session.create_response()
        assert "here" not in str(ended.value)
        await session.disconnect()

    alone(main)
