"""Rows B4 to B7: tools that run by themselves, messages, own audio, and cutting in."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from row_sessions import DIALECTS, played, record, run, session, until

import vivavoce
from vivavoce import LocalProtocolError
from vivavoce.engines.scripted import ScriptedSettings
from vivavoce.protocol import config, items
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.sounds import silence, tone

DEFINITION = {
    "name": "get_weather",
    "description": "The weather at a place",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}
"""As the reference client takes it: without `type`."""


@pytest.fixture
def server(realtime_server: RealServer) -> RealServer:
    return realtime_server


def outputs(server: RealServer) -> list[Any]:
    """What the client has answered to calls, in order."""
    made = [event["item"] for event in server.received("conversation.item.create")]
    return [json.loads(item["output"]) for item in made if item["type"] == "function_call_output"]


def outputs_as_text(server: RealServer) -> list[str]:
    """The same, of functions that give text."""
    made = [event["item"] for event in server.received("conversation.item.create")]
    return [item["output"] for item in made if item["type"] == "function_call_output"]


async def asked(server: RealServer, tool: Any, definition: Any = None, **how: Any) -> str:
    """The answer to one question, where the session has this tool."""
    async with session(server, **how) as talk:
        await talk.update_session(modality="text")
        await (talk.add_tool(definition, tool) if definition else talk.add_tool(tool))
        return await talk.ask("Weather?")


# --- B4: tools --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b4_a_tool_is_told_run_and_answered(server: RealServer, dialect: str) -> None:
    server.calls("get_weather", {"place": "Oslo"})

    async def get_weather(place: str) -> dict[str, str]:
        return {"place": place, "sky": "grey"}

    answer = run(asked(server, get_weather, DEFINITION, dialect=dialect))
    assert answer == 'tool said: {"place":"Oslo","sky":"grey"}'
    (told,) = server.received("session.update")[-1]["session"]["tools"]
    assert told == {"type": "function", **DEFINITION}
    assert len(server.received("response.create")) == 2


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b4_functions_for_one_response_are_told_and_run_with_it_alone(server: RealServer, dialect: str) -> None:
    def look(where: str) -> str:
        """Look somewhere."""
        return f"seen {where}"

    @vivavoce.tool(name="listen")
    def hark() -> str:
        return "heard"

    stated = {"type": "function", "name": "elsewhere", "parameters": {"type": "object", "properties": {}}}

    async def main() -> None:
        async with session(server, dialect=dialect) as talk:
            await talk.create_item(items.user_message('call look {"where": "up"} call listen {}'))
            done = record(talk, "response.done")
            await talk.create_response(tools=[look, hark, stated], modality="text", instructions="Be brief.")
            await until(lambda: len(done) == 2)
            await (await talk.send_user_message("Hello!"))

    run(main())
    assert sorted(outputs_as_text(server)) == ["heard", "seen up"]
    assert not server.received("session.update")
    first, follow_up, next = (event.get("response", {}) for event in server.received("response.create"))
    assert [tool["name"] for tool in first["tools"]] == ["look", "listen", "elsewhere"]
    assert first["tools"][0]["description"] == "Look somewhere."
    assert {**follow_up, "metadata": None} == {**first, "metadata": None}
    assert "tools" not in next


def test_b4_functions_for_one_response_may_be_the_session_s_but_have_no_name_of_another(server: RealServer) -> None:
    def look() -> str:
        return "seen"

    def other() -> str:
        return "other"

    async def main() -> None:
        async with session(server) as talk:
            await talk.add_tool(look)
            await (await talk.create_response(tools=[look], modality="text"))
            with pytest.raises(LocalProtocolError, match="the session has another tool named 'look'"):
                talk.create_response(tools=[vivavoce.tool(other, name="look")])

    run(main())
    assert len(server.received("response.create")) == 1


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b4_several_calls_bring_one_request_after_the_response_and_all_outputs(
    server: RealServer, dialect: str
) -> None:
    question = 'call slow {"n": 1} call quick {"n": 2} call slow {"n": 3}'
    release = asyncio.Event()

    async def slow(n: int) -> int:
        await release.wait()
        return n

    def quick(n: int) -> int:
        return n

    async def main() -> None:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(modality="text")
            await talk.add_tool(slow)
            await talk.add_tool(quick)
            done = record(talk, "response.done")
            await talk.send_user_message(question)
            await until(lambda: done and len(server.received("conversation.item.create")) == 2)
            assert len(server.received("response.create")) == 1  # one output is there, and nothing is asked for yet
            release.set()
            await until(lambda: len(done) == 2)
            await talk.clear_audio()  # answered after whatever was sent before

    run(main())
    order = [seen.type for seen in server.messages if seen.type in ("response.create", "response.done")]
    assert order == ["response.create", "response.done", "response.create", "response.done"]
    assert sorted(outputs(server)) == [1, 2, 3]
    kinds = [(seen.type, seen.event.get("item", {}).get("type")) for seen in server.messages if seen.dir == "client"]
    last_output = max(at for at, kind in enumerate(kinds) if kind[1] == "function_call_output")
    assert kinds.index(("response.create", None), kinds.index(("response.create", None)) + 1) > last_output
    calls = [seen["item"].get("call_id") for seen in server.sent("response.output_item.done")][:3]
    answered = [event["item"].get("call_id") for event in server.received("conversation.item.create")]
    assert sorted(calls) == sorted(call_id for call_id in answered if call_id)


def fails(place: str) -> str:
    raise ValueError(f"no weather in {place}")


async def too_slow(place: str) -> str:
    await asyncio.Event().wait()
    return place


def unwritable(place: str) -> Any:
    return object()


@pytest.mark.parametrize(
    ("tool", "arguments", "error"),
    [
        (fails, {"place": "Oslo"}, "no weather in Oslo"),
        (fails, {"town": "Oslo"}, "place"),
        (fails, "{not json", "JSON"),
        (vivavoce.tool(too_slow, timeout_s=0.01), {"place": "Oslo"}, "0.01"),
        (unwritable, {"place": "Oslo"}, ""),
    ],
)
def test_b4_any_failure_is_answered_as_an_error(server: RealServer, tool: Any, arguments: Any, error: str) -> None:
    server.calls(getattr(tool, "name", None) or tool.__name__, arguments)
    run(asked(server, tool))
    (output,) = outputs(server)
    assert list(output) == ["error"]
    assert error in output["error"]
    assert len(server.received("response.create")) == 2  # the model is told, and goes on


def test_b4_remove_tool_tells_the_server_and_an_unknown_one_is_an_error(server: RealServer) -> None:
    async def main() -> None:
        async with session(server) as talk:
            await talk.add_tool(fails)
            await talk.add_tool(unwritable)
            in_force = await talk.remove_tool("fails")
            assert isinstance(in_force, config.RealtimeSessionResource)
            assert [tool.name for tool in in_force.tools] == ["unwritable"]  # type: ignore[union-attr]
            with pytest.raises(LocalProtocolError, match="no tool named 'fails'; there are: unwritable"):
                talk.remove_tool("fails")
            await talk.remove_tool("unwritable")

    run(main())
    told = [[tool["name"] for tool in update["session"]["tools"]] for update in server.received("session.update")]
    assert told == [["fails"], ["fails", "unwritable"], ["unwritable"], []]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b4_tools_may_be_answered_by_hand_and_then_nothing_is_asked_for(server: RealServer, dialect: str) -> None:
    server.calls("get_weather", {"place": "Oslo"})

    async def main() -> list[str]:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(modality="text", tools=[{"type": "function", **DEFINITION}])
            grown = record(talk, "conversation.updated")
            waiting = asyncio.create_task(
                talk.wait_for("conversation.item.completed", 10, lambda event: event.item.type == "function_call")
            )
            await (await talk.send_user_message("Weather?"))
            call = (await waiting).item
            assert (call.name, json.loads(call.arguments or "")) == ("get_weather", {"place": "Oslo"})
            await talk.send_function_output(call.call_id, {"sky": "blue"})
            assert len(server.received("response.create")) == 1
            await (await talk.create_response())
            pieces = [event.delta.arguments for event in grown if event.delta and event.delta.arguments]
            assert "".join(pieces) == call.arguments
            return [item.text or item.type for item in talk.get_items()]

    assert run(main()) == ["Weather?", "function_call", "function_call_output", 'tool said: {"sky":"blue"}']


# --- B5: messages -----------------------------------------------------------------------------------------------------

SPEECH = tone(200)
PIXEL = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Hello", [("input_text", "Hello")]),
        (SPEECH, [("input_audio", SPEECH)]),
        (bytearray(SPEECH), [("input_audio", SPEECH)]),
        (memoryview(SPEECH), [("input_audio", SPEECH)]),
        (["Hello", SPEECH, "again"], [("input_text", "Hello"), ("input_audio", SPEECH), ("input_text", "again")]),
        ({"type": "input_text", "text": "Hello"}, [("input_text", "Hello")]),
        ([{"type": "input_audio", "audio": base64.b64encode(SPEECH).decode()}], [("input_audio", SPEECH)]),
        ([{"type": "input_audio", "audio": SPEECH}], [("input_audio", SPEECH)]),
        (items.InputText(text="Hello"), [("input_text", "Hello")]),
        (
            (items.InputText(text="Hello"), items.InputAudio(audio=SPEECH)),
            [("input_text", "Hello"), ("input_audio", SPEECH)],
        ),
    ],
)
def test_b5_send_user_message_takes_text_speech_and_parts(
    server: RealServer, content: Any, expected: list[tuple[str, Any]], dialect: str
) -> None:
    async def main() -> str:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(modality="text", turn_detection=None)
            response = await talk.send_user_message(content)
            return (await response).status or ""

    assert run(main()) == "completed"
    (made,) = server.received("conversation.item.create")
    assert (made["item"]["type"], made["item"]["role"]) == ("message", "user")
    sent = [
        (part["type"], part["text"] if part["type"] == "input_text" else base64.b64decode(part["audio"]))
        for part in made["item"]["content"]
    ]
    assert sent == expected
    assert [event["type"] for event in server.received()][-2:] == ["conversation.item.create", "response.create"]


@pytest.mark.parametrize("nothing", [(), [], None])
def test_b5_empty_content_only_asks_for_a_response(server: RealServer, nothing: Any) -> None:
    async def main() -> str:
        async with session(server) as talk:
            await talk.update_session(modality="text")
            await talk.create_item(items.user_message("Said before"))
            response = await (talk.send_user_message() if nothing is None else talk.send_user_message(nothing))
            return await response.text()

    assert run(main()) == "echo: Said before"
    assert len(server.received("conversation.item.create")) == 1


def test_b5_what_is_no_content_is_refused_before_anything_is_sent() -> None:
    async def main() -> None:
        async with played() as (_, talk):
            for wrong in ({"type": "input_smell"}, [{"text": "no type"}], 7, [None]):
                with pytest.raises(LocalProtocolError, match="content"):
                    talk.send_user_message(wrong)  # type: ignore[arg-type]

    run(main())


# --- B6: own audio ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b6_without_turn_detection_create_response_commits_what_is_pending_once(
    server: RealServer, dialect: str
) -> None:
    async def main() -> str:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(modality="text", turn_detection=None)
            for _ in range(10):
                talk.append_audio(tone(100))
            first = await talk.create_response()
            await first
            await (await talk.create_response())
            return await first.text()

    assert run(main()) == "echo: audio of 1000 ms"
    said = [event["type"] for event in server.received()]
    appends = ["input_audio_buffer.append"] * 10
    assert said == ["session.update", *appends, "input_audio_buffer.commit", "response.create", "response.create"]


def test_b6_with_turn_detection_nothing_is_committed_by_us(server: RealServer) -> None:
    async def main() -> None:
        async with session(server) as talk:
            await talk.update_session(modality="text", turn_detection="server_vad")
            talk.append_audio(silence(200))
            await (await talk.create_response())

    run(main())
    assert server.received("input_audio_buffer.commit") == []


def test_b6_what_was_cleared_committed_or_is_for_a_response_aside_is_not_committed(server: RealServer) -> None:
    async def main() -> None:
        async with session(server) as talk:
            await talk.update_session(modality="text", turn_detection=None)
            talk.append_audio(tone(200))
            talk.clear_audio()
            await (await talk.create_response())
            talk.append_audio(tone(200))
            talk.commit_audio()
            await (await talk.create_response())
            talk.append_audio(tone(200))
            await (await talk.create_response(out_of_band=True))

    run(main())
    assert len(server.received("input_audio_buffer.commit")) == 1


# --- B7: cutting in ---------------------------------------------------------------------------------------------------

LONG = "one two three four five six seven eight"
"""39 characters, 60 ms each: 2.34 s."""
RATE_MS = 24


async def said(server: RealServer, talk: vivavoce.Session) -> str:
    """Let the assistant say `LONG`, and give its item's id."""
    server.answers(LONG)
    response = await (await talk.send_user_message("Count."))
    return str(response.output[0].id)  # type: ignore[union-attr]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("samples", "heard_ms"),
    [(500 * RATE_MS, 500), (500 * RATE_MS + 23, 500), (10**9, 39 * 60), (39 * 60 * RATE_MS, 39 * 60)],
)
def test_b7_interrupting_truncates_at_what_was_heard_and_clamps(
    server: RealServer, dialect: str, samples: int, heard_ms: int
) -> None:
    async def main() -> tuple[Any, int]:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(turn_detection=None)
            errors = record(talk, "error")
            item_id = await said(server, talk)
            talk.interrupt(item_id, samples)
            await talk.wait_for("conversation.item.truncated", 10)
            assert errors == []
            item = talk.get_item(item_id)
            assert item is not None
            return item, len(item.audio)

    item, audio_bytes = run(main())
    (truncate,) = server.received("conversation.item.truncate")
    assert (truncate["audio_end_ms"], truncate["content_index"]) == (heard_ms, 0)
    assert audio_bytes == heard_ms * RATE_MS * 2
    assert item.is_truncated
    assert LONG.startswith(item.text)
    assert (len(item.text) < len(LONG)) == (heard_ms < 39 * 60)
    assert server.received("response.cancel") == []  # it was over


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("samples", [0, -5, None])
def test_b7_nothing_heard_deletes_the_item(server: RealServer, dialect: str, samples: int | None) -> None:
    async def main() -> list[str | None]:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(turn_detection=None)
            item_id = await said(server, talk)
            talk.interrupt(item_id, samples)
            await talk.wait_for("conversation.item.deleted", 10)
            assert talk.get_item(item_id) is None
            return [item.role for item in talk.get_items()]

    assert run(main()) == ["user"]
    assert server.received("conversation.item.truncate") == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b7_a_running_response_is_cancelled_first(server: RealServer, dialect: str) -> None:
    server.answers(LONG)
    server.behave(synthesizer=ScriptedSettings(piece_delay_s=0.02))

    async def main() -> tuple[str, str]:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(turn_detection=None)
            errors = record(talk, "error")
            response = await talk.send_user_message("Count.")
            audio = await talk.wait_for("response.output_audio.delta", 10)
            talk.interrupt(audio.item_id, 50 * RATE_MS)
            ended = await response
            await until(lambda: server.sent("conversation.item.truncated"))
            assert errors == []
            return ended.status or "", talk.get_item(audio.item_id).text  # type: ignore[union-attr]

    status, text = run(main())
    assert status == "cancelled"
    assert len(text) < len(LONG)
    said_by_us = [event["type"] for event in server.received()]
    assert said_by_us[-2:] == ["response.cancel", "conversation.item.truncate"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b7_nothing_to_interrupt_and_unknown_items_are_harmless(server: RealServer, dialect: str) -> None:
    async def main() -> list[Any]:
        async with session(server, dialect=dialect) as talk:
            await talk.update_session(turn_detection=None, modality="text")
            errors = record(talk, "error")
            talk.interrupt()
            talk.interrupt("item_of_nobody", 100)
            talk.interrupt("item_of_nobody", 0)
            await talk.ask("Still well?")
            user = talk.get_items()[0]
            talk.interrupt(user.id, 10)  # has no speech at all
            await talk.clear_audio()
            return errors

    assert run(main()) == []


def test_b7_interrupting_before_connecting_is_harmless() -> None:
    talk = vivavoce.connect("m", url="ws://127.0.0.1:1")
    talk.interrupt()
    talk.interrupt("item", 3)
