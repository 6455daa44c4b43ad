"""Dialogues with a caller: inputs in, effects out as short lines, so that a test reads as what was said."""

from __future__ import annotations

from vivavoce.core.caller import Caller, CallerLimits
from vivavoce.core.caller.messages import (
    Acknowledge,
    Ask,
    CallerEffect,
    CallerInput,
    CancelTool,
    Connected,
    Play,
    Refuse,
    RunTool,
    StopPlayback,
    Tell,
    Transmit,
    WakeUp,
)
from vivavoce.core.caller.updates import Failed, Interrupted, ResponseLost, ResponseReplaced, Update
from vivavoce.core.conversation import Conversation
from vivavoce.protocol import config as cfg
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET, given
from vivavoce.protocol.items import FunctionCall, Item, Message, OutputAudio, Response, ResponseStatus
from vivavoce.testing.playbook import counting_ids

SERVER_VAD = cfg.ServerVad()


def line_of(effect: CallerEffect) -> str:
    """An effect in a few words."""
    match effect:
        case Transmit(event=event):
            subject = getattr(event, "item_id", None) or getattr(getattr(event, "item", None), "id", None)
            subject = subject or given(getattr(event, "response_id", UNSET), None)
            return f"send {event.type}" + (f" {subject}" if subject else "")
        case Acknowledge(ticket=ticket, event=event):
            return f"ack {ticket}" + (f" {event.type}" if event is not None else "")
        case Refuse(ticket=ticket, error=error):
            return f"refuse {ticket} {error.code}"
        case RunTool(call_id=call_id):
            return f"run {call_id}"
        case CancelTool(call_id=call_id):
            return f"end {call_id}"
        case Play(item_id=item_id, audio=audio):
            return f"play {item_id} {len(audio)}"
        case StopPlayback():
            return "stop"
        case Tell(update=update):
            return f"tell {said_of(update)}"


def said_of(update: Update) -> str:
    match update:
        case Failed():
            return f"error {update.error.code}"
        case Interrupted():
            return " ".join(("interrupted", *(f"{one.item_id}:{one.samples}" for one in update.heard)))
        case ResponseLost():
            return f"lost {update.response_id}" + (" again" if update.is_asked_again else "")
        case ResponseReplaced():
            return f"replaced {update.lost_id} {update.response_id}"
        case _:
            delta = getattr(update, "delta", None)
            fields = ("text", "audio", "transcript", "arguments")
            names = [name for name in fields if getattr(delta, name, None) is not None]
            return " ".join((update.type.removeprefix("conversation."), update.item.id, *names))


class Dialogue:
    """A caller that is connected to nobody but the test."""

    def __init__(
        self,
        *,
        detection: cfg.TurnDetection | None = None,
        tools: tuple[str, ...] = ("look",),
        plays: bool = False,
        server_plays: bool = False,
        limits: CallerLimits | None = None,
        text_fallback: bool = True,
        connected: bool = True,
    ) -> None:
        self.now_ms = 0
        self.effects: list[CallerEffect] = []
        self.tickets = 0
        self.caller = Caller(
            ids=counting_ids(),
            runs=tools.__contains__,
            plays=plays,
            server_plays=server_plays,
            text_fallback=text_fallback,
            limits=limits,
        )
        self.say(ev.SessionCreated(session=session(detection)))
        if connected:
            self.say(Connected())

    def say(self, *inputs: CallerInput) -> list[str]:
        """Give it inputs; what it wants, in order."""
        self.effects = [effect for input in inputs for effect in self.caller.handle(input, self.now_ms)]
        return [line_of(effect) for effect in self.effects]

    def ask(self, *events: ev.AnyClientEvent) -> list[str]:
        """The application sends events, each under the next ticket."""
        asks = []
        for event in events:
            self.tickets += 1
            asks.append(Ask(event, self.tickets))
        return self.say(*asks)

    def sent(self) -> list[ev.AnyClientEvent]:
        """The events of the last `say`."""
        return [effect.event for effect in self.effects if isinstance(effect, Transmit)]

    def after(self, ms: int) -> list[str]:
        """Let time pass, with the wake-ups that fall into it."""
        lines, effects, target = [], [], self.now_ms + ms
        while (due := self.caller.deadline()) is not None and due <= target:
            self.now_ms = max(self.now_ms, due)
            lines += self.say(WakeUp())
            effects += self.effects
        self.now_ms, self.effects = target, effects
        return lines


def session(detection: cfg.TurnDetection | None = None, **input: object) -> cfg.RealtimeSessionResource:
    """A configuration, as a server states it."""
    audio = cfg.AudioConfig(input=cfg.AudioInput(turn_detection=detection, **input))  # type: ignore[arg-type]
    return cfg.RealtimeSessionResource(id="sess_1", audio=audio)


def create(number: int = 1, **params: object) -> ev.ResponseCreate:
    response = ev.ResponseParams(**params) if params else UNSET  # type: ignore[arg-type]
    return ev.ResponseCreate(event_id=f"ask_{number}", response=response)


def aside(number: int = 1) -> ev.ResponseCreate:
    return create(number, conversation="none")


def response(
    id: str = "resp_1",
    status: ResponseStatus = "in_progress",
    *output: Item,
    conversation_id: str | None = "conv_1",
    tag: str | None = None,
    modality: str = "audio",
) -> Response:
    return Response(
        id=id,
        status=status,
        output=output,
        conversation_id=conversation_id,
        metadata=None if tag is None else {"vivavoce_request": tag},
        output_modalities=(modality,),  # type: ignore[arg-type]
    )


def created(id: str = "resp_1", **fields: object) -> ev.ResponseCreated:
    return ev.ResponseCreated(response=response(id, **fields))  # type: ignore[arg-type]


def done(id: str = "resp_1", status: ResponseStatus = "completed", *output: Item, **fields: object) -> ev.ResponseDone:
    return ev.ResponseDone(response=response(id, status, *output, **fields))  # type: ignore[arg-type]


def call(number: int = 1, name: str = "look", status: str = "completed", arguments: str = "{}") -> FunctionCall:
    return FunctionCall(
        id=f"fc_{number}",
        call_id=f"call_{number}",
        name=name,
        arguments=arguments,
        status=status,  # type: ignore[arg-type]
    )


def item_done(item: Item, response_id: str = "resp_1") -> ev.ResponseOutputItemDone:
    return ev.ResponseOutputItemDone(response_id=response_id, output_index=0, item=item)


def added(item: Item) -> ev.ConversationItemAdded:
    return ev.ConversationItemAdded(item=item, previous_item_id=UNSET)


def error(code: str, event_id: str | None = None) -> ev.ErrorEvent:
    return ev.ErrorEvent(
        error=ev.ErrorDetail(type="invalid_request_error", code=code, message="No.", event_id=event_id)
    )


def spoken(
    item_id: str = "item_1", response_id: str = "resp_1", audio: bytes = bytes(48_000)
) -> list[ev.AnyServerEvent]:
    """An answer under way: what a GA server says until a second of it has come."""
    position = {"response_id": response_id, "item_id": item_id, "output_index": 0, "content_index": 0}
    message = Message(id=item_id, role="assistant", status="in_progress", content=())
    return [
        ev.ResponseOutputItemAdded(response_id=response_id, output_index=0, item=message),
        added(message),
        ev.ResponseContentPartAdded(**position, part=ev.ContentPart(type="audio", transcript="")),  # type: ignore[arg-type]
        ev.ResponseOutputAudioTranscriptDelta(**position, delta="one two three fo"),  # type: ignore[arg-type]
        ev.ResponseOutputAudioDelta(**position, delta=audio),  # type: ignore[arg-type]
    ]


def said(item_id: str = "item_1", text: str = "one two three fo", status: str = "completed") -> Message:
    """The same answer at its end."""
    return Message(
        id=item_id,
        role="assistant",
        status=status,  # type: ignore[arg-type]
        content=(OutputAudio(transcript=text),),
    )


def delta(item_id: str = "item_1", response_id: str = "resp_1", ms: int = 20) -> ev.ResponseOutputAudioDelta:
    return ev.ResponseOutputAudioDelta(
        response_id=response_id, item_id=item_id, output_index=0, content_index=0, delta=bytes(48 * ms)
    )


def started(item_id: str = "turn_1", at_ms: int = 0) -> ev.InputAudioBufferSpeechStarted:
    return ev.InputAudioBufferSpeechStarted(item_id=item_id, audio_start_ms=at_ms)


def stopped(item_id: str = "turn_1", at_ms: int = 0) -> ev.InputAudioBufferSpeechStopped:
    return ev.InputAudioBufferSpeechStopped(item_id=item_id, audio_end_ms=at_ms)


def committed(item_id: str = "turn_1") -> ev.InputAudioBufferCommitted:
    return ev.InputAudioBufferCommitted(item_id=item_id, previous_item_id=None)


def append(ms: int, value: int = 0) -> ev.InputAudioBufferAppend:
    return ev.InputAudioBufferAppend(event_id="append", audio=bytes((value,)) * (48 * ms))


def conversation_of(*items: Item, detection: cfg.TurnDetection | None = None) -> Conversation:
    """What another session has been told."""
    conversation = Conversation()
    conversation.apply(ev.SessionCreated(session=session(detection)))
    for item in items:
        conversation.apply(added(item))
    return conversation
