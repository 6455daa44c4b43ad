"""How the server stands damaged frames and bad days: no promise broken, nothing left behind, memory bounded.

    python benchmarks/soak.py [--frames 100000] [--seeds 0:1000]
    python benchmarks/soak.py --minutes 30 [--sessions 20] [--door picows]

First damaged frames, through the real runtime and every codec; each must have exactly its answer. Then conversations
from seeds, with weather and failing engines; each must keep every promise. Both on virtual time, in this process. What
is left of memory is measured by the resident set as the run goes on, and by tracemalloc for single conversations. Ends
with status 1 where anything was found, and says the seed, so that it can be looked at again.

With `--minutes` neither of them, but real users of a real server, for so long (`soak_live.py`).
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil  # type: ignore[import-untyped]
from soak_live import live

from vivavoce.testing.damage import Vocabulary
from vivavoce.testing.fuzzing import Tally, fuzz
from vivavoce.testing.simulation import Broken, Scenario, simulate

FRAMES_PER_SESSION = 500
WAYS: tuple[tuple[Vocabulary, bool], ...] = (
    ("ga", False),
    ("ga", True),
    ("beta", False),
    ("beta", True),
    ("overview", False),
    ("translation", False),
)
"""Vocabularies, and whether the server plays what it sends."""
MEASURED = 40
"""Conversations that are measured one by one."""
WARM_SHARE = 0.2
"""Part of a run after which memory should grow no more."""
MIB = 1024 * 1024
MINUTES_MAX = 24 * 60
SESSIONS_MAX = 500


@dataclass(slots=True)
class Memory:
    """The resident set as a run goes on, in bytes."""

    total: int
    marks: list[int] = field(default_factory=list)

    def mark(self) -> None:
        """One more of `total` is done."""
        self.marks.append(psutil.Process().memory_info().rss)

    def __str__(self) -> str:
        warm = self.marks[int(len(self.marks) * WARM_SHARE)]
        most, last = max(self.marks), self.marks[-1]
        return f"{warm / MIB:.1f} MiB once warm, {last / MIB:.1f} MiB at the end, {most / MIB:.1f} MiB at most"


def fuzzing(frames_max: int, found: list[str]) -> None:
    """Damaged frames, in turn through every way."""
    memory, began = Memory(frames_max), time.perf_counter()
    totals = {way: Tally() for way in WAYS}
    seed = 0
    while sum(total.frames for total in totals.values()) < frames_max:
        for (vocabulary, playback), total in totals.items():
            try:
                total += fuzz(vocabulary, seed, FRAMES_PER_SESSION, playback=playback)
            except AssertionError as broken:
                found.append(f"{vocabulary}, playback {playback}, seed {seed}: {broken}")
                total.frames += FRAMES_PER_SESSION
        memory.mark()
        seed += 1
    whole, took_s = Tally(), time.perf_counter() - began
    for (vocabulary, playback), total in totals.items():
        whole += total
        name = f"{vocabulary}{', with playback' if playback else ''}"
        done, refused = sum(total.succeeded.values()), sum(total.refused.values())
        counts = f"{total.frames:6} frames, {total.sessions:4} sessions"
        print(f"  {name:20} {counts}, {done:6} events done, {refused:6} errors")
    print(f"  together {whole.frames} frames in {whole.sessions} sessions, {whole.frames / took_s:.0f} a second")
    print(f"  events done: {_counts(whole.succeeded)}")
    print(f"  errors:      {_counts(whole.refused)}")
    print(f"  memory:      {memory}")


def simulating(seeds: range, found: list[str]) -> None:
    """Conversations, one for each seed."""
    memory, began = Memory(len(seeds)), time.perf_counter()
    endings, faults, events, codes = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for seed in seeds:
        scenario = Scenario.of(seed)
        endings[f"{scenario.kind}, {scenario.dialect}, {scenario.ending}"] += 1
        faults.update(planned(scenario))
        try:
            entries = simulate(scenario).entries
        except Broken as broken:
            found.append(str(broken))
            entries = broken.trace.entries
        events.update("from the client" if entry["dir"] == "C" else "from the server" for entry in entries)
        codes.update(failures(entries))
        memory.mark()
    took_s = time.perf_counter() - began
    print(f"  {len(seeds)} conversations in {took_s:.0f} s, messages: {_counts(events)}")
    print(f"  kinds:    {_counts(endings)}")
    print(f"  planned:  {_counts(faults)}")
    print(f"  happened: {_counts(codes)}")
    print(f"  memory:   {memory}")


def planned(scenario: Scenario) -> Iterator[str]:
    """What is to go wrong in it, by kind."""
    engines = ("transcriber", "language_model", "synthesizer", "turn_detector")
    for role in engines:
        mood = getattr(scenario, role)
        if mood.fail_at_piece is not None:
            yield f"{role} fails"
        if mood.ignore_cancel:
            yield f"{role} ignores cancellation"
    for role in ("vad", "noise_reducer"):
        if getattr(scenario, role).fail_at_frame is not None:
            yield f"{role} fails"
    wanted = {
        "line stalls": scenario.weather.stall_share > 0,
        "line is narrow": scenario.weather.messages_max < 256,
        "reader dawdles": scenario.read_pause_s_max > 0,
        "context is small": scenario.context_tokens < 32_000,
        "MCP servers are silent": scenario.tools_delay_s > 60,
        "rate limits are tight": min(scenario.rate_limits.requests_per_minute, 100) < 100,
        "budget is small": scenario.budget is not None,
        f"ends by {scenario.ending}": scenario.ending != "goodbye",
    }
    yield from (name for name, is_so in wanted.items() if is_so)


def failures(entries: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What the client was told of things that went wrong."""
    for entry in entries:
        event = entry["event"]
        match event["type"]:
            case "error":
                yield f"error {event['error']['code']}"
            case "response.done" if event["response"]["status"] != "completed":
                details = event["response"]["status_details"]
                yield f"response {(details.get('error') or {}).get('code') or details.get('reason')}"
            case str() as name if name.endswith("failed"):
                yield name


def measuring(seeds: range) -> None:
    """Memory of single conversations: the most while it lasts, and what is left behind."""
    peaks, before = [], 0
    tracemalloc.start()
    for seed in seeds:
        if seed == seeds.start + len(seeds) // 2:
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
        gc.collect()
        at_first = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        simulate(Scenario.of(seed))
        peaks.append(tracemalloc.get_traced_memory()[1] - at_first)
    gc.collect()
    left = (tracemalloc.get_traced_memory()[0] - before) / (len(seeds) // 2)
    tracemalloc.stop()
    peaks.sort()
    median, most = peaks[len(peaks) // 2] / MIB, peaks[-1] / MIB
    print(f"  {len(peaks)} of them, client, line and trace included: median {median:.2f} MiB, most {most:.2f} MiB")
    print(f"  left behind: {left / 1024:.1f} KiB each")


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())


def main() -> int:
    """Run it all; the figures go to standard output."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, default=100_000, help="damaged frames in all (default: 100000)")
    parser.add_argument("--seeds", default="0:1000", help="seeds of the conversations (default: 0:1000)")
    parser.add_argument("--minutes", type=float, help="hold real sessions for so long, and nothing else")
    parser.add_argument("--sessions", type=int, default=20, help="how many of them at once (default: 20)")
    parser.add_argument("--door", choices=("uvicorn", "picows"), default="picows", help="at which door")
    wanted = parser.parse_args()
    if wanted.minutes is not None:
        if not 0 < wanted.minutes <= MINUTES_MAX or not 1 <= wanted.sessions <= SESSIONS_MAX:
            parser.error(f"--minutes: up to {MINUTES_MAX}; --sessions: 1 to {SESSIONS_MAX}")
        print(f"{wanted.sessions} sessions in real time, {wanted.minutes:g} min")
        return verdict(holding(wanted))
    first, _, last = wanted.seeds.partition(":")
    seeds, found, opened = range(int(first), int(last)), list[str](), psutil.Process().num_fds()
    if wanted.frames:
        print("damaged frames")
        fuzzing(wanted.frames, found)
    if seeds:
        print("conversations from seeds")
        simulating(seeds, found)
        print("memory of a conversation")
        measuring(seeds[:MEASURED])
    # Tasks and complaints in the log are counted as violations where they happen.
    print(f"open files: {opened} before, {psutil.Process().num_fds()} after")
    return verdict(found)


def holding(wanted: argparse.Namespace) -> list[str]:
    """Real sessions; what was found."""
    found = list[str]()
    live(wanted.minutes, wanted.sessions, wanted.door, found)
    return found


def verdict(found: list[str]) -> int:
    """Say what was found; the status to end with."""
    print(f"violations: {len(found)}")
    for one in found:
        print(f"  {one}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
