"""The command line of `vivavoce tape`, apart from what it runs, so that `--help` imports nothing of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_commands(parser: argparse.ArgumentParser) -> None:
    """The commands of `vivavoce tape`."""
    commands = parser.add_subparsers(dest="tape_command", title="commands", metavar="COMMAND", required=True)
    show = _command(commands, "show", "a timeline, and what each answer took")
    show.add_argument("--json", action="store_true", help="one JSON object a line")
    replay = _command(commands, "replay", "play one end of the tape again")
    replay.add_argument("--as", dest="plays", choices=("server", "client"), required=True, help="the end to play")
    replay.add_argument("--port", type=int, default=0, help="as server: port of this machine (default any free one)")
    replay.add_argument("--url", help="as client: the endpoint to call")
    replay.add_argument("--api-key", metavar="KEY", help="as client: its key")
    replay.add_argument(
        "--pace", type=float, default=1.0, help="1 keeps the pauses of the tape (default), 0 leaves them out"
    )
    test = _command(commands, "to-test", "write a pytest file that replays the tape")
    test.add_argument("--plays", choices=("client", "server"), default="client", help="the end the tape plays")
    test.add_argument("-o", "--out", type=Path, metavar="FILE.py", help="where to (default: standard output)")
    sound = _command(commands, "sound", "a stereo WAV file, the user left, the assistant right")
    sound.add_argument("-o", "--out", type=Path, metavar="FILE.wav", help="where to (default: the tape's name)")
    redact = _command(commands, "redact", "write the tape again, with less in it")
    redact.add_argument("out", type=Path, metavar="OUT", help="the new tape")
    redact.add_argument("--leave-out", action="append", choices=("audio", "text"), help="default: both; secrets always")


def _command(commands: Any, name: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a tape, NAME.tape.jsonl")
    return parser
