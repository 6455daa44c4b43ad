"""Several conversations at once with the embedded engines, and how soon these are silent when they are interrupted.

    python benchmarks/crowd.py FOLDER [--sessions 8] [--seconds 60] [--silence-ms 500] [--json]

The server runs in a process of its own. In every session utterances of FOLDER (WAV files) are spoken in real time, each
when the answer before it has been played; a session falls behind as a listener's clock says: `gaps` is how often one
that began at the first audio ran out of it before the answer was complete, and must be 0. CPU is the server's, and so
is the delay of its event loop, as its metrics tell it.

Then each engine alone, in this process, on a machine of one core as far as it knows: from closing its stream to the
moment at which its thread has given back the core, and what CPU the process takes in the half second before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from vivavoce.engines import Prompt, TranscriptionHints
from vivavoce.engines.cores import Cores, Urgency
from vivavoce.engines.hibari import Hibari
from vivavoce.engines.smollm import SmolLM
from vivavoce.engines.whisper import Whisper
from vivavoce.protocol.items import InputText, Message
from vivavoce.testing.bench import figures
from vivavoce.testing.bench.conversation import Asking, Endpoint
from vivavoce.testing.bench.load import SESSIONS_MAX, Loaded, load
from vivavoce.testing.bench.speech import Utterance, recorded
from vivavoce.testing.serving import serving

SPEECH_SECONDS_MAX = 12.0
"""Longer utterances are left out: a session that reads aloud for half a minute asks for nothing."""
PROMPT = "You are the voice of a railway company, and you help passengers to find their trains. " * 8
STORY = "Tell me a very long story about a train that is late, and about everybody who waits for it."
LOOK_S = 15.0
"""How often the server is asked for its metrics, which tell the worst of so many seconds."""
LOOP_DELAY = "vivavoce_loop_delay_seconds "
REPEATS = 7
CPU_SECONDS = 0.5


def crowd(said: list[Utterance], sessions: int, seconds: float, silence_ms: int) -> tuple[Loaded, list[float]]:
    """Hold the conversations; also how late the server's event loop was, in seconds. Raises where it does not start."""
    with serving(["-m", "vivavoce", "serve", "--port", "0", "--model", "local"]) as server:
        server.wait_until_ready()
        process = psutil.Process(server.process.pid)

        def cpu_s() -> float:
            used = process.cpu_times()
            return float(used.user + used.system)

        async def hold() -> tuple[Loaded, list[float]]:
            endpoint, delays = Endpoint.at(f"{server.url}/v1", "gpt-realtime"), list[float]()
            await asyncio.sleep(LOOK_S)  # so that none of the delays is of the server's beginning
            watching = asyncio.create_task(watch(server.url.replace("ws://", "http://"), delays))
            try:
                loaded = await load(endpoint, sessions, said, Asking(silence_ms), seconds=seconds, cpu_s=cpu_s)
            finally:
                watching.cancel()
            return loaded, delays

        return asyncio.run(hold())


async def watch(url: str, delays: list[float]) -> None:
    """Ask for the metrics until cancelled."""
    while True:
        await asyncio.sleep(LOOK_S)
        text = (await asyncio.to_thread(urllib.request.urlopen, f"{url}/metrics", timeout=LOOK_S)).read().decode()
        delays += [float(line.split()[-1]) for line in text.splitlines() if line.startswith(LOOP_DELAY)]


def told(loaded: Loaded, delays: list[float]) -> dict[str, Any]:
    """The figures. Gaps count in every answer, even in one to a turn that ended early."""
    answered = [turn for turn in loaded.turns if turn.audio_ms]
    return {
        **figures.of_load(loaded),
        "answers": len(answered),
        "gaps": sum(turn.gaps for turn in answered),
        "gap_ms": round(sum(turn.gap_ms for turn in answered)),
        "audio_s": round(sum(turn.audio_ms for turn in answered) / 1000),
        "event_loop_late_ms": [round(1000 * delay, 1) for delay in delays],
        "cpu_s_per_answer": round(loaded.cores * loaded.seconds / max(1, len(answered)), 2),
    }


# --- until it is silent -----------------------------------------------------------------------------------------------


class Silence(NamedTuple):
    """One interruption: ms until the core was free; the cores that were busy before it, and in `CPU_SECONDS` after."""

    ms: float
    cores_before: float
    cores_after: float


async def until_silent(
    cores: Cores, begin: Callable[[], AsyncIterator[Any]], reached: Callable[[AsyncIterator[Any]], Awaitable[object]]
) -> Silence:
    """Begin, go on until `reached`, close: how long until the only core is free, and what CPU is still taken."""
    probe = cores.share("probe", 1)
    stream = begin()
    began, cpu = time.perf_counter(), time.process_time()
    await reached(stream)
    closed, cpu_closed = time.perf_counter(), time.process_time()
    await stream.aclose()  # type: ignore[attr-defined]
    place = await cores.take(probe, Urgency.NOW)
    silent_ms = (time.perf_counter() - closed) * 1000
    cores.give_back(place)
    await asyncio.sleep(max(closed + CPU_SECONDS - time.perf_counter(), 0))
    after = (time.process_time() - cpu_closed) / (time.perf_counter() - closed)
    return Silence(silent_ms, (cpu_closed - cpu) / (closed - began), after)


async def first_piece(stream: AsyncIterator[Any]) -> None:
    await anext(stream)


def after(seconds: float) -> Callable[[AsyncIterator[Any]], Awaitable[None]]:
    """Leave a stream of which nothing has come yet."""

    async def reached(stream: AsyncIterator[Any]) -> None:
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.wait([waiting], timeout=seconds)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    return reached


async def interrupted(said: list[Utterance]) -> dict[str, list[Silence]]:
    """Each engine in the midst of its work, several times; the language model also while it reads its prompt."""
    cores = Cores(1)
    model, voice, ear = SmolLM(), Hibari(), Whisper()
    for engine in (model, voice, ear):
        engine.share(cores)
        await engine.warm_up()
    audio = said[0].audio[: len(said[0].audio) // 6 * 6]
    count = iter(range(10_000))

    def asked(instructions: str) -> AsyncIterator[Any]:
        text = f"{next(count)}: {STORY}"
        return model.generate(Prompt(instructions, (Message(role="user", content=(InputText(text=text),)),)))

    cases: dict[str, tuple[Callable[[], AsyncIterator[Any]], Callable[[AsyncIterator[Any]], Awaitable[object]]]] = {
        "language model, writing": (lambda: asked("Be brief."), first_piece),
        "language model, reading": (lambda: asked(f"{next(count)} {PROMPT}"), after(0.4)),
        "voice, in a phrase": (lambda: voice.speak(f"{STORY} {next(count)}", "alloy", 1.0), after(0.03)),
        "ear, in a turn": (lambda: ear.transcribe(audio, TranscriptionHints()), after(0.1)),
    }
    found: dict[str, list[Silence]] = {name: [] for name in cases}
    for _ in range(REPEATS):
        for name, (begin, reached) in cases.items():
            found[name].append(await until_silent(cores, begin, reached))
    for engine in (model, voice, ear):
        await engine.close()
    return found


def parse() -> argparse.Namespace:
    """The command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="WAV files to speak")
    parser.add_argument("--sessions", type=int, default=8, help="conversations at once (default 8)")
    parser.add_argument("--seconds", type=float, default=60, help="how long they are measured (default 60)")
    parser.add_argument("--silence-ms", type=int, default=500, help="silence that ends a turn (default 500)")
    parser.add_argument("--no-interruptions", action="store_true", help="leave out the second part")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if not 1 <= arguments.sessions <= SESSIONS_MAX:
        parser.error(f"--sessions: 1 to {SESSIONS_MAX}")
    return arguments


def main() -> int:
    """0 where no answer had a gap."""
    arguments = parse()
    said = [one for one in recorded([arguments.folder]) if one.end_ms <= SPEECH_SECONDS_MAX * 1000]
    found = told(*crowd(said, arguments.sessions, arguments.seconds, arguments.silence_ms))
    silent = {} if arguments.no_interruptions else asyncio.run(interrupted(said))
    if arguments.json:
        plain = {name: [one._asdict() for one in times] for name, times in silent.items()}
        print(json.dumps({**found, "silent": plain}))
    else:
        for name, value in found.items():
            print(f"{name:24} {value}")
        for name, times in silent.items():
            ms, before, after = (statistics.median(one) for one in zip(*times, strict=True))
            most = max(one.ms for one in times)
            print(
                f"{name:24} silent after {ms:.0f} ms, at most {most:.0f}; {before:.2f} cores before, {after:.2f} after"
            )
    return 0 if not found["gaps"] and found["answers"] else 1


if __name__ == "__main__":
    sys.exit(main())
