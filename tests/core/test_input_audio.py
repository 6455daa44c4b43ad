"""The input audio buffer and its clock (reference §3.4, §5.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.audio.formats import ALAW_8K, PCM16_24K, ULAW_8K, Format
from vivavoce.core.input_audio import InputAudio, ms_of, ticks_of


@given(st.lists(st.binary(max_size=31), max_size=40), st.sampled_from([PCM16_24K, ULAW_8K, ALAW_8K]))
def test_the_clock_is_exact_however_audio_is_cut(pieces: list[bytes], format: Format) -> None:
    buffer = InputAudio(format)
    new = b"".join(buffer.append(piece) for piece in pieces)
    whole = b"".join(pieces)
    whole = whole[: len(whole) // format.sample_bytes * format.sample_bytes]
    assert new == whole
    assert buffer.end == len(whole) // format.sample_bytes * (24_000 // format.rate_hz)
    assert buffer.take_until(buffer.end) == whole
    assert buffer.start == buffer.end


def test_an_odd_byte_waits_for_the_next_append() -> None:
    buffer = InputAudio(PCM16_24K)
    assert buffer.append(b"abc") == b"ab"
    assert buffer.append(b"d") == b"cd"


def test_audio_can_be_taken_and_forgotten_by_position() -> None:
    buffer = InputAudio(ULAW_8K)
    buffer.append(bytes(range(80)))
    buffer.forget_before(ticks_of(2))
    assert ms_of(buffer.start) == 2
    assert buffer.take_until(ticks_of(4)) == bytes(range(16, 32))
    assert ms_of(buffer.ticks) == 6
    buffer.forget_before(0)
    assert ms_of(buffer.start) == 4


def test_the_clock_goes_on_through_clear_and_change_of_format() -> None:
    buffer = InputAudio(PCM16_24K)
    buffer.append(bytes(4801))
    buffer.clear()
    assert ms_of(buffer.end) == 100
    assert not buffer
    buffer.change_format(ULAW_8K)
    buffer.append(bytes(800))
    assert ms_of(buffer.end) == 200


@pytest.mark.parametrize("tick", [-5, 10**9])
def test_positions_outside_are_clipped(tick: int) -> None:
    buffer = InputAudio(PCM16_24K)
    buffer.append(bytes(480))
    assert len(buffer.take_until(tick)) in (0, 480)
