"""Golden traces: what was said on a connection, frame by frame, in a form that can be read, kept and compared.

A trace is JSON lines `{t_ms, dir, event}`, `dir` being "client" or "server": the frames of one dialect as they are on
the wire, except that the ids that the server made are renamed by first appearance (item_1, resp_1), its `event_id` and
`expires_at` are left out, and audio is `{"sound": ...}` where `sounds` can make it again, else its length and hash.
`Recorder` makes a trace of any connection; `replay` plays a trace's client against the bare session machine.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, Protocol

from vivavoce.core.messages import Opened, Send
from vivavoce.engines import Pipeline
from vivavoce.protocol.codec import ServerCodec, ServerDialect

from .playbook import Machine, Moment
from .real_time_player import RealTimePlayer
from .rehearsal import Pace, Rehearsal
from .sounds import describe, sound

__all__ = ["PACE", "Line", "Recorder", "difference", "load", "replay", "save"]

PACE = Pace(transcription_ms=20, generation_ms=10, speech_ms=30, judgement_ms=40, tools_ms=15)
"""The engines' pace in a replay; where the client does something meanwhile, it decides what came before."""
HASH_CHARS = 16
CONTEXT_LINES = 3
CHANGES_SHOWN_MAX = 12

Json = dict[str, Any]
_ID_FIELDS = frozenset(
    {"id", "item_id", "previous_item_id", "response_id", "call_id", "conversation_id", "approval_request_id"}
)
_ID_IN_TEXT = re.compile(r"[A-Za-z]+_[A-Za-z0-9]+")


@dataclass(frozen=True)
class Line:
    """One frame: when, from which side, and its event in the form of a trace."""

    t_ms: int
    dir: Literal["client", "server"]
    event: Json


# --- files ------------------------------------------------------------------------------------------------------------


def load(path: Path) -> tuple[Line, ...]:
    """The trace in a file."""
    return tuple(Line(**json.loads(text)) for text in path.read_text("utf-8").splitlines() if text)


def save(path: Path, trace: Iterable[Line]) -> None:
    """Write a trace into a file."""
    lines = (json.dumps({"t_ms": line.t_ms, "dir": line.dir, "event": line.event}) for line in trace)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


# --- recording --------------------------------------------------------------------------------------------------------


class _Names:
    """Real ids and their names in the trace. What a client chose keeps its name."""

    def __init__(self) -> None:
        self._name_of: dict[str, str] = {}
        self._real_of: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def chosen(self, real: str) -> str:
        """The name of an id that the client says; one that is new is the client's own."""
        return self._name_of.get(real) or self._learn(real, real)

    def made(self, real: str) -> str:
        """The name of an id that the server says; one that is new gets the next number of its kind."""
        if real in self._name_of:
            return self._name_of[real]
        kind = real.partition("_")[0]
        while True:
            self._counts[kind] += 1
            name = f"{kind}_{self._counts[kind]}"
            if name not in self._real_of:
                return self._learn(real, name)

    def in_text(self, text: str) -> str:
        """A message with the ids in it renamed."""
        return _ID_IN_TEXT.sub(lambda found: self._name_of.get(found[0], found[0]), text)

    def real(self, name: str) -> str:
        """The id that a trace's client means by a name."""
        return self._real_of.get(name) or self._learn(name, name)

    def _learn(self, real: str, name: str) -> str:
        self._name_of[real], self._real_of[name] = name, real
        return name


class Recorder:
    """Makes a trace of one connection, frame by frame."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._names = _Names()

    def client(self, t_ms: int, frame: str | bytes) -> None:
        """A frame that the client sent."""
        event = _map(json.loads(frame), self._names.chosen, _shortened)
        self.lines.append(Line(t_ms, "client", event))

    def server(self, t_ms: int, frame: str | bytes) -> None:
        """A frame that the server sent."""
        event = _map(json.loads(frame), self._names.made, _shortened, self._names.in_text)
        event.pop("event_id", None)
        if isinstance(session := event.get("session"), dict):
            session.pop("expires_at", None)
        self.lines.append(Line(t_ms, "server", event))

    def frame(self, event: Json) -> str:
        """The frame that a trace's client line stands for on this connection: real ids, real audio."""
        return json.dumps(_map(event, self._names.real, _restored))


def _map(event: Json, id: Callable[[str], str], audio: Callable[[Any], Any], text: Callable[[str], str] = str) -> Json:
    """A copy of the event with its ids, its audio and its messages replaced."""
    is_audio_delta = str(event.get("type", "")).endswith("audio.delta")

    def convert(name: str, value: Any) -> Any:
        if name in _ID_FIELDS and isinstance(value, str) and value not in ("", "root"):
            return id(value)
        if (name == "audio" and not _is_section(value)) or (name == "delta" and is_audio_delta):
            return audio(value)
        if name == "message" and isinstance(value, str):
            return text(value)
        return walk(value)

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: convert(name, entry) for name, entry in value.items()}
        return [walk(entry) for entry in value] if isinstance(value, list) else value

    mapped: Json = walk(event)
    return mapped


def _is_section(value: Any) -> bool:
    """Whether a field called `audio` is a part of the configuration."""
    return isinstance(value, dict) and not value.keys() & {"sound", "sha256"}


def _shortened(encoded: Any) -> Any:
    try:
        audio = base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return encoded  # no audio, which may be the point of the trace
    if description := describe(audio):
        return {"sound": description}
    return {"bytes": len(audio), "sha256": hashlib.sha256(audio).hexdigest()[:HASH_CHARS]}


def _restored(short: Any) -> Any:
    if not isinstance(short, dict):
        return short
    if "sound" not in short:
        raise ValueError(f"a client's audio can be played again only where the trace has it as a sound, not {short}")
    return base64.b64encode(sound(short["sound"])).decode()


# --- comparing --------------------------------------------------------------------------------------------------------


def difference(golden: Sequence[Line], came: Sequence[Line], *, times: bool = True) -> str:
    """What differs first, with the lines before it; "" where nothing does. `times` says whether `t_ms` counts."""
    for index, (expected, line) in enumerate(zip_longest(golden, came)):
        if expected is None or line is None:
            missing, extra = ("nothing", _summary(line)) if expected is None else (_summary(expected), "nothing")
            changes = [f"expected {missing}, came {extra}"]
        else:
            changes = list(_changes("event", expected.event, line.event))
            if expected.dir != line.dir:
                changes = [f"expected {_summary(expected)}, came {_summary(line)}"]
            elif times and expected.t_ms != line.t_ms:
                changes.append(f"t_ms: expected {expected.t_ms}, came {line.t_ms}")
        if changes:
            before = [f"      {_summary(line)}" for line in golden[max(index - CONTEXT_LINES, 0) : index]]
            if expected is not None:
                before.append(f"  ->  {_summary(expected)}")
            more = [f"… and {len(changes) - CHANGES_SHOWN_MAX} more"] if len(changes) > CHANGES_SHOWN_MAX else []
            return "\n".join([f"line {index + 1} differs:", *before, *changes[:CHANGES_SHOWN_MAX], *more])
    return ""


def _changes(path: str, expected: Any, came: Any) -> Iterable[str]:
    if isinstance(expected, dict) and isinstance(came, dict):
        if expected.get("type") != came.get("type"):
            yield f"{path}.type: expected {expected.get('type')!r}, came {came.get('type')!r}"
            return
        for name in dict.fromkeys([*expected, *came]):
            if name not in came:
                yield f"{path}.{name}: expected {_short(expected[name])}, came nothing"
            elif name not in expected:
                yield f"{path}.{name}: expected nothing, came {_short(came[name])}"
            else:
                yield from _changes(f"{path}.{name}", expected[name], came[name])
    elif isinstance(expected, list) and isinstance(came, list) and len(expected) == len(came):
        for index, (one, other) in enumerate(zip(expected, came, strict=True)):
            yield from _changes(f"{path}[{index}]", one, other)
    elif type(expected) is not type(came) or expected != came:
        yield f"{path}: expected {_short(expected)}, came {_short(came)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:119] + "…"


def _summary(line: Line) -> str:
    arrow = "C>" if line.dir == "client" else "S>"
    fields = {name: value for name, value in line.event.items() if name != "type"}
    return f"{line.t_ms:>6} ms {arrow} {line.event.get('type')} {_short(fields)}"


# --- replaying --------------------------------------------------------------------------------------------------------


class WireCodec(Protocol):
    """The server's end of a dialect, or of translation sessions."""

    def decode(self, frame: str, /) -> Any:
        """A message as an event, or as several, or why it is none."""
        ...

    def encode(self, event: Any, /) -> bytes | None:
        """An event as a message; None where there is none for it."""
        ...


def replay(
    trace: Sequence[Line],
    machine: Machine,
    dialect: ServerDialect = "ga",
    pace: Pace = PACE,
    codec: WireCodec | None = None,
    player: RealTimePlayer | None = None,
    pipeline: Pipeline | None = None,
) -> tuple[Line, ...]:
    """Say the trace's client lines to the machine at their times; the trace of what was said then, by both.

    Engines are the scripted ones unless a `pipeline` is given; after the last line they finish what they have begun.
    With `player`, the one that the machine was given, the wire is that of a server which plays what it says.
    """
    recorder, codec = Recorder(), codec or ServerCodec(dialect, playback=player is not None)

    def witness(moment: Moment) -> None:
        if isinstance(moment.message, Send) and (frame := codec.encode(moment.message.event)) is not None:
            recorder.server(moment.t_ms, frame)

    rehearsal = Rehearsal(machine, pipeline, pace, witness=witness, player=player)
    rehearsal.say(Opened())
    for line in trace:
        rehearsal.at(line.t_ms)
        if line.dir == "client":
            frame = recorder.frame(line.event)
            recorder.client(line.t_ms, frame)
            said = codec.decode(frame)
            for event in said if isinstance(said, tuple) else (said,):
                rehearsal.say(event)
    rehearsal.settle()
    return tuple(recorder.lines)
