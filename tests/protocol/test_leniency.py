"""What is forgiven, and nothing beside it."""

import json

import pytest

from vivavoce.protocol import config, items
from vivavoce.protocol import events as ev
from vivavoce.protocol.codec import ServerCodec, TranslationServerCodec
from vivavoce.protocol.events import ErrorDetail

MISSING, UNKNOWN, VALUE, TYPE = "missing_required_parameter", "unknown_parameter", "invalid_value", "invalid_type"
DIALECTS = ("ga", "beta")


def hear(dialect, **fields):
    return ServerCodec(dialect).decode(json.dumps({"event_id": "e1", **fields}))


def create(item, **more):
    return {"type": "conversation.item.create", "item": item, **more}


def respond(**response):
    return {"type": "response.create", "response": response}


def said_by(role, *parts, **more):
    return {"type": "message", "role": role, "content": list(parts), **more}


# --- turn detection ---------------------------------------------------------------------------------------------------

OFF = {
    "ga": [
        {"type": "session.update", "session": {"type": kind, "audio": {"input": {"turn_detection": False}}}}
        for kind in ("realtime", "transcription")
    ],
    "beta": [
        {"type": kind, "session": {"turn_detection": False}}
        for kind in ("session.update", "transcription_session.update")
    ],
}


@pytest.mark.parametrize(("dialect", "fields"), [(dialect, fields) for dialect in DIALECTS for fields in OFF[dialect]])
def test_turn_detection_false_is_null(dialect, fields):
    event = hear(dialect, **fields)
    assert event.session.audio.input == config.AudioInput(turn_detection=None)
    assert event.event_id == "e1"


@pytest.mark.parametrize("value", [True, 0, "none", []])
def test_nothing_else_of_the_wrong_type_is(value):
    error = hear("beta", type="session.update", session={"turn_detection": value})
    assert (error.code, error.param) == (TYPE, "session.turn_detection")
    session = {"type": "realtime", "audio": {"input": {"turn_detection": value}}}
    error = hear("ga", type="session.update", session=session)
    assert (error.code, error.param) == (TYPE, "session.audio.input.turn_detection")


def test_false_somewhere_else_is_wrong():
    error = hear("ga", type="session.update", session={"type": "realtime", "audio": {"input": False}})
    assert (error.code, error.param) == (TYPE, "session.audio.input")
    error = hear("ga", type="session.update", session={"type": "realtime", "turn_detection": False})
    assert (error.code, error.param) == (UNKNOWN, "session.turn_detection")


# --- items ------------------------------------------------------------------------------------------------------------

TEXT = {"type": "text", "text": "hi"}
OUTPUT_TEXT = {"type": "output_text", "text": "hi"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_text_of_an_assistant_goes_by_either_name(dialect):
    message = items.Message(role="assistant", content=(items.OutputText(text="hi"), items.OutputText(text="hi")))
    assert hear(dialect, **create(said_by("assistant", TEXT, OUTPUT_TEXT))).item == message
    history = respond(input=[{"type": "item_reference", "id": "a"}, said_by("assistant", TEXT, TEXT)])
    assert hear(dialect, **history).response.input[1] == message


@pytest.mark.parametrize("dialect", DIALECTS)
def test_only_an_assistant_is_forgiven(dialect):
    assert hear(dialect, **create(said_by("user", TEXT))).param == "item.content[0].type"


def test_what_is_wrong_behind_the_forgiven_is_still_wrong():
    error = hear("ga", **create(said_by("assistant", TEXT, {"type": "hologram"})))
    assert (error.code, error.param, error.event_id) == (VALUE, "item.content[1].type", "e1")
    # The second reading goes through everything, and finds what cannot be read.
    item = json.dumps(said_by("assistant", TEXT))
    error = ServerCodec().decode(f'{{"type":"conversation.item.create","item":{item},"x":1e999}}')
    assert error.code == "invalid_json"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "item",
    [
        said_by("user", {"type": "input_text", "text": "hi"}),
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
        {"type": "function_call_output", "call_id": "c", "output": ""},
    ],
    ids=lambda item: item["type"],
)
@pytest.mark.parametrize(
    "stated",
    [
        {"object": "realtime.item", "status": "completed"},
        {"object": "conversation.item", "status": "done"},
        {"object": None, "status": None},
        {"object": 5},
        {"status": []},
    ],
)
def test_what_a_client_says_about_object_and_status_does_not_matter(dialect, item, stated):
    plain = {key: hear(dialect, **event) for key, event in (("item", create(item)), ("input", respond(input=[item])))}
    assert not [event for event in plain.values() if isinstance(event, ErrorDetail)]
    said = hear(dialect, **create(item | stated))
    for name in ("object", "status"):
        if stated.get(name) not in ("realtime.item", "completed"):
            assert getattr(said.item, name) is ev.UNSET
    assert said.item.id is ev.UNSET
    assert len(hear(dialect, **respond(input=[item | stated])).response.input) == 1


def test_items_of_mcp_may_state_them_as_well():
    item = {"type": "mcp_approval_response", "approval_request_id": "a", "approve": True}
    plain = hear("ga", **create(item))
    assert hear("ga", **create(item | {"object": "realtime.item", "status": "completed"})) == plain


# --- responses, translation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_instructions_may_be_said_by_null(dialect):
    metadata = {"mine": "1"}
    event = hear(dialect, **respond(instructions=None, metadata=metadata))
    assert event == hear(dialect, **respond(metadata=metadata))
    assert (event.event_id, event.response.instructions) == ("e1", ev.UNSET)
    error = hear(dialect, **respond(instructions=5))
    assert (error.code, error.param) == (TYPE, "response.instructions")
    session = {"type": "realtime", "instructions": None} if dialect == "ga" else {"instructions": None}
    error = hear(dialect, type="session.update", session=session)
    assert (error.code, error.param) == (TYPE, "session.instructions")


def test_fields_of_an_old_sample_are_passed_over_in_beta_alone():
    event = hear("beta", **respond(commit=True, cancel_previous=True, instructions="Hi"))
    assert event.response == ev.ResponseParams(instructions="Hi")
    error = hear("ga", **respond(commit=True))
    assert (error.code, error.param) == (UNKNOWN, "response.commit")


def test_several_things_are_forgiven_in_one_message():
    item = said_by("user", {"type": "input_text", "text": "hi"}, status="done", object="x")
    event = hear("beta", **respond(commit=True, cancel_previous=False, input=[item]))
    assert event.response.input[0].content == (items.InputText(text="hi"),)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_transcription_may_leave_the_model_to_the_server(dialect):
    session = (
        {"type": "realtime", "audio": {"input": {"transcription": {}}}}
        if dialect == "ga"
        else {"input_audio_transcription": {}}
    )
    assert hear(dialect, type="session.update", session=session).session.audio.input.transcription is not None


def test_a_translation_does_not_need_the_language_of_the_source():
    def said(**transcription):
        session = {"audio": {"input": {"transcription": transcription}}}
        return TranslationServerCodec().decode(json.dumps({"type": "session.update", "session": session}))

    assert said(model="m", language="en") == said(model="m")
    assert said(model="m", languages=["en"]).param == "session.audio.input.transcription.languages"
    assert said(language="en").code == MISSING
