"""A tape as it is read: its header, its messages and notes, and what can be derived from them.

Messages keep the frame as it was; they are parsed when they are looked at. Invariants: a line that cannot be read is
named with its number and what was expected; only the last line may be cut short, as a crash leaves it; a message that
its sender noted as `unsent` is not there.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from vivavoce.core.conversation import Conversation
from vivavoce.errors import RemoteProtocolError, VivavoceError
from vivavoce.protocol.base import UNSET, Maybe, UnsetType
from vivavoce.protocol.codec import ClientCodec, ServerCodec, TranslationClientCodec, TranslationServerCodec
from vivavoce.protocol.events import Unknown
from vivavoce.transports.redaction import Direction
from vivavoce.transports.taping import VERSION, Header

from .entries import Entry, Message, Note
from .tracks import Tracks, tracks_of
from .turns import Turn, turns_of

Json = dict[str, Any]

SHOWN_CHARS_MAX = 80


class BadTape(VivavoceError):
    """A file that is no tape; the message names the line and what was expected there."""


class Said(NamedTuple):
    """A message as a typed event; of a client's mistake, the `ErrorDetail` that a server answers it with."""

    t_ms: float
    dir: Direction
    event: Any


class _Line(msgspec.Struct):
    t_ms: float
    dir: Maybe[Direction] = UNSET
    event: msgspec.Raw = msgspec.Raw(b"")
    text: Maybe[str] = UNSET
    binary: Maybe[str] = UNSET
    note: Maybe[str] = UNSET


_line = msgspec.json.Decoder(_Line)
_header = msgspec.json.Decoder(Header)


@dataclass(frozen=True)
class Tape:
    """A recorded session."""

    header: Header
    entries: tuple[Entry, ...]
    path: Path | None = None
    warning: str | None = None
    """What is odd about the file, although it could be read."""

    @classmethod
    def load(cls, path: str | Path) -> Tape:
        """Read a tape. Raises `BadTape`."""
        path = Path(path)
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            raise BadTape(f"cannot read {path}: {error.strerror or error}") from None
        header = _read_header(path, lines[0])
        entries: list[Entry] = []
        warning = None
        for number, line in enumerate(lines[1:], start=2):
            if not line.strip():
                continue
            try:
                _add(entries, _read_line(number, line))
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                if number == len(lines):  # no line break behind it: the recording was cut off here
                    warning = f"the last line, {number}, is cut short and left out"
                    break
                raise BadTape(
                    f"{path}, line {number}: expected a message {{t_ms, dir, event|text|binary}} or a note "
                    f"{{t_ms, note}}: {error}"
                ) from None
        return cls(header, tuple(entries), path, warning)

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.path.name if self.path else "the tape"

    @property
    def messages(self) -> tuple[Message, ...]:
        """What was sent, by both sides."""
        return tuple(entry for entry in self.entries if isinstance(entry, Message))

    @property
    def notes(self) -> tuple[Note, ...]:
        """What was noted."""
        return tuple(entry for entry in self.entries if isinstance(entry, Note))

    @property
    def connections(self) -> tuple[tuple[Entry, ...], ...]:
        """The entries of each connection: a session that was lost and taken up again has several."""
        found: list[list[Entry]] = [[]]
        for entry in self.entries:
            starts = isinstance(entry, Note) and entry.kind == "connected"
            if starts and any(isinstance(earlier, Message) for earlier in found[-1]):
                found.append([])
            found[-1].append(entry)
        return tuple(tuple(entries) for entries in found)

    @property
    def duration_ms(self) -> float:
        """The time of the last entry."""
        return self.entries[-1].t_ms if self.entries else 0.0

    def events(self) -> Iterator[Said]:
        """Every message as a typed event of the GA vocabulary; what is no JSON object is left out."""
        dialect, is_translation = self.header.dialect, self.header.dialect == "translation"
        server: Any = TranslationClientCodec() if is_translation else ClientCodec("beta" if dialect == "beta" else "ga")
        client: Any = TranslationServerCodec() if is_translation else ServerCodec(_dialect(dialect))
        for message in self.messages:
            if message.dir == "server" and isinstance(message.frame, str):
                try:
                    yield Said(message.t_ms, "server", server.decode(message.frame))
                except RemoteProtocolError:
                    continue
            elif message.dir == "client" and message.type:
                said = client.decode(message.frame)
                for event in said if isinstance(said, tuple) else (said,):
                    yield Said(message.t_ms, "client", event)

    def conversation(self) -> Conversation:
        """The conversation at the end of the tape: the fold of what the server said."""
        conversation = Conversation()
        if self.header.dialect != "translation":
            for _, direction, event in self.events():
                if direction == "server" and not isinstance(event, Unknown):
                    conversation.apply(event)
        return conversation

    def audio(self) -> Tracks:
        """Both sound tracks, placed in time."""
        return tracks_of(self.entries)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What each answer took, stage by stage."""
        return turns_of(self.messages)


def _dialect(name: str) -> Any:
    return name if name in ("beta", "overview") else "ga"


def _read_header(path: Path, line: bytes) -> Header:
    try:
        if b'"tape"' not in line:
            raise ValueError("it has no field `tape`")
        header = _header.decode(line)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadTape(f'{path}, line 1: expected the header of a tape, {{"tape": {VERSION}, …}}: {error}') from None
    if header.tape != VERSION:
        raise BadTape(f"{path}, line 1: expected a tape of version {VERSION}, got {header.tape}; update vivavoce")
    return header


def _read_line(number: int, line: bytes) -> Entry:
    read = _line.decode(line)
    if not isinstance(read.note, UnsetType):
        fields: Json = msgspec.json.decode(line)
        return Note(number, fields.pop("t_ms"), fields.pop("note"), fields)
    if isinstance(read.dir, UnsetType):
        raise ValueError('neither "dir" nor "note" is there')
    frame: str | bytes
    if bytes(read.event):
        frame = bytes(read.event).decode()
        if not frame.startswith("{"):
            raise ValueError(f"the event is no object: {frame[:SHOWN_CHARS_MAX]}")
    elif not isinstance(read.text, UnsetType):
        frame = read.text
    elif not isinstance(read.binary, UnsetType):
        try:
            frame = base64.b64decode(read.binary, validate=True)
        except binascii.Error:
            raise ValueError("`binary` is no base64") from None
    else:
        raise ValueError("the message has neither event nor text nor binary")
    return Message(number, read.t_ms, read.dir, frame)


def _add(entries: list[Entry], entry: Entry) -> None:
    """Add an entry; a note that the last message was not sent takes that away."""
    if isinstance(entry, Note) and entry.kind == "unsent":
        for index in range(len(entries) - 1, -1, -1):
            last = entries[index]
            if isinstance(last, Message) and last.dir == entry.fields.get("dir"):
                del entries[index]
                return
    entries.append(entry)
