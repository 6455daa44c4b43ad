from __future__ import annotations

import asyncio
import logging
import threading
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.audio.formats import ALAW_8K, PCM16_24K, ULAW_8K, Format, pcm16
from vivavoce.client.player import Heard, Player, VirtualPlayer
from vivavoce.client.playlist import ITEMS_MAX, Playlist
from vivavoce.testing.virtual_time import run


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def pass_ms(self, ms: float) -> None:
        self.now_s += ms / 1000


def sound(ms: int, format: Format = PCM16_24K, first: int = 1) -> bytes:
    """Audio in which no two neighbouring bytes are alike."""
    return bytes((first + at) % 251 for at in range(format.bytes_of(ms)))


def test_b7_the_playhead_is_exact_to_the_sample() -> None:
    clock = Clock()
    player: Player = VirtualPlayer(clock)
    assert not player.is_playing
    player.play("item_1", sound(100), PCM16_24K)
    assert player.is_playing
    clock.now_s += 1001 / 24_000
    assert player.stop() == (Heard("item_1", 1001),)
    assert not player.is_playing
    assert player.stop() == ()


def test_a_sample_is_heard_when_it_was_played_to_its_end() -> None:
    clock = Clock()
    player = VirtualPlayer(clock)
    player.play("item_1", sound(100), PCM16_24K)
    clock.now_s += 10.9 / 24_000
    assert player.heard("item_1") == 10
    for _ in range(7):  # in floating point they are a little less than 70 ms
        clock.pass_ms(10)
    clock.now_s -= 10.9 / 24_000
    assert player.heard("item_1") == 1_680


def test_several_items_are_played_in_a_row_and_the_one_playing_is_named_first() -> None:
    clock = Clock()
    player = VirtualPlayer(clock)
    player.play("item_1", sound(40), PCM16_24K)
    player.play("item_2", sound(60), PCM16_24K)
    player.play("item_3", sound(20), PCM16_24K)
    clock.pass_ms(50)
    assert player.heard("item_1") == 960
    assert player.stop() == (Heard("item_2", 240), Heard("item_3", 0))


def test_an_item_that_was_played_to_its_end_is_not_unfinished() -> None:
    clock = Clock()
    player = VirtualPlayer(clock)
    player.play("item_1", sound(40), PCM16_24K)
    clock.pass_ms(40)
    assert not player.is_playing
    assert player.stop() == ()
    assert player.heard("item_1") == 960


def test_audio_that_comes_after_the_queue_ran_dry_begins_when_it_comes() -> None:
    clock = Clock()
    player = VirtualPlayer(clock)
    player.play("item_1", sound(20), PCM16_24K)
    clock.pass_ms(500)
    player.play("item_1", sound(100), PCM16_24K)
    clock.pass_ms(30)
    assert player.stop() == (Heard("item_1", 480 + 720),)


def test_more_of_an_item_goes_with_it_while_it_has_not_been_passed() -> None:
    clock = Clock()
    player = VirtualPlayer(clock, keep_s_max=10)
    player.play("item_1", sound(20), PCM16_24K)
    player.play("item_2", sound(20), PCM16_24K)
    player.play("item_1", sound(20), PCM16_24K)
    clock.pass_ms(30)
    assert player.heard("item_1") == 720
    clock.pass_ms(30)
    player.play("item_1", sound(10), PCM16_24K)
    clock.pass_ms(10)
    assert not player.is_playing
    assert player.played == {"item_1": sound(20) * 2 + sound(10), "item_2": sound(20)}


@pytest.mark.parametrize("format", [ULAW_8K, ALAW_8K])
def test_g711_is_counted_in_its_own_samples(format: Format) -> None:
    clock = Clock()
    player = VirtualPlayer(clock)
    player.play("item_1", sound(100, format), format)
    clock.now_s += (8 * 33 + 0.7) / 8_000
    assert player.stop() == (Heard("item_1", 264),)


def test_items_of_two_formats_follow_one_another_without_a_gap() -> None:
    clock = Clock()
    player = VirtualPlayer(clock)
    player.play("item_1", sound(10, ULAW_8K), ULAW_8K)
    player.play("item_2", sound(10), PCM16_24K)
    clock.now_s += (240 + 7) / 24_000
    assert player.stop() == (Heard("item_2", 7),)


def test_late_audio_of_a_stopped_item_is_dropped() -> None:
    clock = Clock()
    player = VirtualPlayer(clock)
    player.play("item_1", sound(20), PCM16_24K)
    clock.pass_ms(20)
    player.play("item_2", sound(40), PCM16_24K)
    clock.pass_ms(10)
    player.stop()
    for late in ("item_1", "item_2"):  # one had run dry, the other was cut
        player.play(late, sound(40), PCM16_24K)
    assert not player.is_playing
    player.play("item_3", sound(40), PCM16_24K)
    clock.pass_ms(10)
    assert player.stop() == (Heard("item_3", 240),)
    assert player.heard("item_2") == 240


def test_audio_may_be_cut_within_a_sample() -> None:
    clock = Clock()
    player = VirtualPlayer(clock, keep_s_max=1)
    audio = sound(20)
    for cut in (audio[:333], audio[333:334], audio[334:]):
        player.play("item_1", cut, PCM16_24K)
    clock.pass_ms(20)
    assert player.played == {"item_1": audio}


def test_beyond_its_limit_it_drops_the_rest_of_the_item_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    player = VirtualPlayer(clock, queued_s_max=0.1, keep_s_max=10)
    with caplog.at_level(logging.WARNING, "vivavoce"):
        player.play("item_1", sound(150), PCM16_24K)
    assert "item_1" in caplog.text
    assert player.dropped_samples == PCM16_24K.samples(50)
    assert player.remaining_s == pytest.approx(0.1)
    clock.pass_ms(50)
    player.play("item_1", sound(20), PCM16_24K)  # there is room again, but what is heard has no hole
    player.play("item_2", sound(20), PCM16_24K)
    clock.pass_ms(1_000)
    assert player.played == {"item_1": sound(150)[: PCM16_24K.bytes_of(100)], "item_2": sound(20)}


def test_what_is_kept_of_what_was_played_has_a_limit() -> None:
    clock = Clock()
    player = VirtualPlayer(clock, keep_s_max=0.03)
    player.play("item_1", sound(20), PCM16_24K)
    player.play("item_2", sound(20), PCM16_24K)
    clock.pass_ms(1_000)
    assert player.played == {"item_1": sound(20), "item_2": sound(10)}


def test_the_number_of_items_has_a_limit() -> None:
    playlist = Playlist()
    for at in range(ITEMS_MAX + 3):
        playlist.add(f"item_{at}", b"\1\1", PCM16_24K)
    assert playlist.dropped_samples == 3
    assert len(playlist.stop()) == ITEMS_MAX
    for at in range(ITEMS_MAX):  # one after the other, each played at once: the oldest are forgotten
        playlist.add(f"later_{at}", b"\1\1", PCM16_24K)
        assert playlist.take(10) is not None
    assert playlist.taken("item_0") == 0
    assert playlist.taken(f"later_{ITEMS_MAX - 1}") == 1


def test_what_it_cannot_play_it_refuses_by_name() -> None:
    player = VirtualPlayer(Clock())
    with pytest.raises(ValueError, match="44100"):
        player.play("item_1", b"\0\0", pcm16(44_100))
    player.play("item_1", b"\0\0", PCM16_24K)
    with pytest.raises(ValueError, match="item_1"):
        player.play("item_1", b"\0", ULAW_8K)
    with pytest.raises(ValueError, match="queued_s_max"):
        VirtualPlayer(queued_s_max=0)


def test_without_a_clock_it_plays_by_the_running_loop() -> None:
    player = VirtualPlayer()
    assert not player.is_playing

    async def conversation() -> None:
        await asyncio.sleep(3)
        player.play("item_1", sound(100), PCM16_24K)
        asked: list[bool] = []
        thread = threading.Thread(target=lambda: asked.append(player.is_playing))
        thread.start()
        thread.join()
        assert asked == [True]
        await asyncio.sleep(0.04)
        assert player.stop() == (Heard("item_1", 960),)

    run(conversation())


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2_000)), max_size=12),
    st.lists(st.integers(0, 1_500), min_size=1, max_size=12),
)
def test_asking_never_changes_what_is_heard(audio: list[tuple[int, int]], steps: list[int]) -> None:
    """All audio at once: however often it is asked, it is heard sample after sample, item after item."""
    clock = Clock()
    asked, silent = VirtualPlayer(clock), VirtualPlayer(clock)
    lengths: dict[str, int] = {}
    for item, samples in audio:
        for player in (asked, silent):
            player.play(f"item_{item}", bytes(2 * samples), PCM16_24K)
        if samples:
            lengths[f"item_{item}"] = lengths.get(f"item_{item}", 0) + samples
    for step in steps:
        clock.now_s += step / 24_000
        asked.is_playing  # noqa: B018 - that it is asked is the point
    due, unfinished = sum(steps), []
    for end, (item_id, samples) in zip(accumulate(lengths.values()), lengths.items(), strict=True):
        if end > due:
            unfinished.append(Heard(item_id, max(due - (end - samples), 0)))
    assert asked.stop() == silent.stop() == tuple(unfinished)
