"""Whisper's decoder: it reads a text that it would probably write in one pass, and writes only what differs.

CTranslate2 makes one token after the other, even those that the caller knows already. Here a guess (what was heard in
the same utterance a moment ago) is checked as a whole: the tokens that the model would have chosen itself stay, and the
first that it would not is replaced. So the text is that of a greedy search, whatever the guess; a good guess makes it
quick. Weights come from CTranslate2's own model file and become two networks that onnxruntime computes, what is looked
at and what is written. In 8 bits are only the two largest products: what is looked at, and the logits, of which the
best are computed again exactly. Safe from several threads.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from vivavoce.engines.onnx_graph import INT64, MICROSOFT, Graph

__all__ = ["Memory", "Reading", "WhisperDecoder"]

FILE_VERSION = 6
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
ACTIVATION_GELU = 3
"""Whisper's activation in the model file; another one is not Whisper's."""
WIDTH_MAX = 512
"""Of the model (tiny 384, base 512); a larger one takes more memory here than time is worth."""
GUESS_AGAIN_TOKENS = 3
"""How many tokens of the rest of a guess are tried behind one that was replaced: four cost little more than two. Where
they are right, the rest probably is."""
MISPLACED_TOKENS = 3
"""How far the guess may be ahead or behind where it is taken up again: a word more, or one less."""
RIVAL_LOGITS = 1.0
"""Logits are computed in 8 bits, and are good to about half of this. Between tokens so near to the best, exact ones
decide …"""
RIVALS_MAX = 64
"""… where no more are as near, for each that is chosen: else none is meant."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Memory:
    """An encoding as the decoder looks at it: for each layer values, shape (heads, positions, width), and keys, turned,
    shape (heads, width, positions)."""

    keys: Sequence[Array]
    values: Sequence[Array]

    def followed_by(self, other: Memory) -> Memory:
        """This, and where it ends what `other` has from there on."""
        begun = self.values[0].shape[1]
        keys = [np.concatenate([a, b[:, :, begun:]], axis=2) for a, b in zip(self.keys, other.keys, strict=True)]
        values = [np.concatenate([a, b[:, begun:]], axis=1) for a, b in zip(self.values, other.values, strict=True)]
        return Memory(keys, values)


@dataclass(frozen=True, slots=True)
class Reading:
    """A text: its tokens without the end, their mean log-probability (the end's included), whether it came to an end.

    `no_speech` is the probability that nobody spoke; `passes` is how often the decoder ran.
    """

    tokens: tuple[int, ...]
    score: float
    no_speech: float
    complete: bool
    passes: int


@dataclass(frozen=True, slots=True)
class _Layer:
    """The weights of one layer, transposed so that a row vector is multiplied from the left."""

    norms: Sequence[tuple[Array, Array]]
    self_in: tuple[Array, Array]
    self_out: tuple[Array, Array]
    cross_query: tuple[Array, Array]
    cross_memory: tuple[Array, Array]
    cross_out: tuple[Array, Array]
    widen: tuple[Array, Array]
    narrow: tuple[Array, Array]


class WhisperDecoder:
    """The decoder of the model in `folder`.

    Raises `ValueError` or `KeyError` where the file holds something else than a Whisper model of at most `WIDTH_MAX`.
    """

    def __init__(self, folder: str | Path, end_id: int, no_speech_id: int) -> None:
        weights = _weights(Path(folder) / "model.bin")
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        self._embeddings = weights["decoder/embeddings/weight"]
        self._positions = weights["decoder/position_encodings/encodings"].astype(np.float32)
        width = self._embeddings.shape[1]
        if width > WIDTH_MAX or int(weights["decoder/activation"]) != ACTIVATION_GELU:
            raise ValueError(f"not a Whisper model of at most {WIDTH_MAX}")
        heads = int(weights["decoder/num_heads"])
        count = sum(name.endswith("/ffn/linear_0/weight") and name.startswith("decoder/") for name in weights)
        layers = [_layer(weights, f"decoder/layer_{index}", width, heads) for index in range(count)]
        self._empty = np.zeros((heads, 0, width // heads), np.float32)
        self._count = count
        self._memories = _network(_memory_graph(layers, heads, width))
        self._words = _network(_word_graph(layers, heads, weights))
        self._end_id, self._no_speech_id = end_id, no_speech_id
        self._never = np.array(config["suppress_ids"], np.int64)
        self._never_first = np.array(config["suppress_ids_begin"], np.int64)

    def memory(self, encoding: Array) -> Memory:
        """What the decoder looks at: `encoding` has the shape (positions, width)."""
        found = self._memories.run(None, {"encoding": np.ascontiguousarray(encoding)})
        return Memory(found[: self._count], found[self._count :])

    def read(
        self,
        memory: Memory,
        prompt: Sequence[int],
        known: Sequence[int],
        guess: Sequence[int],
        limit: int,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Reading:
        """The text of `memory` behind `prompt` and the tokens `known`, of at most `limit` tokens (`known` not counted).

        Quick if it begins like `guess`.
        """
        past = _Past([self._empty] * self._count, [self._empty] * self._count)
        text = [*prompt, *known, *guess[:limit]]
        behind = len(prompt) + len(known)
        logits, states = self._looked(text, past, memory, [self._start_of(prompt), *range(behind - 1, len(text))])
        no_speech = float(np.exp(logits[0, self._no_speech_id] - _log_total(logits[:1])[0]))
        logits, states = logits[1:], states[1:]
        tokens: list[int] = []
        total, passes, at, tried = 0.0, 1, 0, list(guess[:limit])
        while True:
            chosen, logs = self._choices(logits, states, is_first=not (known or tokens))
            good = 0
            while good < len(tried) and chosen[good] == tried[good]:
                good += 1
            total += float(logs[: good + 1].sum())
            tokens += tried[:good]
            at += good
            is_right = good == len(tried) > 0
            if chosen[good] == self._end_id or len(tokens) >= limit or cancelled():
                is_end = bool(chosen[good] == self._end_id)
                return Reading(tuple(tokens), total / (len(tokens) + 1), no_speech, is_end, passes)
            tokens.append(int(chosen[good]))
            if len(tokens) >= limit:
                return Reading(tuple(tokens), total / len(tokens), no_speech, False, passes)
            at = _behind(tokens[-1], guess, at)
            tried = list(guess[at : at + min(limit - len(tokens), len(guess) if is_right else GUESS_AGAIN_TOKENS)])
            past.cut(behind + len(tokens) - 1)
            logits, states = self._looked([tokens[-1], *tried], past, memory, range(len(tried) + 1))
            passes += 1

    def _start_of(self, prompt: Sequence[int]) -> int:
        """Where the transcript starts, behind what the client gave to lean on. There it is seen if nobody speaks."""
        return next(index for index, token in enumerate(prompt) if token == self._end_id + 1)

    def _looked(self, tokens: Sequence[int], past: _Past, memory: Memory, rows: Sequence[int]) -> tuple[Array, Array]:
        """What may follow those of `tokens` with the numbers `rows`: logits, nearly, and the states that they are of.

        The tokens follow what is in `past`, and are added to it.
        """
        count, before = len(tokens), past.length
        given = {
            "x": self._embeddings[list(tokens)].astype(np.float32) + self._positions[before : before + count],
            "mask": np.triu(np.full((count, before + count), -np.inf, np.float32), before + 1),
            "rows": np.array(rows, np.int64),
        }
        for index in range(self._count):
            given |= {f"past_keys_{index}": past.keys[index], f"past_values_{index}": past.values[index]}
            given |= {f"keys_{index}": memory.keys[index], f"values_{index}": memory.values[index]}
        logits, states, *found = self._words.run(None, given)
        past.keys, past.values = found[: self._count], found[self._count :]
        return logits, states

    def _choices(self, logits: Array, states: Array, *, is_first: bool) -> tuple[NDArray[np.int64], Array]:
        """The most probable token in each row, and the logarithm of its probability."""
        logits[:, self._never] = -np.inf
        if is_first:
            logits[0, self._never_first] = -np.inf
        rows, tokens = np.nonzero(logits >= logits.max(axis=1, keepdims=True) - RIVAL_LOGITS)
        if len(rows) <= RIVALS_MAX * len(logits):
            logits[rows, tokens] = np.einsum("ij,ij->i", states[rows], self._embeddings[tokens].astype(np.float32))
        chosen = logits.argmax(axis=1)
        return chosen, logits[np.arange(len(chosen)), chosen] - _log_total(logits)


def _behind(token: int, guess: Sequence[int], at: int) -> int:
    """Where `guess` goes on behind a token that stands in the place of its token `at`: what follows may still be right,
    if only one was not, or was left out, or is there too much."""
    near = range(max(at - MISPLACED_TOKENS, 0), min(at + MISPLACED_TOKENS + 1, len(guess)))
    return min((index for index in near if guess[index] == token), key=lambda index: abs(index - at), default=at) + 1


@dataclass(slots=True)
class _Past:
    """Keys and values of the tokens read so far, for each layer: shape (heads, tokens, width)."""

    keys: Sequence[Array]
    values: Sequence[Array]

    @property
    def length(self) -> int:
        """How many tokens."""
        return int(self.keys[0].shape[1])

    def cut(self, length: int) -> None:
        """Forget what lies behind the first `length` tokens."""
        self.keys = [np.ascontiguousarray(one[:, :length]) for one in self.keys]
        self.values = [np.ascontiguousarray(one[:, :length]) for one in self.values]


# --- arithmetic -------------------------------------------------------------------------------------------------------


def _network(model: bytes) -> Any:
    """Of one thread: several would wait for each other."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _memory_graph(layers: Sequence[_Layer], heads: int, width: int) -> bytes:
    """An encoding → keys of each layer, turned as the product with them wants them, then values of each."""
    graph = Graph()
    encoding = graph.input("encoding", ["positions", width])
    pairs = [graph.parts("Split", 2, graph.linear_in_8_bits(encoding, *layer.cross_memory), axis=1) for layer in layers]
    shape = graph.weight(np.array([0, heads, -1], np.int64))
    for index, (keys, _) in enumerate(pairs):
        turned = graph.add("Transpose", graph.add("Reshape", keys, shape), perm=[1, 2, 0])
        graph.output(turned, f"keys_{index}", [heads, width // heads, "positions"])
    for index, (_, values) in enumerate(pairs):
        turned = graph.add("Transpose", graph.add("Reshape", values, shape), perm=[1, 0, 2])
        graph.output(turned, f"values_{index}", [heads, "positions", width // heads])
    return graph.model()


def _word_graph(layers: Sequence[_Layer], heads: int, weights: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Tokens and what they look at → what may follow those that are asked for, and the past with them in it."""
    graph = Graph()
    embeddings = weights["decoder/embeddings/weight"].astype(np.float32)
    vocabulary, width = embeddings.shape
    by_head = [heads, "all", width // heads]
    apart = graph.weight(np.array([0, heads, -1], np.int64))
    together = graph.weight(np.array([0, -1], np.int64))
    mask = graph.input("mask", ["tokens", "all"])

    def normed(x: str, norm: tuple[Array, Array]) -> str:
        scale, shift = norm
        return graph.add("LayerNormalization", x, graph.weight(scale), graph.weight(shift), epsilon=1e-5)

    def split(x: str) -> str:
        return graph.add("Transpose", graph.add("Reshape", x, apart), perm=[1, 0, 2])

    def attended(query: str, turned_keys: str, values: str, hidden: str | None) -> str:
        found = graph.add("MatMul", split(query), turned_keys)
        found = graph.add("Softmax", found if hidden is None else graph.add("Add", found, hidden), axis=-1)
        mixed = graph.add("Transpose", graph.add("MatMul", found, values), perm=[1, 0, 2])
        return graph.add("Reshape", mixed, together)

    x = graph.input("x", ["tokens", width])
    rows = graph.input("rows", ["rows"], INT64)
    all_keys, all_values = [], []
    for index, layer in enumerate(layers):
        past_keys = graph.input(f"past_keys_{index}", [heads, "past", width // heads])
        past_values = graph.input(f"past_values_{index}", [heads, "past", width // heads])
        far_keys = graph.input(f"keys_{index}", [heads, width // heads, "positions"])
        far_values = graph.input(f"values_{index}", [heads, "positions", width // heads])
        query, key, value = graph.parts("Split", 3, graph.linear(normed(x, layer.norms[0]), *layer.self_in), axis=1)
        keys = graph.add("Concat", past_keys, split(key), axis=1)
        values = graph.add("Concat", past_values, split(value), axis=1)
        near = attended(query, graph.add("Transpose", keys, perm=[0, 2, 1]), values, mask)
        x = graph.add("Add", x, graph.linear(near, *layer.self_out))
        query = graph.linear(normed(x, layer.norms[1]), *layer.cross_query)
        x = graph.add("Add", x, graph.linear(attended(query, far_keys, far_values, None), *layer.cross_out))
        wide = graph.add("Gelu", graph.linear(normed(x, layer.norms[2]), *layer.widen), domain=MICROSOFT)
        x = graph.add("Add", x, graph.linear(wide, *layer.narrow))
        all_keys.append(keys)
        all_values.append(values)
    asked = normed(graph.add("Gather", x, rows, axis=0), _norm_of(weights, "decoder/layer_norm"))
    graph.output(graph.linear_in_8_bits(asked, embeddings.T), "logits", ["rows", vocabulary])
    graph.output(asked, "states", ["rows", width])
    for index, keys in enumerate(all_keys):
        graph.output(keys, f"all_keys_{index}", by_head)
    for index, values in enumerate(all_values):
        graph.output(values, f"all_values_{index}", by_head)
    return graph.model()


def _log_total(logits: Array) -> Array:
    """The logarithm of the sum of the exponentials of each row."""
    highest = logits.max(axis=1)
    total: Array = np.log(np.exp(logits - highest[:, None]).sum(axis=1)) + highest
    return total


# --- the model file ---------------------------------------------------------------------------------------------------


def _layer(weights: Mapping[str, NDArray[np.generic]], name: str, width: int, heads: int) -> _Layer:
    queries = 1 / math.sqrt(width // heads)

    def linear(part: str, scale: float = 1.0, scaled: int | None = None) -> tuple[Array, Array]:
        matrix = weights[f"{name}/{part}/weight"].astype(np.float32)
        if f"{name}/{part}/weight_scale" in weights:
            matrix /= weights[f"{name}/{part}/weight_scale"].astype(np.float32)[:, None]
        bias = weights[f"{name}/{part}/bias"].astype(np.float32)
        matrix[:scaled] *= scale
        bias[:scaled] *= scale
        return np.ascontiguousarray(matrix.T), bias

    return _Layer(
        norms=[_norm_of(weights, f"{name}/{part}/layer_norm") for part in ("self_attention", "attention", "ffn")],
        self_in=linear("self_attention/linear_0", queries, width),
        self_out=linear("self_attention/linear_1"),
        cross_query=linear("attention/linear_0", queries),
        cross_memory=linear("attention/linear_1"),
        cross_out=linear("attention/linear_2"),
        widen=linear("ffn/linear_0"),
        narrow=linear("ffn/linear_1"),
    )


def _norm_of(weights: Mapping[str, NDArray[np.generic]], name: str) -> tuple[Array, Array]:
    return weights[f"{name}/gamma"].astype(np.float32), weights[f"{name}/beta"].astype(np.float32)


def _weights(path: Path) -> dict[str, NDArray[np.generic]]:
    """The decoder's variables in a model file of CTranslate2, by name; in memory is what is looked at."""
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    at = 0

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        return int(value)

    def text() -> str:
        nonlocal at
        length = number("<H")
        at += length
        return data[at - length : at].rstrip(b"\0").decode()

    version, spec, _ = number("<I"), text(), number("<I")
    if version != FILE_VERSION or spec != "WhisperSpec":
        raise ValueError(f"a model file of {spec}, version {version}")
    found: dict[str, NDArray[np.generic]] = {}
    for _ in range(number("<I")):
        name = text()
        shape = [number("<I") for _ in range(number("<B"))]
        kind, size = number("<B"), number("<I")
        if name.startswith("decoder/"):
            found[name] = np.frombuffer(data, TYPES[kind], size // np.dtype(TYPES[kind]).itemsize, at).reshape(shape)
        at += size
    return found
