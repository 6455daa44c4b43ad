"""How well the embedded turn detector tells the end of a turn from a pause within it.

    python benchmarks/end_of_turn.py FOLDER [--fit FOLDER] [--folds N] [--mistakes]

FOLDER holds WAV files and `transcripts.tsv` with the columns file and speaker. Each recording gives one turn that is
over (all of its speech) and several that are not: up to each of its pauses, and up to a quiet place near 35, 55 and
75 % of it. Behind every one, finished or not, come 200 ms of the recording's own background, so that the silence tells
nothing. The `whisper` engine writes down what it hears, and the detector judges. `--fit` prints weights fitted on
another folder and judges FOLDER with those too; `--folds` fits on some speakers of FOLDER and judges the others.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vivavoce.audio import wav
from vivavoce.audio.resample import resample
from vivavoce.engines import TranscriptionHints
from vivavoce.engines.endings import Endings, Weights, features
from vivavoce.engines.intonation import CUES, cues
from vivavoce.engines.silero import FRAME_SAMPLES, Silero
from vivavoce.engines.whisper import Whisper
from vivavoce.engines.wording import SIGNS, signs

RATE_HZ = 16_000
PAUSE_MS = 200
PAUSE_FRAMES_MIN = 4
"""Voice activity falls late: 128 ms of it below the limit are a pause of about 150 ms."""
SPEECH_MIN, PAUSE_MAX = 0.5, 0.35
BEFORE_MS = 300
SPOKEN_MS_MIN = 500
"""So much speech comes before a cut, and before and behind a pause."""
CUTS = (0.35, 0.55, 0.75)
CUT_RANGE = (0.3, 0.8)
CUT_SEARCH_MS = 200
CUT_PAUSE_MS = 250
"""A cut keeps so far away from a pause, and from another cut."""
FADE_MS = 20
THRESHOLD = 0.5

PRIOR: Mapping[str, float] = {
    "text": 0.5,
    "asking": 0.0,
    "unmarked": -1.0,
    "comma": -2.0,
    "trailing": -3.0,
    "hesitating": -3.0,
    "hanging": -3.0,
    "leaning": -1.5,
    "wanting": -2.5,
    "describing": -2.0,
    "counting": -2.5,
    "condition": -2.0,
    "lone": -1.0,
    "reply": 2.0,
    "courtesy": 1.5,
    "pitch": -0.5,
    "syllable": -0.3,
    "level": -0.1,
}
"""What a weight is believed to be before any data: read speech has no fillers, no telephone numbers, no “yes”."""
SPREAD = 0.7
"""How far data may move a weight, in log-odds."""
STEPS = 30

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Turn:
    """A turn with a pause behind it, and what it shows. `kind` is whole, pause or cut; only `whole` is over."""

    name: str
    speaker: str
    kind: str
    audio: bytes
    text: str = ""

    @property
    def is_over(self) -> bool:
        return self.kind == "whole"


# --- turns from recordings --------------------------------------------------------------------------------------------


def turns_of(name: str, speaker: str, samples: Samples, speech: NDArray[np.float64]) -> Iterator[Turn]:
    """The turns of one recording; `speech` is the probability of speech in each frame."""
    spoken = np.flatnonzero(speech >= SPEECH_MIN)
    if not len(spoken):
        return
    first, last = int(spoken[0]), int(spoken[-1]) + 1
    start = max(0, first * FRAME_SAMPLES - BEFORE_MS * RATE_HZ // 1000)
    background = quietest(samples)

    def turn(kind: str, end: int) -> Turn:
        return Turn(name, speaker, kind, followed(samples[start:end], background))

    yield turn("whole", min(len(samples), (last + 1) * FRAME_SAMPLES))
    pauses = [
        (a * FRAME_SAMPLES + FRAME_SAMPLES // 2, b * FRAME_SAMPLES)
        for a, b in gaps(speech, first, last)
        if min(a - first, last - b) * FRAME_SAMPLES >= SPOKEN_MS_MIN * RATE_HZ // 1000
    ]
    for begin, _ in pauses:
        yield turn("pause", begin)
    for cut in cuts(samples, first * FRAME_SAMPLES, last * FRAME_SAMPLES, pauses):
        yield turn("cut", cut)


def gaps(speech: NDArray[np.float64], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Frames [a, b) without speech between frames of speech."""
    a: int | None = None
    for index in range(first, last):
        if speech[index] < PAUSE_MAX:
            a = index if a is None else a
        elif a is not None:
            if index - a >= PAUSE_FRAMES_MIN:
                yield a, index
            a = None


def cuts(samples: Samples, first: int, last: int, pauses: Sequence[tuple[int, int]]) -> Iterator[int]:
    """Quiet places near the shares `CUTS` of the speech, which are mostly between words; away from pauses."""
    width = 30 * RATE_HZ // 1000
    power = np.convolve(samples**2, np.ones(width, np.float32), "same")
    away, search = CUT_PAUSE_MS * RATE_HZ // 1000, CUT_SEARCH_MS * RATE_HZ // 1000
    earliest = first + SPOKEN_MS_MIN * RATE_HZ // 1000
    low, high = (int(first + (last - first) * share) for share in CUT_RANGE)
    taken = list(pauses)
    for share in CUTS:
        middle = int(first + (last - first) * share)
        begin, end = max(middle - search, low, earliest), min(middle + search, high)
        if begin >= end:
            continue
        cut = begin + int(np.argmin(power[begin:end]))
        if all(cut < a - away or cut > b + away for a, b in taken):
            taken.append((cut, cut))
            yield cut


def quietest(samples: Samples) -> Samples:
    """The quietest 200 ms that are not digital silence."""
    size = PAUSE_MS * RATE_HZ // 1000
    power = np.convolve(samples.astype(np.float64) ** 2, np.ones(size) / size, "valid")[:: RATE_HZ // 100]
    if (power > 1).any():
        power = np.where(power > 1, power, np.inf)
    at = int(np.argmin(power)) * (RATE_HZ // 100)
    return samples[at : at + size]


def followed(speech: Samples, background: Samples) -> bytes:
    """Speech that fades into its background."""
    fade = FADE_MS * RATE_HZ // 1000
    down = np.linspace(1, 0, fade, dtype=np.float32)
    seam = speech[-fade:] * down + background[:fade] * (1 - down)
    joined = np.concatenate([speech[:-fade], seam, background[fade:], background[:fade]])
    return joined.clip(-32_768, 32_767).astype("<i2").tobytes()


async def heard(folder: Path) -> list[Turn]:
    """The turns of every recording in the folder, transcribed."""
    with (folder / "transcripts.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    vad, ear = Silero(), Whisper()
    await vad.warm_up()
    await ear.warm_up()
    turns = []
    try:
        for row in rows:
            pcm, rate_hz = wav.read(folder / row["file"])
            samples = np.frombuffer(resample(pcm, rate_hz, RATE_HZ), "<i2").astype(np.float32)
            speech = np.array(vad.open().push(samples.astype("<i2").tobytes() + bytes(RATE_HZ)))
            # Nobody knows who an unknown speaker is: each recording counts as one of its own.
            speaker = row.get("speaker") or ""
            speaker = row["file"] if not speaker or "unknown" in speaker else speaker
            for turn in turns_of(row["file"], speaker, samples, speech):
                text = "".join([piece async for piece in ear.transcribe(turn.audio, TranscriptionHints())])
                turns.append(Turn(turn.name, turn.speaker, turn.kind, turn.audio, text))
    finally:
        await vad.close()
        await ear.close()
    return turns


# --- weights ----------------------------------------------------------------------------------------------------------


def fitted(turns: Sequence[Turn]) -> Weights:
    """Logistic regression, drawn towards `PRIOR`, by Newton's steps.

    Finished and unfinished turns weigh the same in sum, and of the unfinished, pauses as much as cuts: pauses are what
    a detector is asked about, cuts are what there is more of. Each turn counts half with words and sound, and a quarter
    with either alone, so that the weights are right for those too.
    """
    names = (*SIGNS, *CUES)
    kinds = np.array([turn.kind for turn in turns])
    share = {"whole": 0.5, "pause": 0.25, "cut": 0.25} if "pause" in kinds else {"whole": 0.5, "cut": 0.5}
    weight = np.array([share[kind] * len(turns) / np.sum(kinds == kind) for kind in kinds])
    shown = [features(signs(turn.text), cues(turn.audio)) for turn in turns]
    both = np.array([[found.get(name, 0.0) for name in names] for found in shown])
    without_words, without_sound = both.copy(), both.copy()
    without_words[:, : len(SIGNS)] = 0
    without_sound[:, len(SIGNS) :] = 0
    x = np.concatenate([both, without_words, without_sound])
    y = np.tile([float(turn.is_over) for turn in turns], 3)
    weight = np.concatenate([weight / 2, weight / 4, weight / 4])
    prior = np.array([PRIOR[name] for name in names])
    solution = prior.copy()
    for _ in range(STEPS):
        guess = 1 / (1 + np.exp(-x @ solution))
        slope = x.T @ (weight * (y - guess)) - (solution - prior) / SPREAD**2
        bend = (x * (weight * guess * (1 - guess))[:, None]).T @ x + np.eye(len(names)) / SPREAD**2
        solution = solution + np.linalg.solve(bend, slope)
    return Weights({name: round(float(value), 2) for name, value in zip(names, solution, strict=True)})


def across(turns: Sequence[Turn], folds: int) -> list[float]:
    """Each turn judged by weights that were fitted without its speaker."""
    speakers = sorted({turn.speaker for turn in turns})
    fold = {speaker: index % folds for index, speaker in enumerate(speakers)}
    weights = [fitted([t for t in turns if fold[t.speaker] != index]) for index in range(folds)]
    return [weights[fold[t.speaker]].probability(signs(t.text), cues(t.audio)) for t in turns]


# --- the report -------------------------------------------------------------------------------------------------------


def auc(turns: Sequence[Turn], judged: Sequence[float]) -> float:
    """How often a finished turn is judged higher than an unfinished one."""
    over = np.array([p for turn, p in zip(turns, judged, strict=True) if turn.is_over])
    open_ = np.array([p for turn, p in zip(turns, judged, strict=True) if not turn.is_over])
    return float((np.sign(over[:, None] - open_[None, :]) / 2 + 0.5).mean())


def row(title: str, turns: Sequence[Turn], judged: Sequence[float], ms: str = "") -> str:
    both = list(zip(turns, judged, strict=True))
    parts = [f"{title:26} AUC {auc(turns, judged):.3f}"]
    for kind in ("pause", "cut"):
        chosen = [(t, p) for t, p in both if t.kind in ("whole", kind)]
        if any(not t.is_over for t, _ in chosen):
            parts.append(f"{kind}s {auc([t for t, _ in chosen], [p for _, p in chosen]):.3f}")
    early = statistics.mean(p >= THRESHOLD for t, p in both if not t.is_over)
    late = statistics.mean(p < THRESHOLD for t, p in both if t.is_over)
    parts.append(f"early endings {100 * early:4.1f} %  needless waits {100 * late:4.1f} %")
    return "  ".join([*parts, ms])


async def timed(turns: Sequence[Turn]) -> tuple[list[float], str]:
    """The engine's own judgements and its time for each."""
    engine = Endings()
    await engine.warm_up()
    judged, times = [], []
    for turn in turns:
        started = time.perf_counter()
        judged.append(await engine.judge(turn.audio, turn.text))
        times.append(1000 * (time.perf_counter() - started))
    await engine.close()
    times.sort()
    return judged, f"{statistics.median(times):.1f} ms (p90 {times[int(0.9 * (len(times) - 1))]:.1f})"


async def measure(arguments: argparse.Namespace) -> None:
    turns = await heard(arguments.folder)
    count = {kind: sum(turn.kind == kind for turn in turns) for kind in ("whole", "pause", "cut")}
    print(f"{count['whole']} finished turns; unfinished: {count['pause']} at pauses, {count['cut']} at cuts")
    judged, ms = await timed(turns)
    print(row("words and sound", turns, judged, ms))
    engine = Endings()
    await engine.warm_up()
    print(row("words alone", turns, [await engine.judge(b"", turn.text) for turn in turns]))
    print(row("sound alone", turns, [await engine.judge(turn.audio, "") for turn in turns]))
    print(row("silence alone", turns, [THRESHOLD] * len(turns)))
    if arguments.mistakes:
        for turn, p in sorted(zip(turns, judged, strict=True), key=lambda both: both[1]):
            if (p >= THRESHOLD) != turn.is_over:
                print(f"    {p:.2f} {turn.kind:5} {turn.name}: {turn.text!r}")
    if arguments.folds:
        print(row(f"fitted across {arguments.folds} folds", turns, across(turns, arguments.folds)))
    if arguments.fit:
        weights = fitted(await heard(arguments.fit))
        judged = [weights.probability(signs(turn.text), cues(turn.audio)) for turn in turns]
        print(row(f"fitted on {arguments.fit.name}", turns, judged))
        print(weights)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="WAV files and transcripts.tsv")
    parser.add_argument("--fit", type=Path, help="another such folder, to fit weights on")
    parser.add_argument("--folds", type=int, default=0, help="fit on some speakers, judge the others")
    parser.add_argument("--mistakes", action="store_true", help="print what was judged wrongly")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
