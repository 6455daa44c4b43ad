"""The command line of `vivavoce bench`, apart from what it runs, so that `--help` imports nothing of it."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from vivavoce.errors import VivavoceError

from .where import add_where, where_of

MORE = """\
Without --url the command starts a server of its own, with the pipeline --model. Without files the embedded voice asks
a few questions; with --model scripted, tones stand for speech.

for example:
  vivavoce bench                                             the embedded engines
  vivavoce bench speech/ --url http://127.0.0.1:8080/v1      a running server, with your recordings
  vivavoce bench --against https://api.openai.com/v1         two endpoints, turn and turn about
  vivavoce bench --against plain.toml --plot bench.svg       two settings of the same engines
  vivavoce bench --turns 0 --barge-ins 0 --sessions 1 4 8    what sessions cost
"""

TURNS_MAX = 500
SESSIONS_MAX = 500
SECONDS_MAX = 3_600


def add_bench(commands: Any) -> None:
    """`bench`."""
    bench: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="how soon an endpoint answers",
        description="Measure how soon a Realtime endpoint answers, how soon it falls silent, and what sessions cost.",
        epilog=MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.add_argument("sources", nargs="*", type=Path, metavar="FILE|FOLDER", help="WAV files to say")
    add_where(bench)
    bench.add_argument("--config", type=Path, metavar="FILE.toml", help="settings of the server that is started")
    other = bench.add_argument_group("a second endpoint, interleaved with the first")
    other.add_argument("--against", metavar="URL|FILE.toml", help="another endpoint, or settings for a second server")
    other.add_argument("--against-model", metavar="MODEL", help="model to ask it for, or pipeline to start it with")
    other.add_argument("--against-api-key", metavar="KEY", help="its key (default: that of the environment)")
    other.add_argument("--against-dialect", choices=("ga", "beta"), help="how it speaks (default: by its URL)")
    what = bench.add_argument_group("what is measured")
    what.add_argument("--turns", type=int, default=20, metavar="N", help="turns to count, after a first (default 20)")
    what.add_argument("--barge-ins", type=int, default=5, metavar="N", help="answers to interrupt (default 5)")
    what.add_argument("--sessions", type=int, nargs="+", default=[], metavar="N", help="so many sessions at once")
    what.add_argument("--seconds", type=float, default=60.0, help="how long sessions talk at once (default 60)")
    what.add_argument("--silence-ms", type=int, default=500, help="silence that ends a turn (default 500)")
    what.add_argument("--instructions", metavar="TEXT", help="instructions for the model")
    what.add_argument("--fresh", action="store_true", help="a session for each turn; default: one conversation")
    what.add_argument("--seed", type=int, default=0, help="decides what is said when, and who is first (default 0)")
    told = bench.add_argument_group("what is told")
    told.add_argument("--json", action="store_true", help="print one JSON object; progress goes to standard error")
    told.add_argument("--save", type=Path, metavar="FILE.json", help="save that object")
    told.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the times of all turns")
    bench.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    from .bench import Options, bench

    _check(arguments)
    return asyncio.run(
        bench(
            Options(
                sources=tuple(arguments.sources),
                where=where_of(arguments),
                pipeline=arguments.model if arguments.url is None else None,
                config=arguments.config,
                against=arguments.against,
                against_model=arguments.against_model,
                against_api_key=arguments.against_api_key,
                against_dialect=arguments.against_dialect,
                turns=arguments.turns,
                barge_ins=arguments.barge_ins,
                sessions=tuple(arguments.sessions),
                seconds=arguments.seconds,
                silence_ms=arguments.silence_ms,
                instructions=arguments.instructions,
                is_fresh=arguments.fresh,
                seed=arguments.seed,
                as_json=arguments.json,
                save=arguments.save,
                plot=arguments.plot,
            )
        )
    )


def _check(arguments: argparse.Namespace) -> None:
    """Raises `VivavoceError` for what does not go together, before anything is started."""
    for name, value, most in (
        ("--turns", arguments.turns, TURNS_MAX),
        ("--barge-ins", arguments.barge_ins, TURNS_MAX),
        ("--seconds", arguments.seconds, SECONDS_MAX),
    ):
        if not 0 <= value <= most:
            raise VivavoceError(f"{name}: expected 0 to {most}, not {value:g}")
    if not all(1 <= count <= SESSIONS_MAX for count in arguments.sessions):
        raise VivavoceError(f"--sessions: expected numbers from 1 to {SESSIONS_MAX}")
    if not arguments.turns and not arguments.barge_ins and not arguments.sessions:
        raise VivavoceError("nothing is to be measured: give --turns, --barge-ins or --sessions")
    if arguments.sessions and not arguments.seconds:
        raise VivavoceError("--seconds: expected how long the sessions talk, more than 0")
    if arguments.sessions and (arguments.url is not None or arguments.against is not None):
        raise VivavoceError(
            "--sessions counts the CPU of the server, so it is only for one that the command starts: "
            "leave out --url and --against"
        )
    if arguments.config is not None and arguments.url is not None:
        raise VivavoceError("--config is for a server that the command starts: leave out --url")
    if arguments.plot is not None and arguments.plot.suffix.lower() != ".svg":
        raise VivavoceError(f"--plot {arguments.plot}: plots are SVG; name a file that ends in .svg")
    if arguments.against is None and (arguments.against_model or arguments.against_api_key):
        raise VivavoceError("--against-model and --against-api-key say more about --against, which is missing")
    if arguments.against == "":
        raise VivavoceError("--against is empty; name an endpoint, or a settings file that ends in .toml")
