"""Which engines there are, and pipelines made of them.

Engines are found by entry points, one group per role; each points to a `create(options) -> engine` that is cheap and
loads nothing. `Registry.load()` reads names only: a module is imported when a pipeline asks for its engine. An explicit
object, made by whoever needs it; there is no global registry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

import msgspec

from vivavoce.engines import ROLES, Pipeline
from vivavoce.engines.cores import Cores, SharesCores
from vivavoce.errors import EngineMissing, SettingsError

__all__ = ["GROUPS", "PRESETS", "EngineSettings", "PipelineSettings", "Registry"]

GROUPS: Mapping[str, str] = MappingProxyType(
    {
        "vad": "vivavoce.vad",
        "transcriber": "vivavoce.transcribers",
        "language_model": "vivavoce.language_models",
        "synthesizer": "vivavoce.synthesizers",
        "turn_detector": "vivavoce.turn_detectors",
        "noise_reducer": "vivavoce.noise_reducers",
    }
)
"""The entry-point group of each role in a pipeline."""

_EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "silero": "local",
        "dtln": "local",
        "whisper": "local",
        "smollm": "local",
        "hibari": "local",
        "endings": "server",
        "openai-chat": "server",
        "openai-transcription": "server",
        "openai-speech": "server",
    }
)
"""The extra of this package that a built-in engine needs."""


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An engine by name, and its own options."""

    engine: str
    options: dict[str, Any] = {}

    def __repr__(self) -> str:
        # Options may hold keys.
        return f"{type(self).__name__}({self.engine!r}, options={sorted(self.options)})"


class PipelineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engines that serve one model name."""

    name: str
    vad: EngineSettings
    transcriber: EngineSettings
    language_model: EngineSettings
    synthesizer: EngineSettings
    turn_detector: EngineSettings | None = None
    """Without it `semantic_vad` is refused."""
    noise_reducer: EngineSettings | None = None
    """Without it noise reduction is refused."""


PRESETS: Mapping[str, PipelineSettings] = MappingProxyType(
    {
        "local": PipelineSettings(
            name="local",
            vad=EngineSettings("silero"),
            transcriber=EngineSettings("whisper"),
            language_model=EngineSettings("smollm"),
            synthesizer=EngineSettings("hibari"),
            noise_reducer=EngineSettings("dtln"),
            turn_detector=EngineSettings("endings"),
        ),
        "scripted": PipelineSettings(
            name="scripted",
            vad=EngineSettings("scripted"),
            transcriber=EngineSettings("scripted"),
            language_model=EngineSettings("scripted"),
            synthesizer=EngineSettings("scripted"),
            turn_detector=EngineSettings("scripted"),
            noise_reducer=EngineSettings("scripted"),
        ),
    }
)
"""Pipelines that come with the package: embedded models, and the deterministic engines for tests."""


class Registry:
    """The engines that are installed here, by role and name. Those that it builds share the machine's cores."""

    def __init__(self, entries: Sequence[EntryPoint]) -> None:
        self._entries = tuple(entries)
        self.cores = Cores()

    @classmethod
    def load(cls) -> Registry:
        """Read the entry points of every installed package; imports none of the engines."""
        return cls([entry for group in GROUPS.values() for entry in entry_points(group=group)])

    def names(self, role: str) -> tuple[str, ...]:
        """The engines for a role (one of `GROUPS`), sorted."""
        return tuple(sorted({entry.name for entry in self._entries if entry.group == GROUPS[role]}))

    def build(self, settings: PipelineSettings) -> Pipeline:
        """The pipeline, not yet warmed up.

        Raises `SettingsError` where an engine is not known or does not take its options, `EngineMissing` where it is
        known but what it needs is not installed.
        """
        chosen = {role: engine for role in ROLES if (engine := getattr(settings, role)) is not None}
        return Pipeline(settings.name, **{role: self._create(settings.name, role, it) for role, it in chosen.items()})

    def _create(self, pipeline: str, role: str, chosen: EngineSettings) -> Any:
        where = f"pipeline {pipeline!r}, {role}"
        entry = self._find(where, role, chosen.engine)
        try:
            engine = entry.load()(chosen.options)
        except ImportError as error:
            raise EngineMissing(f"{where}: engine {entry.name!r} needs {_needs(entry)} ({error})") from error
        except SettingsError as error:
            raise SettingsError(f"{where}: {error}") from error
        if isinstance(engine, SharesCores):
            engine.share(self.cores)
        return engine

    def _find(self, where: str, role: str, name: str) -> EntryPoint:
        found = [entry for entry in self._entries if entry.group == GROUPS[role] and entry.name == name]
        if not found:
            raise SettingsError(f"{where}: no engine {name!r}; there is {', '.join(self.names(role)) or 'none'}")
        if len(found) > 1:
            values = ", ".join(entry.value for entry in found)
            raise SettingsError(f"{where}: several packages offer engine {name!r} ({values}); keep only one of them")
        return found[0]


def _needs(entry: EntryPoint) -> str:
    """What to install, so that the engine can be imported."""
    if entry.module.startswith("vivavoce.") and entry.name in _EXTRAS:
        return f'pip install "vivavoce[{_EXTRAS[entry.name]}]"'
    return f"a package that is not installed; see the documentation of {entry.module.partition('.')[0]!r}"
