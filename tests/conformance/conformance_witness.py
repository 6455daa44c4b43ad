"""Sees every message of every test: who sent what, and whether the public client's types take it, strictly.

Loaded by `tests/conftest.py`. It stands at the server's codecs and, for tests that talk to a session machine without a
wire, at the playbook and the rehearsal; nothing of the package itself is changed. Each distinct shape of a server's
event is judged once, each test that sends a shape that does not pass fails. What was seen, and by which test, is
`conformance_report`'s to tell: `pytest --conformance=docs/reference/conformance.md` over the whole suite writes it.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest

from vivavoce.protocol import codec, shapes
from vivavoce.protocol import events as ev
from vivavoce.protocol import translation as tr
from vivavoce.protocol.config import RealtimeSession, TranscriptionSession
from vivavoce.protocol.violations import look
from vivavoce.protocol.wire import write

SHAPES_MAX = 50_000
"""Distinct shapes that are remembered; more are judged each time."""
FRAME_CHARS_MAX = 64 * 1024
"""Longer frames of clients are not read again: they are there for their length."""
WORDS = frozenset({"type", "code", "reason", "object", "connector_id"})
"""Fields of plain text whose value counts, because the public types have a few words there."""
BY_HAND = "tests/protocol/"
"""Tests of the codec alone: their events are made by hand, many of them wrong on purpose, and no session said them."""
NOT_IN_BETA = (b'"mcp_', b'"input_image"')
"""What no beta session holds, and a machine that is asked without a wire may."""

Key = tuple[str, ...]


# --- shapes -----------------------------------------------------------------------------------------------------------


def shape(value: Any, is_word: bool = False) -> Hashable:
    """What an event has: its fields with their types, and the values of those that have a few words only."""
    kind = type(value)
    if kind in (str, bytes, int, float, bool) or value is None:
        return value if is_word else kind
    if kind in (tuple, list):
        return (list, frozenset([shape(entry, is_word) for entry in value]))
    plan = _plan(kind)
    return kind if plan is None else (kind, *[shape(getattr(value, name), word) for name, word in plan])


@cache
def _plan(kind: type) -> tuple[tuple[str, bool], ...] | None:
    if not issubclass(kind, msgspec.Struct):
        return None
    return tuple(
        (field.name, name in WORDS or any(get_origin(part) is Literal for part in _members(field.type)))
        for name, field in shapes.fields(kind).items()
    )


def _members(kind: Any) -> tuple[Any, ...]:
    return (*shapes.members(kind), *shapes.members(shapes.element(kind)))


# --- the witness ------------------------------------------------------------------------------------------------------


class Witness:
    """What every test has sent and received, told by keys such as `("server", "ga", "response.done")`."""

    def __init__(self) -> None:
        self.best: dict[Key, tuple[Any, ...]] = {}
        """For each key the most telling of the tests that saw it, last in a tuple that ranks it."""
        self._test = ""
        self._seen: dict[Hashable, tuple[frozenset[Key], str]] = {}
        self._of_test: set[Hashable] = set()
        self._keys_of_test: set[Key] = set()
        self._faults: dict[str, None] = {}
        self._judges: Any = None

    # --- tests --------------------------------------------------------------------------------------------------------

    @contextmanager
    def during(self, nodeid: str) -> Generator[None]:
        """What is seen meanwhile is this test's."""
        self._test = nodeid
        self._of_test, self._keys_of_test, self._faults = set(), set(), {}
        yield
        name = nodeid.partition("[")[0]
        of_shapes = (self._seen[one][0] for one in self._of_test if one in self._seen)
        keys = self._keys_of_test.union(*of_shapes)
        rest = (len(keys), name)
        for key in keys:
            self.take(key, (rank_of(name, key[0]), *rest))
        self._test = ""

    def take(self, key: Key, rank: tuple[Any, ...]) -> None:
        """A test of this rank shows this key."""
        if key not in self.best or rank < self.best[key]:
            self.best[key] = rank

    def take_faults(self) -> list[str]:
        """Events that the public types do not take, since this was asked last."""
        faults, self._faults = list(self._faults), {}
        return faults

    def note(self, *key: str) -> None:
        """Something that has no shape."""
        if self._test:
            self._keys_of_test.add(key)

    # --- server events ------------------------------------------------------------------------------------------------

    def sent(self, dialect: str, event: Any, frame: bytes | None) -> None:
        """A server's event on its way to the wire."""
        if frame is None or not self._test:
            return
        key = (dialect, shape(event))
        if key not in self._of_test:
            self._see(key, lambda: self._judged(dialect, event, frame))

    def said(self, event: Any) -> None:
        """A server's event that a machine says without a wire: as it would be in either dialect."""
        key = ("machine", shape(event))
        if self._test and key not in self._of_test:
            self._see(key, lambda: self._judged_unwired(event))

    def _see(self, key: Hashable, look_at: Any) -> None:
        if key not in self._seen:
            found = look_at()
            if len(self._seen) < SHAPES_MAX:
                self._seen[key] = found
            else:
                self._keys_of_test |= found[0]
                self._accuse(found[1])
                return
        self._of_test.add(key)
        self._accuse(self._seen[key][1])

    def _accuse(self, fault: str) -> None:
        if fault and not self._test.startswith(BY_HAND):
            self._faults[fault] = None

    def _judged(self, dialect: str, event: Any, frame: bytes) -> tuple[frozenset[Key], str]:
        if dialect == "overview":
            return frozenset(codes_of(dialect, event)), ""
        from conformance_oracle import Oracle

        self._judges = self._judges or Oracle()
        fault = self._judges.fault(dialect, frame)
        keys = self._judges.keys(dialect, msgspec.json.decode(frame))
        return frozenset((*keys, *codes_of(dialect, event))), fault

    def _judged_unwired(self, event: Any) -> tuple[frozenset[Key], str]:
        keys, faults = set(), []
        for dialect in ("translation",) if isinstance(event, TRANSLATION_ALONE) else ("ga", "beta"):
            made = codec.TranslationServerCodec() if dialect == "translation" else codec.ServerCodec(dialect)
            frame = ENCODE[type(made)](made, event)
            if frame is not None and not (dialect == "beta" and any(word in frame for word in NOT_IN_BETA)):
                found, fault = self._judged(dialect, event, frame)
                keys |= found if dialect != "beta" else set()
                faults += [fault] if fault else []
        return frozenset(keys), "\n".join(faults)

    # --- client events ------------------------------------------------------------------------------------------------

    def heard(self, column: str, frame: str | bytes, event: Any) -> None:
        """A client's frame, and what the server's codec made of it."""
        if not self._test or isinstance(frame, bytes):
            return
        dialect = column.partition(" ")[0]
        if isinstance(event, ev.ErrorDetail):
            self._refused(dialect, frame, event)
        elif isinstance(event, (ev.InputAudioBufferAppend, tr.SessionInputAudioBufferAppend)):
            with_id = ["event_id"] if isinstance(event.event_id, str) else []
            if dialect != "overview":
                self._keys_of_test |= {
                    ("client", column, event.type),
                    *(("client field", dialect, event.type, path) for path in ("type", "audio", *with_id)),
                }
        elif len(frame) <= FRAME_CHARS_MAX and dialect != "overview":
            self._keys_of_test |= fields_of(column, msgspec.json.decode(frame))

    def told(self, column: str, event: Any) -> None:
        """A client's event that a test says to a machine without a wire."""
        if isinstance(event, ev.ErrorDetail) or not self._test:
            return
        key = (column, shape(event))
        if key not in self._of_test:
            self._see(key, lambda: (frozenset(fields_of(column, msgspec.json.decode(write(event)))), ""))

    def _refused(self, dialect: str, frame: str, error: ev.ErrorDetail) -> None:
        self._keys_of_test.add(("error", dialect, str(error.code)))
        name = look(frame, ("type",)) if error.param else None
        if isinstance(name, str):
            from conformance_paths import without_indices

            self._keys_of_test.add(("violated", dialect, name, without_indices(str(error.param))))


TRANSLATION_ALONE = tuple(set(get_args(tr.TranslationServerEvent)) - {ev.ErrorEvent})
ENCODE = {one: one.encode for one in (codec.ServerCodec, codec.TranslationServerCodec)}


def rank_of(name: str, kind: str) -> int:
    """The lower, the more a test's name says about a rule. What a client says may come from the tests of the codec."""
    if name.startswith(BY_HAND) and kind in ("client", "client field", "violated"):
        return RANKING.index(BEFORE_BY_HAND)
    return next((rank for rank, start in enumerate(RANKING) if name.startswith(start)), len(RANKING))


BEFORE_BY_HAND = "tests/transports/"
RANKING = (
    "tests/core/test_rules_of_",
    "tests/core/test_golden_traces",
    "tests/core/test_translating",
    "tests/server/test_handshakes",
    "tests/core/test_review_",
    "tests/core/test_out_of_band",
    "tests/server/",
    "tests/conformance/test_",
    "tests/transports/",
    "tests/cli/",
    "tests/client/",
    "tests/testing/",
    "tests/core/",
    "tests/simulation/",
    "tests/e2e/",
    "tests/interop/",
    BY_HAND,
)


def fields_of(column: str, event: dict[str, Any]) -> set[Key]:
    """The keys of a client's event."""
    from conformance_rows import CLIENT_STRUCTS, paths

    dialect, name = column.partition(" ")[0], event["type"]
    struct = CLIENT_STRUCTS[dialect].get(name)
    if struct is None:
        return set()
    return {("client", column, name), *(("client field", dialect, name, path) for path in paths(struct, event))}


def codes_of(dialect: str, event: Any) -> set[Key]:
    """The error codes that a server's event tells."""
    if isinstance(event, ev.ErrorEvent):
        return {("error", dialect, str(event.error.code))}
    if isinstance(event, ev.ConversationItemInputAudioTranscriptionFailed):
        return {("error of a transcription", dialect, str(event.error.code))}
    if isinstance(event, ev.ResponseDone):
        details = event.response.status_details
        error = getattr(details, "error", None)
        return {("error of a response", dialect, str(error.code))} if isinstance(error, msgspec.Struct) else set()
    return set()


# --- where it stands --------------------------------------------------------------------------------------------------


def stand_at_the_codecs(witness: Witness) -> None:
    """Have the witness see what passes them."""
    of_session = codec.ServerCodec
    init, encode, decode = of_session.__init__, of_session.encode, of_session.decode

    def made(self: Any, dialect: codec.ServerDialect = "ga", *, playback: bool = False) -> None:
        init(self, dialect, playback=playback)
        self.witnessed, self.column = dialect, f"{dialect} playback" if playback else dialect

    def said(self: Any, event: Any) -> bytes | None:
        frame = encode(self, event)
        if isinstance(event, ev.SessionCreated) and isinstance(event.session, TranscriptionSession):
            self.column = f"{self.witnessed} transcription"
        witness.sent(self.witnessed, event, frame)
        return frame

    def heard(self: Any, frame: str | bytes) -> Any:
        event = decode(self, frame)
        witness.heard(self.column, frame, event)
        return event

    of_session.__init__, of_session.encode, of_session.decode = made, said, heard  # type: ignore[method-assign]
    of_translation = codec.TranslationServerCodec
    write_translation, read_translation = of_translation.encode, of_translation.decode

    def said_in_translation(self: Any, event: Any) -> bytes:
        frame = write_translation(self, event)
        witness.sent("translation", event, frame)
        return frame

    def heard_in_translation(self: Any, frame: str | bytes) -> Any:
        event = read_translation(self, frame)
        witness.heard("translation", frame, event)
        return event

    of_translation.encode, of_translation.decode = said_in_translation, heard_in_translation  # type: ignore[method-assign]


def stand_at_the_machines(witness: Witness) -> None:
    """Have the witness see what machines hear and say where there is no codec; a replay has one."""
    from vivavoce.testing import playbook, rehearsal, traces

    played = playbook.Playbook.__init__
    rehearsed = rehearsal.Rehearsal.__init__
    replayed = traces.replay
    has_wire = [False]

    def play(self: Any, machine: Any, *rest: Any, **more: Any) -> None:
        played(self, machine, *rest, **more)
        overhear(machine)

    def rehearse(self: Any, machine: Any, *rest: Any, **more: Any) -> None:
        rehearsed(self, machine, *rest, **more)
        if not has_wire[0]:
            overhear(machine)

    def replay(*given: Any, **more: Any) -> Any:
        has_wire[0] = True
        try:
            return replayed(*given, **more)
        finally:
            has_wire[0] = False

    def overhear(machine: Any) -> None:
        if hasattr(machine, "overheard") or type(machine).__name__ not in ("Session", "Translating"):
            return
        handle, column = machine.handle, column_of(machine)

        def overheard(input: Any, now_ms: int) -> Any:
            if isinstance(input, ev.ClientEvent):
                witness.told(column, input)
            effects = handle(input, now_ms)
            for effect in effects:
                if type(effect).__name__ == "Send":
                    witness.said(effect.event)
            return effects

        machine.handle, machine.overheard = overheard, True

    playbook.Playbook.__init__, rehearsal.Rehearsal.__init__ = play, rehearse  # type: ignore[method-assign]
    traces.replay = replay


def column_of(machine: Any) -> str:
    """Which kind of session a machine is."""
    if type(machine).__name__ == "Translating":
        return "translation"
    if not isinstance(machine.config, RealtimeSession):
        return "ga transcription"
    return "ga" if machine._given.player is None else "ga playback"


# --- pytest -----------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--conformance", metavar="FILE", help="write the conformance report; needs the whole suite")


class Plugin:
    """The witness, as pytest calls it."""

    def __init__(self) -> None:
        self.witness = Witness()
        self._missing: list[str] = []
        stand_at_the_codecs(self.witness)
        stand_at_the_machines(self.witness)

    def pytest_collection_finish(self) -> None:
        """The types are seconds of imports, which must not fall into the first answer of a server that is tested."""
        import conformance_oracle  # noqa: F401 - for later

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        with self.witness.during(item.nodeid):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        report = yield
        faults = self.witness.take_faults()
        if faults and report.passed:
            report.outcome = "failed"
            report.longrepr = "The public types do not take what was sent:\n" + "\n".join(faults)
        return report

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """With `-n` tests run in processes of their own (pytest-xdist): what one of them has seen."""
        for key, rank in getattr(node, "workeroutput", {}).get("conformance", ()):
            self.witness.take(tuple(key), tuple(rank))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        config = session.config
        if hasattr(config, "workeroutput"):
            config.workeroutput["conformance"] = [(list(key), list(rank)) for key, rank in self.witness.best.items()]
            return
        target = config.getoption("--conformance")
        if not target and not is_whole(config):
            return
        if session.shouldstop or session.shouldfail or config.getoption("collectonly"):
            return
        from conformance_report import missing, report

        self._missing = missing(self.witness.best)
        if target:
            Path(target).write_text(report(self.witness.best), "utf-8")
        if self._missing:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._missing:
            terminalreporter.section(f"conformance: {len(self._missing)} rows without a test")
            for row in self._missing:
                terminalreporter.line(row)


def is_whole(config: pytest.Config) -> bool:
    """Whether all tests run that there are."""
    narrowed = any(config.getoption(name, None) for name in ("keyword", "markexpr", "deselect", "lf", "stepwise"))
    return config.args_source is not pytest.Config.ArgsSource.ARGS and not narrowed


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Plugin(), "conformance")
