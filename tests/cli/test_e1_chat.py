"""Row E1, and what of F6 and G7 is the terminal's: `vivavoce chat`, written and spoken, in a pipe and on a terminal."""

from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path

import pytest
from terminal_double import Terminal

from vivavoce.audio import wav
from vivavoce.cli import main
from vivavoce.engines.scripted import ScriptedSettings
from vivavoce.errors import EngineMissing
from vivavoce.testing.real_server import API_KEY, RealServer
from vivavoce.testing.sounds import silence, tone

LONG = " ".join(f"word{number}" for number in range(400))
SLOWLY = ScriptedSettings(piece_delay_s=0.03)

if not hasattr(os, "fork"):
    pytest.skip("there are no pseudo terminals here", allow_module_level=True)


def piped(monkeypatch: pytest.MonkeyPatch, server: RealServer, *argv: str, written: str = "") -> int:
    """The command in a pipe, in this process."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(written))
    return main(["chat", "--url", server.url, "--api-key", server.api_key, *argv])


def on_terminal(server: RealServer, *argv: str, **environment: str) -> Terminal:
    return Terminal("chat", "--url", server.url, "--api-key", API_KEY, *argv, environment=environment)


# --- in a pipe --------------------------------------------------------------------------------------------------------


def test_e1_a_chat_is_one_command_and_a_pipe_gets_the_conversation(
    realtime_server: RealServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    realtime_server.answers("It is a star.", "It is a rock.")
    assert piped(monkeypatch, realtime_server, written="What is the sun?\nAnd the moon?\n") == 0
    shown = capsys.readouterr()
    assert shown.out == (
        "       you  What is the sun?\n assistant  It is a star.\n"
        "       you  And the moon?\n assistant  It is a rock.\n"
    )
    assert re.search(r"· first word \d+ ms · [\d,]+ → \d+ tokens", shown.err)
    assert "\x1b" not in shown.out + shown.err
    asked = realtime_server.received("session.update")[0]["session"]
    assert asked["output_modalities"] == ["text"]


def test_e1_without_a_url_the_embedded_engines_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    assert main(["chat", "--model", "scripted"]) == 0
    assert " assistant  echo: hello\n" in capsys.readouterr().out


def test_e1_what_stands_in_a_file_can_be_called(
    realtime_server: RealServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    file = tmp_path / "tools.py"
    file.write_text('def weather(city: str) -> str:\n    """The weather of a city."""\n    return f"rain in {city}"\n')
    realtime_server.calls("weather", {"city": "Ulm"})
    realtime_server.answers("It rains.")
    assert piped(monkeypatch, realtime_server, "--tools", str(file), written="How is it in Ulm?\n") == 0
    shown = capsys.readouterr()
    assert '⚙ weather({"city": "Ulm"})' in shown.err
    assert "⚙ → rain in Ulm" in shown.err
    assert " assistant  It rains.\n" in shown.out
    assert len(re.findall("first word", shown.err)) == 1, "a turn with its tools is summed up once"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no such file"),
        ("1 / 0", "ZeroDivisionError"),
        ("X = 1", "there is no function in it"),
        ("from os.path import join\ndef _own(): ...", "there is no function in it"),
    ],
)
def test_e1_a_file_without_tools_is_told(
    text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tools.py"
    if text is not None:
        file.write_text(text)
    assert main(["chat", "--model", "scripted", "--tools", str(file)]) == 1
    assert re.search(rf"tools\.py: .*{said}", capsys.readouterr().err)


def test_e1_slash_commands(
    realtime_server: RealServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    picture = tmp_path / "dot.png"
    picture.write_bytes(b"\x89PNG")
    written = (
        "/help\n/voice echo\n/instructions Be brief.\n/nope\n/image\n/image nowhere.png\n/mute\n"
        f"hello\n/usage\n/waterfall\n/image {picture}\n/reset\n/quit\nnever sent\n"
    )
    assert piped(monkeypatch, realtime_server, written=written) == 0
    said = capsys.readouterr().err
    for expected in (
        r"/instructions TEXT +what the model is to do",
        r"· the voice is echo",
        r"! there is no /nope; there are /help, ",
        r"! expected the path of a picture",
        r"! No such file",
        r"! nobody listens here",
        r"· text +\d+ in \(0 cached\) +\d+ out",
        r"· \d+ tokens; no price is known for",
        r"· the waterfall is on",
        r"· dot\.png goes with what is written next",
        r"· all that was said is forgotten",
    ):
        assert re.search(expected, said), expected
    updates = [event["session"] for event in realtime_server.received("session.update")]
    assert updates[1]["audio"]["output"]["voice"] == "echo"
    assert updates[2]["instructions"] == "Be brief."
    assert len(realtime_server.received("conversation.item.delete")) == 2
    assert len(realtime_server.received("conversation.item.create")) == 1


def test_e1_a_picture_goes_with_the_next_line(
    realtime_server: RealServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "dot.png"
    picture.write_bytes(b"\x89PNG")
    assert piped(monkeypatch, realtime_server, written=f"/image {picture}\nWhat is it?\n") == 0
    content = realtime_server.received("conversation.item.create")[0]["item"]["content"]
    assert [part["type"] for part in content] == ["input_image", "input_text"]
    assert content[0]["image_url"] == "data:image/png;base64,iVBORw=="
    assert " assistant  echo: [image] What is it?" in capsys.readouterr().out


def test_e1_a_failed_response_and_a_lost_connection_are_told(
    realtime_server: RealServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    realtime_server.behave(language_model=ScriptedSettings(fail_at_piece=1))
    assert piped(monkeypatch, realtime_server, written="hello\n") == 0
    assert re.search(r"! the script says to fail at piece 1", capsys.readouterr().err)
    assert main(["chat", "--url", "http://127.0.0.1:1/v1"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err


MISSING = r'(rich\S*|prompt_toolkit) is missing; pip install "vivavoce\[terminal\]"'


def test_e1_the_extra_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vivavoce.cli.chat.is_plain", lambda: False)
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    assert main(["chat", "--model", "scripted"]) == 1
    assert re.search(MISSING, capsys.readouterr().err)
    for module in ("vivavoce.cli.chat", "vivavoce.cli.page"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["chat", "--model", "scripted"]) == 1
    assert re.search(MISSING, capsys.readouterr().err)


# --- on a terminal ----------------------------------------------------------------------------------------------------


def test_e1_answers_are_streamed_in_colour_and_ctrl_c_interrupts_once_and_ends_twice(
    realtime_server: RealServer,
) -> None:
    realtime_server.answers(LONG, "Good night.")
    realtime_server.behave(language_model=SLOWLY)
    with on_terminal(realtime_server) as terminal:
        terminal.until(r"/help")
        terminal.type("Count, please\r")
        terminal.until(r"you  Count, please")
        terminal.until(r"assistant  word0 .*word30")
        assert "word399" not in terminal.shown, "it is shown as it comes"
        terminal.type("\x03")
        terminal.until(r"· interrupted")
        terminal.until(r"○ listening")
        assert "word399" not in terminal.shown
        assert realtime_server.wait_for("response.cancel", dir="client")
        terminal.type("\x03\x03")
        assert terminal.ended() == 0
        assert "\x1b[1;36m       you" in terminal.raw
        assert "\x1b[1;35m assistant" in terminal.raw


def test_e1_who_writes_a_line_interrupts_the_answer(realtime_server: RealServer) -> None:
    realtime_server.answers(LONG, "The second.")
    realtime_server.behave(language_model=SLOWLY)
    with on_terminal(realtime_server) as terminal:
        terminal.until(r"/help")
        terminal.type("Count\r")
        terminal.until(r"word10 ")
        terminal.type("Something else\r")
        terminal.until(r"· interrupted.*you  Something else.*assistant  The second\.")
        terminal.type("/quit\r")
        assert terminal.ended() == 0


def test_f6_the_terminal_shows_listening_thinking_and_speaking(realtime_server: RealServer) -> None:
    realtime_server.answers(LONG)
    realtime_server.behave(language_model=ScriptedSettings(first_delay_s=0.3, piece_delay_s=0.03))
    with on_terminal(realtime_server) as terminal:
        terminal.until(r"○ listening")
        terminal.type("Count\r")
        terminal.until(r"◌ thinking.*● speaking")
        terminal.type("\x04")
        assert terminal.ended() == 0


def test_e1_colour_is_left_out_where_nobody_wants_it(realtime_server: RealServer) -> None:
    colour = re.compile(r"\x1b\[(?:\d+;)*(?:3[1-7]|9[0-7]|38;[\d;]+)m")
    with on_terminal(realtime_server, NO_COLOR="1") as terminal:
        terminal.until(r"/help")
        terminal.type("hello\r")
        terminal.until(r"echo: hello")
        terminal.type("\x04")
        assert terminal.ended() == 0
        assert not colour.search(terminal.raw)


def test_e1_a_dumb_terminal_gets_no_control_characters(realtime_server: RealServer) -> None:
    with on_terminal(realtime_server, TERM="dumb") as terminal:
        terminal.until(r"/help")
        terminal.type("hello\n")
        terminal.until(r"assistant  echo: hello.*first word")
        terminal.interrupt()
        terminal.until(r"Ctrl-C once more ends")
        terminal.interrupt()
        assert terminal.ended() == 0
        assert "\x1b" not in terminal.raw


# --- spoken -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def without_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise EngineMissing("there is no sound here. Really")

    monkeypatch.setattr("vivavoce.client.loudspeaker.sound_library", missing)
    monkeypatch.setattr("vivavoce.client.microphone.sound_library", missing)


@pytest.mark.usefixtures("without_devices")
def test_e1_who_speaks_interrupts_and_what_is_shown_is_what_was_heard(
    realtime_server: RealServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """G7: and each stage of the way is timed, in its order."""
    speech = tmp_path / "speech.wav"
    wav.write(speech, silence(200) + tone(400) + silence(1_800) + tone(300), 24_000)
    story = "Once there was a fox who lived near a river and had seven tails, each of another colour."
    realtime_server.hears("Tell me a story.", "Stop.")
    realtime_server.answers(story, "Yes.")
    assert piped(monkeypatch, realtime_server, "--file", str(speech), "--waterfall", "--voice", "echo") == 0
    shown = capsys.readouterr()
    found = re.fullmatch(
        r"       you  Tell me a story\.\n assistant  (Once.*) \[interrupted\]\n"
        r"       you  Stop\.\n assistant  Yes\.\n",
        shown.out,
    )
    assert found, shown.out
    cut = realtime_server.received("conversation.item.truncate")[0]
    heard = found[1].rstrip()
    assert story.startswith(heard)
    assert len(heard) <= cut["audio_end_ms"] / 60 < len(heard) + 20, "60 ms a character"
    assert "· answers are timed, and not heard: there is no sound here\n" in shown.err
    assert "echo" in shown.err
    stages = re.findall(r"([a-z][a-z ]+[a-z]) +(\d+) ms ┃", shown.err)
    assert [name for name, _ in stages[:5]] == ["turn end found", "transcript", "first word", "first audio", "played"]
    times = [int(ms) for _, ms in stages[:5]]
    assert times == sorted(times)
    assert 200 <= times[0] < 1_500, "counted from the last loud sound, before the silence that was waited for"
    server = shown.err.partition("the same on the server")[2]
    assert "first phrase" in server, "and the server tells its own part of it"


@pytest.mark.usefixtures("without_devices")
def test_e1_a_microphone_that_is_missing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "--voice", "--model", "scripted"]) == 1
    assert "there is no sound here" in capsys.readouterr().err
    assert main(["chat", "--file", "nowhere.wav", "--model", "scripted"]) == 1
    assert "nowhere.wav: there is no such file" in capsys.readouterr().err
    assert main(["chat", "--file", "nowhere.wav", "--microphone", "USB"]) == 1
    assert "not both" in capsys.readouterr().err


def test_e1_levels_are_shown_while_one_speaks(realtime_server: RealServer, tmp_path: Path) -> None:
    speech = tmp_path / "speech.wav"
    wav.write(speech, tone(3_000), 24_000)
    realtime_server.answers("A long answer that lasts a while.")
    with on_terminal(realtime_server, "--file", str(speech), "--voice") as terminal:
        terminal.until(r"○ listening.*▮▮▮")
        assert " assistant  " not in terminal.shown, "that was the user's"
        terminal.until(r"● speaking.*▮▮▮")
        terminal.type("\x04")
        assert terminal.ended() == 0
