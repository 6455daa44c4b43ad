"""What goes wrong between two sockets: each ends as `docs/how-to/relay.md` says, and leaves nothing behind.

Counters are compared: what the relay has read is what it has sent, in order, once, up to the cut.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from relay_house import SECONDS_MAX, at, created, end_of, event, idle, relayed
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from vivavoce.bridge.relay.serving import Running

CLIENTS = 200
AT_ONCE_MAX = 50
FILES = Path("/proc/self/fd")
HANDSHAKE = (
    "GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


def open_files() -> int:
    """How many descriptors this process has; 0 where that cannot be seen."""
    return len(os.listdir(FILES)) if FILES.exists() else 0


@asynccontextmanager
async def leaving_nothing() -> AsyncIterator[None]:
    """After the block there are the tasks and, where that can be seen, the descriptors that there were before."""
    gc.collect()
    tasks, files = asyncio.all_tasks(), open_files()
    yield
    for _ in range(10):  # what was closed is let go in the next turns of the loop
        await asyncio.sleep(0)
    gc.collect()
    assert asyncio.all_tasks() == tasks
    assert open_files() <= files


def settled(relay: Running) -> dict[str, float]:
    """The counters of a relay that has no session left: messages by who sent them, ends by what ended them."""
    relay.relay.metrics()
    assert len(relay.relay) == relay.relay.ledger.open == 0
    counters = relay.relay.ledger.counters
    messages = {who: count for (who,), count in counters.messages.read().items()}
    ends = {f"ended by {by}": count for (by,), count in counters.ends.read().items()}
    return {"client": 0, "service": 0} | messages | ends


@pytest.mark.parametrize("count", [0, 1, 500])
def test_a_kill_of_the_service_loses_nothing_that_was_read(count: int) -> None:
    async def conversation(socket: ServerConnection) -> None:
        for number in range(count):
            await socket.send(json.dumps({"type": "n", "n": number, "fill": "x" * 5_000}))
        socket.transport.abort()

    async def main() -> None:
        async with leaving_nothing(), relayed(conversation) as (_, relay):
            async with at(relay) as client:
                heard: list[dict[str, Any]] = []
                try:
                    while True:
                        heard.append(await event(client))
                except ConnectionClosed:
                    pass
                assert heard[-1]["error"]["code"] == "upstream_lost"
                assert [one["n"] for one in heard[:-1]] == list(range(len(heard) - 1))
                assert (await end_of(client))[0] == 1014
            await idle(relay)
            assert settled(relay) == {"client": 0, "service": len(heard) - 1, "ended by service_lost": 1}

    asyncio.run(main())


def test_a_kill_of_the_client_loses_nothing_that_was_read() -> None:
    async def main() -> None:
        async with leaving_nothing(), relayed() as (service, relay):
            async with at(relay) as client:
                await event(client)
                for number in range(500):
                    await client.send(json.dumps({"type": "n", "n": number, "fill": "x" * 5_000}))
                client.transport.abort()
            await service.ended.wait()
            await idle(relay)
            assert service.ends == [(1001, "")]
            assert [json.loads(said)["n"] for said in service.heard] == list(range(len(service.heard)))
            counters = settled(relay)
            counters.pop("service")
            assert counters == {"client": len(service.heard), "ended by client": 1}

    asyncio.run(main())


@pytest.mark.parametrize("who", ["client", "service"])
def test_a_half_open_connection_is_found_by_its_silence(who: str) -> None:
    """The one side has vanished without a word: its socket stands, and nobody answers pings."""

    async def conversation(socket: ServerConnection) -> None:
        await created(socket)
        if who == "service":
            socket.transport.pause_reading()
            await over.wait()
            socket.transport.abort()

    over = asyncio.Event()

    async def main() -> None:
        async with leaving_nothing(), relayed(conversation, ping_interval_ms=100) as (service, relay):
            if who == "service":
                async with at(relay) as client:
                    await event(client)
                    assert (await event(client))["error"]["code"] == "upstream_lost"
                    assert (await end_of(client))[0] == 1014
            else:
                reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
                writer.write(HANDSHAKE.encode())
                assert b" 101 " in await reader.readline()
                await asyncio.wait_for(service.ended.wait(), SECONDS_MAX)
                assert service.ends == [(1001, "")]
                writer.close()
                await writer.wait_closed()
            over.set()
            await idle(relay)
            assert relay.relay.ledger.counters.ends.read() == {("client" if who == "client" else "service_lost",): 1}

    asyncio.run(main())


PIECES_MAX = 2_000
"""Of 60 KB each: more than all buffers on the way."""


@pytest.mark.parametrize("who", ["client", "service"])
def test_who_has_stopped_reading_finds_all_that_was_sent_to_it_in_order_and_once(who: str) -> None:
    is_over = asyncio.Event()

    async def pour(socket: Any) -> None:
        for number in range(PIECES_MAX):
            await socket.send(json.dumps({"type": "n", "n": number, "fill": "x" * 60_000}))

    async def conversation(socket: ServerConnection) -> None:
        if who == "client":
            await pour(socket)
        else:
            socket.transport.pause_reading()
            await is_over.wait()
            socket.transport.resume_reading()

    async def main() -> None:
        async with leaving_nothing(), relayed(conversation, stall_ms_max=200) as (service, relay):
            async with at(relay) as client:
                if who == "client":
                    client.transport.pause_reading()
                pouring = asyncio.create_task(pour(client) if who == "service" else asyncio.Event().wait())
                (passage,) = relay.relay._passages.values()
                await passage._over
                is_over.set()
                client.transport.resume_reading()
                pouring.cancel()
                heard = [json.loads(message) async for message in client_until_its_end(client)]
                numbers = [one["n"] for one in heard if "n" in one]
            await idle(relay)
            counters = settled(relay)
            if who == "service":
                numbers = [json.loads(said)["n"] for said in service.heard]
                assert (heard[-1]["error"]["code"], client.close_code) == ("upstream_stalled", 1014)
                assert counters == {"client": len(numbers), "service": 0, "ended by upstream_stalled": 1}
            else:
                assert (client.close_code, client.close_reason) == (1008, "The client has stopped reading.")
                assert counters == {"client": 0, "service": len(numbers), "ended by client_stalled": 1}
            assert numbers == list(range(len(numbers)))
            assert 0 < len(numbers) < PIECES_MAX

    asyncio.run(main())


async def client_until_its_end(client: ClientConnection) -> AsyncIterator[str | bytes]:
    """All messages that still come, however the connection ends."""
    try:
        while True:
            yield await asyncio.wait_for(client.recv(), SECONDS_MAX)
    except ConnectionClosed:
        return


def test_two_hundred_come_at_once_and_each_is_carried_once() -> None:
    async def conversation(socket: ServerConnection) -> None:
        await socket.send(await socket.recv())

    async def one(relay: Running, number: int, room: asyncio.Semaphore) -> None:
        async with room, at(relay) as client:
            await client.send(f'{{"type":"n","n":{number}}}')
            assert (await event(client))["n"] == number

    async def main() -> None:
        async with leaving_nothing(), relayed(conversation) as (service, relay):
            room = asyncio.Semaphore(AT_ONCE_MAX)
            await asyncio.gather(*(one(relay, number, room) for number in range(CLIENTS)))
            await idle(relay)
            assert settled(relay) == {"client": CLIENTS, "service": CLIENTS, "ended by client": CLIENTS}
            assert len(service.requests) == CLIENTS
            assert relay.relay.ledger.counters.sessions.read() == {("",): CLIENTS}

    asyncio.run(main())


def test_a_refused_key_leaves_nothing() -> None:
    async def main() -> None:
        async with leaving_nothing(), relayed() as (service, relay):
            service.refusal = (401, {}, b"{}")
            for _ in range(20):
                with pytest.raises(InvalidStatus):
                    await at(relay).__aenter__()
            await idle(relay)
            assert relay.relay.ledger.counters.refusals.read() == {("upstream_refused",): 20}
            assert settled(relay) == {"client": 0, "service": 0}

    asyncio.run(main())


def test_a_client_that_goes_while_the_service_is_dialled_leaves_nothing() -> None:
    """Nobody waits for the answer of a service that never gives one: the dial ends with the client."""
    is_dialled, over = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        is_dialled.set()
        assert await reader.read() == b"", "the relay lets the service go"
        writer.close()
        await writer.wait_closed()
        over.set()

    async def main() -> None:
        async with leaving_nothing(), await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            upstream = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            async with relayed(upstream=upstream, connect_ms_max=600_000) as (_, relay):
                _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
                writer.write(HANDSHAKE.encode())
                async with asyncio.timeout(SECONDS_MAX):
                    await is_dialled.wait()
                    writer.close()
                    await writer.wait_closed()
                    await over.wait()
                    await idle(relay)
                assert settled(relay) == {"client": 0, "service": 0}

    asyncio.run(main())


def test_a_relay_that_stops_closes_every_session_with_1001() -> None:
    async def main() -> None:
        async with leaving_nothing():
            async with relayed() as (service, relay):
                client = await at(relay).__aenter__()
                await event(client)
            assert await end_of(client) == (1001, "The relay is stopping.")
            assert service.ends == [(1001, "The relay is stopping.")]
            await client.close()

    asyncio.run(main())
