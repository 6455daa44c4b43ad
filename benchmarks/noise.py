"""What noise reduction does to speech, to noise, and to the engines that come after it.

    python benchmarks/noise.py FOLDER [--snr DB ...] [--noises NAME ...] [--noise FILE.wav] [--utterances N] [--words]

FOLDER is as in `wer.py`. Its utterances are mixed with noises made here (`--noises`) and with a recorded one
(`--noise`), and heard as they are, and through the embedded noise reduction for the near and for the far field, in the
same run. For each: scale-invariant signal to distortion ratio against the clean speech; frames of speech that voice
activity detection misses, and its false frames on the noise alone; how much softer the noise alone becomes; with
`--words` the word error rate, for the utterances that have a transcript.
"""

from __future__ import annotations

import argparse
import asyncio
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from wer import Utterance, as_pcm, as_samples, listen, plain, recorded

from vivavoce.audio import wav
from vivavoce.engines.dtln import Dtln
from vivavoce.engines.silero import Silero
from vivavoce.engines.whisper import Whisper

RATE_HZ = 16_000
SEED = 7
NOISE_S = 20
LEVELS_DB = (-20, -40)
"""Root mean square of the noise alone, below full scale."""
SETTLED_S = 2
STREAMS = 100
TALKERS = 6
TAIL = np.zeros(RATE_HZ // 20, np.float32)
"""Pushes out what the reducer keeps back."""
PEAK = 0.9

Samples = np.ndarray[tuple[int], np.dtype[np.float32]]
Reduce = Callable[[Samples], Samples]


# --- noises -----------------------------------------------------------------------------------------------------------


def coloured(samples: int, rng: np.random.Generator, exponent: float, corner_hz: float) -> Samples:
    """Noise whose power falls with frequency to the power of `exponent`, above a corner."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    shape = (np.maximum(np.fft.rfftfreq(samples, 1 / RATE_HZ), corner_hz) / corner_hz) ** (-exponent / 2)
    return np.fft.irfft(spectrum * shape, samples).astype(np.float32)


def fan(samples: int, rng: np.random.Generator) -> Samples:
    """Rumble, and a hum of 100 Hz with its harmonics."""
    rumble = coloured(samples, rng, 2, 30)
    times = np.arange(samples) / RATE_HZ
    hum = sum(1.2 / k * np.sin(2 * np.pi * 100 * k * times + k) for k in range(1, 9))
    return np.asarray(rumble / rumble.std() + hum, np.float32)


def keys(samples: int, rng: np.random.Generator) -> Samples:
    """About eight clicks a second, each 5 ms long."""
    out = rng.standard_normal(samples) * 0.002
    click = int(0.03 * RATE_HZ)
    for at in (np.cumsum(rng.exponential(0.12, samples * 8 // RATE_HZ)) * RATE_HZ).astype(int):
        if at + click < samples:
            shape = np.exp(-np.arange(click) / (0.005 * RATE_HZ)) * rng.uniform(0.3, 1)
            out[at : at + click] += rng.standard_normal(click) * shape
    return out.astype(np.float32)


def babble(samples: int, rng: np.random.Generator, others: list[Utterance]) -> Samples:
    """Several people at once, equally loud."""
    out = np.zeros(samples, np.float32)
    for _ in range(TALKERS):
        said = np.concatenate([others[n].samples for n in rng.permutation(len(others))[:8]])
        out += np.resize(np.roll(said, int(rng.integers(len(said)))), samples) / said.std()
    return out


Maker = Callable[[int, np.random.Generator], Samples]
NOISES: dict[str, Maker] = {
    "white": lambda n, rng: rng.standard_normal(n).astype(np.float32),
    "pink": lambda n, rng: coloured(n, rng, 1, 20),
    "fan": fan,
    "keys": keys,
}


def noisy(speech: Samples, noise: Samples, snr_db: float) -> Samples:
    """Both together; the level of speech is that of its loud parts. Softer where it would clip."""
    loud = speech[np.abs(speech) > 0.02 * np.abs(speech).max()]
    mixed = speech + noise * np.sqrt(np.mean(loud**2) / np.mean(noise**2) / 10 ** (snr_db / 10))
    return np.asarray(mixed * min(1, PEAK / np.abs(mixed).max()), np.float32)


# --- figures ----------------------------------------------------------------------------------------------------------


def si_sdr(clean: Samples, heard: Samples) -> float:
    """In dB; what is in `heard` that is no multiple of `clean` is distortion."""
    clean, heard = clean - clean.mean(), heard - heard.mean()
    target = clean * (np.dot(clean, heard) / np.dot(clean, clean))
    return float(10 * np.log10(np.dot(target, target) / np.sum((heard - target) ** 2)))


@dataclass
class Figures:
    """What was found for one way of listening to one noise at one level."""

    distortion_db: list[float] = field(default_factory=list)
    speech_frames: int = 0
    missed_frames: int = 0
    words: int = 0
    errors: int = 0

    def line(self, before: Figures) -> str:
        missed = 100 * self.missed_frames / self.speech_frames
        sdr = float(np.mean(self.distortion_db))
        text = (
            f"SI-SDR {sdr:5.1f} dB ({sdr - float(np.mean(before.distortion_db)):+5.1f})  speech missed {missed:5.1f} %"
        )
        return text + (f"  WER {100 * self.errors / self.words:5.1f} %" if self.words else "")


class Bench:
    """The engines, and the ways of listening."""

    def __init__(self, reducer: Dtln, vad: Silero, ear: Whisper | None) -> None:
        self._vad, self._ear = vad, ear
        self._reducer = reducer
        self.ways: dict[str, Reduce] = {
            "as it is": lambda x: x,
            "near": self._by("near_field"),
            "far": self._by("far_field"),
        }

    def _by(self, name: str) -> Reduce:
        def reduced(samples: Samples) -> Samples:
            stream = self._reducer.open(name, 1.0)  # type: ignore[arg-type]
            return as_samples(stream.push(as_pcm(np.concatenate([samples, TAIL]))), RATE_HZ)[: len(samples)]

        return reduced

    def speech(self, samples: Samples) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.array(self._vad.open().push(as_pcm(samples))) > 0.5

    async def hear(self, utterances: list[Utterance], noise: Samples, snr_db: float) -> None:
        found = {way: Figures() for way in self.ways}
        starts = np.random.default_rng(SEED).integers(len(noise), size=len(utterances))
        for utterance, start in zip(utterances, starts, strict=True):
            clean = utterance.samples
            mixed = noisy(clean, np.resize(np.roll(noise, -int(start)), len(clean)), snr_db)
            truth = self.speech(clean)
            for way, reduce in self.ways.items():
                heard, figures = reduce(mixed), found[way]
                figures.distortion_db.append(si_sdr(clean, heard))
                figures.speech_frames += int(truth.sum())
                figures.missed_frames += int((truth & ~self.speech(heard)).sum())
                if self._ear and utterance.transcript:
                    written = Utterance(utterance.name, heard, utterance.transcript)
                    figures.errors += (await listen(self._ear, [written]))[0].errors
                    figures.words += len(plain(utterance.transcript).split())
        for way, figures in found.items():
            print(f"    {snr_db:3.0f} dB  {way:9} {figures.line(found['as it is'])}", flush=True)

    def alone(self, noise: Samples) -> None:
        """The noise without anybody speaking."""
        for level_db in LEVELS_DB:
            loud = np.clip(noise / noise.std() * 10 ** (level_db / 20), -1, 1).astype(np.float32)
            for way, reduce in self.ways.items():
                heard = reduce(loud)
                softer = heard[SETTLED_S * RATE_HZ :].std() / loud[SETTLED_S * RATE_HZ :].std()
                false = 100 * np.mean(self.speech(heard))
                print(
                    f"    alone, {level_db} dBFS  {way:9} {20 * np.log10(softer):+5.1f} dB  false speech {false:5.1f} %"
                )


def cost(reducer: Dtln, vad: Silero, noise: Samples) -> None:
    """CPU for each second of audio in pushes of 32 ms, beside voice activity detection; memory of a stream; lag."""
    pcm = as_pcm(noise / np.float32(10 * noise.std()))
    parts = [pcm[at : at + 1024] for at in range(0, len(pcm), 1024)]
    lines = []
    for stream in (reducer.open("near_field", 1.0), vad.open()):
        times = []
        for part in parts:
            started = time.process_time()
            stream.push(part)
            times.append(1000 * (time.process_time() - started))
        lines.append((float(np.median(times)), sum(times) / len(noise) * RATE_HZ))
    (median, per_second), (vad_median, _) = lines
    print(f"CPU {per_second:.0f} ms per second of audio; 32 ms take {median:.2f} ms = {median / vad_median:.1f} × VAD")
    tracemalloc.start()
    streams = [reducer.open("near_field", 1.0) for _ in range(STREAMS)]
    for stream in streams:
        stream.push(parts[0])
    print(f"memory of a stream {tracemalloc.get_traced_memory()[0] / STREAMS / 1024:.0f} KiB")
    tracemalloc.stop()
    stream, given, lags = reducer.open("near_field", 1.0), 0, []
    for taken in range(2, 4096, 2):
        given += len(stream.push(pcm[taken - 2 : taken]))
        lags.append((taken - given) / 2 / RATE_HZ * 1000)
    print(f"lag at most {max(lags):.1f} ms")


async def measure(arguments: argparse.Namespace) -> None:
    everything = recorded(arguments.folder)
    known = [u for u in everything if u.transcript]
    others = [u for u in everything if not u.transcript] or known
    before = psutil.Process().memory_info().rss
    reducer, vad, ear = Dtln(), Silero(), Whisper() if arguments.words else None
    started = time.perf_counter()
    await reducer.warm_up()
    took, grown = time.perf_counter() - started, psutil.Process().memory_info().rss - before
    print(f"ready in {took:.2f} s, {grown / 2**20:.0f} MiB with onnxruntime; {len(known)} utterances")
    await vad.warm_up()
    if ear:
        await ear.warm_up()
    bench, rng = Bench(reducer, vad, ear), np.random.default_rng(SEED)
    makers: dict[str, Maker] = {**NOISES, "babble": lambda n, rng: babble(n, rng, others)}
    noises = {name: makers[name](NOISE_S * RATE_HZ, rng) for name in arguments.noises}
    if arguments.noise:
        noises[arguments.noise.stem] = as_samples(*wav.read(arguments.noise))
    cost(reducer, vad, makers["white"](NOISE_S * RATE_HZ, rng))
    print("hardly any noise", flush=True)
    await bench.hear(known[: arguments.utterances], NOISES["white"](RATE_HZ, rng), 60)
    for name, noise in noises.items():
        print(name, flush=True)
        bench.alone(noise[: NOISE_S * RATE_HZ])
        for snr_db in arguments.snr:
            await bench.hear(known[: arguments.utterances], noise, snr_db)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="WAV files and transcripts.tsv")
    parser.add_argument("--snr", type=float, nargs="+", default=[20, 10, 5, 0], help="dB (default 20 10 5 0)")
    parser.add_argument("--noises", nargs="*", choices=[*NOISES, "babble"], default=[*NOISES, "babble"])
    parser.add_argument("--noise", type=Path, help="WAV file with noise of its own")
    parser.add_argument("--utterances", type=int, default=100, help="how many at most (default 100)")
    parser.add_argument("--words", action="store_true", help="also the word error rate: minutes")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
