"""`vivavoce bench` as a user runs it, against servers with scripted engines over loopback; what is said is short."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from vivavoce.audio import wav
from vivavoce.cli import main
from vivavoce.errors import EngineMissing
from vivavoce.testing.real_server import RealServer
from vivavoce.testing.sounds import silence, tone

SHORT = ("--silence-ms", "100")


@pytest.fixture
def said(tmp_path: Path) -> str:
    folder = tmp_path / "said"
    folder.mkdir()
    wav.write(folder / "hello.wav", silence(40) + tone(160), 24_000)
    return str(folder)


def test_two_endpoints_are_measured_in_turn_and_told_in_every_form(
    said: str,
    tmp_path: Path,
    realtime_server_factory: Callable[..., RealServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, other = realtime_server_factory(), realtime_server_factory(api_key="sk-another-secret")
    save, plot = tmp_path / "out" / "bench.json", tmp_path / "out" / "bench.svg"
    address = f"{one.url}?token=hunter2"
    where = ["--url", address, "--api-key", one.api_key]
    where += ["--against", other.url, "--against-api-key", other.api_key, "--against-model", "another"]
    argv = ["bench", said, *where, *SHORT, "--turns", "1", "--barge-ins", "1", "--save", str(save), "--plot", str(plot)]
    assert main(argv) == 0
    shown = capsys.readouterr()
    plain = json.loads(save.read_text(encoding="utf-8"))

    first, second = plain["endpoints"]
    assert (first["letter"], first["name"]) == ("A", f"{one.url} gpt-realtime")
    assert (second["letter"], second["name"]) == ("B", f"{other.url} another")
    for server, endpoint in ((one, first), (other, second)):
        turns = endpoint["turns"]
        assert (turns["turns"], turns["counted"], turns["failed"], turns["cut"]) == (1, 1, 0, 0)
        assert [turn["name"] for turn in turns["each"]] == ["hello"] * 2
        assert all(turn["heard"].startswith("audio of") for turn in turns["each"])
        assert 100 <= turns["stages"]["committed"]["median_ms"] <= turns["stages"]["first_audio"]["median_ms"]
        assert turns["first_turn_ratio"] > 0
        assert endpoint["barge_in"]["interruptions"] == 1
        # The answers of the scripted engines come at once: there is nothing to stop, but speech is found.
        assert endpoint["barge_in"]["too_late"] == 1
        assert endpoint["barge_in"]["speech_started"]["n"] == 1
        assert len(server.connections) == 2, "one for the turns, one for the interruptions"
    assert plain["comparison"]["rounds"] == 1
    assert (plain["seed"], plain["silence_ms"]) == (0, 100)

    for row in ("end of speech → first audio", "commit → first audio", "where the time goes", "A / B", "hello: 'audio"):
        assert row in shown.out, row
    labels = [element.text for element in ElementTree.parse(plot).iter("{http://www.w3.org/2000/svg}text")]
    assert {"end of speech → first audio", "commit → first audio", first["name"], second["name"]} <= set(labels)
    for secret in ("hunter2", one.api_key, other.api_key):
        assert all(secret not in text for text in (shown.out, shown.err, save.read_text(), plot.read_text()))


def test_a_server_is_started_and_ended_and_its_cpu_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vivavoce.testing.bench.load.BEGIN_WITHIN_S", 0.2)
    argv = ["bench", "--model", "scripted", *SHORT, "--turns", "1", "--barge-ins", "0", "--json"]
    assert main([*argv, "--sessions", "2", "--seconds", "4"]) == 0
    shown = capsys.readouterr()
    plain = json.loads(shown.out)
    (endpoint,) = plain["endpoints"]
    assert endpoint["name"] == "vivavoce serve --model scripted"
    assert all(turn["name"].startswith("tone of") for turn in endpoint["turns"]["each"]), "no voice is needed"
    assert endpoint["barge_in"] is None
    (found,) = plain["sessions"]
    assert (found["sessions"], found["failed"]) == (2, 0)
    assert found["counted"] >= 1
    assert 0 < found["cores"] < 2
    assert found["sessions_per_core"] == pytest.approx(2 / found["cores"], rel=0.05)
    assert "Starting vivavoce serve --model scripted" in shown.err, "progress is not in the way of the figures"


def test_an_endpoint_that_is_not_there_is_told(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", said, "--url", "http://127.0.0.1:1/v1"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_a_server_that_cannot_start_is_told_with_its_reason(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", said, "--model", "no-such-pipeline"]) == 1
    assert "no-such-pipeline" in capsys.readouterr().err


def test_without_a_voice_files_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def missing() -> None:
        raise EngineMissing("install the weights")

    monkeypatch.setattr("vivavoce.cli.bench.synthesized", missing)
    assert main(["bench", "--url", "http://127.0.0.1:1/v1"]) == 1
    assert "name WAV files, or a folder of them (install the weights)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said_of_it"),
    [
        (["--turns", "0", "--barge-ins", "0"], "nothing is to be measured"),
        (["--turns", "-1"], "--turns: expected 0 to 500, not -1"),
        (["--sessions", "0"], "--sessions: expected numbers from 1"),
        (["--sessions", "4", "--url", "http://h/v1"], "leave out --url and --against"),
        (["--sessions", "4", "--against", "http://h/v1"], "leave out --url and --against"),
        (["--sessions", "4", "--seconds", "0"], "--seconds: expected how long"),
        (["--config", "x.toml", "--url", "http://h/v1"], "--config is for a server that the command starts"),
        (["--config", "gone.toml", "--model", "scripted"], "gone.toml: there is no such settings file"),
        (["--against", "gone.toml", "--url", "http://h/v1", "FILE"], "gone.toml: there is no such settings file"),
        (["--plot", "bench.pdf"], "plots are SVG"),
        (["--against-model", "x"], "--against, which is missing"),
        (["--against", ""], "--against is empty"),
        (["--config", "quiet.toml"], "quiet.toml: log_level is 'error'; expected 'info'"),
        (["--config", "open.toml"], "open.toml: host is '::1'"),
        (["--save", "FILE/x.json"], "is not a folder"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_started(
    argv: list[str], said_of_it: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(said)
    Path("quiet.toml").write_text('log_level = "error"')
    Path("open.toml").write_text('host = "::1"')
    monkeypatch.setattr("vivavoce.cli.bench.serving", lambda *how: pytest.fail("a server was started"))
    file = f"{said}/hello.wav"
    assert main(["bench", *(each.replace("FILE", file) for each in argv)]) == 1
    assert said_of_it in capsys.readouterr().err


def test_sessions_need_a_package_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("No module named 'psutil'", name="psutil")

    monkeypatch.setattr("vivavoce.cli.bench._cpu_clock", missing)
    assert main(["bench", "--model", "scripted", "--sessions", "2"]) == 1
    assert 'psutil is missing; pip install "vivavoce[bench]"' in capsys.readouterr().err
