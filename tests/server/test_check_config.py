from __future__ import annotations

import re
from pathlib import Path

import pytest

from vivavoce.cli import main
from vivavoce.errors import SettingsError
from vivavoce.server.check import checked
from vivavoce.server.settings import Settings
from vivavoce.server.settings_reference import settings_reference
from vivavoce.server.sources import variables

FILE = """
port = 9000
api_keys = ["sk-from-the-file", "sk-second"]
signing_key = "sk-0123456789-0123456789-0123456789"
pipeline = "mine"
origins = ["https://a.example", "https://b.example"]

[models]
"gpt-realtime" = "scripted"

[prices."gpt-realtime"]
text_in = 4

[pipelines.mine]
vad = { engine = "scripted" }
transcriber = { engine = "scripted" }
language_model = { engine = "openai-chat", options = { url = "http://h/v1", model = "m", api_key = "sk-very-secret" } }
synthesizer = { engine = "scripted" }
turn_detector = { engine = "scripted" }
noise_reducer = { engine = "scripted" }
"""


SCRIPTED = """
pipeline = "mine"
[pipelines.mine]
transcriber = { engine = "scripted" }
language_model = { engine = "scripted" }
synthesizer = { engine = "scripted" }
turn_detector = { engine = "scripted" }
noise_reducer = { engine = "scripted" }
"""
"""A pipeline without its detector."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "server.toml"
    path.write_text(FILE)
    return path


def row(report: str, path: str) -> list[str]:
    (line,) = [line for line in report.splitlines() if line.split()[:1] == [path]]
    return re.split(r"\s{2,}", line.strip())


def test_the_report_says_what_is_in_force_and_where_it_came_from(config: Path) -> None:
    environment = {"VIVAVOCE_SESSION_LIMITS__ITEMS_MAX": "7", "VIVAVOCE_PORT": "9001", "VIVAVOCE_PROT": "1"}
    report = checked(config, environment)
    assert row(report, "host") == ["host", "127.0.0.1", "default"]
    assert row(report, "port") == ["port", "9001", "VIVAVOCE_PORT"]
    assert row(report, "origins")[1:] == ["https://a.example, https://b.example", str(config)]
    assert row(report, "session_limits.items_max")[1:] == ["7", "VIVAVOCE_SESSION_LIMITS__ITEMS_MAX"]
    assert row(report, "session_limits.responses_max")[1:] == ["8", "default"]
    assert row(report, "models.gpt-realtime")[1:] == ["scripted", str(config)]
    assert row(report, "prices.gpt-realtime.text_in")[1:] == ["4.0", str(config)]
    assert row(report, "budget")[1:] == ["none", "default"]
    assert row(report, "compression")[1:] == ["false", "default"]
    assert report.endswith("have no effect:\n  VIVAVOCE_PROT")


def test_the_report_names_the_engines_of_every_pipeline_that_is_used(config: Path) -> None:
    report = checked(config, {})
    assert (
        "  mine: vad scripted, transcriber scripted, language_model openai-chat (options api_key, model, url), "
        "synthesizer scripted, turn_detector scripted, noise_reducer scripted\n" in report
    )
    assert "  scripted: vad scripted, " in report
    assert "  local: " not in report, "nothing uses it"
    assert "no effect" not in report


def test_no_secret_is_in_the_report(config: Path) -> None:
    report = checked(config, {"VIVAVOCE_API_KEYS": "sk-one,sk-two,sk-three"})
    assert "sk-" not in report
    assert row(report, "api_keys")[1:] == ["3 (hidden)", "VIVAVOCE_API_KEYS"]
    assert row(report, "signing_key")[1:] == ["(hidden)", str(config)]


def test_the_command_ends_with_0_for_what_can_be_used(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", str(config)]) == 0
    assert "Engines that would be loaded:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", "prot: there is no such setting"),
        ("port = ", "is not TOML"),
        ('host = "0.0.0.0"', "no api_keys are set"),
        ('pipeline = "nowhere"', "pipeline: there is no pipeline 'nowhere'"),
        (f'{SCRIPTED}vad = {{ engine = "none-such" }}', "pipeline 'mine', vad: no engine 'none-such'"),
        (
            f'{SCRIPTED}vad = {{ engine = "scripted", options = {{ api_key = "sk-secret", x = 1 }} }}',
            "pipeline 'mine', vad: ",
        ),
    ],
)
def test_the_command_ends_with_2_and_says_why_for_what_cannot(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text)
    assert main(["check-config", str(path)]) == 2
    output = capsys.readouterr()
    assert said in output.err
    assert not output.out
    assert "sk-" not in output.err


def test_the_file_may_be_named_by_the_environment(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIVAVOCE_CONFIG", str(config))
    assert main(["check-config"]) == 0
    assert str(config) in capsys.readouterr().out


def test_prompts_are_read(tmp_path: Path) -> None:
    (tmp_path / "greeting.toml").write_text("nonsense = 1")
    config = tmp_path / "server.toml"
    config.write_text(f'pipeline = "scripted"\nprompts = "{tmp_path.as_posix()}"\n')
    with pytest.raises(SettingsError, match="nonsense"):
        checked(config, {})


# --- the reference ----------------------------------------------------------------------------------------------------


def test_the_place_of_the_log_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "vivavoce.toml"
    config.write_text('pipeline = "scripted"\nsession_log = "mysql://root:geheim@host/db"\n')
    assert main(["check-config", str(config)]) == 2
    said = capsys.readouterr().err
    assert "session_log: expected the path of a SQLite file" in said
    assert "geheim" not in said


def test_the_reference_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
    command = "python -m vivavoce.server.settings_reference > docs/reference/settings.md"
    assert page.read_text(encoding="utf-8") == settings_reference(), f"run: {command}"


def test_the_reference_explains_every_setting_and_names_every_variable() -> None:
    page = settings_reference()
    for name in Settings.__struct_fields__:
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert line.rstrip("| ").endswith("."), f"{name} has no docstring"
    for variable in variables():
        assert f"`{variable}`" in page
