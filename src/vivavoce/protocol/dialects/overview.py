"""The vocabulary of the overview page as a dialect of servers, chosen by `?dialect=overview`. Reference row A6.

The page shows eight names and three pieces of JavaScript; those work as they are. What it leaves open, decided here:

- Every message is `{type, event_id, data}`. What the page has no word for goes by its name in beta, its fields in
  `data`: a client hears of `input_audio_buffer.speech_started`, and may send `response.create` or `response.cancel`.
- `conversation.create` takes the settings of a beta session. The first change of the session, by this event or by
  `available_functions.create`, is answered with `conversation.created`, later ones with `conversation.updated`.
- `content_block.delta` is each increment of what the assistant writes or says, `text` the whole passage once it is
  complete: who follows either has everything, nobody has it twice. `audio` has the samples themselves as its `data`.
- `text` from a client is a message of the user and asks for an answer, which is refused while another is under way,
  as it is everywhere; `conversation.item.create` asks for none.
- `function.call` comes when the response can say no more: the last one takes the place of its `response.done`, so that
  `function.response` may ask for the next response at once. That is what the answer to the last open call does.
- An error of a function is told to the model as `{"error": content}`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, get_args

import msgspec

from vivavoce.protocol import config, items
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import given
from vivavoce.protocol.events import AnyClientEvent, ErrorDetail
from vivavoce.protocol.ga import SERVER_STRUCTS, Ways, no_such_event, with_playback
from vivavoce.protocol.leniency import LENIENCIES_OF_OVERVIEW, reread
from vivavoce.protocol.shapes import tag
from vivavoce.protocol.violations import refusal
from vivavoce.protocol.walk import Json
from vivavoce.protocol.wire import decoder, encode

from . import beta_events as beta
from . import overview_events as schema
from .beta import GA_IN_BETA
from .beta_codec import BetaServer

CALLS_MAX: Final = 128
"""Calls without an answer that are remembered; of older ones each answer asks for a response of its own."""

_EVENTS: Final = get_args(schema.ClientEvent)
_OVERVIEW: Final = with_playback(
    _EVENTS,
    tuple(str(tag(event)) for event in _EVENTS if event is not ev.OutputAudioBufferClear),
    lambda: GA_IN_BETA,
    audio=(("data",), ("data", "audio")),
)
_DECODERS: Final = {playback: decoder(vocabulary.events) for playback, vocabulary in _OVERVIEW.items()}

# --- what a server says -----------------------------------------------------------------------------------------------

Words = Callable[[Any], Any]  # what an event says, as the `data` of a message; None where it is not worth a message


def _increment(event: Any) -> Json:
    return {"id": event.item_id, "text": event.delta}


def _passage(field: str) -> Words:
    def words(event: Any) -> Json | None:
        text = getattr(event, field)
        return {"id": event.item_id, "text": text} if text else None

    return words


def _samples(event: ev.ResponseOutputAudioDelta) -> bytes:
    return event.delta


# The page's words for what an assistant says.
_SPEECH: Final[dict[type[msgspec.Struct], tuple[str, Words]]] = {
    ev.ResponseOutputAudioDelta: ("audio", _samples),
    ev.ResponseOutputTextDelta: ("content_block.delta", _increment),
    ev.ResponseOutputAudioTranscriptDelta: ("content_block.delta", _increment),
    ev.ResponseOutputTextDone: ("text", _passage("text")),
    ev.ResponseOutputAudioTranscriptDone: ("text", _passage("transcript")),
}
# What these say is said by the page's events.
_UNSAID: Final = (
    ev.SessionCreated,
    ev.ResponseOutputItemAdded,
    ev.ResponseContentPartAdded,
    ev.ResponseContentPartDone,
    ev.ResponseOutputAudioDone,
    ev.ResponseFunctionCallArgumentsDelta,
    ev.ResponseFunctionCallArgumentsDone,
)
# The places of errors, which beta names by its own events.
_PLACES: Final = (("session.tools", "data.functions"), ("session.", "data."))


def _message(name: str, event: Any, data: Any) -> bytes:
    return encode({"type": name, "event_id": event.event_id, "data": data})


def _speech(name: str, words: Words) -> Callable[[Any], bytes | None]:
    def way(event: Any) -> bytes | None:
        said = words(event)
        return None if said is None else _message(name, event, said)

    return way


def _elsewhere(error: ErrorDetail, places: tuple[tuple[str, str], ...]) -> ErrorDetail:
    """The error with its place in the words of the page."""
    param = given(error.param, None) or ""
    for before, after in places:
        if param.startswith(before):
            named = after + param[len(before) :]
            return msgspec.structs.replace(
                error, param=named, message=error.message.replace(f"'{param}'", f"'{named}'")
            )
    return error


class OverviewServer:
    """What the overview dialect does with an event. Knows which calls are open, and whether there is a conversation."""

    def __init__(self, playback: bool) -> None:
        self._beta = BetaServer(playback)
        self.vocabulary = _OVERVIEW[playback]
        self.decoder = _DECODERS[playback]
        self._conversation_id: str | None = None
        self._is_created = False
        self._open_calls: dict[str, None] = {}
        self._call: items.FunctionCall | None = None  # the latest call, not told yet
        self.ways: Ways = (
            dict.fromkeys(SERVER_STRUCTS.values(), self._in_beta)
            | dict.fromkeys(_UNSAID, no_such_event)
            | {struct: _speech(*row) for struct, row in _SPEECH.items()}
            | {
                ev.ConversationCreated: self._note_conversation,
                ev.SessionUpdated: self._conversation,
                ev.ErrorEvent: self._error,
                ev.ResponseOutputItemDone: self._item_done,
                ev.ResponseDone: self._response_done,
            }
        )

    # --- what the client says -----------------------------------------------------------------------------------------

    def settle(self, event: Any, frame: str | bytes) -> AnyClientEvent | ErrorDetail | tuple[AnyClientEvent, ...]:
        if isinstance(event, ErrorDetail) and isinstance(frame, str):
            event = reread(event, frame, self.decoder, self.vocabulary, LENIENCIES_OF_OVERVIEW)
        match event:
            case schema.Audio(data=data):
                sound = data.audio if isinstance(data, schema.Sound) else data
                return ev.InputAudioBufferAppend(event_id=event.event_id, audio=sound)
            case schema.Text(data=data):
                text = data.text if isinstance(data, schema.Saying) else data
                message = items.Message(role="user", content=(items.InputText(text=text),))
                return self._add(event, message, is_answered=True)
            case schema.FunctionResponse(data=answer):
                self._open_calls.pop(answer.id, None)
                output = items.FunctionCallOutput(call_id=answer.id, output=_output(answer.response))
                return self._add(event, output, is_answered=not self._open_calls)
            case schema.AvailableFunctionsCreate(data=data):
                session = config.RealtimeSession(tools=tuple(_tool(function) for function in data.functions))
                return ev.SessionUpdate(event_id=event.event_id, session=session)
            case schema.ConversationCreate(data=data):
                update = beta.SessionUpdate(event_id=event.event_id, session=given(data, beta.Session()))
                return self._as_in_beta(update, (("session.", "data."),))
            case schema.ConversationItemCreate():
                return self._create(event)
        return self._as_in_beta(event)

    def _as_in_beta(self, event: Any, places: tuple[tuple[str, str], ...] = ()) -> AnyClientEvent | ErrorDetail:
        understood = self._beta.settle(event, b"")
        return _elsewhere(understood, places) if isinstance(understood, ErrorDetail) else understood

    def _create(self, event: schema.ConversationItemCreate) -> AnyClientEvent | ErrorDetail:
        entry, item, before = given(event.data, None), given(event.item, None), event.previous_item_id
        if entry is not None and item is not None:
            return refusal("unknown_parameter", "Unknown parameter: 'item'.", "item", event.event_id or None)
        if entry is not None:
            item, before = entry.item, entry.previous_item_id
        if item is None:
            said = "Missing required parameter: 'data.item'."
            return refusal("missing_required_parameter", said, "data.item", event.event_id or None)
        create = beta.ConversationItemCreate(event_id=event.event_id, item=item, previous_item_id=before)
        return self._as_in_beta(create, (("item", "data.item"),) if entry is not None else ())

    def _add(self, event: Any, item: items.Item, *, is_answered: bool) -> tuple[AnyClientEvent, ...]:
        create = ev.ConversationItemCreate(event_id=event.event_id, item=item)
        return (create, ev.ResponseCreate(event_id=event.event_id)) if is_answered else (create,)

    # --- what the server says -----------------------------------------------------------------------------------------

    def _in_beta(self, event: Any) -> bytes | None:
        """What the page has no word for: beta's, in an envelope."""
        way = self._beta.ways.get(type(event), encode)
        frame = way(event)
        if frame is None:
            return None
        fields: Json = msgspec.json.decode(frame)
        return _message(
            fields.pop("type"), event, {name: value for name, value in fields.items() if name != "event_id"}
        )

    def _note_conversation(self, event: ev.ConversationCreated) -> None:
        self._conversation_id = given(event.conversation.id, None)

    def _conversation(self, event: ev.SessionUpdated) -> bytes:
        frame = self._beta.ways[ev.SessionUpdated](event)
        assert frame is not None
        session: Json = msgspec.json.decode(frame)["session"]
        name = "conversation.updated" if self._is_created else "conversation.created"
        self._is_created = True
        return _message(name, event, session | {"object": "realtime.conversation", "id": self._conversation_id})

    def _error(self, event: ev.ErrorEvent) -> bytes:
        frame = self._beta.ways[ev.ErrorEvent](event)
        assert frame is not None
        error = msgspec.convert(msgspec.json.decode(frame)["error"], ErrorDetail)
        return _message("error", event, _elsewhere(error, _PLACES))

    def _item_done(self, event: ev.ResponseOutputItemDone) -> bytes | None:
        if not isinstance(event.item, items.FunctionCall) or given(event.item.status, None) == "incomplete":
            return None
        told, self._call = self._call, event.item
        self._open_calls[_call_id(event.item)] = None
        while len(self._open_calls) > CALLS_MAX:
            del self._open_calls[next(iter(self._open_calls))]
        return None if told is None else _function_call(event, told)

    def _response_done(self, event: ev.ResponseDone) -> bytes | None:
        call, self._call = self._call, None
        if call is None or given(event.response.status, None) != "completed":
            if call is not None:
                self._open_calls.pop(_call_id(call), None)
            return self._in_beta(event)
        return _function_call(event, call)


def _tool(function: schema.Function) -> config.FunctionTool:
    return config.FunctionTool(name=function.name, description=function.description, parameters=function.parameters)


def _output(outcome: schema.Outcome) -> str:
    content = given(outcome.content, "")
    if outcome.type == "error":
        content = {"error": content}
    return content if isinstance(content, str) else msgspec.json.encode(content).decode()


def _call_id(call: items.FunctionCall) -> str:
    return given(call.call_id, "") or given(call.id, "")


def _function_call(event: Any, call: items.FunctionCall) -> bytes:
    """Arguments as an object, which is how the page's code uses them; what is no JSON stays text."""
    try:
        arguments: Any = msgspec.json.decode(call.arguments)
    except (msgspec.DecodeError, RecursionError):
        arguments = call.arguments
    return _message("function.call", event, {"id": _call_id(call), "name": call.name, "arguments": arguments})
