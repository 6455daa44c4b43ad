"""WAV files in and out: any PCM file becomes PCM16 mono, and PCM16 mono becomes a file.

Reads 8, 16, 24 and 32 bit integers and 32 bit floats, any rate, any number of channels (their mean), also in the
extensible header, which the standard library reads only from Python 3.12 on, and files cut short or of unstated length,
as they come out of pipes. What cannot be read raises `ValueError`, which says why. For whole files, not for streams.
"""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE


class _Layout(NamedTuple):
    tag: int
    channels: int
    rate_hz: int
    bits: int


def read(source: str | Path | bytes | BinaryIO) -> tuple[bytes, int]:
    """PCM16 mono and its sample rate in Hz, from a path, from the bytes of a file or from an open binary file.

    Raises `ValueError` for what is no WAV file of samples, and `OSError` where the path cannot be opened.
    """
    if isinstance(source, (str, Path)):
        source = Path(source).read_bytes()
    layout, data = _chunks(source if isinstance(source, bytes) else source.read())
    width = layout.bits // 8 * layout.channels
    samples = _samples(data[: len(data) // width * width], layout)
    mono = samples.reshape(-1, layout.channels).mean(axis=1)
    return bytes(np.rint(mono).clip(-32_768, 32_767).astype("<i2").tobytes()), layout.rate_hz


def _chunks(file: bytes) -> tuple[_Layout, bytes]:
    if len(file) < 12 or file[:4] != b"RIFF" or file[8:12] != b"WAVE":
        raise ValueError("not a WAV file: it does not begin with a RIFF header of type WAVE")
    layout, position = None, 12
    while position + 8 <= len(file):
        name, size = file[position : position + 4], int.from_bytes(file[position + 4 : position + 8], "little")
        body = file[position + 8 : position + 8 + size]
        if name == b"fmt ":
            layout = _layout(body)
        elif name == b"data":
            if layout is None:
                raise ValueError("not a WAV file: its data comes before the description of its format")
            return layout, body
        position += 8 + size + size % 2
    raise ValueError("not a whole WAV file: it has no data")


def _layout(body: bytes) -> _Layout:
    if len(body) < 16:
        raise ValueError("not a whole WAV file: the description of its format is too short")
    tag, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and len(body) >= 26:
        tag = int.from_bytes(body[24:26], "little")
    if (tag, bits) not in ((_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32)):
        raise ValueError(
            f"a WAV file of format {tag} with {bits} bits; expected PCM of 8, 16, 24 or 32 bits, or floats"
        )
    if channels == 0 or rate_hz == 0:
        raise ValueError(f"a WAV file that states {channels} channels and a sample rate of {rate_hz} Hz")
    return _Layout(tag, channels, rate_hz, bits)


def _samples(data: bytes, layout: _Layout) -> NDArray[np.float64]:
    """The samples on the scale of 16 bits."""
    if layout.tag == _FLOAT:
        return np.nan_to_num(np.frombuffer(data, "<f4").astype(np.float64)) * 32_768
    if layout.bits == 8:
        return (np.frombuffer(data, np.uint8).astype(np.float64) - 128) * 256
    if layout.bits == 16:
        return np.frombuffer(data, "<i2").astype(np.float64)
    if layout.bits == 32:
        return np.frombuffer(data, "<i4").astype(np.float64) / 65_536
    wide = np.zeros((len(data) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return wide.view("<i4").reshape(-1).astype(np.float64) / 65_536


def write(target: str | Path | BinaryIO, pcm16: bytes, rate_hz: int) -> None:
    """Write PCM16 mono as a WAV file. Raises `ValueError` for half a sample."""
    if len(pcm16) % 2:
        raise ValueError(f"PCM16 comes in samples of 2 bytes, and {len(pcm16)} bytes are not whole samples")
    with wave.open(str(target) if isinstance(target, Path) else target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(pcm16)


def encoded(pcm16: bytes, rate_hz: int) -> bytes:
    """PCM16 mono as the bytes of a WAV file."""
    file = io.BytesIO()
    write(file, pcm16, rate_hz)
    return file.getvalue()
