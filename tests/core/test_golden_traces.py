"""Golden traces: the dialogues of the protocol reference (§4.4), played against the bare machine in each dialect.

`tests/traces/<rule>.jsonl` is the wire of GA, `tests/traces/beta/<rule>.jsonl` the same dialogue on the wire of beta.
`--record-traces` plays the clients' lines again and writes what comes; then read the diff.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from vivavoce.core.conversation import Conversation
from vivavoce.core.session import Session
from vivavoce.protocol.codec import ClientCodec, Dialect, ServerCodec
from vivavoce.protocol.events import ErrorDetail
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.traces import Line, Recorder, difference, load, replay, save

TRACES = Path(__file__).parent.parent / "traces"
RULES = sorted(path.stem for path in TRACES.glob("*.jsonl"))
FOLDERS: dict[Dialect, Path] = {"ga": TRACES, "beta": TRACES / "beta"}


def machine() -> Session:
    return Session(id="sess_x", model="scripted", ids=counting_ids(), expires_at=1, instructions="Be brief.")


def play(trace: tuple[Line, ...], dialect: Dialect) -> tuple[Line, ...]:
    return replay(trace, machine(), dialect)


def as_beta_says_it(line: Line) -> Line:
    """A client's line in beta; one that is no event stays as it is."""
    event = ServerCodec("ga").decode(Recorder().frame(line.event))
    if isinstance(event, ErrorDetail):
        return line
    recorder = Recorder()
    recorder.client(line.t_ms, ClientCodec("beta").encode(event))
    return recorder.lines[0]


@pytest.mark.parametrize("dialect", ["ga", "beta"])
@pytest.mark.parametrize("rule", RULES)
def test_golden_trace(rule: str, dialect: Dialect, request: pytest.FixtureRequest) -> None:
    path = FOLDERS[dialect] / f"{rule}.jsonl"
    if request.config.getoption("--record-traces"):
        said = [line for line in load(TRACES / f"{rule}.jsonl") if line.dir == "client"]
        save(path, play(tuple(said if dialect == "ga" else map(as_beta_says_it, said)), dialect))
    golden = load(path)
    assert not (differing := difference(golden, play(golden, dialect))), differing


@pytest.mark.parametrize("rule", RULES)
def test_the_client_says_the_same_in_both_dialects(rule: str) -> None:
    ga = [line for line in load(TRACES / f"{rule}.jsonl") if line.dir == "client"]
    beta = [line for line in load(FOLDERS["beta"] / f"{rule}.jsonl") if line.dir == "client"]
    assert [as_beta_says_it(line).event for line in ga] == [line.event for line in beta]


@pytest.mark.parametrize("rule", RULES)
def test_a_client_holds_the_same_conversation_in_both_dialects(rule: str) -> None:
    ga, beta = (fold(rule, dialect) for dialect in FOLDERS)
    assert ga.items == beta.items
    assert list(ga.responses) == list(beta.responses)


def fold(rule: str, dialect: Dialect) -> Conversation:
    """What a client knows that reads the trace, its audio left out."""
    conversation, codec, recorder = Conversation(), ClientCodec(dialect), Recorder()
    for line in load(FOLDERS[dialect] / f"{rule}.jsonl"):
        kind = line.event.get("type", "")
        if line.dir == "server" and not kind.endswith((".retrieved", "audio.delta")):
            conversation.apply(codec.decode(recorder.frame(line.event)))
    return conversation
