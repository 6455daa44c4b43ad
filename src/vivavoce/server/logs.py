"""Log lines that name the session they are about: as text for people, or as JSON for what collects them.

`SESSION` is set by the task in which a session lives, so that whatever logs in it, or in a child of it, is told apart;
of a line that begins with an id, that one counts. Standard `logging`; only `write_logs` says where lines go. Invariant:
nothing is added to what a line says but its session and the record that came along.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from .settings import LogFormat, LogLevel

SESSION: ContextVar[str] = ContextVar("session", default="")
"""The id of the session in whose task, or in a child of it, this is."""

FIELDS = "fields"
"""The name in `extra` of a mapping with more to say of a line: numbers and names, for JSON."""

CHARS_MAX = 16 * 1024
"""A longer message, or traceback, is cut."""

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
"""In text a word of a client, such as its reason for closing, could otherwise look like a line of its own."""
_ABOUT = re.compile(r"(sess_\w+): ")


def write_logs(level: LogLevel, format: LogFormat) -> None:
    """Everything that this process logs goes to stderr, from this level on and in this form."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(JsonLines() if format == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[lines])


class TextLines(logging.Formatter):
    """`time LEVEL logger: session: message`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """One line, without its traceback."""
        session, message = _told(record)
        record.message = (f"{session}: {message}" if session else message).translate(_CONTROLS)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """The traceback, indented: what a peer said stands in it too, and shall not look like a line of ours."""
        lines = super().formatException(ei)[-CHARS_MAX:].split("\n")
        return "\n".join(f"    {line.translate(_CONTROLS)}" for line in lines)


class JsonLines(logging.Formatter):
    """One object a line: `time` (UTC), `level`, `logger`, `message`, `session_id`, `exception`, and what came along."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        session, message = _told(record)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        if session:
            line["session_id"] = session
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-CHARS_MAX:]
        more: Mapping[str, Any] = getattr(record, FIELDS, {})
        return msgspec.json.encode(line | {name: value for name, value in more.items() if name not in line}).decode()


def _told(record: logging.LogRecord) -> tuple[str, str]:
    """Which session a line is about, empty where it is none; and what it says of it."""
    message = record.getMessage()[:CHARS_MAX]
    if (about := _ABOUT.match(message)) is not None:
        return about[1], message[about.end() :]
    return SESSION.get(), message
