"""`vivavoce sessions`: what runs on a server and what has run, from a terminal, and an end to what should not.

Asks a server over HTTP with the key of an operator. What it prints are words of others, so they give no orders to the
terminal. Invariant: the key is in the request and nowhere else.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from vivavoce.errors import VivavoceError

from .foreign import as_json_line, as_line

DEFAULT_URL = "http://127.0.0.1:8080/v1"
KEY_VARIABLE = "VIVAVOCE_ADMIN_KEY"
PAGE = 500
"""Sessions that are asked for at once."""
TIMEOUT_S = 30.0
"""A session that is closed may take some seconds to end."""
CELL_CHARS_MAX = 40
"""A longer word is cut in the table; `--json` has the whole."""

COLUMNS = (
    "began",
    "id",
    "status",
    "kind",
    "model",
    "age",
    "turns",
    "resp",
    "in",
    "out",
    "cost",
    "latency",
    "key",
    "end",
)

Record = Mapping[str, Any]


def add_sessions(commands: Any) -> None:
    """`sessions list`, `sessions show`, `sessions close`."""
    command: argparse.ArgumentParser = commands.add_parser(
        "sessions",
        help="list and close the sessions of a server",
        description="See and close the sessions of a server, as its operator.",
    )
    what = command.add_subparsers(dest="what", required=True, metavar="WHAT")
    listing = what.add_parser("list", help="those that live, or with --status those of the log")
    listing.add_argument("--status", choices=("live", "ended", "interrupted", "all"), default="live")
    listing.add_argument("--since", metavar="TIME", help="begun then or later: 2026-01-31T12:00Z, or unix seconds")
    listing.add_argument("--key", metavar="ID", help="begun with the key of this id, as the list shows it")
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (default 50)")
    show = what.add_parser("show", help="everything about one")
    close = what.add_parser("close", help="end one now; its client is told")
    for one in (show, close):
        one.add_argument("id", help="the session's id, sess_…")
    for one in (listing, show, close):
        one.add_argument("--url", default=DEFAULT_URL, help=f"the server (default {DEFAULT_URL})")
        one.add_argument("--admin-key", metavar="KEY", help=f"key of an operator (default: {KEY_VARIABLE})")
        one.add_argument("--json", action="store_true", help="one JSON object a line")
    command.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    server = _Server(arguments.url, arguments.admin_key or os.environ.get(KEY_VARIABLE))
    if arguments.what == "list":
        _print_list(server.listed(arguments), as_json=arguments.json)
        return 0
    method = "DELETE" if arguments.what == "close" else "GET"
    record = server.ask(method, f"/{quote(arguments.id, safe='')}")
    if arguments.json:
        print(as_json_line(json.dumps(record, ensure_ascii=False)))
    elif method == "GET":
        width = max(map(len, record))
        print("\n".join(f"{name:<{width}}  {_cell(value)}" for name, value in record.items() if value is not None))
    elif record["status"] == "live":
        print(f"{as_line(record['id'])} is being closed")
    else:
        print(f"closed {as_line(record['id'])} after {_duration(record['age_s'])}")
    return 0


class _Server:
    """The endpoint for operators of one server."""

    def __init__(self, url: str, key: str | None) -> None:
        web = url.replace("ws", "http", 1) if url.startswith("ws") else url
        self._base = f"{web.rstrip('/').removesuffix('/realtime')}/realtime/sessions"
        key = (key or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise VivavoceError(f"the admin key (--admin-key or {KEY_VARIABLE}) has characters that no key has")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def ask(self, method: str, path: str = "", query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The body of the answer. Raises `VivavoceError`, in the server's words where it has some."""
        import httpx

        try:
            answer = httpx.request(
                method,
                self._base + path,
                params=query,
                headers=self._headers,
                timeout=TIMEOUT_S,
                follow_redirects=False,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise VivavoceError(f"{self._base} cannot be reached: {error}") from None
        try:
            body = answer.json()
        except ValueError:
            raise VivavoceError(f"{self._base} answers {answer.status_code}, and not as a vivavoce server") from None
        if not answer.is_success or not isinstance(body, dict):
            said = body.get("error", {}) if isinstance(body, dict) else {}
            raise VivavoceError(str(said.get("message") or f"{self._base} answers {answer.status_code}"))
        return body

    def listed(self, arguments: argparse.Namespace) -> list[Record]:
        """As many as are wanted, page after page."""
        asked = {"status": arguments.status, "since": arguments.since, "key": arguments.key}
        query = {name: value for name, value in asked.items() if value is not None}
        found: list[Record] = []
        while len(found) < arguments.limit:
            page = self.ask("GET", query={**query, "limit": str(min(PAGE, arguments.limit - len(found)))})
            found += page["data"]
            if not page["has_more"] or not page["data"]:
                break
            query["after"] = page["last_id"]
        return found


def _print_list(records: Sequence[Record], *, as_json: bool) -> None:
    if as_json:
        for record in records:
            print(as_json_line(json.dumps(record, ensure_ascii=False)))
        return
    rows = [COLUMNS, *(tuple(_cells(record)) for record in records)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _cells(record: Record) -> Iterator[str]:
    yield datetime.fromtimestamp(record["began_at"], UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    yield from (_cell(record[name]) for name in ("id", "status", "kind", "model"))
    yield _duration(record["age_s"])
    yield from (_cell(record[name]) for name in ("turns", "responses", "input_tokens", "output_tokens"))
    yield "" if record["cost"] is None else f"{record['cost']:.4f}"
    latency = record["latency_median_ms"]
    yield "" if latency is None else f"{latency:.0f} ms"
    yield _cell(record["key"])
    yield _cell(record["reason"])


def _cell(value: object) -> str:
    text = "" if value is None else as_line(str(value))
    return text if len(text) <= CELL_CHARS_MAX else f"{text[: CELL_CHARS_MAX - 1]}…"


def _duration(seconds: float) -> str:
    """As a person would say it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
