from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import vivavoce
from vivavoce import ConnectionClosed, ConnectionFailed, ServerError, connect
from vivavoce.client.connection import Connection
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.items import InputText, Message
from vivavoce.server import running
from vivavoce.server.settings import settings_of
from vivavoce.testing.virtual_time import run
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair

CREATED = {"type": "session.created", "event_id": "e1", "session": {"type": "realtime", "model": "m", "voice": "new"}}


def joined(main: Callable[[Connection, Transport], Awaitable[None]]) -> None:
    """Run with a connection and the server's end of its wire."""

    async def both() -> None:
        near, far = pair()
        await main(Connection(near), far)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(both())


async def say(far: Transport, **event: Any) -> None:
    await far.send(json.dumps(event).encode())


# --- receiving --------------------------------------------------------------------------------------------------------


def test_every_event_is_folded_before_it_is_seen() -> None:
    async def main(client: Connection, far: Transport) -> None:
        await say(far, **CREATED)
        item = {"type": "message", "id": "i", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
        await say(far, type="conversation.item.added", event_id="e2", previous_item_id=None, item=item)
        assert isinstance(await client.recv(), ev.SessionCreated)
        assert client.session is not None
        assert isinstance(client.session, cfg.RealtimeSessionResource)
        assert client.session.model == "m"
        await client.recv()
        assert client.conversation.item_ids == ("i",)

    joined(main)


def test_an_unknown_event_comes_through_whole() -> None:
    async def main(client: Connection, far: Transport) -> None:
        await say(far, type="server.of.tomorrow", event_id="e1", x={"y": 1})
        event = await client.recv()
        assert isinstance(event, ev.Unknown)
        assert (event.type, event.fields["x"]) == ("server.of.tomorrow", {"y": 1})

    joined(main)


@pytest.mark.parametrize("code", [1000, 1001])
def test_iteration_ends_with_the_connection(code: int) -> None:
    async def main(client: Connection, far: Transport) -> None:
        await say(far, **CREATED)
        await say(far, type="input_audio_buffer.cleared", event_id="e2")
        await far.close(code)
        assert [event.type async for event in client] == ["session.created", "input_audio_buffer.cleared"]

    joined(main)


def test_iteration_raises_where_the_end_was_not_a_normal_one() -> None:
    async def main(client: Connection, far: Transport) -> None:
        await far.close(1011, "oh")
        with pytest.raises(ConnectionClosed, match="1011 oh"):
            async for _ in client:
                pass
        with pytest.raises(ConnectionClosed, match="1011 oh"):
            await client.create_response()

    joined(main)


def test_iteration_can_be_left_and_taken_up_again() -> None:
    async def main(client: Connection, far: Transport) -> None:
        for number in range(4):
            await say(far, type="input_audio_buffer.cleared", event_id=f"e{number}")
        await far.close(1000)
        seen = []
        async for event in client:
            seen.append(event.event_id)
            break
        seen += [event.event_id async for event in client]
        assert seen == ["e0", "e1", "e2", "e3"]

    joined(main)


# --- sending ----------------------------------------------------------------------------------------------------------


def test_the_named_methods_say_what_they_are_named_for() -> None:
    async def main(client: Connection, far: Transport) -> None:
        await client.update_session(cfg.RealtimeSession(instructions="be brief"))
        await client.append_audio(b"\x01\x02")
        await client.commit_audio()
        await client.create_item(Message(role="user", content=(InputText(text="hi"),)), after="root")
        await client.create_response(ev.ResponseParams(output_modalities=("text",)))
        await client.create_response()
        await client.cancel_response("resp_1")
        await client.cancel_response()
        await client.truncate("item_1", 1_500)
        said = [json.loads(await far.receive()) for _ in range(9)]
        assert said == [
            {"type": "session.update", "session": {"type": "realtime", "instructions": "be brief"}},
            {"type": "input_audio_buffer.append", "audio": "AQI="},
            {"type": "input_audio_buffer.commit"},
            {
                "type": "conversation.item.create",
                "previous_item_id": "root",
                "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            },
            {"type": "response.create", "response": {"output_modalities": ["text"]}},
            {"type": "response.create"},
            {"type": "response.cancel", "response_id": "resp_1"},
            {"type": "response.cancel"},
            {"type": "conversation.item.truncate", "item_id": "item_1", "content_index": 0, "audio_end_ms": 1_500},
        ]

    joined(main)


# --- opening ----------------------------------------------------------------------------------------------------------


def test_the_first_event_is_not_lost_by_opening() -> None:
    async def main(client: Connection, far: Transport) -> None:
        await say(far, **CREATED)
        await client.open()
        assert client.session is not None
        assert isinstance(await client.recv(), ev.SessionCreated)

    joined(main)


def test_a_refusal_is_raised_when_opening() -> None:
    async def main(client: Connection, far: Transport) -> None:
        error = {"type": "invalid_request_error", "code": "invalid_api_key", "message": "Wrong.", "param": None}
        await say(far, type="error", event_id="e1", error=error)
        await far.close(3000, "invalid_request_error.invalid_api_key")
        with pytest.raises(ServerError, match=r"Wrong\.") as raised:
            await client.open()
        assert (raised.value.code, raised.value.type) == ("invalid_api_key", "invalid_request_error")

    joined(main)


def test_a_server_that_closes_at_once_is_told() -> None:
    async def main(client: Connection, far: Transport) -> None:
        await far.close(4000, "because")
        with pytest.raises(ConnectionFailed, match="closed at once: 4000 because"):
            await client.open()

    joined(main)


def on_server(main: Callable[[str], Awaitable[None]], **settings: Any) -> None:
    async def both() -> None:
        async with asyncio.timeout(20), running(settings_of({"pipeline": "scripted", "port": 0, **settings})) as server:
            await main(server.url)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(both())


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_a_turn_over_a_real_socket(dialect: Any) -> None:
    async def main(url: str) -> None:
        async with connect("m", url=url, dialect=dialect) as client:
            await client.create_item(Message(role="user", content=(InputText(text="hello"),)))
            await client.create_response(ev.ResponseParams(output_modalities=("text",)))
            async for event in client:
                if isinstance(event, ev.ResponseDone):
                    break
            _, answer = client.conversation.items
            assert isinstance(answer, Message)
            assert answer.content[0].text == "echo: hello"  # type: ignore[union-attr]

    on_server(main)


def test_a_connection_can_be_awaited() -> None:
    async def main(url: str) -> None:
        client = await connect("m", url=url)
        try:
            assert isinstance(await client.recv(), ev.SessionCreated)
        finally:
            await client.close()
            await client.close()

    on_server(main)


@pytest.mark.parametrize(
    ("model", "key", "code"), [("m", None, None), ("m", "wrong", "invalid_api_key"), (None, "right", "missing_model")]
)
def test_a_refused_connection_raises_when_it_is_opened(model: str | None, key: str | None, code: str | None) -> None:
    async def main(url: str) -> None:
        with pytest.raises(ServerError) as raised:
            await connect(model, url=url, api_key=key)
        assert raised.value.code == code

    on_server(main, api_keys=["right"])


def test_the_key_of_the_environment_goes_to_the_host_of_the_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(url: str) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "right")
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        await (await connect("m")).close()
        await (await connect("m", url=f"{url}/realtime")).close()
        monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1")
        with pytest.raises(ServerError, match="Missing bearer"):
            await connect("m", url=url)

    on_server(main, api_keys=["right"])


def test_a_server_that_says_nothing_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from websockets.http11 import Request
        from websockets.server import ServerProtocol

        protocol = ServerProtocol()
        while data := await reader.read(65_536):
            protocol.receive_data(data)
            for event in protocol.events_received():
                if isinstance(event, Request):
                    protocol.send_response(protocol.accept(event))
            writer.write(b"".join(protocol.data_to_send()))
            if protocol.close_expected():
                break
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        async with server, asyncio.timeout(20):
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ConnectionFailed, match=r"said nothing for 0\.2 s"):
                await connect("m", url=f"ws://127.0.0.1:{port}", open_timeout_s=0.2)

    asyncio.run(main())


def test_nobody_there_is_told() -> None:
    async def main() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            with pytest.raises(ConnectionFailed, match="is a server running there"):
                await connect("m", url=f"ws://127.0.0.1:{port}")

    asyncio.run(main())


# --- the package ------------------------------------------------------------------------------------------------------


def test_every_public_name_resolves() -> None:
    assert sorted(vivavoce.__all__) == dir(vivavoce)
    for name in vivavoce.__all__:
        assert getattr(vivavoce, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        vivavoce.nonsense  # noqa: B018
