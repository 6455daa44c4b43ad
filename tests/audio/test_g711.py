import hashlib

import numpy as np
import pytest

from vivavoce.audio import g711

ALL_CODES = bytes(range(256))
ALL_SAMPLES = np.arange(65_536).astype("<u2").tobytes()


def pcm(*samples: int) -> bytes:
    return np.array(samples, "<i2").tobytes()


@pytest.mark.parametrize(
    ("law", "code", "sample"),
    [
        ("ulaw", 0xFF, 0),
        ("ulaw", 0x7F, 0),
        ("ulaw", 0xFE, 8),
        ("ulaw", 0x7E, -8),
        ("ulaw", 0xF0, 120),
        ("ulaw", 0xEF, 132),
        ("ulaw", 0x80, 32_124),
        ("ulaw", 0x00, -32_124),
        ("alaw", 0xD5, 8),
        ("alaw", 0x55, -8),
        ("alaw", 0xC5, 264),
        ("alaw", 0xAA, 32_256),
        ("alaw", 0x2A, -32_256),
    ],
)
def test_a_code_stands_for_the_sample_of_the_standard(law, code, sample):
    assert g711.decode(bytes([code]), law) == pcm(sample)


@pytest.mark.parametrize(
    ("law", "sample", "code"),
    [
        ("ulaw", 3, 0xFF),
        ("ulaw", 4, 0xFE),  # the first decision value, on the upper side
        ("ulaw", -4, 0x7F),  # one's complement: still the first step
        ("ulaw", -5, 0x7E),
        ("ulaw", 123, 0xF0),
        ("ulaw", 124, 0xEF),  # the first step of the second segment
        ("ulaw", 32_767, 0x80),
        ("ulaw", -32_768, 0x00),
        ("alaw", 15, 0xD5),
        ("alaw", 16, 0xD4),
        ("alaw", -16, 0x55),
        ("alaw", -17, 0x54),
        ("alaw", 256, 0xC5),
        ("alaw", 512, 0xF5),
        ("alaw", 32_767, 0xAA),
        ("alaw", -32_768, 0x2A),
    ],
)
def test_a_sample_takes_the_code_of_the_standard(law, sample, code):
    assert g711.encode(pcm(sample), law) == bytes([code])


@pytest.mark.parametrize("law", ["ulaw", "alaw"])
def test_every_code_survives_the_way_there_and_back(law):
    codes = g711.encode(g711.decode(ALL_CODES, law), law)
    # µ-law has two zeros, and the negative one comes back as the positive one.
    assert codes == (ALL_CODES.replace(b"\x7f", b"\xff") if law == "ulaw" else ALL_CODES)


@pytest.mark.parametrize("law", ["ulaw", "alaw"])
def test_the_error_is_at_most_half_a_step(law):
    samples = np.frombuffer(ALL_SAMPLES, "<i2").astype(int)
    heard = np.frombuffer(g711.decode(g711.encode(ALL_SAMPLES, law), law), "<i2").astype(int)
    within = np.abs(samples) < 32_000  # above, everything is the loudest step
    assert np.all(np.abs(heard - samples)[within] <= np.maximum(16, np.abs(samples)[within] / 16))


def test_the_alaw_table_is_that_of_other_implementations():
    # Of the 65,536 codes that the C code in Python 3.11's audioop module makes.
    digest = hashlib.sha256(g711.encode(ALL_SAMPLES, "alaw")).hexdigest()
    assert digest == "f77c76aa923ee25617453f87514828a12896227f82ff383bf3bb53d6ac7c2a0f"


def test_half_a_sample_is_refused():
    with pytest.raises(ValueError, match="multiple"):
        g711.encode(b"\0\0\0", "ulaw")


@pytest.mark.parametrize("law", ["ulaw", "alaw"])
def test_nothing_stays_nothing(law):
    assert g711.encode(b"", law) == b""
    assert g711.decode(b"", law) == b""
