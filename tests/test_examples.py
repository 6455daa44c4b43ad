"""The examples, run as they are, against a scripted server in this process."""

from __future__ import annotations

import asyncio
import runpy
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from vivavoce.audio import wav
from vivavoce.server import running
from vivavoce.server.settings import settings_of
from vivavoce.testing.sounds import silence, tone

EXAMPLES = Path(__file__).parent.parent / "examples"
LINES_MAX = 75
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


def test_a_function_is_called_and_its_output_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert with_server(example("function_call")["ask"]) == "tool said: It is sunny in Oslo."
    assert 'the model calls weather({"city": "Oslo"})' in capsys.readouterr().out


def test_a_short_lived_key_opens_the_session_that_it_carries(capsys: pytest.CaptureFixture[str]) -> None:
    main = example("short_lived_key")["main"]
    assert with_server(lambda url: main("sk-house", url), api_keys=["sk-house"]) == "echo: Hello!"
    assert capsys.readouterr().out.startswith("the session comes with 'Be brief.'")


def test_a_tool_of_an_mcp_server_is_called_once_it_is_approved(capsys: pytest.CaptureFixture[str]) -> None:
    main = example("mcp_tools")["main"]
    assert with_server(main, mcp_hosts=["127.0.0.1"]) == "tool said: It is sunny in Oslo."
    assert 'the model wants weather({"city": "Oslo"}); approved' in capsys.readouterr().out


def test_each_turn_of_a_recording_becomes_a_caption(capsys: pytest.CaptureFixture[str]) -> None:
    captions = example("live_captions")["captions"]
    speech = tone(400) + silence(1000) + tone(200)
    found = with_server(lambda url: captions(f"{url}/realtime?intent=transcription", speech, 0.0))
    # What the scripted ear hears is how long the turn was: padding, speech, and the silence that ended it.
    assert found == ["audio of 900 ms", "audio of 1000 ms"]
    assert capsys.readouterr().out.splitlines() == found


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


@pytest.mark.parametrize("name", ["function_call", "mcp_tools", "short_lived_key", "live_captions"])
def test_a_server_that_wants_a_key_is_told_of_in_one_line(name: str, tmp_path: Path) -> None:
    recording = tmp_path / "speech.wav"
    recording.write_bytes(wav.encoded(tone(100), 24_000))
    before = {"short_lived_key": ["sk-wrong"], "live_captions": [str(recording)]}.get(name, [])

    async def told(url: str) -> str:
        at = f"{url}/realtime?intent=transcription" if name == "live_captions" else url
        return await asyncio.to_thread(failure_of, name, *before, at)

    (line,) = with_server(told, api_keys=["sk-house"]).splitlines()
    assert "Missing bearer authentication" in line or "401" in line


@pytest.mark.parametrize("name", ["short_lived_key", "live_captions"])
def test_an_example_without_its_argument_tells_its_usage(name: str) -> None:
    assert failure_of(name).startswith(f"usage: {name}.py ")


def test_an_example_is_short_and_says_how_to_run_it() -> None:
    files = sorted(EXAMPLES.glob("*.py"))
    assert len(files) == 7
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= LINES_MAX
        assert "uv run" in text
        assert file.stem in text
