"""Apps made of decorated functions, against a real server in this process, on virtual time."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sound_double import Sound

import vivavoce
from vivavoce import LocalProtocolError, ServerError, ToolResult, config
from vivavoce.audio import wav
from vivavoce.client.microphone import record, record_as_stream
from vivavoce.client.player import VirtualPlayer
from vivavoce.core.account import Price
from vivavoce.core.limits import Limits
from vivavoce.core.session import Session
from vivavoce.engines import Pipeline
from vivavoce.engines.scripted import ScriptedSettings, scripted_pipeline
from vivavoce.protocol import events as ev
from vivavoce.protocol.codec import Dialect, ServerCodec
from vivavoce.server.runtime import Runtime
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.sounds import tone
from vivavoce.testing.virtual_time import run
from vivavoce.transports import Transport
from vivavoce.transports.memory import pair

MANUAL = config.RealtimeSession(audio=config.AudioConfig(input=config.AudioInput(turn_detection=None)))
TEXT = config.RealtimeSession(output_modalities=("text",))
CALL = 'call format_book {"title": "Emma", "author": "Austen"}'


class Noted:
    """A transport that notes what the client sends."""

    def __init__(self, transport: Transport, sent: list[dict[str, Any]]) -> None:
        self._transport = transport
        self._sent = sent
        self.receive = transport.receive
        self.close = transport.close

    async def send(self, message: bytes) -> None:
        self._sent.append(json.loads(message))
        await self._transport.send(message)


class House:
    """A server in this process, which an app dials; `sent` is what the app has sent over all connections."""

    def __init__(self, pipeline: Pipeline | None = None, dialect: Dialect = "ga") -> None:
        self.dialect = dialect
        self.pipeline = pipeline or scripted_pipeline()
        self.sent: list[dict[str, Any]] = []
        self.ends: list[Transport] = []
        self.running: list[asyncio.Task[None]] = []

    async def dial(self, headers: Mapping[str, str]) -> Transport:
        client_end, server_end = pair(messages_max=10_000)
        name = f"sess_{len(self.running)}"
        session = Session(id=name, model="scripted", ids=counting_ids(), expires_at=0, limits=Limits())
        runtime = Runtime(session, self.pipeline, ServerCodec(self.dialect), server_end)
        self.ends.append(server_end)
        self.running.append(asyncio.create_task(runtime.run()))
        return Noted(client_end, self.sent)

    def app(self, **options: Any) -> vivavoce.App:
        """An app whose server this is."""
        return vivavoce.App("gpt-realtime", **{"dial": self.dial, "session": TEXT, **options})

    def serve(self, app: vivavoce.App) -> None:
        """Run it to its end; nothing may be left of it."""

        async def main() -> None:
            try:
                await app.serve()
            finally:
                await asyncio.wait_for(asyncio.gather(*self.running), 60)
                assert asyncio.all_tasks() == {asyncio.current_task()}

        run(main())

    def of(self, type: str) -> list[dict[str, Any]]:
        """What the app has sent of a type."""
        return [event for event in self.sent if event["type"] == type]

    @property
    def types(self) -> list[str]:
        """What the app has sent, appended audio once in a row, configuration left out."""
        types = [event["type"] for event in self.sent if event["type"] != "session.update"]
        same = "input_audio_buffer.append"
        return [type for at, type in enumerate(types) if type != same or types[at - 1 : at] != [same]]


def format_book(title: str, author: str) -> str:
    return f"{title} by {author}"


class OwnError(Exception):
    pass


# --- C1: senders ------------------------------------------------------------------------------------------------------


def test_c1_a_coroutine_says_one_message() -> None:
    house, said = House(), list[str]()
    app = house.app()

    @app.sender
    async def greet() -> str:
        return "Hello!"

    app.receiver("text")(said.append)
    house.serve(app)
    assert said == ["echo: Hello!"]
    assert house.types == ["conversation.item.create", "response.create"]


def test_c1_a_generator_says_several_in_order() -> None:
    house, said = House(), list[str]()
    app = house.app()

    @app.sender()
    async def count() -> AsyncIterator[str]:
        yield "one"
        yield "two"
        yield "three"

    app.receiver("text")(said.append)
    house.serve(app)
    assert said == ["echo: one", "echo: two", "echo: three"]


@pytest.mark.parametrize("wait_for", ["text", "response"])
def test_c1_a_repeated_sender_is_called_again_when_receivers_have_the_answer(wait_for: Any) -> None:
    house, log = House(), list[str]()
    app = house.app()
    lines = iter(["one", "two", None])

    @app.sender(wait_for=wait_for, repeat=True)
    async def say() -> str | None:
        line = next(lines)
        log.append(f"say {line}")
        return line

    @app.receiver("text")
    async def show(text: str) -> None:
        await asyncio.sleep(1)  # on virtual time
        log.append(text)

    house.serve(app)
    assert log == ["say one", "echo: one", "say two", "echo: two", "say None"]


def test_c1_without_wait_for_a_sender_goes_on_when_its_answer_has_begun() -> None:
    house, log = House(scripted_pipeline(language_model=ScriptedSettings(piece_delay_s=1.0))), list[str]()
    app = house.app()

    @app.sender
    async def say() -> AsyncIterator[str]:
        yield "one"
        log.append("goes on")
        yield "two"

    app.receiver("text")(log.append)
    house.serve(app)
    assert log == ["goes on", "echo: one", "echo: two"]


def test_c1_a_wait_for_a_text_that_does_not_come_ends_with_the_answer() -> None:
    house, log = House(), list[str]()
    app = house.app(session=MANUAL)

    @app.sender(wait_for="text")
    async def say() -> AsyncIterator[str]:
        yield "one"
        log.append("goes on")

    app.receiver("transcript")(log.append)
    house.serve(app)
    assert log == ["echo: one", "goes on"]


@pytest.mark.parametrize("kind", ["transcript", "audio"])
def test_c1_waits_for_what_is_spoken(kind: Any) -> None:
    house, log = House(), list[str]()
    app = house.app(session=MANUAL)

    @app.sender(wait_for=kind)
    async def say() -> AsyncIterator[str]:
        yield "one"
        log.append("goes on")

    app.receiver(kind)(lambda value: log.append(kind))

    @app.receiver
    async def at_the_end(event: Any) -> None:
        if isinstance(event, ev.ResponseDone):
            await asyncio.sleep(1)  # on virtual time
            log.append(event.type)

    house.serve(app)
    assert log == [kind, "goes on", "response.done"]


def test_c1_senders_run_side_by_side() -> None:
    house, said = House(), list[str]()
    app = house.app()
    is_answered = asyncio.Event()

    @app.sender
    async def patient() -> str:
        await is_answered.wait()
        return "second"

    @app.sender(wait_for="response")
    async def quick() -> AsyncIterator[str]:
        yield "first"
        is_answered.set()

    app.receiver("text")(said.append)
    house.serve(app)
    assert said == ["echo: first", "echo: second"]


def test_c1_chunks_are_one_turn_where_nobody_else_finds_turns() -> None:
    house, said = House(), list[str]()
    app = house.app(session=MANUAL)

    @app.sender
    async def speak() -> AsyncIterator[bytes | bytearray | str]:
        for _ in range(3):
            yield tone(100)
        yield "and now in writing"
        yield bytearray(tone(200))

    app.receiver("transcript")(said.append)
    house.serve(app)
    spoken = ["input_audio_buffer.append", "input_audio_buffer.commit", "response.create"]
    assert house.types == [*spoken, "conversation.item.create", "response.create", *spoken]
    assert said == ["echo: audio of 300 ms", "echo: and now in writing", "echo: audio of 200 ms"]


def test_c1_chunks_are_streamed_where_the_server_finds_turns() -> None:
    house, said = House(), list[str]()
    app = house.app(session=config.RealtimeSession())

    @app.sender(wait_for="transcript")
    async def speak() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield tone(100)

    app.receiver("transcript")(said.append)
    house.serve(app)
    assert house.types == ["input_audio_buffer.append"]
    assert said == ["echo: audio of 600 ms"]


def test_c1_speech_that_is_returned_is_one_message_either_way() -> None:
    for configuration in (MANUAL, config.RealtimeSession()):
        house, said = House(), list[str]()
        app = house.app(session=configuration)

        @app.sender
        async def speak() -> bytes:
            return tone(300)

        app.receiver("transcript")(said.append)
        house.serve(app)
        assert said == ["echo: audio of 300 ms"]
        assert "response.create" in house.types


def test_c1_a_file_and_a_source_are_audio(tmp_path: Path) -> None:
    house, said = House(), list[str]()
    app = house.app(session=MANUAL)
    recording = tmp_path / "speech.wav"
    recording.write_bytes(wav.encoded(tone(500), 24_000))

    async def source() -> AsyncIterator[bytes]:
        yield tone(100)
        yield tone(150)

    @app.sender
    async def speak() -> AsyncIterator[Path | AsyncIterator[bytes]]:
        yield recording
        yield source()

    app.receiver("transcript")(said.append)
    house.serve(app)
    assert said == ["echo: audio of 500 ms", "echo: audio of 250 ms"]


def test_c1_what_is_too_short_to_be_a_turn_is_no_end(caplog: pytest.LogCaptureFixture) -> None:
    house, said = House(), list[str]()
    app = house.app(session=MANUAL)

    @app.sender
    async def speak() -> AsyncIterator[bytes | str]:
        yield tone(20)
        yield "hello"

    app.receiver("transcript")(said.append)
    house.serve(app)
    assert said == ["echo: hello"]
    assert "too short" in caplog.text


def test_c1_speeches_of_two_senders_are_not_mixed() -> None:
    house, said = House(), list[str]()
    app = house.app(session=MANUAL)

    async def speak(ms: int) -> AsyncIterator[bytes]:
        for _ in range(5):
            yield tone(ms)
            await asyncio.sleep(0.1)  # on virtual time

    @app.sender
    async def long() -> AsyncIterator[bytes]:
        async for chunk in speak(100):
            yield chunk

    @app.sender
    async def short() -> AsyncIterator[bytes]:
        async for chunk in speak(40):
            yield chunk

    @app.sender
    async def write() -> str:
        await asyncio.sleep(0.25)
        return "in between"

    app.receiver("transcript")(said.append)
    house.serve(app)
    assert sorted(said) == ["echo: audio of 200 ms", "echo: audio of 500 ms", "echo: in between"]


@pytest.mark.parametrize("as_tool", [False, True])
def test_c1_tools_of_one_turn_are_run_and_answered(as_tool: bool) -> None:
    house, said = House(), list[str]()
    app = house.app()

    @app.sender(wait_for="response")
    async def say() -> AsyncIterator[tuple[str, list[Any]]]:
        yield CALL, [vivavoce.tool(format_book) if as_tool else format_book]
        said.append("goes on")

    app.receiver("text")(said.append)
    house.serve(app)
    assert said == ["tool said: Emma by Austen", "goes on"]
    first, second = house.of("response.create")
    assert [tool["name"] for tool in first["response"]["tools"]] == ["format_book"]
    assert second["response"]["tools"] == first["response"]["tools"]  # the answer belongs to the turn, too
    assert all(not event["session"].get("tools") for event in house.of("session.update"))


def test_c1_speech_may_come_with_tools(tmp_path: Path) -> None:
    for configuration in (MANUAL, config.RealtimeSession()):
        house = House()
        app = house.app(session=configuration)

        @app.sender
        async def say() -> tuple[bytes, list[Any]]:
            return tone(200), [format_book]

        house.serve(app)
        (asked,) = house.of("response.create")
        assert [tool["name"] for tool in asked["response"]["tools"]] == ["format_book"]


def test_c1_a_definition_for_one_turn_is_the_apps_to_answer() -> None:
    house, said = House(), list[str]()
    app = house.app()
    definition = {"type": "function", "name": "format_book", "parameters": {"type": "object", "properties": {}}}

    @app.sender
    async def say() -> tuple[str, list[dict[str, Any]]]:
        return CALL, [definition]

    @app.receiver("tool")
    async def answer(call: ToolResult) -> None:
        if call.output is None:
            assert json.loads(call.arguments) == {"title": "Emma", "author": "Austen"}
            app.session.send_function_output(call.call_id, f"{call.name} by hand")
            app.session.create_response()

    app.receiver("text")(said.append)
    house.serve(app)
    assert said == ["tool said: format_book by hand"]


def test_c1_a_turns_tool_may_not_pass_for_another_of_the_app() -> None:
    house = House()
    app = house.app()
    app.tool(format_book)

    @app.sender
    async def say() -> tuple[str, list[Any]]:
        return CALL, [vivavoce.tool(lambda: "x", name="format_book")]

    with pytest.raises(LocalProtocolError, match="another tool named 'format_book'"):
        house.serve(app)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (("a", "b", "c"), r"say: a tuple is \(message, \[tools\]\)"),
        (("a", "b"), r"a tuple is \(message, \[tools\]\)"),
        (7, "say has said 7; it may say text"),
    ],
)
def test_c1_what_cannot_be_said_is_refused_by_name(said: Any, message: str) -> None:
    house = House()
    app = house.app()

    @app.sender
    async def say() -> Any:
        return said

    with pytest.raises(LocalProtocolError, match=message):
        house.serve(app)


def test_c1_what_is_no_sender_is_refused_at_once() -> None:
    app = House().app()
    with pytest.raises(LocalProtocolError, match=r"neither a coroutine function nor an async generator"):
        app.sender(lambda: "x")  # type: ignore[type-var]

    async def demanding(text: str) -> str:
        return text

    with pytest.raises(LocalProtocolError, match=r"demanding must take \(\) or \(context\)"):
        app.sender(demanding)

    async def fine() -> str:
        return ""

    with pytest.raises(LocalProtocolError, match="wait_for is 'words'; it takes 'text'"):
        app.sender(wait_for="words")(fine)  # type: ignore[call-overload]


# --- C2: receivers ----------------------------------------------------------------------------------------------------


def received(question: str, *kinds: str, session: config.RealtimeSession = TEXT) -> dict[str, list[Any]]:
    """What receivers of each kind get when this is asked."""
    house = House()
    app = house.app(session=session)
    app.tool(format_book)
    got: dict[str, list[Any]] = {kind: [] for kind in kinds}

    @app.sender
    async def ask() -> str:
        return question

    for kind in kinds:
        app.receiver(kind)(got[kind].append)  # type: ignore[call-overload]
    house.serve(app)
    return got


def test_c2_text_comes_whole_and_in_chunks() -> None:
    got = received("a b c", "text", "text_chunk", "transcript", "audio")
    assert got["text"] == ["echo: a b c"]
    assert len(got["text_chunk"]) > 1
    assert "".join(got["text_chunk"]) == "echo: a b c"
    assert not got["transcript"]
    assert not got["audio"]


def test_c2_speech_comes_whole_and_in_chunks() -> None:
    got = received("a b", "text", "transcript", "transcript_chunk", "audio", "audio_chunk", session=MANUAL)
    assert got["transcript"] == ["echo: a b"]
    assert "".join(got["transcript_chunk"]) == "echo: a b"
    (audio,) = got["audio"]
    assert b"".join(got["audio_chunk"]) == audio
    assert len(audio) == 24_000 * 2 * 60 * len("echo: a b") // 1000
    assert not got["text"]


def test_c2_the_kinds_are_those_of_today_in_the_beta_dialect_too() -> None:
    house, said, results = House(dialect="beta"), list[str](), list[ToolResult]()
    app = house.app(dialect="beta")
    app.tool(format_book)

    @app.sender(wait_for="text")
    async def ask() -> AsyncIterator[str]:
        yield "hello"
        yield CALL

    app.receiver("text")(said.append)
    app.receiver("tool")(results.append)
    house.serve(app)
    assert said == ["echo: hello", "tool said: Emma by Austen"]
    assert [(result.name, result.output) for result in results] == [("format_book", "Emma by Austen")]


def test_c2_a_tool_comes_with_its_answer_and_in_chunks() -> None:
    got = received(CALL, "tool", "tool_chunk", "text")
    arguments = "".join(got["tool_chunk"])
    assert json.loads(arguments) == {"title": "Emma", "author": "Austen"}
    (result,) = got["tool"]
    assert result == ToolResult("format_book", arguments, result.call_id, "Emma by Austen")
    assert got["text"] == ["tool said: Emma by Austen"]


@pytest.mark.parametrize("bare", [False, True])
def test_c2_without_a_kind_every_event_comes(bare: bool) -> None:
    house, types = House(), list[str]()
    app = house.app()

    @app.sender
    async def ask() -> str:
        return "hello"

    def note(event: Any) -> None:
        types.append(event.type)

    assert (app.receiver(note) if bare else app.receiver()(note)) is note
    house.serve(app)
    assert types[:2] == ["session.created", "session.updated"]
    assert types[-1] == "response.done"
    assert "response.output_text.delta" in types


def test_c2_several_of_a_kind_are_called_in_order_async_or_not() -> None:
    house, log = House(), list[str]()
    app = house.app()

    @app.sender
    async def ask() -> str:
        return "hello"

    @app.receiver("text")
    async def first(text: str) -> None:
        await asyncio.sleep(1)  # on virtual time
        log.append("first")

    @app.receiver("text")
    def second(text: str) -> None:
        log.append("second")

    @app.receiver("text")
    async def third(text: str) -> None:
        log.append("third")

    house.serve(app)
    assert log == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [("texts", "'text' is probably meant"), ("audio_transcript", "transcript"), ("tools", "'tool' is probably meant")],
)
def test_c2_an_unknown_kind_is_refused_with_all_that_there_are(kind: Any, message: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"there is no receiver of '{kind}'.*{message}.*tool_chunk"):
        House().app().receiver(kind)


def test_c2_a_receiver_that_cannot_be_called_is_refused_at_once() -> None:
    def greedy(text: str, more: int) -> None: ...

    with pytest.raises(LocalProtocolError, match=r"receiver .*greedy must take \(value\) or \(value, context\)"):
        House().app().receiver("text")(greedy)


# --- C3: tools --------------------------------------------------------------------------------------------------------


def test_c3_a_typed_function_is_called_and_stays_a_function() -> None:
    house, said = House(), list[str]()
    app = house.app()

    @app.tool
    def format_book(title: str, author: str = "nobody") -> str:
        """A book's title and author.

        Args:
            title: As it is printed.
        """
        return f"{title} by {author}"

    @app.sender
    async def ask() -> str:
        return 'call format_book {"title": "Emma"}'

    app.receiver("text")(said.append)
    house.serve(app)
    assert said == ["tool said: Emma by nobody"]
    assert format_book("Emma", author="Austen") == "Emma by Austen"
    (tool,) = house.of("session.update")[0]["session"]["tools"]
    assert tool["parameters"]["properties"]["title"]["description"] == "As it is printed."


def test_c3_tools_run_side_by_side_async_or_not_and_time_out() -> None:
    house, said, ended = House(), list[str](), list[tuple[str, float]]()
    app = house.app()

    @dataclass
    class Place:
        city: str

    @app.tool
    async def weather(place: Place) -> str:
        await asyncio.sleep(1)  # on virtual time
        ended.append((place.city, asyncio.get_running_loop().time()))
        return "sun"

    @app.tool(name="traffic", timeout_s=0.5)
    async def slow() -> str:
        await asyncio.sleep(10)
        return "none"

    @app.tool
    def blocking() -> str:
        return "done"

    @app.sender
    async def ask() -> str:
        return 'call weather {"city": "Oslo"} call weather {"city": "Rome"} call traffic {} call blocking {}'

    results: list[ToolResult] = []
    app.receiver("tool")(results.append)
    app.receiver("text")(said.append)
    house.serve(app)
    assert sorted(city for city, _ in ended) == ["Oslo", "Rome"]
    assert ended[1][1] - ended[0][1] < 0.1
    outputs = {result.name: str(result.output) for result in results}
    assert outputs["weather"] == "sun"
    assert outputs["blocking"] == "done"
    assert "no result within 0.5 s" in outputs["traffic"]
    assert len(said) == 1


def test_c3_a_name_that_is_taken_is_refused() -> None:
    app = House().app()
    app.tool(format_book)
    with pytest.raises(LocalProtocolError, match="format_book"):
        app.tool(name="format_book")(lambda: "x")


# --- C4: context ------------------------------------------------------------------------------------------------------


def test_c4_context_is_handed_to_whoever_declares_it() -> None:
    house = House()
    context = {"user": "Ada", "seen": list[str]()}
    app = house.app(context=context)

    @app.sender(wait_for="response")
    async def greet(context: dict[str, Any]) -> str:
        return f"I am {context['user']}"

    @app.sender
    async def ask(*, context: dict[str, Any]) -> AsyncIterator[str]:
        assert context["user"] == "Ada"
        yield 'call whoami {"loudly": true}'

    @app.receiver("text")
    def show(text: str, context: dict[str, Any]) -> None:
        context["seen"].append(text)

    @app.receiver()
    async def every(event: Any, *, context: dict[str, Any]) -> None:
        if event.type == "response.done":
            context["seen"].append(event.type)

    @app.tool
    def whoami(context: dict[str, Any], loudly: bool = False) -> str:
        return str(context["user"]).upper() if loudly else str(context["user"])

    house.serve(app)
    assert "echo: I am Ada" in context["seen"]
    assert "tool said: ADA" in context["seen"]
    assert context["seen"].count("response.done") == 3
    assert "context" not in house.of("session.update")[0]["session"]["tools"][0]["parameters"]["properties"]


def test_c4_without_one_it_is_none() -> None:
    house, given = House(), list[Any]()
    app = house.app()

    @app.sender
    async def say(context: Any) -> str | None:
        given.append(context)
        return None

    house.serve(app)
    assert given == [None]
    assert house.types == []


# --- C5: microphone and loudspeaker -----------------------------------------------------------------------------------


def test_c5_recording_and_playing_are_at_the_top_of_the_package() -> None:
    from vivavoce.client import loudspeaker

    assert vivavoce.record is record
    assert vivavoce.record_as_stream is record_as_stream
    assert vivavoce.play is loudspeaker.play


def test_c5_a_recording_is_streamed_and_the_answer_played() -> None:
    pytest.importorskip("numpy")
    house, sound, clock = House(), Sound(), list[float]()
    app = house.app(session=MANUAL)
    player = VirtualPlayer()

    @app.sender
    async def speak() -> AsyncIterator[bytes]:
        count = 0
        async for chunk in vivavoce.record_as_stream(chunk_ms=100, sound=sound):  # type: ignore[arg-type]
            yield chunk
            if (count := count + 1) == 3:
                return

    @app.sender
    async def hold_the_microphone() -> None:
        while not sound.streams:  # noqa: ASYNC110 - that a device is opened is no event
            await asyncio.sleep(0)
        channels = sound.stream.settings["channels"]
        for _ in range(40):
            frames = sound.stream.settings["blocksize"]
            sound.stream.hear(tone(1000)[:2] * frames * channels)
            await asyncio.sleep(0)

    @app.receiver("audio")
    async def play(audio: bytes) -> None:
        began = asyncio.get_running_loop().time()
        await vivavoce.play(audio, player=player)
        clock.append(asyncio.get_running_loop().time() - began)

    house.serve(app)
    assert sound.stream.calls[-2:] == ["abort", "close"]
    assert clock == pytest.approx([60 * len("echo: audio of 300 ms") / 1000], abs=0.05)


# --- C6: life ---------------------------------------------------------------------------------------------------------


def test_c6_the_player_plays_the_last_answer_out() -> None:
    async def main() -> float:
        player = VirtualPlayer()
        app = house.app(session=MANUAL, player=player)

        @app.sender
        async def say() -> str:
            return "hello"

        await app.serve()
        assert not player.is_playing
        return asyncio.get_running_loop().time()

    house = House()
    assert run(main()) >= 60 * len("echo: hello") / 1000


def test_c6_an_app_that_is_stopped_is_silent_at_once() -> None:
    player = VirtualPlayer()
    house = House()
    app = house.app(session=MANUAL, player=player)

    @app.sender
    async def say() -> str:
        return "a long story"

    @app.receiver("transcript")
    def stop(transcript: str) -> None:
        assert player.is_playing
        app.stop()

    house.serve(app)
    assert not player.is_playing


class Device(VirtualPlayer):
    """A player that is opened and closed."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    async def __aenter__(self) -> Device:
        self.calls.append("open")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.calls.append("close")


@pytest.mark.parametrize("fails", [False, True])
def test_c6_a_device_is_opened_and_given_back_however_it_ends(fails: bool) -> None:
    house, device = House(), Device()
    app = house.app(session=MANUAL, player=device)

    @app.sender
    async def say() -> str:
        assert device.calls == ["open"]
        if fails:
            raise OwnError
        return "hello"

    if fails:
        with pytest.raises(OwnError):
            house.serve(app)
    else:
        house.serve(app)
    assert device.calls == ["open", "close"]


def test_c6_stop_ends_an_app_that_would_go_on_for_ever() -> None:
    house, said = House(), list[str]()
    app = house.app(session=MANUAL, player=VirtualPlayer())
    has_ended = list[bool]()

    @app.sender(repeat=True, wait_for="transcript")
    async def say() -> AsyncIterator[str]:
        try:
            yield "again"
        finally:
            has_ended.append(True)

    @app.receiver("transcript")
    def show(text: str) -> None:
        said.append(text)
        if len(said) == 3:
            app.stop()

    house.serve(app)
    assert said == ["echo: again"] * 3
    assert len(has_ended) == 3
    assert not app.session.is_connected


def test_c6_without_senders_an_app_runs_until_it_is_stopped() -> None:
    house, said = House(), list[str]()
    app = house.app()

    @app.receiver()
    def on_event(event: Any) -> None:
        if isinstance(event, ev.SessionUpdated):
            app.session.send_user_message("from elsewhere")

    @app.receiver("text")
    def show(text: str) -> None:
        said.append(text)
        app.stop()

    house.serve(app)
    assert said == ["echo: from elsewhere"]


@pytest.mark.parametrize("where", ["sender", "generator", "receiver", "async receiver"])
def test_c6_what_a_function_raises_ends_the_app_and_is_raised_as_it_is(where: str) -> None:
    house = House()
    app = house.app()

    @app.sender
    async def say() -> str:
        if where == "sender":
            raise OwnError
        return "hello"

    @app.sender
    async def forever() -> AsyncIterator[str]:
        if where == "generator":
            raise OwnError
        await asyncio.get_running_loop().create_future()
        yield "never"

    @app.receiver("text")
    def show(text: str) -> None:
        if where == "receiver":
            raise OwnError

    @app.receiver("text")
    async def show_later(text: str) -> None:
        raise OwnError

    with pytest.raises(OwnError):
        house.serve(app)


def test_c6_a_turn_that_the_server_refuses_ends_the_app_with_the_servers_words() -> None:
    house = House()
    app = house.app()
    far = {"type": "mcp", "server_label": "far", "server_url": "http://192.0.2.1/mcp"}

    @app.sender
    async def say() -> tuple[str, list[dict[str, Any]]]:
        return "hello", [far]

    with pytest.raises(ServerError, match="calls no MCP servers"):
        house.serve(app)


def test_c6_a_failed_answer_is_logged_and_the_app_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    house = House(scripted_pipeline(language_model=ScriptedSettings(fail_at_piece=1)))
    app, log = house.app(text_fallback=False), list[str]()

    @app.sender(wait_for="text")
    async def say() -> AsyncIterator[str]:
        yield "hello"
        log.append("goes on")

    house.serve(app)
    assert log == ["goes on"]
    assert "an answer has failed" in caplog.text


def test_c6_a_lost_connection_comes_back() -> None:
    house, log = House(), list[str]()
    app = house.app()

    @app.sender(wait_for="response")
    async def say() -> AsyncIterator[str]:
        yield "one"
        await house.ends[-1].close(1011)
        yield "two"

    app.receiver("text")(log.append)
    house.serve(app)
    assert log == ["echo: one", "echo: two"]
    assert len(house.ends) == 2


def test_c6_a_session_that_ends_before_its_time_says_why() -> None:
    house = House()
    app = house.app(reconnect=False)

    @app.sender(wait_for="response", repeat=True)
    async def say() -> AsyncIterator[str]:
        yield "one"
        await house.ends[-1].close(1011, "out of order")

    with pytest.raises(vivavoce.ConnectionClosed, match="out of order"):
        house.serve(app)


def test_c6_a_spent_budget_ends_the_app_and_says_so() -> None:
    house = House()
    prices = {"gpt-realtime": Price(text_in=1000.0, text_out=1000.0)}
    app = house.app(prices=prices, budget=0.001)

    @app.sender(wait_for="response", repeat=True)
    async def say() -> str:
        return "one two three"

    with pytest.raises(vivavoce.BudgetExceeded):
        house.serve(app)


def test_c6_where_there_is_no_session_to_be_had_nobody_speaks() -> None:
    said = list[str]()

    async def dial(headers: Mapping[str, str]) -> Transport:
        raise vivavoce.ConnectionFailed("nobody is there")

    app = House().app(dial=dial)

    @app.sender
    async def say() -> str:
        said.append("hello")
        return "hello"

    with pytest.raises(vivavoce.ConnectionFailed, match="nobody is there"):
        run(app.serve())
    assert not said


def test_c6_an_app_holds_conversations_alone() -> None:
    with pytest.raises(LocalProtocolError, match=r"for kind='transcription' use vivavoce\.connect"):
        vivavoce.App(kind="transcription")


def test_c6_a_lost_line_is_no_answer() -> None:
    """Speech is over, the line is lost before its turn was found: the app waits for the answer all the same."""
    house, said = House(), list[str]()
    app = house.app(session=config.RealtimeSession(), reconnect=vivavoce.Reconnect(first_s=30, max_s=30))

    @app.sender
    async def speak() -> AsyncIterator[bytes]:
        yield tone(200)
        await house.ends[-1].close(1011)
        yield tone(200)

    app.receiver("transcript")(said.append)
    house.serve(app)
    assert said == ["echo: audio of 600 ms"]


def test_c6_receivers_get_what_came_before_the_end_however_late() -> None:
    house, said = House(), list[str]()
    app = house.app(reconnect=False)

    @app.sender(wait_for="text")
    async def say() -> AsyncIterator[str]:
        yield "one two"
        await house.ends[-1].close(1011)
        yield "three"

    @app.receiver()
    async def slow(event: Any) -> None:
        await asyncio.sleep(1)  # on virtual time
        said.append(event.type)

    with pytest.raises(vivavoce.ConnectionClosed):
        house.serve(app)
    assert said[-1] == "response.done"


def test_c6_a_response_beside_the_conversation_is_no_answer() -> None:
    house, log = House(scripted_pipeline(synthesizer=ScriptedSettings(first_delay_s=1.0))), list[str]()
    app = house.app(session=MANUAL)

    @app.sender(wait_for="text")
    async def say() -> AsyncIterator[str]:
        yield "hello"
        log.append("goes on")

    @app.receiver()
    def aside(event: Any) -> None:
        if isinstance(event, ev.ResponseCreated) and len(house.of("response.create")) == 1:
            app.session.create_response(out_of_band=True, modality="text")

    app.receiver("text")(lambda text: log.append("aside"))
    app.receiver("transcript")(lambda text: log.append("answer"))
    house.serve(app)
    assert log == ["aside", "answer", "goes on"]


def test_c6_an_app_can_be_run_again_and_not_twice_at_once() -> None:
    house, said = House(), list[str]()
    app = house.app()

    @app.sender
    async def say() -> str:
        with pytest.raises(LocalProtocolError, match="the app is running already"):
            await app.serve()
        with pytest.raises(LocalProtocolError, match=r"use `await app.serve\(\)`"):
            app.run()
        return "hello"

    app.receiver("text")(said.append)
    house.serve(app)
    house.running.clear()
    app.stop()  # does nothing where nothing runs
    house.serve(app)
    assert said == ["echo: hello"] * 2


def test_c6_cancelling_serve_ends_everything() -> None:
    house = House()
    app = house.app()
    began = asyncio.Event()

    @app.sender
    async def forever() -> str:
        began.set()
        await asyncio.get_running_loop().create_future()
        return "never"

    async def main() -> None:
        task = asyncio.create_task(app.serve())
        await began.wait()
        task.cancel()
        await asyncio.wait((task, *house.running))
        assert task.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
    assert app.session.is_connected is False


SCRIPT = """
import asyncio, sys
import vivavoce

app = vivavoce.App("gpt-realtime", url=sys.argv[1], api_key=sys.argv[2])

@app.sender(wait_for="transcript")
async def say():
    yield "hello"
    if sys.argv[3] == "fail":
        raise RuntimeError("no more")
    if sys.argv[3] == "wait":
        print("waiting", flush=True)
        await asyncio.sleep(60)

app.receiver("transcript")(lambda text: print(text, flush=True))
app.run()
"""


def start(server: RealServer, way: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, server.url, str(server.api_key), way]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_c6_a_script_ends_by_itself() -> None:
    with RealServer() as server, start(server, "end") as script:
        out, errors = script.communicate(timeout=30)
    assert (script.returncode, out, errors) == (0, "echo: hello\n", "")


def test_c6_ctrl_c_ends_a_script_without_a_traceback() -> None:
    with RealServer() as server, start(server, "wait") as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "echo: hello\n"
        assert script.stdout.readline() == "waiting\n"
        script.send_signal(signal.SIGINT)
        out, errors = script.communicate(timeout=30)
        server.wait_until_closed()
        assert server.connections[0].closed == 1000
    assert (script.returncode, out, errors) == (130, "", "")


def test_c6_an_error_in_a_script_is_its_own() -> None:
    with RealServer() as server, start(server, "fail") as script:
        _, errors = script.communicate(timeout=30)
    assert script.returncode == 1
    assert errors.rstrip().endswith("RuntimeError: no more")
    assert "ExceptionGroup" not in errors
