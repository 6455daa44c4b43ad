"""The witness, and the report that is kept: no row without a test, no test or trace that there is not."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from conformance_oracle import EXCEPTIONS, Oracle
from conformance_report import exists, missing, report
from conformance_witness import Witness, is_whole, shape

from vivavoce.protocol import events as ev
from vivavoce.protocol import translation as tr
from vivavoce.protocol.codec import ServerCodec, TranslationServerCodec
from vivavoce.protocol.items import InputText, Message, Response

TESTS = Path(__file__).parent.parent
REPORT = TESTS.parent / "docs" / "reference" / "conformance.md"
CLEARED = ev.InputAudioBufferCleared(event_id="event_1")
NO_TEST_OF_IT = "tests/core/test_x.py::test_y"


# --- the report -------------------------------------------------------------------------------------------------------


def test_every_row_has_a_test() -> None:
    text = REPORT.read_text("utf-8")
    assert "**missing**" not in text
    scores = re.findall(r"^\| [^|]+ \| (\d+) \| (\d+) \| \d+ \| \d+ \|$", text, re.MULTILINE)
    assert len(scores) == 20
    assert all(held == of and int(of) > 0 for held, of in scores)


def test_every_test_that_it_names_exists() -> None:
    named = set(re.findall(r"`([a-z0-9_/]+\.py::[A-Za-z0-9_:]+)`", REPORT.read_text("utf-8")))
    assert len(named) > 50
    assert not {test for test in named if not exists(f"tests/{test}")}


def test_every_trace_that_it_names_exists_and_the_other_way_round() -> None:
    named = set(re.findall(r"`((?:[a-z]+/)?t\d\d_\w+\.jsonl)`", REPORT.read_text("utf-8")))
    assert named == {str(path.relative_to(TESTS / "traces")) for path in (TESTS / "traces").rglob("*.jsonl")}


def test_a_run_that_has_seen_nothing_misses_everything_that_is_sent() -> None:
    rows = missing({})
    assert len(rows) > 1_500
    assert "Server events: GA: response.done" in rows
    assert "Fields of client events: GA: session.update session{realtime}.audio.output.speed (wrong)" in rows
    assert report({}).count("**missing**") == len(rows)


@pytest.mark.parametrize(
    ("test", "is_there"),
    [
        ("tests/conformance/test_the_report.py::test_every_row_has_a_test", True),
        ("tests/conformance/test_the_report.py::test_another", False),
        ("tests/conformance/test_nothing.py::test_every_row_has_a_test", False),
        ("tests/core/test_session_stateful.py::TestSession::runTest", True),
    ],
)
def test_existence_is_told(test: str, is_there: bool) -> None:
    assert exists(test) is is_there


@pytest.mark.parametrize(
    ("source", "options", "whole"),
    [
        ("TESTPATHS", {}, True),
        ("INVOCATION_DIR", {}, True),
        ("ARGS", {}, False),
        ("TESTPATHS", {"keyword": "trace"}, False),
        ("TESTPATHS", {"markexpr": "not interop"}, False),
        ("TESTPATHS", {"lf": True}, False),
    ],
)
def test_only_a_run_of_all_tests_must_show_every_row(source: str, options: dict[str, object], whole: bool) -> None:
    asked = SimpleNamespace(
        args_source=pytest.Config.ArgsSource[source], getoption=lambda name, default: options.get(name, default)
    )
    assert is_whole(asked) is whole  # type: ignore[arg-type]


# --- the judge --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "frame", "said"),
    [
        ("ga", {"type": "input_audio_buffer.cleared", "event_id": "e", "more": 1}, "more"),
        ("ga", {"type": "input_audio_buffer.cleared", "event_id": 5}, "event_id"),
        ("ga", {"type": "input_audio_buffer.committed", "event_id": "e"}, "item_id"),
        ("ga", {"type": "response.text.delta", "event_id": "e"}, "no such server event"),
        ("beta", {"type": "response.output_text.delta", "event_id": "e"}, "no such server event"),
        ("beta", {"type": "conversation.created", "event_id": "e", "conversation": {"odd": 1}}, "conversation.odd"),
        ("translation", {"type": "session.closed", "event_id": "e", "reason": "x"}, "reason"),
        (
            "ga",
            {"type": "response.done", "event_id": "e", "response": {"id": "r", "status": "cancelling"}},
            "response.status",
        ),
        (
            "ga",
            {"type": "rate_limits.updated", "event_id": "e", "rate_limits": [{"name": "tokens", "left": 5}]},
            "rate_limits.left",
        ),
    ],
)
def test_what_the_types_do_not_take_is_a_fault(dialect: str, frame: dict[str, object], said: str) -> None:
    fault = Oracle().fault(dialect, msgspec.json.encode(frame))
    assert fault.startswith(f"{dialect}: ")
    assert said in fault


def test_what_the_types_take_is_none() -> None:
    oracle = Oracle()
    assert not oracle.fault("ga", ServerCodec().encode(CLEARED) or b"")
    assert not oracle.fault("translation", TranslationServerCodec().encode(tr.SessionClosed(event_id="e")))


def test_every_exception_has_a_reason_of_its_own_place() -> None:
    assert len({(one.dialect, one.kind, one.place) for one in EXCEPTIONS}) == len(EXCEPTIONS)
    assert all(one.why for one in EXCEPTIONS)


# --- the witness ------------------------------------------------------------------------------------------------------


def faults(witness: Witness, test: str, frame: bytes) -> list[str]:
    with witness.during(test):
        witness.sent("ga", CLEARED, frame)
        return witness.take_faults()


def test_every_test_that_sends_a_fault_is_told_although_it_is_judged_once() -> None:
    witness = Witness()
    wrong = b'{"type":"input_audio_buffer.cleared","event_id":"e","more":1}'
    assert faults(witness, "tests/core/test_a.py::test_a", wrong)
    assert faults(witness, "tests/core/test_b.py::test_b[1]", wrong)
    assert not faults(witness, "tests/protocol/test_c.py::test_c", wrong), "events made by hand are no session's"


def test_the_most_telling_test_is_named() -> None:
    witness, frame = Witness(), ServerCodec().encode(CLEARED)
    for test in ("tests/simulation/test_b.py::test_b", "tests/core/test_rules_of_items.py::test_c[1]"):
        faults(witness, test, frame or b"")
    assert witness.best["server", "ga", "input_audio_buffer.cleared"][-1] == "tests/core/test_rules_of_items.py::test_c"


def test_a_machine_without_a_wire_is_judged_in_both_dialects() -> None:
    witness = Witness()
    with witness.during(NO_TEST_OF_IT):
        part = ev.ContentPart(type="image")  # type: ignore[arg-type]
        witness.said(
            ev.ResponseContentPartAdded(response_id="r", item_id="i", output_index=0, content_index=0, part=part)
        )
        found = witness.take_faults()
    assert [dialect for dialect in ("ga: ", "beta: ") if dialect in "\n".join(found)] == ["ga: ", "beta: "]


def test_shapes_tell_fields_types_and_words_apart_and_nothing_else() -> None:
    def message(**fields: object) -> ev.ConversationItemAdded:
        more = {"role": "user", "content": (InputText(text="hello"),), **fields}
        return ev.ConversationItemAdded(item=Message(**more))  # type: ignore[arg-type]

    plain = shape(message())
    assert plain == shape(message(content=(InputText(text="other"), InputText(text="words"))))
    others = [message(role="system"), message(id="item_1"), message(status="completed"), message(content=())]
    assert len({plain, *map(shape, others)}) == 5


def test_a_code_is_noted() -> None:
    witness = Witness()
    response = Response(id="resp_1", status="failed")
    event = ev.ErrorEvent(event_id="e", error=ev.ErrorDetail(type="t", code="some_code", message="m"))
    with witness.during(NO_TEST_OF_IT):
        witness.sent("ga", event, ServerCodec().encode(event))
        witness.sent("ga", ev.ResponseDone(response=response), b'{"type":"response.done"}')
    assert witness.best["error", "ga", "some_code"][-1] == NO_TEST_OF_IT
