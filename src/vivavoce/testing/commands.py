"""The test server for test suites in any language: a process that takes commands as JSON lines.

`python -m vivavoce.testing.real_server` first prints one line with `url`, `websocket_url`, `api_key` and `environment`.
Then each line of its input is a command, `{"do": "cut", "after": "response.created"}`, and answered by one line:
`{"ok": true, "result": …}` or `{"ok": false, "error": "…"}`. It ends when its input does. Commands are the methods of
`RealServer` with their keywords; a fault's result is its number, by which `lift` and `fired` name it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, TextIO

import msgspec

from vivavoce.engines.scripted import ScriptedSettings, ScriptedTurnSettings
from vivavoce.errors import SettingsError

from .faults import Fault
from .real_server import RealServer

__all__ = ["Commands", "main"]

Json = dict[str, Any]


class Commands:
    """The commands of one server."""

    def __init__(self, server: RealServer) -> None:
        self._server = server
        self._faults: list[Fault] = []
        faults = ("refuse", "cut", "stall", "inject", "error", "drop", "duplicate", "expire")
        self._known: Mapping[str, Callable[..., Any]] = {
            **{name: self._declares(getattr(server, name)) for name in faults},
            "answers": lambda texts: server.answers(*_texts(texts)),
            "hears": lambda texts: server.hears(*_texts(texts)),
            "calls": server.calls,
            "behave": self._behave,
            "received": server.received,
            "sent": server.sent,
            "wait_for": server.wait_for,
            "wait_until_closed": server.wait_until_closed,
            "connections": lambda: [asdict(connection) for connection in server.connections],
            "lift": lambda fault: self._fault(fault).lift(),
            "lift_all": server.lift_all,
            "fired": lambda fault: self._fault(fault).fired,
        }

    def answer(self, line: str) -> Json:
        """Do what one line says, and tell what came of it."""
        try:
            command = json.loads(line)
            if not isinstance(command, dict) or not isinstance(command.get("do"), str):
                raise ValueError('a command is a JSON object with the name of what to do: {"do": "answers", …}')
            how = {name: value for name, value in command.items() if name != "do"}
            if command["do"] not in self._known:
                raise ValueError(f"there is no command {command['do']!r}; there is {', '.join(self._known)}")
            return {"ok": True, "result": self._known[command["do"]](**how)}
        except (AssertionError, LookupError, TypeError, ValueError, msgspec.ValidationError) as error:
            return {"ok": False, "error": str(error)}

    def _declares(self, declare: Callable[..., Fault]) -> Callable[..., int]:
        def declared(**how: Any) -> int:
            self._faults.append(declare(**how))
            return len(self._faults) - 1

        return declared

    def _fault(self, number: int) -> Fault:
        if not isinstance(number, int) or not 0 <= number < len(self._faults):
            raise LookupError(f"there is no fault {number!r}; it is the number that its command gave back")
        return self._faults[number]

    def _behave(self, pace: float | None = None, **engines: Any) -> None:
        kinds = {"turn_detector": ScriptedTurnSettings}
        settings = {
            name: msgspec.convert(fields, kinds.get(name, ScriptedSettings)) for name, fields in engines.items()
        }
        self._server.behave(pace=pace, **settings)


def _texts(texts: Any) -> list[str]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("texts: expected a list of strings")
    return texts


def obey(server: RealServer, lines: Iterable[str], out: TextIO) -> None:
    """Say where the server is, and do what the lines say until they end."""
    commands = Commands(server)
    began = {
        "url": server.url,
        "websocket_url": server.websocket_url,
        "api_key": server.api_key,
        "environment": dict(server.environment),
    }
    print(json.dumps(began), file=out, flush=True)
    for line in lines:
        if line.strip():
            print(json.dumps(commands.answer(line)), file=out, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m vivavoce.testing.real_server",
        description="A Realtime server for tests, which takes commands as JSON lines and ends with its input.",
    )
    parser.add_argument(
        "--pace", type=float, default=0.0, help="0: at once (default); 1: as long as a good service takes"
    )
    parser.add_argument("--settings", default="{}", metavar="JSON", help="settings of the server, as in vivavoce.toml")
    asked = parser.parse_args(arguments)
    try:
        with RealServer(pace=asked.pace, settings=json.loads(asked.settings)) as server:
            obey(server, sys.stdin, sys.stdout)
    except (SettingsError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
