"""The language model behind `/chat/completions`: what it asks, and how it reads what comes back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from http_double import Exchange, http_double, pieces_of, server_sent

from vivavoce.engines import ArgumentsPiece, CallPiece, Finish, Piece, Prompt, TextPiece
from vivavoce.engines.openai_chat import create
from vivavoce.errors import EngineError, EngineMissing, SettingsError
from vivavoce.protocol.config import FunctionTool, ToolChoiceFunction, ToolChoiceMcp
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputText,
    Item,
    Message,
    OutputAudio,
    OutputText,
)

STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def run(main: Coroutine[Any, Any, Any]) -> Any:
    async def within_time() -> Any:
        async with asyncio.timeout(20):
            return await main

    return asyncio.run(within_time())


def user(text: str) -> Message:
    return Message(role="user", content=(InputText(text=text),))


HELLO = Prompt(instructions="", items=(user("hi"),))


def delta(**fields: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def call(index: int | None = None, call_id: str | None = None, **function: str) -> dict[str, object]:
    return delta(tool_calls=[{"index": index, "id": call_id, "function": function}])


async def _answer(wire: bytes, size: int) -> list[Piece]:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.begin("text/event-stream")
        for piece in pieces_of(wire, size):
            await exchange.chunk(piece)
        await exchange.chunk(b"")

    async with http_double(behaviour) as url:
        engine = create({"url": url, "model": "m"})
        try:
            return [piece async for piece in engine.generate(HELLO)]
        finally:
            await engine.close()


def answer(*events: object, size: int = 65_536) -> list[Piece]:
    """What the engine makes of these events, sent in pieces of `size` bytes."""
    return run(_answer(server_sent(*events), size))


def asked(prompt: Prompt, **options: object) -> Any:
    """The body of the request for this prompt."""

    async def main() -> Any:
        bodies: list[Any] = []

        async def behaviour(exchange: Exchange) -> None:
            assert (exchange.request.method, exchange.request.target) == ("POST", "/v1/chat/completions")
            bodies.append(exchange.request.json)
            await exchange.answer(200, server_sent(STOP, "[DONE]"), "text/event-stream")

        async with http_double(behaviour) as url:
            engine = create({"url": url, "model": "m", **options})
            assert [piece async for piece in engine.generate(prompt)] == [Finish()]
            await engine.close()
        return bodies[0]

    return run(main())


def messages(*items: Item) -> Any:
    return asked(Prompt(instructions="", items=items))["messages"]


# --- the question -----------------------------------------------------------------------------------------------------


def test_the_request() -> None:
    assert asked(Prompt(instructions="Be brief.", items=(user("hi"),))) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_the_limit_and_further_parameters() -> None:
    prompt = Prompt(instructions="", items=(), max_output_tokens=7)
    assert asked(prompt)["max_tokens"] == 7
    body = asked(prompt, limit_field="max_completion_tokens", parameters={"temperature": 0.3, "stream_options": None})
    assert (body["max_completion_tokens"], body["temperature"], body["stream_options"]) == (7, 0.3, None)
    assert "max_tokens" not in body


def test_what_the_client_asks_for_comes_before_the_parameters_and_the_model_s_limit_before_the_client_s() -> None:
    prompt = Prompt(instructions="", items=(), max_output_tokens=900, temperature=0.7, effort="high")
    options: dict[str, Any] = {
        "output_tokens_max": 500,
        "parameters": {"temperature": 0.3, "top_p": 1, "max_tokens": 9},
    }
    body = asked(prompt, **options)
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.7, 1, 500)
    assert asked(HELLO, **options)["max_tokens"] == 9
    assert "reasoning_effort" not in body, "models that do not reason refuse it"


def test_a_model_that_reasons_takes_an_effort_and_no_temperature() -> None:
    prompt = Prompt(instructions="", items=(), temperature=0.7, effort="low")
    body = asked(prompt, reasons=True)
    assert body["reasoning_effort"] == "low"
    assert "temperature" not in body
    assert asked(prompt, reasons=True, parameters={"temperature": 1})["temperature"] == 1
    assert "reasoning_effort" not in asked(HELLO, reasons=True)


@pytest.mark.parametrize("is_parallel", [True, False, None])
def test_several_calls_at_once_only_where_there_are_functions(is_parallel: bool | None) -> None:
    tools = (FunctionTool(name="f"),)
    assert asked(Prompt("", (), tools, is_parallel=is_parallel)).get("parallel_tool_calls") is is_parallel
    assert "parallel_tool_calls" not in asked(Prompt("", (), is_parallel=is_parallel))


def test_what_the_model_can_do_is_told() -> None:
    traits = create({"url": "http://h/v1", "model": "m"}).traits
    assert (traits.context_tokens, traits.output_tokens_max) == (128_000, 4_096)
    assert (traits.sees_images, traits.reasons, traits.count_tokens("12345678")) == (True, False, 2)
    options = {"context_tokens": 2_000, "output_tokens_max": 8_000, "sees_images": False, "reasons": True}
    traits = create({"url": "http://h/v1", "model": "m", **options}).traits
    assert (traits.context_tokens, traits.output_tokens_max) == (2_000, 2_000)
    assert (traits.sees_images, traits.reasons) == (False, True)


def test_the_models_own_tokenizer_counts_once_it_is_warmed_up(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"one": 0, "?": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(path := tmp_path / "tokenizer.json"))

    async def main() -> None:
        async def behaviour(exchange: Exchange) -> None:
            await exchange.answer(200, {"data": []})

        async with http_double(behaviour) as url:
            engine = create({"url": url, "model": "m", "tokenizer": str(path), "sees_images": False})
            await engine.warm_up()
            assert engine.traits.count_tokens("one two three") == 3
            assert not engine.traits.sees_images
            await engine.close()
            path.write_text("{}")
            engine = create({"url": url, "model": "m", "tokenizer": str(path)})
            with pytest.raises(EngineError, match="option 'tokenizer'"):
                await engine.warm_up()
            await engine.close()

    run(main())
    with pytest.raises(SettingsError, match="'tokenizer': nothing at"):
        create({"url": "http://h/v1", "model": "m", "tokenizer": "/no-such.json"})


def test_an_encoding_of_tiktoken_is_looked_for_when_warming_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    engine = create({"url": "http://127.0.0.1:1/v1", "model": "m", "tokenizer": "tiktoken:o200k_base"})
    with pytest.raises(EngineMissing, match="tiktoken"):
        run(engine.warm_up())


def test_speech_is_its_transcript() -> None:
    assert messages(
        Message(role="system", content=(InputText(text="rules"),)),
        Message(role="user", content=(InputAudio(transcript="spoken"), InputText(text="written"))),
        Message(role="assistant", content=(OutputAudio(transcript="answered"),)),
        Message(role="assistant", content=(OutputText(text="more"),)),
        Message(role="user", content=(InputAudio(transcript=None),)),
        Message(role="user", content=(InputAudio(),)),
    ) == [
        {"role": "system", "content": "rules"},
        {"role": "user", "content": "spoken\nwritten"},
        {"role": "assistant", "content": "answered"},
        {"role": "assistant", "content": "more"},
    ]


def test_images_are_passed_on() -> None:
    image = InputImage(image_url="data:image/png;base64,AA==", detail="low")
    parts = (InputText(text="what is this?"), image, InputImage(image_url="data:image/jpeg;base64,BB=="))
    assert messages(Message(role="user", content=parts)) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,BB==", "detail": "auto"}},
            ],
        }
    ]


def test_images_are_left_out_for_a_model_that_sees_none() -> None:
    image = InputImage(image_url="data:image/png;base64,AA==")
    items = (
        Message(role="user", content=(InputText(text="what is this?"), image)),
        Message(role="user", content=(image,)),
    )
    body = asked(Prompt(instructions="", items=items), sees_images=False)
    assert body["messages"] == [{"role": "user", "content": "what is this?"}]


def calls_of(*names: str) -> dict[str, object]:
    functions = [{"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}} for name in names]
    return {"role": "assistant", "tool_calls": functions}


def output_of(name: str) -> dict[str, object]:
    return {"role": "tool", "tool_call_id": name, "content": f"{name} done"}


def made(name: str) -> FunctionCall:
    return FunctionCall(call_id=name, name=name, arguments="{}")


def done(name: str) -> FunctionCallOutput:
    return FunctionCallOutput(call_id=name, output=f"{name} done")


def test_calls_made_together_are_one_message_and_calls_in_turn_are_several() -> None:
    assert messages(made("a"), made("b"), done("b"), done("a"), made("c"), done("c")) == [
        calls_of("a", "b"),
        output_of("a"),
        output_of("b"),
        calls_of("c"),
        output_of("c"),
    ]


def test_an_output_follows_its_call_even_where_the_user_spoke_in_between() -> None:
    assert messages(made("a"), user("hurry"), done("a")) == [
        calls_of("a"),
        output_of("a"),
        {"role": "user", "content": "hurry"},
    ]


def test_half_calls_are_left_out() -> None:
    nameless = FunctionCall(name="n", arguments="{}")
    assert messages(made("a"), made("b"), done("b"), done("x"), nameless) == [calls_of("b"), output_of("b")]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        (ToolChoiceFunction(name="f"), {"type": "function", "function": {"name": "f"}}),
        (ToolChoiceMcp(server_label="s"), "auto"),
    ],
)
def test_tools_and_the_choice_of_them(choice: Any, expected: object) -> None:
    tools = (
        FunctionTool(name="f", description="does", parameters={"type": "object"}),
        FunctionTool(name="g", description=None),
    )
    body = asked(Prompt(instructions="", items=(), tools=tools, tool_choice=choice))
    assert body["tool_choice"] == expected
    assert body["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "does", "parameters": {"type": "object"}}},
        {"type": "function", "function": {"name": "g"}},
    ]


def test_no_tools_no_choice() -> None:
    assert "tool_choice" not in asked(Prompt(instructions="", items=(), tool_choice="required"))


# --- the answer -------------------------------------------------------------------------------------------------------

USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}


@pytest.mark.parametrize("size", [1, 3, 17, 65_536])
def test_text_comes_as_it_is_written_however_it_is_cut(size: int) -> None:
    pieces = answer(
        delta(role="assistant", content=""),
        delta(content="Grüß"),
        delta(content=" dich 🙂"),
        STOP,
        {"choices": [], "usage": USAGE},
        "[DONE]",
        delta(content="after the end"),
        size=size,
    )
    assert pieces == [
        TextPiece("Grüß"),
        TextPiece(" dich 🙂"),
        Finish("stop", input_tokens=12, cached_tokens=8, output_tokens=3),
    ]


def test_the_first_piece_does_not_wait_for_the_second() -> None:
    async def main() -> None:
        heard = asyncio.Event()

        async def behaviour(exchange: Exchange) -> None:
            await exchange.begin("text/event-stream")
            await exchange.chunk(server_sent(delta(content="first")))
            await heard.wait()
            await exchange.chunk(server_sent(delta(content="second"), STOP))
            await exchange.chunk(b"")

        async with http_double(behaviour) as url:
            engine = create({"url": url, "model": "m"})
            pieces = []
            async for piece in engine.generate(HELLO):
                pieces.append(piece)
                heard.set()
            assert pieces == [TextPiece("first"), TextPiece("second"), Finish()]
            await engine.close()

    run(main())


def test_calls_are_streamed() -> None:
    assert answer(
        delta(content="Let me see."),
        call(0, "c1", name="weather", arguments=""),
        call(0, None, arguments='{"city": '),
        call(0, None, arguments='"Oslo"}'),
        call(1, "c2", name="time"),
        call(1, None, arguments="{}"),
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
        "[DONE]",
    ) == [
        TextPiece("Let me see."),
        CallPiece("weather"),
        ArgumentsPiece('{"city": '),
        ArgumentsPiece('"Oslo"}'),
        CallPiece("time"),
        ArgumentsPiece("{}"),
        Finish(),
    ]


@pytest.mark.parametrize(
    "events",
    [
        [call(None, "1", name="a", arguments="{1}"), call(None, "2", name="b", arguments="{2}")],
        [call(0, "1", name="a", arguments="{1}"), call(0, "2", name="b", arguments="{2}")],
        [call(None, None, name="a", arguments="{1}"), call(None, None, name="b", arguments="{2}")],
        [
            call(0, "1", name="a", arguments="{"),
            call(0, "1", name="a", arguments="1}"),
            call(1, "2", name="b", arguments="{2}"),
        ],
    ],
)
def test_calls_are_told_apart_without_index_or_id(events: list[object]) -> None:
    joined: list[str] = []
    for piece in answer(*events, STOP):
        match piece:
            case CallPiece(name):
                joined.append(name)
            case ArgumentsPiece(text):
                joined[-1] += text
    assert joined == ["a{1}", "b{2}"]


def test_a_call_without_arguments_has_empty_ones() -> None:
    assert answer(call(0, "1", name="a"), call(1, "2", name="b", arguments=""), STOP) == [
        CallPiece("a"),
        ArgumentsPiece("{}"),
        CallPiece("b"),
        ArgumentsPiece("{}"),
        Finish(),
    ]


def test_the_limit_is_told() -> None:
    cut = {
        "choices": [{"delta": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    assert answer(delta(content="cut"), cut)[-1] == Finish("length", input_tokens=1, output_tokens=2)


@pytest.mark.parametrize(
    ("events", "code", "message"),
    [
        ([{"error": {"message": "out of memory", "code": "oom"}}], "oom", "out of memory"),
        ([{"error": "gone wrong"}], "engine_error", "gone wrong"),
        ([], "engine_protocol", "broke off"),
        (["[DONE]"], "engine_protocol", "broke off"),
        (["{not json"], "engine_protocol", "cannot be read"),
        ([{"choices": "none"}], "engine_protocol", "cannot be read"),
        ([call(0, "1", arguments="{}")], "engine_protocol", "no name"),
    ],
)
def test_what_goes_wrong_in_the_middle(events: list[object], code: str, message: str) -> None:
    with pytest.raises(EngineError, match=message) as error:
        answer(delta(content="so far"), *events)
    assert error.value.code == code


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("content_filter", "content_filter"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("stop", "stop"),
        ("tool_calls", "stop"),
        ("eos", "stop"),
    ],
)
def test_why_an_answer_ended(told: str, meant: str) -> None:
    pieces = answer(delta(content="so far"), {"choices": [{"delta": {}, "finish_reason": told}]})
    assert pieces == [TextPiece("so far"), Finish(meant)]  # type: ignore[arg-type]


def test_many_answers_at_once() -> None:
    async def main() -> None:
        async def behaviour(exchange: Exchange) -> None:
            said = exchange.request.json["messages"][0]["content"]
            await exchange.answer(200, server_sent(delta(content=said), STOP), "text/event-stream")

        async with http_double(behaviour) as url:
            engine = create({"url": url, "model": "m"})

            async def ask(text: str) -> list[Piece]:
                return [piece async for piece in engine.generate(Prompt(instructions="", items=(user(text),)))]

            answers = await asyncio.gather(*(ask(str(n)) for n in range(20)))
            assert answers == [[TextPiece(str(n)), Finish()] for n in range(20)]
            await engine.close()

    run(main())
