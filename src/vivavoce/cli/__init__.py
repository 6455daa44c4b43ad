"""The `vivavoce` command: `serve`, `relay`, `check-config`, `talk`, `chat`, `listen`, `events`, `demo` and others.

Reads the command line and hands over; what a command needs is imported only when it runs, so that `--help` is quick and
a base install says clearly which extra is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vivavoce import __version__
from vivavoce.errors import EngineMissing, SettingsError, VivavoceError

from .bench_commands import add_bench
from .foreign import as_words
from .live_commands import add_live_commands
from .phone_commands import add_phone
from .relay_command import add_relay
from .sessions import add_sessions
from .where import EMBEDDED, add_where, where_of

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""

UNUSABLE = 2
"""The exit code of `check-config` for settings that cannot be used."""

TERMINAL = ("rich", "prompt_toolkit")
"""What the extra `terminal` brings."""

EXAMPLES = """\
for example:
  vivavoce demo                                   a spoken conversation, offline
  vivavoce chat --voice                           talk to the embedded engines
  vivavoce listen meeting.wav                     captions
  vivavoce talk question.wav --url http://127.0.0.1:8080/v1
  vivavoce bench --against https://api.openai.com/v1   how soon, compared
  vivavoce phone --simulate question.wav          a phone call, without a telephone
  vivavoce serve --model scripted                 a server for tests, without models
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 0 when it did what it was asked."""
    _show_what_the_terminal_can()
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        return int(arguments.run(arguments))
    except VivavoceError as error:
        print(f"vivavoce: {as_words(str(error))}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("vivavoce"):
            raise
        print(f'vivavoce: {error.name} is missing; pip install "vivavoce[{_extra(arguments, error)}]"', file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read our output has enough, as `head` does. What is still buffered must not fail again at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _show_what_the_terminal_can() -> None:
    """A console or pipe whose encoding lacks a character gets `?` in its place."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _extra(arguments: argparse.Namespace, missing: ModuleNotFoundError) -> str:
    """The extra of this package that a command needs."""
    if (missing.name or "").partition(".")[0] in TERMINAL:
        return "terminal"
    if missing.name == "psutil":
        return "bench"
    if arguments.command == "demo":
        return "local"
    if arguments.command in ("check-config", "relay", "sessions", "tape"):
        return "server"
    is_elsewhere = arguments.config if arguments.command == "serve" else arguments.url
    return "server" if is_elsewhere or arguments.model not in (None, EMBEDDED) else "local"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vivavoce",
        description="The Realtime API from both ends: talk to any endpoint, or serve it yourself.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vivavoce {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    _add_serve(commands)
    _add_check_config(commands)
    add_relay(commands)
    _add_talk(commands)
    add_live_commands(commands)
    _add_demo(commands)
    _add_tape(commands)
    add_bench(commands)
    add_phone(commands)
    add_sessions(commands)
    return parser


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser("serve", help="run the server", description="Serve the Realtime API until Ctrl-C.")
    serve.add_argument("--host", help="address to bind; another than loopback needs keys (default 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to bind, 0 for any free one (default 8080)")
    serve.add_argument(
        "--model", metavar="PIPELINE", help="what answers: local (default), scripted, or one of --config"
    )
    serve.add_argument("--api-key", action="append", metavar="KEY", help="accept this key; may be given several times")
    serve.add_argument("--config", type=Path, metavar="FILE.toml", help="settings file (default: VIVAVOCE_CONFIG)")
    serve.add_argument("--tapes", type=Path, metavar="DIR", help="record every session into this folder")
    serve.add_argument(
        "--websocket", choices=("uvicorn", "picows"), help="what speaks WebSocket: uvicorn (default), or picows, faster"
    )
    serve.add_argument("--session-log", metavar="FILE|URL", help="keep a record of every session: SQLite or PostgreSQL")
    serve.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="how much is logged")
    serve.add_argument("--log-format", choices=("text", "json"), help="lines of text (default), or of JSON")
    serve.set_defaults(run=_serve)


def _add_check_config(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = commands.add_parser(
        "check-config",
        help="say what settings are in force",
        description="Read settings as serve does; say what is in force and where it comes from, or what is wrong. "
        f"The exit code is 0 where they can be used, {UNUSABLE} where not.",
    )
    check.add_argument("config", nargs="?", type=Path, metavar="FILE.toml", help="default: VIVAVOCE_CONFIG")
    check.set_defaults(run=_check_config)


def _add_talk(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    talk = commands.add_parser(
        "talk",
        help="hold one turn with any endpoint",
        description="Hold one turn for each file, or one written turn. Without --url the embedded engines answer.",
    )
    talk.add_argument("files", nargs="*", type=Path, metavar="FILE.wav", help="what to say; any PCM WAV")
    talk.add_argument("--text", help="write instead of speaking")
    add_where(talk)
    talk.add_argument("--instructions", metavar="TEXT", help="instructions for the model")
    talk.add_argument("--voice", help="voice of the answer")
    talk.add_argument(
        "--out",
        type=Path,
        default=Path("replies"),
        metavar="PATH",
        help="WAV file or folder for the spoken answer (default replies/)",
    )
    talk.add_argument("--paced", action="store_true", help="play the file in real time and let the server find its end")
    talk.add_argument("--json", action="store_true", help="one JSON object a line")
    talk.set_defaults(run=_talk)


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="a spoken conversation with the embedded engines",
        description="Start the server with the embedded engines and hold a spoken conversation with it.",
    )
    demo.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="FOLDER", help="folder for the sound files (default demo/)"
    )
    demo.set_defaults(run=_demo)


def _add_tape(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from .tape_commands import add_commands

    tape = commands.add_parser(
        "tape", help="look at, hear and replay recorded sessions", description="What to do with a recorded session."
    )
    add_commands(tape)
    tape.set_defaults(run=_tape)


def _serve(arguments: argparse.Namespace) -> int:
    from vivavoce.server import serve
    from vivavoce.server.sources import load_settings

    settings = load_settings(
        config=arguments.config,
        host=arguments.host,
        port=arguments.port,
        model=arguments.model,
        api_keys=arguments.api_key,
        tapes=arguments.tapes,
        websocket=arguments.websocket,
        log_level=arguments.log_level,
        log_format=arguments.log_format,
        session_log=arguments.session_log,
    )
    return serve(settings)


def _check_config(arguments: argparse.Namespace) -> int:
    from vivavoce.server.check import checked

    try:
        print(checked(arguments.config))
    except (SettingsError, EngineMissing) as error:
        print(f"vivavoce: {error}", file=sys.stderr)
        return UNUSABLE
    return 0


def _talk(arguments: argparse.Namespace) -> int:
    from .talk import Options, talk

    if bool(arguments.files) == (arguments.text is not None):
        raise VivavoceError(
            'talk takes either WAV files or --text: vivavoce talk question.wav, or talk --text "Hello!"'
        )
    where = where_of(arguments)
    options = Options(
        files=tuple(arguments.files),
        text=arguments.text,
        url=where.url,
        model=where.model,
        api_key=where.api_key,
        dialect=where.dialect,
        instructions=arguments.instructions,
        voice=arguments.voice,
        out=arguments.out,
        is_paced=arguments.paced,
        as_json=arguments.json,
    )
    return asyncio.run(talk(options))


def _demo(arguments: argparse.Namespace) -> int:
    from .demo import demo

    return asyncio.run(demo(arguments.out))


def _tape(arguments: argparse.Namespace) -> int:
    from .tape import run

    return run(arguments)
