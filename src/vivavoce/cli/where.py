"""Where a command's session is held: at an endpoint, or at a server with the embedded engines in this process.

What the command line says of it, the same for every command that connects; keys that are not given come from the
environment, and go to the host that they belong to alone.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from vivavoce.errors import VivavoceError
from vivavoce.protocol.client_codec import Dialect

EMBEDDED = "local"
"""The pipeline of the embedded engines, which answers where nothing else is said."""

ANY_MODEL = "gpt-realtime"
"""What an endpoint is asked for where nothing else is said: OpenAI has it, and vivavoce serves any name."""


@dataclass(frozen=True, slots=True)
class Where:
    """An endpoint, or None for the embedded engines, and what it is asked for."""

    url: str | None
    model: str
    api_key: str | None = None
    dialect: Dialect | None = None


def add_where(command: argparse.ArgumentParser) -> None:
    """The options of a command that connects."""
    command.add_argument(
        "--url", help="endpoint, with ws://, wss://, http:// or https://, for example http://127.0.0.1:8080/v1"
    )
    command.add_argument("--model", help=f"model to ask for (default {ANY_MODEL}; without --url {EMBEDDED})")
    command.add_argument("--api-key", metavar="KEY", help="key (default: that of the environment for this host)")
    command.add_argument("--dialect", choices=("ga", "beta"), help="how the endpoint speaks (default: by its URL)")


def where_of(arguments: argparse.Namespace) -> Where:
    """What the command line says. Raises `VivavoceError`."""
    if arguments.url == "":
        raise VivavoceError("--url is empty; leave it out for the embedded engines, or name an endpoint")
    model = arguments.model or (EMBEDDED if arguments.url is None else ANY_MODEL)
    return Where(arguments.url, model, arguments.api_key, arguments.dialect)


@asynccontextmanager
async def reached(url: str | None, model: str, *, quiet: bool = False) -> AsyncIterator[str]:
    """The URL that was given, or that of a server with the embedded engines in this process."""
    if url is not None:
        yield url
        return
    from .embedded import embedded

    async with embedded(model, quiet=quiet) as server:
        yield server.url
