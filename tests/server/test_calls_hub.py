"""The lines of one call, over memory: who is told what, who comes late, who does not read, and how it ends."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import pytest

from vivavoce.errors import ConnectionClosed, LocalProtocolError
from vivavoce.server import hub as hubs
from vivavoce.server.auth import Refusal
from vivavoce.server.hub import Hub
from vivavoce.testing.virtual_time import run
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair

CREATED = b'{"type":"session.created","event_id":"event_a","session":{"type":"realtime","instructions":"one"}}'
UPDATED = b'{"type":"session.updated","event_id":"event_b","session":{"type":"realtime","instructions":"two"}}'


@dataclass
class Lines:
    hub: Hub
    peer: Transport
    """The client's end of the data channel."""
    tasks: list[asyncio.Task[None]]

    async def attach(self, messages_max: int = 256) -> Transport:
        client, server = pair(messages_max=messages_max)
        self.hub.check_room()
        self.tasks.append(asyncio.create_task(self.hub.carry(server)))
        await asyncio.sleep(0)
        return client


@asynccontextmanager
async def lines(*, is_filtered: bool = False) -> AsyncIterator[Lines]:
    peer, channel = pair(messages_max=10_000)
    counted = itertools.count(1)
    hub = Hub(channel, lambda prefix: f"{prefix}_{next(counted)}", is_filtered=is_filtered)
    one = Lines(hub, peer, [])
    yield one
    await hub.close(1000, "over")
    if one.tasks:
        await asyncio.wait(one.tasks)
    assert len(hub) == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_what_is_said_goes_to_every_line_and_what_comes_from_any_is_heard() -> None:
    async def main() -> None:
        async with lines() as call:
            await call.hub.send(CREATED)
            first, second = await call.attach(), await call.attach()
            await call.hub.send(b'{"type":"response.created"}')
            assert [await call.peer.receive() for _ in range(2)] == [CREATED.decode(), '{"type":"response.created"}']
            for sideband in (first, second):
                assert json.loads(await sideband.receive())["type"] == "session.created"
                assert await sideband.receive() == '{"type":"response.created"}'
            for number, client in enumerate((call.peer, first, second)):
                await client.send(b"%d" % number)
                assert await call.hub.receive() == str(number)

    run(main())


def test_a_line_that_comes_later_is_told_the_session_as_it_is() -> None:
    async def main() -> None:
        async with lines() as call:
            early = await call.attach()
            await call.hub.send(CREATED)
            assert await early.receive() == CREATED.decode(), "it was there when the session began"
            await call.hub.send(UPDATED)
            late = json.loads(await (await call.attach()).receive())
            assert (late["type"], late["session"]["instructions"]) == ("session.created", "two")
            assert late["event_id"] not in ("event_a", "event_b")

    run(main())


def test_only_so_many_lines_are_attached_and_none_to_a_call_that_is_over() -> None:
    async def main() -> None:
        async with lines() as call:
            clients = [await call.attach() for _ in range(hubs.SIDEBANDS_MAX)]
            with pytest.raises(Refusal) as refused:
                call.hub.check_room()
            assert refused.value.detail.code == "too_many_sidebands"
            await clients[0].close()
            await asyncio.wait(call.tasks[:1])
            call.hub.check_room()
            call.hub.end(ConnectionClosed(1000, "over"))
            with pytest.raises(Refusal) as refused:
                call.hub.check_room()
            assert (refused.value.detail.code, refused.value.status) == ("call_ended", 404)

    run(main())


def test_a_sideband_that_does_not_read_is_let_go_and_holds_up_nobody() -> None:
    async def main() -> None:
        async with lines() as call:
            lazy, keen = await call.attach(messages_max=4), await call.attach()
            for number in range(hubs.SIDEBAND_MESSAGES_MAX + 10):
                await call.hub.send(b'{"type":"x","n":%d}' % number)
                await keen.receive()
            await asyncio.wait(call.tasks[:1])
            assert len(call.hub) == 1
            for _ in range(4):
                await lazy.receive()
            with pytest.raises(ConnectionClosed) as closed:
                await lazy.receive()
            assert closed.value.code == 1008
            assert json.loads(await call.peer.receive())["n"] == 0, "the peer has it all"

    run(main())


def test_when_the_peer_is_gone_the_session_learns_why_and_every_line_is_closed() -> None:
    async def main() -> None:
        async with lines() as call:
            sideband = await call.attach()
            await call.peer.close(1000, "hung up")
            with pytest.raises(ConnectionClosed) as gone:
                await call.hub.receive()
            assert (gone.value.code, gone.value.reason) == (1000, "hung up")
            with pytest.raises(ConnectionClosed):
                await call.hub.send(b"{}")
            assert await sideband.receive() == "{}", "the others are told to the end"
            await call.hub.close(gone.value.code, gone.value.reason)
            with pytest.raises(ConnectionClosed) as closed:
                await sideband.receive()
            assert (closed.value.code, closed.value.reason) == (1000, "hung up")

    run(main())


def test_a_line_that_does_not_read_its_end_is_dropped() -> None:
    async def main() -> None:
        async with lines() as call:
            await call.attach(messages_max=1)
            for _ in range(10):
                await call.hub.send(b'{"type":"x"}')
            before = asyncio.get_running_loop().time()
            await call.hub.close(1001, "The server is stopping.")
            await asyncio.wait(call.tasks)
            assert asyncio.get_running_loop().time() - before <= hubs.CLOSE_S_MAX + 1

    run(main())


def test_with_the_filter_the_peer_is_told_little() -> None:
    async def main() -> None:
        async with lines(is_filtered=True) as call:
            sideband = await call.attach()
            for type in ("session.created", "response.created", "output_audio_buffer.started"):
                await call.hub.send(b'{"type":"%s"}' % type.encode())
            assert await call.peer.receive() == '{"type":"output_audio_buffer.started"}'
            assert [json.loads(await sideband.receive())["type"] for _ in range(3)][1] == "response.created"

    run(main())


class Narrow:
    """A channel that takes little at a time."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    async def send(self, message: bytes) -> None:
        if len(message) > 500:
            raise LocalProtocolError("too long")
        self.said.append(json.loads(message))

    async def receive(self) -> str:
        raise ConnectionClosed(1000)

    async def close(self, code: int = 1000, reason: str = "") -> None: ...


def test_what_does_not_fit_through_the_data_channel_is_told_as_an_error() -> None:
    async def main() -> None:
        channel = Narrow()
        hub = Hub(channel, lambda prefix: f"{prefix}_1")
        await hub.send(b'{"type":"response.done","x":"' + b"y" * 600 + b'"}')
        (error,) = channel.said
        assert error["type"] == "error"
        assert "event_too_large" in str(error)
        assert "response.done" in str(error)
        await hub.close()

    run(main())


def test_an_item_that_is_too_long_for_the_data_channel_is_retrieved_without_its_sound() -> None:
    async def main(text: str, *told: str) -> None:
        channel = Narrow()
        hub = Hub(channel, lambda prefix: f"{prefix}_1")
        part = {"type": "input_audio", "transcript": text, "audio": "A" * 600}
        item = {"id": "item_1", "type": "message", "role": "user", "content": [part]}
        event = {"type": "conversation.item.retrieved", "event_id": "event_1", "item": item}
        await hub.send(json.dumps(event, separators=(",", ":")).encode())
        assert [said["type"] for said in channel.said] == list(told)
        if told[0] == event["type"]:
            del part["audio"]
            assert channel.said == [event]
        await hub.close()

    run(main("Hello?", "conversation.item.retrieved"))
    run(main("Hello?" * 100, "error"))


EXPIRED = b'{"type":"error","error":{"type":"invalid_request_error","code":"session_expired","message":"60 minutes"}}'


@pytest.mark.parametrize(
    ("code", "before", "told"),
    [(1001, CREATED, ["session_ended"]), (1011, CREATED, ["session_ended"]), (1000, CREATED, []), (1001, EXPIRED, [])],
)
def test_a_peer_learns_why_its_call_is_over(code: int, before: bytes, told: list[str]) -> None:
    """A data channel has no close codes."""

    async def main() -> None:
        async with lines() as call:
            await call.hub.send(before)
            await call.peer.receive()
            await call.hub.close(code, "The server is stopping.")
            said = []
            with suppress(ConnectionClosed):
                while True:
                    said.append(json.loads(await call.peer.receive())["error"])
            assert [error["code"] for error in said] == told
            assert all(error["type"] == "server_error" for error in said)

    run(main())


def test_lines_that_come_at_one_moment_do_not_pass_the_limit() -> None:
    """Each handshake takes time, between the look whether there is room and the place that it takes."""

    async def main() -> None:
        async with lines() as call:
            call.hub.check_room()
            servers = [pair()[1] for _ in range(hubs.SIDEBANDS_MAX + 2)]
            call.tasks += [asyncio.create_task(call.hub.carry(server)) for server in servers]
            await asyncio.sleep(0)
            assert len(call.hub) == hubs.SIDEBANDS_MAX
            codes = [cast(Refusal, task.exception()).detail.code for task in call.tasks[hubs.SIDEBANDS_MAX :]]
            assert codes == ["too_many_sidebands"] * 2

    run(main())


def test_a_line_whose_handshake_ends_after_the_call_is_told_so_at_once() -> None:
    async def main() -> None:
        async with lines() as call:
            call.hub.check_room()
            await call.hub.close(1000, "over")
            began = asyncio.get_running_loop().time()
            with pytest.raises(Refusal) as refused:
                await call.hub.carry(pair()[1])
            assert refused.value.detail.code == "call_ended"
            assert asyncio.get_running_loop().time() == began

    run(main())
