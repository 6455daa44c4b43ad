"""`vivavoce tape`, run as a user runs it, on tapes of scripted sessions; and `serve --tapes`, which makes them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import wave
from array import array
from pathlib import Path
from typing import Any

import pytest

from vivavoce.audio.levels import rms_db
from vivavoce.cli import _parser, main, screen
from vivavoce.cli.tape import _serve, bars
from vivavoce.client.connection import Connection
from vivavoce.engines.scripted import scripted_pipeline
from vivavoce.errors import SettingsError
from vivavoce.protocol import events as ev
from vivavoce.protocol.items import InputText, Message
from vivavoce.server.auth import Asked
from vivavoce.server.pipelines import Pipelines
from vivavoce.server.sessions import Sessions
from vivavoce.server.settings import Settings
from vivavoce.server.sources import load_settings
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.tapes import Replayed, Tape, replay_as_client, replay_server
from vivavoce.testing.virtual_time import run
from vivavoce.transports.memory import pair
from vivavoce.transports.taping import SUFFIX

LOUD = array("h", [8_000, -8_000] * 1_200).tobytes()


async def session(folder: Path, *, words: str = "hello", leave_out: Any = ()) -> None:
    """A spoken and a written turn with a server that records."""
    settings = Settings(pipeline="scripted", tapes=str(folder), tapes_leave_out=leave_out)
    pipelines = Pipelines({"scripted": scripted_pipeline()}, default="scripted", models={})
    sessions = Sessions(settings, pipelines, wall_s=lambda: 0.0, new_ids=counting_ids)
    here, there = pair()
    serving = asyncio.create_task(sessions.serve(Asked("openai", {}, {"model": "scripted"}), there))
    client = Connection(here)
    for piece in (*[LOUD] * 5, *[bytes(4_800)] * 6):
        await client.append_audio(piece)
        await asyncio.sleep(0.1)
    await until(client, "response.done")
    await client.create_item(Message(role="user", content=(InputText(text=words),)))
    await client.create_response(ev.ResponseParams(output_modalities=("text",)))
    await until(client, "response.done")
    await until(client, "rate_limits.updated")
    await client.close()
    await asyncio.wait((serving,))
    await pipelines.close()


async def until(client: Connection, kind: str) -> None:
    while (await client.recv()).type != kind:
        pass


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "tapes"
    folder.mkdir()
    run(session(folder))
    (path,) = folder.iterdir()
    return path


# --- recording at the server ------------------------------------------------------------------------------------------


def test_G3_a_server_records_every_session_into_a_file_of_its_own(tmp_path: Path) -> None:
    run(session(tmp_path))
    run(session(tmp_path, words="secret", leave_out=("text",)))
    # Ids are counted in these sessions, so both have the same name where they began within one second.
    tapes = [Tape.load(path) for path in sorted(tmp_path.iterdir())]
    assert all(str(tape.path).endswith(f"-sess_1{SUFFIX}") for tape in tapes)
    tape = tapes[-1]
    assert (tape.header.end, tape.header.model, tape.header.redacted) == ("server", "scripted", ("text",))
    assert tape.path is not None
    assert "secret" not in tape.path.read_text()
    assert sum(message.type == "input_audio_buffer.append" for message in tape.messages) == 11


def test_a_folder_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    assert load_settings(tapes=tmp_path, environment={}).tapes == str(tmp_path)
    with pytest.raises(SettingsError, match="tapes: there is no folder"):
        load_settings(tapes=tmp_path / "missing", environment={})
    with pytest.raises(SettingsError, match=r"tapes_leave_out\[0\]"):
        load_settings(environment={"VIVAVOCE_TAPES_LEAVE_OUT": "video"})
    assert _parser().parse_args(["serve", "--tapes", "calls"]).tapes == Path("calls")


def test_a_tape_that_cannot_be_begun_costs_the_session_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(session(tmp_path / "gone"))
    assert [record.message for record in caplog.records if "is not recorded" in record.message]


# --- show -------------------------------------------------------------------------------------------------------------


def test_show_tells_what_happened_when(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tape", "show", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "→ input_audio_buffer.append  " in shown
    assert " ms ▇▇" in shown
    assert "← response.output_audio_transcript.done  echo: audio of" in shown
    assert "→ conversation.item.create  hello" in shown
    assert "turn 1 at 0.6" in shown
    assert "first audio" in shown
    assert "\x1b" not in shown
    times = [float(line.split()[0]) for line in shown.splitlines() if " s " in line[:14]]
    assert len(times) > 20


def test_show_in_json_is_one_object_a_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tape", "show", "--json", str(file)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    heard = [line for line in lines if line.get("what") == "input_audio_buffer.append"]
    assert sum(line["audio_ms"] for line in heard) == 1_100
    assert max(line["level_db"] for line in heard) == pytest.approx(-12.2, abs=0.5)
    turns = [line for line in lines if "turn" in line]
    assert [turn["status"] for turn in turns] == ["completed", "completed"]
    assert turns[0]["first audio"] >= 0
    assert "first audio" not in turns[1]


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert screen.paint("x", "good") == "\x1b[32mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert screen.paint("x", "good") == "x"


def test_a_long_sound_has_no_longer_picture() -> None:
    assert bars(bytes(4_800) + LOUD) == "▁▇"
    assert len(bars(LOUD * 500)) <= 24


def test_what_is_no_tape_is_said_to_be_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "no.tape.jsonl").write_text("hello\n")
    assert main(["tape", "show", str(tmp_path / "no.tape.jsonl")]) == 1
    assert "line 1: expected the header of a tape" in capsys.readouterr().err


# --- sound, redact, to-test -------------------------------------------------------------------------------------------


def test_sound_has_the_user_left_and_the_assistant_right(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "call.wav"
    assert main(["tape", "sound", str(file), "-o", str(out)]) == 0
    with wave.open(str(out)) as sound:
        assert (sound.getnchannels(), sound.getframerate()) == (2, 24_000)
        frames = array("h", sound.readframes(sound.getnframes()))
    left, right = frames[0::2].tobytes(), frames[1::2].tobytes()
    tracks = Tape.load(file).audio()
    assert (left, right) == (tracks.user, tracks.assistant)
    assert rms_db(left[:24_000]) == pytest.approx(-12.2, abs=0.2)
    assert rms_db(left[24_000:]) == -120
    spoken = [event for _, _, event in Tape.load(file).events() if isinstance(event, ev.ResponseOutputAudioDelta)]
    spoken_ms = sum(len(event.delta) for event in spoken) / 48
    assert rms_db(right[: 600 * 48]) == -120, "the turn is found with its 200 ms of silence, heard at 600 ms"
    assert rms_db(right[600 * 48 :]) > -40
    assert len(right) / 48 == pytest.approx(600 + spoken_ms, abs=1)
    assert spoken_ms > 900


def test_redact_writes_another_tape(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "less.tape.jsonl"
    assert main(["tape", "redact", str(file), str(out)]) == 0
    assert Tape.load(out).header.redacted == ("audio", "text")
    assert main(["tape", "redact", str(file), str(file)]) == 1
    assert "in place" in capsys.readouterr().err


def test_G3_to_test_writes_a_test_that_passes(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = tmp_path / "test_call.py"
    assert main(["tape", "to-test", str(file), "-o", str(test)]) == 0
    capsys.readouterr()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(test)]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, text=True)
    assert said.returncode == 0, said.stdout
    assert main(["tape", "to-test", str(file), "--plays", "server"]) == 0
    printed = capsys.readouterr().out
    assert "replay_server(TAPE)" in printed
    compile(printed, "test_printed.py", "exec")


# --- replay -----------------------------------------------------------------------------------------------------------


def test_G3_replay_as_client_says_whether_the_server_answers_as_on_the_tape(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against a tape's own server in another thread, over a real wire; then against one that answers otherwise."""
    other = tmp_path / "other.tape.jsonl"
    other.write_text(file.read_text().replace('"rate_limits.updated"', '"rate_limits.changed"'))

    async def against(path: Path) -> int:
        async with replay_server(Tape.load(path)) as server:
            command = ["tape", "replay", str(file), "--as", "client", "--pace", "0", "--url", server.url]
            return await asyncio.to_thread(main, command)

    with asyncio.Runner() as runner:
        assert runner.run(against(file)) == 0
        assert "the server said what is on" in capsys.readouterr().out
        assert runner.run(against(other)) == 1
        assert "+rate_limits.changed" in capsys.readouterr().out


def test_G3_replay_as_server_answers_until_it_is_stopped(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def call() -> Replayed:
        arguments = _parser().parse_args(["tape", "replay", str(file), "--as", "server", "--pace", "0"])
        serving = asyncio.create_task(_serve(Tape.load(file), arguments))
        said = ""
        while "until Ctrl-C" not in said:
            await asyncio.sleep(0)
            said += capsys.readouterr().out
        url = next(word for word in said.split() if word.startswith("http")).rstrip(",")
        try:
            return await replay_as_client(Tape.load(file), url)
        finally:
            serving.cancel()
            await asyncio.wait((serving,))

    with asyncio.Runner() as runner:
        assert runner.run(call()).diff == ""


def test_replay_says_what_is_missing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tape", "replay", str(file), "--as", "client"]) == 1
    assert "name the server to call" in capsys.readouterr().err
    assert main(["tape", "replay", str(file), "--as", "server", "--url", "http://127.0.0.1:1"]) == 1
    assert "--port says where to listen" in capsys.readouterr().err
