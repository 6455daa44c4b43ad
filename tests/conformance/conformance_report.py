"""The conformance report: every row that the reference demands, with a test that holds it; Markdown, without a date.

`missing` names the rows that have no test, which fails a run of the whole suite; `report` writes the page.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import conformance_rows as rows
from conformance_oracle import EXCEPTIONS, SERVER_MODELS
from conformance_paths import without_kinds
from conformance_witness import BY_HAND

TESTS = Path(__file__).parent.parent
TITLES = {
    "ga": "GA",
    "ga playback": "GA with playback",
    "ga transcription": "GA transcription",
    "beta": "beta",
    "translation": "translation",
}
ALONE = " (codec alone)"
"""Marks a test that has the codec write events made by hand: no session has said this one."""

Best = dict[tuple[str, ...], tuple[Any, ...]]


@dataclass
class Table:
    """One table of the report."""

    title: str
    head: tuple[str, ...]
    about: str = ""
    lines: list[tuple[str, ...]] = field(default_factory=list)
    required: int = 0
    missing: list[str] = field(default_factory=list)

    def count(self, row: str, found: str) -> str:
        """A cell that must have a test."""
        self.required += 1
        if not found:
            self.missing.append(f"{self.title}: {row}")
        return found or "**missing**"

    def text(self) -> str:
        """As Markdown."""
        body = [f"### {self.title}", ""] + ([self.about, ""] if self.about else [])
        body += [_line(self.head), _line("---" for _ in self.head), *map(_line, self.lines)]
        return "\n".join(body)


def _line(cells: Iterable[str]) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


class Evidence:
    """What the witness saw, as cells."""

    def __init__(self, best: Best) -> None:
        self._best = best

    def test(self, *key: str) -> str:
        """The test that shows this; "" where none does."""
        rank = self._best.get(key)
        return "" if rank is None else _named(str(rank[-1]))

    def of_session(self, *key: str) -> str:
        """Likewise, of something that a session must have said."""
        found = self.test(*key)
        return found + ALONE if f"tests/{found[1:]}".startswith(BY_HAND) else found

    def keys(self, kind: str) -> Iterator[tuple[str, ...]]:
        """All that was seen of a kind."""
        yield from sorted(key for key in self._best if key[0] == kind)


def _named(test: str) -> str:
    return f"`{test.removeprefix('tests/')}`"


# --- the tables -------------------------------------------------------------------------------------------------------


def client_events(seen: Evidence) -> list[Table]:
    """Which test sends each client event on each kind of connection."""
    found = []
    for column in rows.COLUMNS:
        table = Table(f"Client events: {TITLES[column]}", ("event", "test that sends it"))
        names = rows.CLIENT_STRUCTS[column.partition(" ")[0]]
        for name in names:
            why = rows.NOT_IN_COLUMN.get((column, name))
            test = f"– {why}" if why else table.count(name, seen.test("client", column, name))
            table.lines.append((f"`{name}`", test))
        found.append(table)
    return found


def client_fields(seen: Evidence) -> list[Table]:
    """Which test sends each field, and which sends it wrong."""
    found = []
    for dialect in rows.DIALECTS:
        table = Table(
            f"Fields of client events: {TITLES[dialect]}", ("event", "field", "test that sends it", "wrong in")
        )
        for name, path in rows.client_fields(dialect):
            sent = table.count(f"{name} {path}", seen.test("client field", dialect, name, path))
            why = rows.any_value(dialect, name, path)
            wrong = f"– {why}" if why else _wrong(table, seen, dialect, name, path)
            table.lines.append((f"`{name}`", f"`{path}`", sent, wrong))
        found.append(table)
    return found


def _wrong(table: Table, seen: Evidence, dialect: str, name: str, path: str) -> str:
    test = seen.test("violated", dialect, name, without_kinds(path))
    return table.count(f"{name} {path} (wrong)", test)


def server_events(seen: Evidence) -> list[Table]:
    """Which test was sent each server event."""
    found = []
    for dialect in rows.DIALECTS:
        table = Table(f"Server events: {TITLES[dialect]}", ("event", "test that is sent it"))
        for name in sorted(SERVER_MODELS[dialect].keys() - rows.TELEPHONY):
            why = rows.unsaid(dialect, name, "")
            test = f"– {why}" if why else table.count(name, _said(seen, "server", dialect, name))
            table.lines.append((f"`{name}`", test))
        found.append(table)
    return found


def _said(seen: Evidence, *key: str) -> str:
    """A test in which a session says it; the codec alone counts where that is all there can be."""
    found = seen.of_session(*key)
    why = rows.codec_alone(key[1], key[2], "" if key[0] == "server" else key[3])
    if not found.endswith(ALONE):
        return found
    return f"{found}: {why}" if why else ""


def server_fields(seen: Evidence) -> list[Table]:
    """Which test was sent each field; what several events carry is told once, as `session`, `response` and `item`."""
    found = []
    for dialect in rows.DIALECTS:
        table = Table(f"Fields of server events: {TITLES[dialect]}", ("event or resource", "field", "test"))
        for name, path in (*rows.server_fields(dialect), *rows.beyond_types(dialect)):
            why = rows.unsaid(dialect, name, path)
            test = (
                f"– {why}" if why else table.count(f"{name} {path}", _said(seen, "server field", dialect, name, path))
            )
            table.lines.append((f"`{name}`", f"`{path}`", test))
        found.append(table)
    return found


def error_codes(seen: Evidence) -> list[Table]:
    """Which test is told each code."""
    kinds = (
        ("Error codes: for every event (§3.2)", "error", rows.GENERIC_CODES),
        ("Error codes: of one event, or of the session (§3.2)", "error", rows.DOMAIN_CODES),
        ("Error codes: of responses (§4.3)", "error of a response", rows.RESPONSE_CODES),
    )
    found, known = [], {*rows.GENERIC_CODES, *rows.DOMAIN_CODES, *rows.RESPONSE_CODES}
    for title, kind, codes in kinds:
        table = Table(title, ("code", "test in GA", "test in beta"))
        for code in codes:
            ga = table.count(code, seen.test(kind, "ga", code))
            table.lines.append((f"`{code}`", ga, seen.test(kind, "beta", code) or "–"))
        found.append(table)
    own = Table("Error codes that the reference does not have", ("where", "code", "test"))
    for kind in ("error", "error of a response", "error of a transcription"):
        codes = ({key[2] for key in seen.keys(kind)} - known) & ours()
        for code in sorted(codes):
            tests = (seen.of_session(kind, one, code) for one in ("ga", "translation", "beta", "overview"))
            test = next(filter(None, tests), "")
            if test and not test.endswith(ALONE):
                own.lines.append((kind, f"`{code}`", test))
    return [*found, own]


def ours() -> set[str]:
    """Every text that stands in the package: codes that only tests and scripted engines say are not among them."""
    package = TESTS.parent / "src" / "vivavoce"
    told = [path for path in package.rglob("*.py") if path.parent.name != "testing" and path.stem != "scripted"]
    trees = (ast.parse(path.read_text("utf-8")) for path in told)
    nodes = (node for tree in trees for node in ast.walk(tree))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def close_codes() -> Table:
    """Which test sees each close code."""
    table = Table("Close codes (§1.7)", ("code", "when", "test"))
    for code, (when, test) in rows.CLOSE_CODES.items():
        table.lines.append((str(code), when, table.count(str(code), _named(test) if exists(test) else "")))
    return table


def traces() -> Table:
    """The dialogues of the reference, with their golden files."""
    table = Table("Traces (§4.4)", ("trace", "golden traces in `tests/traces/`", "test"))
    for name, title in rows.TRACES.items():
        files = sorted(
            str(path.relative_to(TESTS / "traces")) for path in (TESTS / "traces").rglob(f"t{int(name[1:]):02}_*.jsonl")
        )
        test = rows.TRACE_TESTS.get(name, rows.GOLDEN)
        listed = ", ".join(f"`{file}`" for file in files)
        table.lines.append((f"{name} {title}", table.count(name, listed), _named(test)))
    return table


def clients() -> Table:
    """The public clients that hold conversations with the server."""
    table = Table("Public clients", ("client", "version", "conversations", "test"))
    for client, version, conversations, test in rows.clients():
        table.lines.append((client, version, conversations, table.count(client, _named(test) if exists(test) else "")))
    return table


def exists(test: str) -> bool:
    """Whether there is a test of this name: `tests/core/test_x.py::test_y`, or its class."""
    file, _, name = test.partition("::")
    path = TESTS.parent / file
    if not path.is_file():
        return False
    source, last = path.read_text("utf-8"), name.split("::")[-1]
    return f"def {last}(" in source or ("::" in name and f"{name.split('::')[0]} = " in source)


# --- the page ---------------------------------------------------------------------------------------------------------

ABOUT = """# Conformance

Every client event, server event, field, error code and trace of the Realtime API's reference, each with a test that
holds it. The paragraph signs refer to the project's reference of the protocol. This page is written by
`pytest --conformance=docs/reference/conformance.md`, a run of the whole suite, from what its tests have seen on the
wire; a run in which a row has no test fails.

Every server event that a session sends in any test is judged by the types of the public `openai` package, strictly: a
field that they do not know, a value that they do not list or a field that is missing fails the test that sent it. What
is excepted stands at the end. The rows of client events come from the schema that the server reads them with, which the
tests hold against the same types field by field; those of server events come from the types themselves.

Not here, because it needs a telephone: SIP, that is the call control over REST, DTMF (trace T19 and the event
`input_audio_buffer.dtmf_event_received`, which the codec knows). What belongs to servers that play what they say
(`output_audio_buffer.*`, trace T8) is held with a player at the server, without a WebRTC transport.

Braces name the kind of an object where several may stand in a place: `item{message/user}.content`. Tests are named
without their parameters, from the folder `tests/`.
"""


def tables(best: Best) -> list[tuple[str, list[Table]]]:
    """The chapters."""
    seen = Evidence(best)
    return [
        ("Client events", client_events(seen)),
        ("Fields of client events", client_fields(seen)),
        ("Server events", server_events(seen)),
        ("Fields of server events", server_fields(seen)),
        ("Error codes", error_codes(seen)),
        ("Close codes", [close_codes()]),
        ("Traces", [traces()]),
        ("Public clients", [clients()]),
    ]


def missing(best: Best) -> list[str]:
    """The rows without a test."""
    return [row for _, chapter in tables(best) for table in chapter for row in table.missing]


def report(best: Best) -> str:
    """The page."""
    chapters = tables(best)
    score = Table("Score", ("", "held", "of", "of these by the codec alone", "left out, with the reason"))
    for table in (table for _, chapter in chapters for table in chapter if table.required):
        cells = [cell for line in table.lines for cell in line]
        alone, left_out = sum(ALONE in cell for cell in cells), sum(cell.startswith("– ") for cell in cells)
        held = table.required - len(table.missing)
        score.lines.append((table.title, *map(str, (held, table.required, alone, left_out))))
    text = [ABOUT, score.text().replace("### ", "## ", 1)]
    for title, chapter in chapters:
        text += [f"## {title}", *(table.text() for table in chapter)]
    text.append(exceptions().text().replace("### ", "## ", 1))
    return "\n\n".join(part.strip() for part in text) + "\n"


def exceptions() -> Table:
    """Where the types and the reference differ."""
    kinds = {
        "field": "sent, unknown to the types",
        "event": "sent, unknown to the types",
        "absent": "not sent, required by the types",
        "open": "more values than the types list",
    }
    table = Table("Exceptions from the public types", ("dialect", "what", "place", "why"))
    table.lines = [(TITLES[one.dialect], kinds[one.kind], f"`{one.place}`", one.why) for one in EXCEPTIONS]
    retired = [("GA", "error code not used", f"`{code}`", why) for code, why in rows.RETIRED_CODES.items()]
    table.lines += retired
    return table
