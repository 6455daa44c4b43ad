"""The golden traces through the relay: beta's client before a service that is asked for GA, and the other way round.

The traces are those of the dialect that the client speaks; the service is asked for the other. What a client would
have been told by a service of its own dialect, it is told through the relay.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, get_args

import pytest
from relay_house import at, created, event, relayed, until
from test_traces_on_wires import (
    FOLDERS,
    RULES,
    SECONDS_MAX,
    OverSocket,
    compare,
    converse,
    told,
    without_instructions,
)
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection

from vivavoce.bridge.relay import running as relaying
from vivavoce.bridge.relay.dialects import ClientSide, ServiceSide
from vivavoce.bridge.relay.settings import relay_settings_of
from vivavoce.protocol.codec import Dialect
from vivavoce.server import running
from vivavoce.server.settings import settings_of
from vivavoce.testing.traces import Line, Recorder, load

DIALECTS: tuple[Dialect, ...] = get_args(Dialect)


@pytest.mark.parametrize("service", DIALECTS)
@pytest.mark.parametrize("client", DIALECTS)
def test_every_trace_through_the_relay(client: Dialect, service: Dialect) -> None:
    async def main() -> None:
        async with running(settings_of({"pipeline": "scripted", "port": 0})) as server:
            settings = {"upstream": server.url, "upstream_dialect": service, "port": 0}
            async with relaying(relay_settings_of(settings), environment={}) as relay:
                for rule in RULES:
                    golden = told(load(FOLDERS[client] / f"{rule}.jsonl"))
                    came = await through(golden, rule, client, relay.port)
                    try:
                        compare(*(without_names(without_instructions(trace)) for trace in (golden, came)))
                    except AssertionError as differing:
                        raise AssertionError(f"{rule}: {differing}") from None

    asyncio.run(main())


def without_names(trace: list[Line]) -> list[Line]:
    """The list of all events left out, in the error for one that there is not: it is that of the service's dialect."""
    for line in trace:
        error = line.event.get("error", {})
        if error.get("param") == "type" or "'session.update'" in error.get("message", ""):
            error["message"] = error["message"].partition(" Supported values are:")[0]
    return trace


async def through(golden: list[Line], rule: str, dialect: Dialect, port: int) -> list[Line]:
    query = "intent=transcription" if rule.startswith("t16_") else "model=scripted"
    headers = {"OpenAI-Beta": "realtime=v1"} if dialect == "beta" else {}
    url = f"ws://127.0.0.1:{port}/v1/realtime?{query}"
    async with connect(url, additional_headers=headers, max_size=None) as socket:
        return await asyncio.wait_for(converse(golden, OverSocket(socket)), SECONDS_MAX)


# --- the traces that need a clock: their server's lines, translated ---------------------------------------------------

IN_BOTH = {path.stem for path in FOLDERS["beta"].iterdir() if (FOLDERS["ga"] / path.name).exists()} - set(RULES)
NOT_IN_BETA = {"t15_idle_timeout", "t16_speakers"}
"""Their point is an event that beta has not: nobody can make it up again."""


def translated(trace: list[Line], side: ClientSide | ServiceSide) -> list[Line]:
    """What the other end is told, where the service has said this."""
    recorder = Recorder()
    tell = side.said if isinstance(side, ClientSide) else side.heard
    for line in trace:
        for frame in tell(json.dumps(line.event).encode()) if line.dir == "server" else ():
            recorder.server(line.t_ms, frame)
    return recorder.lines


def without_images(trace: list[Line]) -> list[Line]:
    """The counts of image tokens left out: beta has no images, and does not count them."""
    for line in trace:
        usage = line.event.get("response", {}).get("usage") or {}
        details = usage.get("input_token_details", {})
        for counts in (details, details.get("cached_tokens_details", {})):
            counts.pop("image_tokens", None)
    return trace


def silent(path: str, why: str) -> None:
    """Nobody is told."""


@pytest.mark.parametrize(
    ("client", "rule"),
    [(client, rule) for client in DIALECTS for rule in sorted(IN_BOTH) if client == "beta" or rule not in NOT_IN_BETA],
)
def test_what_the_server_says_in_a_trace_is_in_the_other_dialect_what_it_says_there(client: Dialect, rule: str) -> None:
    side = ServiceSide(silent, strict=False) if client == "ga" else ClientSide("beta", silent, strict=False)
    service: Dialect = "beta" if client == "ga" else "ga"
    came = translated(told(load(FOLDERS[service] / f"{rule}.jsonl")), side)
    golden = [line for line in told(load(FOLDERS[client] / f"{rule}.jsonl")) if line.dir == "server"]
    compare(*(without_images(without_names(trace)) for trace in (golden, came)))


# --- what cannot be expressed -----------------------------------------------------------------------------------------


async def heard_by_service(client: Any, service: Any, *events: dict[str, Any]) -> list[dict[str, Any]]:
    """What the service hears of these events, and of one more that passes as it is."""
    before = len(service.heard)
    for said in (*events, {"type": "input_audio_buffer.clear"}):
        await client.send(json.dumps(said))
    while not service.heard[before:] or "clear" not in str(service.heard[-1]):
        await service.has_heard(len(service.heard) + 1)
    return [json.loads(frame) for frame in service.heard[before:-1]]


def test_a_temperature_is_left_out_before_ga_and_said_once() -> None:
    async def main() -> None:
        async with relayed() as (service, relay), at(relay, beta=True) as client:
            await until(client, "conversation.created")
            update = {"type": "session.update", "session": {"temperature": 0.7, "voice": "alloy"}}
            said = await heard_by_service(client, service, update, update)
            session = {"type": "realtime", "audio": {"output": {"voice": "alloy"}}}
            assert [one["session"] for one in said] == [session, session]
            warning = await event(client)
            assert (warning["type"], warning["param"]) == ("vivavoce.warning", "session.temperature")
            await client.send('{"type":"session.update","session":{"temperature":"hot"},"event_id":"e"}')
            wrong = await event(client)  # and no second warning before it
            assert (wrong["error"]["param"], wrong["error"]["event_id"]) == ("session.temperature", "e")
            assert relay.relay.ledger.counters.warnings.read() == {(): 1}

    asyncio.run(main())


def test_what_beta_has_no_word_for_is_left_out_and_said_once() -> None:
    tools = [{"type": "mcp", "server_label": "x", "server_url": "https://x"}, {"type": "function", "name": "f"}]
    session = {"type": "realtime", "reasoning": {"effort": "low"}, "instructions": "Be brief.", "tools": tools}

    async def main() -> None:
        async with relayed(upstream_dialect="beta") as (service, relay), at(relay) as client:
            await event(client)
            said = await heard_by_service(client, service, {"type": "session.update", "session": session})
            kept = {"instructions": "Be brief.", "tools": [{"type": "function", "name": "f"}]}
            assert [one["session"] for one in said] == [kept]
            assert service.requests[0].headers["OpenAI-Beta"] == "realtime=v1"
            warned = {
                (await event(client))["param"] for _ in range(int(relay.relay.ledger.counters.warnings.read()[()]))
            }
            assert warned == {"session.reasoning", "session.tools[0].type"}

    asyncio.run(main())


@pytest.mark.parametrize("dialect", DIALECTS)
def test_where_it_is_strict_that_is_an_error(dialect: Dialect) -> None:
    is_beta = dialect == "beta"
    session = {"temperature": 0.7} if is_beta else {"type": "realtime", "reasoning": {"effort": "low"}}

    async def main() -> None:
        house = relayed(strict=True, upstream_dialect="ga" if is_beta else "beta")
        async with house as (service, relay), at(relay, beta=is_beta) as client:
            await until(client, "conversation.created" if is_beta else "session.created")
            update = {"type": "session.update", "session": session, "event_id": "mine"}
            assert not await heard_by_service(client, service, update)
            error = (await event(client))["error"]
            assert (error["code"], error["event_id"]) == ("not_expressible", "mine")

    asyncio.run(main())


def test_an_item_that_beta_cannot_say_is_an_error_and_not_dropped() -> None:
    item = {"type": "mcp_approval_response", "id": "i", "approval_request_id": "r", "approve": True}

    async def main() -> None:
        async with relayed(upstream_dialect="beta") as (service, relay), at(relay) as client:
            await event(client)
            create = {"type": "conversation.item.create", "item": item, "event_id": "mine"}
            assert not await heard_by_service(client, service, create)
            assert (await event(client))["error"]["event_id"] == "mine"

    asyncio.run(main())


def test_an_event_that_beta_has_not_is_said_once_and_one_that_nobody_knows_passes() -> None:
    triggered = '{"type":"input_audio_buffer.timeout_triggered","item_id":"i","audio_start_ms":0,"audio_end_ms":1}'
    unknown = '{"type":"future.event", "n":1.0}'

    async def conversation(socket: ServerConnection) -> None:
        await created(socket)
        for frame in (triggered, triggered, unknown):
            await socket.send(frame)

    async def main() -> None:
        async with relayed(conversation) as (_, relay), at(relay, beta=True) as client:
            await until(client, "conversation.created")
            assert (await event(client))["param"] == "input_audio_buffer.timeout_triggered"
            assert await client.recv() == unknown

    asyncio.run(main())


def test_a_delta_is_renamed_and_every_other_byte_stays() -> None:
    frame = '{ "event_id":"e", "type": "response.output_audio.delta" , "delta":"AAAA", "new": 1.0 }'

    async def conversation(socket: ServerConnection) -> None:
        await created(socket)
        await socket.send(frame)

    async def main() -> None:
        async with relayed(conversation) as (_, relay), at(relay, beta=True) as client:
            await until(client, "conversation.created")
            assert await client.recv() == frame.replace("output_audio", "audio")

    asyncio.run(main())
