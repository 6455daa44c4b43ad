"""The commands, run as a user runs them, with the scripted engines."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import wave
from pathlib import Path

import pytest

from vivavoce.audio import wav
from vivavoce.audio.formats import PCM16_24K
from vivavoce.cli import main
from vivavoce.cli.files import saving, write_wav
from vivavoce.cli.talk import TRAILING_SILENCE_MS, _speak_paced, _speech_bytes
from vivavoce.cli.turn import Turn
from vivavoce.client.connection import Connection
from vivavoce.errors import EngineMissing, VivavoceError
from vivavoce.testing.virtual_time import run
from vivavoce.transports.memory import pair


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
    server = turn["server_ms"]
    assert isinstance(server, dict)
    assert 0 == server["requested"] <= server["first_token"] <= server["first_sent"] <= server["done"]


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
    before, beside, server = shown.partition("the same on the server")
    assert beside
    assert "first token" in server
    assert "first token" not in before


def test_what_is_wrong_with_a_file_is_said_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no.wav").write_bytes(b"this is no sound")
    wav.write(tmp_path / "empty.wav", b"", 16_000)
    for name, said in (("no.wav", "not a WAV file"), ("empty.wav", "no sound"), ("missing.wav", "No such file")):
        assert main(["talk", str(tmp_path / name), "--model", "scripted"]) == 1
        shown = capsys.readouterr()
        assert re.search(rf"{name}: .*{said}", shown.err)
        assert "loaded" not in shown.out


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")
    for argv in (["talk", "--text", "hello", "--model", "scripted"], ["demo"]):
        assert main([*argv, "--out", str(taken)]) == 1
        shown = capsys.readouterr()
        assert "taken is not a folder" in shown.err
        assert "loaded" not in shown.out


def test_an_answer_that_can_suddenly_not_be_saved_is_told(tmp_path: Path) -> None:
    path = tmp_path / "reply.wav"
    path.mkdir()
    with pytest.raises(VivavoceError, match=r"cannot save .*reply\.wav: Is a directory; .*--out"), saving(path):
        write_wav(path, [b"\0\0"])


def test_answers_to_files_of_one_name_do_not_overwrite_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "a" / "x.wav", tmp_path / "b" / "x.wav"]
    for path in files:
        path.parent.mkdir()
        wav.write(path, b"\x00\x20" * 4_000, 8_000)
    argv = ["talk", *map(str, files), "--model", "scripted", "--json", "--out"]
    assert main([*argv, str(tmp_path)]) == 0
    assert [turn["reply"] for turn in lines(capsys)] == [
        str(tmp_path / "x.reply.wav"),
        str(tmp_path / "x-2.reply.wav"),
    ]
    assert main([*argv, str(tmp_path / "one.wav")]) == 1
    assert "name a folder" in capsys.readouterr().err


def test_both_sides_of_a_conversation_are_the_channels_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "both.wav"
    assert write_wav(path, [b"\1\2" * 240, b"\3\4" * 120]) == 10
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 24_000, 240)
        assert file.readframes(1) == b"\1\2\3\4"
        file.setpos(120)
        assert file.readframes(1) == b"\1\2\0\0"


@pytest.mark.parametrize("argv", [["talk"], ["talk", "a.wav", "--text", "b"]])
def test_talk_wants_files_or_text(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 1
    assert "either WAV files or --text" in capsys.readouterr().err


def test_an_empty_url_is_not_taken_for_openai(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["talk", "--text", "hello", "--url", ""]) == 1
    assert "--url is empty" in capsys.readouterr().err


def test_an_endpoint_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["talk", "--text", "hello", "--url", "http://127.0.0.1:1/v1"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().out
    assert main(["talk", "--text", "", "--url", "http://127.0.0.1:1/v1"]) == 1
    assert "nothing was understood" not in capsys.readouterr().out, "nothing was said yet"


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "vivavoce demo" in capsys.readouterr().err


def test_what_the_terminal_cannot_show_is_no_reason_to_fail(tmp_path: Path) -> None:
    argv = ["talk", "--text", "hello", "--model", "scripted", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "vivavoce", *argv], capture_output=True, text=True, env=environment, check=True
    )
    assert "answer complete" in done.stdout
    assert done.stderr == ""


def test_a_reader_who_has_enough_is_no_error(tmp_path: Path) -> None:
    argv = ["talk", "--text", "hello", "--model", "scripted", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "vivavoce", *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_a_failure_to_load_is_told_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    async def fail(self: object) -> None:
        raise EngineMissing("install the weights")

    monkeypatch.setattr("vivavoce.engines.scripted.ScriptedVad.warm_up", fail)
    assert main(["talk", "--text", "hello", "--model", "scripted"]) == 1
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("vivavoce").handlers)
    assert capfd.readouterr().err.count("install the weights") == 1


@pytest.mark.parametrize(
    ("argv", "extra"),
    [
        (["demo"], "local"),
        (["serve"], "local"),
        (["serve", "--model", "scripted"], "server"),
        (["serve", "--config", "x.toml"], "server"),
        (["talk", "--text", "x"], "local"),
        (["talk", "--text", "x", "--url", "http://h"], "server"),
    ],
)
def test_a_base_install_is_told_which_extra_is_missing(
    argv: list[str], extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(arguments: object) -> int:
        raise ModuleNotFoundError("No module named 'starlette'", name="starlette")

    for command in ("_serve", "_talk", "_demo"):
        monkeypatch.setattr(f"vivavoce.cli.{command}", missing)
    assert main(argv) == 1
    assert f'starlette is missing; pip install "vivavoce[{extra}]"' in capsys.readouterr().err


def test_serve_refuses_what_it_cannot_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--model", "no-such-pipeline"]) == 1
    assert "no-such-pipeline" in capsys.readouterr().err
    assert main(["serve", "--model", "scripted", "--host", "0.0.0.0"]) == 1
    assert "key" in capsys.readouterr().err


def test_speech_ends_before_the_silence_behind_it() -> None:
    speech = b"\x00\x20" * 24_000
    assert _speech_bytes(speech + bytes(48_000)) == len(speech)
    assert _speech_bytes(bytes(480)) == 480


def test_a_paced_file_in_which_no_turn_is_found_ends_with_the_silence_behind_it() -> None:
    async def main() -> None:
        near, _far = pair(messages_max=10_000)
        turn, began = Turn(asyncio.get_running_loop().time), asyncio.get_running_loop().time()
        connection = Connection(near)
        await _speak_paced(connection, bytes(4_800), turn)
        assert turn.is_over
        assert "no end of a turn in 10 s" in (turn.error or "")
        assert asyncio.get_running_loop().time() - began == pytest.approx(0.1 + TRAILING_SILENCE_MS / 1000)
        assert [event async for event in connection] == [], "nobody waits any longer"

    run(main())
