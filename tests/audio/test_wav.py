import io
import struct
import wave

import numpy as np
import pytest

from vivavoce.audio import wav

RAMP = np.array([-32_768, -1, 0, 1, 256, 32_767], "<i2")


def file_of(data: bytes, *, tag=1, channels=1, rate=16_000, bits=16, extra=b"", before=b"", size=None) -> bytes:
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits) + extra
    chunks = b"WAVE" + before + b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data"
    chunks += struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def test_what_is_written_is_read(tmp_path):
    for target in (tmp_path / "a.wav", str(tmp_path / "b.wav")):
        wav.write(target, RAMP.tobytes(), 24_000)
        assert wav.read(target) == (RAMP.tobytes(), 24_000)
    with wave.open(str(target)) as file:  # and others read it
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        assert file.readframes(99) == RAMP.tobytes()


def test_bytes_and_open_files_are_read():
    data = wav.encoded(RAMP.tobytes(), 8_000)
    assert wav.read(data) == wav.read(io.BytesIO(data)) == (RAMP.tobytes(), 8_000)


@pytest.mark.parametrize(
    ("data", "layout", "expected"),
    [
        (bytes([0, 127, 128, 255]), {"bits": 8}, [-32_768, -256, 0, 32_512]),
        (b"\x00\x00\x80\xff\xff\x7f\x00\x01\x00", {"bits": 24}, [-32_768, 32_767, 1]),
        (struct.pack("<3i", -(2**31), 2**31 - 1, 65_536), {"bits": 32}, [-32_768, 32_767, 1]),
        (struct.pack("<4f", -1.0, 1.0, 0.5, float("nan")), {"bits": 32, "tag": 3}, [-32_768, 32_767, 16_384, 0]),
        (struct.pack("<4h", 100, 300, -100, 100), {"channels": 2}, [200, 0]),
        (struct.pack("<3h", 7, 8, 9), {"channels": 3}, [8]),
        (b"\x01\x00\x02", {}, [1]),  # half a sample at the end
    ],
)
def test_every_layout_becomes_pcm16_mono(data, layout, expected):
    pcm16, rate_hz = wav.read(file_of(data, **layout))
    assert np.frombuffer(pcm16, "<i2").tolist() == expected
    assert rate_hz == 16_000


def test_the_extensible_header_is_read():
    extra = struct.pack("<HHI", 22, 16, 0) + b"\x01\x00" + bytes(14)
    assert wav.read(file_of(RAMP.tobytes(), tag=0xFFFE, extra=extra))[0] == RAMP.tobytes()


def test_other_chunks_are_passed_over_and_padded():
    before = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    assert wav.read(file_of(RAMP.tobytes(), before=before))[0] == RAMP.tobytes()


def test_a_file_from_a_pipe_states_no_length():
    assert wav.read(file_of(RAMP.tobytes(), size=0xFFFFFFFF))[0] == RAMP.tobytes()


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (b"", "RIFF"),
        (b"ID3" + bytes(40), "RIFF"),
        (b"RIFF\x04\0\0\0WAVE", "no data"),
        (b"RIFF\x04\0\0\0WAVEdata\0\0\0\0", "before the description"),
        (b"RIFF\x04\0\0\0WAVEfmt \x04\0\0\0\x01\0\x01\0", "too short"),
        (file_of(b"", tag=0x55), "format 85 with 16 bits"),
        (file_of(b"", bits=12), "12 bits"),
        (file_of(b"", tag=0xFFFE), "format 65534"),
        (file_of(b"", channels=0), "0 channels"),
        (file_of(b"", rate=0), "0 Hz"),
    ],
)
def test_what_cannot_be_read_is_said(file, says):
    with pytest.raises(ValueError, match=says):
        wav.read(file)


def test_half_a_sample_is_not_written():
    with pytest.raises(ValueError, match="whole samples"):
        wav.encoded(b"\0", 8_000)
