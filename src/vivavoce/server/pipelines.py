"""The pipelines of a server: built from the settings, made ready one engine after the other, chosen by model name.

Loading may take long, so it runs in a task of its own while the server already answers; who needs a pipeline waits for
it. Invariant: what was warmed up is closed exactly once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType

from vivavoce.engines import Pipeline
from vivavoce.engines.cores import Cores
from vivavoce.engines.health import Failing
from vivavoce.engines.registry import Registry
from vivavoce.errors import EngineError, SettingsError

from .settings import Settings

Progress = Callable[[str, str, bool], None]
"""Called with pipeline, role, and whether it is ready, before and after each engine is loaded."""

log = logging.getLogger(__name__)


def build(settings: Settings, registry: Registry | None = None) -> dict[str, Pipeline]:
    """Every pipeline that the settings use, not yet warmed up. Raises `SettingsError` and `EngineMissing`."""
    registry = registry or Registry.load()
    return {name: registry.build(chosen) for name, chosen in settings.pipelines_in_use().items()}


class Pipelines:
    """Named pipelines, one of them the default."""

    def __init__(
        self,
        pipelines: Mapping[str, Pipeline],
        *,
        default: str,
        models: Mapping[str, str],
        cores: Cores | None = None,
    ) -> None:
        if default not in pipelines:
            raise SettingsError(f"pipeline: there is no pipeline {default!r}; there is {', '.join(pipelines)}")
        self.default = default
        self.by_name = MappingProxyType(dict(pipelines))
        self.cores = cores
        """Those that the embedded engines share, where they do."""
        self._models = dict(models)
        self._missing = [(name, role) for name in self.by_name for role in self.by_name[name].engines]
        self._warming: asyncio.Task[None] | None = None

    def for_model(self, model: str) -> Pipeline:
        """The pipeline that serves a model name: by the settings' map, by its own name, or the default."""
        name = self._models.get(model, model)
        return self.by_name.get(name) or self.by_name[self.default]

    @property
    def models(self) -> list[str]:
        """The model names that mean something here: those of the settings' map, and those of pipelines."""
        return sorted({*self._models, *self.by_name})

    @property
    def loading(self) -> list[str]:
        """What is not ready yet, as `pipeline.role`; empty when everything is."""
        return [f"{name}.{role}" for name, role in self._missing]

    @property
    def roles(self) -> list[str]:
        """Every engine, as `pipeline.role`."""
        return [f"{name}.{role}" for name, pipeline in self.by_name.items() for role in pipeline.engines]

    @property
    def failing(self) -> dict[str, Failing]:
        """The engines whose last work failed, by `pipeline.role`."""
        return {
            f"{name}.{role}": failing
            for name, pipeline in self.by_name.items()
            for role, failing in pipeline.health.failing.items()
        }

    def failures(self) -> dict[tuple[str, ...], float]:
        """Failures in a row of every engine, by pipeline and role; from any thread."""
        found: dict[tuple[str, ...], float] = {}
        for name, pipeline in self.by_name.items():
            failing = pipeline.health.failing
            for role in pipeline.engines:
                found[name, role] = float(failing[role].failures) if role in failing else 0.0
        return found

    @property
    def failure(self) -> BaseException | None:
        """Why loading has failed; None while it has not."""
        warming = self._warming
        if warming is None or not warming.done() or warming.cancelled():
            return None
        return warming.exception()

    def warm_up(self, progress: Progress | None = None) -> asyncio.Task[None]:
        """Begin to load, if that has not begun. Await the task to wait; it raises what an engine raised."""
        if self._warming is None:
            self._warming = asyncio.create_task(self._load(progress or _quiet), name="warming up")
            self._warming.add_done_callback(_log_failure)
        return self._warming

    async def ready(self, timeout_s: float) -> None:
        """Wait until everything is loaded. Raises `TimeoutError`, or what an engine raised."""
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self.warm_up())

    async def close(self) -> None:
        """Stop loading, and free every engine."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait((self._warming,))
        for pipeline in self.by_name.values():
            await pipeline.close()

    async def _load(self, progress: Progress) -> None:
        for name, role in list(self._missing):
            progress(name, role, False)
            await self.by_name[name].engines[role].warm_up()
            self._missing.remove((name, role))
            progress(name, role, True)


def _quiet(pipeline: str, role: str, ready: bool) -> None:
    log.info("%s.%s is %s", pipeline, role, "ready" if ready else "being loaded")


def _log_failure(warming: asyncio.Task[None]) -> None:
    if warming.cancelled() or (error := warming.exception()) is None:
        return
    if isinstance(error, EngineError):
        log.error("a pipeline cannot be loaded: %s", error.message)
    else:
        log.error("a pipeline cannot be loaded", exc_info=error)
