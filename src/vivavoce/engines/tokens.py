"""How many tokens a text is, by the tokenizer of the model that will read it.

The session machine counts with it, on the event loop, whatever it puts into a prompt: each text again for each answer.
So counts are remembered, by digest rather than by text, and a very long text is counted at its beginning. Invariant: a
counter never raises; where no tokenizer is to be had there is no counter, and `estimated_tokens` stands in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from vivavoce.engines.gguf import metadata
from vivavoce.errors import EngineMissing

__all__ = ["TokenCounter", "gguf_marks", "gguf_tokenizer", "json_tokenizer", "tiktoken_encoding"]

EXACT_CHARS_MAX = 16_384
"""What lies beyond is counted by the rate of what lies before: some 7 ms on the event loop for this much."""

COUNTS_MAX = 4_096
"""Counts that are remembered, about 150 bytes each."""

_GGUF_KEYS = ("tokenizer.ggml.model", "ggml.pre", "ggml.tokens", "ggml.merges", "ggml.token_type")
_SPECIAL_TYPES = (3, 4)
"""Control tokens, and those that somebody defined: found in a text before anything else."""


class TokenCounter:
    """Counts, and remembers. Belongs to one event loop."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        self._counts: dict[bytes, int] = {}

    def __call__(self, text: str) -> int:
        """Tokens of the text, without any that a chat template puts around it."""
        data = text.encode(errors="replace")
        key = hashlib.blake2b(data, digest_size=16).digest()
        count = self._counts.get(key)
        if count is None:
            count = self._fresh(data.decode())
            if len(self._counts) >= COUNTS_MAX:
                del self._counts[next(iter(self._counts))]
            self._counts[key] = count
        return count

    def _fresh(self, text: str) -> int:
        if len(text) <= EXACT_CHARS_MAX:
            return self._count(text)
        return -(-self._count(text[:EXACT_CHARS_MAX]) * len(text) // EXACT_CHARS_MAX)


def json_tokenizer(path: Path) -> Callable[[str], int]:
    """A counter from a `tokenizer.json`, as Hugging Face's models bring one.

    Raises `EngineMissing` without the package `tokenizers`, `ValueError` where the file is not one.
    """
    tokenizers = _library("tokenizers")
    try:
        return _counting(tokenizers.Tokenizer.from_file(str(path)))
    except Exception as error:  # The library raises nothing more precise.
        raise ValueError(f"{path} is no tokenizer.json: {error}") from error


def tiktoken_encoding(name: str) -> Callable[[str], int]:
    """A counter from an encoding of the package `tiktoken`, which may have to download it.

    Raises `EngineMissing` without the package, `ValueError` where it has no such encoding or cannot get it.
    """
    tiktoken = _library("tiktoken")
    try:
        encoding = tiktoken.get_encoding(name)
    except Exception as error:  # Unknown names and failed downloads raise different things.
        raise ValueError(f"tiktoken has no encoding {name!r} here: {error}") from error
    return lambda text: len(encoding.encode_ordinary(text))


def gguf_tokenizer(path: Path) -> Callable[[str], int] | None:
    """A counter from the vocabulary in a GGUF file; None where its tokenizer is of a kind unknown here.

    Byte-pair vocabularies are known, which are those of Llama 3, Qwen, SmolLM and many others. How their text is split
    beforehand is known for the commonest; elsewhere counts may differ a little from the model's. Raises
    `EngineMissing` without the package `tokenizers`, `ValueError` and `OSError` for the file.
    """
    found = metadata(path, _GGUF_KEYS)
    words, merges = found.get("tokenizer.ggml.tokens"), found.get("tokenizer.ggml.merges")
    if found.get("tokenizer.ggml.model") != "gpt2" or not words or not merges:
        return None
    tokenizers = _library("tokenizers")
    split = found.get("tokenizer.ggml.pre", "")
    model = tokenizers.models.BPE(
        vocab={word: number for number, word in enumerate(words)},
        merges=[tuple(merge.split(" ", 1)) for merge in merges],
        ignore_merges=split == "llama-bpe",
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = _splitting(tokenizers, split)
    special = [tokenizers.AddedToken(word, normalized=False) for word in _special(found)]
    tokenizer.add_special_tokens(special)
    return _counting(tokenizer)


def gguf_marks(path: Path) -> list[str]:
    """The words that a GGUF file's model reads as control tokens. Raises `ValueError` and `OSError` for the file."""
    return _special(metadata(path, _GGUF_KEYS))


def _special(found: Mapping[str, Any]) -> list[str]:
    words, kinds = found.get("tokenizer.ggml.tokens", ()), found.get("tokenizer.ggml.token_type", ())
    return [word for word, kind in zip(words, kinds, strict=False) if kind in _SPECIAL_TYPES]


def _splitting(tokenizers: Any, name: str) -> Any:
    """How a text is split into words before pairs are merged, by llama.cpp's name for it."""
    ways = tokenizers.pre_tokenizers
    if name == "smollm":
        return ways.Sequence([ways.Digits(individual_digits=True), ways.ByteLevel(add_prefix_space=False)])
    if name not in ("llama-bpe", "qwen2"):
        return ways.ByteLevel(add_prefix_space=False)
    digits = r"\p{N}{1,3}" if name == "llama-bpe" else r"\p{N}"
    words = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        digits,
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
    split = ways.Split(tokenizers.Regex("|".join(words)), "isolated")
    return ways.Sequence([split, ways.ByteLevel(add_prefix_space=False, use_regex=False)])


def _counting(tokenizer: Any) -> Callable[[str], int]:
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise EngineMissing(f"{name} cannot be imported ({error}), and counts tokens: pip install {name}") from error
