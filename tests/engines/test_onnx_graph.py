"""Networks that are written by hand: onnxruntime computes what was meant."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from vivavoce.engines.onnx_graph import INT64, MICROSOFT, Graph

RANDOM = np.random.default_rng(5)
MATRIX = RANDOM.standard_normal((64, 48)).astype(np.float32)
BIAS = RANDOM.standard_normal(48).astype(np.float32)
ROWS = RANDOM.standard_normal((7, 64)).astype(np.float32) * np.array(
    [[1], [1e-4], [300], [1], [1], [1], [0]], np.float32
)


def run(graph: Graph, **given: NDArray[Any]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(graph.model(), providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float32]] = session.run(None, given)
    return found


def linear(rows: NDArray[np.float32], *, in_8_bits: bool) -> NDArray[np.float32]:
    graph = Graph()
    x = graph.input("x", ["rows", 64])
    y = graph.linear_in_8_bits(x, MATRIX, BIAS) if in_8_bits else graph.linear(x, MATRIX, BIAS)
    graph.output(y, "y", ["rows", 48])
    return run(graph, x=rows)[0]


def test_a_product_is_exact_or_nearly() -> None:
    exact = ROWS @ MATRIX + BIAS
    assert np.allclose(linear(ROWS, in_8_bits=False), exact, rtol=1e-5, atol=1e-4)
    error = np.abs(linear(ROWS, in_8_bits=True) - exact).max(axis=1)
    assert (error <= 0.02 * np.abs(exact - BIAS).max(axis=1) + 1e-6).all()
    assert error.max() > 0


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_a_row_does_not_depend_on_those_beside_it(number: int) -> None:
    together = linear(ROWS, in_8_bits=True)
    assert np.array_equal(linear(ROWS[number : number + 1], in_8_bits=True)[0], together[number])


def test_operators_take_attributes_of_every_kind_and_have_several_outputs() -> None:
    graph = Graph()
    x = graph.input("x", ["rows", 64])
    asked = graph.input("asked", ["asked"], INT64)
    ones = graph.weight(np.ones(64, np.float32))
    normed = graph.add("LayerNormalization", x, ones, graph.weight(np.zeros(64, np.float32)), epsilon=0.5)
    left, right = graph.parts("Split", 2, graph.add("Gather", normed, asked, axis=0), axis=1)
    graph.output(graph.add("Transpose", left, perm=[1, 0]), "left", [32, "asked"])
    graph.output(graph.add("Gelu", right, domain=MICROSOFT), "right", ["asked", 32])
    left_rows, right_rows = run(graph, x=ROWS, asked=np.array([4, 0], np.int64))
    chosen = ROWS[[4, 0]]
    expected = (chosen - chosen.mean(axis=1, keepdims=True)) / np.sqrt(chosen.var(axis=1, keepdims=True) + 0.5)
    assert np.allclose(left_rows.T, expected[:, :32], atol=1e-5)
    erf = [0.0, -0.15865525, 0.84134475]
    graph = Graph()
    graph.output(graph.add("Gelu", graph.input("x", ["n"]), domain=MICROSOFT), "y", ["n"])
    assert np.allclose(run(graph, x=np.array([0.0, -1.0, 1.0], np.float32))[0], erf, atol=1e-6)
    assert right_rows.shape == (2, 32)
