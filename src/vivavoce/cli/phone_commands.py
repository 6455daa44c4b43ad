"""The command line of `vivavoce phone`, apart from what it runs, so that `--help` imports nothing of it."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path
from typing import Any

from vivavoce.errors import VivavoceError

from .where import ANY_MODEL, EMBEDDED, where_of

MORE = """\
environment:
  TWILIO_AUTH_TOKEN      by which requests are known to be Twilio's, and needed unless --unchecked or --simulate
  TWILIO_ACCOUNT_SID     for --call
  TWILIO_PHONE_NUMBER    for --call, who is shown as calling

for example:
  vivavoce phone --simulate question.wav                             a call without a telephone
  vivavoce phone --upstream http://127.0.0.1:8080/v1 --public-url https://phone.example.org
  vivavoce phone --public-url https://phone.example.org --call +15551234567 --greeting "Say who you are."
"""


def add_phone(commands: Any) -> None:
    """`phone`."""
    phone: argparse.ArgumentParser = commands.add_parser(
        "phone",
        help="answer and place phone calls by Twilio",
        description="Answer the calls of a Twilio number: each is a session with any Realtime endpoint. "
        "Without --upstream the embedded engines answer.",
        epilog=MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    phone.add_argument(
        "--upstream", "--url", dest="url", metavar="URL", help="endpoint, for example http://127.0.0.1:8080/v1"
    )
    phone.add_argument("--model", help=f"model to ask for (default {ANY_MODEL}; without --upstream {EMBEDDED})")
    phone.add_argument("--api-key", metavar="KEY", help="key (default: that of the environment for this host)")
    phone.add_argument("--dialect", choices=("ga", "beta"), help="how the endpoint speaks (default: by its URL)")
    phone.add_argument("--instructions", metavar="TEXT", help="instructions for the model")
    phone.add_argument("--voice", help="voice of the answers")
    phone.add_argument("--greeting", metavar="TEXT", help="instructions for a first answer, before the caller speaks")
    phone.add_argument(
        "--format", choices=("pcmu", "pcma", "pcm"), default="pcmu", help="what the endpoint speaks (default pcmu)"
    )
    where = phone.add_argument_group("where Twilio finds it")
    where.add_argument(
        "--host", default="127.0.0.1", help="address to bind (default 127.0.0.1, behind a tunnel or proxy)"
    )
    where.add_argument("--port", type=int, default=8081, help="port to bind, 0 for any free one (default 8081)")
    where.add_argument("--public-url", metavar="URL", help="the same as seen from outside, https://HOST with its path")
    where.add_argument("--calls-max", type=int, default=100, metavar="N", help="calls at once (default 100)")
    where.add_argument("--unchecked", action="store_true", help="take requests that nobody has signed")
    other = phone.add_argument_group("calls that begin here")
    other.add_argument("--call", metavar="NUMBER", help="call this number, as +15551234567")
    other.add_argument("--from", dest="sender", metavar="NUMBER", help="who calls (default TWILIO_PHONE_NUMBER)")
    other.add_argument(
        "--simulate", type=Path, metavar="FILE", help="hold a call with a simulated phone that says this"
    )
    other.add_argument("--out", type=Path, metavar="FILE.wav", help="with --simulate: what the phone has heard")
    phone.set_defaults(run=_phone)


def _phone(arguments: argparse.Namespace) -> int:
    from .phone import Options, phone

    _check(arguments)
    return asyncio.run(
        phone(
            Options(
                where=where_of(arguments),
                instructions=arguments.instructions,
                voice=arguments.voice,
                greeting=arguments.greeting,
                format=arguments.format,
                host=arguments.host,
                port=arguments.port,
                public_url=arguments.public_url,
                calls_max=arguments.calls_max,
                is_unchecked=arguments.unchecked,
                call=arguments.call,
                sender=arguments.sender or os.environ.get("TWILIO_PHONE_NUMBER"),
                simulate=arguments.simulate,
                out=arguments.out,
            )
        )
    )


def _check(arguments: argparse.Namespace) -> None:
    """Raises `VivavoceError` for what does not go together, before anything is started."""
    if arguments.simulate is not None and arguments.call is not None:
        raise VivavoceError("--simulate and --call: either a simulated phone or a real one")
    if arguments.out is not None and arguments.simulate is None:
        raise VivavoceError("--out saves what a simulated phone has heard; give --simulate FILE")
    if arguments.call is not None and arguments.public_url is None:
        raise VivavoceError("--call: Twilio needs to know where to come back to; give --public-url https://HOST")
    if arguments.call is not None and arguments.unchecked:
        raise VivavoceError("--call takes TWILIO_AUTH_TOKEN anyway; leave out --unchecked")
    if not 1 <= arguments.calls_max <= 10_000:
        raise VivavoceError(f"--calls-max: expected 1 to 10000, not {arguments.calls_max}")
    if not 0 <= arguments.port <= 65_535:
        raise VivavoceError(f"--port: expected 0 to 65535, not {arguments.port}")
