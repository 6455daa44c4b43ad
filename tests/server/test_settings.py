from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vivavoce.engines.registry import PRESETS
from vivavoce.errors import SettingsError
from vivavoce.server.settings import Settings, load_settings, settings_of

FILE = """
port = 9000
api_keys = ["from-the-file"]
pipeline = "mine"

[models]
"gpt-realtime" = "scripted"

[pipelines.mine.language_model]
engine = "openai-chat"
options = { api_key = "sk-very-secret", model = "llama" }

[session_limits]
session_ms_max = 60000

[connection_limits]
stall_ms_max = 5000
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "server.toml"
    path.write_text(FILE)
    return path


def test_without_anything_the_server_is_local_and_on_loopback() -> None:
    settings = load_settings(environment={})
    assert (settings.host, settings.port, settings.pipeline) == ("127.0.0.1", 8080, "local")


def test_a_file_sets_what_it_names(config: Path) -> None:
    settings = load_settings(config=config, environment={})
    assert settings.port == 9000
    assert [key.reveal() for key in settings.api_keys] == ["from-the-file"]
    assert settings.session_limits.session_ms_max == 60_000
    assert settings.session_limits.items_max == Settings().session_limits.items_max
    assert settings.connection_limits.stall_ms_max == 5_000


def test_the_environment_overrides_the_file_and_arguments_override_both(config: Path) -> None:
    environment = {
        "VIVAVOCE_CONFIG": str(config),
        "VIVAVOCE_PORT": "9001",
        "VIVAVOCE_HOST": "::1",
        "VIVAVOCE_API_KEYS": "one, two,",
        "VIVAVOCE_ORIGINS": "https://a.example",
        "VIVAVOCE_LOG_LEVEL": "debug",
    }
    settings = load_settings(port=9002, model="scripted", environment=environment)
    assert (settings.host, settings.port, settings.pipeline, settings.log_level) == ("::1", 9002, "scripted", "debug")
    assert [key.reveal() for key in settings.api_keys] == ["one", "two"]
    assert settings.origins == ("https://a.example",)
    assert load_settings(environment=environment).port == 9001


def test_a_pipeline_takes_what_it_leaves_out_from_the_embedded_one(config: Path) -> None:
    pipelines = load_settings(config=config, environment={}).pipelines_in_use()
    assert list(pipelines) == ["mine", "scripted"]
    mine = pipelines["mine"]
    assert (mine.name, mine.language_model.engine) == ("mine", "openai-chat")
    assert (mine.vad, mine.synthesizer) == (PRESETS["local"].vad, PRESETS["local"].synthesizer)


def test_only_pipelines_in_use_are_built() -> None:
    assert list(settings_of({"pipeline": "scripted"}).pipelines_in_use()) == ["scripted"]


def test_no_secret_shows_itself(config: Path) -> None:
    settings = load_settings(config=config, environment={"VIVAVOCE_API_KEYS": "sk-key"})
    assert "sk-" not in repr(settings)
    assert "sk-" not in str(settings.api_keys)
    assert settings.api_keys == load_settings(environment={"VIVAVOCE_API_KEYS": "sk-key"}).api_keys


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"port": "8080"}, "port: Expected `int`, got `str`"),
        ({"port": 70_000}, "port: Expected `int` <= 65535"),
        ({"api_keys": ["fine", 3]}, "api_keys: Expected `str`, got `int`"),
        ({"api_keys": ["fine", " "]}, r"api_keys\[1\]: a key cannot be empty"),
        ({"prot": 1}, "prot: there is no such setting; there is host, port"),
        ({"models": {"gpt": "nowhere"}}, "models.gpt: there is no pipeline 'nowhere'; there is local, scripted"),
        ({"pipeline": "nowhere"}, "pipeline: there is no pipeline 'nowhere'"),
        ({"pipelines": ["mine"]}, "pipelines: expected a table of pipelines by name"),
        ({"pipelines": {"mine": {"vax": {"engine": "x"}}}}, "pipelines.mine: Object contains unknown field `vax`"),
        ({"pipelines": {"mine": {"vad": {"engine": 3}}}}, "pipelines.mine.vad.engine: Expected `str`, got `int`"),
        ({"session_limits": {"item_max": 3}}, "session_limits.item_max: there is no such limit; there is session_ms"),
        ({"session_limits": {"items_max": "3"}}, "session_limits.items_max: Expected `int`, got `str`"),
        ({"connection_limits": {"stall_ms_max": 0}}, "connection_limits.stall_ms_max: expected a number of at least 1"),
        ({"log_level": "loud"}, "log_level: Invalid enum value 'loud'"),
        ({"sessions_max": 0}, "sessions_max: Expected `int` >= 1"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_key(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings_of(values)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"VIVAVOCE_PORT": "many"}, "VIVAVOCE_PORT: Expected `int`, got `str`"),
        ({"VIVAVOCE_CONFIG": "/nowhere/at/all.toml"}, "/nowhere/at/all.toml: cannot be read: No such file"),
    ],
)
def test_a_variable_that_cannot_be_used_is_refused_by_its_name(environment: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(environment=environment)


def test_a_file_that_is_no_toml_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("port = ")
    with pytest.raises(SettingsError, match=r"broken\.toml: is not TOML"):
        load_settings(config=path, environment={})
