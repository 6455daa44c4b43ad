"""What a benchmark measures, against endpoints whose times are known: to the millisecond, on virtual time."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from bench_server import PlayedEndpoint

from vivavoce.audio import wav
from vivavoce.errors import ConnectionFailed, VivavoceError
from vivavoce.testing.bench import figures
from vivavoce.testing.bench.conversation import Asking, Conversation, Endpoint
from vivavoce.testing.bench.load import BEGIN_WITHIN_S, load
from vivavoce.testing.bench.rounds import Held, hold_rounds, in_order, interrupt_rounds
from vivavoce.testing.bench.speech import Utterance, recorded, tones, utterance
from vivavoce.testing.bench.turn import BargeIn, Turn
from vivavoce.testing.sounds import silence, tone
from vivavoce.testing.virtual_time import run
from vivavoce.transports import Transport

ASKING = Asking()


def a_tone(ms: int = 400) -> Utterance:
    return utterance(f"tone of {ms} ms", silence(100) + tone(ms) + silence(60))


def held(*played: PlayedEndpoint, turns: int = 3, **how: object) -> list[Held]:
    endpoints = [one.endpoint for one in played]
    return run(hold_rounds(endpoints, [a_tone()], turns, ASKING, **how))  # type: ignore[arg-type]


# --- what is said -----------------------------------------------------------------------------------------------------


def test_speech_begins_and_ends_where_it_is_loud() -> None:
    found = utterance("x", silence(130) + tone(200) + silence(70))
    assert (found.begin_ms, found.end_ms) == (130, 330)
    with pytest.raises(VivavoceError, match="x: there is nothing to hear"):
        utterance("x", silence(500))


def test_a_folder_says_its_files_by_name_at_any_rate(tmp_path: Path) -> None:
    wav.write(tmp_path / "b.wav", tone(300), 24_000)
    wav.write(tmp_path / "a.wav", tone(300), 12_000)
    assert [(one.name, one.end_ms) for one in recorded([tmp_path])] == [("a", 600), ("b", 300)]


def test_files_that_cannot_be_said_are_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "no.wav").write_bytes(b"this is no sound")
    with pytest.raises(VivavoceError, match=r"no\.wav: not a WAV file"):
        recorded([tmp_path])
    with pytest.raises(VivavoceError, match=r"gone\.wav: No such file"):
        recorded([tmp_path / "gone.wav"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(VivavoceError, match=r"no WAV files in .*empty"):
        recorded([tmp_path / "empty"])


def test_tones_are_told_apart_by_their_length() -> None:
    assert [one.end_ms - one.begin_ms for one in tones()] == [700, 1_100, 500, 900, 1_300]


# --- turns ------------------------------------------------------------------------------------------------------------


def test_a_turn_is_timed_from_the_true_end_of_speech() -> None:
    (one,) = held(PlayedEndpoint(first_ms=120, deltas=3))
    for turn in one.turns:
        assert turn.error is None
        assert turn.stages == pytest.approx(
            {
                "speech_stopped": 500,
                "committed": 500,
                "created": 500,
                "first_text": 620,
                "first_audio": 620,
                "done": 720,
            }
        )
        assert turn.after_commit_ms == pytest.approx(120)
        assert (turn.answer, turn.audio_ms, turn.gaps) == ("Yes.", pytest.approx(300), 0)
    assert max(one.late_ms) == pytest.approx(0)


def test_the_endpoint_is_asked_for_what_was_set() -> None:
    played = PlayedEndpoint()
    run(hold_rounds([played.endpoint], [a_tone()], 1, Asking(silence_ms=500, instructions="Be brief.")))
    (asked,) = played.configured
    assert asked["instructions"] == "Be brief."
    assert asked["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 500


def test_the_first_turn_stands_apart() -> None:
    (one,) = held(PlayedEndpoint(first_ms=100, extra_at_first_ms=300))
    found = figures.of_turns(one)
    assert (found["turns"], found["counted"]) == (3, 3)
    assert found["stages"]["first_audio"] == {"median_ms": 600, "p95_ms": 600, "n": 3}
    assert found["first_turn"]["first_audio"] == 900
    assert found["first_turn_ratio"] == 1.5
    assert found["commit_to_first_audio"]["median_ms"] == 100


def test_of_two_endpoints_one_speaks_at_a_time_and_each_is_first_as_often() -> None:
    played = PlayedEndpoint("one", first_ms=100), PlayedEndpoint("other", first_ms=300)
    reported: list[str] = []
    one, other = held(*played, turns=5, report=lambda endpoint, turn: reported.append(endpoint.name))
    rounds = list(zip(reported[::2], reported[1::2], strict=True))
    assert {frozenset(pair) for pair in rounds} == {frozenset(("one", "other"))}
    assert [first for first, _ in rounds] == [rounds[n % 2][0] for n in range(6)]
    assert rounds[0] != rounds[1]
    starts = sorted([(at, "one") for at in played[0].spoken_at] + [(at, "other") for at in played[1].spoken_at])
    assert [name for _, name in starts] == reported
    assert all(later - sooner > 0.4 + 0.5 for (sooner, _), (later, _) in pairwise(starts))
    assert figures.comparison(one, other) == {
        "rounds": 5,
        "first_audio_ratio": 0.75,
        "sooner_in": 5,
        "difference_median_ms": -200,
    }


def test_a_seed_decides_what_is_said_whoever_hears_it() -> None:
    said = [a_tone(ms) for ms in (200, 300, 400, 500, 600)]

    def names(seed: int, *names: str) -> list[str]:
        endpoints = [PlayedEndpoint(name, deltas=1).endpoint for name in names]
        return [turn.name for turn in run(hold_rounds(endpoints, said, 7, ASKING, seed=seed))[0].turns]

    assert names(1, "a") == names(1, "a") == names(1, "a", "b")
    assert names(1, "a") != names(2, "a")
    assert set(names(1, "a")[:5]) == {one.name for one in said}, "all are said before one is said again"


def test_a_session_for_each_turn_where_that_is_wanted() -> None:
    played = PlayedEndpoint()
    held(played, turns=2, is_fresh=True)
    assert played.sessions == 3
    assert played.most_at_once == 1


def test_an_answer_that_falls_behind_has_gaps() -> None:
    (one,) = held(PlayedEndpoint(deltas=5, delta_ms=100, every_ms=150), turns=1)
    assert [(turn.gaps, turn.gap_ms) for turn in one.turns] == [(4, pytest.approx(200))] * 2
    assert figures.of_turns(one)["gaps"] == 4


def test_a_turn_that_was_cut_is_counted_and_left_out() -> None:
    said = utterance("two parts", silence(100) + tone(300) + silence(400) + tone(300) + silence(60))
    (one,) = run(hold_rounds([PlayedEndpoint(silence_ms=200).endpoint], [said], 2, ASKING))
    assert all(turn.was_cut for turn in one.turns)
    assert one.turns[0].stages["first_audio"] == pytest.approx(300), "what counts is the answer to the whole"
    found = figures.of_turns(one)
    assert (found["cut"], found["counted"], found["stages"]) == (2, 0, {})


def test_a_connection_that_is_lost_fails_one_turn() -> None:
    played = PlayedEndpoint(closes_in_turn=2)
    (one,) = held(played)
    assert [turn.error is None for turn in one.turns] == [True, False, True, True]
    assert "connection closed" in str(one.turns[1].error)
    assert played.sessions == 2
    assert figures.of_turns(one)["failed"] == 1


def test_no_answer_is_told() -> None:
    (one,) = held(PlayedEndpoint(mute=True), turns=1)
    assert [turn.error for turn in one.turns] == ["no answer"] * 2
    (one,) = held(PlayedEndpoint(silence_ms=-1), turns=1)
    assert [turn.error for turn in one.turns] == ["speech was found, but not its end", "no speech was found"]


def test_an_endpoint_that_is_not_there_is_raised() -> None:
    async def dial(headers: object) -> Transport:
        raise ConnectionFailed("nobody is there")

    with pytest.raises(ConnectionFailed, match="nobody"):
        run(hold_rounds([Endpoint("gone", dial=dial)], [a_tone()], 1, ASKING))


def test_an_endpoint_is_named_without_secrets() -> None:
    named = Endpoint.at("wss://me:hunter2@host/v1/realtime?token=hunter2&model=x", "m", "sk-hunter2")
    assert named.name == "wss://host/v1/realtime?model=x m"
    assert "hunter2" not in repr(named).replace(str(named.url), "")


# --- interruptions ----------------------------------------------------------------------------------------------------


def test_an_interruption_is_timed_from_the_true_onset_of_speech() -> None:
    played = PlayedEndpoint(deltas=100, every_ms=50, stops_ms=70)
    seen: list[BargeIn] = []
    (one,) = run(
        interrupt_rounds(
            [played.endpoint], [a_tone()], 6, ASKING, report=lambda endpoint, barge_in: seen.append(barge_in)
        )
    )
    assert one.barge_ins == seen
    for barge_in in seen:
        assert barge_in.status == "cancelled"
        assert barge_in.stages["speech_started"] == pytest.approx(20), "the first loud chunk was heard"
        assert 20 < barge_in.stages["last_audio"] <= barge_in.stages["done"]
        assert barge_in.stages["done"] == pytest.approx(90)
    found = figures.of_barge_ins(one)
    assert (found["counted"], found["cancelled"], found["too_late"], found["failed"]) == (6, 6, 0, 0)
    assert found["done"]["median_ms"] == 90
    assert played.sessions == 2, "four of them in a session"


def test_an_answer_that_was_complete_cannot_be_stopped() -> None:
    (one,) = run(interrupt_rounds([PlayedEndpoint(deltas=2).endpoint], [a_tone()], 2, ASKING))
    found = figures.of_barge_ins(one)
    assert (found["counted"], found["too_late"], found["failed"]) == (0, 2, 0)
    assert found["last_audio"] is None
    assert found["speech_started"]["median_ms"] == 20, "a client stops playing at that, whatever was sent"


def test_an_endpoint_that_is_between_two_phrases_has_nothing_to_stop_sending() -> None:
    """Each delta comes 900 ms after the one before, but the user speaks up after 400."""
    (one,) = run(interrupt_rounds([PlayedEndpoint(deltas=100, every_ms=900).endpoint], [a_tone()], 3, ASKING))
    found = figures.of_barge_ins(one)
    assert (found["counted"], found["sent_nothing"], found["too_late"]) == (3, 3, 0)
    assert found["last_audio"] is None


def test_without_an_answer_there_is_nothing_to_interrupt() -> None:
    (one,) = run(interrupt_rounds([PlayedEndpoint(mute=True).endpoint], [a_tone()], 2, ASKING))
    assert one.barge_ins == []
    assert figures.of_barge_ins(one)["failed"] == 2


# --- many sessions ----------------------------------------------------------------------------------------------------


def test_sessions_talk_at_once_and_their_cpu_is_counted_in_the_window() -> None:
    played = PlayedEndpoint(deltas=10, every_ms=50)

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        asked: list[float] = []

        def cpu_s() -> float:
            asked.append(clock() - began)
            return clock() / 4  # a quarter of a core

        loaded = await load(played.endpoint, 5, [a_tone()], ASKING, seconds=20, cpu_s=cpu_s)
        assert asked == pytest.approx([BEGIN_WITHIN_S, BEGIN_WITHIN_S + 20])
        assert all(BEGIN_WITHIN_S <= turn.ended_at - began < BEGIN_WITHIN_S + 20 for turn in loaded.turns)
        assert loaded.cores == pytest.approx(0.25)
        assert loaded.sessions_per_core == pytest.approx(20)
        assert played.most_at_once == 5
        # 0.3 s before it, 0.5 s of speech, 0.5 s of silence, 0.1 s until the answer, which lasts 1 s, and 0.3 s after
        assert 5 * 7 <= len(loaded.turns) <= 5 * 8
        found = figures.of_load(loaded)
        assert found["first_audio"] == {"median_ms": 600, "p95_ms": 600, "n": len(loaded.turns)}
        assert (found["gaps"], found["failed"], found["load_late_p99_ms"]) == (0, 0, 0)
        assert not [task for task in asyncio.all_tasks() if task.get_coro().__qualname__.startswith("load")]  # type: ignore[union-attr]

    run(main())


def test_a_user_listens_to_the_answer_before_the_next_turn() -> None:
    played = PlayedEndpoint(deltas=10, delta_ms=100, every_ms=10)

    async def main() -> float:
        async with Conversation(played.endpoint, ASKING) as conversation:
            turn = await conversation.hold(a_tone(), listens_until=math.inf)
            return asyncio.get_running_loop().time() - turn.plays_until

    assert 0.3 <= run(main()) < 0.35


def test_a_turn_of_the_window_counts_however_long_its_answer_takes() -> None:
    played = PlayedEndpoint(first_ms=5_000)
    loaded = run(load(played.endpoint, 4, [a_tone()], ASKING, seconds=3, cpu_s=lambda: 0.0))
    assert loaded.seconds == pytest.approx(3)
    assert loaded.sessions_per_core is None
    assert [turn.stages["first_audio"] for turn in loaded.turns] == pytest.approx([5_500] * len(loaded.turns))
    assert len(loaded.turns) >= 1


def test_a_server_that_is_not_there_ends_the_measurement() -> None:
    async def dial(headers: object) -> Transport:
        raise ConnectionFailed("nobody is there")

    with pytest.raises(ConnectionFailed):
        run(load(Endpoint("gone", dial=dial), 3, [a_tone()], ASKING, seconds=5, cpu_s=lambda: 0.0))


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([5], 0.95, 5), (range(1, 21), 0.95, 19), (range(1, 101), 0.95, 95), ([3, 1, 2], 0.5, 2), ([1, 2], 0.0, 1)],
)
def test_a_percentile_is_one_of_the_values(values: list[int], share: float, expected: int) -> None:
    assert figures.percentile(list(values), share) == expected


def test_nothing_counted_is_no_figure() -> None:
    assert figures.spread([None, None]) is None
    failed = Turn("x", 1, 0.0, error="no answer")
    one = Held(Endpoint("a"), [failed, failed])
    assert figures.comparison(one, one) is None
    found = figures.of_turns(one)
    assert (found["counted"], found["failed"], found["first_turn_ratio"]) == (0, 1, None)


def test_all_is_said_once_before_it_is_said_again() -> None:
    said = [a_tone(ms) for ms in (200, 300, 400)]
    order = in_order(said, Random(3))
    for _ in range(4):
        assert {next(order).name for _ in said} == {one.name for one in said}
