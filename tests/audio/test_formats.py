import pytest

from vivavoce.audio.formats import ALAW_8K, PCM16_24K, ULAW_8K, pcm16


@pytest.mark.parametrize(
    ("layout", "ms", "samples", "size"),
    [(PCM16_24K, 100, 2_400, 4_800), (pcm16(16_000), 20, 320, 640), (ULAW_8K, 20, 160, 160), (ALAW_8K, 1, 8, 8)],
)
def test_ms_samples_and_bytes_agree(layout, ms, samples, size):
    assert layout.samples(ms) == samples
    assert layout.ms(samples) == ms
    assert layout.bytes_of(ms) == size
    assert layout.duration_ms(bytes(size)) == ms


def test_what_is_no_whole_millisecond_is_rounded_down():
    assert pcm16(22_050).samples(1) == 22
    assert PCM16_24K.ms(23) == 0
    assert PCM16_24K.duration_ms(bytes(49)) == 1
