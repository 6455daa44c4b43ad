from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vivavoce.engines.registry import PRESETS
from vivavoce.errors import SettingsError
from vivavoce.server.settings import RateLimits, Secret, Settings, settings_of
from vivavoce.server.sources import load_settings, sourced, variables

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


def test_every_scalar_and_every_list_has_a_variable_also_nested_ones(config: Path) -> None:
    environment = {
        "VIVAVOCE_SESSION_LIMITS__SESSION_MS_MAX": "90000",
        "VIVAVOCE_CONNECTION_LIMITS__STALL_MS_MAX": "7000",
        "VIVAVOCE_RATE_LIMITS__TOKENS_PER_MINUTE": "40000",
        "VIVAVOCE_COMPRESSION": "true",
        "VIVAVOCE_BUDGET": "0.5",
        "VIVAVOCE_REFUSALS": "http",
        "VIVAVOCE_SIGNING_KEY": "s" * 32,
    }
    settings = load_settings(config=config, environment=environment)
    assert settings.session_limits.session_ms_max == 90_000
    assert settings.session_limits.items_max == Settings().session_limits.items_max
    assert settings.connection_limits.stall_ms_max == 7_000
    assert settings.rate_limits == RateLimits(tokens_per_minute=40_000)
    assert (settings.compression, settings.budget, settings.refusals) == (True, 0.5, "http")
    assert settings.signing_key == Secret("s" * 32)
    assert "VIVAVOCE_MODELS" not in variables()
    assert {"VIVAVOCE_" + name.upper() for name in Settings.__struct_fields__} - set(variables()) == {
        "VIVAVOCE_MODELS",
        "VIVAVOCE_PIPELINES",
        "VIVAVOCE_PRICES",
        "VIVAVOCE_RATE_LIMITS",
        "VIVAVOCE_SESSION_LIMITS",
        "VIVAVOCE_CONNECTION_LIMITS",
        "VIVAVOCE_WEBRTC",
    }


def test_of_every_value_it_is_known_where_it_came_from(config: Path) -> None:
    environment = {"VIVAVOCE_SESSION_LIMITS__ITEMS_MAX": "9", "VIVAVOCE_PROT": "1", "VIVAVOCE_CONFIG": "/elsewhere"}
    found = sourced(config=config, environment=environment, options={"port": ("--port", 1)})
    assert found.sources[("port",)] == "--port"
    assert found.sources[("session_limits", "items_max")] == "VIVAVOCE_SESSION_LIMITS__ITEMS_MAX"
    assert found.sources[("session_limits", "session_ms_max")] == str(config)
    assert ("host",) not in found.sources
    assert found.unused == ("VIVAVOCE_PROT",)


def test_a_price_that_is_left_out_is_nothing_and_a_cached_one_as_the_plain_one() -> None:
    settings = settings_of({"prices": {"m": {"text_in": 4, "audio_in": 32.0, "audio_cached": 0.4}}})
    assert settings.prices["m"].plain() == {
        "text_in": 4.0,
        "text_cached": 4.0,
        "text_out": 0.0,
        "audio_in": 32.0,
        "audio_cached": 0.4,
        "audio_out": 0.0,
        "image_in": 0.0,
        "transcription_minute": 0.0,
    }


def test_the_folder_of_prompts_has_to_be_there(tmp_path: Path) -> None:
    assert settings_of({"prompts": str(tmp_path)}).prompts == str(tmp_path)
    with pytest.raises(SettingsError, match="prompts: there is no folder"):
        settings_of({"prompts": str(tmp_path / "not")})


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
        ({"session_limits": {"speculation_ms": -1}}, "session_limits.speculation_ms: expected a number of at least 0"),
        ({"log_level": "loud"}, "log_level: Invalid enum value 'loud'"),
        ({"sessions_max": 0}, "sessions_max: Expected `int` >= 1"),
        ({"session_limits": 3}, "session_limits: Expected `object`, got `int`"),
        ({"signing_key": "short"}, "signing_key: expected at least 32 characters"),
        ({"origins": ["*"]}, r"origins\[0\]: expected 'scheme://host' or 'scheme://host:port', got '\*'"),
        ({"origins": ["https://a", "https://a/page"]}, r"origins\[1\]: expected"),
        ({"refusals": "404"}, "refusals: Invalid enum value '404'"),
        ({"unknown_models": "drop"}, "unknown_models: Invalid enum value"),
        ({"rate_limits": {"requests_per_minute": 0}}, "rate_limits.requests_per_minute: Expected `int` >= 1"),
        ({"rate_limits": {"requests": 1}}, "rate_limits: Object contains unknown field `requests`"),
        ({"prices": {"m": {"text_in": -1}}}, "prices.m.text_in: Expected `float` >= 0"),
        ({"prices": 3}, "prices: expected a table of prices by name"),
        ({"budget": 0}, "budget: Expected `float` > 0"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_key(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings_of(values)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"VIVAVOCE_PORT": "many"}, "VIVAVOCE_PORT: Expected `int`, got `str`"),
        ({"VIVAVOCE_COMPRESSION": "maybe"}, "VIVAVOCE_COMPRESSION: Expected `bool`, got `str`"),
        ({"VIVAVOCE_RATE_LIMITS__TOKENS_PER_MINUTE": "0"}, "VIVAVOCE_RATE_LIMITS__TOKENS_PER_MINUTE: Expected `int`"),
        ({"VIVAVOCE_CONFIG": "/nowhere/at/all.toml"}, "/nowhere/at/all.toml: cannot be read: No such file"),
    ],
)
def test_a_variable_that_cannot_be_used_is_refused_by_its_name(environment: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(environment=environment)


def test_a_file_may_begin_with_a_byte_order_mark_and_is_not_nested_without_end(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(b"\xef\xbb\xbfport = 1")
    assert load_settings(config=path, environment={}).port == 1
    path.write_text("port = " + "[" * 5_000)
    with pytest.raises(SettingsError, match=r"settings\.toml: is nested too deeply"):
        load_settings(config=path, environment={})


def test_a_file_that_is_no_toml_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("port = ")
    with pytest.raises(SettingsError, match=r"broken\.toml: is not TOML"):
        load_settings(config=path, environment={})


def test_a_pipeline_can_do_without_a_judge_of_turns_and_without_noise_reduction() -> None:
    none = {"engine": "none"}
    table = {"turn_detector": none, "noise_reducer": none}
    pipeline = settings_of({"pipelines": {"bare": table}}).pipelines_in_use()["bare"]
    assert (pipeline.turn_detector, pipeline.noise_reducer) == (None, None)
    assert pipeline.vad.engine == "silero"


def test_a_limit_that_switches_something_off_may_be_zero() -> None:
    assert settings_of({"session_limits": {"speculation_ms": 0}}).session_limits.speculation_ms == 0


def test_what_was_meant_is_said() -> None:
    with pytest.raises(SettingsError, match=r"sesions_max: .* did you mean 'sessions_max'"):
        settings_of({"sesions_max": 3})
    with pytest.raises(SettingsError, match=r"session_limits\.turn_ms: .* did you mean 'turn_ms_max'"):
        settings_of({"session_limits": {"turn_ms": 3}})
