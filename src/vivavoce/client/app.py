"""Apps by decorators: functions that say things, functions that are told things, and a session between them.

    @app.sender → turns of the user → session → events → @app.receiver; calls of the model → @app.tool

A thin face over one `Session`: it opens it, lets senders speak, hands events to receivers, and closes it. Invariants:
receivers are called one after the other, in the order of the events; when `serve` returns or raises, no task of the app
is left, the session is closed and its player is silent.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import defaultdict
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Concatenate, Final, Literal, ParamSpec, TypeVar, cast, get_args, overload

from vivavoce.errors import ConnectionClosed, LocalProtocolError
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.items import FunctionCall, FunctionCallOutput

from .connect import connect
from .live import LiveResponse, failure_of
from .senders import Said, Sender, Turns, WaitFor, name_of, takes_context
from .session import Session
from .tools import TIMEOUT_S, Approve, CallableTool, OnInterruption, Tool
from .tools import tool as tool_of

__all__ = ["App", "ToolResult"]

log = logging.getLogger(__name__)

Kind = Literal["text", "text_chunk", "audio", "audio_chunk", "transcript", "transcript_chunk", "tool", "tool_chunk"]
EVERY: Final = "every"
"""Receivers without a kind."""

QUIET_S: Final = 2.0
"""How long nothing may happen after speech whose turns the server finds, before it counts as answered."""
POLL_S: Final = 0.1
"""How often is looked whether all is over: that a player falls silent, or that a wait has run out, is no event."""
STOP_S_MAX: Final = 5.0
"""How long senders may take to end. Then they are left to themselves, and logged."""
RESPONSES_MAX: Final = 100
"""Responses of which is remembered what of them was handed to receivers."""
INTERRUPTED: Final = 130
"""The exit code of a program that was ended by Ctrl-C."""

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., object])
S = TypeVar("S", bound="Callable[..., Awaitable[Said | None]] | Callable[..., AsyncIterable[Said]]")
TextReceiver = TypeVar("TextReceiver", bound=Callable[[str], object] | Callable[[str, Any], object])
AudioReceiver = TypeVar("AudioReceiver", bound=Callable[[bytes], object] | Callable[[bytes, Any], object])
ToolReceiver = TypeVar("ToolReceiver", bound="Callable[[ToolResult], object] | Callable[[ToolResult, Any], object]")


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A call of a tool. `arguments` and `output` are what went over the wire, JSON text as a rule.

    `output` is None where nothing here answers the call: then it is the application's to answer.
    """

    name: str
    arguments: str
    call_id: str
    output: str | None = None


def _as_connect(
    _: Callable[P, Session],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    """An initializer that takes what `connect` takes, by its types too."""
    return lambda function: function


class App:
    """An app made of functions: `app = App("gpt-realtime", …)` takes what `connect` takes.

    `session` is the session under it: configure it before the app runs, use it in senders, receivers and tools.
    """

    @_as_connect(connect)
    def __init__(self, *args: Any, **options: Any) -> None:
        self.session: Session = connect(*args, **options)
        if (kind := self.session._options.target.kind) != "conversation":
            raise LocalProtocolError(f"an App holds conversations; for kind={kind!r} use vivavoce.connect")
        self._senders: list[Sender] = []
        self._receivers: defaultdict[str, list[Callable[[Any], Awaitable[None]]]] = defaultdict(list)
        self._tools: dict[str, Tool] = {}
        self._stopping: asyncio.Future[None] | None = None
        self._begin()

    def _begin(self) -> None:
        self._news = asyncio.Event()
        self._is_receiving = False
        self._heard_s = 0.0
        self._given: dict[str, set[str]] = {}
        """What of each response was handed to receivers, in the order in which they began."""

    # --- decorators ---------------------------------------------------------------------------------------------------

    @overload
    def sender(self, function: S, /) -> S: ...
    @overload
    def sender(self, /, *, wait_for: WaitFor | None = None, repeat: bool = False) -> Callable[[S], S]: ...
    def sender(self, function: Any = None, /, **options: Any) -> Any:
        """Let a function speak for the user: `@app.sender`, or `@app.sender(wait_for="response", repeat=True)`.

        A coroutine function returns one message, an async generator yields several: text, speech, or `(message,
        [tools])` for tools that this answer alone may call. Samples that a generator yields are one speech up to its
        end, or up to what else it yields. Senders run side by side, and go on when the answer to what they have said
        has begun; `wait_for` lets them wait until receivers have got its `"text"`, `"transcript"` or `"audio"`, or the
        whole `"response"`, answers to tools included. `repeat` calls it again until it says nothing.
        Raises `LocalProtocolError` for what cannot be a sender.
        """
        if function is None:
            return lambda function: self._add_sender(function, **options)
        return self._add_sender(function)

    def _add_sender(self, function: S, *, wait_for: WaitFor | None = None, repeat: bool = False) -> S:
        self._senders.append(Sender(function, wait_for, repeat))
        return function

    @overload
    def receiver(
        self, kind: Literal["text", "text_chunk", "transcript", "transcript_chunk", "tool_chunk"], /
    ) -> Callable[[TextReceiver], TextReceiver]: ...
    @overload
    def receiver(self, kind: Literal["audio", "audio_chunk"], /) -> Callable[[AudioReceiver], AudioReceiver]: ...
    @overload
    def receiver(self, kind: Literal["tool"], /) -> Callable[[ToolReceiver], ToolReceiver]: ...
    @overload
    def receiver(self, kind: None = None, /) -> Callable[[F], F]: ...
    @overload
    def receiver(self, kind: F, /) -> F: ...
    def receiver(self, kind: Any = None, /) -> Any:
        """Let a function be told what the model says: `@app.receiver("text")`; without a kind, every event.

        `text`, `transcript` and `audio` are all of a message, with `_chunk` the pieces as they come: `str`, and for
        audio raw samples in the session's output format. `tool` is a `ToolResult`, once a call is answered;
        `tool_chunk` pieces of its arguments. The function takes `(value)` or `(value, context)`, async or not, and
        holds up those after it. What it raises ends the app. Raises `LocalProtocolError` for an unknown kind.
        """
        if callable(kind):
            return self._add_receiver(EVERY, kind)
        if kind is not None and kind not in get_args(Kind):
            meant = next(iter(get_close_matches(str(kind), get_args(Kind), n=1)), None)
            hint = f"{meant!r} is probably meant; " if meant else ""
            raise LocalProtocolError(
                f"there is no receiver of {kind!r}; {hint}there are: {', '.join(get_args(Kind))}, and none for every "
                "event"
            )
        return lambda function: self._add_receiver(kind or EVERY, function)

    def _add_receiver(self, kind: str, function: F) -> F:
        keywords = (
            {"context": self.session.context} if takes_context(function, f"receiver {name_of(function)}", 1) else {}
        )

        async def receive(value: Any) -> None:
            result = function(value, **keywords)
            if inspect.isawaitable(result):
                await result

        self._receivers[kind].append(receive)
        return function

    @overload
    def tool(self, function: Callable[P, R], /) -> CallableTool[P, R]: ...
    @overload
    def tool(
        self,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout_s: float | None = TIMEOUT_S,
        parallel: bool = True,
        on_interruption: OnInterruption = "finish",
        approve: Approve | None = None,
    ) -> Callable[[Callable[P, R]], CallableTool[P, R]]: ...
    def tool(self, function: Any = None, /, **options: Any) -> Any:
        """Let the model call a typed function, async or blocking: `@app.tool`, with the options of `vivavoce.tool`.

        Raises `LocalProtocolError` for what a model cannot be told, and for a name that is taken.
        """
        if function is None:
            return lambda function: self._add_tool(function, **options)
        return self._add_tool(function)

    def _add_tool(self, function: Any, **options: Any) -> Tool:
        made = function if isinstance(function, Tool) else tool_of(function, **options)
        self.session.add_tool(made)
        self._tools[made.name] = made
        return made

    # --- life ---------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run the app from a script, to its end. Ctrl-C ends it cleanly, and the program with exit code 130.

        Raises what `serve` raises.
        """
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            raise LocalProtocolError("an event loop is running already: use `await app.serve()`")
        try:
            asyncio.run(self.serve())
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None

    async def serve(self) -> None:
        """Run the app until all senders are done and answered; without senders, until `stop` or the session's end.

        A player is opened, and played out. Lost connections come back as the session's `reconnect` says. Raises what a
        sender or a receiver has raised, `ConnectionFailed` or `ServerError` where there is no session to be had, and
        `ConnectionClosed` or `BudgetExceeded` where it ended before its time.
        """
        if self._stopping is not None:
            raise LocalProtocolError("the app is running already; stop() it before it is run again")
        self._begin()
        self._stopping = asyncio.get_running_loop().create_future()
        try:
            async with AsyncExitStack() as stack:
                await self._open_player(stack)
                await stack.enter_async_context(self.session)
                await self._watch(self._stopping)
        finally:
            self._stopping = None

    def stop(self) -> None:
        """End the app, from anywhere in its loop: `serve` returns. Where it does not run, nothing happens."""
        if self._stopping is not None and not self._is_stopping:
            self._stopping.set_result(None)

    @property
    def _is_stopping(self) -> bool:
        return self._stopping is not None and self._stopping.done()

    async def _open_player(self, stack: AsyncExitStack) -> None:
        """A device is opened off the event loop before it is needed, and given back."""
        player = self.session._options.player
        if hasattr(player, "__aexit__"):
            await stack.enter_async_context(cast(Any, player))

    async def _watch(self, stopping: asyncio.Future[None]) -> None:
        """Let receivers and senders work until it is over; the first failure ends it."""
        receiving = asyncio.create_task(self._receive(), name="receivers")
        speaking = asyncio.create_task(self._speak(), name="senders")
        try:
            await asyncio.wait({receiving, speaking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not self.session.is_connected and isinstance(_error_of(speaking), ConnectionClosed):
                await asyncio.wait({receiving, stopping}, return_when=asyncio.FIRST_COMPLETED)  # it knows why
            error = _error_of(receiving) or _error_of(speaking)
            if error is not None:
                raise error
        finally:
            if (player := self.session._options.player) is not None:
                player.stop()
            await _ended(receiving, speaking)

    # --- speaking -----------------------------------------------------------------------------------------------------

    async def _speak(self) -> None:
        """Let all senders speak, and wait until they are answered, and heard."""
        turns = Turns(self.session, self._tools, self._answered)
        tasks = [asyncio.create_task(turns.run(sender), name=f"sender {sender.name}") for sender in self._senders]
        try:
            if not tasks:
                await asyncio.get_running_loop().create_future()  # until somebody else ends the app
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for error in filter(None, map(_error_of, tasks)):
                raise error
            await self._until(lambda: self._is_over(turns) and not self._is_playing)
        finally:
            await _ended(*tasks)

    async def _answered(self, turns: Turns, wait_for: WaitFor | None, response: LiveResponse | None) -> None:
        """Wait for as much of an answer as is wanted, or for its end where there is no such thing in it."""
        if wait_for is None:
            return
        await self._until(lambda: self._has_given(wait_for, response) or self._is_over(turns))

    def _has_given(self, kind: str, response: LiveResponse | None) -> bool:
        """Whether receivers have got this of a response, or of one after it."""
        if response is None or response.id not in self._given:
            return False
        begun = list(self._given)
        return any(kind in self._given[response_id] for response_id in begun[begun.index(response.id) :])

    def _is_over(self, turns: Turns) -> bool:
        """Whether nothing is to be expected any more."""
        is_read = not self._is_receiving and not self.session._audience.events.stream
        if not (is_read and self.session.is_connected and self.session._caller.is_idle):
            return False
        if turns.heard_out_s is None:
            return True
        return asyncio.get_running_loop().time() >= max(turns.heard_out_s, self._heard_s) + QUIET_S

    @property
    def _is_playing(self) -> bool:
        player = self.session._options.player
        return player is not None and player.is_playing

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while self._is_stopping or not is_so():  # after `stop` nothing more is said
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._news.wait()

    # --- receiving ----------------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        """Hand every event to those who want it, to the end of the session."""
        async for event in self.session:
            self._is_receiving = True
            for kind, value in self._values(event):
                for receive in self._receivers.get(kind, ()):
                    await receive(value)
            for receive in self._receivers.get(EVERY, ()):
                await receive(event)
            self._note(event)
            self._is_receiving = False
            news, self._news = self._news, asyncio.Event()
            news.set()

    def _values(self, event: Any) -> Iterator[tuple[Kind, Any]]:
        """What an event is for receivers of a kind."""
        match event:
            case ev.ResponseOutputTextDelta():
                yield "text_chunk", event.delta
            case ev.ResponseOutputTextDone():
                yield "text", event.text
            case ev.ResponseOutputAudioTranscriptDelta():
                yield "transcript_chunk", event.delta
            case ev.ResponseOutputAudioTranscriptDone():
                yield "transcript", event.transcript
            case ev.ResponseOutputAudioDelta():
                yield "audio_chunk", event.delta
            case ev.ResponseOutputAudioDone() if "audio" in self._receivers:
                if (item := self.session.get_item(event.item_id)) is not None:
                    yield "audio", item.audio
            case ev.ResponseFunctionCallArgumentsDelta():
                yield "tool_chunk", event.delta
            case ev.ResponseOutputItemDone(item=FunctionCall() as call) if call.name not in self.session._tools:
                yield "tool", ToolResult(call.name, call.arguments, given(call.call_id, ""))
            case ev.ConversationItemAdded(item=FunctionCallOutput() as output):
                yield "tool", self._result(output)

    def _result(self, output: FunctionCallOutput) -> ToolResult:
        calls = (item for item in reversed(self.session.get_items()) if item.type == "function_call")
        call = next((item for item in calls if item.call_id == output.call_id), None)
        name, arguments = (call.name, call.arguments) if call is not None else (None, None)
        return ToolResult(name or "", arguments or "", output.call_id, output.output)

    def _note(self, event: Any) -> None:
        """What those who wait for an answer, or for its end, have to know."""
        self._heard_s = asyncio.get_running_loop().time()
        match event:
            case ev.ResponseCreated() if event.response.conversation_id is not None:  # not beside the conversation
                self._given[event.response.id] = set()
                if len(self._given) > RESPONSES_MAX:
                    del self._given[next(iter(self._given))]
            case ev.ResponseOutputTextDone():
                self._given.get(event.response_id, set()).add("text")
            case ev.ResponseOutputAudioTranscriptDone():
                self._given.get(event.response_id, set()).add("transcript")
            case ev.ResponseOutputAudioDone():
                self._given.get(event.response_id, set()).add("audio")
            case ev.ResponseDone() if event.response.status == "failed":
                log.warning("an answer has failed: %s", failure_of(event.response))


def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


async def _ended(*tasks: asyncio.Task[None]) -> None:
    """End them, and give them some time for it."""
    for task in tasks:
        task.cancel()
        task.add_done_callback(_error_of)  # so that nobody misses it: the first one is what the app ends with
    late = (await asyncio.wait(tasks, timeout=STOP_S_MAX))[1] if tasks else ()
    for task in late:
        log.warning("%s goes on although it was cancelled", task.get_name())
