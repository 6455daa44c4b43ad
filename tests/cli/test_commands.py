"""The commands, run as a user runs them, with the scripted engines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vivavoce.audio import wav
from vivavoce.audio.formats import PCM16_24K
from vivavoce.cli import main
from vivavoce.cli.talk import _speech_bytes


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_talk_writes_a_turn_and_saves_what_was_spoken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "replies"
    assert main(["talk", "--text", "hello", "--model", "scripted", "--json", "--out", str(out)]) == 0
    (turn,) = lines(capsys)
    assert turn["answer"] == "echo: hello"
    assert turn["error"] is None
    pcm, rate_hz = wav.read(out / "text.reply.wav")
    assert rate_hz == 24_000
    assert PCM16_24K.duration_ms(pcm) == 60 * len("echo: hello")
    marks = turn["marks_ms"]
    assert isinstance(marks, dict)
    assert 0 <= marks["first_text"] <= marks["first_audio"] <= marks["done"]


def test_talk_holds_a_turn_for_each_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for name, rate_hz in (("slow", 8_000), ("fast", 48_000)):
        path = tmp_path / f"{name}.wav"
        wav.write(path, b"\x00\x20" * (rate_hz // 2), rate_hz)
        files.append(str(path))
    assert main(["talk", *files, "--model", "scripted", "--json", "--out", str(tmp_path)]) == 0
    assert [turn["transcript"] for turn in lines(capsys)] == ["audio of 500 ms", "audio of 500 ms"]
    assert (tmp_path / "slow.reply.wav").exists()


def test_talk_shows_the_turn_to_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["talk", "--text", 'call look {"far": true}', "--model", "scripted", "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    assert 'look({"far": true})' in shown
    assert "answer complete" in shown


def test_talk_says_what_is_wrong_with_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "no.wav").write_bytes(b"this is no sound")
    assert main(["talk", str(tmp_path / "no.wav"), "--model", "scripted"]) == 1
    assert "no.wav" in capsys.readouterr().out
    assert main(["talk", str(tmp_path / "missing.wav"), "--model", "scripted"]) == 1
    assert "missing.wav" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["talk"], ["talk", "a.wav", "--text", "b"]])
def test_talk_wants_files_or_text(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 1
    assert "either WAV files or --text" in capsys.readouterr().err


def test_an_endpoint_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["talk", "--text", "hello", "--url", "http://127.0.0.1:1/v1"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().out


def test_serve_refuses_what_it_cannot_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--model", "no-such-pipeline"]) == 1
    assert "no-such-pipeline" in capsys.readouterr().err
    assert main(["serve", "--model", "scripted", "--host", "0.0.0.0"]) == 1
    assert "key" in capsys.readouterr().err


def test_speech_ends_before_the_silence_behind_it() -> None:
    speech = b"\x00\x20" * 24_000
    assert _speech_bytes(speech + bytes(48_000)) == len(speech)
    assert _speech_bytes(bytes(480)) == 480
