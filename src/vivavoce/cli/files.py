"""Where the commands save what they heard.

Checked before anything takes long, because an answer that cannot be saved is better refused than lost. Written with the
standard library alone: a base install can save what it hears.
"""

from __future__ import annotations

import os
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vivavoce.audio.formats import PCM16_24K
from vivavoce.errors import VivavoceError

SAMPLE_BYTES = 2


def check_folder(folder: Path) -> None:
    """Raises `VivavoceError` where the folder is not there and cannot be made, or cannot be written to."""
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise VivavoceError(f"cannot save in {folder}: {nearest} is not a folder; name another with --out")
    if not os.access(nearest, os.W_OK):
        raise VivavoceError(f"cannot save in {folder}: {nearest} cannot be written to; name another with --out")


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """A block that writes `path`: its folder is made before. Raises `VivavoceError` where that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise VivavoceError(f"cannot save {path}: {error.strerror or error}; name another place with --out") from error


def write_wav(path: Path, channels: Sequence[bytes]) -> int:
    """Write PCM16 at 24 kHz, one entry for each channel, the shorter ones filled with silence; returns its ms."""
    size = max(len(channel) for channel in channels)
    frames = bytearray(size * len(channels))
    stride = SAMPLE_BYTES * len(channels)
    for number, channel in enumerate(channels):
        padded = channel.ljust(size, b"\0")
        frames[number * SAMPLE_BYTES :: stride] = padded[0::2]
        frames[number * SAMPLE_BYTES + 1 :: stride] = padded[1::2]
    # Opened here, because `wave` leaves an exception behind in a destructor when it cannot open a file.
    with path.open("wb") as target, wave.open(target, "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(SAMPLE_BYTES)
        file.setframerate(PCM16_24K.rate_hz)
        file.writeframes(frames)
    return int(PCM16_24K.duration_ms(bytes(size)))
