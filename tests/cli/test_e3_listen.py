"""Row E3: `vivavoce listen`, captions of what is said, from a file, standard input or a microphone."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from terminal_double import Terminal

from vivavoce.audio import wav
from vivavoce.cli import main
from vivavoce.cli.listen import srt_time
from vivavoce.engines.scripted import ScriptedSettings
from vivavoce.errors import EngineMissing
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.sounds import silence, tone

TALK = silence(300) + tone(600) + silence(1_000) + tone(400)


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    path = tmp_path / "speech.wav"
    wav.write(path, TALK, 24_000)
    return path


def listen(server: RealServer, *argv: str) -> int:
    return main(["listen", "--url", server.url, "--api-key", server.api_key, *argv])


def test_e3_a_file_is_written_down(
    realtime_server: RealServer, speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    realtime_server.hears("Good morning.", "How are you?")
    assert listen(realtime_server, str(speech), "--language", "en") == 0
    assert capsys.readouterr().out == "Good morning.\nHow are you?\n"
    (update,) = realtime_server.received("session.update")
    assert update["session"]["type"] == "transcription"
    assert update["session"]["audio"]["input"]["transcription"]["language"] == "en"


def test_e3_without_a_url_the_embedded_engines_listen(speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", str(speech), "--model", "scripted"]) == 0
    assert re.fullmatch(r"(audio of \d+ ms\n){2}", capsys.readouterr().out)


def test_e3_as_json_captions_grow(
    realtime_server: RealServer, speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    realtime_server.hears("Good morning.", "How are you?")
    assert listen(realtime_server, str(speech), "--json") == 0
    captions = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    texts = [caption["text"] for caption in captions if not caption["final"]]
    assert texts == ["Good", "Good morning.", "How", "How are", "How are you?"]
    final = [caption for caption in captions if caption["final"]]
    assert [caption["text"] for caption in final] == ["Good morning.", "How are you?"]
    assert 0 <= final[0]["start_ms"] <= 300 < 900 <= final[0]["end_ms"] <= final[1]["start_ms"] <= 1_900


def test_e3_as_subtitles(realtime_server: RealServer, speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    realtime_server.hears("Good morning.", "How are you?")
    assert listen(realtime_server, str(speech), "--srt") == 0
    time = r"00:00:0\d,\d{3}"
    block = rf"{time} --> {time}\n"
    assert re.fullmatch(rf"1\n{block}Good morning\.\n\n2\n{block}How are you\?\n\n", capsys.readouterr().out)
    assert srt_time(3_723_045) == "01:02:03,045"


@pytest.mark.parametrize("options", [(), ("--raw", "16000")])
def test_e3_standard_input_is_listened_to(
    options: tuple[str, ...],
    realtime_server: RealServer,
    speech: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sound = TALK if options else speech.read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(sound)))
    realtime_server.hears("Good morning.", "How are you?")
    assert listen(realtime_server, "-", *options) == 0
    assert capsys.readouterr().out == "Good morning.\nHow are you?\n"


def test_e3_on_a_terminal_a_caption_is_seen_while_it_grows(realtime_server: RealServer, speech: Path) -> None:
    realtime_server.hears("Good morning to all of you.", "How are you?")
    realtime_server.behave(transcriber=ScriptedSettings(piece_delay_s=0.1))
    argv = ("listen", "--url", realtime_server.url, "--api-key", realtime_server.api_key, str(speech), "--paced")
    with Terminal(*argv) as shown:
        growing = shown.until(r"0:00  Good morning to\n").start()
        shown.until(r"0:00  Good morning to all of you\.", after=growing)
        assert shown.ended() == 0
        assert re.search(r"○ listening  ▮", shown.shown)
        assert "0:01  How are you?" in shown.shown


def test_e3_ctrl_c_ends_it_and_the_last_of_it_is_written_down(realtime_server: RealServer, tmp_path: Path) -> None:
    speech = tmp_path / "long.wav"
    wav.write(speech, tone(60_000), 24_000)
    realtime_server.hears("I was going to say")
    argv = ("listen", "--url", realtime_server.url, "--api-key", realtime_server.api_key, str(speech), "--paced")
    with Terminal(*argv) as shown:
        shown.until(r"listening  ▮")
        realtime_server.wait_for("input_audio_buffer.speech_started")
        shown.interrupt()
        shown.until(r"0:00  I was going to say")
        assert shown.ended() == 0


class Microphone:
    """Records what `TALK` is, and ends."""

    format = None

    def __init__(self, device: object, chunk_ms: int) -> None:
        assert (device, chunk_ms) == ("USB", 20)

    async def __aenter__(self) -> Microphone:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __aiter__(self):  # type: ignore[no-untyped-def]
        for start in range(0, len(TALK), 960):
            await asyncio.sleep(0)
            yield TALK[start : start + 960]


def test_e3_a_microphone_is_listened_to(
    realtime_server: RealServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vivavoce.client.microphone.Microphone", Microphone)
    realtime_server.hears("Good morning.", "How are you?")
    assert listen(realtime_server, "--microphone", "USB") == 0
    assert capsys.readouterr().out == "Good morning.\nHow are you?\n"


def test_e3_what_cannot_be_listened_to_is_told(
    realtime_server: RealServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise EngineMissing("there is no sound here")

    monkeypatch.setattr("vivavoce.client.microphone.sound_library", missing)
    assert listen(realtime_server) == 1
    assert "there is no sound here. A file is listened to without: vivavoce listen FILE" in capsys.readouterr().err
    assert listen(realtime_server, "nowhere.wav") == 1
    assert "nowhere.wav: No such file" in capsys.readouterr().err
    text = tmp_path / "text.txt"
    text.write_text("no sound")
    assert listen(realtime_server, str(text)) == 1
    assert "--raw HZ" in capsys.readouterr().err


def test_e3_a_transcription_that_fails_is_an_exit_code(
    realtime_server: RealServer, speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    realtime_server.behave(transcriber=ScriptedSettings(fail_at_piece=1))
    assert listen(realtime_server, str(speech)) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "the script says to fail" in shown.err
