"""When an answer may begin: what is there lasts until there is more, at the speed at which it is written and spoken."""

from __future__ import annotations

import pytest

from vivavoce.server.ahead import READY_S_MAX, Ahead


def begun(chars_per_s: float, seconds: float, phrase: int = 25, phrase_s: float = 1.5) -> Ahead:
    """An answer of which the first phrase has been spoken at the end of `seconds` of writing, in no time."""
    ahead = Ahead(0.0)
    ahead.wrote(1, 0.0)
    ahead.wrote(round(chars_per_s * seconds), seconds)
    ahead.asked(phrase, seconds)
    ahead.made(phrase_s, seconds)
    ahead.spoken()
    return ahead


def test_what_is_written_fast_begins_at_once() -> None:
    assert begun(220, 0.15).may_begin(0.15)


def test_what_is_written_slower_waits_until_the_next_phrase_is_nearly_written() -> None:
    ahead = begun(30, 1.0)
    assert not ahead.may_begin(1.0)
    assert ahead.next_due(1.0) is None
    ahead.wrote(30, 2.0)
    assert not ahead.may_begin(2.0)
    ahead.wrote(30, 3.0)
    assert ahead.may_begin(3.0)
    assert ahead.next_due(3.0) == pytest.approx(4.3), (
        "before it runs out, by what is kept for whatever else the cores do"
    )


def test_a_phrase_that_waits_for_its_speech_needs_no_more_text() -> None:
    ahead = begun(60, 0.5)
    ahead.asked(90, 0.5)
    assert ahead.may_begin(0.5)


def test_a_slow_voice_is_waited_for() -> None:
    ahead = Ahead(0.0)
    ahead.wrote(100, 0.0)
    ahead.written()
    ahead.asked(25, 0.0)
    ahead.asked(75, 0.0)
    ahead.made(1.5, 1.0)
    ahead.spoken()
    assert not ahead.may_begin(1.0), "it took a second for the first phrase, and the next is longer"
    ahead.made(2.0, 2.0)
    assert ahead.may_begin(2.0), "there is a begin of the last one, and the rest of it comes by itself"


def test_the_end_of_the_text_lets_it_begin() -> None:
    ahead = begun(10, 2.5)
    assert not ahead.may_begin(2.5)
    ahead.written()
    assert ahead.may_begin(2.5)


def test_text_that_comes_slower_than_speech_is_waited_for_until_there_is_enough() -> None:
    ahead = begun(12, 2.0)
    now, made_s = 2.0, 1.5
    while not ahead.may_begin(now):
        now += 2.0
        made_s += 1.5
        ahead.wrote(24, now)
        ahead.asked(24, now)
        ahead.made(1.5, now)
        ahead.spoken()
    assert made_s == READY_S_MAX + 0.5, "what it may hold at most"


def test_nothing_begins_before_there_is_a_sound() -> None:
    ahead = Ahead(0.0)
    ahead.wrote(300, 0.0)
    ahead.written()
    ahead.asked(300, 0.0)
    assert not ahead.may_begin(100.0)


def test_after_a_gap_the_listener_goes_on_from_there() -> None:
    ahead = begun(220, 0.15)
    assert ahead.may_begin(0.15)
    assert ahead.next_due(1.0) == pytest.approx(1.45)
    assert ahead.next_due(9.0) == 9.0, "it has run out"
    ahead.asked(20, 9.0)
    ahead.made(2.0, 10.0)
    assert ahead.next_due(10.0) == pytest.approx(11.8)


def test_a_slow_voice_is_asked_for_the_next_phrase_earlier() -> None:
    ahead = Ahead(0.0)
    ahead.wrote(200, 0.0)
    ahead.written()
    ahead.asked(50, 0.0)
    ahead.made(3.0, 0.5)
    assert ahead.may_begin(0.5)
    assert ahead.next_due(0.5) == pytest.approx(3.5 - 0.2 - 2 * 0.5)


def test_it_can_be_made_to_begin() -> None:
    ahead = begun(10, 2.5)
    ahead.begin(3.0)
    ahead.begin(4.0)
    assert ahead.may_begin(4.0)
    assert ahead.next_due(4.0) == pytest.approx(4.3)
