"""The client's end in the GA dialect: everything that a server says is read, also what this version does not know."""

import json
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from protocol_mutations import damaged
from protocol_samples import every

from vivavoce.errors import RemoteProtocolError
from vivavoce.protocol import config, items
from vivavoce.protocol import events as ev
from vivavoce.protocol.base import UNSET
from vivavoce.protocol.codec import ClientCodec, ServerCodec
from vivavoce.protocol.wire import write

SERVER_EVENTS = every(get_args(ev.AnyServerEvent))


def decode(*frames, **fields):
    (frame,) = frames or (json.dumps(fields),)
    return ClientCodec().decode(frame)


@pytest.mark.parametrize("event", SERVER_EVENTS, ids=lambda event: event.type)
def test_what_a_server_writes_is_read(event):
    frame = write(event)
    assert ClientCodec().decode(frame) == ClientCodec().decode(frame.decode()) == event


def test_the_frame_stays_in_raw():
    text = '{"type":"input_audio_buffer.cleared", "event_id":"é", "obfuscation":"xyz"}'
    assert decode(text).raw == text.encode()
    assert decode(text.encode()).raw == text.encode()
    assert ev.InputAudioBufferCleared(event_id="e").raw == b""


def test_an_event_knows_its_name():
    assert decode(type="input_audio_buffer.cleared").type == "input_audio_buffer.cleared"
    assert decode(type="from.the.future").type == "from.the.future"
    assert ev.ResponseCancel().type == "response.cancel"


VAD = {"type": "server_vad"}


# --- what is not known ------------------------------------------------------------------------------------------------


def test_an_unknown_event_is_kept_whole():
    frame = '{"type":"from.the.future","event_id":"e","deep":{"a":[1]}}'
    event = decode(frame)
    assert event == ev.Unknown(kind="from.the.future", fields=json.loads(frame), event_id="e", raw=frame.encode())
    assert decode(frame.encode()).raw == frame.encode()
    assert decode(type="from.the.future", event_id=5).event_id == ""


def test_unknown_fields_are_left_out_at_every_depth():
    event = decode(
        type="session.created",
        event_id="e",
        new=1,
        session={
            "type": "realtime",
            "id": "s",
            "new": 1,
            "audio": {
                "new": 1,
                "input": {"new": {}, "turn_detection": {"type": "server_vad", "threshold": 0.5, "new": 1}},
            },
            "tools": [{"type": "function", "name": "f", "new": 1}, {"type": "web_search"}],
        },
    )
    assert event == ev.SessionCreated(
        event_id="e",
        session=config.RealtimeSessionResource(
            id="s",
            audio=config.AudioConfig(input=config.AudioInput(turn_detection=config.ServerVad(threshold=0.5))),
            tools=(config.FunctionTool(name="f"),),
        ),
    )
    assert b"web_search" in event.raw


def test_values_that_this_version_does_not_allow_are_left_out():
    event = decode(
        type="session.updated",
        event_id=None,
        session={
            "type": "realtime",
            "model": "m",
            "output_modalities": ["audio", "text"],
            "audio": {"input": {"format": {"type": "audio/opus"}}, "output": {"speed": 9, "voice": {"name": "x"}}},
            "truncation": "sometimes",
        },
    )
    assert event.event_id == ""
    assert event.session == config.RealtimeSessionResource(
        model="m", audio=config.AudioConfig(input=config.AudioInput(), output=config.AudioOutput())
    )


def test_a_limit_above_ours_is_read():
    event = decode(type="response.done", response={"id": "r", "max_output_tokens": 32_000})
    assert event.response.max_output_tokens == 32_000
    session = decode(type="session.created", session={"type": "realtime", "max_output_tokens": 32_000}).session
    assert session.max_output_tokens == 32_000


HOLOGRAM = {"type": "hologram", "points": [1, 2]}
SEARCH = {"type": "web_search", "id": "item_9", "query": "x"}


def test_unknown_parts_and_items_keep_their_fields_and_are_written_back():
    message = {"type": "message", "id": "i", "role": "user", "content": [HOLOGRAM, {"type": "input_text", "text": "a"}]}
    event = decode(type="response.done", event_id="e", response={"id": "r", "output": [message, SEARCH, {"type": 5}]})
    assert event.response.output == (
        items.Message(id="i", role="user", content=(items.UnknownPart(fields=HOLOGRAM), items.InputText(text="a"))),
        items.UnknownItem(id="item_9", fields=SEARCH),
        items.UnknownItem(fields={"type": 5}),
    )
    written = json.loads(ServerCodec().encode(event))
    assert written["response"]["output"] == [message, SEARCH, {"type": 5}]


def test_unknown_items_are_written_back_by_a_client():
    event = decode(type="conversation.item.added", event_id="e", item=SEARCH)
    sent = ev.ConversationItemCreate(item=event.item)
    assert json.loads(ClientCodec().encode(sent)) == {"type": "conversation.item.create", "item": SEARCH}
    part = items.Message(role="user", content=(items.UnknownPart(fields=HOLOGRAM),))
    sent = ev.ResponseCreate(response=ev.ResponseParams(input=(part, items.ItemReference(id="a"))))
    assert json.loads(ClientCodec().encode(sent))["response"]["input"][0]["content"] == [HOLOGRAM]


def test_text_that_looks_like_a_stand_in_is_left_alone():
    text = '"type":"vivavoce.unknown_part"'
    event = ev.ConversationItemCreate(item=items.Message(role="user", content=(items.InputText(text=text),)))
    assert ServerCodec().decode(ClientCodec().encode(event).decode()) == event
    tool = config.FunctionTool(name="f", parameters={"type": "vivavoce.unknown_item", "fields": 1})
    event = ev.SessionUpdate(session=config.RealtimeSession(tools=(tool,)))
    assert ServerCodec().decode(ClientCodec().encode(event).decode()) == event


def test_a_known_item_in_an_unknown_shape_is_an_unknown_item():
    tool_message = {"type": "message", "id": "i", "role": "tool", "content": []}
    assert decode(type="conversation.item.done", item=tool_message).item == items.UnknownItem(
        id="i", fields=tool_message
    )


def test_what_cannot_do_without_the_unfitting_is_unknown():
    assert isinstance(decode(type="response.created", response={"id": 5}), ev.Unknown)
    assert isinstance(decode(type="response.created"), ev.Unknown)
    assert isinstance(decode(type="conversation.item.added", item="x"), ev.Unknown)
    assert isinstance(decode(type="response.output_audio.delta", delta="!"), ev.Unknown)


def test_numbers_beyond_every_range_are_read():
    event = decode('{"type":"input_audio_buffer.cleared","event_id":"e","x":1e999,"y":' + "9" * 50 + "}")
    assert event == ev.InputAudioBufferCleared(event_id="e")


def test_half_a_surrogate_is_read():
    event = decode(
        '{"type":"response.output_text.delta","delta":"\\ud800","response_id":"r","item_id":"i",'
        '"output_index":0,"content_index":0}'
    )
    assert event.delta == "\ud800"
    assert decode('{"type":"\ud800"}').raw == b'{"type":"\xed\xa0\x80"}'


@pytest.mark.parametrize("depth", [100_000, 500_000])
def test_deep_nesting_is_the_servers_mistake(depth):
    with pytest.raises(RemoteProtocolError, match="cannot be read"):
        decode('{"type":"response.done","response":{"id":"r","new":' + "[" * depth + "]" * depth + "}}")


@pytest.mark.parametrize("frame", ["", "{", b"\xff", "5", "[]", "{}", '{"type":5}', '{"a":1}', "[" * 100_000])
def test_what_is_no_event_is_the_servers_mistake(frame):
    with pytest.raises(RemoteProtocolError):
        decode(frame)


# --- never raises -----------------------------------------------------------------------------------------------------


@settings(max_examples=500, deadline=None)
@given(damaged([json.loads(write(event)) for event in SERVER_EVENTS]))
def test_no_damaged_event_raises(fields):
    event = decode(json.dumps(fields))
    assert event.raw == json.dumps(fields).encode()
    if isinstance(event, ev.Unknown):
        assert event.fields == fields
    else:
        assert event.type == fields["type"]
        assert isinstance(ServerCodec().encode(event), (bytes, type(None)))


@settings(max_examples=100, deadline=None)
@given(st.text() | st.binary())
@example('"type"')
def test_other_messages_are_the_servers_mistake(frame):
    with pytest.raises(RemoteProtocolError):
        decode(frame)


def test_absent_stays_absent():
    event = decode(type="conversation.item.added", item={"type": "function_call", "name": "f", "arguments": ""})
    assert event.previous_item_id is UNSET
    assert event.item.id is UNSET
