"""What hearing a turn while it is spoken costs, and how soon after the last word its text is there.

    python benchmarks/listening.py FOLDER [--pauses 200,500] [--count N]

Utterances of FOLDER (see `wer.py`) are spoken in real time, 20 ms a piece, up to where voice activity ends; then the
pause that a turn detector waits for, and the text is asked for. Two ways in turn, on the same utterances: `along` has
drafted while it was spoken; `after` begins at the end of the pause, as a plain cascade does. Times count from the end
of speech, so the pause is in them; CPU is that of the whole process, per second of audio.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import wer

from vivavoce.engines import TranscriptionHints
from vivavoce.engines.silero import Silero
from vivavoce.engines.stretches import SPEECH_BEGINS
from vivavoce.engines.whisper import Whisper

PIECE_S = 0.02
HINTS = TranscriptionHints()


def spoken_part(vad: Silero, pcm: bytes) -> bytes:
    """The recording up to the last frame with speech."""
    probabilities = vad.open().push(pcm)
    last = max((index for index, p in enumerate(probabilities) if p >= SPEECH_BEGINS), default=len(probabilities) - 1)
    return pcm[: (last + 1) * vad.frame_ms * wer.RATE_HZ * 2 // 1000]


async def paced(pieces: list[bytes], take: Callable[[bytes], None]) -> None:
    """Give each piece when it would have been spoken."""
    began = time.perf_counter()
    for index, piece in enumerate(pieces, 1):
        await asyncio.sleep(max(0.0, began + index * PIECE_S - time.perf_counter()))
        take(piece)


async def along(ear: Whisper, pieces: list[bytes]) -> tuple[float, str]:
    """Seconds that the text took after the pause, and the text."""
    turn = ear.listen(HINTS, lambda words, guess: None)
    await paced(pieces, turn.push)
    asked = time.perf_counter()
    text = await turn.settle()
    return time.perf_counter() - asked, text


async def after(ear: Whisper, pieces: list[bytes]) -> tuple[float, str]:
    await paced(pieces, lambda piece: None)
    asked = time.perf_counter()
    text = "".join([piece async for piece in ear.transcribe(b"".join(pieces), HINTS)])
    return time.perf_counter() - asked, text


async def measure(folder: Path, pauses_ms: list[int], count: int) -> None:
    utterances = wer.recorded(folder)
    utterances = utterances[:: max(1, len(utterances) // count)][:count]
    ear, vad = Whisper(), Silero()
    await ear.warm_up()
    await vad.warm_up()
    ways = {"along": along, "after": after}
    for pause_ms in pauses_ms:
        waits: dict[str, list[float]] = {name: [] for name in ways}
        cpu = dict.fromkeys(ways, 0.0)
        seconds = 0.0
        for utterance in utterances:
            pcm = spoken_part(vad, wer.as_pcm(utterance.samples)) + bytes(pause_ms * wer.RATE_HZ * 2 // 1000)
            pieces = [pcm[at : at + wer.PIECE_BYTES] for at in range(0, len(pcm), wer.PIECE_BYTES)]
            seconds += len(pcm) / 2 / wer.RATE_HZ
            for name, way in ways.items():
                used = time.process_time()
                wait, _ = await way(ear, pieces)
                cpu[name] += time.process_time() - used
                waits[name].append(1000 * wait + pause_ms)
        for name, times in waits.items():
            times.sort()
            print(
                f"pause {pause_ms} ms, {name:6} end of speech to text: median {statistics.median(times):5.0f} ms, "
                f"p95 {times[int(0.95 * (len(times) - 1))]:5.0f} ms; CPU {cpu[name] / seconds:.3f} s per s of audio "
                f"({len(times)} utterances, {seconds:.0f} s)",
                flush=True,
            )
    await ear.close()
    await vad.close()


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="WAV files and transcripts.tsv")
    parser.add_argument("--pauses", default="200", help="ms of silence before the text is asked for (default 200)")
    parser.add_argument("--count", type=int, default=40, help="how many utterances (default 40)")
    arguments = parser.parse_args()
    pauses_ms = [int(pause) for pause in arguments.pauses.split(",")]
    asyncio.run(measure(arguments.folder, pauses_ms, arguments.count))


if __name__ == "__main__":
    main()
