"""`vivavoce events`: a session for scripts. Client events as lines in, server events as lines of JSON out.

    standard input → verb or JSON → session → server → frame → standard output

Connects once, and needs nothing beyond the base package where a URL is given. What is shown are the server's own
messages, as they came over the wire. Lines are taken one after the other; at the end of the input all that was asked
for is waited for. The exit code says what went wrong first.
"""

from __future__ import annotations

import asyncio
import enum
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from vivavoce.client import Session, connect
from vivavoce.client.endpoint import Kind
from vivavoce.client.names import names_of
from vivavoce.errors import ConnectionClosed, LocalProtocolError, VivavoceError
from vivavoce.protocol import events as ev

from .foreign import as_json_line, as_words
from .lines import lines
from .where import Where, reached

ROLES = ("user", "assistant", "system")


class Exit(enum.IntEnum):
    """What the command ends with; the first thing that went wrong counts."""

    WELL = 0
    NOT_CONNECTED = 1
    LINE = 2
    ERROR = 3
    MISSED = 4


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    where: Where
    kind: Kind = "conversation"
    only: tuple[str, ...] = ()
    until: str | None = None
    timeout_s: float | None = None


class _Line(Exception):
    """A line of the input cannot be understood; the message says why."""


async def events(options: Options) -> int:
    """Run until the input has ended and all is answered, or `until` has come. Returns an `Exit`."""
    where = options.where
    async with reached(where.url, where.model, quiet=True) as url:
        session = connect(
            where.model if options.kind != "transcription" or where.url is None else None,
            url=url,
            api_key=where.api_key,
            dialect=where.dialect,
            kind=options.kind,
            reconnect=False,
        )
        async with session:
            return int(await Script(session, options).run())


@dataclass(slots=True)
class _Awaited:
    """The type or pattern that somebody waits for, and that it has come."""

    pattern: str
    come: asyncio.Event = field(default_factory=asyncio.Event)


class Script:
    """One run: the lines that are obeyed on this side, the events that are shown on the other."""

    def __init__(self, session: Session, options: Options) -> None:
        self._session, self._options = session, options
        self._exit = Exit.WELL
        self._awaited: list[_Awaited] = []
        self._come: set[str] = set()
        """The names of what has come since something was last sent: `wait` may be read after its event."""
        self._running: set[str] = set()
        self._is_quiet = asyncio.Event()
        self._is_quiet.set()
        self._asked: set[asyncio.Task[None]] = set()
        self._verbs: Mapping[str, Callable[[str], Awaitable[None]]] = {
            "configure": self._configure,
            "add": self._add,
            "audio": self._audio,
            "commit": self._commit,
            "clear": self._clear,
            "request": self._request,
            "stop": self._stop,
            "remove": self._remove,
            "wait": self._wait,
            "raw": self._raw,
        }

    async def run(self) -> Exit:
        """Until the end of either side."""
        until = self._await(self._options.until) if self._options.until else None
        showing = asyncio.ensure_future(self._show(until))
        obeying = asyncio.ensure_future(self._obey(until))
        try:
            await asyncio.wait((showing, obeying), return_when=asyncio.FIRST_COMPLETED)
            if not obeying.done() and not (until and until.come.is_set()):
                self._fail(Exit.NOT_CONNECTED, "the server closed the connection before all was done")
        finally:
            for task in (obeying, showing, *self._asked):
                task.cancel()
            results = await asyncio.gather(obeying, showing, return_exceptions=True)
            await asyncio.gather(*self._asked, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return self._exit

    def _fail(self, how: Exit, why: str) -> None:
        print(f"vivavoce: {as_words(why)}", file=sys.stderr)
        self._exit = self._exit or how

    # --- what comes ---------------------------------------------------------------------------------------------------

    async def _show(self, until: _Awaited | None) -> None:
        try:
            async for event in self._session:
                self._print(event)
                self._note(event)
                if until is not None and until.come.is_set():
                    return
        except ConnectionClosed as closed:
            self._fail(Exit.NOT_CONNECTED, str(closed))

    def _print(self, event: ev.AnyServerEvent | ev.Unknown) -> None:
        """The message as it came; where only some types are wanted, by the name in it or by today's."""
        text = event.raw.decode(errors="replace")
        names = {names_of(event)[0], str(msgspec.json.decode(text).get("type", ""))} if self._options.only else set()
        if all(not fnmatchcase(name, only) for name in names for only in self._options.only) and names:
            return
        sys.stdout.write(as_json_line(text) + "\n")
        sys.stdout.flush()

    def _note(self, event: ev.AnyServerEvent | ev.Unknown) -> None:
        match event:
            case ev.ErrorEvent():
                self._exit = self._exit or Exit.ERROR
            case ev.ResponseCreated():
                self._running.add(event.response.id)
                self._is_quiet.clear()
            case ev.ResponseDone():
                self._running.discard(event.response.id)
                if not self._running:
                    self._is_quiet.set()
        name = names_of(event)[0]
        self._come.add(name)
        for awaited in self._awaited:
            if fnmatchcase(name, awaited.pattern):
                awaited.come.set()

    def _await(self, pattern: str) -> _Awaited:
        awaited = _Awaited(pattern)
        self._awaited.append(awaited)
        return awaited

    async def _has_come(self, awaited: _Awaited) -> None:
        try:
            async with asyncio.timeout(self._options.timeout_s):
                await awaited.come.wait()
        except TimeoutError:
            self._fail(Exit.MISSED, f"no {awaited.pattern} came within {self._options.timeout_s:g} s")
        finally:
            self._awaited.remove(awaited)

    # --- what is sent -------------------------------------------------------------------------------------------------

    async def _obey(self, until: _Awaited | None) -> None:
        reading = asyncio.ensure_future(self._read())
        try:
            if until is None:
                await reading
                await self._answers()
                return
            seen = asyncio.ensure_future(until.come.wait())
            await asyncio.wait((reading, seen), return_when=asyncio.FIRST_COMPLETED)
            seen.cancel()
            if not until.come.is_set():
                await reading
                await self._has_come(until)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self) -> None:
        async for line in lines():
            try:
                await self._take(line.strip())
            except (_Line, LocalProtocolError) as error:
                self._fail(Exit.LINE, f"{line.strip()[:80]}: {error}")
            except (OSError, ValueError, TypeError) as error:
                self._fail(Exit.LINE, f"{line.strip()[:80]}: {getattr(error, 'strerror', None) or error}")

    async def _take(self, line: str) -> None:
        if not line or line.startswith("#"):
            return
        verb, _, rest = line.partition(" ")
        if verb != "wait":
            self._come.clear()
        if line.startswith("{"):
            event = _json(line)
            await self._session.send_raw(line)
            if event.get("type") == "response.create":
                self._expect(self._response())
            return
        if verb not in self._verbs:
            raise _Line(f"there is no verb {verb!r}; there are {', '.join(self._verbs)}, and client events as JSON")
        await self._verbs[verb](rest.strip())

    def _expect(self, answer: Awaitable[Any]) -> None:
        """Something to be waited for at the end; a refusal is shown as the event that it is."""

        async def answered() -> None:
            with suppress(VivavoceError):
                await answer

        task = asyncio.ensure_future(answered())
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    def _response(self) -> Awaitable[object]:
        """The end of a response that was asked for by hand, or the refusal of it."""
        return self._session.wait_for("*", where=lambda event: isinstance(event, ev.ResponseDone | ev.ErrorEvent))

    async def _answers(self) -> None:
        """All that was asked for has been answered, or has had its time."""
        try:
            async with asyncio.timeout(self._options.timeout_s):
                while self._asked or not self._is_quiet.is_set():
                    await asyncio.gather(*self._asked)
                    await asyncio.sleep(0)  # whoever shows events has shown the last
                    await self._is_quiet.wait()
        except TimeoutError:
            self._fail(Exit.MISSED, f"not all was answered within {self._options.timeout_s:g} s")

    # --- verbs --------------------------------------------------------------------------------------------------------

    async def _configure(self, rest: str) -> None:
        if rest.startswith("{"):
            self._expect(self._session.update_session(_json(rest)))
            return
        settings = {}
        for name, value in _assignments(rest):
            if name not in SETTINGS:
                raise _Line(f"there is no {name!r} to set so; there are {', '.join(SETTINGS)}, and JSON")
            settings[name] = SETTINGS[name](value)
        if not settings:
            raise _Line("expected NAME=VALUE or a session as JSON")
        self._expect(self._session.update_session(**settings))

    async def _add(self, rest: str) -> None:
        if rest.startswith("{"):
            self._expect(self._session.create_item(_json(rest)))
            return
        role, _, text = rest.partition(" ")
        if role not in ROLES:
            role, text = "user", rest
        if not text.strip():
            raise _Line("expected a text, a role and a text, or an item as JSON")
        kind = "output_text" if role == "assistant" else "input_text"
        item = {"type": "message", "role": role, "content": [{"type": kind, "text": text.strip()}]}
        self._expect(self._session.create_item(item))

    async def _audio(self, rest: str) -> None:
        if not rest:
            raise _Line("expected the path of an audio file")
        await self._session.send_audio(rest)

    async def _commit(self, rest: str) -> None:
        self._expect(self._session.commit_audio())

    async def _clear(self, rest: str) -> None:
        self._expect(self._session.clear_audio())

    async def _request(self, rest: str) -> None:
        asked = self._session.create_response(_json(rest) if rest else None)

        async def answered() -> None:
            await (await asked)

        self._expect(answered())

    async def _stop(self, rest: str) -> None:
        self._expect(self._session.cancel_response(rest or None))

    async def _remove(self, rest: str) -> None:
        if not rest:
            raise _Line("expected the id of an item")
        self._expect(self._session.delete_item(rest))

    async def _wait(self, rest: str) -> None:
        if not rest:
            raise _Line("expected the type of an event, or a pattern such as response.*")
        if not any(fnmatchcase(name, rest) for name in self._come):
            await self._has_come(self._await(rest))

    async def _raw(self, rest: str) -> None:
        await self._session.send_raw(rest)


SETTINGS: Mapping[str, Callable[[str], Any]] = {
    "instructions": str,
    "voice": str,
    "modality": str,
    "turn_detection": lambda value: None if value in ("none", "null") else value,
    "transcription": lambda value: None if value in ("none", "null") else value,
    "noise_reduction": lambda value: None if value in ("none", "null") else value,
    "input_format": str,
    "output_format": str,
    "speed": float,
    "tool_choice": str,
    "max_output_tokens": lambda value: value if value == "inf" else int(value),
}
"""What `configure NAME=VALUE` takes, as `Session.update_session` has it."""


def _assignments(rest: str) -> list[tuple[str, str]]:
    import shlex

    pairs = [word.partition("=") for word in shlex.split(rest)]
    for name, sign, _ in pairs:
        if not sign:
            raise _Line(f"expected NAME=VALUE, not {name!r}; a text with spaces wants quotes")
    return [(name, value) for name, _, value in pairs]


def _json(text: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise _Line(f"no JSON: {error}") from None
    if not isinstance(value, dict):
        raise _Line("expected a JSON object")
    return value
