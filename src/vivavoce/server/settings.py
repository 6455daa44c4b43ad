"""What can be set on a server: from a TOML file, the environment and the command line, each overriding the one before.

Read once, at the start, into frozen structs; everything that cannot be used is refused here, by its key path, before
anything listens. Invariant: no key and no engine option appears in a `repr` or in an error message.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, structs

from vivavoce.core.limits import Limits
from vivavoce.engines.registry import PRESETS, EngineSettings, PipelineSettings
from vivavoce.errors import SettingsError

from .runtime import ConnectionLimits

T = TypeVar("T")

ENVIRONMENT = {
    "VIVAVOCE_HOST": "host",
    "VIVAVOCE_PORT": "port",
    "VIVAVOCE_API_KEYS": "api_keys",
    "VIVAVOCE_ORIGINS": "origins",
    "VIVAVOCE_PIPELINE": "pipeline",
    "VIVAVOCE_LOG_LEVEL": "log_level",
}
"""Variables and the settings that they set; lists are separated by commas. `VIVAVOCE_CONFIG` names the file."""

LISTS = frozenset({"api_keys", "origins"})
ROLES_FROM = "local"
"""The preset that fills the roles which a pipeline of the settings leaves out."""


class Secret:
    """A text that does not show itself: `reveal` is the only way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class PipelineTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pipeline as the settings write it; a role that is left out is filled from the preset `local`."""

    vad: EngineSettings | None = None
    transcriber: EngineSettings | None = None
    language_model: EngineSettings | None = None
    synthesizer: EngineSettings | None = None
    turn_detector: EngineSettings | None = None
    noise_reducer: EngineSettings | None = None

    def named(self, name: str) -> PipelineSettings:
        """The whole pipeline."""
        chosen = {role: engine for role in self.__struct_fields__ if (engine := getattr(self, role)) is not None}
        return structs.replace(PRESETS[ROLES_FROM], name=name, **chosen)

    def __repr__(self) -> str:
        chosen = ", ".join(
            f"{role}={getattr(self, role).engine}" for role in self.__struct_fields__ if getattr(self, role)
        )
        return f"PipelineTable({chosen})"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set on a server."""

    host: str = "127.0.0.1"
    """Address to bind. Without `api_keys` only loopback is allowed."""
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    """Port to bind; 0 is any free one."""
    api_keys: tuple[Secret, ...] = ()
    """Keys that are accepted. None given: everybody is, and only from this machine."""
    origins: tuple[str, ...] = ()
    """Web pages that may connect without a key, as `scheme://host[:port]`, besides those of this machine."""
    pipeline: str = "local"
    """The pipeline for every model name that nothing else is said about."""
    models: dict[str, str] = {}
    """Model names, and the pipelines that serve them."""
    pipelines: dict[str, PipelineTable] = {}
    """Pipelines besides the presets."""
    sessions_max: Annotated[int, Meta(ge=1)] = 100
    """Sessions at once. One more is refused with `too_many_sessions`."""
    warm_up_ms_max: Annotated[int, Meta(ge=0)] = 60_000
    """Time that a new connection waits for models that are still being loaded."""
    drain_ms_max: Annotated[int, Meta(ge=0)] = 10_000
    """Time that running responses have to end when the server stops."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """How much is logged."""
    session_limits: Limits = Limits()
    """Limits of the session itself."""
    connection_limits: ConnectionLimits = ConnectionLimits()
    """Limits of the connection."""

    def pipelines_in_use(self) -> dict[str, PipelineSettings]:
        """The pipelines to build, by name: the default, those of `pipelines`, and those that `models` names.

        Raises `SettingsError` where a name is that of no pipeline.
        """
        known = {**PRESETS, **{name: table.named(name) for name, table in self.pipelines.items()}}
        wanted = {"pipeline": self.pipeline, **{f"models.{model}": name for model, name in self.models.items()}}
        for path, name in wanted.items():
            if name not in known:
                raise SettingsError(f"{path}: there is no pipeline {name!r}; there is {', '.join(sorted(known))}")
        return {name: known[name] for name in dict.fromkeys((*wanted.values(), *self.pipelines))}


def load_settings(
    *,
    config: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    model: str | None = None,
    api_keys: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from a TOML file, then the environment, then the arguments; `model` is the default pipeline.

    Raises `SettingsError`, which names the file or variable and the key.
    """
    environment = os.environ if environment is None else environment
    if config is None and (named := environment.get("VIVAVOCE_CONFIG")):
        config = Path(named)
    values = {} if config is None else _read(config)
    values |= _from_environment(environment)
    given = {"host": host, "port": port, "pipeline": model, "api_keys": list(api_keys) if api_keys else None}
    values |= {name: value for name, value in given.items() if value is not None}
    return settings_of(values)


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Settings from plain values, as a TOML file has them. Raises `SettingsError` that names the key."""
    fields = {field.name: field.type for field in structs.fields(Settings)}
    converted: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise SettingsError(f"{name}: there is no such setting; there is {', '.join(fields)}")
        converted[name] = _tables(name, value) if name == "pipelines" else _convert(name, value, fields[name])
    settings = Settings(**converted)
    settings.pipelines_in_use()
    for index, key in enumerate(settings.api_keys):
        if not key.reveal().strip():
            raise SettingsError(f"api_keys[{index}]: a key cannot be empty")
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, name in ENVIRONMENT.items():
        text = environment.get(variable)
        if text is None:
            continue
        found[name] = [part.strip() for part in text.split(",") if part.strip()] if name in LISTS else text
        if name == "port":
            found[name] = _convert(variable, text, int, strict=False)
    return found


def _tables(path: str, value: Any) -> dict[str, PipelineTable]:
    if not isinstance(value, dict):
        raise SettingsError(f"{path}: expected a table of pipelines by name")
    return {name: _convert(f"{path}.{name}", table, PipelineTable) for name, table in value.items()}


def _convert(path: str, value: Any, type: Any, *, strict: bool = True) -> Any:
    if dataclasses.is_dataclass(type) and isinstance(value, dict):
        # msgspec passes over what a dataclass does not have.
        known = [field.name for field in dataclasses.fields(type)]
        for name, limit in value.items():
            if name not in known:
                raise SettingsError(f"{path}.{name}: there is no such limit; there is {', '.join(known)}")
            if isinstance(limit, int) and limit < 1:
                raise SettingsError(f"{path}.{name}: expected a number of at least 1")
    try:
        return msgspec.convert(value, type, strict=strict, dec_hook=_secret)
    except msgspec.ValidationError as error:
        said, _, where = str(error).partition(" - at `$")
        raise SettingsError(f"{path}{where.rstrip('`')}: {said}") from None


def _secret(kind: type[Any], value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise msgspec.ValidationError(f"Expected `str`, got `{type(value).__name__}`")
