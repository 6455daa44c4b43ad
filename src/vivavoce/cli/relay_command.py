"""The command line of `relay`, apart from what it runs. The key of the service never stands on it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

MORE = """\
the key of the service is OPENAI_API_KEY or AZURE_OPENAI_API_KEY, whichever belongs to its host, or else
VIVAVOCE_RELAY_UPSTREAM_KEY. Every other setting is in the file of --config, or a variable VIVAVOCE_RELAY_NAME.

for example:
  vivavoce relay --upstream https://api.openai.com/v1 --api-key KEY_OF_MY_SERVER
  vivavoce relay --upstream https://NAME.openai.azure.com --api-version 2025-04-01-preview --model my-deployment
  vivavoce relay --upstream http://127.0.0.1:8080/v1 --tools tools.py
"""


def add_relay(commands: Any) -> None:
    """`relay`."""
    relay: argparse.ArgumentParser = commands.add_parser(
        "relay",
        help="stand between clients without a key and a service",
        description="Relay Realtime sessions to a service until Ctrl-C; its key stays here.",
        epilog=MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    relay.add_argument("--upstream", metavar="URL", help="the service: OpenAI, Azure, any Realtime server")
    relay.add_argument("--api-version", metavar="VERSION", help="Azure's preview, for example 2025-04-01-preview")
    relay.add_argument("--dialect", choices=("ga", "beta"), help="what the service speaks (default: what its URL says)")
    relay.add_argument("--model", help="the model of clients that name none")
    relay.add_argument("--host", help="address to bind (default 127.0.0.1)")
    relay.add_argument("--port", type=int, help="port to bind, 0 for any free one (default 8081)")
    relay.add_argument("--api-key", action="append", metavar="KEY", help="accept this key of a client; several times")
    relay.add_argument("--origin", action="append", metavar="ORIGIN", help="web pages that may come; several times")
    relay.add_argument("--tools", type=Path, metavar="FILE.py", help="functions of this file are answered here")
    relay.add_argument("--tapes", type=Path, metavar="DIR", help="record every session into this folder")
    relay.add_argument("--session-log", metavar="FILE|URL", help="keep a record of every session: SQLite or PostgreSQL")
    relay.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="how much is logged")
    relay.add_argument("--log-format", choices=("text", "json"), help="lines of text (default), or of JSON")
    relay.add_argument("--strict", action="store_true", help="what another dialect cannot express is an error")
    relay.add_argument("--config", type=Path, metavar="FILE.toml", help="settings file (or VIVAVOCE_RELAY_CONFIG)")
    relay.set_defaults(run=_relay)


def _relay(arguments: argparse.Namespace) -> int:
    from vivavoce.bridge.relay import relay_settings, serve

    from .own_tools import own_tools

    options = {
        "upstream": arguments.upstream,
        "api_version": arguments.api_version,
        "upstream_dialect": arguments.dialect,
        "model": arguments.model,
        "host": arguments.host,
        "port": arguments.port,
        "api_keys": arguments.api_key,
        "origins": arguments.origin,
        "tapes": None if arguments.tapes is None else str(arguments.tapes),
        "session_log": arguments.session_log,
        "log_level": arguments.log_level,
        "log_format": arguments.log_format,
        "strict": arguments.strict or None,
    }
    settings = relay_settings(config=arguments.config, options=options)
    return serve(settings, tools=() if arguments.tools is None else own_tools(arguments.tools))
