"""`vivavoce bench`: how soon an endpoint answers, how soon it falls silent, and what sessions cost its server.

Against any endpoint, or a server that is started in a process of its own; two endpoints take turns. Says what happens
while it happens, then the figures, as tables or as JSON, and draws them. What is measured, and how, is
`vivavoce.testing.bench`.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from vivavoce import __version__
from vivavoce.errors import EngineMissing, VivavoceError
from vivavoce.protocol.client_codec import Dialect
from vivavoce.testing.bench import figures, report, rounds
from vivavoce.testing.bench.conversation import Asking, Endpoint
from vivavoce.testing.bench.load import Loaded, load
from vivavoce.testing.bench.plot import Curve, Panel, svg
from vivavoce.testing.bench.speech import Utterance, recorded, synthesized, tones
from vivavoce.testing.bench.turn import FIRST_AUDIO
from vivavoce.testing.serving import Serving, serving

from . import files
from .where import ANY_MODEL, EMBEDDED, Where

SCRIPTED = "scripted"
LETTERS = "AB"
TALKING = ("debug", "info")
LOOPBACK = ("127.0.0.1", "localhost")
NOT_OURS = frozenset({"VIVAVOCE_CONFIG", "VIVAVOCE_API_KEYS"})
"""Settings of a server that somebody else means to run here: those of ours are on the command line."""
ANSWERS = "end of speech → first audio"
COMMITS = "commit → first audio"
BARGE_INS = "interruption: onset of speech → last audio"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said. `pipeline` is what --model named, if it did."""

    where: Where
    pipeline: str | None = None
    sources: tuple[Path, ...] = ()
    config: Path | None = None
    against: str | None = None
    against_model: str | None = None
    against_api_key: str | None = field(default=None, repr=False)
    against_dialect: Dialect | None = None
    turns: int = 20
    barge_ins: int = 5
    sessions: tuple[int, ...] = ()
    seconds: float = 60.0
    silence_ms: int = 500
    instructions: str | None = None
    is_fresh: bool = False
    seed: int = 0
    as_json: bool = False
    save: Path | None = None
    plot: Path | None = None

    def asking(self) -> Asking:
        """What every endpoint is asked for."""
        return Asking(self.silence_ms, self.instructions)


async def bench(options: Options) -> int:
    """Measure and tell; 0 where something counts of all that was to be measured. Raises `VivavoceError`."""
    for path in (options.save, options.plot):
        if path is not None:
            files.check_folder(path.parent)
    cpu_s = _cpu_clock() if options.sessions else None
    said = await _speech(options)
    with ExitStack() as servers:
        first, own = _first(options, servers)
        endpoints = [first, *_second(options, servers)]
        result = _Result(options, endpoints)
        await result.measure(said)
        if cpu_s is not None and own is not None:
            await result.load(said, lambda: cpu_s(own.process.pid))
    result.tell()
    return 0 if result.is_whole else 1


# --- what is said, and to whom ----------------------------------------------------------------------------------------


async def _speech(options: Options) -> list[Utterance]:
    if options.sources:
        return recorded(options.sources)
    if options.where.url is None and options.pipeline == SCRIPTED:
        return tones()
    _tell(options, "The embedded voice speaks the questions …")
    try:
        return await synthesized()
    except EngineMissing as missing:
        raise VivavoceError(f"there is nothing to say: name WAV files, or a folder of them ({missing})") from missing


def _first(options: Options, servers: ExitStack) -> tuple[Endpoint, Serving | None]:
    where = options.where
    if where.url is not None:
        return Endpoint.at(where.url, where.model, where.api_key, where.dialect), None
    name, server = servers.enter_context(_started(options, options.config, options.pipeline))
    return Endpoint(name, f"{server.url}/v1", ANY_MODEL, where.api_key, where.dialect), server


def _second(options: Options, servers: ExitStack) -> list[Endpoint]:
    if options.against is None:
        return []
    model, api_key, dialect = options.against_model, options.against_api_key, options.against_dialect
    if not options.against.endswith(".toml"):
        return [Endpoint.at(options.against, model or ANY_MODEL, api_key, dialect)]
    name, server = servers.enter_context(_started(options, Path(options.against), model))
    return [Endpoint(name, f"{server.url}/v1", ANY_MODEL, api_key, dialect)]


@contextmanager
def _started(options: Options, config: Path | None, pipeline: str | None) -> Iterator[tuple[str, Serving]]:
    """A warm server until the block ends, and its name: what it was started with, since its port says nothing.

    Which pipeline it has, a settings file says, or else it is that of the embedded engines.
    """
    environment = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
    if config is not None:
        _check_settings(config, environment)
    pipeline = pipeline or (None if config else EMBEDDED)
    arguments = [*(["--model", pipeline] if pipeline else []), *(["--config", str(config)] if config else [])]
    name = " ".join(["vivavoce serve", *arguments])
    _tell(options, f"Starting {name} …")
    began = time.perf_counter()
    with serving(["-m", "vivavoce", "serve", "--port", "0", *arguments], environment) as server:
        server.wait_until_ready()
        _tell(options, f"It was ready after {time.perf_counter() - began:.1f} s.")
        yield name, server


def _check_settings(config: Path, environment: Mapping[str, str]) -> None:
    """Raises `VivavoceError` for a file with which no server would be found."""
    from vivavoce.server import load_settings

    if not config.is_file():
        raise VivavoceError(f"{config}: there is no such settings file")
    settings = load_settings(config=config, environment=environment)
    if settings.log_level not in TALKING:
        raise VivavoceError(
            f"{config}: log_level is {settings.log_level!r}; expected 'info', to learn where it listens"
        )
    if settings.host not in LOOPBACK:
        raise VivavoceError(f"{config}: host is {settings.host!r}; a server for a benchmark listens on 127.0.0.1")


def _cpu_clock() -> Callable[[int], float]:
    """CPU time of a process, in s. Raises `ModuleNotFoundError` where psutil is missing, before anything takes long."""
    import psutil  # type: ignore[import-untyped]

    def cpu_s(process_id: int) -> float:
        times = psutil.Process(process_id).cpu_times()
        return float(times.user + times.system)

    return cpu_s


def _tell(options: Options, text: str = "") -> None:
    """Progress: with --json it must not get between the figures."""
    print(text, file=sys.stderr if options.as_json else sys.stdout, flush=True)


# --- what is found ----------------------------------------------------------------------------------------------------


class _Result:
    """All that is measured in a run, and how it is told."""

    def __init__(self, options: Options, endpoints: Sequence[Endpoint]) -> None:
        self._options, self._endpoints = options, endpoints
        self._letters = dict(zip((id(endpoint) for endpoint in endpoints), LETTERS, strict=False))
        self._held: list[rounds.Held] = []
        self._interrupted: list[rounds.Interrupted] = []
        self._loaded: list[Loaded] = []

    async def measure(self, said: Sequence[Utterance]) -> None:
        """Turns, then interruptions."""
        options = self._options
        for letter, endpoint in zip(LETTERS, self._endpoints, strict=False):
            self._tell(f"{letter}  {endpoint.name}")
        if options.turns:
            self._tell(f"\n{report.heading()}")
            self._held = await rounds.hold_rounds(
                self._endpoints,
                said,
                options.turns,
                options.asking(),
                seed=options.seed,
                is_fresh=options.is_fresh,
                report=lambda endpoint, turn: self._tell(report.turn_line(turn, self._letters[id(endpoint)])),
            )
        if options.barge_ins:
            asking = replace(
                options.asking(),
                instructions=options.instructions or rounds.AT_LENGTH,
                max_output_tokens=rounds.AT_LENGTH_TOKENS,
            )
            self._interrupted = await rounds.interrupt_rounds(
                self._endpoints,
                said,
                options.barge_ins,
                asking,
                seed=options.seed,
                report=lambda endpoint, one: self._tell(report.barge_in_line(one, self._letters[id(endpoint)])),
            )

    async def load(self, said: Sequence[Utterance], cpu_s: Callable[[], float]) -> None:
        """So many sessions at once, one number after the other."""
        options = self._options
        for count in options.sessions:
            self._tell(f"{count} sessions talk for {options.seconds:g} s …")
            loaded = await load(
                self._endpoints[0],
                count,
                said,
                options.asking(),
                seconds=options.seconds,
                cpu_s=cpu_s,
                seed=options.seed,
            )
            self._loaded.append(loaded)

    def _tell(self, text: str) -> None:
        _tell(self._options, text)

    @property
    def is_whole(self) -> bool:
        """Whether something counts of each thing that was measured."""
        turns = all(figures.counted(held.turns[1:]) for held in self._held)
        loads = all(figures.counted(loaded.turns) for loaded in self._loaded)
        return turns and loads and all(one.barge_ins for one in self._interrupted)

    def plain(self) -> dict[str, Any]:
        """As it goes into JSON."""
        held = [figures.of_turns(one) for one in self._held]
        interrupted = [figures.of_barge_ins(one) for one in self._interrupted]
        compared = figures.comparison(*self._held) if len(self._held) == len(LETTERS) else None
        options = self._options
        letters = LETTERS[: len(self._endpoints)]
        return {
            "version": __version__,
            "machine": {"system": platform.platform(), "cores": os.cpu_count()},
            "seed": options.seed,
            "silence_ms": options.silence_ms,
            "is_fresh": options.is_fresh,
            "endpoints": [
                {"letter": letter, "name": endpoint.name, "model": endpoint.model, "turns": turns, "barge_in": stops}
                for letter, endpoint, turns, stops in zip_longest(letters, self._endpoints, held, interrupted)
            ],
            "comparison": compared,
            "sessions": [figures.of_load(loaded) for loaded in self._loaded],
        }

    def tell(self) -> None:
        """Print, save and draw."""
        options, plain = self._options, self.plain()
        text = json.dumps(plain, ensure_ascii=False)
        if options.as_json:
            print(text)
        else:
            print("\n".join(["", *report.table(plain["endpoints"], plain["comparison"])]))
            if plain["sessions"]:
                print("\n".join(["", *report.load_table(plain["sessions"])]))
        if options.save is not None:
            _save(options.save, f"{text}\n")
        if options.plot is not None:
            self._draw(options.plot)

    def _draw(self, path: Path) -> None:
        panels = [panel for panel in self.panels() if any(curve.values for curve in panel.curves)]
        if not panels:
            self._tell(f"Nothing counts that could be drawn: there is no {path}.")
            return
        _save(path, svg(f"vivavoce bench: how soon, at {self._options.silence_ms} ms of silence", panels))

    def panels(self) -> list[Panel]:
        """What is drawn: a curve for each endpoint, and for each number of sessions."""
        good = {one.endpoint.name: figures.counted(one.turns[1:]) for one in self._held}
        stops = {one.endpoint.name: figures.stopped(one.barge_ins) for one in self._interrupted}
        busy = {f"{one.sessions} sessions": figures.counted(one.turns) for one in self._loaded}
        return [
            _panel(ANSWERS, {name: [turn.stages[FIRST_AUDIO] for turn in turns] for name, turns in good.items()}),
            _panel(COMMITS, {name: [turn.after_commit_ms for turn in turns] for name, turns in good.items()}),
            _panel(BARGE_INS, {name: [one.stages.get("last_audio") for one in ones] for name, ones in stops.items()}),
            _panel(
                f"many sessions: {ANSWERS}",
                {name: [turn.stages[FIRST_AUDIO] for turn in turns] for name, turns in busy.items()},
            ),
        ]


def _panel(title: str, values: Mapping[str, Sequence[float | None]]) -> Panel:
    return Panel(title, [Curve(name, [ms for ms in times if ms is not None]) for name, times in values.items()])


def _save(path: Path, text: str) -> None:
    with files.saving(path):
        path.write_text(text, encoding="utf-8")
    print(f"saved {path}", file=sys.stderr)
