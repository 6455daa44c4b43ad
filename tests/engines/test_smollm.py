"""The embedded language model: what it is told, that it answers, stops, and keeps to a schema."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from vivavoce.engines import ArgumentsPiece, CallPiece, Finish, Piece, Prompt, TextPiece
from vivavoce.engines.smollm import WAITING_MAX, SmolLM, SmolLMSettings, _chat, _fitting, _joined, create
from vivavoce.errors import EngineError, SettingsError
from vivavoce.protocol.config import FunctionTool, ToolChoiceFunction
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputText,
    Item,
    Message,
    OutputAudio,
)

INSTRUCTIONS = "Answer in one short sentence."
WEATHER = FunctionTool(
    name="get_weather",
    description="The weather of a city",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
TIMER = FunctionTool(name="set_timer", parameters={"type": "object", "properties": {"minutes": {"type": "integer"}}})


def user(text: str) -> Item:
    return Message(role="user", content=(InputText(text=text),))


def test_the_model_reads_what_was_heard_and_what_functions_answered() -> None:
    items = (
        Message(role="user", content=(InputAudio(transcript="how warm is it"),)),
        FunctionCall(call_id="c", name="get_weather", arguments='{"city": "Rome"}'),
        FunctionCallOutput(call_id="c", output="21 degrees"),
        Message(role="assistant", content=(OutputAudio(transcript="It is 21 degrees."),)),
        Message(role="user", content=(InputAudio(transcript=None),)),
    )
    chat = _chat(Prompt(INSTRUCTIONS, items))
    assert [line["role"] for line in chat] == ["system", "user", "assistant", "user", "assistant"]
    assert chat[1]["content"] == "how warm is it"
    assert "get_weather" in chat[2]["content"]
    assert "21 degrees" in chat[3]["content"]


def test_the_oldest_lines_go_first_and_the_system_message_stays() -> None:
    chat = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "old" * 100},
        {"role": "assistant", "content": "between"},
        {"role": "user", "content": "new"},
    ]
    assert [line["content"] for line in _fitting(chat, 60)] == ["be brief", "between", "new"]
    assert [line["content"] for line in _fitting(chat, 1)] == ["be brief", "w"]
    assert _fitting(chat, 1000) == chat


def test_neighbours_of_one_role_are_joined() -> None:
    chat = _joined(_chat(Prompt("", (user("one"), user("two")))))
    assert chat == [{"role": "user", "content": "one\ntwo"}]


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(SettingsError, match="temprature"):
        create({"temprature": 1})


def test_a_model_that_is_not_there_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"nothing at .*no-such\.gguf"):
        create({"model": "/no-such.gguf"})


def test_nothing_is_generated_before_warm_up() -> None:
    async def ask() -> None:
        async for _ in SmolLM().generate(Prompt("", (user("hello"),))):
            pass

    with pytest.raises(EngineError, match="not warmed up"):
        asyncio.run(ask())


STEPS = 200_000
"""As good as endless, and still an end where a test fails."""


class Endless:
    """In place of the model: computes a prompt and then says one word, on and on, until it is told to stop."""

    def __init__(self, prompt_steps: int = 0) -> None:
        self.prompt_steps = prompt_steps
        self.bodies: list[dict[str, Any]] = []
        self.begun = threading.Event()
        self.was_stopped = False
        self.said = 0

    def handle_chat_completions(self, body: dict[str, Any], take: Callable[[object], bool]) -> None:
        self.bodies.append(body)
        self.begun.set()
        progress = {"choices": [{"delta": {}}], "prompt_progress": {"processed": 1}}
        word = {"choices": [{"delta": {"content": "word "}}]}
        for step in range(STEPS):
            self.said += step >= self.prompt_steps
            if take(word if step >= self.prompt_steps else progress):
                self.was_stopped = True
                return


def pretended(server: Endless, **settings: Any) -> SmolLM:
    model = SmolLM(SmolLMSettings(**settings))
    model._server = server
    return model


def test_leaving_stops_the_model_at_its_next_token() -> None:
    async def ask() -> None:
        model = pretended(server := Endless())
        pieces = model.generate(Prompt("", (user("hello"),)))
        assert await anext(pieces) == TextPiece("word ")
        await pieces.aclose()  # type: ignore[attr-defined]
        await model.close()
        assert server.was_stopped
        assert server.bodies[0]["max_tokens"] == SmolLMSettings().answer_chars
        assert server.bodies[0]["return_progress"]

    asyncio.run(ask())


def test_a_prompt_that_nobody_waits_for_is_computed_no_further() -> None:
    async def ask() -> None:
        model = pretended(server := Endless(prompt_steps=STEPS))
        asking = asyncio.ensure_future(anext(model.generate(Prompt("", (user("hello"),)))))
        assert await asyncio.to_thread(server.begun.wait, 10)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await model.close()
        assert server.was_stopped
        assert server.said == 0

    asyncio.run(ask())


def test_who_waits_in_vain_never_reaches_the_model_and_too_many_are_told() -> None:
    async def ask() -> None:
        model = pretended(server := Endless(), slots=1)
        first = model.generate(Prompt("", (user("hello"),)))
        await anext(first)
        waiting = [
            asyncio.ensure_future(anext(model.generate(Prompt("", (user("me too"),))))) for _ in range(WAITING_MAX - 1)
        ]
        await asyncio.sleep(0)
        with pytest.raises(EngineError) as caught:
            await anext(model.generate(Prompt("", (user("and me"),))))
        assert caught.value.code == "engine_busy"
        for one in waiting:
            one.cancel()
        assert all(
            isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*waiting, return_exceptions=True)
        )
        await first.aclose()  # type: ignore[attr-defined]
        await model.close()
        assert len(server.bodies) == 1

    asyncio.run(ask())


@pytest.mark.models
def test_it_answers_stops_and_calls() -> None:
    """One load for everything that needs the model."""

    async def hold() -> None:
        before = listening()
        model = create({})
        await model.warm_up()
        assert listening() == before, "nobody else can reach the model"
        try:
            await _answers(model)
            await _stops_at_once(model)
            await _forgets_what_does_not_fit(model)
            for choice in (ToolChoiceFunction(name="set_timer"), "required"):
                await _calls(model, choice)
        finally:
            await model.close()

    asyncio.run(hold())


def listening() -> set[str]:
    """Ports that this process listens on, and socket files of its own that somebody could open."""
    connections = psutil.Process().net_connections("all")
    ports = {f"{c.laddr.ip}:{c.laddr.port}" for c in connections if c.status == psutil.CONN_LISTEN and c.laddr}
    return ports | {
        str(c.laddr) for c in connections if isinstance(c.laddr, str) and c.laddr and Path(c.laddr).exists()
    }


async def collect(pieces: AsyncIterator[Piece]) -> list[Piece]:
    return [piece async for piece in pieces]


async def _answers(model: SmolLM) -> None:
    *text, finish = await collect(model.generate(Prompt(INSTRUCTIONS, (user("What is the capital of France?"),))))
    assert "Paris" in "".join(piece.text for piece in text if isinstance(piece, TextPiece))
    assert isinstance(finish, Finish)
    assert finish.input_tokens > finish.cached_tokens >= 0
    assert finish.output_tokens > 0
    *_, cut = await collect(model.generate(Prompt("", (user("Count to one hundred."),), max_output_tokens=5)))
    assert cut == Finish("length", cut.input_tokens, cut.cached_tokens, 5)  # type: ignore[union-attr]


async def _stops_at_once(model: SmolLM) -> None:
    pieces = model.generate(Prompt(INSTRUCTIONS, (user("Tell me a very long story."),)))
    assert isinstance(await anext(pieces), TextPiece)
    await pieces.aclose()  # type: ignore[attr-defined]
    assert await collect(model.generate(Prompt(INSTRUCTIONS, (user("Hello."),))))


async def _forgets_what_does_not_fit(model: SmolLM) -> None:
    long = tuple(user("word " * 3000) for _ in range(3))
    *_, finish = await collect(model.generate(Prompt(INSTRUCTIONS, (*long, user("x")), max_output_tokens=4)))
    assert isinstance(finish, Finish)


async def _calls(model: SmolLM, choice: object) -> None:
    prompt = Prompt(INSTRUCTIONS, (user("Set a timer for five minutes."),), (WEATHER, TIMER), choice)  # type: ignore[arg-type]
    call, *pieces, finish = await collect(model.generate(prompt))
    assert isinstance(call, CallPiece)
    assert isinstance(finish, Finish)
    arguments = json.loads("".join(piece.text for piece in pieces if isinstance(piece, ArgumentsPiece)))
    expected = {"get_weather": {"city"}, "set_timer": {"minutes"}}[call.name]
    assert set(arguments) <= expected
