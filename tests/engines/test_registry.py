"""The registry finds engines by entry points and says clearly what is not there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint

import pytest

from vivavoce.engines.registry import GROUPS, PRESETS, EngineSettings, PipelineSettings, Registry
from vivavoce.engines.scripted import ScriptedLanguageModel, ScriptedSynthesizer, ScriptedTranscriber, ScriptedVad
from vivavoce.errors import EngineMissing, SettingsError

SCRIPTED = EngineSettings("scripted")


def settings(language_model: EngineSettings = SCRIPTED) -> PipelineSettings:
    return PipelineSettings(
        name="test", vad=SCRIPTED, transcriber=SCRIPTED, language_model=language_model, synthesizer=SCRIPTED
    )


def registry(*entries: tuple[str, str]) -> Registry:
    """What is installed, and more language models."""
    more = [EntryPoint(name=name, value=value, group=GROUPS["language_model"]) for name, value in entries]
    return Registry([*Registry.load()._entries, *more])


def create_from_test(options: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
    return ("created", options)


def create_without_package(options: Mapping[str, object]) -> None:
    raise ImportError("no module named elephant")


def test_the_built_in_engines_are_found() -> None:
    found = Registry.load()
    assert {"scripted", "silero"} <= set(found.names("vad"))
    assert {"openai-transcription", "scripted", "whisper"} <= set(found.names("transcriber"))
    assert {"openai-chat", "scripted", "smollm"} <= set(found.names("language_model"))
    assert {"hibari", "openai-speech", "scripted"} <= set(found.names("synthesizer"))


def test_presets_name_engines_that_exist() -> None:
    found = Registry.load()
    assert set(PRESETS) == {"local", "scripted"}
    for preset in PRESETS.values():
        for role in GROUPS:
            assert getattr(preset, role).engine in found.names(role)


def test_builds_the_scripted_preset() -> None:
    pipeline = Registry.load().build(PRESETS["scripted"])
    assert pipeline.name == "scripted"
    assert isinstance(pipeline.vad, ScriptedVad)
    assert isinstance(pipeline.transcriber, ScriptedTranscriber)
    assert isinstance(pipeline.language_model, ScriptedLanguageModel)
    assert isinstance(pipeline.synthesizer, ScriptedSynthesizer)


def test_options_reach_the_engine() -> None:
    options = {"a": 1}
    pipeline = registry(("mine", f"{__name__}:create_from_test")).build(settings(EngineSettings("mine", options)))
    assert pipeline.language_model == ("created", options)


def test_an_unknown_engine_lists_what_there_is() -> None:
    with pytest.raises(
        SettingsError, match=r"pipeline 'test', language_model: no engine 'parrot'; .*openai-chat, scripted"
    ):
        Registry.load().build(settings(EngineSettings("parrot")))


def test_a_wrong_option_says_where() -> None:
    with pytest.raises(SettingsError, match=r"pipeline 'test', language_model: engine 'scripted' has no option 'x'"):
        Registry.load().build(settings(EngineSettings("scripted", {"x": 1})))


def test_a_built_in_engine_that_cannot_be_imported_names_its_extra() -> None:
    broken = Registry(
        [
            *(entry for entry in Registry.load()._entries if entry.name == "scripted"),
            EntryPoint("smollm", "vivavoce.engines.not_there:create", GROUPS["language_model"]),
        ]
    )
    with pytest.raises(EngineMissing, match=r'pip install "vivavoce\[local\]"') as missing:
        broken.build(settings(EngineSettings("smollm")))
    assert missing.value.code == "engine_missing"


@pytest.mark.parametrize("value", ["no_such_package.engine:create", f"{__name__}:create_without_package"])
def test_a_foreign_engine_that_cannot_be_imported_names_its_package(value: str) -> None:
    package = value.partition(":")[0].partition(".")[0]
    with pytest.raises(EngineMissing, match=rf"engine 'foreign' needs .* '{package}'"):
        registry(("foreign", value)).build(settings(EngineSettings("foreign")))


def test_two_packages_with_one_name_are_told_apart_by_nobody() -> None:
    twice = registry(("twin", "one:create"), ("twin", "two:create"))
    with pytest.raises(SettingsError, match=r"'twin' \(one:create, two:create\)"):
        twice.build(settings(EngineSettings("twin")))


def test_loading_imports_no_engine() -> None:
    code = (
        "import sys; from vivavoce.engines.registry import Registry; Registry.load();"
        "print([name for name in sys.modules if name.startswith('vivavoce.engines.') or name == 'numpy'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "['vivavoce.engines.health', 'vivavoce.engines.cores', 'vivavoce.engines.registry']"
