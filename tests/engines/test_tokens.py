"""Counting tokens: by a GGUF file's own vocabulary, by a tokenizer.json, by tiktoken; remembered and bounded."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vivavoce.engines.gguf import metadata
from vivavoce.engines.tokens import (
    COUNTS_MAX,
    EXACT_CHARS_MAX,
    TokenCounter,
    gguf_marks,
    gguf_tokenizer,
    json_tokenizer,
    tiktoken_encoding,
)
from vivavoce.errors import EngineMissing

# --- a GGUF file, written by the format's own rules -------------------------------------------------------------------


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value(of: object) -> bytes:
    match of:
        case bool():
            return struct.pack("<I?", 7, of)
        case int():
            return struct.pack("<II", 4, of)
        case float():
            return struct.pack("<If", 6, of)
        case str():
            return struct.pack("<I", 8) + text(of)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(of)) + b"".join(map(text, of))
        case [int(), *_]:
            return struct.pack("<IIQ", 9, 5, len(of)) + struct.pack(f"<{len(of)}i", *of)
        case [[*inner]]:
            return struct.pack("<IIQ", 9, 9, 1) + value(inner)[4:]
    raise AssertionError(of)


def gguf(path: Path, *, version: int = 3, **keys: Any) -> Path:
    pairs = b"".join(text(key.replace("__", ".")) + value(of) for key, of in keys.items())
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", version, 0, len(keys)) + pairs + b"weights")
    return path


WORDS = ["<|end|>", "a", "b", "ab", "Ġ", "Ġab", "1", "2", "12"]
VOCABULARY = {
    "general__name": "tiny",
    "tiny__context_length": 512,
    "tiny__is_good": True,
    "tiny__scale": 0.5,
    "tiny__shape": [[1, 2, 3]],
    "tokenizer__ggml__model": "gpt2",
    "tokenizer__ggml__pre": "default",
    "tokenizer__ggml__tokens": WORDS,
    "tokenizer__ggml__token_type": [3, 1, 1, 1, 1, 1, 1, 1, 1],
    "tokenizer__ggml__merges": ["a b", "Ġ ab", "1 2"],
}


def test_what_is_asked_for_is_read_and_everything_else_passed_over(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf", **VOCABULARY)
    assert metadata(path, [".context_length", "ggml.merges", "is_good", "scale", "shape"]) == {
        "tiny.context_length": 512,
        "tiny.is_good": True,
        "tiny.scale": 0.5,
        "tiny.shape": [[1, 2, 3]],
        "tokenizer.ggml.merges": ["a b", "Ġ ab", "1 2"],
    }


def test_a_damaged_head_is_told_wherever_it_ends(tmp_path: Path) -> None:
    whole = gguf(tmp_path / "m.gguf", **VOCABULARY).read_bytes().removesuffix(b"weights")
    for size in range(4, len(whole), 5):
        (cut := tmp_path / "cut.gguf").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="ends in the middle"):
            metadata(cut, ["tokens"])


def test_other_files_are_told(tmp_path: Path) -> None:
    (other := tmp_path / "m.gguf").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="no GGUF"):
        metadata(other, ["tokens"])
    with pytest.raises(ValueError, match="version 1"):
        metadata(gguf(tmp_path / "old.gguf", version=1), ["tokens"])
    other.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("key") + struct.pack("<I", 99))
    with pytest.raises(ValueError, match="type 99"):
        metadata(other, ["tokens"])


# --- tokenizers -------------------------------------------------------------------------------------------------------


def counted(path: Path) -> Callable[[str], int]:
    count = gguf_tokenizer(path)
    assert count is not None
    return count


@pytest.mark.parametrize(
    ("pre", "digits"), [("default", 1), ("smollm", 2), ("qwen2", 2), ("llama-bpe", 1), ("something-new", 1)]
)
def test_text_is_split_and_merged_by_the_vocabulary(tmp_path: Path, pre: str, digits: int) -> None:
    count = counted(gguf(tmp_path / "m.gguf", **VOCABULARY | {"tokenizer__ggml__pre": pre}))
    assert count("") == 0
    assert count("ab ab") == 2
    assert count("ba") == 2
    assert count("12") == digits
    assert count("ab<|end|>ab") == 3


def test_a_vocabulary_of_another_kind_has_no_counter(tmp_path: Path) -> None:
    assert gguf_tokenizer(gguf(tmp_path / "m.gguf", **VOCABULARY | {"tokenizer__ggml__model": "llama"})) is None
    assert gguf_tokenizer(gguf(tmp_path / "n.gguf", general__name="none")) is None


def test_a_tokenizer_json(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"one": 0, "two": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(path := tmp_path / "tokenizer.json"))
    assert json_tokenizer(path)("one two three") == 3
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"no tokenizer\.json"):
        json_tokenizer(path)


def test_an_encoding_of_tiktoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words stand for tokens: what counts here is that the encoding's own call is asked, and what is refused."""

    def get_encoding(name: str) -> Any:
        if name != "words":
            raise KeyError(name)
        return SimpleNamespace(encode_ordinary=str.split)

    monkeypatch.setitem(sys.modules, "tiktoken", SimpleNamespace(get_encoding=get_encoding))
    assert tiktoken_encoding("words")("one two <|endoftext|>") == 3
    with pytest.raises(ValueError, match="no encoding 'other'"):
        tiktoken_encoding("other")


def test_a_library_that_is_not_there_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(EngineMissing, match="tiktoken"):
        tiktoken_encoding("words")


# --- counting ---------------------------------------------------------------------------------------------------------


def test_a_text_is_counted_once() -> None:
    asked: list[str] = []

    def count(text: str) -> int:
        asked.append(text)
        return len(text)

    counter = TokenCounter(count)
    assert [counter("four"), counter("four"), counter("")] == [4, 4, 0]
    assert asked == ["four", ""]


def test_only_so_many_counts_are_remembered_the_oldest_goes() -> None:
    asked: list[str] = []

    def count(text: str) -> int:
        asked.append(text)
        return 1

    counter = TokenCounter(count)
    for number in range(COUNTS_MAX + 1):
        counter(str(number))
    asked.clear()
    counter(str(COUNTS_MAX))
    counter("0")
    assert asked == ["0"]
    assert len(counter._counts) == COUNTS_MAX


def test_of_a_very_long_text_only_the_beginning_is_counted() -> None:
    asked: list[int] = []

    def count(text: str) -> int:
        asked.append(len(text))
        return len(text) // 4

    assert TokenCounter(count)("abcd" * EXACT_CHARS_MAX) == EXACT_CHARS_MAX
    assert asked == [EXACT_CHARS_MAX]


def test_half_a_character_is_no_reason_to_fail(tmp_path: Path) -> None:
    counter = TokenCounter(counted(gguf(tmp_path / "m.gguf", **VOCABULARY)))
    assert counter("ab\ud83d") == counter("ab?")


def test_the_marks_of_a_model_are_its_control_tokens(tmp_path: Path) -> None:
    assert gguf_marks(gguf(tmp_path / "m.gguf", **VOCABULARY)) == ["<|end|>"]
    assert gguf_marks(gguf(tmp_path / "n.gguf", general__name="none")) == []
