"""A conversation goes on wherever its connection is cut: both ends agree, nothing is said twice, nothing is lost.

Sessions as applications use them, against real sessions of the server with scripted engines, on virtual time. Every
message of short conversations is the one with which the line breaks; long ones lose it again and again.
`VIVAVOCE_SEEDS=1000:3000` looks further. A seed that fails leaves its trace behind.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest
from chaos_world import Chaos, Outcome, World, hold

from vivavoce.client import life
from vivavoce.core.caller import answers, ear, memory, requests, restoring
from vivavoce.core.caller.calls import Calls
from vivavoce.core.conversation import Conversation
from vivavoce.testing.network import Fate
from vivavoce.transports.lasting import Lasting

FROM, _, TO = os.environ.get("VIVAVOCE_SEEDS", "0:14").partition(":")
SEEDS = range(int(FROM), int(TO))
TRACES = Path(tempfile.gettempdir()) / "vivavoce-chaos"
WORLDS: tuple[World, ...] = get_args(World)
CONVERSATIONS = 100
"""At least so many for each world: every message of some conversations."""
LONG = "VIVAVOCE_SEEDS" in os.environ
HOUR_MS = 3_600_000


def simulate(
    seed: int,
    world: World,
    fates: Mapping[int, Fate] | None = None,
    *,
    share: float = 0.0,
    steps: int = 2,
    session_ms_max: int = HOUR_MS,
) -> Outcome:
    """One conversation. Raises `AssertionError`, and leaves its trace behind."""
    try:
        return hold(seed, world, fates or {}, share, steps, session_ms_max, session_ms_max / 4000)
    except Chaos as chaos:
        path = TRACES / f"{world}-{seed}-{'-'.join(map(str, fates or ()))}.jsonl"
        chaos.trace.save(path)
        raise AssertionError(f"seed {seed}, {world}, {fates}: {chaos}\ntrace: {path}") from chaos


@cache
def undisturbed(seed: int, world: World) -> Outcome:
    return simulate(seed, world)


def cases(world: World) -> list[tuple[int, dict[int, Fate]]]:
    """Short conversations, and for every message of each that it is lost, or the last; now and then with another cut
    while everything is being restored."""
    found: list[tuple[int, dict[int, Fate]]] = []
    for seed in SEEDS:
        random = Random(seed)
        for at in range(1, undisturbed(seed, world).messages + 1):
            fates: dict[int, Fate] = {at: "lost" if (at + seed) % 2 else "last"}
            if random.random() < 0.3:
                fates[at + random.randint(1, 25)] = random.choice(("lost", "last"))
            found.append((seed, fates))
        if len(found) >= CONVERSATIONS and not LONG:
            break
    return found


# --- promises ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", WORLDS)
def test_f1_undisturbed_conversations_keep_every_promise(world: World) -> None:
    outcomes = [simulate(seed, world, steps=10) for seed in range(10)]
    assert not sum(outcome.cuts for outcome in outcomes)
    done = {kind for outcome in outcomes for kind in outcome.kinds}
    assert done == {
        "say", "answer", "aside", "append", "commit", "clear", "create", "delete", "truncate", "update", "cancel",
        "detection",
    }  # fmt: skip


@pytest.mark.parametrize("world", WORLDS)
def test_f1_a_cut_at_any_message_keeps_every_promise(world: World) -> None:
    cut = 0
    wanted = cases(world)
    for seed, fates in wanted:
        outcome = simulate(seed, world, fates)
        cut += outcome.cuts > 0
        assert ("resumed" in outcome.changes) <= (world == "kept")
    assert len(wanted) >= CONVERSATIONS
    assert cut > 0.9 * len(wanted)  # with another weather there may be a message less


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("share", [0.01, 0.04])
def test_f1_so_do_cuts_again_and_again(world: World, share: float) -> None:
    outcomes = [simulate(seed, world, share=share, steps=8) for seed in SEEDS]
    assert sum(outcome.cuts for outcome in outcomes) > len(SEEDS)


@pytest.mark.parametrize("world", WORLDS)
def test_f1_sessions_are_renewed_before_their_end_and_nobody_notices(world: World) -> None:
    changes = [
        change
        for seed in SEEDS
        for share in (0.0, 0.01)
        for change in simulate(seed, world, share=share, steps=8, session_ms_max=30_000).changes
    ]
    assert changes.count("renewed") > 5


# --- every promise has been seen to break -----------------------------------------------------------------------------


def broken(world: World) -> str:
    """What the first conversation that is broken says."""
    for seed in range(60):
        try:
            simulate(seed, world, share=0.03, steps=8)
        except AssertionError as error:
            return str(error)
    return "nothing was noticed"


def nothing(*_: object, **__: object) -> None:
    """In place of what has to be done."""


def shortened(telling: Any) -> Any:
    return lambda *arguments: list(telling(*arguments))[:-1]


def reversed_(telling: Any) -> Any:
    return lambda *arguments: reversed(list(telling(*arguments)))


@pytest.mark.parametrize(
    ("owner", "name", "planted", "noticed"),
    [
        (requests.Requests, "came", nothing, "was answered"),
        (requests.Requests, "moved", nothing, "TimeoutError"),
        (life, "restoration", shortened(restoring.restoration), "lost: "),
        (life, "restoration", reversed_(restoring.restoration), "the order has changed"),
        (life, "restoration", lambda memory, _, ids: restoring.restoration(memory, None, ids), ""),
        (ear.Ear, "begin_again", lambda _: [], ""),
        (answers.Answers, "take_all", lambda _: [], "TimeoutError"),
        (Calls, "moved", nothing, "the model was never shown"),
        (memory.Memory, "is_understood", lambda *_: True, "'audio"),
        (Conversation, "owner", nothing, "a call without an answer"),
    ],
)
def test_f1_what_is_not_restored_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, planted: Any, noticed: str
) -> None:
    monkeypatch.setattr(owner, name, planted)
    told = broken("forgotten")
    assert told.startswith("seed")
    assert noticed in told


@pytest.mark.parametrize("error", [-1, 1])
def test_f1_what_is_not_resumed_is_noticed(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    received = Lasting.received
    monkeypatch.setattr(Lasting, "received", property(lambda end: max(0, received.__get__(end) + error)))
    assert broken("kept").startswith("seed")
