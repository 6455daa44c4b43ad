"""The server's end in the GA dialect: what a client may send, and the error for everything else (§3.2)."""

import base64
import json
import subprocess
import sys
from typing import get_args

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from protocol_mutations import damaged
from protocol_samples import every

from vivavoce.errors import LocalProtocolError
from vivavoce.protocol import config, items
from vivavoce.protocol import events as ev
from vivavoce.protocol.codec import AUDIO_BYTES_MAX, FRAME_BYTES_MAX, ClientCodec, ServerCodec
from vivavoce.protocol.events import ErrorDetail
from vivavoce.protocol.violations import VALUES_MAX

CLIENT_EVENTS = every(get_args(ev.AnyClientEvent))
NAMES = (
    "'session.update', 'session.close', 'input_audio_buffer.append', 'session.input_audio_buffer.append', "
    "'input_audio_buffer.commit', 'input_audio_buffer.clear', 'conversation.item.create', "
    "'conversation.item.truncate', 'conversation.item.delete', 'conversation.item.retrieve', 'response.create', "
    "and 'response.cancel'"
)


def decode(*frames, **fields):
    (frame,) = frames or (json.dumps(fields),)
    return ServerCodec().decode(frame)


def update(**session):
    return {"type": "session.update", "event_id": "e1", "session": {"type": "realtime", **session}}


def audio_in(**fields):
    return update(audio={"input": fields})


def respond(**response):
    return {"type": "response.create", "event_id": "e1", "response": response}


def create(**item):
    return {"type": "conversation.item.create", "event_id": "e1", "item": item}


def say(role, *parts):
    return create(type="message", role=role, content=list(parts))


# --- events -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", CLIENT_EVENTS, ids=lambda event: event.type)
def test_what_a_client_writes_is_read(event):
    assert ServerCodec(playback=True).decode(ClientCodec().encode(event).decode()) == event


def test_audio_is_bytes():
    event = decode(type="input_audio_buffer.append", audio=base64.b64encode(bytes(range(256))).decode())
    assert event == ev.InputAudioBufferAppend(audio=bytes(range(256)))


def test_base64_may_be_escaped_as_some_languages_do():
    assert decode(r'{"type":"input_audio_buffer.append","audio":"AA\/\u002fAA=="}').audio == b"\x00\x0f\xff\x00"


def test_absent_and_null_are_different():
    assert decode(**audio_in(turn_detection=None)).session.audio.input.turn_detection is None
    assert decode(**audio_in()).session.audio.input.turn_detection is ev.UNSET


def test_the_order_of_fields_does_not_matter():
    assert decode('{"item_id": "a", "type": "conversation.item.delete"}') == ev.ConversationItemDelete(item_id="a")


@pytest.mark.parametrize("event", [ev.ConversationCreated, ev.ConversationItemCreated])
def test_ga_has_no_events_of_beta(event):
    sample = next(made for made in every(get_args(ev.AnyServerEvent)) if type(made) is event)
    assert ServerCodec().encode(sample) is None


def test_a_key_press_has_no_event_id():
    event = ev.InputAudioBufferDtmfEventReceived(event="9", received_at=5)
    assert json.loads(ServerCodec().encode(event)) == {"type": event.type, "event": "9", "received_at": 5}


# --- temperature, which GA does not have ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["temperature", config.TEMPERATURE])
def test_no_client_may_ask_for_a_temperature(name):
    for error in (decode(**update(**{name: 0.8})), decode(**respond(**{name: 0.8}))):
        assert (error.code, error.event_id) == (UNKNOWN, "e1")
        assert error.param.endswith(name)


def test_no_client_can_say_one():
    for event in (
        ev.SessionUpdate(session=config.RealtimeSession(temperature=0.8)),
        ev.ResponseCreate(response=ev.ResponseParams(temperature=0.8)),
    ):
        with pytest.raises(LocalProtocolError, match="has no temperature"):
            ClientCodec().encode(event)


def test_no_server_states_one():
    session = config.RealtimeSessionResource(instructions="no temperature", temperature=0.8)
    response = items.Response(id="r", temperature=0.8)
    for event in (
        ev.SessionCreated(session=session),
        ev.SessionUpdated(session=session),
        ev.ResponseCreated(response=response),
        ev.ResponseDone(response=response),
    ):
        root = "session" if isinstance(event, (ev.SessionCreated, ev.SessionUpdated)) else "response"
        stated = json.loads(ServerCodec().encode(event))[root]
        assert not [name for name in stated if "temperature" in name]


@given(sound=st.binary(max_size=64))
@example(sound=b"")
def test_speech_is_written_as_every_other_event_is(sound):
    event = ev.ResponseOutputAudioDelta(
        event_id='e"}', response_id="r", item_id="ü", output_index=1, content_index=0, delta=sound
    )
    assert ServerCodec().encode(event) == msgspec.json.encode(event)


# --- the table of §3.2 ------------------------------------------------------------------------------------------------

MISSING, UNKNOWN, VALUE, TYPE = "missing_required_parameter", "unknown_parameter", "invalid_value", "invalid_type"
RATE, TRANSCRIPTION = "session.audio.input.format.rate", "session.audio.input.transcription"
PCM = {"type": "audio/pcm"}
VAD = {"type": "server_vad"}
TOOL = {"type": "function", "name": "f"}
MCP = {"type": "mcp", "server_label": "a"}

TABLE = [
    # fields, code, param, a part of the message
    ({"type": "nope"}, VALUE, "type", f"Invalid value: 'nope'. Supported values are: {NAMES}."),
    ({"type": "transcription_session.update", "session": {}}, VALUE, "type", NAMES),
    ({"type": "output_audio_buffer.clear"}, VALUE, "type", NAMES),
    ({"type": "conversation.item.delete"}, MISSING, "item_id", "Missing required parameter: 'item_id'."),
    ({"type": "session.update"}, MISSING, "session", "'session'"),
    ({"type": "session.update", "session": {}}, MISSING, "session.type", "'session.type'"),
    ({"type": "session.update", "session": {"type": "x"}}, VALUE, "session.type", "'realtime' and 'transcription'"),
    ({"type": "session.update", "session": None}, TYPE, "session", "expected an object, but got null instead"),
    (create(), MISSING, "item.type", "Missing required parameter: 'item.type'."),
    ({"type": "conversation.item.create"}, MISSING, "item", "'item'"),
    (update(bogus=1), UNKNOWN, "session.bogus", "Unknown parameter: 'session.bogus'."),
    (update(modalities=["text"]), UNKNOWN, "session.modalities", ""),
    (update(voice="alloy"), UNKNOWN, "session.voice", ""),
    (update(temperature=0.8), UNKNOWN, "session.temperature", ""),
    ({"type": "response.cancel", "x": 1}, UNKNOWN, "x", "'x'"),
    (respond(model="m"), UNKNOWN, "response.model", ""),
    (respond(audio={"output": {"speed": 1.0}}), UNKNOWN, "response.audio.output.speed", ""),
    (respond(audio={"input": {}}), UNKNOWN, "response.audio.input", ""),
    (respond(truncation="auto"), UNKNOWN, "response.truncation", ""),
    (
        audio_in(format={**PCM, "rate": 16_000}),
        "integer_below_min_value",
        "session.audio.input.format.rate",
        ">= 24000",
    ),
    (
        audio_in(format={**PCM, "rate": 48_000}),
        "integer_above_max_value",
        "session.audio.input.format.rate",
        "got 48000",
    ),
    (audio_in(format={**PCM, "rate": "24k"}), TYPE, RATE, "an integer, but got a string"),
    (audio_in(format="pcm16"), TYPE, "session.audio.input.format", "expected an object, but got a string instead"),
    (audio_in(format={"type": "mp3"}), VALUE, "session.audio.input.format.type", "'audio/pcm', 'audio/pcmu', and"),
    (audio_in(turn_detection={"type": "x"}), VALUE, "session.audio.input.turn_detection.type", "'server_vad' and"),
    (audio_in(turn_detection={}), MISSING, "session.audio.input.turn_detection.type", ""),
    (
        audio_in(turn_detection={**VAD, "threshold": 1.5}),
        "decimal_above_max_value",
        "session.audio.input.turn_detection.threshold",
        "expected a value <= 1.0, but got 1.5 instead",
    ),
    (
        audio_in(turn_detection={**VAD, "threshold": -1}),
        "decimal_below_min_value",
        "session.audio.input.turn_detection.threshold",
        ">= 0",
    ),
    (
        audio_in(turn_detection={**VAD, "idle_timeout_ms": 4_999}),
        "integer_below_min_value",
        "session.audio.input.turn_detection.idle_timeout_ms",
        ">= 5000, but got 4999",
    ),
    (
        audio_in(turn_detection={"type": "semantic_vad", "threshold": 0.5}),
        UNKNOWN,
        "session.audio.input.turn_detection.threshold",
        "",
    ),
    (
        audio_in(turn_detection={"type": "semantic_vad", "eagerness": "x"}),
        VALUE,
        "session.audio.input.turn_detection.eagerness",
        "'auto', 'low', 'medium', and 'high'",
    ),
    (
        audio_in(transcription={"languages": []}),
        "array_below_min_length",
        "session.audio.input.transcription.languages",
        "at least 1, but got 0",
    ),
    (audio_in(noise_reduction={}), MISSING, "session.audio.input.noise_reduction.type", ""),
    (update(audio={"output": {"speed": 1.6}}), "decimal_above_max_value", "session.audio.output.speed", "<= 1.5"),
    (update(audio={"output": {"speed": 10**400}}), VALUE, "session.audio.output.speed", "out of range"),
    (
        update(audio={"output": {"voice": 4}}),
        TYPE,
        "session.audio.output.voice",
        "one of a string or an object, but got",
    ),
    (update(audio={"output": {"voice": {}}}), MISSING, "session.audio.output.voice.id", ""),
    (update(output_modalities=["text", "audio"]), VALUE, "session.output_modalities", "['text'] and ['audio']"),
    (update(output_modalities=[]), VALUE, "session.output_modalities", "Invalid modalities: []."),
    (update(output_modalities=["a" * 5_000] * 2), VALUE, "session.output_modalities[0]", "'audio' and 'text'"),
    (update(output_modalities=["smell"]), VALUE, "session.output_modalities[0]", "'smell'"),
    (respond(output_modalities=["audio", "text"]), VALUE, "response.output_modalities", "Invalid modalities"),
    (update(max_output_tokens="many"), VALUE, "session.max_output_tokens", "Supported values are: 'inf'."),
    (update(max_output_tokens=0), "integer_below_min_value", "session.max_output_tokens", "got 0 instead"),
    (update(max_output_tokens=5_000), "integer_above_max_value", "session.max_output_tokens", "<= 4096"),
    (update(tools=[TOOL, {"type": "x"}]), VALUE, "session.tools[1].type", "'function' and 'mcp'"),
    (update(tools=[{"name": "f"}]), MISSING, "session.tools[0].type", ""),
    (update(tools=[{"type": 5}]), TYPE, "session.tools[0].type", "expected a string, but got an integer instead"),
    (update(tools=[{"type": None}]), TYPE, "session.tools[0].type", "but got null instead"),
    (update(tools=[{"type": True}]), TYPE, "session.tools[0].type", "but got a boolean instead"),
    (update(tools=[{**MCP, "tunnel_id": "x"}]), VALUE, "session.tools[0].tunnel_id", "^tunnel_"),
    (update(tools=[{**MCP, "headers": {"a": 5}}]), TYPE, "session.tools[0].headers", "a string, but got an integer"),
    (update(tool_choice="x"), VALUE, "session.tool_choice", "'auto', 'none', and 'required'"),
    (update(tool_choice={"type": "function"}), MISSING, "session.tool_choice.name", ""),
    (update(include=["x"]), VALUE, "session.include[0]", "'item.input_audio_transcription.logprobs'"),
    (update(truncation={"type": "retention_ratio"}), MISSING, "session.truncation.retention_ratio", ""),
    (update(tracing=5), TYPE, "session.tracing", "expected one of a string, an object or null, but got an integer"),
    (update(instructions=None), TYPE, "session.instructions", "expected a string, but got null instead"),
    (respond(metadata={"a": 5}), TYPE, "response.metadata", "a string, but got an integer"),
    (respond(metadata={"a" * 65: "b"}), "string_above_max_length", "response.metadata", "at most 64."),
    (respond(metadata={"a": "b" * 513}), "string_above_max_length", "response.metadata", "at most 512."),
    (respond(metadata={str(n): "" for n in range(17)}), "object_above_max_properties", "response.metadata", "got 17"),
    (respond(input=[{"type": "item_reference"}]), MISSING, "response.input[0].id", ""),
    (respond(input=[{"type": "nope"}]), VALUE, "response.input[0].type", "'message'"),
    (create(type="nope"), VALUE, "item.type", "'mcp_approval_response'"),
    (create(type="message", role="tool", content=[]), VALUE, "item.role", "'user', 'assistant', and 'system'"),
    (create(type="message", role="user", content="hi"), TYPE, "item.content", "an array, but got a string"),
    (say("user", {"type": "hologram"}), VALUE, "item.content[0].type", "'input_text', 'input_audio'"),
    (say("user", {"type": "input_text"}), MISSING, "item.content[0].text", ""),
    (say("user", {"type": "input_text", "text": "a"}, {"text": "b"}), MISSING, "item.content[1].type", ""),
    (
        say("user", {"type": "input_audio", "audio": "!"}),
        VALUE,
        "item.content[0].audio",
        "Expected base64-encoded audio",
    ),
    (create(type="function_call", name="f", arguments="", call_id="a b"), VALUE, "item.call_id", "pattern"),
    (
        {"type": "conversation.item.truncate", "item_id": "a", "content_index": -1, "audio_end_ms": 0},
        "integer_below_min_value",
        "content_index",
        "",
    ),
    (
        {"type": "conversation.item.truncate", "item_id": "a", "content_index": 0, "audio_end_ms": 1.5},
        TYPE,
        "audio_end_ms",
        "an integer, but got a number",
    ),
    ({"type": "input_audio_buffer.append", "audio": 5}, TYPE, "audio", "a base64-encoded string, but got an integer"),
    (
        {"type": "input_audio_buffer.append", "audio": "abc"},
        VALUE,
        "audio",
        "Invalid 'audio'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz) but got an invalid value.",
    ),
    ({"type": "response.cancel", "response_id": 5}, TYPE, "response_id", ""),
]


@pytest.mark.parametrize(("fields", "code", "param", "says"), TABLE)
def test_an_invalid_event_is_answered_with_code_and_param(fields, code, param, says):
    error = decode(**{**fields, "event_id": "e1"})
    assert isinstance(error, ErrorDetail), error
    assert (error.type, error.code, error.param, error.event_id) == ("invalid_request_error", code, param, "e1")
    assert says in error.message


@pytest.mark.parametrize(
    "frame", ["", "{", "hello", '{"type":"nope",,', '{"type":"response.cancel"} x', '"\ud800"', '{"type":"\\ud800"}']
)
def test_what_is_not_json_is_invalid_json(frame):
    error = decode(frame)
    assert (error.code, error.param, error.event_id) == ("invalid_json", None, None)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        ("[1]", "JSON object"),
        ("5", "JSON object"),
        ("null", "JSON object"),
        ("{}", "'type' field is missing"),
        ('{"type":5}', "'type' field is missing"),
        ('{"type":null}', "'type' field is missing"),
    ],
)
def test_json_without_a_type_is_invalid_event(frame, says):
    error = decode(frame)
    assert (error.code, error.param, error.event_id) == ("invalid_event", None, None)
    assert says in error.message


def test_a_binary_message_is_invalid_event():
    error = decode(b'{"type":"response.cancel"}')
    assert (error.code, error.param, error.event_id) == ("invalid_event", None, None)


# --- the id that is echoed --------------------------------------------------------------------------------------------


def test_an_event_id_of_512_characters_is_echoed():
    assert decode(type="nope", event_id="é" * 512).event_id == "é" * 512


def test_a_longer_event_id_is_an_error_itself():
    error = decode(type="response.cancel", event_id="x" * 513)
    assert (error.code, error.param, error.event_id) == ("string_above_max_length", "event_id", None)
    assert "at most 512, but got 513" in error.message


@pytest.mark.parametrize("event_id", [5, None, ["x"], {"a": "b"}, "x" * 5_000])
def test_what_is_no_event_id_is_not_echoed(event_id):
    assert decode(type="nope", event_id=event_id).event_id is None


def test_the_event_id_is_found_behind_the_mistake():
    assert decode('{"type":"nope","a":{"event_id":"inner"},"event_id":"e9"}').event_id == "e9"


# --- items ------------------------------------------------------------------------------------------------------------

OUTPUT_TEXT = {"type": "output_text", "text": "hi"}
INPUT_TEXT = {"type": "input_text", "text": "hi"}


@pytest.mark.parametrize(
    ("role", "part", "supported"),
    [
        ("user", OUTPUT_TEXT, "'input_text', 'input_audio', and 'input_image'"),
        ("system", {"type": "input_audio", "audio": ""}, "'input_text'."),
        ("assistant", INPUT_TEXT, "'output_text' and 'output_audio'"),
        ("user", {"type": "vivavoce.unknown_part", "fields": {}}, "'input_text', 'input_audio', and 'input_image'"),
    ],
)
def test_a_part_must_suit_its_role(role, part, supported):
    for fields, param in (
        (say(role, part), "item.content[0].type"),
        (respond(input=[say(role)["item"], say(role, part)["item"]]), "response.input[1].content[0].type"),
    ):
        error = decode(**fields)
        assert (error.code, error.param, error.event_id) == (VALUE, param, "e1")
        assert f"Invalid value: '{part['type']}'. Supported values are: {supported}" in error.message


@pytest.mark.parametrize("more", [{}, {"fields": {"a": 1}}])
def test_our_stand_in_for_unknown_items_is_no_item(more):
    error = decode(**create(type="vivavoce.unknown_item", **more))
    assert (error.code, error.param, error.event_id) == (VALUE, "item.type", "e1")
    assert "vivavoce" not in error.message.split("Supported")[1]


# --- limits -----------------------------------------------------------------------------------------------------------


def append(size: int, **more: str) -> str:
    return json.dumps({"type": "input_audio_buffer.append", **more, "audio": base64.b64encode(bytes(size)).decode()})


def test_audio_of_15_mib_is_taken():
    assert AUDIO_BYTES_MAX == 15 * 1024 * 1024
    assert len(decode(append(AUDIO_BYTES_MAX)).audio) == AUDIO_BYTES_MAX


def test_more_audio_than_that_is_refused():
    error = decode(append(AUDIO_BYTES_MAX + 1, event_id="big"))
    assert (error.code, error.param, error.event_id) == ("string_above_max_length", "audio", "big")
    assert str(AUDIO_BYTES_MAX) in error.message


def test_it_is_refused_without_being_decoded():
    # Not even base64: had it been decoded, this would be invalid_value.
    error = decode('{"type":"input_audio_buffer.append","audio":"' + "!" * (AUDIO_BYTES_MAX * 4 // 3 + 4) + '"}')
    assert error.code == "string_above_max_length"


def test_a_transport_takes_frames_up_to_twice_the_longest_append():
    assert 2 * len(base64.b64encode(bytes(3))) * AUDIO_BYTES_MAX // 3 == FRAME_BYTES_MAX


def test_a_million_unknown_fields_are_one_error():
    fields = ",".join(f'"f{n}":0' for n in range(2**20))
    error = decode(f'{{"type":"session.update","event_id":"e1","session":{{"type":"realtime",{fields}}}}}')
    assert (error.code, error.param, error.event_id) == (UNKNOWN, "session.f0", "e1")


def test_a_message_of_too_many_values_is_not_built():
    values = "[]," * (VALUES_MAX // 2) + "[]"
    error = decode('{"type":"session.update","event_id":"e1","session":{"type":"realtime","tools":[' + values + "]}}")
    assert (error.code, error.param, error.event_id) == ("array_above_max_length", None, "e1")


def test_a_long_message_of_few_values_is_read():
    assert decode(**update(instructions="a" * 2**21)).session.instructions == "a" * 2**21


@pytest.mark.parametrize("depth", [100_000, 500_000])
@pytest.mark.parametrize(
    "around",
    [
        '{"type":"response.cancel","x":%s}',
        '{"type":"session.update","session":{"type":"realtime","tracing":{"metadata":%s}}}',
        '{"type":"conversation.item.create","item":{"type":"message","role":"assistant","content":[{"type":"text","x":%s}]}}',
    ],
)
def test_deep_nesting_is_invalid_json(depth, around):
    assert decode(around % ("[" * depth + "]" * depth)).code == "invalid_json"


def test_a_long_value_is_cut_in_the_message():
    error = decode(**update(tool_choice="x" * 100_000))
    assert (error.code, error.param) == (VALUE, "session.tool_choice")
    assert len(error.message) < 500
    error = decode(type="response.cancel", **{"x" * 100_000: 1})
    assert error.code == UNKNOWN
    assert len(error.message) < 500
    assert len(error.param) < 500


# --- never raises -----------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.text())
@example('{"type":"response.cancel","response_id":1e999}')
def test_no_text_raises(frame):
    assert isinstance(decode(frame), (ErrorDetail, *get_args(ev.AnyClientEvent)))


@settings(max_examples=500, deadline=None)
@given(damaged([json.loads(ClientCodec().encode(event)) for event in CLIENT_EVENTS]))
def test_no_damaged_event_raises(fields):
    for frame in (json.dumps(fields), json.dumps(fields, ensure_ascii=False)):
        event = decode(frame)
        if not isinstance(event, ErrorDetail):
            assert decode(ClientCodec().encode(event).decode()) == event
        elif event.code != "invalid_json":
            event_id = fields.get("event_id")
            echoed = event_id if isinstance(event_id, str) and len(event_id) <= 512 else None
            assert event.event_id == echoed


def test_who_speaks_ga_does_not_load_beta():
    code = (
        "import sys; from vivavoce.protocol.codec import *; ServerCodec(), ClientCodec(); "
        "sys.exit(any('beta' in name for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
