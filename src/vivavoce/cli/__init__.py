"""The `vivavoce` command: `serve`, `talk`, `demo`.

Reads the command line and hands over; what a command needs is imported only when it runs, so that `--help` is quick and
a base install says clearly which extra is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from vivavoce.errors import VivavoceError

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 0 when it did what it was asked."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except VivavoceError as error:
        print(f"vivavoce: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("vivavoce"):
            raise
        extra = "local" if arguments.command == "demo" else "server"
        print(f'vivavoce: {error.name} is missing; pip install "vivavoce[{extra}]"', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vivavoce", description="The Realtime API from both ends: talk to any endpoint, or serve it yourself."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_talk(commands)
    _add_demo(commands)
    return parser


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser("serve", help="run the server", description="Serve the Realtime API.")
    serve.add_argument("--host", help="address to bind; another than loopback needs keys (default 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to bind, 0 for any free one (default 8080)")
    serve.add_argument("--model", metavar="PIPELINE", help="the default pipeline: local, scripted, or one of --config")
    serve.add_argument("--api-key", action="append", metavar="KEY", help="accept this key; may be given several times")
    serve.add_argument("--config", type=Path, metavar="FILE.toml", help="settings file")
    serve.set_defaults(run=_serve)


def _add_talk(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    talk = commands.add_parser(
        "talk",
        help="hold one turn with any endpoint",
        description="Hold one turn for each file, or one written turn. Without --url the embedded engines answer.",
    )
    talk.add_argument("files", nargs="*", type=Path, metavar="FILE.wav", help="what to say; any PCM WAV")
    talk.add_argument("--text", help="write instead of speaking")
    talk.add_argument(
        "--url", help="ws://, wss://, http:// or https:// of the endpoint, for example http://host:8080/v1"
    )
    talk.add_argument("--model", default="local", help="model to ask for (default local)")
    talk.add_argument("--api-key", help="key (default: OPENAI_API_KEY, for OpenAI's own endpoint alone)")
    talk.add_argument("--dialect", choices=("ga", "beta"), default="ga", help="how the endpoint speaks (default ga)")
    talk.add_argument("--instructions", help="instructions for the model")
    talk.add_argument("--voice", help="voice of the answer")
    talk.add_argument("--out", type=Path, default=Path("replies"), help="WAV file or folder (default replies/)")
    talk.add_argument("--paced", action="store_true", help="play the file in real time and let the server find its end")
    talk.add_argument("--json", action="store_true", help="one JSON object a line")
    talk.set_defaults(run=_talk)


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="a spoken conversation with the embedded engines",
        description="Start the server with the embedded engines and hold a spoken conversation with it.",
    )
    demo.add_argument("--out", type=Path, default=Path("demo"), help="folder for the sound files (default demo/)")
    demo.set_defaults(run=_demo)


def _serve(arguments: argparse.Namespace) -> int:
    from vivavoce.server import serve
    from vivavoce.server.settings import load_settings

    settings = load_settings(
        config=arguments.config,
        host=arguments.host,
        port=arguments.port,
        model=arguments.model,
        api_keys=arguments.api_key,
    )
    return serve(settings)


def _talk(arguments: argparse.Namespace) -> int:
    from .talk import Options, talk

    if bool(arguments.files) == (arguments.text is not None):
        raise VivavoceError("talk takes either WAV files or --text")
    options = Options(
        files=tuple(arguments.files),
        text=arguments.text,
        url=arguments.url,
        model=arguments.model,
        api_key=arguments.api_key,
        dialect=arguments.dialect,
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
