"""Row D3: every sending call is awaited to its acknowledgement, or raises the server's error for that very event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from row_sessions import DIALECTS, played, record, run, session, until

from vivavoce import ConnectionClosed, LocalProtocolError, ServerError, Session
from vivavoce.core.caller import CallerLimits
from vivavoce.protocol import events as ev
from vivavoce.protocol import items
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.sounds import tone

Call = Callable[[Session, str], Any]
"""A sending call, given the id of an item that there is."""


@pytest.fixture
def server(realtime_server: RealServer) -> RealServer:
    return realtime_server


def spoken(talk: Session) -> Any:
    talk.append_audio(tone(100))
    return talk.commit_audio()


def message(number: int) -> items.Message:
    return items.user_message(f"number {number}", id=f"item_n{number}")


GOOD: dict[str, tuple[Call, Callable[[Any, str], bool]]] = {
    "update_session": (lambda talk, _: talk.update_session(instructions="x"), lambda got, _: got.instructions == "x"),
    "add_tool": (lambda talk, _: talk.add_tool(tone), lambda got, _: [tool.name for tool in got.tools] == ["tone"]),
    "append_audio": (lambda talk, _: talk.append_audio(tone(10)), lambda got, _: got is None),
    "commit_audio": (lambda talk, _: spoken(talk), lambda got, _: got.startswith("item_")),
    "clear_audio": (lambda talk, _: talk.clear_audio(), lambda got, _: got is None),
    "create_item": (lambda talk, _: talk.create_item(message(1)), lambda got, _: got.id == "item_n1"),
    "create_item after": (
        lambda talk, there: talk.create_item(message(2), after=there),
        lambda got, _: got.content[0].text == "number 2",
    ),
    "retrieve_item": (lambda talk, there: talk.retrieve_item(there), lambda got, there: got.id == there),
    "delete_item": (lambda talk, there: talk.delete_item(there), lambda got, _: got is None),
    "send_function_output": (
        lambda talk, _: talk.send_function_output("call_1", [1]),
        lambda got, _: (got.call_id, got.output) == ("call_1", "[1]"),
    ),
    "create_response": (lambda talk, _: talk.create_response(), lambda got, _: got.id.startswith("resp_")),
    "send_user_message": (lambda talk, _: talk.send_user_message("x"), lambda got, _: got.id.startswith("resp_")),
    "send": (
        lambda talk, there: talk.send({"type": "conversation.item.retrieve", "item_id": there}),
        lambda got, there: got.item.id == there,
    ),
    "send_raw": (lambda talk, _: talk.send_raw({"type": "input_audio_buffer.clear"}), lambda got, _: got is None),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", GOOD)
def test_d3_every_sending_call_is_acknowledged(server: RealServer, dialect: str, name: str) -> None:
    call, is_right = GOOD[name]

    async def main() -> tuple[Any, str]:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(turn_detection=None, modality="text")
            await talk.create_item(items.function_call("f", "{}", call_id="call_1"))
            there = await talk.create_item(items.user_message("There"))
            return await call(talk, str(there.id)), str(there.id)

    got, there = run(main())
    assert is_right(got, there)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_d3_truncate_and_cancel_are_acknowledged(server: RealServer, dialect: str) -> None:
    from vivavoce.engines.scripted import ScriptedSettings

    server.answers("one two three", "a b c d e f")

    async def main() -> tuple[Any, str, str]:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(turn_detection=None)
            item_id = (await (await talk.send_user_message("Count"))).output[0].id
            assert await talk.truncate_item(str(item_id), 100) is None  # type: ignore[func-returns-value]
            server.behave(language_model=ScriptedSettings(first_delay_s=60.0))
            response = await talk.create_response()
            cancelled = await talk.cancel_response(response.id)
            return cancelled, response.id, (await response).status or ""

    cancelled, response_id, status = run(main())
    assert (cancelled.id, cancelled.status) == (response_id, "cancelled")
    assert status == "cancelled"


NOT_SENT_IN_BETA = ("update_session", "create_response")
"""Beta has bounds for their numbers that the client knows."""
BAD: dict[str, tuple[Call, str]] = {
    "update_session": (lambda talk, _: talk.update_session(max_output_tokens=10**9), "session.update"),
    "commit_audio": (lambda talk, _: talk.commit_audio(), "input_audio_buffer.commit"),
    "create_item": (lambda talk, _: talk.create_item(message(1), after="item_none"), "conversation.item.create"),
    "create_item twice": (
        lambda talk, there: talk.create_item(items.user_message("x", id=there)),
        "conversation.item.create",
    ),
    "send_function_output": (lambda talk, _: talk.send_function_output("call_none", 1), "conversation.item.create"),
    "retrieve_item": (lambda talk, _: talk.retrieve_item("item_none"), "conversation.item.retrieve"),
    "delete_item": (lambda talk, _: talk.delete_item("item_none"), "conversation.item.delete"),
    "truncate_item": (lambda talk, there: talk.truncate_item(there, 10), "conversation.item.truncate"),
    "cancel_response": (lambda talk, _: talk.cancel_response(), "response.cancel"),
    "create_response": (lambda talk, _: talk.create_response(max_output_tokens=10**9), "response.create"),
    "send": (lambda talk, _: talk.send(ev.InputAudioBufferCommit()), "input_audio_buffer.commit"),
}


@pytest.mark.parametrize(
    ("name", "dialect"),
    [
        *((name, "ga") for name in BAD),
        *((name, "beta") for name in BAD if name not in NOT_SENT_IN_BETA),
    ],
)
def test_d3_every_sending_call_raises_the_error_for_its_own_event(server: RealServer, dialect: str, name: str) -> None:
    call, sent_as = BAD[name]

    async def main() -> ServerError:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(turn_detection=None, modality="text")
            there = await talk.create_item(items.user_message("There"))
            with pytest.raises(ServerError) as refused:
                await call(talk, str(there.id))
            assert talk.is_connected
            return refused.value

    error = run(main())
    assert error.event_id == server.received(sent_as)[-1]["event_id"]
    told = server.sent("error")[-1]["error"]
    assert (error.code, error.message, error.param) == (told["code"], told["message"], told["param"])


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("seed", range(3))
def test_d3_good_and_bad_calls_mixed_each_get_their_own_answer(server: RealServer, dialect: str, seed: int) -> None:
    """All at once, in any order, awaited in any other: an answer that went to another call would show."""
    random = Random(seed)

    async def good(ack: Any, expected: Any) -> None:
        assert getattr(await ack, "id", None) == expected

    async def bad(ack: Any, expected: str) -> None:
        with pytest.raises(ServerError) as refused:
            await ack
        assert expected in refused.value.message

    async def main() -> None:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(turn_detection=None, modality="text")
            for number in range(40):
                await talk.create_item(message(number))
            makers: list[Callable[[], tuple[Any, Any, Any]]] = []
            for n in range(0, 40, 2):
                there, none = f"item_n{n}", f"item_none{n}"
                makers += [
                    lambda there=there: (good, talk.retrieve_item(there), there),  # type: ignore[misc]
                    lambda there=there: (good, talk.retrieve_item(there), there),  # type: ignore[misc]
                    lambda none=none: (bad, talk.retrieve_item(none), none),  # type: ignore[misc]
                    lambda none=none: (bad, talk.delete_item(none), none),  # type: ignore[misc]
                    lambda n=n: (good, talk.delete_item(f"item_n{n + 1}"), None),  # type: ignore[misc]
                    lambda n=n: (good, talk.create_item(message(100 + n)), f"item_n{100 + n}"),  # type: ignore[misc]
                    lambda there=there: (bad, talk.create_item(items.user_message("x", id=there)), there),  # type: ignore[misc]
                    lambda: (good, talk.clear_audio(), None),
                    lambda: (bad, talk.commit_audio(), "buffer"),
                ]
            random.shuffle(makers)
            waiting = [(judge, ack, expected) for judge, ack, expected in (make() for make in makers)]
            random.shuffle(waiting)
            await asyncio.gather(*(judge(ack, expected) for judge, ack, expected in waiting))

    run(main())
    assert len(server.sent("error")) == 20 * 4


def test_d3_what_the_dialect_cannot_say_is_our_own_mistake_and_is_not_sent(server: RealServer) -> None:
    async def main() -> None:
        async with session(server, dialect="beta") as talk:
            for ack in (talk.create_response(max_output_tokens=10**9), talk.update_session(max_output_tokens=10**9)):
                with pytest.raises(LocalProtocolError, match=r"max_(response_)?output_tokens"):
                    await ack
            await talk.clear_audio()

    run(main())
    assert [event["type"] for event in server.received()] == ["input_audio_buffer.clear"]


def test_d3_configurations_are_acknowledged_in_order_each_with_its_own(server: RealServer) -> None:
    async def main() -> list[Any]:
        async with session(server) as talk:
            acks = [talk.update_session(instructions=f"number {n}") for n in range(10)]
            bad = talk.update_session(max_output_tokens=10**9)
            acks += [talk.update_session(instructions=f"number {n}") for n in range(10, 20)]
            with pytest.raises(ServerError):
                await bad
            return [(await ack).instructions for ack in reversed(acks)]

    assert run(main()) == [f"number {n}" for n in reversed(range(20))]


def test_d3_responses_that_are_asked_for_at_once_come_one_after_the_other(server: RealServer) -> None:
    server.answers("one", "two", "three")

    async def main() -> list[str]:
        async with session(server) as talk:
            await talk.update_session(modality="text")
            acks = [talk.create_response() for _ in range(3)]
            return [await (await ack).text() for ack in acks]

    assert run(main()) == ["one", "two", "three"]
    assert server.sent("error") == []


def test_d3_an_answer_that_never_comes_is_an_error_in_time() -> None:
    from vivavoce.testing.virtual_time import run as run_virtual

    async def main() -> float:
        async with played(limits=CallerLimits(answer_ms_max=3_000)) as (_, talk):
            with pytest.raises(ServerError, match="did not answer") as never:
                await talk.clear_audio()
            assert never.value.code == "no_answer"
            return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(3.0, abs=0.1)


def test_d3_who_waits_when_the_session_ends_gets_connection_closed() -> None:
    async def main() -> None:
        async with played() as (_, talk):
            acks = [talk.clear_audio(), talk.create_response(), talk.create_item(message(1))]
            await talk.disconnect()
            for ack in acks:
                with pytest.raises(ConnectionClosed):
                    await ack

    run(main())


def test_d3_a_call_that_nobody_awaits_is_sent_all_the_same_and_its_error_is_told(server: RealServer) -> None:
    async def main() -> list[Any]:
        async with session(server) as talk:
            errors = record(talk, "error")
            ack = talk.delete_item("item_none")
            assert not ack.done()
            await until(lambda: errors)
            assert ack.done()
            return errors

    (error,) = run(main())
    assert error.error.event_id == server.received("conversation.item.delete")[0]["event_id"]


def test_d3_awaiting_twice_and_cancelling_the_awaiting_are_harmless(server: RealServer) -> None:
    async def main() -> None:
        async with session(server) as talk:
            ack = talk.create_item(message(1))

            async def wait() -> Any:
                return await ack

            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert (await ack).id == "item_n1"
            assert (await ack).id == "item_n1"

    run(main())
