"""The scripted engines do exactly what their docstrings say."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import AsyncIterator
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines import ArgumentsPiece, CallPiece, Finish, Piece, Prompt, TextPiece, TranscriptionHints
from vivavoce.engines.scripted import (
    ScriptedLanguageModel,
    ScriptedSettings,
    ScriptedSynthesizer,
    ScriptedTranscriber,
    ScriptedVad,
    ScriptedVadSettings,
    create_language_model,
    create_synthesizer,
    create_transcriber,
    create_vad,
    scripted_pipeline,
)
from vivavoce.engines.scripted.hearing import squares
from vivavoce.errors import EngineError, SettingsError
from vivavoce.protocol.config import FunctionTool, ToolChoiceFunction
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
)
from vivavoce.testing import virtual_time

T = TypeVar("T")
WEATHER = FunctionTool(name="weather")


async def _gather(pieces: AsyncIterator[T]) -> list[T]:
    return [piece async for piece in pieces]


def collect(pieces: AsyncIterator[T]) -> list[T]:
    return asyncio.run(_gather(pieces))


def user(text: str) -> Message:
    return Message(role="user", content=(InputText(text=text),))


def answer(*items: Item, **fields: object) -> list[Piece]:
    prompt = Prompt(instructions="", items=items, **fields)  # type: ignore[arg-type]
    return collect(ScriptedLanguageModel().generate(prompt))


def written(pieces: list[Piece]) -> list[object]:
    """Texts joined; each call as (name, arguments)."""
    result: list[object] = []
    for piece in pieces:
        match piece:
            case TextPiece(text):
                result = (
                    [*result[:-1], result[-1] + text] if result and isinstance(result[-1], str) else [*result, text]
                )
            case CallPiece(name):
                result.append((name, ""))
            case ArgumentsPiece(text):
                name, arguments = result.pop()  # type: ignore[misc]
                result.append((name, arguments + text))
    return result


# --- language model ---------------------------------------------------------------------------------------------------


def test_echoes_the_last_user_text_word_by_word() -> None:
    pieces = answer(user("old"), user("two  words"), Message(role="assistant", content=(OutputText(text="no"),)))
    assert pieces == [
        TextPiece("echo:"),
        TextPiece(" two"),
        TextPiece("  words"),
        Finish("stop", input_tokens=4, output_tokens=3),
    ]


@pytest.mark.parametrize("text", ["", " ", "a", " a ", "a\n\nb ", "über 🙂 x"])
def test_pieces_join_to_the_whole_text(text: str) -> None:
    assert written(answer(user(text))) == [f"echo: {text}"]


def test_audio_is_its_transcript_and_parts_are_joined() -> None:
    parts = (
        InputAudio(transcript="audio of 10 ms"),
        InputAudio(transcript=None),
        InputImage(image_url="data:image/png;base64,AA=="),
        InputText(text="and text"),
    )
    assert written(answer(Message(role="user", content=parts))) == ["echo: audio of 10 ms [image] and text"]


def test_no_user_message_is_an_empty_echo() -> None:
    assert written(answer()) == ["echo: "]


def test_calls_with_the_json_as_it_stands_in_several_pieces() -> None:
    pieces = answer(user('please call weather {"city":  "Oslo", "n": {"a": 1}} now'))
    assert pieces[0] == CallPiece("weather")
    assert [type(piece) for piece in pieces[1:]] == [ArgumentsPiece, ArgumentsPiece, ArgumentsPiece, Finish]
    assert written(pieces) == [("weather", '{"city":  "Oslo", "n": {"a": 1}}')]


def test_several_calls() -> None:
    assert written(answer(user('call a {"x": "call c {}"} and call b-2 {}'))) == [
        ("a", '{"x": "call c {}"}'),
        ("b-2", "{}"),
    ]


@pytest.mark.parametrize("text", ["call me", "call a {broken", "recall a {}", "call a [1]"])
def test_what_is_no_call_is_echoed(text: str) -> None:
    assert written(answer(user(text))) == [f"echo: {text}"]


def test_reports_the_output_of_a_function() -> None:
    call = FunctionCall(call_id="c1", name="a", arguments="{}")
    output = FunctionCallOutput(call_id="c1", output='{"t": 3}')
    assert written(answer(user("call a {}"), call, output, tool_choice="required", tools=(WEATHER,))) == [
        'tool said: {"t": 3}'
    ]
    assert written(answer(call, output, user("then"))) == ["echo: then"]


def test_tool_choice() -> None:
    assert written(answer(user("call a {}"), tool_choice="none")) == ["echo: call a {}"]
    assert written(answer(user("hi"), tool_choice="required", tools=(WEATHER,))) == [("weather", "{}")]
    assert written(answer(user("hi"), tool_choice="required")) == ["echo: hi"]
    assert written(answer(user("hi"), tool_choice=ToolChoiceFunction(name="b"))) == [("b", "{}")]
    assert written(answer(user('call a {"k": 1}'), tool_choice=ToolChoiceFunction(name="b"))) == [("a", '{"k": 1}')]


def test_tokens_are_words() -> None:
    items = (
        user("one two"),
        FunctionCall(name="f", arguments='{"a": 1}'),
        FunctionCallOutput(call_id="c", output="three four five"),
    )
    pieces = collect(ScriptedLanguageModel().generate(Prompt(instructions="be brief", items=items)))
    assert pieces[-1] == Finish("stop", input_tokens=2 + 2 + 3 + 3, output_tokens=5)
    assert answer(user('call f {"a": 1}'))[-1] == Finish("stop", input_tokens=4, output_tokens=3)


def test_the_limit_counts_words() -> None:
    pieces = answer(user("one two"), max_output_tokens=2)
    assert pieces == [TextPiece("echo:"), TextPiece(" one"), Finish("length", input_tokens=2, output_tokens=2)]
    assert answer(user("one two"), max_output_tokens=3)[-1] == Finish("stop", input_tokens=2, output_tokens=3)


def test_the_limit_cuts_calls() -> None:
    pieces = answer(user('call f {"a": 1} call g {}'), max_output_tokens=2)
    assert written(pieces) == [("f", '{"a":')]
    assert pieces[-1] == Finish("length", input_tokens=7, output_tokens=2)


# --- transcriber, synthesizer, voice activity -------------------------------------------------------------------------


@pytest.mark.parametrize(("samples", "ms"), [(0, 0), (24, 0), (119, 0), (120, 10), (24_000, 1_000), (24_119, 1_000)])
def test_transcribes_the_duration(samples: int, ms: int) -> None:
    words = collect(ScriptedTranscriber().transcribe(bytes(2 * samples), TranscriptionHints()))
    assert words == ["audio", " of", f" {ms}", " ms"]


def test_speaks_sixty_ms_per_character_in_chunks_of_a_hundred() -> None:
    chunks = collect(ScriptedSynthesizer().speak("four", "marin", 1.0))
    assert [len(chunk) for chunk in chunks] == [4_800, 4_800, 4 * 60 * 48 - 2 * 4_800]
    assert len(b"".join(collect(ScriptedSynthesizer().speak("four", "", 0.5)))) == 2 * 4 * 60 * 48
    assert collect(ScriptedSynthesizer().speak("", "", 1.0)) == []


def test_the_tone_is_one_unbroken_sine_of_440_hz() -> None:
    samples = array("h", b"".join(collect(ScriptedSynthesizer().speak("unbroken", "", 1.0))))
    peak = max(samples)
    assert 3_000 < peak < 16_000
    assert all(abs(s - peak * math.sin(math.tau * 440 * n / 24_000)) <= 2 for n, s in enumerate(samples))


def test_voice_activity_tells_the_tone_from_silence_and_keeps_incomplete_frames() -> None:
    tone = b"".join(collect(ScriptedSynthesizer().speak("a", "", 1.0)))[: 3 * 960]
    stream = ScriptedVad().open()
    assert (ScriptedVad.rate_hz, ScriptedVad.frame_ms) == (24_000, 20)
    assert list(stream.push(bytes(960) + tone[:959])) == [0.0]
    assert list(stream.push(tone[959:])) == [1.0, 1.0, 1.0]
    assert list(stream.push(b"")) == []


@pytest.mark.parametrize(("level", "probability"), [(499, 0.0), (500, 1.0), (-500, 1.0)])
def test_voice_activity_has_one_clear_threshold(level: int, probability: float) -> None:
    assert list(ScriptedVad().open().push(array("h", [level] * 480).tobytes())) == [probability]
    assert list(create_vad({"speech_rms_min": 501}).open().push(array("h", [level] * 480).tobytes())) == [0.0]


# --- pace -------------------------------------------------------------------------------------------------------------


def times_s(pieces: AsyncIterator[object]) -> list[float]:
    """When each piece came, in seconds of virtual time."""

    async def watch() -> list[float]:
        return [asyncio.get_running_loop().time() async for _ in pieces]

    return virtual_time.run(watch())


def test_waits_before_the_first_piece_and_between_pieces() -> None:
    settings = ScriptedSettings(first_delay_s=300.0, piece_delay_s=1.0)
    hints = TranscriptionHints()
    prompt = Prompt(instructions="", items=(user("a"),))
    assert times_s(ScriptedTranscriber(settings).transcribe(b"", hints)) == [300, 301, 302, 303]
    assert times_s(ScriptedLanguageModel(settings).generate(prompt)) == [300, 301, 302]
    assert times_s(ScriptedSynthesizer(settings).speak("abcd", "", 1.0)) == [300, 301, 302]


def test_no_delay_still_yields_to_the_loop() -> None:
    async def run() -> list[str]:
        order: list[str] = []

        async def hear(name: str) -> None:
            async for word in ScriptedTranscriber().transcribe(b"", TranscriptionHints()):
                order.append(name + word)  # noqa: PERF401

        async with asyncio.TaskGroup() as group:
            group.create_task(hear("1 "))
            group.create_task(hear("2 "))
        return order

    assert asyncio.run(run())[:4] == ["1 audio", "2 audio", "1  of", "2  of"]


# --- faults -----------------------------------------------------------------------------------------------------------


def fails_after(pieces: AsyncIterator[object]) -> int:
    """How many pieces came before the scripted failure."""
    came: list[object] = []

    async def run() -> None:
        async for piece in pieces:
            came.append(piece)  # noqa: PERF401

    with pytest.raises(EngineError, match="script says") as failure:
        virtual_time.run(run())
    assert failure.value.code == "scripted_failure"
    return len(came)


def test_fails_at_the_nth_piece_in_every_call() -> None:
    settings = ScriptedSettings(fail_at_piece=3)
    prompt = Prompt(instructions="", items=(user("a"),))
    for _ in range(2):
        assert fails_after(ScriptedTranscriber(settings).transcribe(b"", TranscriptionHints())) == 2
        assert fails_after(ScriptedLanguageModel(settings).generate(prompt)) == 2
        assert fails_after(ScriptedSynthesizer(settings).speak("abcd", "", 1.0)) == 2
    assert len(collect(ScriptedSynthesizer(settings).speak("a", "", 1.0))) == 1


def test_voice_activity_fails_at_the_nth_frame() -> None:
    stream = ScriptedVad(ScriptedVadSettings(fail_at_frame=2)).open()
    assert list(stream.push(bytes(960))) == [0.0]
    with pytest.raises(EngineError) as failure:
        stream.push(bytes(960))
    assert failure.value.code == "scripted_failure"


def cancelled_twice(settings: ScriptedSettings) -> list[int]:
    """Pieces that had come when the call was cancelled a first time, after that, and after a second time."""

    async def run() -> list[int]:
        came: list[bytes] = []
        first = asyncio.Event()

        async def listen() -> None:
            async for chunk in ScriptedSynthesizer(settings).speak("x" * 40, "", 1.0):
                came.append(chunk)
                first.set()

        task = asyncio.create_task(listen())
        await first.wait()
        counts = [len(came)]
        for _ in range(2):
            task.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
            counts.append(len(came))
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        return counts

    return asyncio.run(run())


def test_a_cancellation_ends_the_call() -> None:
    counts = cancelled_twice(ScriptedSettings())
    assert counts[0] == counts[1] == counts[2]


def test_ignoring_cancel_swallows_the_first_cancellation_only() -> None:
    counts = cancelled_twice(ScriptedSettings(ignore_cancel=True))
    assert counts[0] < counts[1] == counts[2]


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("create", [create_transcriber, create_language_model, create_synthesizer, create_vad])
def test_an_unknown_option_is_named(create: object) -> None:
    with pytest.raises(SettingsError, match=r"'scripted' has no option 'pace'; it takes .*fail_at"):
        create({"pace": 1})  # type: ignore[operator]


def test_options_are_the_settings() -> None:
    engine = create_synthesizer({"first_delay_s": 2, "fail_at_piece": 2})
    assert fails_after(engine.speak("abcd", "", 1.0)) == 1
    assert times_s(create_synthesizer({"first_delay_s": 2}).speak("a", "", 1.0)) == [2]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"piece_delay_s": -1}, "'piece_delay_s': .* >= 0"),
        ({"piece_delay_s": "1"}, "'piece_delay_s': .*float.*str"),
        ({"fail_at_piece": 0}, "'fail_at_piece': .* >= 1"),
        ({"ignore_cancel": 1}, "'ignore_cancel': .*bool"),
    ],
)
def test_a_wrong_option_says_what_was_expected(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        create_language_model(options)


def test_the_pipeline_has_settings_for_each_engine() -> None:
    async def run() -> None:
        pipeline = scripted_pipeline("mine", synthesizer=ScriptedSettings(fail_at_piece=1))
        assert pipeline.name == "mine"
        await pipeline.warm_up()
        assert await _gather(pipeline.transcriber.transcribe(b"", TranscriptionHints()))
        with pytest.raises(EngineError):
            await _gather(pipeline.synthesizer.speak("a", "", 1.0))
        await pipeline.close()

    asyncio.run(run())


@given(st.binary(max_size=960).map(lambda pcm: pcm[: len(pcm) // 2 * 2]))
def test_levels_are_the_same_with_numpy_and_without(pcm: bytes) -> None:
    assert squares(with_numpy=False)(pcm) == squares()(pcm)
