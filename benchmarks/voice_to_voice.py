"""How long a person waits: from the end of speech to the first sound of the answer, and where the time goes.

    python benchmarks/voice_to_voice.py [FILE.wav|FOLDER …] [--pipeline local] [--turns 10] [--url URL] [--json]

Speaks in real time, 20 ms at a time, over a WebSocket to a server in a process of its own (or to any endpoint with
--url), and near-silence between the turns; the server finds the end of each turn. All times count from the true end of
speech: the moment at which the last 10 ms of the recording that are within 35 dB of its loudest 10 ms have been spoken
into the microphone. Without files, a few questions are synthesized first, with the embedded voice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from serving import serving

from vivavoce.audio import wav
from vivavoce.audio.formats import PCM16_24K
from vivavoce.audio.resample import resample
from vivavoce.client import Session, connect
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev

QUESTIONS = (
    "Hello! Can you hear me?",
    "What is the capital of France?",
    "How many days are there in a week?",
    "Please tell me something about the sea.",
    "What should I cook for dinner tonight?",
)
CHUNK_MS = 20
FRAME_MS = 10
SPEECH_BELOW_PEAK_DB = 35.0
NOISE_PEAK = 12
"""What the microphone hears between the turns, of 32,767: about -70 dB."""
PAUSE_S = 0.3
"""Between an answer and the next turn."""
GRACE_S = 3.0
"""How long after the end of speech a turn may begin to be answered that seems to have been answered before."""
TURN_SECONDS_MAX = 90.0
TURNS_MAX = 200
BAR_CHARS = 46

STAGES = {
    "speech_stopped": "end of turn found",
    "committed": "committed",
    "created": "response created",
    "transcript": "transcript",
    "first_text": "first text",
    "first_audio": "first audio",
    "done": "response done",
}
HEADLINE = "first_audio"


# --- what is said -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Utterance:
    """A recording, PCM16 mono at 24 kHz, and where in it speech ends."""

    name: str
    audio: bytes
    end_ms: int


def utterance(name: str, audio: bytes) -> Utterance:
    """Find the end of speech by level."""
    samples = np.frombuffer(audio, "<i2").astype(np.float64)
    size = PCM16_24K.samples(FRAME_MS)
    whole = samples[: len(samples) // size * size].reshape(-1, size)
    power = (whole**2).mean(axis=1)
    if not power.size or not power.max():
        raise SystemExit(f"{name}: there is nothing to hear in it")
    loud = np.nonzero(power >= power.max() / 10 ** (SPEECH_BELOW_PEAK_DB / 10))[0]
    return Utterance(name, audio, int(loud[-1] + 1) * FRAME_MS)


def recorded(sources: Sequence[Path]) -> list[Utterance]:
    """The WAV files, and those in the folders, by name."""
    files = [file for source in sources for file in (sorted(source.glob("*.wav")) if source.is_dir() else [source])]
    if not files:
        raise SystemExit("no WAV files there")
    return [
        utterance(file.stem, resample(pcm, rate_hz, PCM16_24K.rate_hz))
        for file, (pcm, rate_hz) in ((file, wav.read(file)) for file in files)
    ]


async def synthesized() -> list[Utterance]:
    """The questions, spoken by the embedded voice."""
    from vivavoce.engines.hibari import create

    voice = create({})
    await voice.warm_up()
    try:
        return [
            utterance(
                text,
                resample(b"".join([piece async for piece in voice.speak(text, "echo", 1.0)]), voice.rate_hz, 24_000),
            )
            for text in QUESTIONS
        ]
    finally:
        await voice.close()


class Microphone:
    """Runs in real time on one schedule from its beginning to its end: a late chunk makes no later one late."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self.late_ms: list[float] = []
        self._send = send
        self._speech = b""
        self._began = 0.0
        self._chunks = 0
        noise = np.random.default_rng(1).integers(-NOISE_PEAK, NOISE_PEAK + 1, PCM16_24K.samples(1_000))
        self._noise = noise.astype("<i2").tobytes()

    def say(self, said: Utterance) -> float:
        """Begin with the next chunk; give the time at which speech will have ended, by `time.perf_counter`."""
        self._speech = said.audio
        return self._began + (self._chunks * CHUNK_MS + said.end_ms) / 1000

    async def run(self) -> None:
        """Record until cancelled. A chunk is sent at the moment at which its last sample has been heard."""
        self._began = time.perf_counter()
        while True:
            chunk = self._next()
            self._chunks += 1
            due = self._began + self._chunks * CHUNK_MS / 1000
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            self.late_ms.append((time.perf_counter() - due) * 1000)
            await self._send(chunk)

    def _next(self) -> bytes:
        size = PCM16_24K.bytes_of(CHUNK_MS)
        at = self._chunks * size % len(self._noise)
        chunk, self._speech = self._speech[:size], self._speech[size:]
        return chunk + self._noise[at : at + size][len(chunk) :]


# --- what comes back --------------------------------------------------------------------------------------------------


@dataclass
class Turn:
    """One turn: when its stages were reached, in ms after the true end of speech."""

    name: str
    spoken_ms: int
    ended_at: float
    stages: dict[str, float] = field(default_factory=dict)
    heard: str = ""
    answer: str = ""
    audio_ms: int = 0
    error: str | None = None
    was_cut: bool = False
    """Whether the server found an end of the turn while it was still being spoken."""
    _item_id: str = ""
    _response_id: str = ""
    _is_open: bool = False

    def take(self, event: ev.AnyServerEvent | ev.Unknown, now: float) -> None:
        """Note an event. Where speech begins again after an early end, the stages begin again as well."""
        match event:
            case ev.InputAudioBufferSpeechStarted():
                self._begin_again()
            case ev.InputAudioBufferSpeechStopped():
                self.was_cut = self.was_cut or now < self.ended_at
                self._mark("speech_stopped", now)
            case ev.InputAudioBufferCommitted():
                self._item_id = event.item_id
                self._mark("committed", now)
            case ev.ResponseCreated():
                self._response_id = event.response.id
                self._mark("created", now)
            case ev.ConversationItemInputAudioTranscriptionCompleted() if event.item_id == self._item_id:
                self.heard = event.transcript
                self._mark("transcript", now)
            case ev.ResponseOutputAudioTranscriptDelta() if event.response_id == self._response_id:
                self.answer += event.delta
                self._mark("first_text", now)
            case ev.ResponseOutputAudioDelta() if event.response_id == self._response_id:
                self.audio_ms += PCM16_24K.duration_ms(event.delta)
                self._mark("first_audio", now)
            case ev.ResponseDone() if event.response.id == self._response_id:
                self._mark("done", now)
                self._is_open = False
                if event.response.status != "completed":
                    self.error = f"the response ended {event.response.status}"
            case ev.ErrorEvent():
                self.error = event.error.message

    def _begin_again(self) -> None:
        self.stages.clear()
        self.heard = self.answer = self._item_id = self._response_id = ""
        self.audio_ms, self.error, self._is_open = 0, None, True

    def _mark(self, stage: str, now: float) -> None:
        self.stages.setdefault(stage, (now - self.ended_at) * 1000)

    def is_over(self, now: float) -> bool:
        """Whether everything that was said has been answered, as far as one can know."""
        if self._is_open or now < self.ended_at:
            return False
        return self.stages.get("done", 0.0) > 0 or now > self.ended_at + GRACE_S

    def check(self) -> None:
        """Say what is missing."""
        if self.error is None and HEADLINE not in self.stages:
            self.error = "no answer" if self.stages else "no speech was found"


class Conversation:
    """A session that is spoken to turn by turn."""

    def __init__(self, connection: Session) -> None:
        self.microphone = Microphone(connection.append_audio)
        self._connection = connection
        self._turn: Turn | None = None

    async def run(self) -> None:
        """Record and listen until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.microphone.run())
            group.create_task(self._listen())

    async def _listen(self) -> None:
        async for event in self._connection:
            if self._turn is not None:
                self._turn.take(event, time.perf_counter())
        raise SystemExit("the server closed the connection")

    async def hold(self, said: Utterance) -> Turn:
        """Speak, and wait until the answer is complete."""
        self._turn = turn = Turn(said.name, said.end_ms, self.microphone.say(said))
        with suppress(TimeoutError):
            async with asyncio.timeout(TURN_SECONDS_MAX):
                while not turn.is_over(time.perf_counter()):  # noqa: ASYNC110 - it is time itself that is waited for
                    await asyncio.sleep(CHUNK_MS / 1000)
        turn.check()
        await asyncio.sleep(PAUSE_S)
        return turn


def session(arguments: argparse.Namespace) -> cfg.RealtimeSession:
    """What the client asks for."""
    detection = cfg.ServerVad(silence_duration_ms=arguments.silence_ms)
    listening = cfg.AudioInput(transcription=cfg.Transcription(model="whisper-1"), turn_detection=detection)
    return cfg.RealtimeSession(audio=cfg.AudioConfig(input=listening))


async def converse(
    url: str, said: Sequence[Utterance], arguments: argparse.Namespace, report: Callable[[Turn], None]
) -> tuple[list[Turn], list[float]]:
    """Hold the turns in one session, or each in its own; also how late the microphone was, in ms."""
    turns: list[Turn] = []
    late_ms: list[float] = []
    share = 1 if arguments.fresh else len(said)
    for begin in range(0, len(said), share):
        async with connect(arguments.model, url=url, api_key=arguments.api_key) as connection:
            await connection.update_session(session(arguments))
            conversation = Conversation(connection)
            running = asyncio.create_task(conversation.run())
            await asyncio.sleep(PAUSE_S)
            for utterance in said[begin : begin + share]:
                holding = asyncio.create_task(conversation.hold(utterance))
                await asyncio.wait((holding, running), return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    await running
                turns.append(await holding)
                report(turns[-1])
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            late_ms += conversation.microphone.late_ms
    return turns, late_ms


# --- what is told -----------------------------------------------------------------------------------------------------


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not exceeded by this share of them."""
    ranked = sorted(values)
    return ranked[max(int(-(-len(ranked) * share // 1)) - 1, 0)]


def summary(turns: Sequence[Turn], late_ms: Sequence[float]) -> dict[str, Any]:
    """The figures. The first turn of all stands apart; turns that failed or were cut are counted and left out."""
    first, later = turns[0], turns[1:]
    good = [turn for turn in later if turn.error is None and not turn.was_cut]
    stages = {}
    for stage in STAGES:
        values = [turn.stages[stage] for turn in good if stage in turn.stages]
        if values:
            stages[stage] = {"median_ms": statistics.median(values), "p95_ms": percentile(values, 0.95)}
    median = stages.get(HEADLINE, {}).get("median_ms")
    of_first = first.stages.get(HEADLINE)
    return {
        "turns": len(later),
        "counted": len(good),
        "cut": sum(turn.was_cut for turn in later),
        "failed": sum(turn.error is not None for turn in later),
        "stages": stages,
        "first_turn": first.stages,
        "first_turn_ratio": of_first / median if of_first and median else None,
        "microphone_late_p99_ms": percentile(late_ms, 0.99),
    }


def row(cells: Sequence[str], name: str) -> str:
    """A line of the table of turns."""
    return "".join(f"{cell:>9}" for cell in cells) + f"  {name}"


def heading() -> str:
    """The names above the columns."""
    return row(["speech", "stopped", "created", "heard", "text", "audio", "done"], "ms after the end of speech")


def line(turn: Turn) -> str:
    """One turn as a line."""
    shown = ("speech_stopped", "created", "transcript", "first_text", "first_audio", "done")
    cells = [f"{turn.spoken_ms / 1000:.1f} s"]
    cells += [f"{turn.stages[stage]:.0f}" if stage in turn.stages else "-" for stage in shown]
    remark = turn.error or ("cut early; " if turn.was_cut else "") + f"{turn.heard.strip()!r}"
    return row(cells, f"{turn.name[:34]}: {remark[:60]}")


def waterfall(stages: dict[str, dict[str, float]]) -> Iterator[str]:
    """The stages up to the first sound as bars, each from the one before it to its own median."""
    reached = sorted((of["median_ms"], stage) for stage, of in stages.items() if stage != "done")
    whole = max(reached[-1][0], 1.0)
    before = 0.0
    for median, stage in reached:
        begin, end = (round(max(ms, 0.0) / whole * BAR_CHARS) for ms in (before, median))
        bar = " " * begin + "█" * max(end - begin, 0) + "▏" * (begin >= end)
        yield f"  {STAGES[stage]:18} {bar:{BAR_CHARS + 1}} {median:6.0f}  (+{median - before:.0f})"
        before = median


def show(figures: dict[str, Any]) -> None:
    """The figures for people."""
    print(f"\n{figures['counted']} turns counted; {figures['cut']} cut early and {figures['failed']} failed, left out")
    print(f"  {'':18} {'median':>8} {'p95':>8}")
    for stage, of in figures["stages"].items():
        print(f"  {STAGES[stage]:18} {of['median_ms']:8.0f} {of['p95_ms']:8.0f}")
    if figures["first_turn_ratio"] is not None:
        ratio, of_first = figures["first_turn_ratio"], figures["first_turn"][HEADLINE]
        print(f"\nfirst turn of all: {STAGES[HEADLINE]} after {of_first:.0f} ms, {ratio:.2f} × the median")
    if figures["stages"]:
        print("\nwhere the time goes (medians, ms after the end of speech)")
        print("\n".join(waterfall(figures["stages"])))
    print(f"\nThe microphone was late by {figures['microphone_late_p99_ms']:.1f} ms (p99).")


# --- the command ------------------------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path, metavar="FILE|FOLDER", help="WAV files to speak, in a circle")
    parser.add_argument("--url", help="measure this endpoint (http://host:8080/v1) and start no server")
    parser.add_argument("--pipeline", default="local", help="pipeline of the server: local (default) or scripted")
    parser.add_argument("--config", type=Path, help="settings file for the server, which may name other pipelines")
    parser.add_argument("--model", default="gpt-realtime", help="model to ask for (default gpt-realtime)")
    parser.add_argument("--api-key", help="key for --url (default: OPENAI_API_KEY)")
    parser.add_argument("--silence-ms", type=int, default=500, help="silence that ends a turn (default 500)")
    parser.add_argument("--turns", type=int, default=10, help="turns to count, besides the first of all (default 10)")
    parser.add_argument("--fresh", action="store_true", help="a new session for each turn; default: one conversation")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    arguments = parser.parse_args()
    if not 1 <= arguments.turns <= TURNS_MAX:
        parser.error(f"--turns: 1 to {TURNS_MAX}")
    return arguments


async def measure(url: str, arguments: argparse.Namespace, said: Sequence[Utterance]) -> int:
    """Hold all turns, tell the figures; 0 where at least one turn counts."""

    def report(turn: Turn) -> None:
        if not arguments.json:
            print(line(turn), flush=True)

    if not arguments.json:
        print(heading())
    turns, late_ms = await converse(url, list(islice(cycle(said), arguments.turns + 1)), arguments, report)
    figures = summary(turns, late_ms)
    if arguments.json:
        of_turns = [{name: value for name, value in vars(turn).items() if name[0] != "_"} for turn in turns]
        print(json.dumps({**figures, "silence_ms": arguments.silence_ms, "each": of_turns}))
    else:
        show(figures)
    return 0 if figures["counted"] else 1


def main() -> int:
    """Prepare what is said, start the server, measure."""
    arguments = parse()
    said = recorded(arguments.sources) if arguments.sources else asyncio.run(synthesized())
    if arguments.url is not None:
        return asyncio.run(measure(arguments.url, arguments, said))
    command = ["-m", "vivavoce", "serve", "--port", "0", "--model", arguments.pipeline]
    if arguments.config is not None:
        command += ["--config", str(arguments.config)]
    with serving(command) as server:
        return asyncio.run(measure(f"{server.url}/v1", arguments, said))


if __name__ == "__main__":
    sys.exit(main())
