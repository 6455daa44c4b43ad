"""The examples, run as they are, against a scripted server in this process."""

from __future__ import annotations

import asyncio
import re
import runpy
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from vivavoce.audio import wav
from vivavoce.audio.formats import PCM16_24K
from vivavoce.engines.scripted.speaking import CHARACTER_MS
from vivavoce.server import running
from vivavoce.server.settings import settings_of
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.sounds import silence, tone

EXAMPLES = Path(__file__).parent.parent / "examples"
LINES_MAX = {"mcp_tools": 70}  # it is two programs
TIMEOUT_S = 20.0


def example(name: str) -> dict[str, Any]:
    """The names that an example defines; what it does as a program is not done."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def with_server(main: Callable[[str], Awaitable[Any]], **settings: object) -> Any:
    async def serving() -> Any:
        settings_in_force = settings_of({"pipeline": "scripted", "port": 0, **settings})
        async with asyncio.timeout(TIMEOUT_S), running(settings_in_force) as server:
            return await main(server.url)

    return asyncio.run(serving())


def test_a_text_chat_shows_every_answer(capsys: pytest.CaptureFixture[str]) -> None:
    chat = example("text_chat")["chat"]
    typed = iter(["hello", "good bye", ""])
    assert with_server(lambda url: chat(url, lambda: next(typed))) == ["echo: hello", "echo: good bye"]
    assert capsys.readouterr().out == "echo: hello\necho: good bye\n"


def test_a_function_is_called_and_its_output_answered_by_the_session_and_by_hand(
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = example("overview_tool_call")
    told = 'tool said: {"location":"Oslo","sky":"sunny","days":1}'
    assert with_server(lambda url: program["ask"](url, program["QUESTION"])) == told
    assert with_server(lambda url: program["ask_by_hand"](url, 'call get_weather {"location": "Oslo"}')) == told
    assert capsys.readouterr().out == 'the model calls get_weather({"location": "Oslo"})\n'


def test_speech_goes_out_of_a_file_while_typed_updates_come_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "speech.wav"
    recording.write_bytes(wav.encoded(tone(700), 24_000))
    reply = with_server(lambda url: example("session_with_file_audio")["converse"](recording, url))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert re.fullmatch(r"session sess_\w+ has begun", lines[0])
    assert lines[1].startswith('session.updated: {"')  # as it came: whatever has no case is shown by kind and raw
    assert [line for line in lines if line.startswith(("you", "assistant", "error"))] == [
        "you: audio of 700 ms",
        "assistant: echo: audio of 700 ms",
    ]
    assert PCM16_24K.duration_ms(reply) == len("echo: audio of 700 ms") * CHARACTER_MS


def test_a_listener_sees_the_conversation_grow_and_both_ends_remember_what_was_heard(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = 'tool said: {"place":"Oslo","sky":"sunny"}'
    *conversation, cut_short = with_server(example("conversation_cache")["converse"])
    assert conversation == [
        'user: call get_weather {"place": "Oslo"}',
        "function_call: ",
        "function_call_output: ",
        f"assistant: {told}",
        "user: Tell me a story that never ends.",
    ]
    assert cut_short.rstrip() in ("assistant: echo: Tell me", "assistant: echo: Tell me a")  # a second was heard
    out = capsys.readouterr().out
    assert out.startswith("[message completed]\n[function_call completed]\n[function_call_output completed]\n")
    assert f"{told}[message completed]" in out
    assert "[interrupted]\n" in out


def test_a_short_lived_key_opens_the_session_that_it_carries(capsys: pytest.CaptureFixture[str]) -> None:
    main = example("short_lived_key")["main"]
    assert with_server(lambda url: main("sk-house", url), api_keys=["sk-house"]) == "echo: Hello!"
    assert capsys.readouterr().out.startswith("the session comes with 'Be brief.'")


def test_a_tool_of_an_mcp_server_is_called_once_it_is_approved(capsys: pytest.CaptureFixture[str]) -> None:
    main = example("mcp_tools")["main"]
    assert with_server(main, mcp_hosts=["127.0.0.1"]) == "tool said: It is sunny in Oslo."
    assert 'the model wants weather({"city": "Oslo"}); approved' in capsys.readouterr().out


def test_each_turn_of_a_recording_becomes_a_caption(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = example("live_captions")["captions"]
    recording = tmp_path / "speech.wav"
    recording.write_bytes(wav.encoded(tone(400) + silence(1000) + tone(200), 24_000))
    found = with_server(lambda url: captions(url, str(recording), None))
    # What the scripted ear hears is how long the turn was: padding, speech, and the silence that ended it.
    assert found == ["audio of 900 ms", "audio of 1000 ms"]
    assert capsys.readouterr().out.splitlines() == found


def test_events_are_shown_in_colors_as_they_come(
    realtime_server_factory: Callable[..., RealServer], capsys: pytest.CaptureFixture[str]
) -> None:
    server = realtime_server_factory(api_key=None)
    server.answers("It is near.", "It burns.")
    server.error("Out of luck.", code="bad_luck", after="conversation.item.added", count=3)
    example("event_subscription")["main"](server.url)
    told = capsys.readouterr().out
    assert told.startswith("\033[32mConnected (session sess_")
    for line in ("It is near.", "It burns."):
        assert "".join(re.findall(r"\033\[34m(.*?)\033\[0m", told)).count(line) == 1
    assert "\033[31mError: Out of luck.\033[0m\n" in told


def test_an_app_streams_speech_and_gets_the_sound_and_the_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, played = tmp_path / "speech.wav", list[bytes]()
    recording.write_bytes(wav.encoded(tone(400) + silence(1000), 24_000))

    async def play(audio: bytes) -> None:
        played.append(audio)

    app_for = example("decorators_streaming_audio")["app_for"]
    with_server(lambda url: app_for(url, str(recording), play, pace=None).serve())
    assert capsys.readouterr().out == "echo: audio of 600 ms\n"
    assert [len(audio) for audio in played] == [24_000 * 2 * 60 * len("echo: audio of 600 ms") // 1000]


def test_the_mounted_voice_is_ready_with_the_app_and_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("VIVAVOCE_CONFIG", "VIVAVOCE_API_KEYS", "VIVAVOCE_HOST"):
        monkeypatch.delenv(variable, raising=False)
    with TestClient(example("mount_in_fastapi_or_starlette")["app"]) as client:
        assert "/voice/v1/realtime" in client.get("/").text
        with client.websocket_connect("/voice/v1/realtime?model=m") as socket:
            assert socket.receive_json()["type"] == "session.created"
        assert client.get("/voice/readyz").json() == {"status": "ready"}


def failure_of(name: str, *arguments: str) -> str:
    """What an example as a program tells on stderr, where it ends with exit code 1."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("name", ["text_chat", "mcp_tools", "short_lived_key", "live_captions", "event_subscription"])
def test_a_server_that_wants_a_key_is_told_of_in_one_line(name: str, tmp_path: Path) -> None:
    recording = tmp_path / "speech.wav"
    recording.write_bytes(wav.encoded(tone(100), 24_000))
    before = {"short_lived_key": ["sk-wrong"], "live_captions": [str(recording)]}.get(name, [])

    async def told(url: str) -> str:
        return await asyncio.to_thread(failure_of, name, *before, url)

    (line,) = with_server(told, api_keys=["sk-house"]).splitlines()
    assert "Missing bearer authentication" in line or "401" in line


@pytest.mark.parametrize("name", ["short_lived_key", "live_captions", "session_with_file_audio"])
def test_an_example_without_its_argument_tells_its_usage(name: str) -> None:
    assert failure_of(name).startswith(f"usage: {name}.py ")


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_an_example_is_short_says_how_to_run_it_and_is_tested(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES_MAX.get(file.stem, 60)
    assert "uv run" in text
    assert file.stem in text
    assert f'example("{file.stem}")' in Path(__file__).read_text(encoding="utf-8")
