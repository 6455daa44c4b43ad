"""Whisper's decoder in numpy: it reads a text that it would probably write in one pass, and writes only what differs.

CTranslate2 makes one token after the other, even those that the caller knows already. Here a guess (what was heard in
the same utterance a moment ago) is checked as a whole: the tokens that the model would have chosen itself stay, and the
first that it would not is replaced. So the text is that of a greedy search, whatever the guess; a good guess makes it
quick. Weights come from CTranslate2's own model file; pure arithmetic, safe from several threads.
"""

from __future__ import annotations

import ctypes
import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Memory", "Reading", "WhisperDecoder"]

FILE_VERSION = 6
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
ACTIVATION_GELU = 3
"""Whisper's activation in the model file; another one is not Whisper's."""
WIDTH_MAX = 512
"""Of the model (tiny 384, base 512); in float32 a larger one takes more memory than time is worth."""
GUESS_AGAIN_TOKENS = 3
"""How many tokens of the rest of a guess are tried behind one that was replaced: four cost little more than two. Where
they are right, the rest probably is."""
MISPLACED_TOKENS = 3
"""How far the guess may be ahead or behind where it is taken up again: a word more, or one less."""
ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
ERF_SCALE = 0.3275911

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Memory:
    """An encoding as the decoder looks at it: keys and values for each layer, shape (heads, positions, width)."""

    keys: Sequence[Array]
    values: Sequence[Array]

    def followed_by(self, other: Memory) -> Memory:
        """This, and where it ends what `other` has from there on."""

        def joined(mine: Sequence[Array], others: Sequence[Array]) -> list[Array]:
            return [np.concatenate([a, b[:, a.shape[1] :]], axis=1) for a, b in zip(mine, others, strict=True)]

        return Memory(joined(self.keys, other.keys), joined(self.values, other.values))


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
        _compute_on_one_thread()
        weights = _weights(Path(folder) / "model.bin")
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        # Transposed in memory, the product with a few states takes half the time.
        self._embeddings = np.ascontiguousarray(weights["decoder/embeddings/weight"].T, np.float32)
        self._positions = weights["decoder/position_encodings/encodings"].astype(np.float32)
        width = self._embeddings.shape[0]
        if width > WIDTH_MAX or int(weights["decoder/activation"]) != ACTIVATION_GELU:
            raise ValueError(f"not a Whisper model of at most {WIDTH_MAX}")
        self._heads = int(weights["decoder/num_heads"])
        count = sum(name.endswith("/ffn/linear_0/weight") and name.startswith("decoder/") for name in weights)
        self._layers = [_layer(weights, f"decoder/layer_{index}") for index in range(count)]
        self._norm = _norm_of(weights, "decoder/layer_norm")
        self._end_id, self._no_speech_id = end_id, no_speech_id
        self._never = np.array(config["suppress_ids"], np.int64)
        self._never_first = np.array(config["suppress_ids_begin"], np.int64)

    def memory(self, encoding: Array) -> Memory:
        """What the decoder looks at: `encoding` has the shape (positions, width)."""
        pairs = [np.split(_linear(encoding, layer.cross_memory), 2, axis=1) for layer in self._layers]
        return Memory([self._by_head(key) for key, _ in pairs], [self._by_head(value) for _, value in pairs])

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
        cache = _Cache(len(self._layers))
        states = self._states([*prompt, *known, *guess[:limit]], cache, memory)
        behind = len(prompt) + len(known)
        # All rows at once: reading the matrix takes as long as a few products with it.
        rows = [self._start_of(prompt), *range(behind - 1, len(states))]
        start, logits = np.split(states[rows] @ self._embeddings, [1])
        no_speech = float(np.exp(start[0, self._no_speech_id] - _log_total(start)[0]))
        tokens: list[int] = []
        total, passes, at, tried = 0.0, 1, 0, list(guess[:limit])
        while True:
            chosen, logs = self._choices(logits, is_first=not (known or tokens))
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
            cache.cut(behind + len(tokens) - 1)
            logits = self._states([tokens[-1], *tried], cache, memory) @ self._embeddings
            passes += 1

    def _start_of(self, prompt: Sequence[int]) -> int:
        """Where the transcript starts, behind what the client gave to lean on. There it is seen if nobody speaks."""
        return next(index for index, token in enumerate(prompt) if token == self._end_id + 1)

    def _states(self, tokens: Sequence[int], cache: _Cache, memory: Memory) -> Array:
        """The last hidden states of `tokens`, which follow what is in `cache`: shape (tokens, width)."""
        past = cache.length
        ids = np.array(tokens, np.int64)
        x = self._embeddings[:, ids].T + self._positions[past : past + len(ids)]
        mask = np.triu(np.full((len(ids), past + len(ids)), -np.inf, np.float32), past + 1) if len(ids) > 1 else None
        for index, layer in enumerate(self._layers):
            query, key, value = np.split(_linear(_normed(x, layer.norms[0]), layer.self_in), 3, axis=1)
            keys, values = cache.grown(index, self._by_head(key), self._by_head(value))
            x = x + _linear(self._attended(query, keys, values, mask), layer.self_out)
            query = _linear(_normed(x, layer.norms[1]), layer.cross_query)
            x = x + _linear(self._attended(query, memory.keys[index], memory.values[index], None), layer.cross_out)
            x = x + _linear(_gelu(_linear(_normed(x, layer.norms[2]), layer.widen)), layer.narrow)
        return _normed(x, self._norm)

    def _choices(self, logits: Array, *, is_first: bool) -> tuple[NDArray[np.int64], Array]:
        """The most probable token in each row, and the logarithm of its probability."""
        logits[:, self._never] = -np.inf
        if is_first:
            logits[0, self._never_first] = -np.inf
        chosen = logits.argmax(axis=1)
        return chosen, logits[np.arange(len(chosen)), chosen] - _log_total(logits)

    def _attended(self, query: Array, keys: Array, values: Array, mask: Array | None) -> Array:
        width = query.shape[1] // self._heads
        weights: Array = self._by_head(query) @ keys.transpose(0, 2, 1) * np.float32(1 / math.sqrt(width))
        if mask is not None:
            weights += mask
        weights -= weights.max(axis=2, keepdims=True)
        np.exp(weights, out=weights)
        weights /= weights.sum(axis=2, keepdims=True)
        mixed: Array = (weights @ values).transpose(1, 0, 2).reshape(query.shape)
        return mixed

    def _by_head(self, x: Array) -> Array:
        return np.ascontiguousarray(x.reshape(len(x), self._heads, -1).transpose(1, 0, 2))


def _behind(token: int, guess: Sequence[int], at: int) -> int:
    """Where `guess` goes on behind a token that stands in the place of its token `at`: what follows may still be right,
    if only one was not, or was left out, or is there too much."""
    near = range(max(at - MISPLACED_TOKENS, 0), min(at + MISPLACED_TOKENS + 1, len(guess)))
    return min((index for index in near if guess[index] == token), key=lambda index: abs(index - at), default=at) + 1


class _Cache:
    """Keys and values of the tokens read so far, for each layer."""

    def __init__(self, layers: int) -> None:
        self._pairs: list[tuple[Array, Array] | None] = [None] * layers
        self.length = 0

    def grown(self, layer: int, keys: Array, values: Array) -> tuple[Array, Array]:
        """All keys and values of `layer`, the new ones at the end."""
        pair = self._pairs[layer]
        if pair is not None:
            keys, values = np.concatenate([pair[0], keys], axis=1), np.concatenate([pair[1], values], axis=1)
        self._pairs[layer] = keys, values
        self.length = keys.shape[1] if layer == len(self._pairs) - 1 else self.length
        return keys, values

    def cut(self, length: int) -> None:
        """Forget what lies behind the first `length` tokens."""
        self._pairs = [pair and (pair[0][:, :length], pair[1][:, :length]) for pair in self._pairs]
        self.length = length


# --- arithmetic -------------------------------------------------------------------------------------------------------


def _linear(x: Array, weights: tuple[Array, Array]) -> Array:
    y: Array = x @ weights[0]
    y += weights[1]
    return y


def _normed(x: Array, norm: tuple[Array, Array]) -> Array:
    centred = x - x.mean(axis=1, keepdims=True)
    scaled: Array = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float32(1e-5))
    return scaled * norm[0] + norm[1]


def _gelu(x: Array) -> Array:
    """x times the normal distribution; the error function by Abramowitz and Stegun 7.1.26, good to 1.5e-7."""
    magnitude = np.abs(x) * np.float32(1 / math.sqrt(2))
    t = 1 / (1 + np.float32(ERF_SCALE) * magnitude)
    series = np.zeros_like(t)
    for factor in reversed(ERF):
        series = (series + np.float32(factor)) * t
    erf = np.copysign(1 - series * np.exp(-(magnitude**2)), x)
    y: Array = x * (1 + erf) * np.float32(0.5)
    return y


def _log_total(logits: Array) -> Array:
    """The logarithm of the sum of the exponentials of each row."""
    highest = logits.max(axis=1)
    total: Array = np.log(np.exp(logits - highest[:, None]).sum(axis=1)) + highest
    return total


def _compute_on_one_thread() -> None:
    """Tell numpy's BLAS, in this whole process, to use one thread: its own wait for one another by burning the cores.

    Where it is another BLAS than the one in numpy's wheels, its own settings hold.
    """
    for path in Path(np.__file__).parent.parent.glob("numpy.libs/*openblas*"):
        setter = getattr(ctypes.CDLL(str(path)), "scipy_openblas_set_num_threads64_", None)
        if setter is not None:
            setter(1)


# --- the model file ---------------------------------------------------------------------------------------------------


def _layer(weights: Mapping[str, NDArray[np.generic]], name: str) -> _Layer:
    def linear(part: str) -> tuple[Array, Array]:
        matrix = weights[f"{name}/{part}/weight"].astype(np.float32)
        if f"{name}/{part}/weight_scale" in weights:
            matrix /= weights[f"{name}/{part}/weight_scale"].astype(np.float32)[:, None]
        return np.ascontiguousarray(matrix.T), weights[f"{name}/{part}/bias"].astype(np.float32)

    return _Layer(
        norms=[_norm_of(weights, f"{name}/{part}/layer_norm") for part in ("self_attention", "attention", "ffn")],
        self_in=linear("self_attention/linear_0"),
        self_out=linear("self_attention/linear_1"),
        cross_query=linear("attention/linear_0"),
        cross_memory=linear("attention/linear_1"),
        cross_out=linear("attention/linear_2"),
        widen=linear("ffn/linear_0"),
        narrow=linear("ffn/linear_1"),
    )


def _norm_of(weights: Mapping[str, NDArray[np.generic]], name: str) -> tuple[Array, Array]:
    return weights[f"{name}/gamma"].astype(np.float32), weights[f"{name}/beta"].astype(np.float32)


def _weights(path: Path) -> dict[str, NDArray[np.generic]]:
    """The decoder's variables in a model file of CTranslate2, by name."""
    data = path.read_bytes()
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
