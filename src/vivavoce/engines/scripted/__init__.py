"""Engines that do exactly what they are told: for tests, ours and those of our users.

They stand where models would stand and need no weights, no packages and no luck: the same input always gives the same
output, piece by piece. Pace and faults are settings; all waiting is `asyncio.sleep`, so a loop with virtual time runs
hours in no time.

- Transcriber: `audio of N ms`, N being the duration of the audio rounded to 10 ms.
- Language model: see `ScriptedLanguageModel`.
- Synthesizer: a 440 Hz tone, 60 ms for each character at speed 1.0.
- Voice activity: 1.0 for a frame whose level reaches `speech_rms_min`, 0.0 for one below.

Invariant: no state outlives one call (one stream, for voice activity), so sessions never disturb each other.
"""

from __future__ import annotations

from collections.abc import Mapping

from vivavoce.engines import Pipeline
from vivavoce.engines.options import read_options

from .answering import MODEL_DEFAULTS, Answer, Call, ScriptedLanguageModel, ScriptedModelSettings, answer_by_rules
from .hearing import (
    TURN_DEFAULTS,
    VAD_DEFAULTS,
    ScriptedIncrementalTranscriber,
    ScriptedNoiseReducer,
    ScriptedTranscriber,
    ScriptedTurnDetector,
    ScriptedTurnSettings,
    ScriptedVad,
    ScriptedVadSettings,
    duration_in_words,
    speech_in_words,
)
from .pace import AT_ONCE, ScriptedSettings
from .speaking import CHARACTER_MS, ScriptedSynthesizer

__all__ = [
    "AT_ONCE",
    "CHARACTER_MS",
    "Answer",
    "Call",
    "ScriptedIncrementalTranscriber",
    "ScriptedLanguageModel",
    "ScriptedModelSettings",
    "ScriptedNoiseReducer",
    "ScriptedSettings",
    "ScriptedSynthesizer",
    "ScriptedTranscriber",
    "ScriptedTurnDetector",
    "ScriptedTurnSettings",
    "ScriptedVad",
    "ScriptedVadSettings",
    "answer_by_rules",
    "create_language_model",
    "create_noise_reducer",
    "create_synthesizer",
    "create_transcriber",
    "create_turn_detector",
    "create_vad",
    "duration_in_words",
    "scripted_pipeline",
    "speech_in_words",
]


def create_vad(options: Mapping[str, object]) -> ScriptedVad:
    """Options: the fields of `ScriptedVadSettings`. Raises `SettingsError`."""
    return ScriptedVad(read_options("scripted", ScriptedVadSettings, options))


def create_transcriber(options: Mapping[str, object]) -> ScriptedTranscriber:
    """Options: the fields of `ScriptedSettings`. Raises `SettingsError`."""
    return ScriptedTranscriber(read_options("scripted", ScriptedSettings, options))


def create_language_model(options: Mapping[str, object]) -> ScriptedLanguageModel:
    """Options: the fields of `ScriptedModelSettings`. Raises `SettingsError`."""
    return ScriptedLanguageModel(read_options("scripted", ScriptedModelSettings, options))


def create_turn_detector(options: Mapping[str, object]) -> ScriptedTurnDetector:
    """Options: the fields of `ScriptedTurnSettings`. Raises `SettingsError`."""
    return ScriptedTurnDetector(read_options("scripted", ScriptedTurnSettings, options))


def create_noise_reducer(options: Mapping[str, object]) -> ScriptedNoiseReducer:
    """Options: the fields of `ScriptedVadSettings`; the gate has no faults. Raises `SettingsError`."""
    return ScriptedNoiseReducer(read_options("scripted", ScriptedVadSettings, options))


def create_synthesizer(options: Mapping[str, object]) -> ScriptedSynthesizer:
    """Options: the fields of `ScriptedSettings`. Raises `SettingsError`."""
    return ScriptedSynthesizer(read_options("scripted", ScriptedSettings, options))


def scripted_pipeline(
    name: str = "scripted",
    *,
    vad: ScriptedVadSettings = VAD_DEFAULTS,
    transcriber: ScriptedSettings = AT_ONCE,
    language_model: ScriptedSettings = MODEL_DEFAULTS,
    synthesizer: ScriptedSettings = AT_ONCE,
    turn_detector: ScriptedTurnSettings = TURN_DEFAULTS,
) -> Pipeline:
    """The scripted engines together, each with its own pace and faults."""
    return Pipeline(
        name,
        ScriptedVad(vad),
        ScriptedTranscriber(transcriber),
        ScriptedLanguageModel(language_model),
        ScriptedSynthesizer(synthesizer),
        ScriptedTurnDetector(turn_detector),
        ScriptedNoiseReducer(vad),
    )
