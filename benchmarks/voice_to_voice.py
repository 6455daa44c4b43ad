"""How long a person waits: from the end of speech to the first sound of the answer, and where the time goes.

    python benchmarks/voice_to_voice.py [FILE.wav|FOLDER …] [--pipeline local] [--turns 10] [--url URL] [--json]

The turns of `vivavoce bench` and nothing else, against a server in a process of its own or any endpoint (--url): what
is measured, and how, is `vivavoce.testing.bench`. `vivavoce bench` also compares, interrupts, loads and draws.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from vivavoce.testing.bench import figures, report
from vivavoce.testing.bench.conversation import Asking, Endpoint
from vivavoce.testing.bench.rounds import hold_rounds
from vivavoce.testing.bench.speech import Utterance, recorded, synthesized
from vivavoce.testing.serving import serving

TURNS_MAX = 200


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


async def measure(url: str, arguments: argparse.Namespace, said: list[Utterance]) -> int:
    """Hold all turns, tell the figures; 0 where at least one turn counts."""
    endpoint = Endpoint.at(url, arguments.model, arguments.api_key)
    out = sys.stderr if arguments.json else sys.stdout
    print(report.heading(), file=out)
    (held,) = await hold_rounds(
        [endpoint],
        said,
        arguments.turns,
        Asking(arguments.silence_ms),
        is_fresh=arguments.fresh,
        report=lambda _, turn: print(report.turn_line(turn), file=out, flush=True),
    )
    found = figures.of_turns(held)
    if arguments.json:
        print(json.dumps({**found, "silence_ms": arguments.silence_ms}))
    else:
        print("\n".join(["", *report.table([{"letter": "A", "name": endpoint.name, "turns": found}])]))
    return 0 if found["counted"] else 1


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
        server.wait_until_ready()
        return asyncio.run(measure(f"{server.url}/v1", arguments, said))


if __name__ == "__main__":
    sys.exit(main())
