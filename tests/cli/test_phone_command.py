"""`vivavoce phone` as a user runs it: with a simulated telephone, over loopback, and what it refuses."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from vivavoce.audio import wav
from vivavoce.cli import main
from vivavoce.cli import phone as command
from vivavoce.testing.phone_call import ring
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.sounds import silence, tone

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def question(tmp_path: Path) -> str:
    path = tmp_path / "question.wav"
    wav.write(path, silence(40) + tone(400), 24_000)
    return str(path)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TWILIO_AUTH_TOKEN", "TWILIO_ACCOUNT_SID", "TWILIO_PHONE_NUMBER"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("further", [[], ["--greeting", "Say hello."], ["--format", "pcm"]])
def test_a_simulated_call_with_an_endpoint(
    further: list[str],
    question: str,
    tmp_path: Path,
    realtime_server_factory: Callable[..., RealServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = realtime_server_factory()
    if "--greeting" in further:
        server.answers("Hello!")
    server.answers("It is noon.")
    out = tmp_path / "new" / "heard.wav"
    argv = ["phone", "--upstream", server.url, "--api-key", server.api_key, "--simulate", question, "--out", str(out)]
    assert main([*argv, *further]) == 0
    shown = capsys.readouterr().out
    assert "assistant  It is noon." in shown
    assert "you  audio of" in shown
    pcm16, rate_hz = wav.read(out)
    said = "Hello!It is noon." if "--greeting" in further else "It is noon."
    assert rate_hz == 8_000
    assert abs(len(pcm16) / 16 - len(said) * 60) <= 1


def test_a_simulated_call_with_a_server_in_this_process(question: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phone", "--model", "scripted", "--simulate", question]) == 0
    assert "echo: audio of" in capsys.readouterr().out


def test_calls_are_answered_until_ctrl_c(
    realtime_server_factory: Callable[..., RealServer], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", TOKEN)
    server = realtime_server_factory()
    server.answers("Hello, caller.")

    async def run() -> int:
        options = command.Options(where=command.Where(server.url, "any", server.api_key), port=0, greeting="Hello")
        answering = asyncio.create_task(command.phone(options))
        shown = ""
        while "(POST)" not in shown:
            await asyncio.sleep(0)
            shown += capsys.readouterr().out
        webhook = next(word for word in shown.split() if word.startswith("http"))
        async with httpx.AsyncClient() as client:
            assert (await client.post(webhook, data={"CallSid": "CA1"})).status_code == 403
        async with await ring(webhook, auth_token=TOKEN) as phone:
            await phone.until(lambda: phone.is_playing, 20)
            os.kill(os.getpid(), signal.SIGINT)
            await phone.until(lambda: phone.closed, 20)
            assert len(phone.heard) == len("Hello, caller.") * 60 * 8, "what was said is heard before the end"
        return await answering

    assert asyncio.run(run()) == 0


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        ([], "TWILIO_AUTH_TOKEN is not set"),
        (["--unchecked", "--host", "0.0.0.0"], "--unchecked only this machine"),
        (["--call", "+15551234567"], "--public-url"),
        (["--call", "+15551234567", "--public-url", "https://h", "--unchecked"], "leave out --unchecked"),
        (["--call", "+15551234567", "--simulate", "x.wav"], "either a simulated phone"),
        (["--out", "x.wav"], "give --simulate"),
        (["--simulate", "/nowhere/at/all.wav"], "nowhere"),
        (["--calls-max", "0"], "--calls-max"),
        (["--port", "70000"], "--port"),
    ],
)
def test_what_does_not_go_together_is_said(argv: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phone", "--upstream", "http://127.0.0.1:9/v1", *argv]) == 1
    assert what in capsys.readouterr().err


def test_an_endpoint_that_is_not_there_is_said(question: str, caplog: pytest.LogCaptureFixture) -> None:
    assert main(["phone", "--upstream", "http://127.0.0.1:9/v1", "--simulate", question]) == 1
    assert "the session has failed" in caplog.text


def test_an_outgoing_call_needs_an_account(monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", TOKEN)
    argv = ["phone", "--upstream", "http://127.0.0.1:9/v1", "--port", "0", "--public-url", "https://h.org"]
    assert main([*argv, "--call", "+15551234567"]) == 1
    assert "--from" in capsys.readouterr().err
    assert main([*argv, "--call", "+15551234567", "--from", "+15550001111"]) == 1
    shown = capsys.readouterr()
    assert "TWILIO_ACCOUNT_SID is not set" in shown.err
    assert TOKEN not in shown.out + shown.err
