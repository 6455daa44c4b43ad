"""Hooks, the allow-list, sessions that a short-lived key configures, and tools that are answered in the relay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from relay_house import Service, at, created, event, relayed, until
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection

from vivavoce import tool
from vivavoce.bridge.relay import Refused, Visit
from vivavoce.bridge.relay import running as relaying
from vivavoce.bridge.relay.serving import Running
from vivavoce.bridge.relay.settings import relay_settings_of
from vivavoce.errors import SettingsError
from vivavoce.testing.real_server import RealServer

Json = dict[str, Any]
RAW = '{"type":"conversation.item.create" ,"item":{"type":"message","id":"kept"}}'


class Censor:
    """Sees items and answers to them: refuses, changes, drops, doubles and injects by what they say."""

    client_types: Set[str] = frozenset({"conversation.item.create"})
    server_types: Set[str] = frozenset({"conversation.item.added"})

    def __init__(self, visit: Visit) -> None:
        self.visit = visit

    def client_said(self, event: Json) -> Any:
        match event["item"].get("id"):
            case "bad":
                raise Refused("Not that.", code="censored", param="item.id")
            case "changed":
                return {**event, "item": {"type": "message", "id": "other"}}
            case "gone":
                return []
            case "doubled":
                return [event, event]
            case "told":
                self.visit.to_client({"type": "conversation.item.added", "item": {"id": self.visit.model}})
                self.visit.to_service({"type": "response.create"})
            case "over":
                self.visit.end(4001, "enough")
            case "broken":
                raise RuntimeError
        return None

    def server_said(self, event: Json) -> Any:
        return {**event, "item": {"id": "seen"}}


async def say(client: ClientConnection, item_id: str) -> None:
    create = {"type": "conversation.item.create", "event_id": "mine", "item": {"type": "message", "id": item_id}}
    await client.send(json.dumps(create))


def test_a_policy_sees_changes_refuses_and_injects() -> None:
    async def main() -> None:
        async with relayed(policies=[Censor]) as (service, relay), at(relay) as client:
            await event(client)
            await client.send(RAW)
            await say(client, "bad")
            error = (await event(client))["error"]
            assert (error["code"], error["param"], error["event_id"]) == ("censored", "item.id", "mine")
            for item_id in ("changed", "gone", "doubled", "told"):
                await say(client, item_id)
            assert (await event(client))["item"] == {"id": "m"}
            await service.has_heard(6)
            assert service.heard[0] == RAW
            said = [json.loads(frame) for frame in service.heard[1:]]
            assert [one.get("item", {}).get("id") for one in said] == ["other", "doubled", "doubled", None, "told"]
            await say(client, "over")
            await client.wait_closed()
            assert (client.close_code, client.close_reason) == (4001, "enough")
            await service.ended.wait()

    asyncio.run(main())


def test_a_policy_changes_what_the_service_says_and_no_other_byte() -> None:
    frame = '{"type":"n",  "x":1.0}'

    async def conversation(socket: ServerConnection) -> None:
        await socket.send(frame)
        await socket.send('{"type":"conversation.item.added","item":{"id":"secret"}}')

    async def main() -> None:
        async with relayed(conversation, policies=[Censor]) as (_, relay), at(relay) as client:
            assert await client.recv() == frame
            assert (await event(client))["item"] == {"id": "seen"}

    asyncio.run(main())


def test_a_policy_that_fails_ends_its_session_and_says_nothing_of_it() -> None:
    async def main() -> None:
        async with relayed(policies=[Censor]) as (_, relay), at(relay) as client:
            await event(client)
            await say(client, "broken")
            assert (await event(client))["error"]["code"] == "relay_failed"
            await client.wait_closed()
            assert client.close_code == 1011

    asyncio.run(main())


@pytest.mark.parametrize(
    "frame",
    [
        '{"type":"conversation.item.create","item":{"id":"ok"},"item":{"id":"bad"}}',
        '{"type":"input_audio_buffer.append","audio":"","type":"conversation.item.create","item":{"id":"bad"}}',
        '{"type":"input_audio_buffer.append","audio":"","\\u0074ype":"conversation.item.create"}',
        '{"type":"input_audio_buffer.append","audio":"",}"type"',
        '["type"]',
    ],
)
def test_what_two_parsers_could_take_for_two_events_does_not_pass_a_policy(frame: str) -> None:
    async def main() -> None:
        async with relayed(policies=[Censor]) as (service, relay), at(relay) as client:
            await event(client)
            await client.send(frame)
            assert (await event(client))["error"]["code"] == "invalid_json"
            assert not service.heard

    asyncio.run(main())


def test_policies_are_named_in_the_settings() -> None:
    async def main() -> None:
        async with relayed(policies_of_settings=["test_relay_policies:Censor"]) as (_, relay), at(relay) as client:
            await event(client)
            await say(client, "bad")
            assert (await event(client))["error"]["code"] == "censored"

    asyncio.run(main())


@pytest.mark.parametrize("name", ["nowhere:x", "json:nothing", "json", "json:__name__"])
def test_a_policy_that_cannot_be_had_is_refused(name: str) -> None:
    async def main() -> None:
        async with relayed(policies_of_settings=[name]):
            pass

    with pytest.raises(SettingsError, match="policies: "):
        asyncio.run(main())


# --- the allow-list ---------------------------------------------------------------------------------------------------

ALLOWED = ["instructions", "audio.output.voice", "audio.input"]


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"type": "session.update", "session": {"type": "realtime", "instructions": "x"}}, None),
        ({"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}}, None),
        ({"type": "session.update", "session": {"audio": {"output": {"speed": 2}}}}, "session.audio.output.speed"),
        ({"type": "session.update", "session": {"tools": []}}, "session.tools"),
        ({"type": "response.create", "response": {"metadata": {"tools": 1}, "instructions": "x"}}, None),
        ({"type": "response.create", "response": {"tools": []}}, "response.tools"),
        ({"type": "response.create"}, None),
    ],
)
def test_clients_set_what_is_listed_and_nothing_else(said: Json, param: str | None) -> None:
    async def main() -> None:
        async with relayed(session_fields=ALLOWED) as (service, relay), at(relay) as client:
            await event(client)
            await client.send(json.dumps(said))
            if param is None:
                await service.has_heard(1)
                assert service.heard == [json.dumps(said)]
            else:
                error = (await event(client))["error"]
                assert (error["code"], error["param"]) == ("not_allowed", param)
                assert not service.heard

    asyncio.run(main())


# --- against our own server -------------------------------------------------------------------------------------------


@tool
def secret_weather(city: str) -> str:
    """The weather somewhere.

    Args:
        city: where
    """
    return f"snow in {city}"


@asynccontextmanager
async def before(server: RealServer, **settings: Any) -> AsyncIterator[Running]:
    tools = settings.pop("tools", ())
    values = {"upstream": server.url, "upstream_key": server.api_key, "port": 0, "model": "scripted"}
    async with relaying(relay_settings_of(values | settings), tools=tools, environment={}) as relay:
        yield relay


async def ask(client: ClientConnection, text: str, *, beta: bool = False) -> None:
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    await client.send(json.dumps({"type": "conversation.item.create", "item": item}))
    how = {"modalities": ["text"]} if beta else {"output_modalities": ["text"]}
    await client.send(json.dumps({"type": "response.create", "response": how}))


@pytest.mark.parametrize("beta", [False, True])
def test_a_tool_is_answered_in_the_relay_and_the_client_sees_nothing_of_it(
    beta: bool, realtime_server: RealServer
) -> None:
    server = realtime_server

    async def main() -> None:
        async with before(server, tools=[secret_weather]) as relay, at(relay, beta=beta) as client:
            heard = [await event(client)]
            assert heard[0]["type"] == "session.created"
            mine = {"type": "function", "name": "mine"}
            session = {"tools": [mine]} if beta else {"type": "realtime", "tools": [mine]}
            await client.send(json.dumps({"type": "session.update", "session": session}))
            heard += await until(client, "session.updated")
            assert [one["name"] for one in heard[-1]["session"]["tools"]] == ["mine"]
            server.calls("secret_weather", {"city": "Oslo"})
            server.answers("It snows.")
            await ask(client, "How is it?", beta=beta)
            heard += await until(client, "response.done")
            assert heard[-1]["response"]["output"] == []
            heard += await until(client, "response.done")
            added = "conversation.item.created" if beta else "conversation.item.added"
            items = [one for one in heard if one["type"] == added]
            assert [one["item"]["role"] for one in items] == ["user", "assistant"]
            assert items[1]["previous_item_id"] == items[0]["item"]["id"]
            (answer,) = heard[-1]["response"]["output"]
            assert answer["content"][0]["text"] == "It snows."
            assert "secret_weather" not in json.dumps(heard)
            assert "Oslo" not in json.dumps(heard)
            assert relay.relay.ledger.counters.tool_calls.read() == {(): 1}
        outputs = [
            one["item"]["output"] for one in server.received("conversation.item.create") if "output" in one["item"]
        ]
        assert outputs == ["snow in Oslo"]
        assert [one["name"] for one in server.received("session.update")[-1]["session"]["tools"]] == [
            "mine",
            "secret_weather",
        ]

    asyncio.run(main())


def test_a_client_may_not_take_the_name_of_a_tool(realtime_server: RealServer) -> None:
    async def main() -> None:
        async with before(realtime_server, tools=[secret_weather]) as relay, at(relay) as client:
            await event(client)
            session = {"type": "realtime", "tools": [{"type": "function", "name": "secret_weather"}]}
            await client.send(json.dumps({"type": "session.update", "session": session}))
            assert (await event(client))["error"]["param"] == "session.tools"

    asyncio.run(main())


def test_with_calls_of_both_the_client_asks_for_the_answer_after_the_relays_is_given(
    realtime_server: RealServer,
) -> None:
    """The client answers its call and asks at once, while the tool still runs: its request waits for that."""
    server, may_end = realtime_server, asyncio.Event()

    @tool
    async def slow(city: str) -> str:
        """Something slow."""
        await may_end.wait()
        return "done"

    async def main() -> None:
        async with before(server, tools=[slow]) as relay, at(relay) as client:
            await event(client)
            server.calls("slow", {"city": "Oslo"})
            await ask(client, "Go.")
            await until(client, "response.done")
            await client.send('{"type":"response.create","response":{"output_modalities":["text"]}}')
            await client.send('{"type":"input_audio_buffer.clear"}')
            await until(client, "input_audio_buffer.cleared")
            assert len(server.received("response.create")) == 1
            may_end.set()
            await until(client, "response.done")
            kinds = [one["type"] for one in server.received()]
            last = len(kinds) - 1 - kinds[::-1].index("conversation.item.create")
            assert "response.create" in kinds[last:]

    asyncio.run(main())


def test_a_short_lived_key_configures_its_sessions_before_they_begin(realtime_server: RealServer) -> None:
    async def main() -> None:
        settings = {"api_keys": ["backend"], "session_fields": ["audio"]}
        async with before(realtime_server, **settings) as relay:
            session = {"type": "realtime", "model": "scripted", "instructions": "Only of cats."}
            async with httpx.AsyncClient(trust_env=False) as http:
                url = f"http://127.0.0.1:{relay.port}/v1/realtime/client_secrets"
                made = await http.post(url, json={"session": session}, headers={"Authorization": "Bearer backend"})
            key = {"Authorization": f"Bearer {made.json()['value']}"}
            async with at(relay, headers=key) as client:
                begun = await event(client)
                assert (begun["type"], begun["session"]["instructions"]) == ("session.created", "Only of cats.")
                await client.send('{"type":"session.update","session":{"type":"realtime","instructions":"Of dogs."}}')
                assert (await event(client))["error"]["param"] == "session.instructions"

    asyncio.run(main())


def test_a_configuration_that_the_service_refuses_ends_the_session() -> None:
    async def conversation(socket: ServerConnection) -> None:
        await created(socket)
        update = json.loads(await socket.recv())
        refused = {"type": "invalid_request_error", "message": "no", "event_id": update["event_id"]}
        await socket.send(json.dumps({"type": "error", "error": refused}))

    async def main() -> None:
        house: tuple[Service, Running]
        async with relayed(conversation, tools=[secret_weather]) as house, at(house[1]) as client:
            assert (await event(client))["error"]["message"] == "no"
            await client.wait_closed()
            assert client.close_code == 4000

    asyncio.run(main())


# --- nobody gets round them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "beta", "said"),
    [
        ("?dialect=overview", False, {"type": "available_functions.create", "data": {"functions": [{"name": "f"}]}}),
        ("?dialect=overview", False, {"type": "conversation.create", "data": {"voice": "alloy"}}),
        ("", True, {"type": "session.update", "session": {"tools": []}}),
        ("", False, {"type": "transcription_session.update", "session": {"tools": []}}),
        ("?intent=transcription", True, {"type": "transcription_session.update", "session": {"include": []}}),
    ],
)
def test_the_allow_list_holds_in_every_dialect(query: str, beta: bool, said: Json) -> None:
    async def main() -> None:
        allowed = relayed(session_fields=["instructions"])
        async with allowed as (service, relay), at(relay, query, beta=beta) as client:
            await client.send(json.dumps({"event_id": "mine", **said}))
            while "error" not in (heard := json.dumps(await event(client))):
                pass
            assert "not_allowed" in heard
            assert not service.heard

    asyncio.run(main())


def test_a_second_type_does_not_get_past_a_translation_either() -> None:
    frame = '{"type":"input_audio_buffer.append","audio":"","type":"session.update","session":{"tools":[]}}'

    async def main() -> None:
        async with relayed(session_fields=["instructions"]) as (service, relay), at(relay, beta=True) as client:
            await until(client, "conversation.created")
            await client.send(frame)
            assert (await event(client))["error"]["code"] == "invalid_json"
            assert not service.heard

    asyncio.run(main())


def test_a_translation_session_passes_and_keeps_to_the_list() -> None:
    async def main() -> None:
        house = relayed(session_fields=["audio.output"])
        async with house as (service, relay), at(relay, "?model=t", path="/v1/realtime/translations") as client:
            await event(client)
            assert service.requests[0].path == "/v1/realtime/translations?model=t"
            update = {"type": "session.update", "session": {"audio": {"output": {"language": "de"}}}}
            await client.send(json.dumps(update))
            await service.has_heard(1)
            await client.send('{"type":"session.update","session":{"audio":{"input":{}}}}')
            await client.send('{"type":"session.update","session":{"instructions":"x"}}')
            assert (await event(client))["error"]["param"] == "session.instructions"
            assert service.heard[0] == json.dumps(update)

    asyncio.run(main())


def test_a_kind_of_session_that_the_service_cannot_have_is_refused() -> None:
    async def main() -> None:
        house = relayed(upstream_dialect="beta")
        async with house as (service, relay), at(relay, "?model=t", path="/v1/realtime/translations") as client:
            assert (await event(client))["error"]["code"] == "session_kind_not_available"
            assert not service.requests

    asyncio.run(main())


def test_a_key_of_betas_endpoint_speaks_beta(realtime_server: RealServer) -> None:
    async def main() -> None:
        async with before(realtime_server, api_keys=["backend"]) as relay:
            body = {"model": "scripted", "instructions": "Only of cats.", "temperature": 0.7}
            async with httpx.AsyncClient(trust_env=False) as http:
                url = f"http://127.0.0.1:{relay.port}/v1/realtime/sessions"
                made = await http.post(url, json=body, headers={"Authorization": "Bearer backend"})
            key = made.json()["client_secret"]["value"]
            async with at(relay, headers={"Authorization": f"Bearer {key}"}) as client:
                begun = (await event(client))["session"]
                assert (begun["instructions"], begun["modalities"]) == ("Only of cats.", ["text", "audio"])
                warned = (await until(client, "vivavoce.warning"))[-1]
                assert warned["param"] == "session.temperature"

    asyncio.run(main())
