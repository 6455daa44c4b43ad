"""What a GGUF file says about its model, read without loading the model.

llama.cpp's server in Python has no call that counts tokens, so the embedded language model builds its tokenizer from
the file's own vocabulary. Only the head of the file is read. Invariant: a damaged head raises `ValueError`, and no
length in it makes this read beyond the file's end.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

__all__ = ["Layout", "Tensor", "layout_of", "metadata"]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
KEYS_MAX = 4_096
NESTING_MAX = 4
"""How deep arrays may lie in arrays."""

TENSORS_MAX = 65_536
DIMENSIONS_MAX = 8
ALIGNMENT, ALIGNMENT_MAX = 32, 4_096
ALIGNMENT_KEY = "general.alignment"
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 12: (256, 144)}
BLOCKS |= {13: (256, 176), 14: (256, 210), 30: (1, 2)}
"""Of each type of tensor that is known here: how many values a block has, and how many bytes."""

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


def metadata(path: Path, wanted: Collection[str]) -> dict[str, Any]:
    """The values of the keys that end with one of `wanted`, by full key; arrays are lists.

    Raises `ValueError` where the file is no GGUF of a version known here, `OSError` where it cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            head, _, count = _begun(data)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        found: dict[str, Any] = {}
        for _ in range(count):
            key = head.text()
            value = head.value(is_wanted=key.endswith(tuple(wanted)))
            if value is not None:
                found[key] = value
        return found


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its type as GGUF numbers it, and where its bytes are, counted from the first of all."""

    name: str
    shape: tuple[int, ...]
    kind: int
    at: int
    size: int

    @property
    def values(self) -> int:
        """How many there are."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything in a file is: `metadata_end` bytes of counts and keys, then the tensors' names, then they."""

    metadata_end: int
    alignment: int
    tensors: tuple[Tensor, ...]

    @property
    def begin(self) -> int:
        """Where the first tensor begins."""
        names = sum(24 + len(one.name.encode()) + 8 * len(one.shape) for one in self.tensors)
        end = self.metadata_end + names
        return end + -end % self.alignment

    @property
    def size(self) -> int:
        """How long the file is, at least to its last tensor."""
        return self.begin + max((one.at + one.size + -one.size % self.alignment for one in self.tensors), default=0)


def layout_of(data: mmap.mmap) -> Layout:
    """Where everything is in a GGUF file. Raises `ValueError` where it is none that is known here, or not whole."""
    head, tensors, keys = _begun(data)
    alignment = ALIGNMENT
    for _ in range(keys):
        value = head.value(is_wanted=True) if head.text() == ALIGNMENT_KEY else head.value(is_wanted=False)
        alignment = alignment if value is None else value
    if tensors > TENSORS_MAX or not 1 <= alignment <= ALIGNMENT_MAX:
        raise ValueError(f"a GGUF file with {tensors} tensors, {alignment} bytes apart, is nothing that is read here")
    metadata_end = head.at
    layout = Layout(metadata_end, alignment, tuple(head.tensor() for _ in range(tensors)))
    for one in layout.tensors:
        if layout.begin + one.at + one.size > len(data):
            raise ValueError(f"the GGUF file ends before its tensor {one.name!r}")
    return layout


def _begun(data: mmap.mmap) -> tuple[_Head, int, int]:
    """Behind the counts: the head, how many tensors there are, and how many keys."""
    if data[:4] != MAGIC:
        raise ValueError("this is no GGUF file")
    head = _Head(data)
    version, tensors, keys = head.unpacked("<IQQ")
    if version not in VERSIONS or keys > KEYS_MAX:
        raise ValueError(f"a GGUF file of version {version} with {keys} keys, which nothing here reads")
    return head, tensors, keys


class _Head:
    """The bytes behind the magic number, read one after the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = len(MAGIC)

    def unpacked(self, layout: str) -> tuple[Any, ...]:
        size = struct.calcsize(layout)
        return struct.unpack(layout, self._taken(size))

    @property
    def at(self) -> int:
        """How far it is read."""
        return self._at

    def tensor(self) -> Tensor:
        """The next of the tensors, behind all keys."""
        name = self.text()
        (dimensions,) = self.unpacked("<I")
        if dimensions > DIMENSIONS_MAX:
            raise ValueError(f"the GGUF file holds a tensor of {dimensions} dimensions")
        *shape, kind, at = self.unpacked(f"<{dimensions}QIQ")
        if kind not in BLOCKS:
            raise ValueError(f"the GGUF file holds a tensor of the unknown type {kind}")
        values, size = BLOCKS[kind]
        if prod(shape) % values:
            raise ValueError(f"the GGUF file holds {prod(shape)} values of type {kind}, which come by {values}")
        return Tensor(name, tuple(shape), kind, at, prod(shape) // values * size)

    def text(self) -> str:
        return self._string().decode(errors="replace")

    def value(self, *, is_wanted: bool) -> Any:
        """The next value with its type in front; None, without making one, where it is not wanted."""
        (kind,) = self.unpacked("<I")
        return self._of(kind, is_wanted, NESTING_MAX)

    def _of(self, kind: int, is_wanted: bool, depth: int) -> Any:
        if kind == _STRING:
            text = self._string()
            return text.decode(errors="replace") if is_wanted else None
        if kind == _ARRAY and depth:
            return self._array(is_wanted, depth - 1)
        if kind not in _SCALARS:
            raise ValueError(f"the GGUF file holds a value of the unknown type {kind}")
        (value,) = self.unpacked(_SCALARS[kind])
        return value if is_wanted else None

    def _array(self, is_wanted: bool, depth: int) -> list[Any] | None:
        kind, count = self.unpacked("<IQ")
        if kind in _SCALARS:
            layout = _SCALARS[kind]
            data = self._taken(count * struct.calcsize(layout))
            return [value for (value,) in struct.iter_unpack(layout, data)] if is_wanted else None
        if kind == _STRING:
            return self._strings(count, is_wanted)
        values = [self._of(kind, is_wanted, depth) for _ in range(count)]
        return values if is_wanted else None

    def _strings(self, count: int, is_wanted: bool) -> list[Any] | None:
        """Vocabularies: a hundred thousand and more, so without a call for each."""
        data, at, sized = self._data, self._at, struct.Struct("<Q").unpack_from
        texts: list[bytes] = []
        try:
            for _ in range(count):
                begin = at + 8
                at = begin + sized(data, at)[0]
                if is_wanted:
                    texts.append(data[begin:at])
        except struct.error:
            at = len(data) + 1
        if at > len(data):
            raise ValueError("the GGUF file ends in the middle of its head")
        self._at = at
        return [text.decode(errors="replace") for text in texts] if is_wanted else None

    def _string(self) -> bytes:
        (size,) = self.unpacked("<Q")
        return self._taken(size)

    def _taken(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise ValueError("the GGUF file ends in the middle of its head")
        self._at += size
        return taken
