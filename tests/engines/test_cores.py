"""Who computes next: places, urgency, order, and that everybody's turn comes. On virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.cores import DUE, LATE_MAX, WAITING_MAX, WITHIN_S, Cores, ThreadShare, Urgency, core_count
from vivavoce.errors import EngineError
from vivavoce.testing.virtual_time import run

NOW, SOON, SPARE = Urgency.NOW, Urgency.SOON, Urgency.SPARE


class Scripted:
    """An engine that computes by waiting, and notes who began when, and how many computed at once."""

    def __init__(self, cores: Cores) -> None:
        self.cores = cores
        self.began: list[tuple[str, float]] = []
        self.busy = self.busiest = 0

    async def compute(self, share: ThreadShare, urgency: Urgency, name: str, seconds: float) -> None:
        place = await self.cores.take(share, urgency)
        self.began.append((name, asyncio.get_running_loop().time()))
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.busy -= 1
            self.cores.give_back(place)


def played(count: int, script: Callable[[Scripted], Awaitable[None]]) -> Scripted:
    async def play() -> Scripted:
        engine = Scripted(Cores(count))
        await script(engine)
        assert engine.cores.waiting == 0
        place = [await engine.cores.take(engine.cores.share("last", count), NOW) for _ in range(count)]
        assert len(place) == count, "every place came back"
        return engine

    return run(play())


def test_never_more_at_once_than_cores_and_first_come_first_served() -> None:
    async def script(engine: Scripted) -> None:
        share = engine.cores.share("whisper", 8)
        await asyncio.gather(*(engine.compute(share, NOW, str(n), 1.0) for n in range(5)))

    engine = played(2, script)
    assert engine.busiest == 2
    assert engine.began == [("0", 0.0), ("1", 0.0), ("2", 1.0), ("3", 1.0), ("4", 2.0)]


def test_an_engine_that_may_run_once_leaves_the_other_core_to_others() -> None:
    async def script(engine: Scripted) -> None:
        one, other = engine.cores.share("one", 1), engine.cores.share("other", 1)
        calls = (engine.compute(one, NOW, "a", 1.0), engine.compute(one, NOW, "b", 1.0))
        await asyncio.gather(*calls, engine.compute(other, NOW, "c", 1.0))

    assert played(2, script).began == [("a", 0.0), ("c", 0.0), ("b", 1.0)]


def test_the_begin_of_an_answer_goes_before_its_rest_and_before_drafts() -> None:
    async def script(engine: Scripted) -> None:
        share = engine.cores.share("voice", 4)
        order = (
            (NOW, "running"),
            (SPARE, "draft"),
            (SOON, "later phrase"),
            (NOW, "end of turn"),
            (NOW, "first phrase"),
        )
        await asyncio.gather(*(engine.compute(share, urgency, name, 1.0) for urgency, name in order))

    names = [name for name, _ in played(1, script).began]
    assert names == ["running", "end of turn", "first phrase", "later phrase", "draft"]


def test_drafts_leave_one_core_to_who_cannot_wait() -> None:
    async def script(engine: Scripted) -> None:
        share = engine.cores.share("ear", 4)
        drafts = [asyncio.create_task(engine.compute(share, SPARE, f"draft {n}", 5.0)) for n in range(3)]
        await asyncio.sleep(1.0)
        await engine.compute(share, NOW, "turn", 1.0)
        await asyncio.gather(*drafts)

    assert played(2, script).began == [("draft 0", 0.0), ("turn", 1.0), ("draft 1", 5.0), ("draft 2", 10.0)]


def test_on_one_core_drafts_are_made_too() -> None:
    async def script(engine: Scripted) -> None:
        await engine.compute(engine.cores.share("ear", 1), SPARE, "draft", 1.0)

    assert played(1, script).began == [("draft", 0.0)]


@pytest.mark.parametrize("urgency", [SOON, SPARE])
def test_what_is_not_urgent_is_passed_only_by_what_is_due_before(urgency: Urgency) -> None:
    async def script(engine: Scripted) -> None:
        share = engine.cores.share("voice", 4)

        async def comes(name: str, at: int) -> None:
            await asyncio.sleep(at)
            await engine.compute(share, NOW, name, 1.0)

        busy = asyncio.create_task(engine.compute(share, NOW, "first", 1.0))
        await asyncio.sleep(0)
        patient = asyncio.create_task(engine.compute(share, urgency, "patient", 1.0))
        await asyncio.gather(busy, patient, *(comes(f"urgent {at}", at) for at in range(20)))

    began = dict(played(1, script).began)
    last_s = WITHIN_S[urgency] - WITHIN_S[NOW]
    assert [name for name, at in began.items() if name.startswith("urgent") and at < began["patient"]] == [
        f"urgent {at}" for at in range(20) if at < last_s
    ]


def test_an_answer_that_is_about_to_run_out_goes_before_one_that_has_not_begun() -> None:
    async def script(engine: Scripted) -> None:
        share = engine.cores.share("voice", 4)

        async def due(name: str, at: float) -> None:
            DUE.set(at)
            await engine.compute(share, SOON, name, 1.0)

        busy = asyncio.create_task(engine.compute(share, NOW, "first", 1.0))
        await asyncio.sleep(0)
        calls = [engine.compute(share, NOW, "begin", 1.0), due("far", 5.0), due("near", 0.2), due("nearer", 0.1)]
        await asyncio.gather(busy, *calls)

    assert [name for name, _ in played(1, script).began] == ["first", "nearer", "near", "begin", "far"]


def test_what_a_listener_would_miss_does_not_wait_for_a_long_computation() -> None:
    async def script(engine: Scripted) -> None:
        share = engine.cores.share("voice", 8)

        async def heard(name: str, at: float) -> None:
            DUE.set(at)
            await engine.compute(share, SOON, name, 0.5)

        long = [asyncio.create_task(engine.compute(share, NOW, "long", 5.0)) for _ in range(2)]
        await asyncio.sleep(0)
        calls = [heard("near", 1.0), heard("nearer", 0.8), engine.compute(share, NOW, "begin", 1.0)]
        await asyncio.gather(*long, *calls)

    engine = played(2, script)
    began = dict(engine.began)
    assert (began["nearer"], began["near"]) == (pytest.approx(0.8), pytest.approx(1.3)), "one at a time"
    assert began["begin"] == 5.0, "who has heard nothing yet waits"
    assert engine.busiest == 2 + LATE_MAX


def test_what_is_late_and_given_up_is_not_begun() -> None:
    async def script(engine: Scripted) -> None:
        share = engine.cores.share("voice", 8)

        async def heard() -> None:
            DUE.set(1.0)
            await engine.compute(share, SOON, "heard", 0.5)

        long = asyncio.create_task(engine.compute(share, NOW, "long", 5.0))
        await asyncio.sleep(0)
        late = asyncio.create_task(heard())
        await asyncio.sleep(0.5)
        late.cancel()
        await long

    assert played(1, script).began == [("long", 0.0)]


def test_work_ahead_has_no_other_deadline() -> None:
    async def script(engine: Scripted) -> None:
        share = engine.cores.share("voice", 4)

        async def draft() -> None:
            DUE.set(0.0)
            await engine.compute(share, SPARE, "draft", 1.0)

        busy = asyncio.create_task(engine.compute(share, NOW, "first", 1.0))
        await asyncio.sleep(0)
        await asyncio.gather(busy, draft(), engine.compute(share, SOON, "phrase", 1.0))

    assert [name for name, _ in played(1, script).began] == ["first", "phrase", "draft"]


def test_an_engine_may_do_less_or_more_at_once_as_it_goes() -> None:
    async def script(engine: Scripted) -> None:
        share = engine.cores.share("model", 3, is_one=True)
        calls = [asyncio.create_task(engine.compute(share, NOW, str(n), 10.0)) for n in range(5)]
        await asyncio.sleep(1.0)
        share.allow(0)  # at least one; what runs goes on
        assert share.most == 1
        await asyncio.sleep(10.0)
        share.allow(9)  # no more than in the beginning
        assert share.most == 3
        await asyncio.gather(*calls)

    began = played(1, script).began
    assert began == [("0", 0.0), ("1", 0.0), ("2", 0.0), ("3", 10.0), ("4", 11.0)]


def test_what_computes_together_has_one_place_and_gives_it_back_with_the_last() -> None:
    async def script(engine: Scripted) -> None:
        model = engine.cores.share("smollm", 3, is_one=True)
        ear = engine.cores.share("ear", 1)
        model_calls = [engine.compute(model, NOW, f"answer {n}", 1.0 + n) for n in range(2)]
        await asyncio.gather(*model_calls, engine.compute(ear, NOW, "turn", 1.0))

    assert played(1, script).began == [("answer 0", 0.0), ("answer 1", 0.0), ("turn", 2.0)]


def test_who_gives_up_while_waiting_leaves_no_trace() -> None:
    async def script(engine: Scripted) -> None:
        share = engine.cores.share("ear", 4)
        busy = asyncio.create_task(engine.compute(share, NOW, "first", 2.0))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(engine.compute(share, NOW, f"{n}", 1.0)) for n in range(3)]
        await asyncio.sleep(1.0)
        waiting[0].cancel()
        await asyncio.gather(busy, *waiting, return_exceptions=True)

    assert played(1, script).began == [("first", 0.0), ("1", 2.0), ("2", 3.0)]


def test_who_gives_up_in_the_moment_of_being_next_hands_the_place_on() -> None:
    async def script(engine: Scripted) -> None:
        share = engine.cores.share("ear", 4)
        place = await engine.cores.take(share, NOW)
        next_one, after = (asyncio.create_task(engine.compute(share, NOW, name, 1.0)) for name in "ab")
        await asyncio.sleep(1.0)
        engine.cores.give_back(place)
        engine.cores.give_back(place)  # twice is harmless
        next_one.cancel()
        await asyncio.gather(next_one, after, return_exceptions=True)

    assert played(1, script).began == [("b", 1.0)]


def test_too_many_who_wait_are_told() -> None:
    async def script(engine: Scripted) -> None:
        share = engine.cores.share("ear", 1)
        tasks = [asyncio.create_task(engine.compute(share, NOW, "", 0.0)) for _ in range(1 + WAITING_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(EngineError, match=f"ear: {WAITING_MAX} calls are waiting") as caught:
            await engine.compute(share, NOW, "", 0.0)
        assert caught.value.code == "engine_busy"
        await asyncio.gather(*tasks)

    assert len(played(1, script).began) == 1 + WAITING_MAX


CALLS = st.lists(
    st.tuples(
        st.sampled_from(Urgency), st.integers(0, 2), st.integers(0, 8), st.integers(0, 5), st.none() | st.integers(0, 9)
    ),
    max_size=20,
)


@given(CALLS, st.integers(1, 3))
def test_whatever_comes_and_goes_everybody_is_served_and_no_place_is_lost(
    calls: list[tuple[Urgency, int, int, int, int | None]], count: int
) -> None:
    """Each call: how urgent, of which engine, when it comes, how long it takes, when its caller gives up."""

    async def script(engine: Scripted) -> None:
        shares = [engine.cores.share("a", 1), engine.cores.share("b", 3), engine.cores.share("c", 2, is_one=True)]
        given_up = 0

        async def call(number: int) -> None:
            nonlocal given_up
            urgency, share, comes, takes, leaves = calls[number]
            await asyncio.sleep(comes)
            task = asyncio.create_task(engine.compute(shares[share], urgency, str(number), takes))
            if leaves is not None:
                await asyncio.wait([task], timeout=leaves)
                given_up += task.cancel()
            await asyncio.wait([task])

        await asyncio.gather(*map(call, range(len(calls))))
        assert len(engine.began) >= len(calls) - given_up
        assert engine.busiest <= count + 1, "more than places only where two compute together"

    played(count, script)


def test_there_are_at_least_two_places_and_a_number_of_them_is_checked() -> None:
    assert core_count() >= 2
    assert Cores().count == core_count()
    with pytest.raises(ValueError, match="at least one"):
        Cores(0)
