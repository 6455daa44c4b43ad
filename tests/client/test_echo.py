from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from vivavoce.client.echo import FAR_WAITS_MS_MAX, EchoCanceller
from vivavoce.errors import EngineMissing

RATE_HZ = 24_000
FRAME = 240

Sound = NDArray[np.float64]


def bursts(seconds: float, seed: int) -> Sound:
    """Noise in syllables of a quarter second, as loud as speech is recorded."""
    chance = np.random.default_rng(seed)
    at = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    envelope = (
        np.clip(np.sin(2 * math.pi * 2 * at), 0, None)
        * (chance.random(len(at) // 6_000 + 1) > 0.2).repeat(6_000)[: len(at)]
    )
    return np.convolve(chance.standard_normal(len(at)), np.ones(4) / 4, "same") * envelope * 5_000


def room(far: Sound, delay_ms: int) -> Sound:
    """What comes back of it: delayed, with a tail of reflections."""
    chance = np.random.default_rng(7)
    tail = chance.standard_normal(1_800) * np.exp(-np.arange(1_800) / 300) * 0.1
    tail[0] = 0.5
    late = np.concatenate([np.zeros(RATE_HZ * delay_ms // 1000), np.convolve(far, tail)])
    return late[: len(far)]


def pcm(sound: Sound) -> bytes:
    return bytes(np.rint(sound).clip(-32_768, 32_767).astype("<i2").tobytes())


def cleaned(canceller: EchoCanceller, far: Sound, recorded: Sound) -> Sound:
    out = bytearray()
    for at in range(0, len(far), FRAME):
        canceller.push_far(pcm(far[at : at + FRAME]))
        out += canceller.clean(pcm(recorded[at : at + FRAME]))
    return np.frombuffer(bytes(out), "<i2").astype(np.float64)


def loudness_db(sound: Sound, begin_s: float, end_s: float) -> float:
    part = sound[int(begin_s * RATE_HZ) : int(end_s * RATE_HZ)]
    return 10 * math.log10(max(float((part**2).mean()), 1e-3))


@pytest.mark.parametrize("delay_ms", [15, 120])
def test_what_is_played_is_taken_out_of_what_is_recorded(delay_ms: int) -> None:
    far = bursts(6, seed=1)
    recorded = room(far, delay_ms)
    clean = cleaned(EchoCanceller(), far, recorded)
    assert loudness_db(recorded, 3, 6) - loudness_db(clean, 3, 6) > 15


def test_who_speaks_while_nothing_is_played_is_left_alone() -> None:
    far = bursts(6, seed=1)
    far[3 * RATE_HZ :] = 0
    near = bursts(6, seed=2)
    near[: 3 * RATE_HZ] = 0
    clean = cleaned(EchoCanceller(), far, room(far, 60) + near)
    assert loudness_db(clean, 4, 6) == pytest.approx(loudness_db(near, 4, 6), abs=1.5)


def test_the_two_sides_may_come_in_blocks_of_any_length() -> None:
    far = bursts(5, seed=3)
    recorded, canceller = room(far, 40), EchoCanceller()
    out, length = bytearray(), 0
    for at in range(0, len(far), 700):  # neither is a multiple of 10 ms
        canceller.push_far(pcm(far[at : at + 700]))
        part = canceller.clean(pcm(recorded[at : at + 700]))
        assert len(part) % (2 * FRAME) == 0
        out += part
        length += len(recorded[at : at + 700])
    assert 0 <= 2 * length - len(out) < 2 * FRAME
    clean = np.frombuffer(bytes(out), "<i2").astype(np.float64)
    assert loudness_db(recorded, 3, 5) - loudness_db(clean, 3, 5) > 15


def test_what_was_played_before_anything_was_recorded_is_not_kept() -> None:
    far, near, canceller = bursts(6, seed=4), bursts(6, seed=2), EchoCanceller()
    far[3 * RATE_HZ :] = 0
    near[: 3 * RATE_HZ] = 0
    canceller.push_far(pcm(bursts(3, seed=5)))  # the loudspeaker was opened three seconds earlier
    canceller.push_far(bytes(2 * FRAME))
    recorded = room(far, 40) + near
    clean = cleaned(canceller, far, recorded)
    assert loudness_db(recorded, 1.5, 3) - loudness_db(clean, 1.5, 3) > 15
    assert loudness_db(clean, 4, 6) == pytest.approx(loudness_db(near, 4, 6), abs=1.5)
    assert FAR_WAITS_MS_MAX < 500


def test_after_a_reset_nothing_of_before_is_left() -> None:
    canceller = EchoCanceller()
    canceller.push_far(pcm(bursts(1, seed=6)))
    assert canceller.clean(b"\1\0" * 100) == b""
    canceller.reset()
    assert canceller.clean(bytes(2 * FRAME)) == bytes(2 * FRAME)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    with pytest.raises(EngineMissing, match=r'pip install "vivavoce\[echo\]"'):
        EchoCanceller()


def test_a_rate_that_has_no_frames_of_10_ms_is_refused() -> None:
    with pytest.raises(ValueError, match="rate_hz"):
        EchoCanceller(11_025)
