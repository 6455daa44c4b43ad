"""Rows B2, B3, B8, B12 and B13: from before the first connection to after the last; relays and keys."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from row_sessions import DIALECTS, played, record, run, session, until

import vivavoce
from vivavoce import ConnectionClosed, ConnectionFailed, LocalProtocolError, ServerError, config
from vivavoce.testing.real_server import RealServer

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
def server(realtime_server: RealServer) -> RealServer:
    return realtime_server


def time_of_day() -> str:
    """What time it is."""
    return "noon"


def tools_of(event: Any) -> list[str]:
    """The names of the tools that a `session.update` names."""
    return [tool["name"] for tool in event["session"].get("tools", [])]


# --- B2: connecting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b2_connect_and_disconnect(server: RealServer, dialect: str) -> None:
    async def main() -> list[bool]:
        talk = session(server, dialect=dialect)
        states = [talk.is_connected]
        assert await talk.connect() is talk
        states.append(talk.is_connected)
        await talk.disconnect()
        states.append(talk.is_connected)
        await talk.disconnect()
        return states

    assert run(main()) == [False, True, False]
    server.wait_until_closed()
    assert [connection.closed for connection in server.connections] == [1000]


def test_b2_connecting_twice_is_an_error_and_harms_nothing(server: RealServer) -> None:
    async def main() -> str:
        async with session(server) as talk:
            with pytest.raises(LocalProtocolError, match=r"connected already; disconnect\(\)"):
                await talk.connect()
            assert talk.is_connected
            return await talk.ask("Still there?")

    assert run(main()) == "echo: Still there?"
    assert len(server.connections) == 1


def test_b2_await_and_async_with_open_as_well_and_open_once(server: RealServer) -> None:
    async def main() -> None:
        talk = await session(server)
        async with talk as same:
            assert same is talk
            assert talk.is_connected
        assert not talk.is_connected

    run(main())
    assert len(server.connections) == 1


def test_b2_two_events_on_connect_for_what_was_configured_before(server: RealServer) -> None:
    """The reference client's own test: after connecting there are `session.created` and one `session.update`."""

    async def main() -> tuple[list[tuple[str, str]], Any]:
        talk = session(server)
        seen = record(talk, "realtime.event")
        talk.update_session(instructions="You are a great, upbeat friend.")
        talk.update_session(voice="alloy")
        talk.update_session(turn_detection=None, transcription="whisper-1")
        talk.add_tool(time_of_day)
        async with talk:
            created = await talk.wait_for_session_created(1)
            assert created is talk.session
            await until(lambda: len(seen) >= 3)
            return [(one.source, one.event.type) for one in seen], talk.session

    events, in_force = run(main())
    assert events == [("server", "session.created"), ("client", "session.update"), ("server", "session.updated")]
    (update,) = server.received("session.update")
    assert update["session"]["instructions"] == "You are a great, upbeat friend."
    assert tools_of(update) == ["time_of_day"]
    assert in_force.instructions == "You are a great, upbeat friend."
    assert in_force.audio.output.voice == "alloy"
    assert in_force.audio.input.turn_detection is None
    assert in_force.audio.input.transcription.model == "whisper-1"


def test_b2_nothing_configured_sends_nothing_on_connect(server: RealServer) -> None:
    async def main() -> None:
        async with session(server):
            pass

    run(main())
    server.wait_until_closed()
    assert server.received() == []


def test_b2_what_is_said_before_connecting_is_sent_when_it_connects(server: RealServer) -> None:
    async def main() -> list[str]:
        talk = session(server)
        talk.update_session(modality="text")
        early = talk.send_user_message("Hello!")
        with pytest.raises(LocalProtocolError, match="nothing is sent before the session connects"):
            await early
        done = record(talk, "response.done")
        async with talk:
            await until(lambda: done)
            return [item.text for item in talk.get_items()]

    assert run(main()) == ["Hello!", "echo: Hello!"]


def test_b2_reset_forgets_conversation_configuration_tools_and_listeners(server: RealServer) -> None:
    async def main() -> tuple[list[Any], int]:
        talk = session(server)
        talk.update_session(instructions="Zanzibar", modality="text")
        talk.add_tool(time_of_day)
        heard = record(talk, "server.*")
        async with talk:
            await talk.ask("Hi")
            assert len(talk.get_items()) == 2
            await talk.reset()
            assert not talk.is_connected
            assert talk.get_items() == ()
            assert talk.session is None
            with pytest.raises(LocalProtocolError, match="no such listener"):
                talk.off("server.*")
            before = len(heard)
            await talk.connect()
            assert talk.session is not None
            assert talk.session.instructions != "Zanzibar"
            talk.add_tool(time_of_day)  # the name is free again
            await talk.update_session(modality="text")
            return heard[before:], len(talk.get_items())

    heard, items = run(main())
    assert heard == []
    assert items == 0
    assert [tools_of(update) for update in server.received("session.update")][-2:] == [["time_of_day"]] * 2
    assert all("Zanzibar" not in str(seen.event) for seen in server.messages if seen.connection == 1)


def test_b2_disconnect_keeps_the_conversation_to_look_at_and_connect_begins_a_new_one(server: RealServer) -> None:
    async def main() -> tuple[int, int, str]:
        talk = session(server)
        talk.update_session(modality="text", instructions="mine")
        async with talk:
            await talk.ask("Hi")
        kept = len(talk.get_items())
        await talk.connect()
        anew = len(talk.get_items())
        assert talk.session is not None
        instructions = str(talk.session.instructions)
        await talk.disconnect()
        return kept, anew, instructions

    assert run(main()) == (2, 0, "mine")


def test_b2_is_connected_is_false_after_the_server_is_lost(server: RealServer) -> None:
    server.cut(after="session.updated", times=None)

    async def main() -> tuple[bool, bool]:
        async with session(server, reconnect=False) as talk:
            before = talk.is_connected
            talk.update_session(instructions="a")
            with pytest.raises(ConnectionClosed):
                await talk.wait_for("response.done", 10)
            return before, talk.is_connected

    assert run(main()) == (True, False)


def test_b2_after_a_loss_connect_works_again(server: RealServer) -> None:
    server.cut(after="session.updated")

    async def main() -> str:
        talk = session(server, reconnect=False)
        async with talk:
            talk.update_session(modality="text")
            with pytest.raises(ConnectionClosed):
                await talk.wait_for("response.done", 10)
            await talk.connect()
            return await talk.ask("Back?")

    assert run(main()) == "echo: Back?"


def test_b2_sending_after_the_end_raises_connection_closed(server: RealServer) -> None:
    async def main() -> None:
        async with session(server) as talk:
            pass
        with pytest.raises(ConnectionClosed):
            await talk.send_user_message("Too late")

    run(main())


def test_b2_a_connection_that_fails_raises_and_leaves_the_session_unconnected(server: RealServer) -> None:
    async def main() -> None:
        talk = session(server, api_key="sk-of-somebody-else")
        with pytest.raises(ServerError, match="does not know the key") as failed:
            await talk.connect()
        assert failed.value.code == "invalid_api_key"
        assert "sk-of-somebody-else" not in str(failed.value)
        assert not talk.is_connected

    run(main())


def test_b2_an_address_where_nobody_is_raises_connection_failed(server: RealServer) -> None:
    async def main() -> None:
        talk = session(server)
        server.close()
        with pytest.raises(ConnectionFailed):
            await talk.connect()
        assert not talk.is_connected

    run(main())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_b2_disconnecting_while_messages_arrive_raises_nothing(
    server: RealServer, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The reference client's own test: a listener of audio disconnects in the middle of an answer."""
    server.answers("a long answer of many words " * 4)

    async def main() -> None:
        talk = session(server)
        leaving: list[asyncio.Task[None]] = []

        async def leave(event: Any) -> None:
            if asynchronous:
                await talk.disconnect()
            elif not leaving:
                leaving.append(asyncio.create_task(talk.disconnect()))

        talk.on("response.output_audio.delta", leave)
        async with talk:
            talk.send_user_message("Hello")
            with pytest.raises(ConnectionClosed) as closed:
                await talk.wait_for("response.done", 10)
            assert closed.value.code == 1000
            await asyncio.gather(*leaving)
        assert not talk.is_connected

    run(main())
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]


# --- B3: update_session -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b3_update_session_changes_what_is_given_and_leaves_the_rest(server: RealServer, dialect: str) -> None:
    async def main() -> Any:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(instructions="Be brief.", turn_detection="server_vad")
            await talk.update_session(voice="echo")
            return await talk.update_session({"max_output_tokens": 77})

    in_force = run(main())
    assert in_force.instructions == "Be brief."
    assert in_force.audio.output.voice == "echo"
    assert isinstance(in_force.audio.input.turn_detection, config.ServerVad)
    assert in_force.max_output_tokens == 77
    sent = [sorted(update["session"]) for update in server.received("session.update")]
    assert all("instructions" not in names for names in sent[1:])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b3_tools_added_by_function_stay_beside_those_that_are_stated(server: RealServer, dialect: str) -> None:
    async def main() -> None:
        async with session(server, dialect=dialect) as talk:
            await talk.add_tool(time_of_day)
            await talk.update_session(tools=[WEATHER])
            await talk.update_session(tools=[{**WEATHER, "name": "other"}])
            await talk.update_session(tools=[])
            await talk.update_session(instructions="a")

    run(main())
    told = [tools_of(update) for update in server.received("session.update") if "tools" in update["session"]]
    assert [set(names) for names in told[:4]] == [
        {"time_of_day"},
        {"get_weather", "time_of_day"},
        {"other", "time_of_day"},
        {"time_of_day"},
    ]
    assert [tool["name"] for tool in server.sent("session.updated")[-1]["session"]["tools"]] == ["time_of_day"]


def test_b3_a_name_clash_is_refused_both_ways_before_and_after_connecting(server: RealServer) -> None:
    clashing = {**WEATHER, "name": "time_of_day"}

    def check(talk: vivavoce.Session) -> None:
        with pytest.raises(
            LocalProtocolError, match=r"a tool named 'time_of_day' already; remove_tool\('time_of_day'\)"
        ):
            talk.update_session(tools=[clashing])
        with pytest.raises(LocalProtocolError, match="a tool named 'time_of_day' already"):
            talk.add_tool(time_of_day)

    async def main() -> None:
        talk = session(server)
        talk.add_tool(time_of_day)
        check(talk)
        async with talk:
            check(talk)
            await talk.remove_tool("time_of_day")
            await talk.update_session(tools=[clashing])
            with pytest.raises(LocalProtocolError, match="a tool named 'time_of_day' already"):
                talk.add_tool(time_of_day)

    run(main())
    assert [tools_of(update) for update in server.received("session.update")] == [["time_of_day"], [], ["time_of_day"]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"turn_detection": "disabled"}, "turn_detection is 'server_vad', 'semantic_vad' or None"),
        ({"input_format": "mp3"}, "there is no audio format 'mp3'"),
    ],
)
def test_b3_what_cannot_be_is_refused_with_what_can(given: dict[str, Any], message: str) -> None:
    talk = vivavoce.connect("m", url="ws://127.0.0.1:1")
    with pytest.raises(LocalProtocolError, match=message):
        talk.update_session(**given)
    with pytest.raises(LocalProtocolError, match=r"session: .*colour"):
        talk.update_session({"colour": "blue"})
    with pytest.raises(LocalProtocolError, match="either a whole configuration or keywords"):
        talk.update_session({"instructions": "a"}, voice="alloy")


# --- B8: waiting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("modality", ["text", "audio"])
def test_b8_items_come_in_the_order_of_the_reference_client(server: RealServer, dialect: str, modality: Any) -> None:
    """Its own test: the user's item completed, the assistant's in progress and empty, then completed with its words."""
    server.answers("San Francisco is fine.")

    async def main() -> list[tuple[str, str | None, str | None, str]]:
        seen = []
        async with session(server, dialect=dialect) as talk:
            await talk.wait_for_session_created(5)
            await talk.update_session(modality=modality)
            talk.send_user_message([{"type": "input_text", "text": "How are you?"}])
            for wait in (talk.wait_for_next_item, talk.wait_for_next_item, talk.wait_for_next_completed_item):
                item = await wait(10)
                seen.append((item.type, item.role, item.status, item.text))
        return seen

    assert run(main()) == [
        ("message", "user", "completed", "How are you?"),
        ("message", "assistant", "in_progress", ""),
        ("message", "assistant", "completed", "San Francisco is fine."),
    ]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b8_wait_for_next_completed_item_gives_the_users_too(server: RealServer, dialect: str) -> None:
    async def main() -> str | None:
        async with session(server, dialect=dialect) as talk:
            talk.create_item(vivavoce.items.user_message("Hi"))
            return (await talk.wait_for_next_completed_item(10)).role

    assert run(main()) == "user"


def test_b8_waiting_times_out() -> None:
    from vivavoce.testing.virtual_time import run as run_virtual

    async def main() -> None:
        async with played() as (_, talk):
            for wait in (talk.wait_for_next_item, talk.wait_for_next_completed_item):
                with pytest.raises(TimeoutError):
                    await wait(0.5)
            assert await talk.wait_for_session_created(0.5) is talk.session

    run_virtual(main())


# --- B12: a relay -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/v1", "/v1/realtime", "/v1/realtime?model=of-the-relay"])
def test_b12_the_url_of_a_relay_is_enough_and_no_key_goes_there(
    realtime_server_factory: Any, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine-alone-0123456789")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "0123456789abcdef0123456789abcdef")
    relay = realtime_server_factory(api_key=None)

    async def main() -> str:
        async with vivavoce.connect("gpt-realtime", url=relay.url.removesuffix("/v1") + path) as talk:
            return await talk.ask("Hi")

    assert run(main()) == "echo: Hi"
    (connection,) = relay.connections
    assert connection.path == "/v1/realtime"
    assert connection.query == ("model=of-the-relay" if "?" in path else "model=gpt-realtime")
    assert not {"authorization", "api-key", "sec-websocket-protocol"} & set(connection.headers)
    assert "sk-mine" not in str(connection)


# --- B13: keys stay where they are ------------------------------------------------------------------------------------


def test_b13_a_key_is_in_no_repr_no_log_no_error_and_no_tape(
    server: RealServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key, tape = server.api_key, tmp_path / "talk.tape.jsonl"

    async def main() -> list[str]:
        talk = session(server, tape=tape, debug=True)
        shown = [repr(talk), str(talk), repr(vars(talk))]
        async with talk:
            await talk.ask("Hi")
            shown += [repr(talk), repr(vars(talk)), repr(talk._life), repr(talk._options)]
        other = session(server, api_key=key + "-wrong")
        with pytest.raises(ServerError) as failed:
            await other.connect()
        return [*shown, str(failed.value), repr(failed.value)]

    shown = run(main())
    everything = "\n".join(shown) + caplog.text + tape.read_text()
    assert "session.created" in tape.read_text()
    assert key not in everything


def test_b13_a_short_lived_key_opens_a_session_as_a_key_does(server: RealServer) -> None:
    """What a browser or a phone is given; the real key stays at home."""
    import httpx

    made = httpx.post(
        f"{server.url}/realtime/client_secrets", headers={"Authorization": f"Bearer {server.api_key}"}, json={}
    )
    short = made.json()["value"]
    assert short.startswith("ek_")

    async def main() -> str:
        async with session(server, api_key=short) as talk:
            return await talk.ask("Hi")

    assert run(main()) == "echo: Hi"
    assert server.connections[-1].headers["authorization"] == f"Bearer {short}"
