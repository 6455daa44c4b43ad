"""How well the embedded ear hears: word error rate and time for each utterance.

    python benchmarks/wer.py [FOLDER] [--model FOLDER] [--noise FILE.wav] [--variants] [--paths] [--misses N]

FOLDER holds WAV files and `transcripts.tsv` with the columns file, transcript, slots. A row with a transcript counts
for the word error rate; one with slots only ("large;oat milk") for the share of its phrases that were written down.
Without FOLDER, ten sentences are spoken by the embedded voice first: a round trip through both engines.
`--variants` listens again to every utterance softer, faster, slower, cut, padded, in pairs, and with `--noise` in
noise, and counts what a guard against loops is for: words that nobody said, and sentences left out.
`--paths` compares with the same weights on a plain 30 s window, and with hearing while it is spoken; there the time is
that of the drafts together, in CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ctranslate2
import jiwer
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from vivavoce.audio import wav
from vivavoce.audio.resample import resample
from vivavoce.engines import TranscriptionHints
from vivavoce.engines.hibari import Hibari
from vivavoce.engines.logmel import log_mel
from vivavoce.engines.weights import WHISPER, verified
from vivavoce.engines.whisper import WINDOW_COLUMNS, Whisper, WhisperSettings

SENTENCES = (
    "Good morning, how can I help you today?",
    "The train to Vienna leaves at half past seven from platform nine.",
    "Please remind me to water the plants on Thursday evening.",
    "I would like a table for four people next to the window.",
    "The museum is closed on Mondays, but the garden stays open.",
    "Could you turn the lights off in the kitchen?",
    "Your order has been shipped and should arrive tomorrow.",
    "It will rain in the afternoon, so take an umbrella with you.",
    "My telephone number has changed since we last spoke.",
    "She sold the old piano and bought a violin instead.",
)
RATE_HZ = 16_000
SNR_DB = 17.0
GAP_S = 0.4
PAD_S = 0.6
PIECE_BYTES = 640
PAUSE_S = 0.2
"""Heard behind an utterance that is heard along, as at the end of a turn."""
CUT_AT = 0.6
LOOP_CHARACTERS, LOOP_CHARACTERS_PER_S = 20, 25
LOOP_WORDS, LOOP_SHARE = 3, 1.4
"""A text is a loop if nobody speaks so fast, or if it has this many words more than the truth, and the share of it."""
LEFT_OUT_WORDS, LEFT_OUT_SHARE = 2, 0.7
"""Something is left out of a text that has this many words less than the share of the truth."""

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Utterance:
    """A recording and what is known about it; `transcript` empty where nobody wrote it down."""

    name: str
    samples: Samples
    transcript: str
    slots: tuple[str, ...] = ()


@dataclass(frozen=True)
class Heard:
    """What the ear wrote, and how long it took."""

    utterance: Utterance
    text: str
    seconds: float

    @property
    def errors(self) -> int:
        """Words wrong, missing and added."""
        if not self.utterance.transcript:
            return 0
        found = jiwer.process_words(plain(self.utterance.transcript), plain(self.text))
        return found.substitutions + found.deletions + found.insertions


# --- words ------------------------------------------------------------------------------------------------------------

SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
SMALL += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
ORDINALS["twelve"] = "twelfth"


def cardinal(number: int) -> str:
    """0 to 999,999 in words; a year from 1100 to 1999 as it is read."""
    if number < 20:
        return SMALL[number]
    if number < 100:
        return TENS[number // 10] + (f" {SMALL[number % 10]}" if number % 10 else "")
    if number < 1000 or (1100 <= number < 2000 and number % 100):
        head = f"{cardinal(number // 100)} hundred" if number < 1000 else cardinal(number // 100)
        return head + (f" {cardinal(number % 100)}" if number % 100 else "")
    return f"{cardinal(number // 1000)} thousand" + (f" {cardinal(number % 1000)}" if number % 1000 else "")


def ordinal(number: int) -> str:
    """1 to 999,999 as 1st, 2nd … in words."""
    *head, last = cardinal(number).split()
    return " ".join([*head, ORDINALS.get(last, f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th")])


def plain(text: str) -> str:
    """Lower case, no punctuation, numbers as words: what a fair comparison compares."""
    text = text.lower().replace("’", "'").replace("%", " percent ")
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"(\d{1,6})(?:st|nd|rd|th)\b", lambda found: f" {ordinal(int(found[1]))} ", text)
    text = re.sub(r"\d{1,6}", lambda found: f" {cardinal(int(found[0]))} ", text)
    return " ".join(re.findall(r"[a-z']+", text))


# --- what is heard ----------------------------------------------------------------------------------------------------


def as_samples(pcm: bytes, rate_hz: int) -> Samples:
    return np.frombuffer(resample(pcm, rate_hz, RATE_HZ), "<i2").astype(np.float32) / np.float32(32_768)


def as_pcm(samples: Samples) -> bytes:
    return (np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes()


def recorded(folder: Path) -> list[Utterance]:
    """The utterances that `transcripts.tsv` lists."""
    with (folder / "transcripts.tsv").open(encoding="utf-8", newline="") as file:
        return [
            Utterance(
                row["file"],
                as_samples(*wav.read(folder / row["file"])),
                row["transcript"],
                tuple(slot for slot in row["slots"].split(";") if slot),
            )
            for row in csv.DictReader(file, delimiter="\t")
        ]


async def synthesized() -> list[Utterance]:
    """The sentences, spoken by the embedded voice."""
    voice = Hibari()
    await voice.warm_up()
    try:
        return [
            Utterance(
                f"sentence {number}",
                as_samples(b"".join([piece async for piece in voice.speak(text, "heart", 1.0)]), voice.rate_hz),
                text,
            )
            for number, text in enumerate(SENTENCES, 1)
        ]
    finally:
        await voice.close()


def variants(utterances: list[Utterance], noise: Samples | None) -> Iterator[tuple[str, list[Utterance]]]:
    """The same utterances as they might also have come in."""

    def each(change: Callable[[Samples], Samples]) -> list[Utterance]:
        return [Utterance(u.name, change(u.samples), u.transcript, u.slots) for u in utterances]

    silence = np.zeros(int(PAD_S * RATE_HZ), np.float32)
    yield "padded with silence", each(lambda x: np.concatenate([silence, x, silence]))
    yield "12 dB softer", each(lambda x: x * np.float32(0.25))
    yield "8 % faster", each(lambda x: stretched(x, 1.08))
    yield "8 % slower", each(lambda x: stretched(x, 0.92))
    yield "cut at 60 %", [Utterance(u.name, u.samples[: int(len(u.samples) * CUT_AT)], "") for u in utterances]
    gap = np.zeros(int(GAP_S * RATE_HZ), np.float32)
    yield (
        "pairs, 0.4 s between",
        [
            Utterance(
                f"{a.name} + {b.name}",
                np.concatenate([a.samples, gap, b.samples]),
                f"{a.transcript} {b.transcript}" if a.transcript and b.transcript else "",
                a.slots + b.slots if not (a.transcript or b.transcript) else (),
            )
            for a, b in zip(utterances, utterances[1:] + utterances[:1], strict=True)
        ],
    )
    if noise is not None:
        yield "padded with noise", each(lambda x: noisy(np.concatenate([silence, x, silence]), noise, x, outside=True))
        yield f"in noise, {SNR_DB:.0f} dB", each(lambda x: noisy(x, noise, x, outside=False))
        pieces = np.array_split(noise, max(len(noise) // (4 * RATE_HZ), 1))
        yield "noise alone", [Utterance(f"noise {number}", piece, "") for number, piece in enumerate(pieces)]


def stretched(samples: Samples, speed: float) -> Samples:
    """Played faster or slower: pitch changes with it."""
    return as_samples(as_pcm(samples), round(RATE_HZ * speed))


def noisy(samples: Samples, noise: Samples, speech: Samples, *, outside: bool) -> Samples:
    """`samples` with noise `SNR_DB` below `speech`, everywhere or only outside of it."""
    hiss = np.resize(noise, len(samples)).astype(np.float32)
    loud = np.abs(speech) > np.quantile(np.abs(speech), 0.5)
    level = float(np.sqrt(np.mean(speech[loud] ** 2)) / np.sqrt(np.mean(hiss**2)))
    hiss = hiss * (level / 10 ** (SNR_DB / 20))
    if outside:
        pad = (len(samples) - len(speech)) // 2
        hiss[pad : pad + len(speech)] = 0
    return np.asarray(samples + hiss, np.float32)


# --- listening --------------------------------------------------------------------------------------------------------


async def listen(ear: Whisper, utterances: list[Utterance]) -> list[Heard]:
    """One after the other, timed."""
    heard = []
    for utterance in utterances:
        pcm = as_pcm(utterance.samples)
        started = time.perf_counter()
        text = "".join([piece async for piece in ear.transcribe(pcm, TranscriptionHints())])
        heard.append(Heard(utterance, text, time.perf_counter() - started))
    return heard


def plain_window(utterances: list[Utterance], model: str | None, beam_size: int) -> list[Heard]:
    """What the same weights write without any of our tricks: every utterance in a window of 30 s, no guard."""
    folder = model or str(verified(*WHISPER).parent)
    whisper = ctranslate2.models.Whisper(folder, compute_type="int8", intra_threads=1)
    tokens = Tokenizer.from_file(f"{folder}/tokenizer.json")
    names = ["<|en|>", "<|transcribe|>"] if whisper.is_multilingual else []
    prompt = [tokens.token_to_id(name) for name in ("<|startoftranscript|>", *names, "<|notimestamps|>")]
    heard = []
    for utterance in utterances:
        started = time.perf_counter()
        view = ctranslate2.StorageView.from_array(log_mel(utterance.samples, WINDOW_COLUMNS, whisper.n_mels)[None])
        found = whisper.generate(view, [prompt], beam_size=beam_size)[0]
        text = tokens.decode(found.sequences_ids[0])
        heard.append(Heard(utterance, text, time.perf_counter() - started))
    return heard


async def listen_along(ear: Whisper, utterances: list[Utterance]) -> list[Heard]:
    """Every utterance in pieces of 20 ms, then a pause; each draft is finished before the next piece comes."""
    heard = []
    for utterance in utterances:
        pcm = as_pcm(utterance.samples) + bytes(2 * int(PAUSE_S * RATE_HZ))
        told: list[str] = []
        started = time.process_time()
        turn = ear.listen(TranscriptionHints(), lambda words, _, told=told: told.append(words))
        for start in range(0, len(pcm), PIECE_BYTES):
            turn.push(pcm[start : start + PIECE_BYTES])
            await turn.idle()
        text = await turn.settle()
        assert text.startswith("".join(told).strip()), "what was told stays"
        heard.append(Heard(utterance, text, time.process_time() - started))
    return heard


def report(title: str, heard: list[Heard], misses: int) -> None:
    """The figures, and the worst utterances."""
    known = [h for h in heard if h.utterance.transcript]
    line = [f"{title:22}"]
    if known:
        words = sum(len(plain(h.utterance.transcript).split()) for h in known)
        line.append(f"WER {100 * sum(h.errors for h in known) / words:5.1f} % of {words} words")
    slots = [plain(slot) in plain(h.text) for h in heard for slot in h.utterance.slots]
    if slots:
        line.append(f"phrases {sum(slots)} of {len(slots)}")
    loops = [h for h in heard if is_loop(h)]
    short = [h for h in known if is_short(h)]
    line.append(
        f"loops {len(loops)}, left out {len(short)}, text for {sum(bool(h.text) for h in heard)} of {len(heard)}"
    )
    times = sorted(1000 * h.seconds for h in heard)
    line.append(f"median {statistics.median(times):.0f} ms, p90 {times[int(0.9 * (len(times) - 1))]:.0f} ms")
    print("  ".join(line), flush=True)
    for h in loops:
        print(f"    loop in {h.utterance.name}: {plain(h.text)!r}")
    for h in [*short, *sorted(known, key=lambda h: -h.errors)[:misses]]:
        if h.errors:
            print(f"    {h.errors:3} {h.utterance.name}: {plain(h.utterance.transcript)!r} → {plain(h.text)!r}")


def is_loop(heard: Heard) -> bool:
    characters_max = LOOP_CHARACTERS + LOOP_CHARACTERS_PER_S * len(heard.utterance.samples) / RATE_HZ
    truth, found = len(plain(heard.utterance.transcript).split()), len(plain(heard.text).split())
    return len(heard.text) > characters_max or 0 < truth < (found - LOOP_WORDS) / LOOP_SHARE


def is_short(heard: Heard) -> bool:
    truth, found = len(plain(heard.utterance.transcript).split()), len(plain(heard.text).split())
    return found < truth * LEFT_OUT_SHARE - LEFT_OUT_WORDS


async def measure(arguments: argparse.Namespace) -> None:
    utterances = recorded(arguments.folder) if arguments.folder else await synthesized()
    ear = Whisper(WhisperSettings(model=arguments.model))
    started = time.perf_counter()
    await ear.warm_up()
    print(f"ready in {time.perf_counter() - started:.1f} s; {len(utterances)} utterances")
    try:
        report("as recorded", await listen(ear, utterances), arguments.misses)
        if arguments.paths:
            for beam_size in (5, 1):
                report(f"plain window, beam {beam_size}", plain_window(utterances, arguments.model, beam_size), 0)
            report("while it is spoken", await listen_along(ear, utterances), arguments.misses)
        if arguments.variants:
            noise = as_samples(*wav.read(arguments.noise)) if arguments.noise else None
            for title, others in variants(utterances, noise):
                report(title, await listen(ear, others), 0)
    finally:
        await ear.close()


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="WAV files and transcripts.tsv")
    parser.add_argument("--model", help="folder of another Whisper model for CTranslate2")
    parser.add_argument("--variants", action="store_true", help="also listen to changed recordings")
    parser.add_argument("--paths", action="store_true", help="also a plain window of 30 s, and hearing along")
    parser.add_argument("--noise", type=Path, help="WAV file with noise, for the variants")
    parser.add_argument("--misses", type=int, default=100, help="how many misses to print (default 100)")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
