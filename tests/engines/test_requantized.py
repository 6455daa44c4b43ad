"""4-bit weights become 8-bit ones, and everything else in the file stays what it was."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from vivavoce.engines import requantized as module
from vivavoce.engines.gguf import Layout, layout_of, metadata
from vivavoce.engines.requantized import Q4_1, Q8_0, cache_folder, q4_1, q8_0, requantized

np: Any = pytest.importorskip("numpy")
F32 = 0
ALIGNMENT = 32


def blocks(seed: int, count: int) -> bytes:
    """Blocks of Q4_1: scales and least values of a model's size, and any nibbles."""
    random = np.random.default_rng(seed)
    heads = random.uniform([0.001, -0.5], [0.1, 0.0], (count, 2)).astype(np.float16)
    return bytes(np.concatenate([heads.view(np.uint8), random.integers(0, 256, (count, 16), np.uint8)], 1).tobytes())


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def model(path: Path, *tensors: tuple[str, tuple[int, ...], int, bytes]) -> Path:
    """A GGUF file."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 2)
    head += text("general.alignment") + struct.pack("<II", 4, ALIGNMENT)
    head += text("x.context_length") + struct.pack("<II", 4, 77)
    body, names = b"", b""
    for name, shape, kind, data in tensors:
        names += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(body))
        body += data + bytes(-len(data) % ALIGNMENT)
    head += names
    path.write_bytes(head + bytes(-len(head) % ALIGNMENT) + body)
    return path


def read(path: Path) -> tuple[Layout, dict[str, bytes]]:
    """What is where, and the bytes of every tensor."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        layout = layout_of(data)
        return layout, {
            one.name: data[layout.begin + one.at : layout.begin + one.at + one.size] for one in layout.tensors
        }


@pytest.fixture
def original(tmp_path: Path) -> Path:
    norm = np.arange(5, dtype=np.float32).tobytes()
    first, second = ("first", (64, 3), Q4_1, blocks(1, 6)), ("second", (32,), Q4_1, blocks(2, 1))
    return model(tmp_path / "model.gguf", first, ("norm", (5,), F32, norm), second)


def values(data: bytes) -> Any:
    """Of blocks of Q8_0."""
    rows = np.frombuffer(data, np.uint8).reshape(-1, 34)
    return rows[:, 2:].view(np.int8) * rows[:, :2].copy().view(np.float16).astype(np.float32)


def test_every_value_stays_what_it_was_to_within_half_a_step(original: Path, tmp_path: Path) -> None:
    made = requantized(original, "made", tmp_path / "cache")
    before, after = read(original)[1], read(made)
    assert [(one.name, one.shape, one.kind) for one in after[0].tensors] == [
        ("first", (64, 3), Q8_0),
        ("norm", (5,), F32),
        ("second", (32,), Q8_0),
    ]
    assert after[1]["norm"] == before["norm"]
    for name in ("first", "second"):
        exact, now = q4_1(before[name]), values(after[1][name])
        greatest = np.abs(exact).max(axis=1, keepdims=True)
        assert (np.abs(exact - now) <= greatest * (1 / 254 + 1e-3)).all()


def test_known_values() -> None:
    block = np.array([0.5, -1.0], np.float16).tobytes() + bytes([0x10, 0xF2] + [0] * 14)
    (row,) = q4_1(block)
    assert row[:2].tolist() == [-1.0, 0.0]
    assert row[16:18].tolist() == [-0.5, 6.5]
    assert np.abs(values(q8_0(row[None]))[0] - row).max() < 6.5 / 200
    assert not values(q8_0(np.zeros((1, 32), np.float32))).any()


def test_what_is_known_of_the_model_stays(original: Path, tmp_path: Path) -> None:
    made = requantized(original, "made", tmp_path / "cache")
    assert metadata(made, [".context_length"]) == {"x.context_length": 77}
    layout = read(made)[0]
    assert made.stat().st_size == layout.size
    assert [one.at % ALIGNMENT for one in layout.tensors] == [0, 0, 0]


def test_it_is_made_once(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = requantized(original, "made", tmp_path / "cache")
    monkeypatch.setattr(module, "_write", None)
    assert requantized(original, "made", tmp_path / "cache") == made


def test_a_file_that_is_not_whole_is_made_anew(original: Path, tmp_path: Path) -> None:
    made = requantized(original, "made", tmp_path / "cache")
    whole = made.read_bytes()
    made.write_bytes(whole[:-1])
    assert requantized(original, "made", tmp_path / "cache").read_bytes() == whole
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["made", "made.sha256"]


def test_a_file_that_was_changed_is_made_anew(original: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = requantized(original, "made", tmp_path / "cache")
    whole = made.read_bytes()
    made.write_bytes(whole[:-40] + bytes(byte ^ 1 for byte in whole[-40:]))
    os.utime(made, ns=(1, 1))
    assert requantized(original, "made", tmp_path / "cache").read_bytes() == whole
    assert "is not what was written there" in caplog.text


def test_a_file_that_was_only_copied_is_compared_once(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = requantized(original, "made", tmp_path / "cache")
    monkeypatch.setattr(module, "_write", None)
    os.utime(made, ns=(1, 1))
    assert requantized(original, "made", tmp_path / "cache") == made
    monkeypatch.setattr(module, "_digest", None)
    assert requantized(original, "made", tmp_path / "cache") == made


@pytest.mark.parametrize("record", [None, b"", b"\xff", b"0000 1 1"])
def test_without_a_record_that_can_be_read_it_is_made_anew(
    record: bytes | None, original: Path, tmp_path: Path
) -> None:
    made = requantized(original, "made", tmp_path / "cache")
    whole, beside = made.read_bytes(), made.with_name("made.sha256")
    made.write_bytes(bytes(len(whole)))
    if record is None:
        beside.unlink()
    else:
        beside.write_bytes(record)
    assert requantized(original, "made", tmp_path / "cache").read_bytes() == whole


def test_large_tensors_are_taken_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = blocks(3, 7)
    original = model(tmp_path / "model.gguf", ("only", (32, 7), Q4_1, data))
    monkeypatch.setattr(module, "ROWS", 3)
    assert read(requantized(original, "made", tmp_path))[1]["only"] == q8_0(q4_1(data))


def test_where_there_is_no_room_the_model_is_used_as_it_is(
    original: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    caplog.set_level("INFO")
    assert requantized(original, "made", tmp_path / "taken") == original
    assert "is used as it is" in caplog.text


def test_a_file_that_ends_too_early_is_refused(original: Path, tmp_path: Path) -> None:
    original.write_bytes(original.read_bytes()[:-40])
    with pytest.raises(ValueError, match="ends before its tensor 'second'"):
        requantized(original, "made", tmp_path)


@pytest.mark.parametrize(
    ("shape", "kind", "complaint"),
    [((32,), 99, "unknown type 99"), ((33,), Q4_1, "come by 32"), ((1,) * 9, F32, "9 dimensions")],
)
def test_tensors_that_nobody_knows_are_refused(
    shape: tuple[int, ...], kind: int, complaint: str, tmp_path: Path
) -> None:
    original = model(tmp_path / "model.gguf", ("odd", shape, kind, bytes(64)))
    with pytest.raises(ValueError, match=complaint):
        requantized(original, "made", tmp_path)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIVAVOCE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("VIVAVOCE_CACHE")
    assert "vivavoce" in cache_folder().parts
