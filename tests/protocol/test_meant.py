"""What an error says to a client that used a word of another vocabulary, or misspelt one."""

import json

import pytest

from vivavoce.protocol.codec import ServerCodec, TranslationServerCodec
from vivavoce.protocol.dialects import beta
from vivavoce.protocol.meant import NAME_CHARS_MAX
from vivavoce.protocol.violations import LARGE_CHARS

UNKNOWN, VALUE = "unknown_parameter", "invalid_value"


def refused(codec, **fields):
    """The error that answers an event, code and param included."""
    return codec.decode(json.dumps(fields | {"event_id": "e1"}))


EVENTS = [
    ("conversation.create", "Did you mean 'session.update'?"),
    ("available_functions.create", "Did you mean 'session.update' with 'session.tools'?"),
    ("audio", "Did you mean 'input_audio_buffer.append'?"),
    ("text", "Did you mean 'conversation.item.create', followed by 'response.create'?"),
    (
        "function.response",
        "Did you mean 'conversation.item.create' with an item of type 'function_call_output', followed by "
        "'response.create'?",
    ),
    ("function.call", "'function.call' is for the server to say."),
    ("content_block.delta", "'content_block.delta' is for the server to say."),
    ("response.done", "'response.done' is for the server to say."),
    ("response.text.delta", "'response.text.delta' is for the server to say."),
    ("response.output_text.delta", "'response.output_text.delta' is for the server to say."),
    ("response.created", "'response.created' is for the server to say. Did you mean 'response.create'?"),
    ("session.updated", "'session.updated' is for the server to say. Did you mean 'session.update'?"),
    (
        "input_audio_buffer.committed",
        "'input_audio_buffer.committed' is for the server to say. Did you mean 'input_audio_buffer.commit'?",
    ),
    ("sesion.update", "Did you mean 'session.update'?"),
    ("session_update", "Did you mean 'session.update'?"),
    ("Response.Create", "Did you mean 'response.create'?"),
    ("conversation.items.create", "Did you mean 'conversation.item.create'?"),
    ("input_audio_buffer.appnd", "Did you mean 'input_audio_buffer.append'?"),
    ("session.close", "It belongs to translation sessions. To end this one, close the connection."),
    (
        "session.input_audio_buffer.append",
        "It belongs to translation sessions. Did you mean 'input_audio_buffer.append'?",
    ),
    (
        "output_audio_buffer.clear",
        "It is for connections on which the server plays what it says, such as WebRTC.",
    ),
]


@pytest.mark.parametrize("dialect", ["ga", "beta"])
@pytest.mark.parametrize(("name", "says"), EVENTS)
def test_an_event_of_another_vocabulary_gets_the_list_and_what_was_meant(dialect, name, says):
    error = refused(ServerCodec(dialect), type=name)
    assert (error.code, error.param, error.event_id) == (VALUE, "type", "e1")
    assert error.message.startswith(f"Invalid value: '{name}'. Supported values are: 'session.update', ")
    assert error.message.endswith(f"'response.cancel'. {says}") or error.message.endswith(f"_buffer.clear'. {says}")


def test_betas_transcription_update_has_another_name_in_ga():
    error = refused(ServerCodec(), type="transcription_session.update")
    assert error.message.endswith("Did you mean 'session.update' with the 'session.type' 'transcription'?")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("input_audio_buffer.append", "Did you mean 'session.input_audio_buffer.append'?"),
        ("session.closed", "'session.closed' is for the server to say. Did you mean 'session.close'?"),
    ],
)
def test_translation_sessions_say_what_was_meant(name, says):
    assert refused(TranslationServerCodec(), type=name).message.endswith(f"'session.close'. {says}")
    assert "Did you mean" not in refused(TranslationServerCodec(), type="response.create").message


@pytest.mark.parametrize("name", ["nope", "", "x" * 100_000, "response.create" + "x" * NAME_CHARS_MAX])
def test_nothing_is_guessed_where_nothing_is_near(name):
    error = refused(ServerCodec(), type=name)
    assert error.message.endswith("and 'response.cancel'.")
    error = refused(ServerCodec(), type="response.cancel", **{name: 1})
    assert "Did you mean" not in error.message


def update(**session):
    return {"type": "session.update", "session": session}


def respond(**response):
    return {"type": "response.create", "response": response}


@pytest.mark.parametrize(
    ("row", "root", "event"),
    [(row, "session", update) for row in beta.SESSION] + [(row, "response", respond) for row in beta.REQUEST],
    ids=lambda part: part.name if hasattr(part, "name") else "",
)
def test_every_parameter_of_beta_is_found_in_ga(row, root, event):
    if row.ga in ((), (row.name,)):
        return  # for REST alone, or the same
    more = {"type": "realtime"} if root == "session" else {}
    error = refused(ServerCodec(), **event(**more, **{row.name: None}))
    assert (error.code, error.param, error.event_id) == (UNKNOWN, f"{root}.{row.name}", "e1")
    if row.name == "temperature":
        assert error.message.endswith("Another dialect has it; this one has nothing of the kind.")
    else:
        assert error.message.endswith(f"Did you mean '{'.'.join((root, *row.ga))}'?")


@pytest.mark.parametrize(
    ("event", "param", "says"),
    [
        (update(output_modalities=["text"]), "session.output_modalities", "Did you mean 'session.modalities'?"),
        (
            update(max_output_tokens=5),
            "session.max_output_tokens",
            "Did you mean 'session.max_response_output_tokens'?",
        ),
        (update(audio={"output": {"voice": "verse"}}), "session.audio", "Did you mean 'session.voice'?"),
        (
            update(audio={"input": {"turn_detection": None, "format": {}}}),
            "session.audio",
            "Did you mean 'session.input_audio_format' or 'session.turn_detection'?",
        ),
        (respond(audio={}), "response.audio", "Did you mean 'response.voice' or 'response.output_audio_format'?"),
        (update(reasoning={}), "session.reasoning", "Another dialect has it; this one has nothing of the kind."),
        (update(type="realtime"), "session.type", "Another dialect has it; this one has nothing of the kind."),
        (respond(parallel_tool_calls=True), "response.parallel_tool_calls", "Another dialect has it"),
    ],
)
def test_parameters_of_ga_are_found_in_beta(event, param, says):
    error = refused(ServerCodec("beta"), **event)
    assert (error.code, error.param, error.event_id) == (UNKNOWN, param, "e1")
    assert says in error.message


@pytest.mark.parametrize(
    ("event", "param", "meant"),
    [
        (update(type="realtime", instruction="x"), "session.instruction", "session.instructions"),
        (
            update(type="realtime", audio={"input": {"transcripton": {}}}),
            "session.audio.input.transcripton",
            "session.audio.input.transcription",
        ),
        (
            update(type="realtime", tools=[{"type": "function", "name": "f", "Parameters": {}}]),
            "session.tools[0].Parameters",
            "session.tools[0].parameters",
        ),
        ({"type": "response.cancel", "responseid": "r"}, "responseid", "response_id"),
        ({"type": "conversation.item.delete", "itemid": "i", "item_id": "i"}, "itemid", "item_id"),
    ],
)
def test_a_misspelt_parameter_is_found(event, param, meant):
    error = refused(ServerCodec(), **event)
    assert (error.code, error.param) == (UNKNOWN, param)
    assert error.message == f"Unknown parameter: '{param}'. Did you mean '{meant}'?"


def test_only_what_may_stand_there_is_offered():
    """`item_id` is a parameter of another event, `threshold` of another kind of turn detection."""
    error = refused(ServerCodec(), type="response.cancel", itemid="i")
    assert error.message == "Unknown parameter: 'itemid'."
    vad = {"type": "semantic_vad", "treshold": 0.5}
    error = refused(ServerCodec(), **update(type="realtime", audio={"input": {"turn_detection": vad}}))
    assert error.message == "Unknown parameter: 'session.audio.input.turn_detection.treshold'."


def test_a_long_message_is_not_looked_at_again_and_again():
    error = refused(ServerCodec(), **update(type="realtime", instruction="x" * LARGE_CHARS))
    assert (error.code, error.message) == (UNKNOWN, "Unknown parameter: 'session.instruction'.")


def test_our_own_names_are_not_offered():
    error = refused(ServerCodec(), **update(type="realtime", **{"vivavoce.temperatur": 1}))
    assert error.message == "Unknown parameter: 'session.vivavoce.temperatur'."
