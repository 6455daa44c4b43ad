"""A language model's 4-bit weights (Q4_1) written anew with 8 bits (Q8_0), which llama.cpp reads prompts faster with.

It has fast products of matrices for Q8_0 on CPUs and none for Q4_1; writing an answer takes as long as before. The file
is made once and kept in the user's cache, since it is larger than what a package would carry. Its digest lies beside
it, with the size and time of the file that was compared with it. Invariants: every value is what it was to within 1/254
of the greatest of its 32; a file that is used is the one that was made; without a cache nothing is lost but that time.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from vivavoce.engines.gguf import Layout, layout_of
from vivavoce.engines.weights import library

__all__ = ["cache_folder", "requantized"]

Q4_1, Q8_0 = 3, 8
"""Types of tensors, as GGUF numbers them."""
BLOCK = 32
"""Values that share a scale."""
Q4_1_BYTES, Q8_0_BYTES = 20, 34
"""A block: scale and least value in half precision, then nibbles; or scale, then bytes."""
ROWS = 1 << 16
"""Blocks that are in memory at once."""

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where this user's programs keep what they can make anew; `VIVAVOCE_CACHE` says otherwise."""
    if named := os.environ.get("VIVAVOCE_CACHE"):
        return Path(named)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "vivavoce" / "cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "vivavoce"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "vivavoce"


def requantized(path: Path, name: str, folder: Path) -> Path:
    """The file `name` in `folder`, made from the GGUF file at `path` if it is not there; `path` where that cannot be.

    Takes a second or two and some MB of memory the first time: call it in a thread. `name` must stand for what is in
    `path`. Raises `ValueError` where `path` is no GGUF file that can be read.
    """
    wanted = folder / name
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        old = layout_of(data)
        new = _with_q8_0(old)
        if _is_made(wanted, new.size):
            return wanted
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _replacing(wanted) as out:
                _write(out, data, old, new)
            _record(wanted, _digest(wanted))
        except OSError as error:
            log.info("%s is used as it is, since %s cannot be written: %s", path.name, wanted, error)
            return path
    return wanted


def _is_made(path: Path, size: int) -> bool:
    """Whether it is the file that was made. It is read only where its time or size says that it was touched since."""
    try:
        digest, *stamp = _beside(path).read_text(encoding="ascii").split()
        if path.stat().st_size != size:
            return False
        if stamp != _stamp(path):
            if _digest(path) != digest:
                log.warning("%s is not what was written there; it is made anew", path)
                return False
            with suppress(OSError):  # else it is read again the next time
                _record(path, digest)
    except (OSError, ValueError):
        return False
    return True


def _record(path: Path, digest: str) -> None:
    with _replacing(_beside(path)) as out:
        out.write(" ".join((digest, *_stamp(path))).encode("ascii"))


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _stamp(path: Path) -> list[str]:
    found = path.stat()
    return [str(found.st_size), str(found.st_mtime_ns)]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of the one at `path` once it is whole."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with open(handle, "wb") as out:
            yield out
        Path(part).replace(path)
    finally:
        with suppress(OSError):
            Path(part).unlink()


def _with_q8_0(old: Layout) -> Layout:
    """The same tensors at their new places."""
    tensors, at = [], 0
    for tensor in old.tensors:
        is_changed = tensor.kind == Q4_1
        size = tensor.values // BLOCK * Q8_0_BYTES if is_changed else tensor.size
        tensors.append(replace(tensor, kind=Q8_0 if is_changed else tensor.kind, at=at, size=size))
        at += size + -size % old.alignment
    return Layout(old.metadata_end, old.alignment, tuple(tensors))


def _write(out: BinaryIO, data: mmap.mmap, old: Layout, new: Layout) -> None:
    out.write(data[: old.metadata_end])
    for tensor in new.tensors:
        name = tensor.name.encode()
        out.write(struct.pack("<Q", len(name)) + name + struct.pack("<I", len(tensor.shape)))
        out.write(struct.pack(f"<{len(tensor.shape)}QIQ", *tensor.shape, tensor.kind, tensor.at))
    for before, after in zip(old.tensors, new.tensors, strict=True):
        out.write(bytes(-out.tell() % new.alignment))
        begin = old.begin + before.at
        if before.kind == after.kind:
            out.write(data[begin : begin + before.size])
        else:
            for blocks in _pieces(data, begin, before.size):
                out.write(blocks)
    out.write(bytes(-out.tell() % new.alignment))


def _pieces(data: mmap.mmap, begin: int, size: int) -> Iterator[bytes]:
    step = ROWS * Q4_1_BYTES
    for at in range(begin, begin + size, step):
        yield q8_0(q4_1(data[at : min(at + step, begin + size)]))


def q4_1(blocks: bytes) -> Any:
    """The values of blocks of Q4_1, 32 a row, as float32."""
    numpy = library("numpy")
    rows = numpy.frombuffer(blocks, numpy.uint8).reshape(-1, Q4_1_BYTES)
    scale, least = rows[:, :4].copy().view(numpy.float16).astype(numpy.float32).T[:, :, None]
    nibbles = numpy.concatenate([rows[:, 4:] & 15, rows[:, 4:] >> 4], axis=1)
    return nibbles * scale + least


def q8_0(values: Any) -> bytes:
    """Rows of 32 values as blocks of Q8_0."""
    numpy = library("numpy")
    scale = (numpy.abs(values).max(axis=1, keepdims=True) / 127).astype(numpy.float16)
    exact = scale.astype(numpy.float32)
    steps = numpy.rint(values / numpy.where(exact > 0, exact, 1)).clip(-127, 127).astype(numpy.int8)
    return bytes(numpy.concatenate([scale.view(numpy.uint8), steps.view(numpy.uint8)], axis=1).tobytes())
