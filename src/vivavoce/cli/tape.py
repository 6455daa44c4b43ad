"""`vivavoce tape`: show a recorded session, replay it, hear it, redact it, make a test of it.

The timeline is one line a message, with what was said in it; sound is gathered into one line for as long as nothing
else happens, with its length and its level. Everything comes from the tape alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vivavoce.audio.levels import rms_db
from vivavoce.errors import VivavoceError
from vivavoce.testing.tapes import (
    Deviation,
    Message,
    Note,
    Tape,
    Turn,
    redact_tape,
    replay_as_client,
    replay_server,
    to_test,
)
from vivavoce.testing.tapes.tracks import sound_in
from vivavoce.transports.redaction import Direction, Formats, sound_of

from .files import saving, write_wav
from .screen import METER_FLOOR_DB, paint, say

BARS = "▁▂▃▄▅▆▇█"
BARS_MAX = 24
"""Longest picture of a stretch of sound."""
BAR_MS = 100
TEXT_CHARS_MAX = 90
_BYTES_A_MS = 48

_WORDS = ("transcript", "text", "name", "arguments", "output", "message")
_FACTS = ("code", "status", "id", "item_id", "response_id")
"""What is shown of an event that has no words."""
_STAGES = (
    ("transcript_ms", "transcript"),
    ("first_text_ms", "first word"),
    ("first_audio_ms", "first audio"),
    ("done_ms", "complete"),
)


def run(arguments: argparse.Namespace) -> int:
    """What `vivavoce tape COMMAND FILE` asks for."""
    tape = Tape.load(arguments.file)
    if tape.warning:
        say(paint(f"{tape.name}: {tape.warning}", "bad"))
    commands: dict[str, Callable[[Tape, argparse.Namespace], int]] = {
        "show": _show,
        "sound": _sound,
        "redact": _redact,
        "to-test": _to_test,
        "replay": _replay,
    }
    return commands[arguments.tape_command](tape, arguments)


# --- show -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Line:
    """One line of the timeline: a message, a note, or a stretch of sound."""

    t_ms: float
    who: str
    what: str
    detail: str = ""
    sound: bytearray = field(default_factory=bytearray)

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        line: dict[str, Any] = {"t_ms": round(self.t_ms, 3), "who": self.who, "what": self.what}
        if self.sound:
            return line | {"audio_ms": len(self.sound) // _BYTES_A_MS, "level_db": round(rms_db(bytes(self.sound)), 1)}
        return line | ({"detail": self.detail} if self.detail else {})


def _show(tape: Tape, arguments: argparse.Namespace) -> int:
    turns = {turn.response_id: turn for turn in tape.turns}
    if arguments.json:
        for line in _timeline(tape):
            say(json.dumps(line.plain(), ensure_ascii=False))
        for turn in turns.values():
            say(json.dumps({"turn": turn.response_id, **_stages(turn), "status": turn.status}))
        return 0
    header = tape.header
    about = (
        f"{header.dialect}, model {header.model or 'not said'}, recorded by the {header.end} {header.began}".rstrip()
    )
    say(paint(f"{tape.name}: {tape.duration_ms / 1000:.1f} s, {len(tape.messages)} messages, {about}", "bold"))
    if header.redacted:
        say(paint(f"without {' and '.join(header.redacted)}", "dim"))
    for line in _timeline(tape):
        say(_painted(line))
    for number, turn in enumerate(turns.values(), start=1):
        stages = ", ".join(f"{name} {ms:.0f} ms" for name, ms in _stages(turn).items())
        say(paint(f"turn {number} at {turn.ended_ms / 1000:.3f} s: {stages or 'no answer'} ({turn.status})", "good"))
    return 0


def _stages(turn: Turn) -> dict[str, float]:
    return {name: ms for stage, name in _STAGES if (ms := getattr(turn, stage)) is not None}


def _timeline(tape: Tape) -> Iterator[_Line]:
    formats = Formats()
    sounding: dict[Direction, _Line] = {}
    for entry in tape.entries:
        if isinstance(entry, Message):
            event = entry.event
            formats.take(event)
            if sound_of(event) and (pcm := sound_in(event, formats.of[entry.dir])):
                line = sounding.setdefault(entry.dir, _Line(entry.t_ms, entry.dir, entry.type))
                line.sound += pcm
                continue
            if entry.type.endswith(".delta"):
                continue  # its words come again, whole, when they are complete
        yield from _in_order(sounding.values())
        sounding.clear()
        yield _described(entry)
    yield from _in_order(sounding.values())


def _in_order(lines: Iterable[_Line]) -> Iterable[_Line]:
    return sorted(lines, key=lambda line: line.t_ms)


def _described(entry: Message | Note) -> _Line:
    if isinstance(entry, Note):
        detail = ", ".join(f"{name} {value}" for name, value in entry.fields.items() if value not in ("", None))
        return _Line(entry.t_ms, "note", entry.kind, detail)
    if not entry.type:
        shown = entry.frame if isinstance(entry.frame, str) else f"{len(entry.frame)} bytes"
        return _Line(entry.t_ms, entry.dir, "no event", _short(shown))
    return _Line(entry.t_ms, entry.dir, entry.type, _short(_words(entry.event)))


def _words(event: dict[str, Any]) -> str:
    """What an event says, for people."""
    for place in ("item", "response", "error", "data", "part"):
        if isinstance(inner := event.get(place), dict):
            return _words_of(inner) or _words_of(event)
    return _words_of(event)


def _words_of(value: dict[str, Any]) -> str:
    content = value.get("content")
    if isinstance(content, list):
        words = (str(part.get("text") or part.get("transcript") or "") for part in content if isinstance(part, dict))
        if text := " ".join(filter(None, words)):
            return text
    words = (value[name] for name in _WORDS if isinstance(value.get(name), str) and value[name])
    facts = (value[name] for name in _FACTS if isinstance(value.get(name), str) and value[name])
    return " ".join(words) or next(facts, "")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= TEXT_CHARS_MAX else text[: TEXT_CHARS_MAX - 1] + "…"


def _painted(line: _Line) -> str:
    arrow = {"client": "→", "server": "←"}.get(line.who, "·")
    colour = {"client": "user", "server": "assistant"}.get(line.who, "dim")
    if line.what == "error":
        colour = "bad"
    detail = f"{len(line.sound) // _BYTES_A_MS} ms {bars(bytes(line.sound))}" if line.sound else line.detail
    start = f"{line.t_ms / 1000:9.3f} s {arrow} "
    return paint(start, "dim") + paint(line.what, colour) + (f"  {detail}" if detail else "")


def bars(pcm: bytes) -> str:
    """The level of PCM16 at 24 kHz over time, as a row of bars; a long stretch has wider ones."""
    size = max(BAR_MS * _BYTES_A_MS, -(-len(pcm) // BARS_MAX))
    size += size % 2
    pieces = (pcm[begin : begin + size] for begin in range(0, len(pcm), size))
    shares = (min(max(1 - rms_db(piece) / METER_FLOOR_DB, 0.0), 1.0) for piece in pieces)
    return "".join(BARS[round(share * (len(BARS) - 1))] for share in shares)


# --- sound, redact, to-test -------------------------------------------------------------------------------------------


def _sound(tape: Tape, arguments: argparse.Namespace) -> int:
    out = arguments.out or Path(f"{_stem(tape)}.wav")
    tracks = tape.audio()
    with saving(out):
        ms = write_wav(out, [tracks.user, tracks.assistant])
    say(f"{out}: {ms / 1000:.1f} s, the user left, the assistant right")
    return 0


def _redact(tape: Tape, arguments: argparse.Namespace) -> int:
    if arguments.out.exists() and tape.path is not None and arguments.out.samefile(tape.path):
        raise VivavoceError("a tape cannot be redacted in place; name another file, and look at it first")
    with saving(arguments.out):
        redact_tape(tape, arguments.out, arguments.leave_out or ("audio", "text"))
    say(f"{arguments.out} is written")
    return 0


def _to_test(tape: Tape, arguments: argparse.Namespace) -> int:
    if arguments.out is None:
        say(to_test(tape, plays=arguments.plays).rstrip())
        return 0
    with saving(arguments.out):
        test = to_test(tape, plays=arguments.plays, folder=arguments.out.parent)
        arguments.out.write_text(test, encoding="utf-8")
    say(f"{arguments.out} is written; run it with pytest")
    return 0


def _stem(tape: Tape) -> str:
    return tape.name.removesuffix(".jsonl").removesuffix(".tape")


# --- replay -----------------------------------------------------------------------------------------------------------


def _replay(tape: Tape, arguments: argparse.Namespace) -> int:
    try:
        if arguments.plays == "server":
            return asyncio.run(_serve(tape, arguments))
        return asyncio.run(_call(tape, arguments))
    except Deviation as deviation:
        raise VivavoceError(str(deviation)) from None


async def _serve(tape: Tape, arguments: argparse.Namespace) -> int:
    if arguments.url:
        raise VivavoceError(
            "--url is the server to call, with --as client; with --as server, --port says where to listen"
        )
    try:
        async with replay_server(tape, port=arguments.port, pace=arguments.pace) as server:
            say(f"{tape.name} answers on {server.url}, until Ctrl-C")
            await asyncio.Event().wait()
    except OSError as error:
        raise VivavoceError(
            f"cannot listen on port {arguments.port}: {error.strerror or error}; try --port 0"
        ) from None
    return 0


async def _call(tape: Tape, arguments: argparse.Namespace) -> int:
    if not arguments.url:
        raise VivavoceError(
            "name the server to call: vivavoce tape replay FILE --as client --url http://127.0.0.1:8080/v1"
        )
    replayed = await replay_as_client(tape, arguments.url, api_key=arguments.api_key, pace=arguments.pace)
    if not replayed.diff:
        say(f"the server said what is on {tape.name}: {len(replayed.types)} events, deltas not counted")
        return 0
    for line in replayed.diff.splitlines():
        say(paint(line, {"-": "bad", "+": "good"}.get(line[:1], "dim")))
    return 1
