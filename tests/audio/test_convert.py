import numpy as np
import pytest

from vivavoce.audio import g711
from vivavoce.audio.convert import Converter, decode, encode
from vivavoce.audio.formats import ALAW_8K, PCM16_24K, ULAW_8K, pcm16
from vivavoce.audio.resample import resample

TONE = np.rint(8_000 * np.sin(np.arange(2_400) / 7)).astype("<i2").tobytes()


@pytest.mark.parametrize("wire", [ULAW_8K, ALAW_8K])
def test_g711_is_decoded_and_encoded_at_its_own_rate(wire):
    coded = encode(TONE, wire)
    assert coded == g711.encode(TONE, wire.encoding)
    assert decode(coded, wire) == g711.decode(coded, wire.encoding)


def test_pcm_stays_as_it_is():
    assert encode(TONE, PCM16_24K) == TONE == decode(TONE, PCM16_24K)


@pytest.mark.parametrize("convert", [lambda: encode(b"\0", PCM16_24K), lambda: decode(b"\0", PCM16_24K)])
def test_half_a_sample_is_refused(convert):
    with pytest.raises(ValueError, match="whole samples"):
        convert()


@pytest.mark.parametrize("chunk", [1, 7, 480, 10_000])
def test_a_stream_to_the_telephone_is_what_the_steps_give(chunk):
    converter = Converter(PCM16_24K, ULAW_8K)
    parts = [converter.push(TONE[at : at + chunk]) for at in range(0, len(TONE), chunk)]
    assert b"".join(parts) + converter.flush() == g711.encode(resample(TONE, 24_000, 8_000), "ulaw")


def test_a_stream_from_the_telephone_lasts_as_long():
    converter = Converter(ALAW_8K, pcm16(16_000))
    coded = g711.encode(TONE, "alaw")
    out = converter.push(coded[:333]) + converter.push(coded[333:]) + converter.flush()
    assert len(out) == 2 * 2 * len(coded)


def test_equal_formats_only_align():
    converter = Converter(PCM16_24K, PCM16_24K)
    assert converter.push(TONE[:5]) == TONE[:4]
    assert converter.push(TONE[5:]) == TONE[4:]
    assert converter.flush() == b""
