"""What a GGUF file says about its model, read without loading the model.

llama.cpp's server in Python has no call that counts tokens, so the embedded language model builds its tokenizer from
the file's own vocabulary. Only the head of the file is read. Invariant: a damaged head raises `ValueError`, and no
length in it makes this read beyond the file's end.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

__all__ = ["metadata"]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
KEYS_MAX = 4_096
NESTING_MAX = 4
"""How deep arrays may lie in arrays."""

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


def metadata(path: Path, wanted: Collection[str]) -> dict[str, Any]:
    """The values of the keys that end with one of `wanted`, by full key; arrays are lists.

    Raises `ValueError` where the file is no GGUF of a version known here, `OSError` where it cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != MAGIC:
            raise ValueError(f"{path} is no GGUF file")
        head = _Head(data)
        version, _, count = head.unpacked("<IQQ")
        if version not in VERSIONS or count > KEYS_MAX:
            raise ValueError(f"{path} is a GGUF file of version {version} with {count} keys, which nothing here reads")
        found: dict[str, Any] = {}
        for _ in range(count):
            key = head.text()
            value = head.value(is_wanted=key.endswith(tuple(wanted)))
            if value is not None:
                found[key] = value
        return found


class _Head:
    """The bytes behind the magic number, read one after the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = len(MAGIC)

    def unpacked(self, layout: str) -> tuple[Any, ...]:
        size = struct.calcsize(layout)
        return struct.unpack(layout, self._taken(size))

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
