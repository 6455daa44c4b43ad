"""Order and time of what Twilio says; where the playback is at the far end."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.bridge.phone import Ordering, Playhead, Timeline
from vivavoce.bridge.phone.messages import AnyMessage, Dtmf, Key, Mark, Media, Name, Other, Sound, encode, parse
from vivavoce.bridge.phone.ordering import GAP_MS_MAX, HELD_MAX, SILENCE
from vivavoce.bridge.phone.playhead import ECHO_S_MAX, MARK_LOST_S, MARKS_MAX, SLACK_S
from vivavoce.errors import RemoteProtocolError


def numbered(number: int) -> Dtmf:
    return Dtmf(sequence_number=str(number), stream_sid="MZ1", dtmf=Key(digit="1"))


def numbers(messages: Iterable[AnyMessage]) -> list[int]:
    return [message.number for message in messages]


def sound(at_ms: int | None, ms: int = 20) -> Sound:
    return Sound(timestamp="" if at_ms is None else str(at_ms), payload=b"\x00" * (ms * 8))


# --- order ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, HELD_MAX - 1), max_size=60))
def test_what_is_shuffled_by_less_than_is_held_comes_in_order_and_once(delays: list[int]) -> None:
    shuffled = sorted(range(1, len(delays) + 1), key=lambda number: (number + delays[number - 1], number))
    ordering, out = Ordering(), list[int]()
    for number in shuffled:
        out += numbers(ordering.push(numbered(number)))
        out += numbers(ordering.push(numbered(number)))  # and once more
    assert out == list(range(1, len(delays) + 1))
    assert (ordering.lost, ordering.late) == (0, len(delays))


@given(st.lists(st.integers(1, 100), max_size=100))
def test_whatever_comes_goes_out_once_and_in_order(arriving: list[int]) -> None:
    ordering, out = Ordering(), list[int]()
    for number in arriving:
        out += numbers(ordering.push(numbered(number)))
        assert len(ordering._held) <= HELD_MAX
    out += numbers(ordering.flush())
    assert out == sorted(set(out))
    assert len(out) + ordering.late == len(arriving)


def test_what_is_lost_is_waited_for_until_enough_has_come_after_it() -> None:
    ordering = Ordering()
    assert numbers(ordering.push(numbered(1))) == [1]
    for number in range(3, 3 + HELD_MAX):
        assert numbers(ordering.push(numbered(number))) == []
    assert numbers(ordering.push(numbered(3 + HELD_MAX))) == list(range(3, 4 + HELD_MAX))
    assert numbers(ordering.push(numbered(2))) == []
    assert (ordering.lost, ordering.late) == (1, 1)


def test_messages_without_numbers_pass() -> None:
    ordering = Ordering()
    assert list(ordering.push(Dtmf(dtmf=Key(digit="1")))) == [Dtmf(dtmf=Key(digit="1"))]


# --- time -------------------------------------------------------------------------------------------------------------


def test_audio_without_gaps_is_not_touched() -> None:
    timeline = Timeline()
    assert b"".join(timeline.push(sound(at)) for at in range(500, 900, 20)) == sound(0, 400).payload


def test_a_gap_is_silence_of_its_length() -> None:
    timeline = Timeline()
    timeline.push(sound(0))
    assert timeline.push(sound(120)) == SILENCE * 800 + sound(0).payload
    assert timeline.push(sound(140)) == sound(0).payload
    assert timeline.silence_ms == 100


def test_uneven_timestamps_are_no_gap() -> None:
    timeline = Timeline()
    assert all(timeline.push(sound(at)) == sound(0).payload for at in (0, 35, 41, 60, 95, None))


def test_a_gap_that_is_too_long_is_shortened_once() -> None:
    timeline = Timeline()
    timeline.push(sound(0))
    assert len(timeline.push(sound(60_000))) == (GAP_MS_MAX + 20) * 8
    assert timeline.push(sound(60_020)) == sound(0).payload
    assert timeline.silence_ms + timeline.skipped_ms == 60_000 - 20


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_the_audio_is_as_long_as_its_timestamps_say(arrived: list[bool]) -> None:
    timeline, at, last = Timeline(), 0, None
    for number, is_there in enumerate(arrived):
        if is_there:
            last = number
            at += len(timeline.push(sound(number * 20))) // 8
    first = arrived.index(True) if True in arrived else 0
    expected = 0 if last is None else (last + 1 - first) * 20
    assert expected - 40 < at <= expected


# --- where the playback is --------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def playhead(clock: Clock) -> Playhead:
    """One that knows that an echo takes 0.2 s."""
    playhead = Playhead(clock)
    playhead.expect("probe", playhead())
    clock.s += 0.2
    assert playhead.echoed("probe")
    assert playhead.echo_s == pytest.approx(0.2)
    return playhead


def test_the_clock_goes_on_by_itself(clock: Clock, playhead: Playhead) -> None:
    begun = playhead()
    clock.s += 3
    assert playhead() - begun == pytest.approx(3)


def test_a_mark_in_time_changes_nothing(clock: Clock, playhead: Playhead) -> None:
    begun = playhead()
    playhead.expect("one", begun + 0.1)
    clock.s += 0.3
    assert playhead() - begun == pytest.approx(0.3)
    assert playhead.echoed("one")
    assert playhead() - begun == pytest.approx(0.3)
    assert playhead.is_heard_out


def test_the_clock_is_held_where_the_playback_must_be_late(clock: Clock, playhead: Playhead) -> None:
    begun = playhead()
    playhead.expect("one", begun + 0.1)
    clock.s += 2
    assert playhead() - begun == pytest.approx(0.1 + 0.2 + SLACK_S)
    assert playhead.echoed("one")  # reached 0.2 s ago, as an echo takes that long
    assert playhead() - begun == pytest.approx(0.1 + 0.2 + SLACK_S)
    clock.s += 1
    assert playhead() - begun == pytest.approx(0.1 + 0.2 + 1)


def test_a_playback_that_is_a_little_late_is_known_from_its_marks(clock: Clock, playhead: Playhead) -> None:
    """Such as one that holds 0.1 s back at the beginning; of an uneven way back the quickest counts."""
    playhead.expect("probe 2", playhead())
    begun = playhead()
    for number in range(1, 6):
        playhead.expect(str(number), begun + number / 10)
    clock.s += 0.2
    playhead.echoed("probe 2")
    clock.s += 0.1
    for number, uneven_s in enumerate((0.02, 0.01, 0.0, 0.03, 0.02), 1):
        clock.s = 100.2 + number / 10 + 0.1 + 0.2 + uneven_s
        playhead.echoed(str(number))
        if number >= 3:
            assert playhead() - begun == pytest.approx(clock.s - 100.2 - 0.1)


def test_the_clock_is_pushed_where_a_mark_is_early(clock: Clock, playhead: Playhead) -> None:
    begun = playhead()
    playhead.expect("one", begun + 5)
    clock.s += 1
    playhead.echoed("one")
    assert playhead() - begun == pytest.approx(5)


def test_marks_before_one_that_comes_back_are_reached_too(clock: Clock, playhead: Playhead) -> None:
    for number in range(3):
        playhead.expect(str(number), playhead() + number / 10)
    assert playhead.echoed("1")
    assert not playhead.echoed("0")
    assert not playhead.is_heard_out


def test_marks_of_what_was_cleared_say_nothing(clock: Clock, playhead: Playhead) -> None:
    begun = playhead()
    playhead.expect("one", begun + 5)
    playhead.clear()
    assert not playhead.echoed("one")
    assert playhead() == begun


def test_before_anything_is_known_an_echo_may_take_long(clock: Clock) -> None:
    playhead = Playhead(clock)
    begun = playhead()
    playhead.expect("one", begun + 0.1)
    playhead.expect("two", begun + 0.2)
    clock.s += 3
    assert playhead() - begun == pytest.approx(0.1 + ECHO_S_MAX)


def test_a_mark_that_never_comes_is_given_up(clock: Clock, playhead: Playhead) -> None:
    begun = playhead()
    playhead.expect("one", begun)
    playhead.expect("two", begun + 0.1)
    clock.s += 0.1 + MARK_LOST_S + 0.2 + SLACK_S + 0.01
    assert playhead() - begun == pytest.approx(clock.s - 100.2)
    assert playhead.lost_marks == 2
    assert playhead.is_heard_out


def test_marks_are_bounded(clock: Clock, playhead: Playhead) -> None:
    for number in range(MARKS_MAX + 5):
        playhead.expect(str(number), playhead() + 1)
    assert playhead.lost_marks == 5
    assert not playhead.echoed("4")
    assert playhead.echoed("5")


@given(st.lists(st.tuples(st.floats(0, 2), st.sampled_from(["expect", "echo", "clear", "look"])), max_size=60))
def test_the_clock_never_runs_backwards(steps: list[tuple[float, str]]) -> None:
    clock = Clock()
    playhead, seen, sent = Playhead(clock), [0.0], 0
    for seconds, what in steps:
        clock.s += seconds
        match what:
            case "expect":
                sent += 1
                playhead.expect(str(sent), playhead() + seconds)
            case "echo":
                playhead.echoed(str(max(sent - 1, 1)))
            case "clear":
                playhead.clear()
        seen.append(playhead())
    assert seen == sorted(seen)


# --- the vocabulary ---------------------------------------------------------------------------------------------------


def test_messages_are_written_as_twilio_has_them() -> None:
    assert encode(Media(stream_sid="MZ1", media=Sound(payload=b"\xff\x7f"))) == (
        b'{"event":"media","streamSid":"MZ1","media":{"payload":"/38="}}'
    )
    assert encode(Mark(stream_sid="MZ1", mark=Name(name="a"))) == (
        b'{"event":"mark","streamSid":"MZ1","mark":{"name":"a"}}'
    )


def test_a_message_of_twilio_is_read() -> None:
    frame = (
        '{"event":"media","sequenceNumber":"4","streamSid":"MZ1","media":'
        '{"track":"inbound","chunk":"2","timestamp":"5","payload":"/38="}}'
    )
    message = parse(frame)
    assert isinstance(message, Media)
    assert (message.number, message.media.at_ms, message.media.payload) == (4, 5, b"\xff\x7f")


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        ("", "in JSON"),
        ("[1]", "message"),
        ('{"event":"media","media":{}}', "media.*payload"),
        ('{"event":"mark","mark":{"name":1}}', "mark.*name"),
        ('{"event":"start","start":{"customParameters":{"a":1},"callSid":"CA1"}}', "start.*customParameters"),
    ],
)
def test_what_cannot_be_read_is_said(frame: str, what: str) -> None:
    with pytest.raises(RemoteProtocolError, match=what):
        parse(frame)


def test_other_kinds_count_and_say_nothing() -> None:
    assert parse('{"event":"weather","sequenceNumber":"3","wind":1}') == Other(sequence_number="3")
