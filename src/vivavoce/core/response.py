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
from vivavoce.protocol.items import (
    AudioOutputResource,
    Content,
    FunctionCall,
    InputTokenDetails,
    Item,
    ItemStatus,
    Message,
    OutputAudio,
    OutputText,
    OutputTokenDetails,
    Response,
    ResponseAudioResource,
    ResponseError,
    ResponseStatus,
    StatusDetails,
    Usage,
)

from .configuration import voice_name
from .messages import CallArguments, CallStarted, Effect, GenerationEnded, Speak, TextGenerated
from .phrases import Phrases
from .terms import Terms

Report = TextGenerated | CallStarted | CallArguments | GenerationEnded

AUDIO_TOKEN_MS = 50
"""Assistant audio counts one token for this much (reference §6.3)."""
CHAR_MS = 65
"""Speech lasts about this long per character; used only for a phrase that was cut off."""


Said = list[tuple[str, int]]
"""The phrases of a message, and how many bytes of its audio there are at the end of each."""


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


def heard(said: Said, audio_bytes: int) -> str:
    """The words of a message that lie before `audio_bytes`, whole words, by the share of their phrase."""
    words, begin = "", 0
    for text, end in said:
        if end > audio_bytes:
            share = text[: len(text) * max(audio_bytes - begin, 0) // max(end - begin, 1)]
            return words + (share[: share.rfind(" ") + 1] if " " in share else "")
        words, begin = words + text, end
    return words


@dataclass(frozen=True, slots=True)
class Outlet:
    """The machine's hands, lent to a response: everything that it may do outside itself."""

    send: Callable[[ev.AnyServerEvent], None]
    ask: Callable[[Effect], None]
    new_id: Callable[[str], str]
    previous_item_id: Callable[[str], str | None]
    last_item_id: Callable[[], str | None]
    said: dict[str, Said]
    """Filled for every message that is spoken: what a later truncation needs to tell what was heard."""


class RunningResponse:
    """A response that is not done."""

    def __init__(
        self, id: str, terms: Terms, conversation_id: str, outlet: Outlet, *, is_automatic: bool, now_ms: int
    ) -> None:
        self.id = id
        self.terms = terms
        self.done = False
        self.is_automatic = is_automatic
        """Whether a turn's end asked for it, and no client."""
        self.generating = False
        """Whether the language model was asked; before, the response waits for transcripts."""
        self.heard_at_ms = now_ms
        """When an engine was last heard of, in wall time."""
        self.own_audio_ids: tuple[str, ...] = ()
        """Items with audio that came with the request: nobody else knows them, so they end with it."""
        self.chars = 0
        self._outlet = outlet
        self._conversation_id = conversation_id if terms.in_conversation else None
        self._output: list[Item] = []
        self._open: OpenMessage | OpenCall | None = None
        self._waiting: deque[Report] = deque()
        self._tokens = GenerationEnded(id, "stop")
        self._audio_bytes = 0
        self.input_audio_tokens = 0

    # --- begin and end ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """`response.created`."""
        self._outlet.send(ev.ResponseCreated(response=self._resource("in_progress", None)))

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
        self._outlet.send(ev.ResponseDone(response=self._resource(status, details)))

    def _resource(self, status: ResponseStatus, details: StatusDetails | None) -> Response:
        terms = self.terms
        return Response(
            id=self.id,
            status=status,
            status_details=details,
            output=tuple(self._output),
            conversation_id=self._conversation_id,
            output_modalities=("audio",) if terms.with_audio else ("text",),
            max_output_tokens=terms.max_output_tokens,
            audio=ResponseAudioResource(output=AudioOutputResource(format=terms.audio_format, voice=terms.voice)),
            usage=None if status == "in_progress" else self._usage(),
            metadata=terms.metadata,
        )

    def _usage(self) -> Usage:
        """Text as the language model counted it, audio by the API's rule (§6.3)."""
        samples = self._audio_bytes // self.terms.format.sample_bytes
        audio_out = -(-self.terms.format.ms(samples) // AUDIO_TOKEN_MS)
        text_in, text_out = self._tokens.input_tokens, self._tokens.output_tokens
        audio_in = self.input_audio_tokens if self.generating else 0
        return Usage(
            total_tokens=text_in + audio_in + text_out + audio_out,
            input_tokens=text_in + audio_in,
            output_tokens=text_out + audio_out,
            input_token_details=InputTokenDetails(
                text_tokens=text_in, audio_tokens=audio_in, image_tokens=0, cached_tokens=self._tokens.cached_tokens
            ),
            output_token_details=OutputTokenDetails(text_tokens=text_out, audio_tokens=audio_out),
        )

    # --- what the language model says ---------------------------------------------------------------------------------

    def take(self, report: Report) -> None:
        """One report of the language model; waits its turn while an earlier message is being spoken."""
        self._waiting.append(report)
        self._proceed()

    def _proceed(self) -> None:
        while self._waiting and not self.done:
            report = self._waiting[0]
            if not isinstance(report, TextGenerated | CallArguments) and self._is_speaking():
                return
            self._waiting.popleft()
            self._write(report)

    def _is_speaking(self) -> bool:
        """Whether the open message still has speech to come; its text is complete, so the last phrase is asked for."""
        match self._open:
            case OpenMessage() as message if self.terms.with_audio:
                self._ask_for(message, message.phrases.flush())
                return len(message.spoken) < len(message.asked)
            case _:
                return False

    def _write(self, report: Report) -> None:
        match report:
            case TextGenerated():
                self._write_text(report.text)
            case CallStarted():
                self._close("completed")
                self._open_call(report.name)
            case CallArguments():
                self._write_arguments(report.text)
            case GenerationEnded(reason="length"):
                self._tokens = report
                self._end("incomplete", StatusDetails(type="incomplete", reason="max_output_tokens"))
            case GenerationEnded():
                self._tokens = report
                self._end("completed", None)

    def _write_text(self, text: str) -> None:
        if not text:
            return
        message = self._open if isinstance(self._open, OpenMessage) else self._open_message()
        message.text.append(text)
        position = self._position(message.id)
        if not self.terms.with_audio:
            self._outlet.send(ev.ResponseOutputTextDelta(**position, delta=text))
            return
        self._outlet.send(ev.ResponseOutputAudioTranscriptDelta(**position, delta=text))
        for phrase in message.phrases.push(text):
            self._ask_for(message, phrase)

    def _write_arguments(self, text: str) -> None:
        if not isinstance(self._open, OpenCall) or not text:
            return
        call = self._open
        call.arguments.append(text)
        self._outlet.send(
            ev.ResponseFunctionCallArgumentsDelta(
                response_id=self.id,
                item_id=call.id,
                output_index=len(self._output),
                call_id=call.call_id,
                delta=text,
            )
        )

    def _ask_for(self, message: OpenMessage, phrase: str) -> None:
        if not phrase.strip():
            return
        number = len(message.asked)
        message.asked.append(phrase)
        terms = self.terms
        speak = Speak(self.id, message.id, number, phrase, voice_name(terms.voice), terms.speed, terms.format)
        self._outlet.ask(speak)

    # --- what the synthesizer says ------------------------------------------------------------------------------------

    def take_audio(self, item_id: str, audio: bytes) -> None:
        """Speech of the open message."""
        if not isinstance(self._open, OpenMessage) or self._open.id != item_id or not audio:
            return
        self._open.audio_bytes += len(audio)
        self._audio_bytes += len(audio)
        self._outlet.send(ev.ResponseOutputAudioDelta(**self._position(item_id), delta=audio))

    def phrase_spoken(self, item_id: str, phrase: int) -> None:
        """All speech of a phrase is there; the last one may be what the next item waits for."""
        message = self._open
        if not isinstance(message, OpenMessage) or message.id != item_id or phrase != len(message.spoken):
            return
        message.spoken.append((message.asked[phrase], message.audio_bytes))
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
        previous = self._outlet.last_item_id()
        self._outlet.send(ev.ResponseOutputItemAdded(response_id=self.id, output_index=len(self._output), item=item))
        if self.terms.in_conversation:
            self._outlet.send(ev.ConversationItemAdded(item=item, previous_item_id=previous))

    def _finish(self, item: Item, item_id: str) -> None:
        if self.terms.in_conversation:
            previous = self._outlet.previous_item_id(item_id)
            self._outlet.send(ev.ConversationItemDone(item=item, previous_item_id=previous))
        self._outlet.send(ev.ResponseOutputItemDone(response_id=self.id, output_index=len(self._output), item=item))
        self._output.append(item)
        self._open = None

    def _open_message(self) -> OpenMessage:
        self._close("completed")
        message = self._open = OpenMessage(self._outlet.new_id("item"))
        self._add(_message(message.id, "in_progress"), message.id)
        part = ev.ContentPart(type="audio", transcript="") if self.terms.with_audio else _text_part("")
        self._outlet.send(ev.ResponseContentPartAdded(**self._position(message.id), part=part))
        return message

    def _open_call(self, name: str) -> None:
        call = self._open = OpenCall(self._outlet.new_id("item"), self._outlet.new_id("call"), name)
        self._add(_call(call, "in_progress"), call.id)

    def _close(self, status: ItemStatus) -> None:
        match self._open:
            case OpenMessage() as message:
                self._close_message(message, status)
            case OpenCall() as call:
                self._outlet.send(
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
            case None:
                pass

    def _close_message(self, message: OpenMessage, status: ItemStatus) -> None:
        text, position = "".join(message.text), self._position(message.id)
        content: Content
        if self.terms.with_audio:
            content, part = OutputAudio(transcript=text), ev.ContentPart(type="audio", transcript=text)
            if self.terms.in_conversation:
                self._outlet.said[message.id] = [*message.spoken, *self._half_spoken(message)]
            self._outlet.send(ev.ResponseOutputAudioDone(**position))
            self._outlet.send(ev.ResponseOutputAudioTranscriptDone(**position, transcript=text))
        else:
            content, part = OutputText(text=text), _text_part(text)
            self._outlet.send(ev.ResponseOutputTextDone(**position, text=text))
        self._outlet.send(ev.ResponseContentPartDone(**position, part=part))
        self._finish(_message(message.id, status, content), message.id)


def _text_part(text: str) -> ev.ContentPart:
    return ev.ContentPart(type="text", text=text)


def _message(item_id: str, status: ItemStatus, *content: Content) -> Message:
    return Message(id=item_id, object="realtime.item", status=status, role="assistant", content=content)


def _call(call: OpenCall, status: ItemStatus) -> FunctionCall:
    return FunctionCall(
        id=call.id,
        object="realtime.item",
        status=status,
        call_id=call.call_id,
        name=call.name,
        arguments="".join(call.arguments),
    )
