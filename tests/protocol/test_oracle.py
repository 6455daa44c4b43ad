"""Our vocabulary against the types of the public client, which we did not write."""

from typing import get_args

import msgspec
import openai.types.beta.realtime as beta_types
import openai.types.realtime as ga_types
import pydantic
import pytest
from openai.types.beta.realtime.transcription_session_update import TranscriptionSessionUpdate
from openai.types.realtime.realtime_session_create_response import RealtimeSessionCreateResponse
from openai.types.realtime.realtime_transcription_session_create_response import (
    RealtimeTranscriptionSessionCreateResponse,
)
from protocol_oracle import differences, models, surplus, type_name
from protocol_samples import every

from vivavoce.protocol import config, items, shapes
from vivavoce.protocol import events as ev
from vivavoce.protocol import translation as tr
from vivavoce.protocol.codec import ClientCodec, ServerCodec, TranslationClientCodec, TranslationServerCodec
from vivavoce.protocol.dialects import beta_events

GA_SERVER = {type_name(model): model for model in models(ga_types.RealtimeServerEvent)}
GA_CLIENT = {type_name(model): model for model in models(ga_types.RealtimeClientEvent)}
BETA_SERVER = {type_name(model): model for model in models(beta_types.RealtimeServerEvent)}
BETA_CLIENT = {type_name(model): model for model in models(beta_types.RealtimeClientEvent)}
TRANSLATION_SERVER = {type_name(model): model for model in models(ga_types.RealtimeTranslationServerEvent)}
TRANSLATION_CLIENT = {type_name(model): model for model in models(ga_types.RealtimeTranslationClientEvent)}

# MCP items have an id there in every place; ours may still be without one when a client makes them.
ITEM_IDS = {
    "conversation.item.created.item.id",
    "conversation.item.added.item.id",
    "conversation.item.done.item.id",
    "conversation.item.retrieved.item.id",
    "conversation.item.create.item.id",
    "response.create.response.input.id",
    "response.created.response.output.id",
    "response.done.response.output.id",
    "response.output_item.added.item.id",
    "response.output_item.done.item.id",
}
ALLOWED = {f"{path}: required there, optional here" for path in ITEM_IDS} | {
    # Beta has this event without the name.
    "response.function_call_arguments.done.name: required there, optional here",
}


def named(union):
    return {shapes.tag(struct): struct for struct in get_args(union)}


def all_differences(theirs, ours):
    return {line for name, model in theirs.items() for line in differences(model, [ours[name]], name)}


@pytest.mark.parametrize(
    ("theirs", "ours", "count"),
    [
        (GA_SERVER, ev.AnyServerEvent, 46),
        (GA_CLIENT, ev.AnyClientEvent, 11),
        (TRANSLATION_SERVER, tr.TranslationServerEvent, 7),
        (TRANSLATION_CLIENT, tr.TranslationClientEvent, 3),
        (BETA_CLIENT, beta_events.ClientEvent, 12),
    ],
)
def test_the_names_of_the_events_are_theirs(theirs, ours, count):
    assert set(theirs) == set(named(ours))
    assert len(theirs) == count


def test_every_field_of_ga_is_ours_and_as_required():
    found = all_differences(GA_SERVER, named(ev.AnyServerEvent)) | all_differences(GA_CLIENT, named(ev.AnyClientEvent))
    assert found == ALLOWED


def test_every_field_of_translation_sessions_is_ours_and_as_required():
    assert not all_differences(TRANSLATION_SERVER, named(tr.TranslationServerEvent))
    assert not all_differences(TRANSLATION_CLIENT, named(tr.TranslationClientEvent))


def test_translation_sessions_have_no_field_of_ours_alone():
    for theirs, ours in (
        (TRANSLATION_SERVER, named(tr.TranslationServerEvent)),
        (TRANSLATION_CLIENT, named(tr.TranslationClientEvent)),
    ):
        found = {line for name, model in theirs.items() for line in surplus(model, [ours[name]], name)}
        assert not found


def test_every_field_that_a_beta_client_sends_is_ours():
    assert all_differences(BETA_CLIENT, named(beta_events.ClientEvent)) == {
        # A part may be an `item_reference` there, with an `id`; GA has no such part.
        "conversation.item.create.item.content.id: missing",
        "response.create.response.input.content.id: missing",
        # For REST; here it is taken and not looked at.
        "session.update.session.client_secret: no struct",
        "transcription_session.update.session.client_secret: no struct",
    }


def test_the_only_field_of_an_event_that_is_ours_alone_is_an_optional_event_id():
    surplus = {
        f"{name}.{field}"
        for name, struct in (named(ev.AnyServerEvent) | named(ev.AnyClientEvent)).items()
        for field in shapes.fields(struct)
        if field not in (GA_SERVER | GA_CLIENT)[name].model_fields
    }
    assert surplus == {"input_audio_buffer.dtmf_event_received.event_id"}


@pytest.mark.parametrize(
    ("model", "struct"),
    [
        (RealtimeSessionCreateResponse, config.RealtimeSessionResource),
        (RealtimeTranscriptionSessionCreateResponse, config.TranscriptionSessionResource),
        (ga_types.RealtimeResponse, items.Response),
        (ga_types.RealtimeTranslationSession, tr.TranslationSessionResource),
    ],
)
def test_the_resources_have_every_field_of_theirs(model, struct):
    found = {line for line in differences(model, [struct], "") if not line.endswith("required there, optional here")}
    assert not found


# What beta has no types for; and the tool choice, which is any object there and a string in the client's types.
NOT_BETA = frozenset(
    {
        *(struct for struct in get_args(items.Item) if struct.__name__.startswith("Mcp")),
        config.McpTool,
        config.ToolChoiceMcp,
        config.ToolChoiceFunction,
        items.InputImage,
    }
)


# --- what we write is what they read ----------------------------------------------------------------------------------


def is_early(event):
    """Limits that beta states and GA does not."""
    return isinstance(event, ev.RateLimitsUpdated) and "requests" in [limit.name for limit in event.rate_limits]


@pytest.mark.parametrize("event", every(get_args(ev.AnyServerEvent)), ids=lambda event: event.type)
def test_what_a_ga_server_writes_validates(event):
    frame = ServerCodec().encode(event)
    if event.type in ("conversation.created", "conversation.item.created") or is_early(event):
        assert frame is None
        return
    GA_SERVER[event.type].model_validate_json(frame)


@pytest.mark.parametrize("event", every(get_args(ev.AnyServerEvent), NOT_BETA), ids=lambda event: event.type)
def test_what_a_beta_server_writes_validates(event):
    frame = ServerCodec("beta").encode(event)
    name = None if frame is None else msgspec.json.decode(frame)["type"]
    if name == "transcription_session.updated":
        # The client secret is there only where a session is made over REST, though the types ask for it.
        with pytest.raises(pydantic.ValidationError) as caught:
            BETA_SERVER[name].model_validate_json(frame)
        assert [error["loc"] for error in caught.value.errors()] == [("session", "client_secret")]
    elif name in BETA_SERVER:
        BETA_SERVER[name].model_validate_json(frame)
    else:
        assert name is None or name == "transcription_session.created"


def test_a_beta_server_can_say_every_beta_event():
    codec = ServerCodec("beta")
    frames = [codec.encode(event) for event in every(get_args(ev.AnyServerEvent))]
    said = {msgspec.json.decode(frame)["type"] for frame in frames if frame is not None}
    # The first of a transcription session is not in the client's types, and in the specification.
    assert said == set(BETA_SERVER) | {"transcription_session.created"}


@pytest.mark.parametrize("event", every(get_args(tr.TranslationServerEvent)), ids=lambda event: event.type)
def test_what_a_translation_server_writes_validates(event):
    TRANSLATION_SERVER[event.type].model_validate_json(TranslationServerCodec().encode(event))


# A reference among the items of a response is in the guides and in the beta types, and not in these (§8.56).
@pytest.mark.parametrize(
    "event", every(get_args(ev.AnyClientEvent), frozenset({items.ItemReference})), ids=lambda event: event.type
)
def test_what_a_ga_client_writes_validates(event):
    GA_CLIENT[event.type].model_validate_json(ClientCodec().encode(event))


@pytest.mark.parametrize("event", every(get_args(tr.TranslationClientEvent)), ids=lambda event: event.type)
def test_what_a_translation_client_writes_validates(event):
    TRANSLATION_CLIENT[event.type].model_validate_json(TranslationClientCodec().encode(event))


def test_the_beta_transcription_update_is_theirs():
    update = ev.SessionUpdate(
        session=config.TranscriptionSession(
            audio=config.TranscriptionAudioConfig(
                input=config.AudioInput(
                    format=config.PcmuFormat(),
                    transcription=config.Transcription(model="whisper-1"),
                    turn_detection=config.SemanticVad(eagerness="low"),
                )
            )
        )
    )
    read = TranscriptionSessionUpdate.model_validate_json(ClientCodec("beta").encode(update))
    assert read.session.input_audio_format == "g711_ulaw"
    assert read.session.turn_detection.eagerness == "low"
