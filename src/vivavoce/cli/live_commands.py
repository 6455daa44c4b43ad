"""The command lines of `chat`, `listen` and `events`, apart from what they run: `--help` imports nothing of it."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from vivavoce.errors import VivavoceError

from .where import add_where, where_of

CHAT_MORE = """\
while it runs:
  /help  /voice NAME  /instructions TEXT  /image PATH  /usage  /waterfall  /mute  /reset  /quit
  Ctrl-C interrupts the answer; twice ends. Whoever speaks, or writes a line, interrupts as well.
"""

EVENTS_MORE = """\
lines of standard input:
  {"type": …}                    any client event, sent as it stands
  configure NAME=VALUE … | JSON  change the session: configure voice=marin modality=text
  add [ROLE] TEXT | JSON         add an item; the role is user (default), assistant or system
  audio FILE                     send what is in an audio file
  commit, clear                  the audio that was sent
  request [JSON]                 ask for a response
  stop [RESPONSE_ID]             cancel a response
  remove ITEM_ID                 delete an item
  wait TYPE                      go on with the next line when such an event has come
  raw TEXT                       send any text

exit codes: 0 all went well, 1 no connection or a lost one, 2 a line could not be understood, 3 the server sent an
error, 4 the event of --until or `wait` did not come, 130 Ctrl-C
"""


def add_live_commands(commands: Any) -> None:
    """`chat`, `listen` and `events`."""
    _add_chat(commands)
    _add_listen(commands)
    _add_events(commands)


def _command(commands: Any, name: str, about: str, description: str, more: str = "") -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=description,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_where(command)
    return command


def _add_chat(commands: Any) -> None:
    chat = _command(
        commands,
        "chat",
        "hold a conversation, written or spoken",
        "Hold a conversation, written, or spoken with --voice. Without --url the embedded engines answer.",
        CHAT_MORE,
    )
    chat.add_argument("--voice", nargs="?", const="", metavar="NAME", help="speak and listen; NAME is who answers")
    chat.add_argument("--file", type=Path, metavar="FILE", help="speak what is in this file instead of a microphone")
    chat.add_argument("--microphone", metavar="DEVICE", help="index of a device, or a part of its name")
    chat.add_argument("--loudspeaker", metavar="DEVICE", help="index of a device, or a part of its name")
    chat.add_argument("--headphones", action="store_true", help="nothing that is played gets into the microphone")
    chat.add_argument("--instructions", metavar="TEXT", help="instructions for the model")
    chat.add_argument("--tools", type=Path, metavar="FILE.py", help="functions of this file are the model's to call")
    chat.add_argument("--waterfall", action="store_true", help="after each turn show where its time went")
    chat.add_argument("--tape", type=Path, metavar="FILE", help="record the session")
    chat.set_defaults(run=_chat)


def _add_listen(commands: Any) -> None:
    listen = _command(
        commands,
        "listen",
        "live captions from a microphone or a file",
        "Write down what is said. Without --url the embedded engines listen.",
    )
    listen.add_argument(
        "file", nargs="?", metavar="FILE", help="audio file, - for standard input (else the microphone)"
    )
    listen.add_argument("--microphone", metavar="DEVICE", help="index of a device, or a part of its name")
    listen.add_argument("--language", metavar="CODE", help="what is spoken, for example en")
    listen.add_argument("--raw", type=int, metavar="HZ", help="the file is raw samples: PCM16, mono, at this rate")
    listen.add_argument("--paced", action="store_true", help="play the file in real time")
    how = listen.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="one JSON object a line, partial captions as well")
    how.add_argument("--srt", action="store_true", help="subtitles")
    listen.set_defaults(run=_listen)


def _add_events(commands: Any) -> None:
    events = _command(
        commands,
        "events",
        "a session as lines: events in, events out",
        "Connect once; lines of standard input are sent, events of the server come out as lines of JSON.",
        EVENTS_MORE,
    )
    events.add_argument(
        "--kind", choices=("conversation", "transcription", "translation"), default="conversation", help="of session"
    )
    events.add_argument("--only", action="append", metavar="PATTERN", help="show events of this type, as response.*")
    events.add_argument("--until", metavar="TYPE", help="end when an event of this type (or pattern) has come")
    events.add_argument("--timeout", type=float, metavar="SECONDS", help="for --until, `wait`, and the last answers")
    events.set_defaults(run=_events)


def _chat(arguments: argparse.Namespace) -> int:
    from .chat import Options, chat

    if arguments.file is not None and arguments.microphone is not None:
        raise VivavoceError("either --file or --microphone speaks, not both")
    options = Options(
        where=where_of(arguments),
        is_spoken=arguments.voice is not None or arguments.file is not None,
        voice=arguments.voice or None,
        file=arguments.file,
        microphone=_device(arguments.microphone),
        loudspeaker=_device(arguments.loudspeaker),
        has_headphones=arguments.headphones,
        instructions=arguments.instructions,
        tools=arguments.tools,
        shows_waterfall=arguments.waterfall,
        tape=arguments.tape,
    )
    return asyncio.run(chat(options))


def _listen(arguments: argparse.Namespace) -> int:
    from .listen import Options, listen

    options = Options(
        where=where_of(arguments),
        file=arguments.file,
        microphone=_device(arguments.microphone),
        language=arguments.language,
        raw_hz=arguments.raw,
        is_paced=arguments.paced,
        form="json" if arguments.json else "srt" if arguments.srt else "text",
    )
    return asyncio.run(listen(options))


def _events(arguments: argparse.Namespace) -> int:
    from .events import Options, events

    options = Options(
        where=where_of(arguments),
        kind=arguments.kind,
        only=tuple(arguments.only or ()),
        until=arguments.until,
        timeout_s=arguments.timeout,
    )
    return asyncio.run(events(options))


def _device(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text
