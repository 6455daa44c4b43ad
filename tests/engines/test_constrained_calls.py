"""Calls by a model that has none of its own: what it is asked, and how its JSON becomes pieces."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from http_double import Exchange, http_double, server_sent

from vivavoce.engines import ArgumentsPiece, CallPiece, Finish, Piece, Prompt, TextPiece
from vivavoce.engines.constrained_calls import CALL_CHARS_MAX, answer_schema
from vivavoce.engines.openai_chat import create
from vivavoce.errors import EngineError
from vivavoce.protocol.config import FunctionTool, ToolChoice, ToolChoiceFunction
from vivavoce.protocol.items import FunctionCall, FunctionCallOutput, InputImage, InputText, Message

WEATHER = FunctionTool(
    name="weather",
    description="The weather of a city",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
TIMER = FunctionTool(name="timer")
HI = (Message(role="user", content=(InputText(text="hi"),)),)
STOP = {"choices": [{"delta": {}, "finish_reason": "stop"}]}


def prompted(choice: ToolChoice = "auto", *tools: FunctionTool) -> Prompt:
    return Prompt("Be brief.", HI, tools or (WEATHER, TIMER), choice)


def exchanged(prompt: Prompt, *events: object, **options: object) -> tuple[Any, list[Piece]]:
    """The body of the request, and the pieces of an answer of these events."""

    bodies: list[Any] = []

    async def behaviour(exchange: Exchange) -> None:
        bodies.append(exchange.request.json)
        await exchange.answer(200, server_sent(*events, "[DONE]"), "text/event-stream")

    async def main() -> list[Piece]:
        async with asyncio.timeout(20), http_double(behaviour) as url:
            engine = create({"url": url, "model": "m", "tools": "constrained", **options})
            try:
                return [piece async for piece in engine.generate(prompt)]
            finally:
                await engine.close()

    pieces = asyncio.run(main())
    return bodies[0], pieces


def asked(prompt: Prompt, **options: object) -> Any:
    text = json.dumps({"tool": "weather", "arguments": {}})
    return exchanged(prompt, {"choices": [{"delta": {"content": text}}]}, STOP, **options)[0]


def answered(text: str, size: int = 1, choice: ToolChoice = "auto", end: str = "stop") -> list[Piece]:
    """What the engine makes of this answer, sent in pieces of `size` characters."""
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    events = [{"choices": [{"delta": {"content": part}}]} for part in parts]
    return exchanged(prompted(choice), *events, {"choices": [{"delta": {}, "finish_reason": end}]})[1]


def text_of(pieces: list[Piece]) -> str:
    assert isinstance(pieces[-1], Finish)
    assert all(isinstance(piece, TextPiece) for piece in pieces[:-1])
    return "".join(piece.text for piece in pieces if isinstance(piece, TextPiece))


# --- the question -----------------------------------------------------------------------------------------------------


def shape_of_call(name: str, arguments: object) -> dict[str, object]:
    return {
        "type": "object",
        "properties": {"tool": {"type": "string", "enum": [name]}, "arguments": arguments},
        "required": ["tool", "arguments"],
        "additionalProperties": False,
    }


CITY = {**WEATHER.parameters, "additionalProperties": False}  # type: ignore[dict-item]
NOTHING = {"type": "object", "additionalProperties": False}
TEXT = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("choice", "schema"),
    [
        ("auto", {"anyOf": [shape_of_call("weather", CITY), shape_of_call("timer", NOTHING), TEXT]}),
        ("required", {"anyOf": [shape_of_call("weather", CITY), shape_of_call("timer", NOTHING)]}),
        (ToolChoiceFunction(name="timer"), shape_of_call("timer", NOTHING)),
    ],
)
def test_the_schema_leaves_what_the_choice_leaves(choice: ToolChoice, schema: object) -> None:
    assert answer_schema(prompted(choice)) == schema


def test_the_request_gives_the_schema_and_tells_of_the_tools() -> None:
    body = asked(prompted())
    schema = answer_schema(prompted())
    assert body["response_format"] == {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    assert body.keys().isdisjoint({"tools", "tool_choice", "parallel_tool_calls"})
    system, user = body["messages"]
    assert user == {"role": "user", "content": "hi"}
    assert system["content"].startswith("Be brief.\n\n")
    for told in ('"name": "weather"', "The weather of a city", '"name": "timer"', '{"text": "..."}'):
        assert told in system["content"]


def test_other_servers_want_the_schema_in_a_field_of_their_own() -> None:
    body = asked(prompted("required"), schema_field="guided_json")
    assert body["guided_json"] == answer_schema(prompted("required"))
    assert "response_format" not in body


def test_what_must_be_a_call_is_offered_no_text_and_one_function_only_itself() -> None:
    system = asked(prompted(ToolChoiceFunction(name="weather")))["messages"][0]["content"]
    assert "weather" in system
    assert "timer" not in system
    assert '{"text"' not in system


@pytest.mark.parametrize("prompt", [prompted("none"), Prompt("Be brief.", HI)])
def test_without_tools_it_is_an_ordinary_question(prompt: Prompt) -> None:
    body, pieces = exchanged(prompt, {"choices": [{"delta": {"content": '{"text": 1}'}}]}, STOP)
    assert body["messages"][0]["content"] == "Be brief."
    assert body.keys().isdisjoint({"response_format", "tools"})
    assert pieces == [TextPiece('{"text": 1}'), Finish()]


def test_earlier_calls_are_told_in_words_and_images_are_shown() -> None:
    image = InputImage(image_url="data:image/png;base64,AA==")
    items = (
        FunctionCall(call_id="c", name="weather", arguments='{"city": "Oslo"}'),
        FunctionCallOutput(call_id="c", output="rain"),
        FunctionCallOutput(call_id="gone", output="lost"),
        Message(role="user", content=(image,)),
    )
    *before, shown = asked(Prompt("", items, tool_choice="none"))["messages"]
    assert before == [
        {"role": "assistant", "content": '{"tool": "weather", "arguments": {"city": "Oslo"}}'},
        {"role": "user", "content": "Tool 'weather' gave: rain"},
        {"role": "user", "content": "A tool gave: lost"},
    ]
    assert shown["content"][0]["type"] == "image_url"


def test_references_of_a_schema_still_lead_where_they_led() -> None:
    tree = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}}
    point = {"properties": {"at": {"$ref": "#/$defs/P"}}, "$defs": {"P": {"type": "integer"}}}
    tools = (FunctionTool(name="grow/it", parameters=tree), FunctionTool(name="go", parameters=point), TIMER)
    schema = answer_schema(prompted("required", *tools))
    shapes = [shape["properties"]["arguments"] for shape in schema["anyOf"]]
    assert shapes == [{"$ref": "#/$defs/grow~1it"}, {"$ref": "#/$defs/go"}, NOTHING]
    assert schema["$defs"]["grow/it"]["properties"]["kids"]["items"] == {"$ref": "#/$defs/grow~1it"}
    assert schema["$defs"]["go"]["properties"]["at"] == {"$ref": "#/$defs/go/$defs/P"}
    assert schema["$defs"]["go"]["$defs"]["P"] == {"type": "integer"}


# --- the answer -------------------------------------------------------------------------------------------------------

SAID = 'He said "no"\n\\ Grüß 🙂 dich/\t'


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
@pytest.mark.parametrize("is_ascii", [True, False])
def test_text_comes_out_as_it_was_meant_however_it_is_cut(size: int, is_ascii: bool) -> None:
    wire = " " + json.dumps({"text": SAID}, ensure_ascii=is_ascii)
    assert text_of(answered(wire, size)) == SAID
    assert text_of(answered(wire.replace("/", "\\/"), size)) == SAID


def test_text_is_passed_on_while_it_is_written() -> None:
    assert answered('{"text":"One. Two."}  ', 5) == [
        TextPiece("O"),
        TextPiece("ne. T"),
        TextPiece("wo."),
        Finish(),
    ]


@pytest.mark.parametrize("size", [1, 4, 1_000])
def test_a_call_comes_whole(size: int) -> None:
    wire = '{ "tool": "weather",\n "arguments": {"city": "Örebro"} }'
    call = [CallPiece("weather"), ArgumentsPiece('{"city": "Örebro"}'), Finish()]
    assert answered(wire, size) == call
    assert answered('{"arguments": {"city": "Örebro"}, "tool": "weather"}', size, "required") == call


def test_text_cut_off_is_what_was_said_and_a_call_cut_off_is_none() -> None:
    assert answered('{"text": "so f\\u00', end="length") == [
        *(TextPiece(letter) for letter in "so f"),
        Finish("length"),
    ]
    assert answered('{"tool": "weather", "argum', end="length") == [Finish("length")]
    assert answered('{"tool": "weather", "argum', 99, "required", "content_filter") == [Finish("content_filter")]
    assert answered("", choice="required", end="length") == [Finish("length")]
    assert answered('{"text": ""}') == [Finish()]
    assert answered("") == [Finish()]


@pytest.mark.parametrize("text", ["Hello there.", '{"say": 1}'[1:], "[1]", '{"text": 7}' + " " * 99])
def test_a_server_that_knows_no_schema_may_still_say_something(text: str) -> None:
    assert text_of(answered(text)) == text


@pytest.mark.parametrize(
    ("text", "choice", "said"),
    [
        ("Hello.", "required", "a call was required"),
        ('{"text": "no"}', "required", "a call was required"),
        ("", "required", "the answer is empty"),
        ('{"tool": "weather"', "auto", "no JSON"),
        ('{"tool": "weather", "arguments": ' + "[" * 100_000, "auto", "no JSON"),
        ('{"tool": "rocket", "arguments": {}}', "auto", "no call of timer or weather"),
        ('{"tool": ["weather"], "arguments": {}}', "auto", "no call of"),
        ('{"tool": "weather", "arguments": []}', "auto", "no call of"),
        ('{"tool": "weather", "arguments": {}}', ToolChoiceFunction(name="timer"), "no call of timer"),
        ('{"text": "\\x"}', "auto", "no JSON"),
        ('{"tool": "' + "x" * CALL_CHARS_MAX, "auto", "exceeds"),
    ],
)
def test_an_answer_that_is_not_kept_to_the_schema_is_told(text: str, choice: ToolChoice, said: str) -> None:
    with pytest.raises(EngineError, match=said) as caught:
        answered(text, 50_000, choice)
    assert caught.value.code == "engine_protocol"
