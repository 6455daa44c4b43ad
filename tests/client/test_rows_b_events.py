"""Rows B1, B10, B11 and B14: listeners, utility events, custom events and the debug log, over a real wire."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from row_sessions import DIALECTS, UTILITY, fields_of, played, record, run, session, types, until

from vivavoce import ConnectionClosed, LocalProtocolError, ServerError
from vivavoce.protocol import events as ev
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.sounds import silence, tone


@pytest.fixture
def server(realtime_server: RealServer) -> RealServer:
    return realtime_server


# --- B1: listeners ----------------------------------------------------------------------------------------------------


def test_b1_on_hears_every_event_and_once_only_the_next(server: RealServer) -> None:
    always: list[str] = []
    one: list[str] = []

    async def main() -> None:
        async with session(server) as talk:
            await talk.update_session(modality="text")
            talk.on("response.done", lambda event: always.append(event.response.id))
            talk.once("response.done", lambda event: one.append(event.response.id))
            for _ in range(3):
                await (await talk.send_user_message("Hi"))

    run(main())
    ids = [event["response"]["id"] for event in server.sent("response.done")]
    assert always == ids
    assert one == ids[:1]


def test_b1_on_and_once_are_decorators_too(server: RealServer) -> None:
    heard: list[str] = []

    async def main() -> None:
        async with session(server) as talk:

            @talk.on("session.updated")
            def updated(event: ev.SessionUpdated) -> None:
                heard.append(event.type)

            @talk.once("server.session.updated")
            async def first(event: ev.SessionUpdated) -> None:
                heard.append("once")

            await talk.update_session(instructions="a")
            await talk.update_session(instructions="b")

    run(main())
    assert heard == ["session.updated", "once", "session.updated"]


def test_b1_off_ends_one_listener_or_all_of_a_name(server: RealServer) -> None:
    first: list[Any] = []
    second: list[Any] = []

    async def main() -> None:
        async with session(server) as talk:
            talk.on("session.updated", first.append)
            talk.on("session.updated", second.append)
            await talk.update_session(instructions="a")
            await until(lambda: len(second) == 1)
            talk.off("session.updated", first.append)
            await talk.update_session(instructions="b")
            await until(lambda: len(second) == 2)
            talk.off("session.updated")
            await talk.update_session(instructions="c")

    run(main())
    assert (len(first), len(second)) == (1, 2)


def test_b1_off_of_an_unknown_listener_is_an_error_that_names_those_there_are() -> None:
    from vivavoce import connect

    talk = connect("m", url="ws://127.0.0.1:1")
    with pytest.raises(LocalProtocolError, match=r"off\('response.done'\): no such listener.*there are: none"):
        talk.off("response.done")
    talk.on("response.done", print)
    with pytest.raises(LocalProtocolError, match=r"there are: response\.done"):
        talk.off("response.created", print)
    with pytest.raises(LocalProtocolError, match="no such listener"):
        talk.off("response.done", len)
    talk.off("response.done", print)
    with pytest.raises(LocalProtocolError, match="no such listener"):
        talk.off("response.done", print)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("respons.done", "response.done"),
        ("conversation.update", "conversation.updated"),
        ("response.audio.delta", "response.output_audio.delta"),
        ("client.response.creat", "client.response.create"),
        ("conversation.item.created", "conversation.item.added"),
        ("close", "connection.closed"),
    ],
)
def test_b1_a_name_that_nothing_is_told_under_is_refused_with_the_one_meant(name: str, meant: str) -> None:
    from vivavoce import connect

    talk = connect("m", url="ws://127.0.0.1:1")
    with pytest.raises(LocalProtocolError, match=f"'{meant}' is probably meant"):
        talk.on(name, print)
    with pytest.raises(LocalProtocolError, match="is probably meant"):
        run(talk.wait_for(name))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b1_wildcards_hear_one_direction_each_under_the_names_of_today(server: RealServer, dialect: str) -> None:
    server.answers("Hello.")

    async def main() -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        async with session(server, dialect=dialect) as talk:
            from_server, from_client = record(talk, "server.*"), record(talk, "client.*")
            family, exact = record(talk, "response.output_audio.*"), record(talk, "server.response.done")
            await talk.update_session(turn_detection=None)
            await (await talk.send_user_message("Hi"))
            return from_server, from_client, family, exact

    from_server, from_client, family, exact = run(main())
    assert types(from_client) == ["session.update", "conversation.item.create", "response.create"]
    assert {*types(from_server)} >= {"response.created", "response.output_audio.delta", "response.done"}
    assert len(exact) == 1
    assert {*types(family)} == {"response.output_audio.delta", "response.output_audio.done"}
    sent = [event["event_id"] for event in server.sent() if not event["type"].startswith("vivavoce.")][1:]
    assert [event.event_id for event in from_server] == sent[: len(from_server)]


def test_b1_listeners_are_called_in_order_even_where_one_awaits(server: RealServer) -> None:
    server.answers("one two three four")
    heard: list[tuple[str, str]] = []

    async def slow(event: Any) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        heard.append(("slow", event.event_id))

    def quick(event: Any) -> None:
        heard.append(("quick", event.event_id))

    async def main() -> None:
        async with session(server) as talk:
            talk.on("server.*", slow)
            talk.on("*", lambda event: None)
            talk.on("response.*", quick)
            await talk.update_session(modality="text")
            await (await talk.send_user_message("Hi"))

    run(main())
    slow_ids = [event_id for who, event_id in heard if who == "slow"]
    wire = [seen.event["event_id"] for seen in server.messages if seen.dir == "server" and "event_id" in seen.event]
    begin = wire.index(slow_ids[0])
    assert slow_ids == wire[begin : begin + len(slow_ids)]
    for at, (who, event_id) in enumerate(heard):
        if who == "quick":  # registered second: called second, for each event, before the next event's first
            assert heard[at - 1] == ("slow", event_id)


def test_b1_a_listener_that_fails_stops_neither_its_neighbours_nor_the_session(
    server: RealServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> tuple[list[Any], list[Any]]:
        async with session(server) as talk:
            errors = record(talk, "error")

            @talk.on("session.updated")
            async def broken(event: Any) -> None:
                raise ZeroDivisionError("mine")

            neighbours = record(talk, "session.updated")
            await talk.update_session(instructions="a")
            await talk.update_session(instructions="b")
            await until(lambda: len(errors) == 2)
            return neighbours, errors

    neighbours, errors = run(main())
    assert types(neighbours) == ["session.updated"] * 2
    assert [str(error.exception) for error in errors] == ["mine"] * 2
    assert errors[0].name.endswith("broken")
    assert "has failed" in caplog.text


def test_b1_wait_for_gives_the_next_event_or_one_that_fits(server: RealServer) -> None:
    async def main() -> tuple[str, str, str]:
        async with session(server) as talk:
            first = asyncio.create_task(talk.wait_for("session.updated", timeout_s=10))
            chosen = asyncio.create_task(
                talk.wait_for("server.session.*", 10, lambda event: event.session.instructions == "b")
            )
            asked = asyncio.create_task(talk.wait_for("client.session.update"))
            await asyncio.sleep(0)
            talk.update_session(instructions="a")
            talk.update_session(instructions="b")
            return (await first).session.instructions, (await chosen).session.instructions, (await asked).type

    assert run(main()) == ("a", "b", "session.update")


def test_b1_wait_for_raises_timeout_error_and_leaves_nothing_behind() -> None:
    from vivavoce.testing.virtual_time import run as run_virtual

    async def main() -> float:
        async with played() as (server, talk):
            now = asyncio.get_running_loop().time
            began = now()
            with pytest.raises(TimeoutError):
                await talk.wait_for("response.done", timeout_s=1.5)
            waited = now() - began
            await server.say({"type": "input_audio_buffer.cleared"})
            assert (await talk.wait_for("input_audio_buffer.cleared", 1)).type == "input_audio_buffer.cleared"
            return waited

    assert run_virtual(main()) == pytest.approx(1.5)


def test_b1_wait_for_ends_with_the_session(server: RealServer) -> None:
    async def main() -> None:
        async with session(server) as talk:
            waiting = asyncio.create_task(talk.wait_for("response.done"))
            await asyncio.sleep(0)
            await talk.disconnect()
            with pytest.raises(ConnectionClosed) as closed:
                await waiting
            assert closed.value.code == 1000
            with pytest.raises(ConnectionClosed):
                await talk.wait_for("response.done")

    run(main())


# --- B10: the utility events ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b10_the_conversation_is_told_as_items_that_come_grow_and_are_finished(
    server: RealServer, dialect: str
) -> None:
    server.answers("Sunny.")
    told: list[tuple[str, str, str, str]] = []

    def tell(event: Any) -> None:
        what = "".join(fields_of(event.delta)) if getattr(event, "delta", None) else ""
        told.append((event.type, event.item.role, event.item.id, what))

    async def main() -> None:
        async with session(server, dialect=dialect) as talk:
            for name in UTILITY[:3]:
                talk.on(name, tell)
            await talk.update_session(turn_detection=None)
            await (await talk.send_user_message("Weather?"))

    run(main())
    user = [event for event in told if event[1] == "user"]
    assert [name for name, *_ in user] == ["conversation.item.appended", "conversation.item.completed"]
    assistant = [event for event in told if event[1] == "assistant"]
    assert assistant[0][0] == "conversation.item.appended"
    assert assistant[-1][0] == "conversation.item.completed"
    between = assistant[1:-1]
    assert {name for name, *_ in between} == {"conversation.updated"}
    assert {what for *_, what in between if what} == {"audio", "transcript"}
    assert told.index(user[-1]) < told.index(assistant[0])
    assert len({item_id for _, _, item_id, _ in told}) == 2


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b10_realtime_event_shows_every_event_with_time_and_source(server: RealServer, dialect: str) -> None:
    async def main() -> list[Any]:
        talk = session(server, dialect=dialect)
        seen = record(talk, "realtime.event")
        talk.update_session(modality="text", turn_detection=None)
        async with talk:
            await (await talk.send_user_message("Hi"))
        return seen

    before = datetime.now(UTC)
    seen = run(main())
    assert [(one.source, one.event.type) for one in seen[:2]] == [
        ("server", "session.created"),
        ("client", "session.update"),
    ] or dialect == "beta"
    said = [one.event.type for one in seen if one.source == "client"]
    assert said == ["session.update", "conversation.item.create", "response.create"]
    assert {*types([one.event for one in seen if one.source == "server"])} >= {"session.updated", "response.done"}
    times = [datetime.fromisoformat(one.time) for one in seen]
    assert times == sorted(times)
    assert all(time.utcoffset() is not None for time in times)
    assert abs((times[0] - before).total_seconds()) < 60


def test_b10_speech_of_the_user_interrupts(server: RealServer) -> None:
    async def main() -> list[str]:
        async with session(server) as talk:
            await talk.update_session(turn_detection={"type": "server_vad", "create_response": False})
            told = record(talk, "conversation.interrupted", "input_audio_buffer.speech_started")
            talk.append_audio(silence(300) + tone(400) + silence(800))
            await talk.wait_for("input_audio_buffer.committed", 10)
            await until(lambda: len(told) == 2)
            return types(told)

    assert run(main()) == ["input_audio_buffer.speech_started", "conversation.interrupted"]


def test_b10_error_fires_for_a_refusal_that_nobody_awaits_and_not_twice_for_one_that_is(server: RealServer) -> None:
    async def main() -> tuple[list[Any], str | None]:
        async with session(server) as talk:
            errors = record(talk, "error")
            talk.delete_item("item_of_nobody")
            await until(lambda: errors)
            with pytest.raises(ServerError) as refused:
                await talk.delete_item("item_of_another")
            return errors, refused.value.code

    errors, code = run(main())
    assert [error.error.code for error in errors] == ["item_delete_invalid_item_id"] * len(errors)
    assert len(errors) in (1, 2)
    assert code == "item_delete_invalid_item_id"


def test_b10_error_fires_for_what_the_server_says_out_of_nothing(server: RealServer) -> None:
    server.error("The weather is bad.", code="bad_weather", after="session.updated")

    async def main() -> Any:
        async with session(server) as talk:
            waiting = asyncio.create_task(talk.wait_for("error", 10))
            await asyncio.sleep(0)
            await talk.update_session(instructions="a")
            return await waiting

    told = run(main())
    assert (told.error.code, told.error.message) == ("bad_weather", "The weather is bad.")


def test_b10_error_fires_when_the_connection_is_lost_for_good(server: RealServer) -> None:
    server.cut(after="session.updated", times=None)

    async def main() -> list[Any]:
        talk = session(server, reconnect=False)
        errors = record(talk, "error")
        closed = record(talk, "connection.closed")
        async with talk:
            talk.update_session(instructions="a")
            with pytest.raises(ConnectionClosed):
                async for _ in talk:
                    pass
            await until(lambda: errors and closed)
        return errors

    (error,) = run(main())
    assert error.type == "error"
    assert error.error.code == "connection_lost"
    assert "1006" in error.error.message


# --- B11: custom events -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b11_a_custom_event_is_sent_from_a_mapping_or_a_struct(server: RealServer, dialect: str) -> None:
    async def main() -> tuple[Any, Any]:
        async with session(server, dialect=dialect) as talk:
            output = {"type": "function_call_output", "call_id": "my-call-id", "output": '{"succeeded":true}'}
            call = {"type": "function_call", "call_id": "my-call-id", "name": "f", "arguments": "{}"}
            await talk.send({"type": "conversation.item.create", "item": call})
            added = await talk.send({"type": "conversation.item.create", "item": output})
            cleared = await talk.send(ev.InputAudioBufferClear())
            return added, cleared

    added, cleared = run(main())
    assert added.item.output == '{"succeeded":true}'
    assert cleared.type == "input_audio_buffer.cleared"
    assert [event["item"]["type"] for event in server.received("conversation.item.create")] == [
        "function_call",
        "function_call_output",
    ]


def test_b11_send_refuses_what_is_no_event_and_says_which_field() -> None:
    async def main() -> None:
        async with played() as (_, talk):
            with pytest.raises(LocalProtocolError, match=r"event: .*type"):
                talk.send({"type": "conversation.item.make"})
            with pytest.raises(LocalProtocolError, match=r"event: .*item_id"):
                talk.send({"type": "conversation.item.delete"})

    run(main())


def test_b11_send_raw_sends_what_no_version_knows_byte_for_byte(server: RealServer) -> None:
    raw = '{"type" : "session.dance",  "steps": [1, 2]}'

    async def main() -> Any:
        async with session(server) as talk:
            waiting = asyncio.create_task(talk.wait_for("error", 10))
            await asyncio.sleep(0)
            await talk.send_raw(raw)
            await talk.send_raw({"type": "session.dance", "event_id": "mine"})
            return await waiting

    error = run(main())
    assert "session.dance" in error.error.message
    assert next(seen.text for seen in server.messages if seen.type == "session.dance") == raw


def test_b11_events_of_the_server_that_nobody_knows_are_reachable_raw(server: RealServer) -> None:
    server.inject({"type": "weather.changed", "to": {"sky": "blue"}}, after="session.updated")

    async def main() -> tuple[Any, Any]:
        async with session(server) as talk:
            waiting = asyncio.create_task(talk.wait_for("server.weather.changed", 10))
            await asyncio.sleep(0)
            await talk.update_session(instructions="a")
            told = await waiting
            async for event in talk:
                if isinstance(event, ev.Unknown):
                    return told, event
            raise AssertionError("it never came")

    told, iterated = run(main())
    assert told is iterated
    assert told.kind == "weather.changed"
    assert json.loads(told.raw)["to"] == {"sky": "blue"}


# --- B14: the debug log -----------------------------------------------------------------------------------------------


def test_b14_the_debug_log_has_every_event_and_neither_secrets_nor_audio(
    server: RealServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="vivavoce")
    secret = "sk-" + "a1b2c3d4" * 4
    audio = tone(100)

    async def main() -> None:
        async with session(server, debug=True, headers={"X-Other": secret}) as talk:
            await talk.update_session(turn_detection=None)
            talk.send_raw({"type": "session.update", "session": {"tools": [{"authorization": secret}]}})
            talk.append_audio(audio)
            await (await talk.create_response())

    run(main())
    lines = [record.getMessage() for record in caplog.records if record.name == "vivavoce.events"]
    logged = [(line[0], json.loads(line[2:])["type"]) for line in lines if line.endswith("}")]
    wire = [(">" if seen.dir == "client" else "<", seen.type) for seen in server.messages if seen.type]
    known = {kind for kind in wire if not kind[1].startswith("vivavoce.")}
    known.discard(("<", "rate_limits.updated"))  # it comes behind the end of the response, and nobody waits for it
    assert known <= {(line[0], line[2:].partition('"type":"')[2].partition('"')[0]) for line in lines}
    assert (">", "input_audio_buffer.append") in logged
    everything = caplog.text
    assert secret not in everything
    assert server.api_key not in everything
    assert base64.b64encode(audio)[:64].decode() not in everything
    for event in server.sent("response.output_audio.delta"):
        assert event["delta"][:200] not in everything


def test_b14_without_debug_nothing_is_logged(server: RealServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="vivavoce.events")

    async def main() -> None:
        async with session(server) as talk:
            await talk.update_session(instructions="a")

    run(main())
    assert not [record for record in caplog.records if record.name == "vivavoce.events"]
