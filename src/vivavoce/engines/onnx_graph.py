"""Small networks written as ONNX by hand: nodes and weights in, the bytes of a model out.

For arithmetic on weights that come in another form than ONNX, which onnxruntime computes several times as fast as numpy
where few rows meet a large matrix: it packs the matrix once, and knows 8-bit weights. Only what is used here of the
format is written (https://onnx.ai/onnx/repo-docs/IR.html). Invariant: names are given by whoever adds a node.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Graph"]

IR_VERSION, OPSET = 8, 17
MICROSOFT = "com.microsoft"
"""Whose operators are those that the standard lacks."""
TYPES = {np.dtype(np.float32): 1, np.dtype(np.uint8): 2, np.dtype(np.int64): 7}
FLOAT, INT64 = 1, 7
ZERO, STEPS = 128, 127
"""What zero is in 8 bits, and how many steps the greatest value is away from it."""

Attribute = int | float | Sequence[int]


class Graph:
    """One network in the making. Every method that adds a node gives the name of what comes out of it."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._weights: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._count = 0

    def input(self, name: str, shape: Sequence[int | str], kind: int = FLOAT) -> str:
        """What is given for each run; a size that differs from run to run has a name."""
        self._inputs.append(_value(name, shape, kind))
        return name

    def output(self, value: str, name: str, shape: Sequence[int | str]) -> None:
        """A result, float32."""
        self._nodes.append(_node("Identity", [value], [name], "", {}))
        self._outputs.append(_value(name, shape, FLOAT))

    def weight(self, array: NDArray[Any]) -> str:
        """What stays the same."""
        name = self._name()
        array = np.ascontiguousarray(array) if array.ndim else array
        head = b"".join(_field(1, size) for size in array.shape) + _field(2, TYPES[array.dtype]) + _field(8, name)
        self._weights.append(b"".join([head, _head(9, array.nbytes), array.tobytes()]))
        return name

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Attribute) -> str:
        """The only output of an operator."""
        (output,) = self.parts(operator, 1, *inputs, domain=domain, **attributes)
        return output

    def parts(
        self, operator: str, count: int, *inputs: str, domain: str = "", **attributes: Attribute
    ) -> tuple[str, ...]:
        """The outputs of an operator that has several."""
        outputs = tuple(self._name() for _ in range(count))
        self._nodes.append(_node(operator, inputs, outputs, domain, attributes))
        return outputs

    def linear(self, x: str, matrix: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        """Rows times `matrix`, of shape (in, out), and `bias`."""
        return self.add("Add", self.add("MatMul", x, self.weight(matrix)), self.weight(bias))

    def linear_in_8_bits(self, x: str, matrix: NDArray[np.float32], bias: NDArray[np.float32] | None = None) -> str:
        """The same with values to within 1/254 of the greatest beside them: reads a quarter of the memory.

        The matrix has a scale for each column and the rows one each, so that none depends on those beside it.
        """
        scales = np.maximum(np.abs(matrix).max(axis=0), np.finfo(np.float32).tiny) / np.float32(STEPS)
        # Without a sign: with one, sums of two products overflow on processors that have AVX2 and no more.
        steps = self.weight((np.rint(matrix / scales) + ZERO).astype(np.uint8))
        zeros = self.weight(np.full(len(scales), ZERO, np.uint8))
        step, zero = self.weight(np.array(1 / STEPS, np.float32)), self.weight(np.array(ZERO, np.uint8))
        loudest = self.add("ReduceMax", self.add("Abs", x), axes=[-1], keepdims=1)
        rows = self.add("QuantizeLinear", self.add("Div", x, loudest), step, zero)
        given = (rows, steps, step, self.weight(scales), zero, zeros)
        y = self.add("Mul", self.add("MatMulIntegerToFloat", *given, domain=MICROSOFT), loudest)
        return y if bias is None else self.add("Add", y, self.weight(bias))

    def model(self) -> bytes:
        """What `onnxruntime.InferenceSession` takes."""
        graph = [
            *(_field(1, node) for node in self._nodes),
            _field(2, "graph"),
            *(part for weight in self._weights for part in (_head(5, len(weight)), weight)),
            *(_field(11, value) for value in self._inputs),
            *(_field(12, value) for value in self._outputs),
        ]
        opsets = _field(8, _field(1, "") + _field(2, OPSET)) + _field(8, _field(1, MICROSOFT) + _field(2, 1))
        # Joined once: weights are large.
        return b"".join([_field(1, IR_VERSION), opsets, _head(7, sum(map(len, graph))), *graph])

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"


# --- protobuf ---------------------------------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _head(number, len(data)) + data


def _head(number: int, size: int) -> bytes:
    """Of a field with so many bytes behind it."""
    return _varint(number << 3 | 2) + _varint(size)


def _node(
    operator: str, inputs: Sequence[str], outputs: Sequence[str], domain: str, attributes: dict[str, Attribute]
) -> bytes:
    node = b"".join(_field(1, name) for name in inputs) + b"".join(_field(2, name) for name in outputs)
    node += _field(4, operator) + b"".join(_field(5, _attribute(*pair)) for pair in attributes.items())
    return node + _field(7, domain)


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, float):
        return _field(1, name) + _varint(2 << 3 | 5) + struct.pack("<f", value) + _field(20, 1)
    if isinstance(value, int):
        return _field(1, name) + _field(3, value) + _field(20, 2)
    return _field(1, name) + b"".join(_field(8, one) for one in value) + _field(20, 7)


def _value(name: str, shape: Sequence[int | str], kind: int) -> bytes:
    sizes = b"".join(_field(1, _field(1 if isinstance(size, int) else 2, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, sizes)))
