"""Recording a session: a transport that writes down what passes, below the codec, at either end.

A tape is a file of JSON lines. The first is the `Header`; then one line a message, `{"t_ms", "dir", "event"}`, the
event being the frame itself, both sound tracks in it as base64; and notes, `{"t_ms", "note", ...}`, of what no message
says. What is no JSON object is kept as `"text"` or `"binary"`. Invariants: a line is redacted before it is written; the
caller's task only puts into a bounded buffer, a thread does the rest; what goes wrong ends the tape, never the session.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final

import msgspec

from vivavoce.errors import ConnectionClosed, LocalProtocolError
from vivavoce.transports import Transport

from .redaction import Direction, Redact, Redaction, plain_url

__all__ = ["SUFFIX", "VERSION", "Header", "TapeLimits", "TapeWriter", "Taping", "encode_line"]

VERSION: Final = 1
"""What the header says as `tape`."""
SUFFIX: Final = ".tape.jsonl"
FLUSH_S: Final = 0.25
"""A message is in the file after so long at the latest, so that a crash loses little of the tape."""
CLOSE_S: Final = 10.0
"""How long `close` waits for the disk; then what is left is given up."""
PRIVATE: Final = 0o600
"""Tapes hold what people said: only their owner may read them."""

log = logging.getLogger(__name__)
_raw = msgspec.json.Decoder(msgspec.Raw)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a tape is of. `end` is the end that recorded; `url` is kept without credentials and secret parameters.

    `began` (ISO 8601, UTC), `vivavoce` and `redacted` are filled in by the writer.
    """

    tape: int = VERSION
    end: Direction = "client"
    dialect: str = "ga"
    url: str | None = None
    model: str | None = None
    began: str = ""
    vivavoce: str = ""
    redacted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TapeLimits:
    """How much is recorded."""

    bytes_max: int = 1024 * 1024 * 1024
    """Size of the file, about two hours of speech on both tracks. Beyond it the tape ends with the note `full`."""
    buffer_bytes_max: int = 16 * 1024 * 1024
    """What waits for the disk. Beyond it the tape ends, with a warning in the log."""


@dataclass(slots=True)
class _Waiting:
    """One line on its way to the file."""

    t_ms: float
    direction: Direction | None
    payload: str | bytes | dict[str, Any]


def encode_line(redaction: Redaction, t_ms: float, direction: Direction, frame: str | bytes) -> bytes:
    """A message as a line of a tape: the frame itself where it is a JSON object, in any other case as what it is."""
    start = b'{"t_ms":%.3f,"dir":"%s",' % (t_ms, direction.encode())
    if isinstance(frame, bytes):
        return b'%s"binary":"%s"}\n' % (start, base64.b64encode(redaction.binary(frame)))
    kept = redaction.frame(direction, frame)
    try:
        event = bytes(_raw.decode(kept)).strip()
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        event = b""
    if event[:1] != b"{":
        text = redaction.text(frame).encode(errors="backslashreplace").decode()
        return b'%s"text":%s}\n' % (start, msgspec.json.encode(text))
    # Between the tokens of JSON a line break is as good as a space, and within a string there can be none.
    return b'%s"event":%s}\n' % (start, event.replace(b"\n", b" ").replace(b"\r", b" "))


class TapeWriter:
    """Writes one tape; of all connections of a session, if there are several. Close it when the session is over.

    `clock` gives seconds; without one it is that of the running event loop, so that on virtual time a tape has virtual
    times. Raises `LocalProtocolError` where the file cannot be opened; from then on nothing here raises.
    """

    def __init__(
        self,
        target: str | Path | BinaryIO,
        header: Header | None = None,
        *,
        redact: Collection[Redact] = (),
        clock: Callable[[], float] | None = None,
        limits: TapeLimits | None = None,
    ) -> None:
        self._redaction = Redaction(redact)
        self._limits = limits or TapeLimits()
        self._clock = clock or _clock()
        self._began_s = self._clock()
        self._file, self._name, self._is_ours = _opened(target)
        self.header = _complete(header or Header(), self._redaction)
        self.bytes = 0
        """Bytes in the file."""
        self.ended: str | None = None
        """Why nothing is recorded any more: "closed", "full", or what went wrong; None while the tape runs."""
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._write(msgspec.json.encode(self.header) + b"\n")
        self._thread = threading.Thread(target=self._run, name=f"tape {self._name}", daemon=True)
        self._thread.start()

    def message(self, direction: Direction, frame: str | bytes) -> None:
        """A message: `str` for text, `bytes` for a binary one. `direction` says who sent it."""
        self._put(direction, frame, len(frame))

    def note(self, kind: str, **fields: object) -> None:
        """What no message says, for example `note("played", item_id=…, ms=…)`; `fields` are anything JSON has.

        The kinds that readers know: `played` (the item's sound was really heard for `ms` in all), `connected`,
        `closed` (`by`, `code`, `reason`), `unsent` (the last message of `dir` did not leave), `full`.
        """
        fields.pop("t_ms", None)
        self._put(None, {"note": kind, **fields}, 64)

    def close(self) -> None:
        """Write what is left and close the file. Waits for the disk at most `CLOSE_S`; doing it twice is harmless."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSE_S)
        self._end("closed")

    def __enter__(self) -> TapeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- the side of the session --------------------------------------------------------------------------------------

    def _put(self, direction: Direction | None, payload: str | bytes | dict[str, Any], size: int) -> None:
        if self.ended is not None or self._closing:
            return
        if self._waiting_bytes + size > self._limits.buffer_bytes_max and self._waiting:
            self._give_up("the disk is too slow")
            return
        with self._changed:
            was_empty = not self._waiting
            self._waiting.append(_Waiting((self._clock() - self._began_s) * 1000, direction, payload))
            self._waiting_bytes += size
            if was_empty:
                self._changed.notify_all()

    def _give_up(self, why: str) -> None:
        if self.ended is None:
            log.warning("the tape %s ends here: %s; the session goes on", self._name, why)
        self._end(why)

    def _end(self, why: str) -> None:
        self.ended = self.ended or why

    # --- the side of the disk, in a thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if not self._closing:
                    self._changed.wait(FLUSH_S)  # gather what comes meanwhile; closing wakes us at once
                lines, is_last = self._waiting, self._closing
                self._waiting, self._waiting_bytes = deque(), 0
            if self.ended is None:
                try:
                    self._write_lines(lines)
                except Exception as error:  # whatever it is, it is the tape's trouble and not the session's
                    log.exception("the tape %s cannot be written", self._name)
                    self._give_up(repr(error))
            if is_last or self.ended is not None:
                break
        self._let_go()

    def _write_lines(self, lines: deque[_Waiting]) -> None:
        batch = bytearray()
        for line in lines:
            encoded = self._encoded(line)
            if self.bytes + len(batch) + len(encoded) > self._limits.bytes_max:
                batch += msgspec.json.encode({"t_ms": round(line.t_ms, 3), "note": "full"}) + b"\n"
                log.warning("the tape %s ends at its %d bytes; the session goes on", self._name, self._limits.bytes_max)
                self._end("full")
                break
            batch += encoded
        self._write(bytes(batch))

    def _encoded(self, line: _Waiting) -> bytes:
        if line.direction is not None and not isinstance(line.payload, dict):
            return encode_line(self._redaction, line.t_ms, line.direction, line.payload)
        assert isinstance(line.payload, dict)
        fields = self._redaction.note(msgspec.to_builtins(line.payload, enc_hook=str))
        return msgspec.json.encode({"t_ms": round(line.t_ms, 3), **fields}) + b"\n"

    def _write(self, lines: bytes) -> None:
        try:
            self._file.write(lines)
            self._file.flush()
            self.bytes += len(lines)
        except (OSError, ValueError) as error:  # ValueError: somebody has closed the file under us
            self._give_up(str(error))

    def _let_go(self) -> None:
        if self._is_ours:
            try:
                self._file.close()
            except OSError as error:
                self._give_up(str(error))


class Taping:
    """A transport that records what passes through another; both sides see nothing of it.

    It leaves the writer open, which belongs to who made it. It notes itself how the connection ended. `first` is a
    message that was received before it could be wrapped.
    """

    def __init__(self, transport: Transport, writer: TapeWriter, first: str | bytes | None = None) -> None:
        self.transport = transport
        self._writer = writer
        self._here: Direction = writer.header.end
        self._there: Direction = "server" if self._here == "client" else "client"
        self._is_over = False
        writer.note("connected")
        if first is not None:
            writer.message(self._there, first)

    async def send(self, message: bytes) -> None:
        """Record and send. What could not be sent is noted as `unsent`."""
        # Recorded before it is sent: while `send` waits, the answer may come already, and must not stand before it.
        try:
            self._writer.message(self._here, message.decode())
        except UnicodeDecodeError:
            self._writer.message(self._here, message)
        try:
            await self.transport.send(message)
        except BaseException:
            self._writer.note("unsent", dir=self._here)
            raise

    async def receive(self) -> str | bytes:
        """Receive and record."""
        try:
            message = await self.transport.receive()
        except ConnectionClosed as closed:
            self._over(self._there, closed.code, closed.reason)
            raise
        self._writer.message(self._there, message)
        return message

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the transport; the tape stays open."""
        self._over(self._here, code, reason)
        await self.transport.close(code, reason)

    def note(self, kind: str, **fields: object) -> None:
        """See `TapeWriter.note`."""
        self._writer.note(kind, **fields)

    def _over(self, by: Direction, code: int, reason: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._writer.note("closed", by=by, code=code, reason=reason)


def _clock() -> Callable[[], float]:
    try:
        return asyncio.get_running_loop().time
    except RuntimeError:
        return time.monotonic


def _complete(header: Header, redaction: Redaction) -> Header:
    return msgspec.structs.replace(
        header,
        url=None if header.url is None else plain_url(header.url),
        began=header.began or datetime.now(UTC).isoformat(timespec="milliseconds"),
        vivavoce=version("vivavoce"),
        redacted=tuple(sorted({*header.redacted, *redaction.what})),
    )


def _opened(target: str | Path | BinaryIO) -> tuple[BinaryIO, str, bool]:
    if not isinstance(target, (str, Path)):
        return target, str(getattr(target, "name", "in memory")), False
    try:
        return open(target, "wb", opener=_private), str(target), True
    except OSError as error:
        raise LocalProtocolError(f"cannot record to {target}: {error.strerror or error}; name another file") from None


def _private(path: str, flags: int) -> int:
    """Also where there was a file before, which would keep its permissions; a pipe or a device does."""
    file = os.open(path, flags, PRIVATE)
    if hasattr(os, "fchmod") and stat.S_ISREG(os.fstat(file).st_mode):
        with suppress(OSError):  # it is somebody else's
            os.fchmod(file, PRIVATE)
    return file
