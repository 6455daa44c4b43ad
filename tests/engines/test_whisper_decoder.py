"""The decoder that takes a guess: with any guess it writes what it would write without one."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from vivavoce.engines import TranscriptionHints
from vivavoce.engines.doubt import Draft
from vivavoce.engines.incremental import Care
from vivavoce.engines.weights import WHISPER, verified
from vivavoce.engines.whisper import RATE_HZ, UNSURE, WhisperSettings, _Heard, _Model
from vivavoce.engines.whisper_decoder import Memory, WhisperDecoder, _behind, _log_total, _weights

HINTS = TranscriptionHints()


def test_large_logits_do_not_overflow() -> None:
    assert np.allclose(_log_total(np.array([[1_000.0, 1_000.0]], np.float32)), 1_000 + np.log(2))


def test_a_memory_goes_on_as_the_other() -> None:
    short, long = np.zeros((2, 3, 4), np.float32), np.ones((2, 5, 4), np.float32)
    joined = Memory([short.swapaxes(1, 2)], [short]).followed_by(Memory([long.swapaxes(1, 2)], [long]))
    assert (joined.keys[0].shape, joined.values[0].shape) == ((2, 4, 5), (2, 5, 4))
    assert joined.keys[0][:, 0].tolist() == joined.values[0][:, :, 0].tolist() == [[0, 0, 0, 1, 1]] * 2


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(struct.pack("<IH", 6, 4) + b"Else" + struct.pack("<II", 1, 0))
    with pytest.raises(ValueError, match="Else"):
        _weights(tmp_path / "model.bin")


@pytest.mark.parametrize(
    ("token", "at", "behind"),
    [
        (50, 1, 2),  # another one in its place
        (30, 1, 3),  # the guess had one too much
        (10, 1, 1),  # the guess had one too few
        (90, 1, 2),  # too far away to be the same word
        (20, 9, 10),  # the guess is at its end
    ],
)
def test_a_guess_is_taken_up_again_where_it_goes_on(token: int, at: int, behind: int) -> None:
    assert _behind(token, [10, 20, 30, 40, 60, 70, 90], at) == behind


@pytest.mark.models
def test_a_guess_changes_the_time_and_not_the_text() -> None:
    folder = verified(*WHISPER).parent
    model = _Model(str(folder), WhisperSettings())
    decoder = model._decoder
    assert isinstance(decoder, WhisperDecoder)
    # A sound without words is the hardest: whatever is written hangs by a thread.
    samples = np.random.default_rng(3).standard_normal(3 * RATE_HZ).astype(np.float32) * 0.1
    samples *= np.sin(np.arange(len(samples)) / RATE_HZ * 12).astype(np.float32)
    prompt = model._prompt("en", HINTS)
    encoded = model._encoded(model._log_mel(samples, 400, 80)[None])
    memory = decoder.memory(encoded[0]).followed_by(model._silence_memory)
    alone = decoder.read(memory, prompt, (), (), 20)
    assert alone.tokens
    assert alone.passes == len(alone.tokens) + alone.complete
    again = decoder.read(memory, prompt, (), alone.tokens, 20)
    assert (again.tokens, again.complete, again.passes) == (alone.tokens, alone.complete, 1)
    assert again.score == pytest.approx(alone.score, abs=0.01)
    random = np.random.default_rng(4)
    for _ in range(6):
        guess = list(alone.tokens)
        guess[random.integers(len(guess))] = int(random.integers(1_000, 40_000))
        other = decoder.read(memory, prompt, (), [*guess, 11, 12], 20)
        assert other.tokens == alone.tokens
        assert other.passes > 1
    behind = decoder.read(memory, prompt, alone.tokens[:1], (), 19)
    assert (*alone.tokens[:1], *behind.tokens) == alone.tokens
    assert decoder.read(memory, prompt, (), (), 3).tokens == alone.tokens[:3]


@pytest.mark.models
def test_a_sketch_begins_with_what_is_known_and_stops_when_told() -> None:
    model = _Model(str(verified(*WHISPER).parent), WhisperSettings())
    known = model._tokens.encode(" Good morning", add_special_tokens=False).ids
    noise = (np.random.default_rng(3).standard_normal(2 * RATE_HZ) * 900).astype("<i2").tobytes()
    sketch = model.sketch(noise, 1.5, HINTS, known, (), threading.Event(), Care.END)
    assert sketch.text.startswith(" Good morning")
    model._decoder = None
    slower = model.sketch(noise, 1.5, HINTS, known, (), threading.Event(), Care.END)
    assert slower.text.startswith(" Good morning"), "so it is with a model that CTranslate2 must read"
    assert list(slower.tokens[: len(known)]) == known
    stopped = threading.Event()
    stopped.set()
    assert model.sketch(noise, 1.5, HINTS, (), (), stopped, Care.END).tokens == ()


@pytest.mark.models
def test_an_unsure_reading_gives_way_to_a_likelier_one_where_speech_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _Model(str(verified(*WHISPER).parent), WhisperSettings())
    searched: list[float] = []

    def heard(text: str, score: float) -> _Heard:
        tokens = model._tokens.encode(text, add_special_tokens=False).ids
        return _Heard(Draft(text, len(tokens), score, 0.0, True), "en", None, [], tokens)

    def sketch(read: float, found: float, care: Care) -> str:
        def search(*_: object) -> _Heard:
            searched.append(found)
            return heard(" a dark roast coffee", found)

        monkeypatch.setattr(model, "_guessed", lambda *_: heard(" a dark rose coffee", read))
        monkeypatch.setattr(model, "_search", search)
        return model.sketch(bytes(2 * RATE_HZ), 1.5, HINTS, (), (), threading.Event(), care).text

    assert sketch(UNSURE - 0.1, -0.3, Care.SPOKEN) == " a dark rose coffee", "there will be another draft"
    assert sketch(UNSURE + 0.1, -0.1, Care.PAUSE) == " a dark rose coffee", "sure enough"
    assert not searched
    assert sketch(UNSURE - 0.1, -0.3, Care.PAUSE) == " a dark roast coffee"
    assert sketch(UNSURE - 0.1, -0.9, Care.PAUSE) == " a dark rose coffee", "what was found is less likely"
    assert len(searched) == 2
