"""The session: the one object that an application holds, from before the first connection to after the last.

Everything that is sent goes through `Life.ask` and can be awaited to the server's answer; everything that comes is seen
by iterating, by `on`, by `wait_for`, and as items of the conversation. Invariants: when an event is seen, the
conversation already contains it; connections may break and come back, and the session remains.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from msgspec import structs

from vivavoce.audio.formats import PCM16_24K, Format
from vivavoce.core.caller import Caller
from vivavoce.core.caller.memory import ItemView
from vivavoce.core.caller.messages import CancelTool, Heard, Interrupt, RunTool, ToolEnded
from vivavoce.core.caller.restoring import merged
from vivavoce.core.caller.turns import turn_detection
from vivavoce.core.caller.updates import Failed, Update
from vivavoce.core.conversation import Conversation
from vivavoce.errors import BudgetExceeded, ConnectionClosed, LocalProtocolError
from vivavoce.protocol import config
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, given
from vivavoce.protocol.items import FunctionCall

from .acks import Ack
from .audience import Audience, ServerMessage
from .configuring import Content, ToolLike
from .life import Life
from .line import NORMAL_CODES
from .listeners import Listeners
from .live import LiveResponse
from .opening import Options, begin
from .receiving import Receiving
from .sending import Sending
from .tool_calls import ToolCalls, tool_of

if TYPE_CHECKING:
    from .cost import Meter
    from .tools import Tool

T = TypeVar("T")

log = logging.getLogger(__name__)

GOODBYE_S = 5.0
"""Time for listeners to hear the last of it."""
SPOKEN_S_MAX = 300.0
"""The longest file that `ask` says in one message, which is 15 MB then."""


class Session(Receiving, Sending):
    """A conversation with a Realtime endpoint. Made by `connect`; opened by `async with`, `await` or `connect()`.

    Iterate it for the server's events, one reader at a time; everything else may be used from anywhere in its loop.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._listeners = Listeners()
        self._tools = ToolCalls(options.context)
        self._stated_tools: tuple[config.Tool, ...] = ()
        self._configuration: config.SessionConfig | None = options.configuration
        self._unsent: list[ev.AnyClientEvent] = []
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._ids = self._options.new_ids()
        self._caller = Caller(
            ids=self._ids,
            runs=self._tools.__contains__,
            plays=self._options.player is not None,
            server_plays=self._options.transport == "webrtc",
            text_fallback=self._options.text_fallback,
            limits=self._options.limits,
        )
        self._audience = Audience(self._listeners)
        self._audience.server_plays = self._options.transport == "webrtc"
        self._audience.is_asked_again = self._caller.requests.is_asked_again
        self._audience.replaced_by = self._caller.requests.replaced_by
        self._meter: Meter | None = None
        self._life: Life | None = None
        self._ending: asyncio.Task[None] | None = None
        self._over: BudgetExceeded | None = None
        self._is_budget_kept = False
        self._dispatch: asyncio.Task[None] | None = None
        self._is_streaming = False

    # --- life ---------------------------------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether the session is open, and not being reconnected."""
        return self._life is not None and self._life.ended is None and self._caller.is_connected

    async def connect(self) -> Session:
        """Open the session. What was configured before is in force when it returns.

        Raises `ConnectionFailed` or `ServerError` with the likely cause, `LocalProtocolError` where it is open, and
        what a player raises that cannot be opened.
        """
        if self._life is not None and self._life.ended is None:
            raise LocalProtocolError("the session is connected already; disconnect() before connecting again")
        if self._life is not None:
            await self._end_life(self._life)
            self._begin_anew()
        self._life, self._meter = begin(self, self._caller, self._ids, self._options)
        self._audience.is_waited_for = lambda: self._life is not None and self._life.hands.is_waited_for
        self._audience.give_turn = self._life.hands.give_turn
        self._dispatch = asyncio.get_running_loop().create_task(self._listeners.run())
        try:
            await self._open_player()
            await self._life.open()
            _check_budget(self._meter)
            await self._prepare()
            _check_budget(self._meter)
            self._is_budget_kept = True
        except BaseException:
            await self.disconnect()
            raise
        return self

    async def _open_player(self) -> None:
        """A device takes its time, which `play` would take from the event loop. To close it is the application's."""
        open = getattr(self._options.player, "open", None)
        if open is not None:
            await asyncio.to_thread(open)

    async def _prepare(self) -> None:
        """Say what was asked for before there was a connection."""
        unsent, self._unsent = self._unsent, []
        if self._configuration is not None or self._tools:
            change = self._configuration or config.RealtimeSession()
            await self._send(self._update_of(change), lambda answer: answer)
        for event in unsent:
            self._send(event, lambda answer: answer)

    async def disconnect(self) -> None:
        """End the session: what was said is sent, tools are ended, listeners have their say. Twice is harmless."""
        if self._life is not None:
            await self._end_life(self._life)
            if self._options.tape is not None:
                self._options.tape.close()

    async def _end_life(self, life: Life) -> None:
        await self._tools.end()
        await life.close()
        self._listeners.end()
        dispatch = self._dispatch
        if dispatch is not None and not dispatch.done() and dispatch is not asyncio.current_task():
            await asyncio.wait((dispatch,), timeout=GOODBYE_S)
            dispatch.cancel()
            await asyncio.gather(dispatch, return_exceptions=True)

    close = disconnect

    async def reconnect(self) -> None:
        """Give the present connection up, as where the network has changed, and wait until there is another.

        A connection that is dead without anybody knowing is noticed late; whoever knows better says so here. Raises
        `ConnectionClosed` where the session ends instead, and `LocalProtocolError` where it is not to be reconnected.
        """
        if self._life is None or self._life.ended is not None:
            raise LocalProtocolError("the session is not connected; use `async with`, or await connect()")
        if not self._options.reconnect.tries:
            raise LocalProtocolError("the session was made with reconnect=False; connect() makes another")
        standing = self._audience.waiter("connection.*", lambda event: event.what in ("resumed", "restored", "closed"))
        try:
            self._life.leave()
            await standing
        finally:
            standing.cancel()
        if self._life.ended is not None:
            raise ConnectionClosed(self._life.ended.code, self._life.ended.reason)

    async def reset(self) -> None:
        """Disconnect and forget everything: conversation, configuration, tools, listeners."""
        await self.disconnect()
        self._listeners.clear()
        self._tools.clear()
        self._stated_tools, self._configuration = (), self._options.configuration
        self._unsent.clear()
        self._begin_anew()

    async def __aenter__(self) -> Session:
        return self if self.is_connected else await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.disconnect()

    def __repr__(self) -> str:
        """For a prompt: which session, of what model, and whether it is open."""
        stated = self.session
        about = f"{stated.id} {getattr(stated, 'model', None) or ''}".rstrip() if stated is not None else "new"
        return f"<Session {about}, {'connected' if self.is_connected else 'not connected'}>"

    def __await__(self) -> Generator[Any, None, Session]:
        return self.connect().__await__()

    # --- what is known ------------------------------------------------------------------------------------------------

    @property
    def conversation(self) -> Conversation:
        """The conversation as the server states it: items, responses, configuration."""
        return self._caller.conversation

    @property
    def session(self) -> config.SessionResource | None:
        """The configuration in force, as the server last stated it."""
        return self._caller.conversation.session

    @property
    def meter(self) -> Meter:
        """What it has taken so far, in tokens and money, by response and in all. Raises before connecting."""
        if self._meter is None:
            raise LocalProtocolError("nothing is counted before the session is connected")
        return self._meter

    @property
    def context(self) -> Any:
        """What tools are given along with their arguments; the application's own."""
        return self._options.context

    def get_item(self, item_id: str) -> ItemView | None:
        """An item of the conversation with its words, its audio and what was heard of it; None where there is none."""
        return self._caller.memory.view(item_id)

    def get_items(self) -> tuple[ItemView, ...]:
        """All items of the conversation, in order."""
        return self._caller.memory.views()

    # --- receiving ----------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Session:
        """Every event of the server, from the first on; ends with the session, with an exception where it was lost.

        Another `async for` goes on where the last one left off. Who is behind by 10,000 events holds the server back;
        who then takes none for ten seconds counts as gone, and the oldest events are dropped, until it comes back.
        """
        return self

    async def __anext__(self) -> ServerMessage:
        event = self._audience.events.stream.get_nowait()
        if event is not None:
            return event
        self._check_readable()
        return await self._audience.events.__anext__()

    async def recv(self) -> ServerMessage:
        """The next event. Raises `ConnectionClosed` at the end, `BudgetExceeded` where that was the reason."""
        self._check_readable()
        return await self._audience.events.stream.get()

    def _check_readable(self) -> None:
        if self._life is None:
            raise LocalProtocolError("the session is not connected; use `async with`, or await connect()")
        stream = self._audience.events.stream
        if stream.dropped:
            log.warning("%d events came while nobody iterated, and were dropped", stream.dropped)
            stream.dropped = 0

    def responses(self) -> AsyncIterator[LiveResponse]:
        """Every response from now on, whoever asked for it: `async for response in session.responses()`."""
        return self._audience.follow()

    # --- tools --------------------------------------------------------------------------------------------------------

    def add_tool(
        self,
        tool: Tool | Callable[..., Any] | Mapping[str, Any] | config.FunctionTool,
        function: Callable[..., Any] | None = None,
    ) -> Ack[config.SessionResource]:
        """Let the model call a function: a typed function, a `tool(…)`, or a definition and the function for it.

        It is run, and answered, without further ado; failures are answered as `{"error": …}`. When all calls of a
        response are answered, one response is asked for. Raises `LocalProtocolError` for a name that is taken.
        """
        made = tool_of(tool, function)
        if made.name in {_name_of(stated) for stated in self._stated_tools} or made.name in self._tools:
            raise LocalProtocolError(f"there is a tool named {made.name!r} already; remove_tool({made.name!r}) first")
        self._tools.add(made)
        return self._configure(config.RealtimeSession())

    def remove_tool(self, name: str) -> Ack[config.SessionResource]:
        """The model can call it no more. Raises `LocalProtocolError` for an unknown one."""
        self._tools.remove(name)
        return self._configure(config.RealtimeSession())

    async def ask(self, content: Content | Path) -> str:
        """Say something as the user and wait for the whole answer, in words, the calling of tools included.

        What is said is text, speech as samples, or a `Path` to an audio file. An answer that somebody cancels is what
        was said until then. Raises `ServerError`, `ResponseFailed`, `ConnectionClosed` where the session ends before,
        and for a file what `send_audio` does.
        """
        if isinstance(content, Path):
            from .sources import whole

            content = await whole(content, self._input_format, s_max=SPOKEN_S_MAX)
        responses = self._audience.follow()
        response = await self.send_user_message(content)
        for _ in range(self._options.limits.tool_rounds_max):
            done = await response
            calls = [item for item in done.output if isinstance(item, FunctionCall)]
            if not calls or done.status == "cancelled" or any(call.name not in self._tools for call in calls):
                break
            before = response.id
            while response.id == before:
                response = await responses.stream.get()
        return await response.text()

    # --- what `Sending` needs -----------------------------------------------------------------------------------------

    def _new_id(self, prefix: str) -> str:
        return self._ids(prefix)

    def _send(self, event: ev.AnyClientEvent, convert: Callable[[Any], T]) -> Ack[T]:
        if self._life is None:
            self._unsent.append(event)
            return Ack(None, convert)
        room = self._life.outgoing.room if isinstance(event, ev.InputAudioBufferAppend) else None
        self._audience.release()
        return Ack(self._life.ask(event), convert, room)

    def _send_frame(self, frame: bytes) -> Ack[None]:
        if self._life is None:
            raise LocalProtocolError("there is no connection; raw messages cannot be kept for later")
        self._life.check_open()
        if not self._life.outgoing.is_open:
            raise LocalProtocolError("the connection is lost; raw messages cannot be kept until there is another")
        self._life.outgoing.put(frame)
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return Ack(future, lambda answer: None, self._life.outgoing.room)

    def _request(self, event: ev.ResponseCreate) -> Ack[LiveResponse]:
        if self._meter is not None and self._meter.is_exhausted:
            raise BudgetExceeded(self._meter.cost, self._meter.budget or 0.0)
        audience = self._audience  # that of now, whenever it is awaited
        ack: Ack[LiveResponse] = self._send(event, lambda answer: audience.live(answer.response.id))
        audience.expects(ack)
        return ack

    def _lend(self, tool: ToolLike | Tool | Callable[..., Any]) -> ToolLike:
        if isinstance(tool, Mapping | config.FunctionTool | config.McpTool):
            return tool
        made = tool_of(tool)
        self._tools.add_passing(made)
        return made.definition

    def _configure(self, change: config.SessionConfig) -> Ack[config.SessionResource]:
        if isinstance(change, config.RealtimeSession) and change.tools is not UNSET:
            stated = given(change.tools, ())
            for name in {_name_of(tool) for tool in stated}.intersection(self._tools):
                raise LocalProtocolError(f"add_tool has a tool named {name!r} already; remove_tool({name!r}) first")
            self._stated_tools = stated
        before = self._configuration
        self._configuration = change if before is None else merged(before, change)
        if self._life is None:
            return Ack(None, lambda answer: answer)
        return self._send(self._update_of(change), lambda answer: cast(config.SessionResource, answer.session))

    def _update_of(self, change: config.SessionConfig) -> ev.SessionUpdate:
        """The event for a change, with all tools, as the API knows no adding."""
        if isinstance(change, config.RealtimeSession):
            tools = (*self._stated_tools, *self._tools.definitions)
            is_said = change.tools is not UNSET or change == config.RealtimeSession() or not self._caller.is_connected
            if tools or is_said:
                change = structs.replace(change, tools=tools)
        return ev.SessionUpdate(event_id=self._new_id("event"), session=change)

    def _configure_silently(self, change: config.SessionConfig) -> None:
        before = self._configuration
        self._configuration = change if before is None else merged(before, change)

    def _interrupt(self, heard: Heard | None) -> None:
        if self._life is not None and self._life.ended is None:
            self._life.hands.handle(Interrupt(heard))

    async def _room(self) -> None:
        if self._life is not None:
            await self._life.outgoing.room()

    @property
    def _pends(self) -> bool:
        return self._caller.ear.has_audio and turn_detection(self.session) is None

    @property
    def _input_format(self) -> Format:
        return self._caller.ear.format if self.session is not None else PCM16_24K

    def hear(self, event: ServerMessage) -> None:
        """Take an event as if the server had sent it: what a bridge knows and the server does not, as a pressed key."""
        if self._life is not None and self._life.ended is None:
            self._life.hands.take(event)

    # --- fed by its life ----------------------------------------------------------------------------------------------

    def heard(self, event: ServerMessage) -> None:
        """The server has said something."""
        self._audience.heard(event)
        if type(event) in COUNTED:
            self._count(event)

    @property
    def heard_speech(self) -> Callable[[ServerMessage], None]:
        """The short way for the pieces of speech, which cost nothing by themselves."""
        return self._audience.heard

    def _count(self, event: ServerMessage) -> None:
        """What it costs; a budget that is spent ends the session, and one that is not kept any more is told of."""
        if self._meter is None:
            return
        self._meter.take(event)
        if self._is_budget_kept and (problem := self._meter.problem) is not None:
            self._is_budget_kept = False
            self.told(Failed(ev.ErrorDetail(type="vivavoce", code="budget_unknown", message=problem)))
        if self._meter.is_exhausted and self._over is None and self._life is not None:
            self._over = BudgetExceeded(self._meter.cost, self._meter.budget or 0.0)
            self.told(Failed(ev.ErrorDetail(type="vivavoce", code="budget_exceeded", message=str(self._over))))
            self._ending = asyncio.get_running_loop().create_task(self._life.close())

    def told(self, update: Update) -> None:
        """Something has changed."""
        self._audience.told(update)

    def sent(self, event: ev.AnyClientEvent) -> None:
        """An event goes out."""
        self._audience.sent(event)

    def runs(self, effect: RunTool | CancelTool) -> None:
        """A tool is to be run, or to be ended."""
        if isinstance(effect, RunTool):
            self._tools.run(effect, self._tool_ended)
        else:
            self._tools.interrupt(effect)

    def _tool_ended(self, ended: ToolEnded) -> None:
        if self._life is not None and self._life.ended is None:
            self._life.hands.handle(ended)

    def changed(self, what: str, **details: Any) -> None:
        """The connection: `lost`, `resumed`, `restored`, `renewed`, `closed`."""
        if self._options.tape is not None:
            self._options.tape.note(what, **details)
        self._audience.changed(what, details)

    def ended(self, closed: ConnectionClosed) -> None:
        """The session is over."""
        if self._over is None and closed.code not in NORMAL_CODES:
            self.told(Failed(ev.ErrorDetail(type="vivavoce", code="connection_lost", message=str(closed))))
        self.changed("closed", code=closed.code, reason=closed.reason)
        self._audience.end(closed, self._over)

    @property
    def is_behind(self) -> bool:
        """Whether the application is too far behind for more events."""
        return self._audience.is_behind

    async def hold(self) -> None:
        """Wait while it is."""
        await self._audience.hold()


COUNTED = frozenset(
    {
        ev.SessionCreated,
        ev.SessionUpdated,
        ev.ResponseDone,
        ev.ConversationItemInputAudioTranscriptionCompleted,
    }
)
"""Events that say what was used."""


def _check_budget(meter: Meter) -> None:
    """Better no session than one whose budget cannot be kept."""
    if meter.problem is not None:
        raise LocalProtocolError(meter.problem)


def _name_of(tool: config.Tool) -> str:
    """What a tool is called; the label of an MCP server."""
    return tool.name if isinstance(tool, config.FunctionTool) else tool.server_label
