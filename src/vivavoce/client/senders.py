"""Senders of an app: what their functions say becomes turns of the conversation.

sender → text, chunks of speech, a source, or a message with tools → items, audio and `response.create` of the session.
Where the server finds the turns, speech is streamed and answered by itself; elsewhere the end of it is committed and an
answer is asked for. Invariant: the speech of one sender is never mixed with that of another, nor cut by a text.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias, cast, get_args

from vivavoce.core.caller.turns import turn_detection
from vivavoce.errors import LocalProtocolError, ServerError
from vivavoce.protocol import config, items
from vivavoce.protocol.base import UNSET, Maybe, given

from .acks import Ack
from .configuring import ToolLike
from .live import LiveResponse
from .session import Session
from .sources import chunks
from .tool_calls import tool_of
from .tools import Tool

log = logging.getLogger(__name__)

Chunk = bytes | bytearray | memoryview
Speech: TypeAlias = Chunk | Path | BinaryIO | Iterable[bytes] | AsyncIterable[bytes]
"""Raw samples in the session's input format, an audio file, or a source of samples."""
Message: TypeAlias = str | Speech
TurnTool: TypeAlias = ToolLike | Tool | Callable[..., Any]
"""A typed function, a `tool(…)`, or a definition, whose calls nobody here answers."""
Said: TypeAlias = Message | tuple[Message, Sequence[TurnTool]]
"""What a sender says at a time: a message, or one with the tools that its answer may call, in place of the app's."""
WaitFor = Literal["text", "transcript", "audio", "response"]

MESSAGE_BYTES_MAX = 10 * 1024 * 1024
"""Speech in one message, raw: services take events of 15 MB. Longer speech is streamed."""
TAIL_MS = 500
"""Silence sent after speech has ended, beyond what the server takes for the end of a turn."""
_SILENCE_MS = {"low": 8_000, "medium": 4_000, "high": 2_000}
_QUIET = {"pcm16": b"\0", "ulaw": b"\xff", "alaw": b"\xd5"}
_EMPTY = "input_audio_buffer_commit_empty"


@dataclass(frozen=True, slots=True)
class Sender:
    """A function that says something, once, or again and again until it has nothing to say."""

    function: Callable[..., Any]
    wait_for: WaitFor | None = None
    repeat: bool = False

    def __post_init__(self) -> None:
        if self.wait_for is not None and self.wait_for not in get_args(WaitFor):
            known = ", ".join(map(repr, get_args(WaitFor)))
            raise LocalProtocolError(f"sender {self.name}: wait_for is {self.wait_for!r}; it takes {known}, or None")
        if not (self.is_stream or _is(inspect.iscoroutinefunction, self.function)):
            raise LocalProtocolError(
                f"sender {self.name} is neither a coroutine function nor an async generator: make it `async def`"
            )
        takes_context(self.function, f"sender {self.name}", 0)

    @property
    def name(self) -> str:
        """As its function is called."""
        return name_of(self.function)

    @property
    def is_stream(self) -> bool:
        """Whether the samples that it yields are pieces of one speech."""
        return _is(inspect.isasyncgenfunction, self.function)

    async def said(self, context: object) -> AsyncIterator[Said]:
        """What it says when it is called once."""
        keywords = {"context": context} if takes_context(self.function, f"sender {self.name}", 0) else {}
        if not self.is_stream:
            said = await self.function(**keywords)
            if said is not None:
                yield said
            return
        async with aclosing(self.function(**keywords)) as stream:
            async for said in stream:
                yield said


class Turns:
    """The turns of all senders. `answered` waits for as much of an answer as a sender wants to wait for."""

    def __init__(
        self,
        session: Session,
        own_tools: Mapping[str, Tool],
        answered: Callable[[Turns, WaitFor | None, LiveResponse | None], Awaitable[None]],
    ) -> None:
        self._session = session
        self._own_tools = own_tools
        self._answered = answered
        self._voice = asyncio.Lock()
        self.heard_out_s: float | None = None
        """When speech ended last whose turns the server finds, on the loop's clock."""

    async def run(self, sender: Sender) -> None:
        """Let it speak until it is done."""
        while await self._once(sender) and sender.repeat:
            pass

    async def _once(self, sender: Sender) -> bool:
        """Call it once. Says whether it has said anything."""
        has_spoken, is_speaking = False, False
        async with AsyncExitStack() as speech, aclosing(cast(Any, sender.said(self._session.context))) as stream:
            async for said in stream:
                has_spoken = True
                if sender.is_stream and isinstance(said, Chunk):
                    if not is_speaking:
                        await speech.enter_async_context(self._voice)
                        is_speaking = True
                    await self._session.append_audio(said)
                    continue
                if is_speaking:
                    is_speaking = False
                    await self._end(speech, sender)
                await self._say(said, sender)
            if is_speaking:
                await self._end(speech, sender)
        return has_spoken

    async def _say(self, said: object, sender: Sender) -> None:
        message, tools = _parts(said, sender)
        lent = UNSET if tools is None else [self._lent(tool) for tool in tools]
        is_whole = isinstance(message, Chunk) or tools is not None
        if isinstance(message, str) or (is_whole and self._detection is not None):
            await self._say_item(message if isinstance(message, str) else await self._whole(message), lent, sender)
            return
        async with AsyncExitStack() as speech:
            await speech.enter_async_context(self._voice)
            await self._session.send_audio(cast(Any, message))
            await self._end(speech, sender, lent)

    async def _say_item(self, content: str | bytes, lent: Maybe[list[ToolLike]], sender: Sender) -> None:
        async with AsyncExitStack() as silence:
            if self._detection is None:  # asking for an answer would end speech that is being streamed
                await silence.enter_async_context(self._voice)
            item = self._session.create_item(items.user_message(content))
            response = self._session.create_response(tools=lent)
        await item
        await self._answered(self, sender.wait_for, await response)

    async def _end(self, speech: AsyncExitStack, sender: Sender, lent: Maybe[list[ToolLike]] = UNSET) -> None:
        """Speech is over: see that it is answered, and let others speak."""
        response = await self._finish(lent)
        await speech.aclose()
        await self._answered(self, sender.wait_for, None if response is None else await response)

    async def _finish(self, lent: Maybe[list[ToolLike]]) -> Ack[LiveResponse] | None:
        detection = self._detection
        if detection is not None:
            format = self._session._input_format
            await self._session.append_audio(_QUIET[format.encoding] * format.bytes_of(_silence_ms(detection)))
            self.heard_out_s = asyncio.get_running_loop().time()
            return None
        if not self._session._pends:
            return None
        try:
            await self._session.commit_audio()
        except ServerError as error:
            if error.code != _EMPTY:
                raise
            log.warning("what was recorded is too short to be answered: %s", error)
            self._session.clear_audio()
            return None
        return self._session.create_response(tools=lent)

    @property
    def _detection(self) -> config.TurnDetection | None:
        return turn_detection(self._session.session)

    async def _whole(self, source: object) -> bytes:
        speech = bytearray()
        async with aclosing(chunks(cast(Any, source), format=self._session._input_format)) as stream:
            async for chunk in stream:
                speech += chunk
                if len(speech) > MESSAGE_BYTES_MAX:
                    raise LocalProtocolError(
                        f"speech in one message takes {MESSAGE_BYTES_MAX} bytes at most; yield it in pieces, or say it "
                        "without tools"
                    )
        return bytes(speech)

    def _lent(self, one: TurnTool) -> ToolLike:
        """Its definition; where it is a function, calls of it are run."""
        if isinstance(one, Mapping | config.FunctionTool | config.McpTool):
            return one
        made = tool_of(one)
        if made.name not in set(self._session._tools):
            self._session._tools.add_passing(made)
        elif self._own_tools.get(made.name) is not one:
            raise LocalProtocolError(f"the app has another tool named {made.name!r}; give this one another name")
        return made.definition


def _parts(said: object, sender: Sender) -> tuple[object, Sequence[TurnTool] | None]:
    if not isinstance(said, tuple):
        message, tools = said, None
    elif len(said) == 2 and isinstance(said[1], Sequence) and not isinstance(said[1], str | bytes):
        message, tools = said
    else:
        raise LocalProtocolError(f"sender {sender.name}: a tuple is (message, [tools]), not {said!r:.80}")
    if isinstance(message, str | Chunk | Path | Iterable | AsyncIterable) or hasattr(message, "read"):
        return message, tools
    raise LocalProtocolError(
        f"sender {sender.name} has said {message!r:.60}; it may say text, speech (samples, a path, a source), or "
        "(message, [tools])"
    )


def _silence_ms(detection: config.TurnDetection) -> int:
    """How much silence surely ends a turn."""
    if isinstance(detection, config.ServerVad):
        return given(detection.silence_duration_ms, 500) + TAIL_MS
    return _SILENCE_MS.get(given(detection.eagerness, "auto"), _SILENCE_MS["medium"]) + TAIL_MS


def name_of(function: object) -> str:
    """What a function of the application is called, in messages."""
    return str(getattr(function, "__qualname__", None) or repr(function))


def takes_context(function: Callable[..., Any], what: str, values: int) -> bool:
    """Whether it has a parameter `context`. Raises `LocalProtocolError` where it does not take so many values."""
    signature = inspect.signature(function)
    has_context = "context" in signature.parameters
    try:
        signature.bind(*[None] * values, **({"context": None} if has_context else {}))
    except TypeError as error:
        wanted = "(value) or (value, context)" if values else "() or (context)"
        raise LocalProtocolError(f"{what} must take {wanted}: {error}") from None
    return has_context


def _is(kind: Callable[[Any], bool], function: Any) -> bool:
    return kind(function) or kind(getattr(function, "__call__", None))  # noqa: B004 - of an object that is called
