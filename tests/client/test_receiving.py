"""Events named by their types, and what the overloads promise about those named by words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, get_overloads, get_type_hints

import pytest

from vivavoce import LocalProtocolError, connect, events, items, updates
from vivavoce.client.names import ConnectionChanged, known_names, name_of
from vivavoce.client.receiving import Listening, Receiving, Trouble
from vivavoce.testing.real_server import RealServer

CALLS: list[Callable[..., Any]] = [Listening.on, Listening.once, Receiving.wait_for]


def promises(call: Callable[..., Any]) -> dict[str, Any]:
    """By name: the type of event that an overload of this call speaks of."""
    found: dict[str, Any] = {}
    for overload in get_overloads(call):
        hints = get_type_hints(overload)
        if get_origin(hints["name"]) is not Literal:
            continue
        event = hints["return"] if call is Receiving.wait_for else get_args(hints["callback"])[0][0]
        found |= dict.fromkeys(get_args(hints["name"]), event)
    return found


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_an_overload_speaks_of_the_event_that_is_told_under_its_name(call: Callable[..., Any]) -> None:
    assert len(promises(call)) > 15
    for name, event in promises(call).items():
        assert name in known_names()
        if name == "error":
            assert event == Trouble
        elif name.startswith("connection."):
            assert event is ConnectionChanged
        else:
            assert name_of(event).removeprefix("server.") == name


def test_on_and_once_promise_the_same() -> None:
    assert promises(Listening.on) == promises(Listening.once)


@pytest.mark.parametrize("event", [*get_args(events.AnyServerEvent), *get_args(events.AnyClientEvent)])
def test_every_event_is_named_by_its_type(event: type[Any]) -> None:
    name = name_of(event)
    assert name.removeprefix("server.") in known_names() | {"conversation.item.created"}


@pytest.mark.parametrize("wrong", [int, items.Message, updates.Failed, events.Unknown, 3])
def test_what_names_no_event_is_refused(wrong: Any) -> None:
    with pytest.raises(LocalProtocolError, match="names no event"):
        connect("m", url="ws://127.0.0.1:1/v1").on(wrong, print)


def test_types_and_names_hear_the_same() -> None:
    heard: list[str] = []

    async def converse(server: RealServer) -> None:
        session = connect("m", url=server.url, api_key=server.api_key)

        @session.on(events.ResponseDone)
        async def done(event: events.ResponseDone) -> None:
            heard.append(event.type)

        session.once(events.ResponseOutputAudioTranscriptDelta, lambda event: heard.append(event.delta))
        session.on(events.ResponseCreate, lambda event: heard.append(f"client.{event.type}"))
        session.on(updates.ItemCompleted, lambda event: heard.append(f"{event.item.role}"))
        session.on(ConnectionChanged, lambda event: heard.append(event.type))
        async with session:
            await session.ask("one two")
            session.off(events.ResponseDone, done)
            session.off(updates.ItemCompleted)
            waiting = asyncio.create_task(session.wait_for(events.ResponseDone, 10))
            await session.ask("three")
            assert (await waiting).response.status == "completed"

    with RealServer() as server:
        asyncio.run(converse(server))
    assert [one for one in heard if one != "user"] == [
        "client.response.create", "echo:", "assistant", "response.done", "client.response.create", "connection.closed",
    ]  # fmt: skip


def test_what_a_listener_raises_is_told_like_any_other_error() -> None:
    told: list[str] = []

    async def converse(server: RealServer) -> None:
        async with connect("m", url=server.url, api_key=server.api_key) as session:
            session.on("error", lambda event: told.append(f"{event.error.code}: {event.error.message}"))
            session.on(events.ResponseDone, lambda event: 1 // 0)
            await session.ask("hello")

    with RealServer() as server:
        asyncio.run(converse(server))
    (only,) = told
    assert only.startswith("listener_failed: the listener ")
    assert only.endswith("has raised ZeroDivisionError('integer division or modulo by zero')")
