"""One response from `response.created` to `response.done`: its items, their order, its end (reference §4.3, §4.4).

Fed by the engines' reports; emits events and asks for speech. Items come one after another: while a message is still
being spoken, what the model does next waits. Invariant: everything that was added is done, exactly once, whatever the
outcome; nothing is emitted after `response.done`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypedDict

from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET
from vivavoce.protocol.items import (
    AudioOutputResource,
    Content,
    FunctionCall,
    Item,
    ItemStatus,
    McpApprovalRequest,
    McpCall,
    Message,
    OutputAudio,
    OutputText,
    Response,
    ResponseAudioResource,
    ResponseError,
    ResponseStatus,
    StatusDetails,
    Usage,
)

from .configuration import voice_name
from .desk import Desk
from .messages import (
    CallArguments,
    CallMcpTool,
    CallStarted,
    Cancel,
    GenerationEnded,
    McpCallEnded,
    Speak,
    TextGenerated,
)
from .phrases import Phrases
from .spoken import CHAR_MS, Said
from .terms import Terms
from .tools import Offer, Target, broken_off, outcome
from .usage import Asked, usage_of

Report = TextGenerated | CallStarted | CallArguments | GenerationEnded
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why a response is incomplete, by how the language model ended."""


class Position(TypedDict):
    """Where in a response an event belongs."""

    response_id: str
    item_id: str
    output_index: int
    content_index: int


@dataclass(slots=True)
class OpenMessage:
    """The assistant message being written."""

    id: str
    text: list[str] = field(default_factory=list)
    phrases: Phrases = field(default_factory=Phrases)
    asked: list[str] = field(default_factory=list)
    """Phrases that were given to the synthesizer, in order."""
    spoken: Said = field(default_factory=list)
    """Phrases that have been delivered."""
    audio_bytes: int = 0


@dataclass(slots=True)
class OpenCall:
    """The function call being written."""

    id: str
    call_id: str
    name: str
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class OpenMcpCall:
    """The call of an MCP server's tool: being written, then running. With approval it is only asked for."""

    id: str
    target: Target
    arguments: list[str] = field(default_factory=list)
    is_running: bool = False


class RunningResponse:
    """A response that is not done."""

    def __init__(
        self,
        id: str,
        terms: Terms,
        desk: Desk,
        *,
        ask_approval: Callable[[str, Target, str], None],
        done: Callable[[RunningResponse, Usage], None],
        is_automatic: bool,
        message_id: str | None = None,
    ) -> None:
        self.id = id
        self.terms = terms
        self.done = False
        self.is_automatic = is_automatic
        """Whether a turn's end asked for it, and no client."""
        self.generating = False
        """Whether the language model was asked; before, the response waits for transcripts."""
        self.heard_at_ms = desk.now_ms()
        """When an engine was last heard of, in wall time."""
        self.own_audio_ids: tuple[str, ...] = ()
        """Items with audio that came with the request: nobody else knows them, so they end with it."""
        self.offer = Offer()
        """What can be called; settled when the language model is asked."""
        self.asked = Asked()
        """What the language model was asked, in tokens."""
        self.chars = 0
        self._message_id = message_id
        """The id of the first message, where it has one already."""
        self._desk = desk
        self._ask_approval = ask_approval
        self._tell_done = done
        self._output: list[Item] = []
        self._open: OpenMessage | OpenCall | OpenMcpCall | None = None
        self._waiting: deque[Report] = deque()
        self._written: list[str] = []
        self._ended: GenerationEnded | None = None
        self._audio_bytes = 0
        self.is_mute = False
        """Whether there is no more speech of it: the rest is its text."""

    # --- begin and end ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """`response.created`."""
        self._desk.send(ev.ResponseCreated(response=self._resource("in_progress", None)))

    def cancel(self, reason: str) -> None:
        """End it from outside: `turn_detected` or `client_cancelled`."""
        self._end("cancelled", StatusDetails(type="cancelled", reason=reason))

    def fail(self, code: str, message: str, type: str = "server_error") -> None:
        """End it because an engine could not go on."""
        error = ResponseError(type=type, code=code, message=message)
        self._end("failed", StatusDetails(type="failed", error=error))

    def complete(self) -> None:
        """End it with what there is."""
        self._end("completed", None)

    def _end(self, status: ResponseStatus, details: StatusDetails | None) -> None:
        self._close("completed" if status == "completed" else "incomplete")
        self.done = True
        self._waiting.clear()
        usage = self._usage(is_failed=status == "failed")
        self._desk.send(ev.ResponseDone(response=self._resource(status, details, usage)))
        self._tell_done(self, usage)

    def _resource(self, status: ResponseStatus, details: StatusDetails | None, usage: Usage | None = None) -> Response:
        terms = self.terms
        return Response(
            id=self.id,
            status=status,
            status_details=details,
            output=tuple(self._output),
            conversation_id=self._desk.conversation_id if terms.in_conversation else None,
            output_modalities=("audio",) if terms.with_audio else ("text",),
            max_output_tokens=terms.max_output_tokens,
            audio=ResponseAudioResource(
                output=AudioOutputResource(format=terms.audio_format, voice=voice_name(terms.voice))
            ),
            usage=usage,
            metadata=terms.metadata,
            temperature=UNSET if terms.temperature is None else terms.temperature,
        )

    @property
    def open_item_id(self) -> str | None:
        """The item that is being written, or called."""
        return None if self._open is None else self._open.id

    @property
    def audio_ms(self) -> int:
        """How much was spoken."""
        return self.terms.format.ms(self._audio_bytes // self.terms.format.sample_bytes)

    def _usage(self, *, is_failed: bool) -> Usage:
        asked = Asked() if is_failed and not self._written else self.asked  # what came to nothing is not counted (T22)
        return usage_of(asked, self._ended, "".join(self._written), self.audio_ms, self._desk.abilities.count_tokens)

    # --- what the language model says ---------------------------------------------------------------------------------

    def take(self, report: Report) -> None:
        """One report of the language model; waits its turn while an earlier message is being spoken."""
        if isinstance(report, TextGenerated | CallArguments) and not report.text:
            return  # it would end what is open, and say nothing
        self._waiting.append(report)
        self._proceed()

    def _proceed(self) -> None:
        while self._waiting and not self.done:
            if self._must_wait_for(self._waiting[0]):
                return
            self._write(self._waiting.popleft())

    def _must_wait_for(self, report: Report) -> bool:
        """Whether what the model did next comes before its time: the open item has something to be waited for."""
        match self._open:
            case OpenMessage() as message if not isinstance(report, TextGenerated | CallArguments):
                return self._is_speaking(message)
            case OpenMcpCall() as call if not isinstance(report, CallArguments) and not call.target.needs_approval:
                if not call.is_running and not (isinstance(report, GenerationEnded) and report.reason != "stop"):
                    self._run_mcp_call(call)
                return call.is_running
            case _:
                return False

    def _is_speaking(self, message: OpenMessage) -> bool:
        """Whether the message still has speech to come; its text is complete, so the last phrase is asked for."""
        if not self.terms.with_audio or self.is_mute:
            return False
        self._ask_for(message, message.phrases.flush())
        return len(message.spoken) < len(message.asked)

    def _write(self, report: Report) -> None:
        match report:
            case TextGenerated():
                self._written.append(report.text)
                self._write_text(report.text)
            case CallStarted():
                self._written.append(report.name)
                self._close("completed")
                self._open_call(report.name)
            case CallArguments():
                self._written.append(report.text)
                self._write_arguments(report.text)
            case GenerationEnded():
                self._ended = report
                if report.reason == "stop":
                    self._end("completed", None)
                else:
                    self._end("incomplete", StatusDetails(type="incomplete", reason=INCOMPLETE[report.reason]))

    def _write_text(self, text: str) -> None:
        message = self._open if isinstance(self._open, OpenMessage) else self._open_message()
        message.text.append(text)
        position = self._position(message.id)
        if not self.terms.with_audio:
            self._desk.send(ev.ResponseOutputTextDelta(**position, delta=text))
            return
        self._desk.send(ev.ResponseOutputAudioTranscriptDelta(**position, delta=text))
        for phrase in message.phrases.push(text):
            self._ask_for(message, phrase)

    def _write_arguments(self, text: str) -> None:
        if not isinstance(call := self._open, OpenCall | OpenMcpCall):
            return
        call.arguments.append(text)
        index = len(self._output)
        if isinstance(call, OpenCall):
            self._desk.send(
                ev.ResponseFunctionCallArgumentsDelta(
                    response_id=self.id, item_id=call.id, output_index=index, call_id=call.call_id, delta=text
                )
            )
        elif not call.target.needs_approval:
            self._desk.send(
                ev.ResponseMcpCallArgumentsDelta(response_id=self.id, item_id=call.id, output_index=index, delta=text)
            )

    def _ask_for(self, message: OpenMessage, phrase: str) -> None:
        if not phrase.strip() or self.is_mute:
            return
        number = len(message.asked)
        message.asked.append(phrase)
        self._desk.ask(speak(self.terms, self.id, message.id, number, phrase))

    # --- what the synthesizer says ------------------------------------------------------------------------------------

    def take_audio(self, item_id: str, audio: bytes) -> None:
        """Speech of the open message."""
        message = self._open
        if self.is_mute or not audio or not isinstance(message, OpenMessage) or message.id != item_id:
            return
        message.audio_bytes += len(audio)
        self._audio_bytes += len(audio)
        self._desk.send(
            ev.ResponseOutputAudioDelta(
                response_id=self.id, item_id=item_id, output_index=len(self._output), content_index=0, delta=audio
            )
        )

    def phrase_spoken(self, item_id: str, phrase: int) -> None:
        """All speech of a phrase is there; the last one may be what the next item waits for."""
        message = self._open
        if self.is_mute or not isinstance(message, OpenMessage) or message.id != item_id:
            return
        if not phrase == len(message.spoken) < len(message.asked):
            return
        message.spoken.append((message.asked[phrase], message.audio_bytes))
        self._proceed()

    def hush(self, failed: int = 0) -> None:
        """Nobody wants to hear the rest: what is being made of it stops, and the answer goes on as text.

        `failed`: phrases that the synthesizer has given up by itself.
        """
        if isinstance(message := self._open, OpenMessage) and len(message.spoken) + failed < len(message.asked):
            self._desk.ask(Cancel(message.id))
        self.is_mute = True
        self._proceed()

    def _half_spoken(self, message: OpenMessage) -> Said:
        """The phrase that was cut off, with the end that it would have had at an ordinary speed of speech."""
        before = message.spoken[-1][1] if message.spoken else 0
        if len(message.spoken) == len(message.asked) or message.audio_bytes == before:
            return []
        text = message.asked[len(message.spoken)]
        return [(text, max(before + self.terms.format.bytes_of(len(text) * CHAR_MS), message.audio_bytes))]

    # --- items --------------------------------------------------------------------------------------------------------

    def _position(self, item_id: str) -> Position:
        return {"response_id": self.id, "item_id": item_id, "output_index": len(self._output), "content_index": 0}

    def _add(self, item: Item, item_id: str) -> None:
        previous = self._desk.conversation.last_item_id
        self._desk.send(ev.ResponseOutputItemAdded(response_id=self.id, output_index=len(self._output), item=item))
        if self.terms.in_conversation:
            self._desk.send(ev.ConversationItemAdded(item=item, previous_item_id=previous))

    def _finish(self, item: Item, item_id: str) -> None:
        if self.terms.in_conversation:
            previous = self._desk.conversation.previous_item_id(item_id)
            self._desk.send(ev.ConversationItemDone(item=item, previous_item_id=previous))
        self._desk.send(ev.ResponseOutputItemDone(response_id=self.id, output_index=len(self._output), item=item))
        self._output.append(item)
        self._open = None

    def _open_message(self) -> OpenMessage:
        self._close("completed")
        message = self._open = OpenMessage(self._message_id or self._desk.new_id("item"))
        self._message_id = None
        self._add(_message(message.id, "in_progress"), message.id)
        part = ev.ContentPart(type="audio", transcript="") if self.terms.with_audio else _text_part("")
        self._desk.send(ev.ResponseContentPartAdded(**self._position(message.id), part=part))
        return message

    def _open_call(self, name: str) -> None:
        if (target := self.offer.targets.get(name)) is not None:
            self._open = OpenMcpCall(self._desk.new_id("mcpr" if target.needs_approval else "mcp"), target)
            if not target.needs_approval:
                self._add(_mcp_call(self._open), self._open.id)
            return
        call = self._open = OpenCall(self._desk.new_id("item"), self._desk.new_id("call"), name)
        self._add(_call(call, "in_progress"), call.id)

    def _close(self, status: ItemStatus) -> None:
        match self._open:
            case OpenMessage() as message:
                self._close_message(message, status)
            case OpenCall() as call:
                self._desk.send(
                    ev.ResponseFunctionCallArgumentsDone(
                        response_id=self.id,
                        item_id=call.id,
                        output_index=len(self._output),
                        call_id=call.call_id,
                        arguments="".join(call.arguments),
                        name=call.name,
                    )
                )
                self._finish(_call(call, status), call.id)
            case OpenMcpCall() as call if call.target.needs_approval:
                self._close_approval(call, status)
            case OpenMcpCall() as call:
                self._break_off_mcp_call(call)
            case None:
                pass

    # --- calls of MCP servers (T17) -----------------------------------------------------------------------------------

    def _close_approval(self, call: OpenMcpCall, status: ItemStatus) -> None:
        """The user is asked once the arguments are complete; for half a call nobody is asked."""
        self._open = None
        if status != "completed":
            return
        arguments = "".join(call.arguments)
        item = McpApprovalRequest(
            id=call.id, server_label=call.target.server.server_label, name=call.target.name, arguments=arguments
        )
        self._add(item, call.id)
        self._ask_approval(call.id, call.target, arguments)
        self._finish(item, call.id)

    def _run_mcp_call(self, call: OpenMcpCall) -> None:
        """Its arguments are complete; the response goes on when the server has answered."""
        call.is_running = True
        target, arguments = call.target, "".join(call.arguments)
        self._end_mcp_arguments(call)
        self._desk.send(ev.ResponseMcpCallInProgress(item_id=call.id, output_index=len(self._output)))
        self._desk.ask(CallMcpTool(self.id, call.id, target.server, target.name, arguments))

    def is_calling(self, item_id: str) -> bool:
        """Whether this item is the call that an MCP server is to answer now."""
        return isinstance(call := self._open, OpenMcpCall) and call.id == item_id and call.is_running

    def mcp_call_ended(self, report: McpCallEnded) -> None:
        """The MCP server answered the call that runs, or failed."""
        call = self._open
        assert isinstance(call, OpenMcpCall)
        self._finish_mcp_call(call, outcome(_mcp_call(call), report), is_failed=report.error is not None)
        self._proceed()

    def _break_off_mcp_call(self, call: OpenMcpCall) -> None:
        if not call.is_running:
            self._end_mcp_arguments(call)
        self._finish_mcp_call(call, broken_off(_mcp_call(call)), is_failed=True)

    def _end_mcp_arguments(self, call: OpenMcpCall) -> None:
        self._desk.send(
            ev.ResponseMcpCallArgumentsDone(
                response_id=self.id,
                item_id=call.id,
                output_index=len(self._output),
                arguments="".join(call.arguments),
            )
        )

    def _finish_mcp_call(self, call: OpenMcpCall, item: McpCall, *, is_failed: bool) -> None:
        kind = ev.ResponseMcpCallFailed if is_failed else ev.ResponseMcpCallCompleted
        self._desk.send(kind(item_id=call.id, output_index=len(self._output)))
        self._finish(item, call.id)

    def _close_message(self, message: OpenMessage, status: ItemStatus) -> None:
        text, position = "".join(message.text), self._position(message.id)
        content: Content
        if self.terms.with_audio:
            # What a client cut off while it was being spoken has no transcript any more (§3.11).
            entry = self._desk.conversation.entry(message.id)
            kept = "" if entry is not None and entry.truncated else text
            content, part = OutputAudio(transcript=kept), ev.ContentPart(type="audio", transcript=text)
            if self.terms.in_conversation:
                self._desk.said[message.id] = [*message.spoken, *self._half_spoken(message)]
            self._desk.send(ev.ResponseOutputAudioDone(**position))
            self._desk.send(ev.ResponseOutputAudioTranscriptDone(**position, transcript=text))
        else:
            content, part = OutputText(text=text), _text_part(text)
            self._desk.send(ev.ResponseOutputTextDone(**position, text=text))
        self._desk.send(ev.ResponseContentPartDone(**position, part=part))
        self._finish(_message(message.id, status, content), message.id)


def speak(terms: Terms, response_id: str, item_id: str, number: int, phrase: str) -> Speak:
    """What the synthesizer is asked for a phrase."""
    return Speak(response_id, item_id, number, phrase, voice_name(terms.voice), terms.speed, terms.format)


def _text_part(text: str) -> ev.ContentPart:
    return ev.ContentPart(type="text", text=text)


def _message(item_id: str, status: ItemStatus, *content: Content) -> Message:
    return Message(id=item_id, object="realtime.item", status=status, role="assistant", content=content)


def _mcp_call(call: OpenMcpCall) -> McpCall:
    return McpCall(
        id=call.id,
        server_label=call.target.server.server_label,
        name=call.target.name,
        arguments="".join(call.arguments),
    )


def _call(call: OpenCall, status: ItemStatus) -> FunctionCall:
    return FunctionCall(
        id=call.id,
        object="realtime.item",
        status=status,
        call_id=call.call_id,
        name=call.name,
        arguments="".join(call.arguments),
    )
