"""Golden traces: the dialogues of the protocol reference (§4.4), played against the bare machine in each dialect.

`tests/traces/<rule>.jsonl` is the wire of GA, `tests/traces/beta/<rule>.jsonl` the same dialogue on the wire of beta.
`--record-traces` plays the clients' lines again and writes what comes; then read the diff.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vivavoce.core.abilities import Abilities
from vivavoce.core.conversation import Conversation
from vivavoce.core.limits import Limits
from vivavoce.core.session import Session
from vivavoce.core.surroundings import Surroundings
from vivavoce.engines.scripted import ScriptedTranscriber, scripted_pipeline, speech_in_words
from vivavoce.protocol.codec import ClientCodec, Dialect, ServerCodec
from vivavoce.protocol.config import TranscriptionSession
from vivavoce.protocol.events import ErrorDetail, RateLimit
from vivavoce.testing.playbook import counting_ids
from vivavoce.testing.real_time_player import RealTimePlayer
from vivavoce.testing.traces import Line, Recorder, difference, load, replay, save

TRACES = Path(__file__).parent.parent / "traces"
RULES = sorted(path.stem for path in TRACES.glob("*.jsonl"))
FOLDERS: dict[Dialect, Path] = {"ga": TRACES, "beta": TRACES / "beta"}


GA_ONLY = {rule for rule in RULES if rule.startswith("t17_")}
"""Dialogues about what beta does not have."""
BOTH = [rule for rule in RULES if rule not in GA_ONLY]


class Allowance:
    """1,000 requests and 4,000 tokens that are never filled up again."""

    def __init__(self) -> None:
        self.requests, self.tokens = 1_000, 4_000

    def take(self, tokens: int, now_ms: int) -> bool:
        if tokens > self.tokens:
            return False
        self.requests, self.tokens = self.requests - 1, self.tokens - tokens
        return True

    def settle(self, reserved: int, used: int, now_ms: int) -> None:
        self.tokens += reserved - used

    def limits(self, now_ms: int) -> tuple[RateLimit, ...]:
        return (
            RateLimit(name="requests", limit=1_000, remaining=self.requests, reset_seconds=60.0),
            RateLimit(name="tokens", limit=4_000, remaining=self.tokens, reset_seconds=60.0),
        )


ABLE = Abilities(semantic_vad=True, noise_reduction=True, mcp=True, images=True, reasoning=True, logprobs=True)


def machine(rule: str, player: RealTimePlayer | None, speculation_ms: int) -> Session:
    configured = TranscriptionSession() if rule.startswith("t16_") else None
    return Session(
        id="sess_x",
        model="scripted",
        ids=counting_ids(),
        expires_at=1,
        limits=Limits(speculation_ms=speculation_ms),
        instructions="Be brief.",
        configured=configured,
        surroundings=Surroundings(abilities=ABLE, account=Allowance(), player=player),
    )


def play(rule: str, trace: tuple[Line, ...], dialect: Dialect) -> tuple[Line, ...]:
    player = RealTimePlayer() if rule.startswith("t08_") else None
    return replay(trace, machine(rule, player, 0), dialect, player=player)


def said_by_the_server(rule: str, speculation_ms: int) -> list[Line]:
    player = RealTimePlayer() if rule.startswith("t08_") else None
    engines = replace(scripted_pipeline(), transcriber=ScriptedTranscriber(script=speech_in_words))
    session, golden = machine(rule, player, speculation_ms), load(TRACES / f"{rule}.jsonl")
    return [line for line in replay(golden, session, player=player, pipeline=engines) if line.dir == "server"]


@pytest.mark.parametrize("rule", RULES)
def test_an_answer_that_was_prepared_says_the_same(rule: str) -> None:
    plain, prepared = said_by_the_server(rule, 0), said_by_the_server(rule, 60)
    assert not (differing := difference(plain, prepared, times=False)), differing


def as_beta_says_it(line: Line) -> Line:
    """A client's line in beta; one that is no event stays as it is."""
    event = ServerCodec("ga", playback=True).decode(Recorder().frame(line.event))
    if isinstance(event, ErrorDetail):
        return line
    recorder = Recorder()
    recorder.client(line.t_ms, ClientCodec("beta").encode(event))
    return recorder.lines[0]


DIALECTS: list[tuple[str, Dialect]] = [*((rule, "ga") for rule in RULES), *((rule, "beta") for rule in BOTH)]


@pytest.mark.parametrize(("rule", "dialect"), DIALECTS)
def test_golden_trace(rule: str, dialect: Dialect, request: pytest.FixtureRequest) -> None:
    path = FOLDERS[dialect] / f"{rule}.jsonl"
    if request.config.getoption("--record-traces"):
        said = [line for line in load(TRACES / f"{rule}.jsonl") if line.dir == "client"]
        save(path, play(rule, tuple(said if dialect == "ga" else map(as_beta_says_it, said)), dialect))
    golden = load(path)
    assert not (differing := difference(golden, play(rule, golden, dialect))), differing


@pytest.mark.parametrize("rule", BOTH)
def test_the_client_says_the_same_in_both_dialects(rule: str) -> None:
    ga = [line for line in load(TRACES / f"{rule}.jsonl") if line.dir == "client"]
    beta = [line for line in load(FOLDERS["beta"] / f"{rule}.jsonl") if line.dir == "client"]
    assert [as_beta_says_it(line).event for line in ga] == [line.event for line in beta]


@pytest.mark.parametrize("rule", BOTH)
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
