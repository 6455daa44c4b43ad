"""The overview vocabulary at the server's end: what the page's JavaScript sends and reads works as it is (row A6)."""

import base64
import json
from typing import get_args

import pytest
from hypothesis import given, settings
from protocol_mutations import damaged
from protocol_samples import every

from vivavoce.protocol import config, items
from vivavoce.protocol import events as ev
from vivavoce.protocol.codec import AUDIO_BYTES_MAX, ServerCodec
from vivavoce.protocol.dialects import overview_events
from vivavoce.protocol.dialects.overview import CALLS_MAX
from vivavoce.protocol.wire import write

MISSING, UNKNOWN, VALUE, TYPE = "missing_required_parameter", "unknown_parameter", "invalid_value", "invalid_type"
SAMPLES = base64.b64encode(b"\x01\x02\x03\x04").decode()


class Line:
    """One connection, seen from the server: `hear` what the client says, `say` what the server does."""

    def __init__(self):
        self.codec = ServerCodec("overview")

    def hear(self, type, data=None, **more):
        fields = {"type": type, "event_id": "e1", **({} if data is None else {"data": data}), **more}
        return self.codec.decode(json.dumps(fields))

    def say(self, event):
        frame = self.codec.encode(event)
        return None if frame is None else json.loads(frame)

    def say_all(self, *events):
        return [said for event in events if (said := self.say(event)) is not None]


def user(text):
    return items.Message(role="user", content=(items.InputText(text=text),))


POSITION = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0}
SESSION = config.RealtimeSessionResource(
    id="sess_1",
    object="realtime.session",
    expires_at=5,
    model="gpt-4o-realtime-preview",
    output_modalities=("audio",),
    audio=config.AudioConfig(output=config.AudioOutput(format=config.PcmFormat(), voice="alloy")),
)
CONVERSATION = ev.ConversationCreated(
    event_id="e2", conversation=ev.ConversationResource(id="conv_1", object="realtime.conversation")
)


def call(number, arguments='{"location": "San Francisco, CA"}', status="completed"):
    item = items.FunctionCall(
        id=f"item_{number}", call_id=f"call_{number}", name="get_weather", arguments=arguments, status=status
    )
    return ev.ResponseOutputItemDone(event_id=f"done_{number}", response_id="resp_1", output_index=number, item=item)


def response_done(status="completed"):
    return ev.ResponseDone(event_id="end", response=items.Response(id="resp_1", status=status))


# --- the page's own messages ------------------------------------------------------------------------------------------


def test_a_conversation_begins_as_the_page_shows():
    line = Line()
    assert line.say_all(ev.SessionCreated(event_id="e1", session=SESSION), CONVERSATION) == []
    asked = line.hear("conversation.create", {"model": "gpt-4o-realtime-preview", "voice": "alloy"})
    output = config.AudioConfig(output=config.AudioOutput(voice="alloy"))
    session = config.RealtimeSession(model="gpt-4o-realtime-preview", audio=output)
    assert asked == ev.SessionUpdate(event_id="e1", session=session)
    assert line.say(ev.SessionUpdated(event_id="e3", session=SESSION)) == {
        "type": "conversation.created",
        "event_id": "e3",
        "data": {
            "id": "conv_1",
            "object": "realtime.conversation",
            "expires_at": 5,
            "model": "gpt-4o-realtime-preview",
            "modalities": ["text", "audio"],
            "voice": "alloy",
            "output_audio_format": "pcm16",
            "temperature": 0.8,
        },
    }
    assert line.say(ev.SessionUpdated(event_id="e4", session=SESSION))["type"] == "conversation.updated"


def test_functions_are_registered_as_the_page_shows():
    schema = {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "City and state, e.g., San Francisco, CA"}},
        "required": ["location"],
    }
    function = {"name": "get_weather", "description": "Get current weather for a location", "parameters": schema}
    tool = config.FunctionTool(name="get_weather", description=function["description"], parameters=schema)
    expected = ev.SessionUpdate(event_id="e1", session=config.RealtimeSession(tools=(tool,)))
    assert Line().hear("available_functions.create", {"functions": [function]}) == expected
    assert Line().hear("available_functions.create", {"functions": [function | {"type": "function"}]}) == expected
    assert Line().hear("available_functions.create", {"functions": []}).session.tools == ()


def test_a_function_is_called_and_answered_as_the_page_shows():
    line = Line()
    assert line.say(call(1)) is None  # the response may go on
    told = line.say(response_done())
    assert told == {
        "type": "function.call",
        "event_id": "end",
        "data": {"id": "call_1", "name": "get_weather", "arguments": {"location": "San Francisco, CA"}},
    }
    content = json.dumps({"degrees": 18})
    heard = line.hear("function.response", {"id": "call_1", "response": {"type": "success", "content": content}})
    output = items.FunctionCallOutput(call_id="call_1", output='{"degrees": 18}')
    assert heard == (ev.ConversationItemCreate(event_id="e1", item=output), ev.ResponseCreate(event_id="e1"))


def test_an_answer_is_heard_and_read():
    part = POSITION | {"content_index": 0}
    said = Line().say_all(
        ev.ResponseOutputItemAdded(
            event_id="a", response_id="resp_1", output_index=0, item=items.Message(role="assistant", content=())
        ),
        ev.ResponseContentPartAdded(event_id="b", **part, part=ev.ContentPart(type="audio", transcript="")),
        ev.ResponseOutputAudioTranscriptDelta(event_id="c", **part, delta="Hello "),
        ev.ResponseOutputAudioDelta(event_id="d", **part, delta=b"\x01\x02\x03\x04"),
        ev.ResponseOutputAudioTranscriptDelta(event_id="e", **part, delta="there."),
        ev.ResponseOutputAudioDone(event_id="f", **part),
        ev.ResponseOutputAudioTranscriptDone(event_id="g", **part, transcript="Hello there."),
        ev.ResponseContentPartDone(event_id="h", **part, part=ev.ContentPart(type="audio", transcript="Hello there.")),
        ev.ConversationItemDone(event_id="i", item=items.Message(role="assistant", content=())),
        ev.ResponseOutputItemDone(
            event_id="j", response_id="resp_1", output_index=0, item=items.Message(role="assistant", content=())
        ),
        response_done(),
    )
    assert said[:4] == [
        {"type": "content_block.delta", "event_id": "c", "data": {"id": "item_1", "text": "Hello "}},
        {"type": "audio", "event_id": "d", "data": SAMPLES},
        {"type": "content_block.delta", "event_id": "e", "data": {"id": "item_1", "text": "there."}},
        {"type": "text", "event_id": "g", "data": {"id": "item_1", "text": "Hello there."}},
    ]
    assert [end["type"] for end in said[4:]] == ["response.done"]
    assert said[4]["data"]["response"]["status"] == "completed"


def test_a_written_answer_has_the_same_words():
    part = POSITION | {"content_index": 0}
    said = Line().say_all(
        ev.ResponseOutputTextDelta(event_id="a", **part, delta="Hi"),
        ev.ResponseOutputTextDone(event_id="b", **part, text="Hi"),
        ev.ResponseOutputTextDone(event_id="c", **part, text=""),  # cut before the first word
    )
    assert [(event["type"], event["data"]["text"]) for event in said] == [("content_block.delta", "Hi"), ("text", "Hi")]


# --- what a client says -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [SAMPLES, {"audio": SAMPLES}])
def test_audio_is_appended(data):
    assert Line().hear("audio", data) == ev.InputAudioBufferAppend(event_id="e1", audio=b"\x01\x02\x03\x04")


@pytest.mark.parametrize("data", ["Hello", {"text": "Hello"}])
def test_text_is_a_message_that_wants_an_answer(data):
    create = ev.ConversationItemCreate(event_id="e1", item=user("Hello"))
    assert Line().hear("text", data) == (create, ev.ResponseCreate(event_id="e1"))


def test_an_item_comes_in_an_envelope_or_flat():
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}
    expected = ev.ConversationItemCreate(event_id="e1", item=user("Hello"), previous_item_id="root")
    fields = {"item": item, "previous_item_id": "root"}
    assert Line().hear("conversation.item.create", fields) == expected
    assert Line().hear("conversation.item.create", **fields) == expected


def test_a_bare_conversation_create_changes_nothing():
    assert Line().hear("conversation.create") == ev.SessionUpdate(event_id="e1", session=config.RealtimeSession())


def test_a_conversation_may_be_given_everything_that_a_session_of_beta_has():
    asked = Line().hear(
        "conversation.create", {"instructions": "Be brief.", "modalities": ["text"], "turn_detection": None}
    )
    assert asked.session == config.RealtimeSession(
        instructions="Be brief.",
        output_modalities=("text",),
        audio=config.AudioConfig(input=config.AudioInput(turn_detection=None)),
    )


@pytest.mark.parametrize(
    ("response", "output"),
    [
        ({"type": "success", "content": "18 degrees"}, "18 degrees"),
        ({"type": "success", "content": {"degrees": 18}}, '{"degrees":18}'),
        ({"type": "success", "content": None}, "null"),
        ({"type": "success"}, ""),
        ({"type": "error", "content": "no such place"}, '{"error":"no such place"}'),
        ({"type": "error"}, '{"error":""}'),
    ],
)
def test_the_outcome_of_a_function_is_told_to_the_model(response, output):
    create, ask = Line().hear("function.response", {"id": "call_9", "response": response})
    assert create.item == items.FunctionCallOutput(call_id="call_9", output=output)
    assert isinstance(ask, ev.ResponseCreate)


@pytest.mark.parametrize(
    "event",
    [
        ev.InputAudioBufferCommit(),
        ev.InputAudioBufferClear(),
        ev.ConversationItemDelete(item_id="a"),
        ev.ConversationItemRetrieve(item_id="a"),
        ev.ConversationItemTruncate(item_id="a", content_index=0, audio_end_ms=5),
        ev.ResponseCreate(response=ev.ResponseParams(instructions="Hi")),
        ev.ResponseCancel(),
    ],
    ids=lambda event: event.type,
)
def test_what_the_page_has_no_word_for_is_said_as_in_beta(event):
    assert ServerCodec("overview").decode(write(event).decode()) == event


# --- several calls ----------------------------------------------------------------------------------------------------


def answer(line, number):
    return line.hear("function.response", {"id": f"call_{number}", "response": {"type": "success", "content": ""}})


def test_the_next_response_waits_for_the_last_answer():
    """Whatever the order of the answers, one response is asked for, and never before this one has ended."""
    line = Line()
    assert line.say(call(1)) is None
    assert line.say(call(2))["data"]["id"] == "call_1"
    assert len(answer(line, 1)) == 1
    assert line.say(call(3))["data"]["id"] == "call_2"
    assert line.say(response_done())["data"]["id"] == "call_3"
    assert len(answer(line, 3)) == 1
    assert len(answer(line, 2)) == 2
    assert len(answer(line, 2)) == 2  # for the machine to refuse


@pytest.mark.parametrize("status", ["cancelled", "failed", "incomplete"])
def test_a_call_of_a_response_that_did_not_complete_is_not_made(status):
    line = Line()
    line.say(call(1))
    assert line.say(response_done(status))["type"] == "response.done"
    assert line.say(call(2, status="incomplete")) is None
    assert line.say(response_done())["type"] == "response.done"
    assert len(answer(line, 9)) == 2


@pytest.mark.parametrize("arguments", ["", "not JSON", "[" * 100_000])
def test_arguments_that_are_no_json_stay_text(arguments):
    line = Line()
    line.say(call(1, arguments))
    assert line.say(response_done())["data"]["arguments"] == arguments


def test_calls_that_nobody_answers_are_forgotten():
    line = Line()
    for number in range(CALLS_MAX + 1):
        line.say(call(number))
    for number in range(1, CALLS_MAX):
        assert len(answer(line, number)) == 1
    assert len(answer(line, CALLS_MAX)) == 2


# --- what else a server says ------------------------------------------------------------------------------------------


def test_the_rest_is_betas_in_an_envelope():
    line = Line()
    started = ev.InputAudioBufferSpeechStarted(event_id="e", item_id="item_1", audio_start_ms=5)
    assert line.say(started) == {
        "type": "input_audio_buffer.speech_started",
        "event_id": "e",
        "data": {"item_id": "item_1", "audio_start_ms": 5},
    }
    added = line.say(ev.ConversationItemAdded(event_id="e", item=user("hi"), previous_item_id=None))
    assert (added["type"], added["data"]["previous_item_id"]) == ("conversation.item.created", None)
    assert line.say(ev.ConversationItemDone(event_id="e", item=user("hi"))) is None


def test_every_event_is_in_an_envelope_or_not_said():
    codec = ServerCodec("overview")
    frames = [codec.encode(event) for event in every(get_args(ev.AnyServerEvent))]
    said = [json.loads(frame) for frame in frames if frame is not None]
    assert all(event.keys() == {"type", "event_id", "data"} for event in said)
    names = {event["type"] for event in said}
    assert {"audio", "text", "content_block.delta", "conversation.created", "error"} <= names
    assert not names & {"session.created", "session.updated", "response.audio.delta", "response.text.delta"}
    assert not [event for event in said if "vivavoce" in json.dumps(event)]


@pytest.mark.parametrize(
    ("param", "told"),
    [
        ("session.audio.output.voice", "data.voice"),
        ("session.tools[0].name", "data.functions[0].name"),
        ("session.model", "data.model"),
        ("response.input[0].id", "response.input[0].id"),
        (None, None),
    ],
)
def test_an_error_names_the_place_in_the_words_of_the_page(param, told):
    detail = ev.ErrorDetail(
        type="invalid_request_error", code="x", message=f"About '{param}'.", param=param, event_id="e1"
    )
    assert Line().say(ev.ErrorEvent(event_id="e", error=detail)) == {
        "type": "error",
        "event_id": "e",
        "data": {
            "type": "invalid_request_error",
            "code": "x",
            "message": f"About '{told}'.",
            "param": told,
            "event_id": "e1",
        },
    }


# --- mistakes ---------------------------------------------------------------------------------------------------------

MESSAGE = {"type": "message", "role": "user", "content": []}


@pytest.mark.parametrize(
    ("type", "data", "code", "param", "says"),
    [
        ("conversation.create", {"voic": "alloy"}, UNKNOWN, "data.voic", "Did you mean 'data.voice'?"),
        ("conversation.create", {"modalities": ["audio"]}, VALUE, "data.modalities", "['text'] and ['audio', 'text']"),
        ("conversation.create", {"temperature": 5}, "decimal_above_max_value", "data.temperature", "<= 1.2"),
        ("available_functions.create", None, MISSING, "data", ""),
        ("available_functions.create", {"functions": [{}]}, MISSING, "data.functions[0].name", ""),
        ("available_functions.create", {"functions": [{"name": 5}]}, TYPE, "data.functions[0].name", ""),
        ("conversation.item.create", None, MISSING, "data.item", ""),
        ("conversation.item.create", {}, MISSING, "data.item", ""),
        (
            "conversation.item.create",
            {"item": MESSAGE | {"content": [{"type": "text", "text": "a"}]}},
            VALUE,
            "data.item.content[0].type",
            "'input_text' and 'input_audio'",
        ),
        ("audio", None, MISSING, "data", ""),
        ("audio", 5, TYPE, "data", "one of a base64-encoded string or an object, but got an integer"),
        ("audio", "!", VALUE, "data", "Expected base64-encoded audio bytes"),
        ("audio", {"audio": "!"}, VALUE, "data.audio", "Expected base64-encoded audio bytes"),
        ("text", {}, MISSING, "data.text", ""),
        ("text", {"txt": "a"}, UNKNOWN, "data.txt", "Did you mean 'data.text'?"),
        ("function.response", {"id": "c", "response": {"type": "maybe"}}, VALUE, "data.response.type", "'success' and"),
        ("function.response", {"response": {"type": "error"}}, MISSING, "data.id", ""),
        ("session.update", None, VALUE, "type", "Did you mean 'conversation.create'?"),
        ("input_audio_buffer.append", None, VALUE, "type", "Did you mean 'audio'?"),
        ("function.call", None, VALUE, "type", "'function.call' is for the server to say."),
        ("output_audio_buffer.clear", None, VALUE, "type", "WebRTC"),
    ],
)
def test_a_mistake_is_told_in_words_of_the_page(type, data, code, param, says):
    error = Line().hear(type, data)
    assert (error.code, error.param, error.event_id) == (code, param, "e1")
    assert says in error.message


def test_an_item_comes_in_one_place_only():
    error = Line().hear("conversation.item.create", {"item": MESSAGE}, item=MESSAGE)
    assert (error.code, error.param, error.event_id) == (UNKNOWN, "item", "e1")
    error = Line().hear("conversation.item.create", item=MESSAGE | {"content": [{"type": "text", "text": "a"}]})
    assert (error.code, error.param) == (VALUE, "item.content[0].type")


def test_the_same_is_forgiven_as_in_beta():
    assert Line().hear("conversation.create", {"turn_detection": False}).session.audio.input.turn_detection is None
    item = {"item": MESSAGE | {"status": "x", "object": 5}}
    assert Line().hear("conversation.item.create", item).item == items.Message(role="user", content=())
    assert Line().hear("response.create", response={"commit": True}).response == ev.ResponseParams()


@pytest.mark.parametrize("shape", ['"%s"', '{"audio":"%s"}'])
def test_more_audio_than_an_event_may_hold_is_refused(shape):
    most = "AAAA" * (AUDIO_BYTES_MAX // 3)
    decode = ServerCodec("overview").decode
    assert len(decode('{"type":"audio","data":' + shape % most + "}").audio) == AUDIO_BYTES_MAX
    error = decode('{"type":"audio","event_id":"e1","data":' + shape % (most + "AAAA") + "}")
    param = "data" if shape == '"%s"' else "data.audio"
    assert (error.code, error.param, error.event_id) == ("string_above_max_length", param, "e1")


def test_playback_may_be_cleared_where_the_server_plays():
    frame = '{"type":"output_audio_buffer.clear"}'
    assert ServerCodec("overview", playback=True).decode(frame) == ev.OutputAudioBufferClear()


@settings(max_examples=400, deadline=None)
@given(damaged([json.loads(write(event)) for event in every(get_args(overview_events.ClientEvent))]))
def test_no_damaged_event_of_a_client_raises(fields):
    heard = ServerCodec("overview").decode(json.dumps(fields))
    for event in heard if isinstance(heard, tuple) else (heard,):
        assert isinstance(event, (ev.ErrorDetail, *get_args(ev.AnyClientEvent)))
