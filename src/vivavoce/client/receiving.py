"""Everything by which an application hears of a session, apart from iterating it: listeners, and waiting for an event.

Half of `Session`, apart for its length; `Sending` is the other. An event is named by its type, or by its name on the
wire: a type says what the callback gets, and so do the names that are used most, which have overloads.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, Union, cast, overload

from vivavoce.core.caller import Caller, updates
from vivavoce.protocol import config
from vivavoce.protocol import events as ev

from .audience import Audience
from .listeners import ListenerFailed, Listeners
from .names import ConnectionChanged, RealtimeEvent, check_name, name_of

if TYPE_CHECKING:
    from vivavoce.core.caller.memory import ItemView

E = TypeVar("E")
R = TypeVar("R")
C = TypeVar("C", bound=Callable[..., object])

Call: TypeAlias = Callable[[E], object]
"""A callback: a function, or a coroutine function, of one event."""
# Written with Union: a TypeVar in `X | Y` is no type alias for type checkers at this Python version.
Where: TypeAlias = Union[Callable[[E], bool], None]  # noqa: UP007
Seconds = float | None
Trouble = ev.ErrorEvent | updates.Failed | ListenerFailed
"""What listeners of `error` get: each has an `error` with `code` and `message`."""
Transcribed = ev.ConversationItemInputAudioTranscriptionCompleted
ConnectionName = Literal[
    "connection.lost", "connection.resumed", "connection.restored", "connection.renewed", "connection.closed"
]


class Listening(ABC):
    """How listeners are named, with or without an event loop."""

    @abstractmethod
    def _register(self, name: str, callback: Callable[..., object], *, once: bool) -> None: ...

    @overload
    def on(self, name: type[E], callback: Call[E]) -> Call[E]: ...
    @overload
    def on(self, name: type[E]) -> Callable[[Callable[[E], R]], Callable[[E], R]]: ...
    @overload
    def on(
        self, name: Literal["conversation.updated"], callback: Call[updates.ConversationUpdated]
    ) -> Call[updates.ConversationUpdated]: ...
    @overload
    def on(
        self, name: Literal["conversation.item.appended"], callback: Call[updates.ItemAppended]
    ) -> Call[updates.ItemAppended]: ...
    @overload
    def on(
        self, name: Literal["conversation.item.completed"], callback: Call[updates.ItemCompleted]
    ) -> Call[updates.ItemCompleted]: ...
    @overload
    def on(
        self, name: Literal["conversation.interrupted"], callback: Call[updates.Interrupted]
    ) -> Call[updates.Interrupted]: ...
    @overload
    def on(self, name: Literal["error"], callback: Call[Trouble]) -> Call[Trouble]: ...
    @overload
    def on(self, name: Literal["realtime.event"], callback: Call[RealtimeEvent]) -> Call[RealtimeEvent]: ...
    @overload
    def on(self, name: ConnectionName, callback: Call[ConnectionChanged]) -> Call[ConnectionChanged]: ...
    @overload
    def on(
        self, name: Literal["input_audio_buffer.speech_started"], callback: Call[ev.InputAudioBufferSpeechStarted]
    ) -> Call[ev.InputAudioBufferSpeechStarted]: ...
    @overload
    def on(
        self, name: Literal["input_audio_buffer.speech_stopped"], callback: Call[ev.InputAudioBufferSpeechStopped]
    ) -> Call[ev.InputAudioBufferSpeechStopped]: ...
    @overload
    def on(
        self, name: Literal["conversation.item.input_audio_transcription.completed"], callback: Call[Transcribed]
    ) -> Call[Transcribed]: ...
    @overload
    def on(self, name: Literal["response.created"], callback: Call[ev.ResponseCreated]) -> Call[ev.ResponseCreated]: ...
    @overload
    def on(self, name: Literal["response.done"], callback: Call[ev.ResponseDone]) -> Call[ev.ResponseDone]: ...
    @overload
    def on(
        self, name: Literal["response.output_item.done"], callback: Call[ev.ResponseOutputItemDone]
    ) -> Call[ev.ResponseOutputItemDone]: ...
    @overload
    def on(
        self, name: Literal["response.output_text.delta"], callback: Call[ev.ResponseOutputTextDelta]
    ) -> Call[ev.ResponseOutputTextDelta]: ...
    @overload
    def on(
        self, name: Literal["response.output_audio.delta"], callback: Call[ev.ResponseOutputAudioDelta]
    ) -> Call[ev.ResponseOutputAudioDelta]: ...
    @overload
    def on(
        self,
        name: Literal["response.output_audio_transcript.delta"],
        callback: Call[ev.ResponseOutputAudioTranscriptDelta],
    ) -> Call[ev.ResponseOutputAudioTranscriptDelta]: ...
    @overload
    def on(
        self,
        name: Literal["response.function_call_arguments.done"],
        callback: Call[ev.ResponseFunctionCallArgumentsDone],
    ) -> Call[ev.ResponseFunctionCallArgumentsDone]: ...
    @overload
    def on(self, name: str, callback: C) -> C: ...
    @overload
    def on(self, name: str) -> Callable[[C], C]: ...
    def on(self, name: Any, callback: Any = None) -> Any:
        """Call back for every event of this name: `session.on("response.done", f)`, or as a decorator.

        Names are those of the server's events, with or without `server.` in front; `client.` and a name for what is
        sent; the session's own (`conversation.updated`, `conversation.item.appended`, `conversation.item.completed`,
        `conversation.interrupted`, `realtime.event`, `error`, `connection.*`); and patterns such as `response.*`. A
        type of `vivavoce.events` is a name as well, and tells type checkers what the callback gets. Callbacks may be
        coroutine functions; they run one after the other. Raises `LocalProtocolError` for a name that there is not.
        """
        return self._registered(name_of(name), callback, once=False)

    @overload
    def once(self, name: type[E], callback: Call[E]) -> Call[E]: ...
    @overload
    def once(self, name: type[E]) -> Callable[[Callable[[E], R]], Callable[[E], R]]: ...
    @overload
    def once(
        self, name: Literal["conversation.updated"], callback: Call[updates.ConversationUpdated]
    ) -> Call[updates.ConversationUpdated]: ...
    @overload
    def once(
        self, name: Literal["conversation.item.appended"], callback: Call[updates.ItemAppended]
    ) -> Call[updates.ItemAppended]: ...
    @overload
    def once(
        self, name: Literal["conversation.item.completed"], callback: Call[updates.ItemCompleted]
    ) -> Call[updates.ItemCompleted]: ...
    @overload
    def once(
        self, name: Literal["conversation.interrupted"], callback: Call[updates.Interrupted]
    ) -> Call[updates.Interrupted]: ...
    @overload
    def once(self, name: Literal["error"], callback: Call[Trouble]) -> Call[Trouble]: ...
    @overload
    def once(self, name: Literal["realtime.event"], callback: Call[RealtimeEvent]) -> Call[RealtimeEvent]: ...
    @overload
    def once(self, name: ConnectionName, callback: Call[ConnectionChanged]) -> Call[ConnectionChanged]: ...
    @overload
    def once(
        self, name: Literal["input_audio_buffer.speech_started"], callback: Call[ev.InputAudioBufferSpeechStarted]
    ) -> Call[ev.InputAudioBufferSpeechStarted]: ...
    @overload
    def once(
        self, name: Literal["input_audio_buffer.speech_stopped"], callback: Call[ev.InputAudioBufferSpeechStopped]
    ) -> Call[ev.InputAudioBufferSpeechStopped]: ...
    @overload
    def once(
        self, name: Literal["conversation.item.input_audio_transcription.completed"], callback: Call[Transcribed]
    ) -> Call[Transcribed]: ...
    @overload
    def once(
        self, name: Literal["response.created"], callback: Call[ev.ResponseCreated]
    ) -> Call[ev.ResponseCreated]: ...
    @overload
    def once(self, name: Literal["response.done"], callback: Call[ev.ResponseDone]) -> Call[ev.ResponseDone]: ...
    @overload
    def once(
        self, name: Literal["response.output_item.done"], callback: Call[ev.ResponseOutputItemDone]
    ) -> Call[ev.ResponseOutputItemDone]: ...
    @overload
    def once(
        self, name: Literal["response.output_text.delta"], callback: Call[ev.ResponseOutputTextDelta]
    ) -> Call[ev.ResponseOutputTextDelta]: ...
    @overload
    def once(
        self, name: Literal["response.output_audio.delta"], callback: Call[ev.ResponseOutputAudioDelta]
    ) -> Call[ev.ResponseOutputAudioDelta]: ...
    @overload
    def once(
        self,
        name: Literal["response.output_audio_transcript.delta"],
        callback: Call[ev.ResponseOutputAudioTranscriptDelta],
    ) -> Call[ev.ResponseOutputAudioTranscriptDelta]: ...
    @overload
    def once(
        self,
        name: Literal["response.function_call_arguments.done"],
        callback: Call[ev.ResponseFunctionCallArgumentsDone],
    ) -> Call[ev.ResponseFunctionCallArgumentsDone]: ...
    @overload
    def once(self, name: str, callback: C) -> C: ...
    @overload
    def once(self, name: str) -> Callable[[C], C]: ...
    def once(self, name: Any, callback: Any = None) -> Any:
        """As `on`, for the next event alone."""
        return self._registered(name_of(name), callback, once=True)

    def _registered(self, name: str, callback: Any, *, once: bool) -> Any:
        check_name(name)
        if callback is None:
            return lambda function: self._registered(name, function, once=once)
        self._register(name, callback, once=once)
        return callback


class Receiving(Listening):
    """The listening half of a session; what is iterated is the session's own."""

    _audience: Audience
    _caller: Caller
    _listeners: Listeners

    def _register(self, name: str, callback: Callable[..., object], *, once: bool) -> None:
        self._listeners.on(name, callback, once=once)
        self._caller.tells_deltas = self._audience.wants_deltas

    def off(self, name: str | type[Any], callback: Callable[..., object] | None = None) -> None:
        """Call back no more; without a callback, none of this name. Raises `LocalProtocolError` for an unknown one."""
        self._listeners.off(name_of(name), callback)
        self._caller.tells_deltas = self._audience.wants_deltas

    @overload
    async def wait_for(self, name: type[E], timeout_s: Seconds = None, where: Where[E] = None) -> E: ...
    @overload
    async def wait_for(
        self,
        name: Literal["conversation.updated"],
        timeout_s: Seconds = None,
        where: Where[updates.ConversationUpdated] = None,
    ) -> updates.ConversationUpdated: ...
    @overload
    async def wait_for(
        self,
        name: Literal["conversation.item.appended"],
        timeout_s: Seconds = None,
        where: Where[updates.ItemAppended] = None,
    ) -> updates.ItemAppended: ...
    @overload
    async def wait_for(
        self,
        name: Literal["conversation.item.completed"],
        timeout_s: Seconds = None,
        where: Where[updates.ItemCompleted] = None,
    ) -> updates.ItemCompleted: ...
    @overload
    async def wait_for(
        self,
        name: Literal["conversation.interrupted"],
        timeout_s: Seconds = None,
        where: Where[updates.Interrupted] = None,
    ) -> updates.Interrupted: ...
    @overload
    async def wait_for(
        self, name: Literal["error"], timeout_s: Seconds = None, where: Where[Trouble] = None
    ) -> Trouble: ...
    @overload
    async def wait_for(
        self, name: ConnectionName, timeout_s: Seconds = None, where: Where[ConnectionChanged] = None
    ) -> ConnectionChanged: ...
    @overload
    async def wait_for(
        self,
        name: Literal["input_audio_buffer.speech_started"],
        timeout_s: Seconds = None,
        where: Where[ev.InputAudioBufferSpeechStarted] = None,
    ) -> ev.InputAudioBufferSpeechStarted: ...
    @overload
    async def wait_for(
        self,
        name: Literal["input_audio_buffer.speech_stopped"],
        timeout_s: Seconds = None,
        where: Where[ev.InputAudioBufferSpeechStopped] = None,
    ) -> ev.InputAudioBufferSpeechStopped: ...
    @overload
    async def wait_for(
        self,
        name: Literal["conversation.item.input_audio_transcription.completed"],
        timeout_s: Seconds = None,
        where: Where[Transcribed] = None,
    ) -> Transcribed: ...
    @overload
    async def wait_for(
        self, name: Literal["response.created"], timeout_s: Seconds = None, where: Where[ev.ResponseCreated] = None
    ) -> ev.ResponseCreated: ...
    @overload
    async def wait_for(
        self, name: Literal["response.done"], timeout_s: Seconds = None, where: Where[ev.ResponseDone] = None
    ) -> ev.ResponseDone: ...
    @overload
    async def wait_for(
        self,
        name: Literal["response.output_item.done"],
        timeout_s: Seconds = None,
        where: Where[ev.ResponseOutputItemDone] = None,
    ) -> ev.ResponseOutputItemDone: ...
    @overload
    async def wait_for(
        self,
        name: Literal["response.output_text.delta"],
        timeout_s: Seconds = None,
        where: Where[ev.ResponseOutputTextDelta] = None,
    ) -> ev.ResponseOutputTextDelta: ...
    @overload
    async def wait_for(
        self,
        name: Literal["response.output_audio.delta"],
        timeout_s: Seconds = None,
        where: Where[ev.ResponseOutputAudioDelta] = None,
    ) -> ev.ResponseOutputAudioDelta: ...
    @overload
    async def wait_for(
        self,
        name: Literal["response.output_audio_transcript.delta"],
        timeout_s: Seconds = None,
        where: Where[ev.ResponseOutputAudioTranscriptDelta] = None,
    ) -> ev.ResponseOutputAudioTranscriptDelta: ...
    @overload
    async def wait_for(
        self,
        name: Literal["response.function_call_arguments.done"],
        timeout_s: Seconds = None,
        where: Where[ev.ResponseFunctionCallArgumentsDone] = None,
    ) -> ev.ResponseFunctionCallArgumentsDone: ...
    @overload
    async def wait_for(self, name: str, timeout_s: Seconds = None, where: Where[Any] = None) -> Any: ...
    async def wait_for(self, name: Any, timeout_s: Any = None, where: Any = None) -> Any:
        """The next event of this name, type or pattern; `where` chooses among them. Raises `TimeoutError`."""
        waiter = self._audience.waiter(name_of(name), where)
        self._caller.tells_deltas = self._audience.wants_deltas
        self._audience.release()
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except TimeoutError:
            raise TimeoutError(f"no {name_of(name)} came within {timeout_s:g} s") from None
        finally:
            waiter.cancel()
            self._caller.tells_deltas = self._audience.wants_deltas

    async def wait_for_session_created(self, timeout_s: float | None = None) -> config.SessionResource:
        """The configuration that the session began with; at once where it has begun."""
        if self._caller.conversation.session is None:
            await self.wait_for("session.created", timeout_s)
        return cast(config.SessionResource, self._caller.conversation.session)

    async def wait_for_next_item(self, timeout_s: float | None = None) -> ItemView:
        """The next item that enters the conversation."""
        return (await self.wait_for("conversation.item.appended", timeout_s)).item

    async def wait_for_next_completed_item(self, timeout_s: float | None = None) -> ItemView:
        """The next item that is completed."""
        return (await self.wait_for("conversation.item.completed", timeout_s)).item
